//! `${ENV}` and `${file:PATH}` in texts; `$${` stands for `${`. What comes out is secret: it is used, and never printed.
//!
//! The host's own texts are substituted once, after parsing. Those of a plugin's `with:` stay as written: the plugin fetches them through the host, which calls
//! [`resolve`], again when they rotate; at load they are only tried, so that `check` finds what is missing. Settings of a plugin (`config_settings`) are resolved by
//! the planner.

use crate::{
    diagnostic::Report,
    yaml::{Data, Node, Value, WITH_DEPTH, join},
};
use std::{borrow::Cow, fs::File, io::ErrorKind, io::Read};

/// Bytes of a text with its references resolved, and of a file that one stands for: nobody's secret is longer, and `/dev/zero` has no end.
const LONGEST: usize = 16 << 20;

/// The text with its references resolved, and a number that changes when the values do.
///
/// # Errors
/// One line that names the variable or file that is missing, never a value.
pub fn resolve(text: &str) -> Result<(String, u64), String> {
    resolve_each(text, |_, _| {})
}

/// As [`resolve`]; `each` is told every reference as written, `${PASSWORD}`, and what it stands for.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_each(text: &str, mut each: impl FnMut(&str, &str)) -> Result<(String, u64), String> {
    let resolved = substituted(text, &mut each)?;
    let version = xxhash_rust::xxh3::xxh3_64(resolved.as_bytes());
    Ok((resolved.into_owned(), version))
}

/// What a setting of a plugin stands for.
pub(crate) fn setting(text: &str) -> Result<String, String> {
    substituted(text, &mut |_, _| {}).map(Cow::into_owned)
}

fn substituted<'a>(text: &'a str, each: &mut dyn FnMut(&str, &str)) -> Result<Cow<'a, str>, String> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        let (reference, after) =
            after.split_once('}').ok_or("a reference ${ without its closing }; write $${ for the characters themselves")?;
        out.push_str(before);
        let value = value_of(reference)?;
        each(&format!("${{{reference}}}"), &value);
        if out.len().saturating_add(value.len()) > LONGEST {
            return Err(format!("with ${{{reference}}} the text has more than {} MiB", LONGEST >> 20));
        }
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn value_of(reference: &str) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        let read = || {
            let mut content = String::new();
            File::open(path)?.take(LONGEST as u64 + 1).read_to_string(&mut content).map(|_| content)
        };
        let content = read().map_err(|error| format!("${{{reference}}}: cannot read the file: {}", io_problem(&error)))?;
        if content.len() > LONGEST {
            return Err(format!("${{{reference}}}: the file has more than {} MiB", LONGEST >> 20));
        }
        return Ok(content.strip_suffix('\n').map_or(content.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)).to_owned());
    }
    let is_name = !reference.is_empty() && reference.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!("${{{reference}}} is neither ${{NAME}} nor ${{file:PATH}}; write $${{ for the characters themselves"));
    }
    std::env::var(reference).map_err(|_| format!("the environment variable {reference} is not set"))
}

/// What went wrong with a file, in a few words.
pub(crate) fn io_problem(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is none".to_owned(),
        ErrorKind::PermissionDenied => "no permission".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::InvalidData => "not UTF-8 text".to_owned(),
        kind => kind.to_string(),
    }
}

/// Substitutes in the texts of a file; those of `with:` are only tried. What is missing is in the report.
pub(crate) fn apply(root: &mut Node, report: &Report) {
    walk(root, "", 0, false, report);
}

fn walk(node: &mut Node, path: &str, depth: usize, plugin: bool, report: &Report) {
    match &mut node.data {
        Data::Scalar(scalar) => {
            let Value::Text(text) = &mut scalar.value else { return };
            match substituted(text, &mut |_, _| {}) {
                Ok(Cow::Owned(resolved)) if !plugin => {
                    scalar.secret = scalar.written.replace("$${", "${") != resolved;
                    *text = resolved;
                }
                Ok(_) => {}
                Err(message) => report.error(node.span, path, message),
            }
        }
        Data::List(items) => {
            items.iter_mut().enumerate().for_each(|(i, item)| walk(item, &format!("{path}[{i}]"), depth + 1, plugin, report))
        }
        Data::Map(entries) => entries.iter_mut().for_each(|entry| {
            let plugin = plugin || (depth == WITH_DEPTH && entry.key == "with");
            walk(&mut entry.value, &join(path, &entry.key), depth + 1, plugin, report);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn references_are_resolved_and_escapes_undone() {
        let home = std::env::var("PATH").unwrap();
        assert_eq!(resolve("a ${PATH}-$${PATH} $PATH").unwrap().0, format!("a {home}-${{PATH}} $PATH"));
        assert_eq!(resolve("plain").unwrap().0, "plain");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "hunter2\n").unwrap();
        let text = format!("${{file:{}}}!", file.display());
        let (value, version) = resolve(&text).unwrap();
        assert_eq!(value, "hunter2!");
        assert_eq!(resolve(&text).unwrap().1, version);
        std::fs::write(&file, "hunter3\r\n").unwrap();
        let (rotated, later) = resolve(&text).unwrap();
        assert_eq!(rotated, "hunter3!");
        assert_ne!(later, version);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(resolve("${STANDPIPE_NO_SUCH}").unwrap_err(), "the environment variable STANDPIPE_NO_SUCH is not set");
        assert_eq!(resolve("${file:/no/such}").unwrap_err(), "${file:/no/such}: cannot read the file: there is none");
        assert_eq!(resolve("${file:/dev/zero}").unwrap_err(), "${file:/dev/zero}: the file has more than 16 MiB");
        assert_eq!(resolve("${a").unwrap_err(), "a reference ${ without its closing }; write $${ for the characters themselves");
        assert_eq!(resolve("${a b}").unwrap_err(), "${a b} is neither ${NAME} nor ${file:PATH}; write $${ for the characters themselves");
    }

    #[test]
    fn a_plugins_texts_stay_as_written_but_are_tried() {
        let report = Report::new(vec!["p.yaml".to_owned()]);
        let text = "name: ${PATH}\nsinks:\n  with: {connector: '$${x}', with: {a: ['${PATH}', '${STANDPIPE_NO_SUCH}'], with: '$${y}'}}\n";
        let mut root = parse(text, 0, &report).unwrap();
        apply(&mut root, &report);
        assert_eq!(
            report.check().unwrap_err().to_string(),
            "p.yaml:3:52: sinks.with.with.a[1]: the environment variable STANDPIPE_NO_SUCH is not set"
        );
        let Data::Scalar(name) = &root.get("name").unwrap().value.data else { panic!() };
        assert_eq!(
            (name.value.clone(), name.written.as_str(), name.secret),
            (Value::Text(std::env::var("PATH").unwrap()), "${PATH}", true)
        );
        let sink = &root.get("sinks").unwrap().value.get("with").unwrap().value;
        let Data::Scalar(connector) = &sink.get("connector").unwrap().value.data else { panic!() };
        assert_eq!((connector.value.clone(), connector.secret), (Value::Text("${x}".to_owned()), false));
        let with = &sink.get("with").unwrap().value;
        assert_eq!(with.to_json()["a"][0], "${PATH}");
        assert_eq!(with.to_json()["with"], "$${y}");
    }
}
