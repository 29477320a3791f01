//! Expressions that YAML has torn apart: in `{x: coalesce(a, b)}` the comma ends the value, which leaves `coalesce(a` and a key `b)`. Such a scalar is found by its
//! unbalanced parentheses, before anything else is said about the pieces. `with:` belongs to the plugins and is left alone.

use super::{Data, Node};
use crate::diagnostic::Report;

/// Reports the plain keys and values with unbalanced parentheses.
pub(crate) fn find_torn_expressions(root: &Node, report: &Report) {
    find(root, "", 0, report);
}

fn find(node: &Node, path: &str, depth: usize, report: &Report) {
    match &node.data {
        Data::Scalar(scalar) => {
            if scalar.plain && !is_balanced(&scalar.written) {
                torn(report, node.span, path, &scalar.written);
            }
        }
        Data::List(items) => items.iter().enumerate().for_each(|(i, item)| find(item, &format!("{path}[{i}]"), depth + 1, report)),
        Data::Map(entries) => {
            for entry in entries.iter().filter(|entry| depth != super::WITH_DEPTH || entry.key != "with") {
                if entry.plain && !is_balanced(&entry.key) {
                    torn(report, entry.key_span, path, &entry.key);
                }
                find(&entry.value, &super::join(path, &entry.key), depth + 1, report);
            }
        }
    }
}

fn torn(report: &Report, span: crate::diagnostic::Span, path: &str, text: &str) {
    report.error_with_hint(span, path, format!("unbalanced parenthesis in {text:?}"), "put the expression in quotes");
}

fn is_balanced(text: &str) -> bool {
    let mut depth = 0_i32;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn a_torn_expression_gets_the_hint_at_its_pieces() {
        let report = Report::new(vec!["p.yaml".to_owned()]);
        let text = "transforms:\n  t: {select: {x: coalesce(a, b), y: 'lower(', n: count(*), z: \"a ')' b\"}, with: {smile: ':)', s: (}}\n";
        let root = parse(text, 0, &report).unwrap();
        find_torn_expressions(&root, &report);
        assert_eq!(
            report.check().unwrap_err().to_string(),
            "p.yaml:2:19: transforms.t.select.x: unbalanced parenthesis in \"coalesce(a\": put the expression in quotes\n\
             p.yaml:2:31: transforms.t.select: unbalanced parenthesis in \"b)\": put the expression in quotes"
        );
    }
}
