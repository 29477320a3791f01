//! A configuration on its way from JSON to an author's type: references to secrets are resolved (in `create`), wrong values found with their path and, where
//! possible, with what was meant (in `validate`).

use crate::{Error, Host, Result, wire::Problem};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

/// A configuration: any type that serde can read and schemars can describe. `#[serde(deny_unknown_fields)]` lets a user's typing errors be found.
///
/// A reference (`${env:PASSWORD}`) reaches a plugin in the place of a text alone ([`String`], [`Secret`]): unresolved in `declare`, resolved in `open`. In the place of a number or
/// of a word of an enumeration the host puts the value before it asks anyone, so that an author never sees one there.
pub trait Config: DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: DeserializeOwned + JsonSchema + Send + 'static> Config for T {}

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "password" })
    }
}

/// Whether a text holds a reference that the host resolves: an unescaped `${`. `$${` stands for the two characters themselves.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if !rest[..at].ends_with('$') {
            return true;
        }
        rest = &rest[at + 2..];
    }
    false
}

/// Replaces every text that holds references by what the host says, and unescapes `$${`. Gives the texts that held references, as they were, by their path.
///
/// # Errors
/// With the path of the value when a reference cannot be resolved.
pub(crate) fn resolve(value: &mut Value, host: &Host) -> Result<BTreeMap<String, String>> {
    let mut references = BTreeMap::new();
    resolve_at(value, host, &mut String::new(), &mut references)?;
    Ok(references)
}

