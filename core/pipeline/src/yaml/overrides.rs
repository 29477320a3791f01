//! `--set key=value`: replaces or adds a value of the tree before anything is checked. The key is a dotted path, a part with dots in double quotes:
//! `sources.in.with."bootstrap.servers"=kafka:9092`; the value is YAML.

use super::{Data, Entry, Node, parse};
use crate::diagnostic::{Report, Span};

/// Applies an override; what cannot be is in the report.
pub(crate) fn set(root: &mut Node, key: &str, value: &str, source: u16, report: &Report) {
    let span = Span { source, line: 1, column: 1 };
    let Some(parts) = parts(key) else {
        return report.error(span, "", format!("{key:?} is no path of keys, such as sinks.out.with.path"));
    };
    let value = if value.trim().is_empty() { "''" } else { value };
    if ["null", "~"].contains(&value.trim()) {
        return report.error(span, "", format!("{key:?} gets null, which is no value: leave it out of the file, or give it another one"));
    }
    let Some(mut value) = parse(value, source, report) else { return };
    move_to(&mut value, span);
    if let Err(message) = place(root, &parts, value, span) {
        report.error(span, "", message);
    }
}

/// A value of the command line has one place: its option.
fn move_to(node: &mut Node, span: Span) {
    node.span = span;
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| move_to(item, span)),
        Data::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.key_span = span;
            move_to(&mut entry.value, span);
        }),
    }
}

fn parts(key: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = key;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at_checked(rest.find('.').unwrap_or(rest.len()))?,
        };
        if part.is_empty() {
            return None;
        }
        parts.push(part.to_owned());
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

fn place(node: &mut Node, parts: &[String], value: Node, span: Span) -> Result<(), String> {
    let Some((part, rest)) = parts.split_first() else {
        *node = value;
        return Ok(());
    };
    let what = node.kind();
    match &mut node.data {
        Data::Map(entries) => {
            let at = entries.iter().position(|entry| entry.key == *part).unwrap_or_else(|| {
                let empty = Node { span, data: Data::Map(Vec::new()) };
                entries.push(Entry { key: part.clone(), key_span: span, plain: false, value: empty });
                entries.len() - 1
            });
            place(&mut entries[at].value, rest, value, span)
        }
        Data::List(items) => {
            let found = part.parse().ok().and_then(|index: usize| items.get_mut(index));
            place(found.ok_or_else(|| format!("there is no item {part:?}"))?, rest, value, span)
        }
        Data::Scalar(_) => Err(format!("there is no key {part:?} in {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(key: &str, value: &str) -> Result<serde_json::Value, String> {
        let report = Report::new(vec!["p.yaml".to_owned(), format!("--set {key}={value}")]);
        let mut root = parse("a: {b: 1, c.d: x}\nl: [1, 2]\n", 0, &report).unwrap();
        set(&mut root, key, value, 1, &report);
        report.check().map(|()| root.to_json()).map_err(|found| found.to_string())
    }

    #[test]
    fn values_are_replaced_and_added() {
        assert_eq!(with("a.b", "{x: [1]}").unwrap(), json!({"a": {"b": {"x": [1]}, "c.d": "x"}, "l": [1, 2]}));
        assert_eq!(with("a.\"c.d\"", "y").unwrap(), json!({"a": {"b": 1, "c.d": "y"}, "l": [1, 2]}));
        assert_eq!(with("l.1", "'3'").unwrap(), json!({"a": {"b": 1, "c.d": "x"}, "l": [1, "3"]}));
        assert_eq!(with("m.n", "").unwrap(), json!({"a": {"b": 1, "c.d": "x"}, "l": [1, 2], "m": {"n": ""}}));
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        assert_eq!(with("a.b.c", "1").unwrap_err(), "--set a.b.c=1: there is no key \"c\" in a whole number");
        assert_eq!(with("l.7", "1").unwrap_err(), "--set l.7=1: there is no item \"7\"");
        assert_eq!(with("a..b", "1").unwrap_err(), "--set a..b=1: \"a..b\" is no path of keys, such as sinks.out.with.path");
        assert_eq!(
            with("a", " null").unwrap_err(),
            "--set a= null: \"a\" gets null, which is no value: leave it out of the file, or give it another one"
        );
        assert!(with("a", "[1").unwrap_err().starts_with("--set a=[1: "));
    }
}
