//! YAML as a tree in which every key and value knows where it is written.
//!
//! [`parse`] makes the tree from the parser's events, `syntax` says what is wrong with a text that has none, `overrides` applies `--set`, `parentheses` finds expressions that YAML has torn apart. The tree keeps what
//! serde-saphyr loses where keys are flattened or alternatives tried: the place. Nothing here knows what a pipeline is; `file/` reads the tree.

mod overrides;
mod parentheses;
mod parse;
mod syntax;

pub(crate) use overrides::set;
pub(crate) use parentheses::find_torn_expressions;
pub(crate) use parse::{parse, resolve};

use crate::diagnostic::Span;

/// How deep the maps are that have the key `with`: `sources.readings.with`.
pub(crate) const WITH_DEPTH: usize = 2;

/// The path of a key in a map.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) data: Data,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    /// Not in quotes.
    pub(crate) plain: bool,
    pub(crate) value: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) value: Value,
    /// As in the file, without quotes and escapes; what people are shown.
    pub(crate) written: String,
    /// Not in quotes.
    pub(crate) plain: bool,
    /// `value` holds something that must never be shown: `written` with its references resolved.
    pub(crate) secret: bool,
}

/// A scalar by the core schema of YAML 1.2.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.data {
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
            Data::Scalar(scalar) => match scalar.value {
                Value::Null => "nothing",
                Value::Bool(_) => "true or false",
                Value::Integer(_) => "a whole number",
                Value::Float(_) => "a number",
                Value::Text(_) => "text",
            },
        }
    }

    /// What it is with its value as written where that is short, for messages.
    pub(crate) fn described(&self) -> String {
        match &self.data {
            Data::Scalar(scalar) if scalar.value != Value::Null && scalar.written.chars().count() <= 40 => format!("{:?}", scalar.written),
            _ => self.kind().to_owned(),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Scalar { value: Value::Null, .. }))
    }

    pub(crate) fn as_map(&self) -> Option<&[Entry]> {
        match &self.data {
            Data::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.as_map()?.iter().find(|entry| entry.key == key)
    }

    /// The tree as JSON, texts as written, but for those that were resolved: these are settings.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.data {
            Data::List(items) => items.iter().map(Node::to_json).collect(),
            Data::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<serde_json::Map<_, _>>().into()
            }
            Data::Scalar(scalar) => match &scalar.value {
                Value::Null => Json::Null,
                Value::Bool(value) => Json::Bool(*value),
                Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                    (Ok(value), _) => value.into(),
                    (_, Ok(value)) => value.into(),
                    _ => Json::String(scalar.written.clone()),
                },
                Value::Float(value) => {
                    serde_json::Number::from_f64(*value).map_or_else(|| Json::String(scalar.written.clone()), Json::Number)
                }
                Value::Text(resolved) if scalar.secret => Json::String(resolved.clone()),
                Value::Text(_) => Json::String(scalar.written.clone()),
            },
        }
    }
}