fn resolve_at(value: &mut Value, host: &Host, path: &mut String, references: &mut BTreeMap<String, String>) -> Result<()> {
    let length = path.len();
    match value {
        Value::String(text) if is_reference(text) => {
            let resolved = host.secret(text).map_err(|error| match path.as_str() {
                "" => error,
                path => error.with("path", path),
            })?;
            references.insert(path.clone(), std::mem::replace(text, resolved.0));
        }
        Value::String(text) if text.contains("$${") => *text = text.replace("$${", "${"),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                resolve_at(item, host, path, references)?;
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                push_member(path, name);
                resolve_at(member, host, path, references)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

fn push_member(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong: all members that are unknown or missing by the JSON Schema, or else the first value that has the wrong type.
pub(crate) fn parse<C: Config>(value: Value) -> Result<C, Vec<Problem>> {
    let schema = schemars::schema_for!(C).to_value();
    let mut problems = Vec::new();
    check_members(&schema, &schema, &value, &mut String::new(), &mut problems);
    match serde_path_to_error::deserialize::<_, C>(value) {
        Ok(config) if problems.is_empty() => Ok(config),
        Err(error) if problems.is_empty() => {
            let path = match error.path().to_string() {
                root if root == "." => String::new(),
                path => path,
            };
            Err(vec![Problem { path, message: plain_words(&error.inner().to_string()), suggestion: None }])
        }
        _ => Err(problems),
    }
}

/// What serde says of a value of the wrong type, in the words of who writes a configuration; all else as it is.
fn plain_words(said: &str) -> String {
    let Some((found, expected)) = said.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) else {
        return said.to_owned();
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    };
    let found = match found {
        "map" => "a map",
        "sequence" => "a list",
        "null" | "unit value" => "nothing",
        value => match (value.strip_prefix("string "), value.split_once('`')) {
            (Some(text), _) => text,
            (None, Some((_, value))) => value.trim_end_matches('`'),
            _ => value,
        },
    };
    format!("expected {expected}, found {found}")
}

/// Finds unknown and missing members by the schema, as far as it is plain: objects, arrays, references, optional values.
fn check_members(root: &Value, schema: &Value, value: &Value, path: &mut String, problems: &mut Vec<Problem>) {
    let schema = plain(root, schema);
    let length = path.len();
    match value {
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                check_members(root, schema, item, path, problems);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            let Some(Value::Object(known)) = schema.get("properties") else { return };
            let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
            for (name, member) in members {
                push_member(path, name);
                match known.get(name) {
                    Some(schema) => check_members(root, schema, member, path, problems),
                    None if closed => problems.push(unknown(path, name, known, members)),
                    None => {}
                }
                path.truncate(length);
            }
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            for name in required.filter(|name| !members.contains_key(*name)) {
                push_member(path, name);
                problems.push(Problem { path: path.clone(), message: "is missing".to_owned(), suggestion: None });
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// The schema behind `$ref` and behind the choice between something and null.
fn plain<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        return name.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).map_or(schema, |target| plain(root, target));
    }
    if let Some(Value::Array(choices)) = schema.get("anyOf") {
        let mut some = choices.iter().filter(|choice| choice.get("type").and_then(Value::as_str) != Some("null"));
        if let (Some(only), None) = (some.next(), some.next()) {
            return plain(root, only);
        }
    }
    schema
}

fn unknown(path: &str, name: &str, known: &Map<String, Value>, given: &Map<String, Value>) -> Problem {
    let free = known.keys().map(String::as_str).filter(|candidate| !given.contains_key(*candidate));
    let suggestion = closest(name, free).map(str::to_owned);
    let message = match &suggestion {
        Some(_) => "is not known".to_owned(),
        None => format!("is not known; known are {}", known.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
    };
    Problem { path: path.to_owned(), message, suggestion }
}

/// A longer word is nobody's slip of the finger, and to count its differences takes time and memory of its length times that of each candidate.
const LONGEST_WORD: usize = 400;

/// The candidate that differs from `name` in the fewest letters, if that is about a third of them at most. None for words of more than 400 bytes.
#[must_use]
pub fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_word = |word: &str| word.len() <= LONGEST_WORD;
    let candidates = candidates.filter(|candidate| is_word(name) && is_word(candidate));
    let allowed = name.chars().count().max(3) / 3 + 1;
    let (distance, best) = candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).min()?;
    (distance <= allowed).then_some(best)
}

/// The configuration of a call as JSON.
pub(crate) fn read(bytes: &[u8]) -> Result<Value> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Error::config("", format!("the configuration is no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "read by serde alone")]
    struct Sample {
        hosts: Vec<HostAddress>,
        #[serde(default)]
        password: Secret,
        retry: Option<Retry>,
    }

    #[derive(Deserialize, JsonSchema, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "read by serde alone")]
    struct HostAddress {
        url: String,
        #[serde(default)]
        port: u16,
    }

    #[derive(Deserialize, JsonSchema, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "read by serde alone")]
    struct Retry {
        attempts: u32,
    }

    fn problems(value: Value) -> Vec<(String, Option<String>)> {
        parse::<Sample>(value).unwrap_err().into_iter().map(|p| (format!("{}: {}", p.path, p.message), p.suggestion)).collect()
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_in_plain_words() {
        for (attempts, said) in [
            (json!("x`y"), r#"expected a whole number from 0 on, found "x`y""#),
            (json!(2.5), "expected a whole number from 0 on, found 2.5"),
            (json!([1]), "expected a whole number from 0 on, found a list"),
            (json!(null), "expected a whole number from 0 on, found nothing"),
            (json!(true), "expected a whole number from 0 on, found true"),
        ] {
            let problems = problems(json!({ "hosts": [], "retry": { "attempts": attempts } }));
            assert_eq!(problems, [(format!("retry.attempts: {said}"), None)]);
        }
        assert_eq!(problems(json!({ "hosts": [{ "url": 5 }] })), [("hosts[0].url: expected text, found 5".to_owned(), None)]);
        assert_eq!(plain_words("it is too long"), "it is too long");
    }

    #[test]
    fn every_unknown_and_missing_member_is_named_at_once() {
        let value = json!({ "hosts": [{ "url": "a" }, { "ulr": "b" }], "pasword": "x", "retry": { "tries": 3 } });
        assert_eq!(
            problems(value),
            [
                ("hosts[1].ulr: is not known".to_owned(), Some("url".to_owned())),
                ("hosts[1].url: is missing".to_owned(), None),
                ("pasword: is not known".to_owned(), Some("password".to_owned())),
                ("retry.tries: is not known; known are attempts".to_owned(), None),
                ("retry.attempts: is missing".to_owned(), None),
            ]
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        let wrong = problems(json!({ "hosts": [{ "url": "a", "port": 99_999 }] }));
        assert_eq!(wrong, [("hosts[0].port: invalid value: integer `99999`, expected u16".to_owned(), None)]);
    }

    #[test]
    fn only_an_unescaped_reference_is_one() {
        assert!(is_reference("${env:A}") && is_reference("x${env:A}") && is_reference("$${a} ${b}"));
        assert!(!is_reference("$${env:A}") && !is_reference("$env") && !is_reference(""));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let sample: Sample = parse(json!({ "hosts": [], "password": "hunter2" })).unwrap();
        assert_eq!(sample.password.expose(), "hunter2");
        assert!(!format!("{sample:?}").contains("hunter2"));
    }
}
