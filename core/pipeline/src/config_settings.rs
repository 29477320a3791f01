//! References at places of a plugin's `with:` where its JSON Schema takes no free text, but a number, true or false, or one of some words: they are settings, as in the
//! host's own keys, and resolved before the plugin sees them. References in texts stay as written; the plugin fetches them through the host, again when they rotate.
//!
//! The planner calls [`resolved`] before `config_check` checks what it gives.

use crate::{
    config_check::{MAX_REFERENCES, type_names, words},
    file::With,
    substitute,
    yaml::{self, Data, Node, Value as Scalar},
};
use serde_json::Value;

/// The same configuration with its settings resolved. A reference that leads nowhere stays; it is reported where the file is read.
pub(crate) fn resolved(with: &With, schema: &Value) -> With {
    let mut node = with.node.clone();
    resolve(&mut node, &[schema], schema);
    With { node, span: with.span }
}

/// `schemas` are all that may describe the value.
fn resolve(node: &mut Node, schemas: &[&Value], root: &Value) {
    let mut all = Vec::new();
    schemas.iter().for_each(|schema| alternatives(schema, root, 0, &mut all));
    match &mut node.data {
        Data::Scalar(scalar) => {
            let Scalar::Text(text) = &scalar.value else { return };
            if !text.contains("${") || !is_setting(&all) {
                return;
            }
            let Ok(value) = substitute::setting(text) else { return };
            // A word stays one, though YAML might take it for something else.
            let is_word = all.iter().filter_map(|schema| words(schema.as_object()?)).any(|words| words.contains(&value));
            scalar.secret = true;
            scalar.value = if is_word { Scalar::Text(value) } else { yaml::resolve(&value) };
        }
        Data::List(items) => {
            let inner: Vec<&Value> = all.iter().filter_map(|schema| schema.get("items")).collect();
            items.iter_mut().for_each(|item| resolve(item, &inner, root));
        }
        Data::Map(entries) => entries.iter_mut().for_each(|entry| {
            let inner: Vec<&Value> = all.iter().filter_map(|schema| member(schema, &entry.key)).collect();
            resolve(&mut entry.value, &inner, root);
        }),
    }
}

/// The schema of a key of a map.
fn member<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get("properties").and_then(|known| known.get(key)).or_else(|| schema.get("additionalProperties"))
}

/// A schema, what it refers to and what it lets choose from.
fn alternatives<'a>(schema: &'a Value, root: &'a Value, depth: usize, all: &mut Vec<&'a Value>) {
    if depth > MAX_REFERENCES || all.iter().any(|known| std::ptr::eq(*known, schema)) {
        return;
    }
    all.push(schema);
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|name| root.pointer(name.strip_prefix('#')?));
    let choices = ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    target.into_iter().chain(choices).for_each(|inner| alternatives(inner, root, depth + 1, all));
}

/// Whether a value can only be a number, true or false, or one of some words. What says nothing of a type takes any text, unless others say more.
fn is_setting(schemas: &[&Value]) -> bool {
    let is_words = |schema: &Value| schema.as_object().is_some_and(|schema| words(schema).is_some());
    let has =
        |schema: &Value, names: &[&str]| schema.get("type").map(type_names).unwrap_or_default().iter().any(|name| names.contains(name));
    let takes_text = |schema: &&&Value| has(schema, &["string"]) && !is_words(schema);
    let says_more = |schema: &&&Value| is_words(schema) || has(schema, &["number", "integer", "boolean"]);
    !schemas.iter().any(|schema| takes_text(&schema)) && schemas.iter().any(|schema| says_more(&schema))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config_check,
        diagnostic::{Report, Span},
    };
    use serde_json::json;

    /// A reference to a file with that content.
    fn reference(dir: &tempfile::TempDir, name: &str, value: &str) -> String {
        std::fs::write(dir.path().join(name), value).unwrap();
        format!("${{file:{}}}", dir.path().join(name).display())
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "count": {"type": ["integer", "null"], "maximum": 5000},
                "ratio": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "follow": {"type": "boolean"},
                "start": {"$ref": "#/$defs/Start"},
                "wait": {"type": ["string", "integer"]},
                "path": {"type": "string"},
                "any": {},
                "ports": {"type": "array", "items": {"type": "integer"}},
                "properties": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "additionalProperties": false,
            "$defs": {"Start": {"oneOf": [{"const": "earliest"}, {"enum": ["1", "latest"]}, {"type": "object", "properties": {"offset": {"type": "integer"}}}]}},
        })
    }

    fn with(text: &str) -> With {
        let node = yaml::parse(text, 0, &Report::new(vec!["p.yaml".to_owned()])).unwrap();
        With { node, span: Span { source: 0, line: 9, column: 9 } }
    }

    /// The configuration, or what is wrong with it.
    fn checked(text: &str) -> Result<Value, String> {
        let report = Report::new(vec!["p.yaml".to_owned()]);
        let with = resolved(&with(text), &schema());
        config_check::check(&with, "with", &schema(), &report);
        report.check().map(|()| with.node.to_json()).map_err(|found| found.to_string())
    }

    #[test]
    fn settings_are_resolved_and_texts_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let [n, x, yes, word, one] = [("n", "4096"), ("x", "0.5"), ("yes", "true"), ("word", "latest"), ("one", "1")]
            .map(|(name, value)| reference(&dir, name, value));
        let text = format!(
            "{{count: '{n}', ratio: '{x}', follow: '{yes}', start: '{word}', wait: '{n}', path: '{n}', any: '{n}', ports: ['{n}', 2], properties: {{a: '{n}'}}}}"
        );
        let expected = json!({"count": 4096, "ratio": 0.5, "follow": true, "start": "latest", "wait": n, "path": n, "any": n, "ports": [4096, 2], "properties": {"a": n}});
        assert_eq!(checked(&text), Ok(expected));
        assert_eq!(checked(&format!("{{start: '{one}'}}")), Ok(json!({"start": "1"})), "a word is a text");
        assert_eq!(checked(&format!("{{start: {{offset: '{one}'}}}}")), Ok(json!({"start": {"offset": 1}})));
    }

    #[test]
    fn a_schema_that_refers_to_itself_twice_ends() {
        let schema = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}], "properties": {"a": {"$ref": "#"}}});
        assert_eq!(resolved(&with("{a: {a: 1}}"), &schema).node.to_json(), json!({"a": {"a": 1}}));
    }

    #[test]
    fn a_setting_that_does_not_fit_names_the_reference_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, large) = (reference(&dir, "secret", "hunter2"), reference(&dir, "large", "70000"));
        for (text, path, message) in [
            ("{count: 'REF'}", "count", "expected a whole number, which is not what \"REF\" stands for"),
            ("{ratio: 'REF'}", "ratio", "expected a number, which is not what \"REF\" stands for"),
            ("{follow: 'REF'}", "follow", "expected true or false, which is not what \"REF\" stands for"),
            ("{ports: [1, 'REF']}", "ports[1]", "expected a whole number, which is not what \"REF\" stands for"),
        ] {
            let found = checked(&text.replace("REF", &secret)).unwrap_err();
            assert!(found.ends_with(&format!(": with.{path}: {}", message.replace("REF", &secret))), "{found}");
        }
        let found = checked(&format!("{{start: '{secret}'}}")).unwrap_err();
        assert!(found.contains("with.start: ") && found.contains(&secret) && !found.contains("hunter2"), "{found}");
        let found = checked(&format!("{{count: '{large}'}}")).unwrap_err();
        assert!(found.ends_with(&format!("with.count: must be at most 5000, not {large}")), "{found}");
    }
}
