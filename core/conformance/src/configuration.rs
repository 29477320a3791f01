//! The check `configuration`, of every kind: what is no configuration is refused, with a line and not with a panic, and what a later host tells besides is passed over.

use crate::check::{Outcome, Stop, refused_or_taken};
use serde_json::{Map, Value, json};
use standpipe_sdk::{hosting::PluginError, wire::Problem};

/// A member that nobody has.
const UNKNOWN: &str = "standpipe_conformance_unknown";

/// What a kind says about bytes in the place of its configuration: what is wrong with them.
pub(crate) type Ask<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<Problem>, PluginError>;

/// Asks about wrong configurations, each a change of one that is right.
pub(crate) fn wrong_ones(config: &Value, schema: &Value, bytes: bool, ask: Ask<'_>) -> Outcome {
    let mut tried = 0;
    if bytes {
        tried += no_json(ask)?;
    }
    for (value, must_refuse) in [(json!(7), true), (json!("text"), true), (json!(true), true), (json!([]), false), (Value::Null, false)] {
        let text = value.to_string();
        let taken = is_taken(&format!("the configuration {text}"), ask(text.as_bytes()))?;
        if taken && must_refuse {
            return Err(Stop::fail(format!("takes {text} for a configuration, which is no JSON object")));
        }
        tried += 1;
    }
    for (key, wrong) in wrong_types(schema) {
        let changed = with(config, &key, wrong.clone());
        if is_taken(&format!("{key}: {wrong}"), ask(changed.to_string().as_bytes()))? {
            return Err(Stop::fail(format!("takes {wrong} for {key:?}, which its own schema does not allow")));
        }
        tried += 1;
    }
    let unknown = with(config, UNKNOWN, json!({"of": "a later version"}));
    let taken = is_taken("an unknown member", ask(unknown.to_string().as_bytes()))?;
    if taken && schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        return Err(Stop::fail("takes an unknown member, which its own schema does not allow: a typing error would not be found"));
    }
    Ok(format!("{} wrong configurations got an answer, and those that must be were refused", tried + 1))
}

/// What is no JSON at all.
fn no_json(ask: Ask<'_>) -> Result<usize, Stop> {
    let deep = "[".repeat(100_000);
    let texts: [(&str, &[u8]); 5] = [
        ("bytes that are no UTF-8", b"{\"a\": \"\xff\xfe\"}"),
        ("half a JSON object", b"{\"a\":"),
        ("a NUL", b"\0"),
        ("two JSON objects", b"{} {}"),
        ("100000 nested arrays", deep.as_bytes()),
    ];
    for (what, text) in texts {
        if is_taken(what, ask(text))? {
            return Err(Stop::fail(format!("takes {what} for a configuration")));
        }
    }
    // Nothing at all is what a host passes that has nothing to say.
    is_taken("no bytes", ask(b""))?;
    Ok(texts.len() + 1)
}

fn is_taken(what: &str, answer: Result<Vec<Problem>, PluginError>) -> Result<bool, Stop> {
    Ok(refused_or_taken(what, answer)?.is_some_and(|problems| problems.is_empty()))
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
