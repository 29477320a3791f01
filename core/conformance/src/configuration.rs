//! The check `configuration`, of every kind: what is no configuration is refused, with a line and not with a panic, and what a later host tells besides is passed over.

use crate::check::{Outcome, Stop, refused_or_taken};
use serde_json::{Map, Value, json};
use standpipe_sdk::{hosting::PluginError, wire::Problem};

/// A member that nobody has.
const UNKNOWN: &str = "standpipe_conformance_unknown";

/// What a kind says about bytes in the place of its configuration: what is wrong with them.
pub(crate) type Ask<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<Problem>, PluginError>;

/// Asks about wrong configurations, each a change of one that is right. The host refuses what the schema does not allow, so a plugin need not; but whatever it is told, it has an answer.
pub(crate) fn wrong_ones(config: &Value, schema: &Value, bytes: bool, ask: Ask<'_>) -> Outcome {
    let deep = "[".repeat(100_000);
    let no_json: [(&str, &[u8]); 6] = [
        ("bytes that are no UTF-8", b"{\"a\": \"\xff\xfe\"}"),
        ("half a JSON object", b"{\"a\":"),
        ("a NUL", b"\0"),
        ("two JSON objects", b"{} {}"),
        ("100000 nested arrays", deep.as_bytes()),
        ("no bytes", b""),
    ];
    let (mut tried, mut refused) = (0, 0);
    let mut try_one = |what: &str, text: &[u8]| -> Result<(), Stop> {
        tried += 1;
        let problems = refused_or_taken(what, ask(text))?;
        refused += usize::from(problems.is_none_or(|problems| !problems.is_empty()));
        Ok(())
    };
    for (what, text) in no_json.iter().filter(|_| bytes) {
        try_one(what, text)?;
    }
    for value in [json!(7), json!("text"), json!(true), json!([]), Value::Null] {
        try_one(&format!("the configuration {value}"), value.to_string().as_bytes())?;
    }
    for (key, wrong) in wrong_types(schema) {
        try_one(&format!("{key}: {wrong}"), with(config, &key, wrong.clone()).to_string().as_bytes())?;
    }
    let unknown = with(config, UNKNOWN, json!({"of": "a later version"}));
    try_one("an unknown member", unknown.to_string().as_bytes())?;
    Ok(format!("{tried} wrong configurations had an answer; {refused} were refused by the plugin itself"))
}

/// For each key whose schema has one plain type a value of another.
fn wrong_types(schema: &Value) -> Vec<(String, Value)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let wrong = |(key, schema): (&String, &Value)| {
        let wrong = match schema.get("type")?.as_str()? {
            "integer" | "number" | "boolean" | "string" => json!({"of": "another type"}),
            "array" | "object" => json!(7),
            _ => return None,
        };
        Some((key.clone(), wrong))
    };
    properties.into_iter().flatten().filter_map(wrong).collect()
}

fn with(config: &Value, key: &str, value: Value) -> Value {
    let mut members = config.as_object().cloned().unwrap_or_else(Map::new);
    members.insert(key.to_owned(), value);
    Value::Object(members)
}

/// The keys that a configuration must have and this one lacks.
pub(crate) fn missing(config: &Value, schema: &Value) -> Vec<String> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    required.filter(|key| config.get(key).is_none()).map(str::to_owned).collect()
}

/// One line of what is wrong.
pub(crate) fn line(problems: &[Problem]) -> String {
    let one = |problem: &Problem| {
        let suggestion = problem.suggestion.as_ref().map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default();
        match problem.path.as_str() {
            "" => format!("{}{suggestion}", problem.message),
            path => format!("{path}: {}{suggestion}", problem.message),
        }
    };
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}
