//! YAML files of the repository as JSON values, for tests that look into them. Pipelines are read by the binary itself.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap};

/// A collection that has begun: its anchor, and its items; those of a map are keys and values in turns.
struct Open {
    anchor: usize,
    is_map: bool,
    items: Vec<Value>,
}

/// The one document of a text, its aliases and merge keys (`<<`) expanded. Panics where it is none.
pub fn yaml(text: &str) -> Value {
    let (mut anchors, mut open) = (BTreeMap::new(), Vec::<Open>::new());
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (anchor, value) = match event.unwrap_or_else(|error| panic!("{error}")).0 {
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open { anchor, is_map: false, items: Vec::new() });
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(Open { anchor, is_map: true, items: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let done = open.pop().expect("what ends has begun");
                (done.anchor, if done.is_map { map(done.items) } else { Value::Array(done.items) })
            }
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(text, style)),
            Event::Alias(id) => (0, anchors.get(&id).cloned().unwrap_or_else(|| panic!("an alias inside of what it stands for"))),
            _ => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, value.clone());
        }
        match open.last_mut() {
            Some(parent) => parent.items.push(value),
            None => root = Some(value),
        }
    }
    root.expect("a document")
}

/// Numbers, booleans and null are what JSON takes for them.
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let plain = || serde_json::from_str(&text).ok().filter(|value: &Value| !value.is_string());
    match style {
        ScalarStyle::Plain if text.is_empty() || text == "~" => Value::Null,
        ScalarStyle::Plain => plain().unwrap_or_else(|| Value::String(text.clone().into_owned())),
        _ => Value::String(text.into_owned()),
    }
}

/// What is merged gives way to the map's own.
fn map(items: Vec<Value>) -> Value {
    let (mut own, mut merged) = (Map::new(), Map::new());
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        match (key, value) {
            (Value::String(key), Value::Object(value)) if key == "<<" => merged.extend(value),
            (Value::String(key), value) => assert!(own.insert(key.clone(), value).is_none(), "the key {key} is there twice"),
            (key, _) => panic!("{key} is no text"),
        }
    }
    merged.extend(own);
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn anchors_aliases_and_merges_are_expanded() {
        let text = "a: &a {n: 1, s: '1', list: [~, true, x]}\nb: {<<: *a, n: 2}\nc: *a\nd: |\n  two\n  lines\n";
        let a = json!({ "n": 1, "s": "1", "list": [null, true, "x"] });
        let b = json!({ "n": 2, "s": "1", "list": [null, true, "x"] });
        assert_eq!(yaml(text), json!({ "a": a, "b": b, "c": a, "d": "two\nlines\n" }));
    }
}
