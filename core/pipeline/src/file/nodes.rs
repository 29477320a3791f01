//! Sources and sinks of the file, and what they share with transforms: names of inputs, `with:`, expressions.

use super::reader::{Item, Section};
use crate::{
    diagnostic::{At, Span},
    suggest,
    yaml::{Data, Node, Value},
};
use arrow_schema::Field;
use standpipe_formats::{FormatKind, FormatSpec, OnError, types};
use std::time::Duration;

pub(crate) const SOURCE_KEYS: [&str; 6] = ["connector", "with", "format", "schema", "event_time", "parallelism"];
pub(crate) const SINK_KEYS: [&str; 5] = ["input", "connector", "with", "format", "parallelism"];
pub(crate) const FORMAT_KEYS: [&str; 2] = ["type", "on_error"];
pub(crate) const EVENT_TIME_KEYS: [&str; 3] = ["column", "out_of_orderness", "idle_timeout"];
const COLUMN_KEYS: [&str; 2] = ["type", "nullable"];

/// A split without data holds the watermark no longer than this, unless `idle_timeout` says otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A node's name and section.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) name: String,
    /// `sources.readings`
    pub(crate) path: String,
    pub(crate) span: Span,
}

/// A plugin's configuration, texts as written.
#[derive(Debug, Clone)]
pub(crate) struct With {
    /// A map.
    pub(crate) node: Node,
    /// Where `with` is; the node's name if it has none.
    pub(crate) span: Span,
}

/// An expression as it is to be parsed, and as people are shown it.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) text: String,
    pub(crate) written: String,
    pub(crate) span: Span,
    /// `text` must never be shown.
    pub(crate) secret: bool,
}

/// `NAME` or `NAME.output`.
#[derive(Debug, Clone)]
pub(crate) struct InputName {
    pub(crate) node: String,
    pub(crate) output: Option<String>,
    pub(crate) span: Span,
    pub(crate) path: String,
}

#[derive(Debug)]
pub(crate) struct SourceBlock {
    pub(crate) name: Name,
    pub(crate) connector: At<String>,
    pub(crate) with: With,
    pub(crate) format: Option<At<FormatSpec>>,
    pub(crate) schema: Option<SchemaBlock>,
    pub(crate) event_time: Option<EventTimeBlock>,
    pub(crate) parallelism: Option<At<u32>>,
}

/// `schema:`.
#[derive(Debug)]
pub(crate) struct SchemaBlock {
    pub(crate) span: Span,
    /// With the place of each name.
    pub(crate) fields: Vec<At<Field>>,
}

#[derive(Debug)]
pub(crate) struct EventTimeBlock {
    pub(crate) column: At<String>,
    pub(crate) out_of_orderness: Duration,
    pub(crate) idle_timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct SinkBlock {
    pub(crate) name: Name,
    pub(crate) input: InputName,
    pub(crate) connector: At<String>,
    pub(crate) with: With,
    pub(crate) format: Option<At<FormatSpec>>,
    pub(crate) parallelism: Option<At<u32>>,
}

pub(super) fn source(name: &str, item: Item<'_>) -> Option<SourceBlock> {
    let section = Section::open(item, &SOURCE_KEYS)?;
    let connector = section.required("connector").and_then(|item| item.text());
    let with = with(&section);
    let format = section.get("format").and_then(|item| format(&item, true));
    let schema = section.get("schema").and_then(schema);
    let event_time = section.get("event_time").and_then(event_time);
    let parallelism = parallelism(&section);
    Some(SourceBlock { name: node_name(name, &section), connector: connector?, with: with?, format, schema, event_time, parallelism })
}

pub(super) fn sink(name: &str, item: Item<'_>) -> Option<SinkBlock> {
    let section = Section::open(item, &SINK_KEYS)?;
    let input = section.required("input").and_then(|item| input(&item));
    let connector = section.required("connector").and_then(|item| item.text());
    let with = with(&section);
    let format = section.get("format").and_then(|item| format(&item, false));
    let parallelism = parallelism(&section);
    Some(SinkBlock { name: node_name(name, &section), input: input?, connector: connector?, with: with?, format, parallelism })
}

pub(super) fn node_name(name: &str, section: &Section<'_>) -> Name {
    Name { name: name.to_owned(), path: section.path.clone(), span: section.span }
}

pub(super) fn parallelism(section: &Section<'_>) -> Option<At<u32>> {
    section.get("parallelism").and_then(|item| item.count(u32::MAX))
}

/// `with:`, empty if it is not there.
pub(super) fn with(section: &Section<'_>) -> Option<With> {
    let Some(item) = section.get("with") else {
        return Some(With { node: Node { span: section.span, data: Data::Map(Vec::new()) }, span: section.span });
    };
    if item.node.as_map().is_none() {
        item.expected("a map");
        return None;
    }
    Some(With { node: item.node.clone(), span: item.key_span })
}

pub(super) fn input(item: &Item<'_>) -> Option<InputName> {
    let text = item.text()?;
    let (node, output) = match text.value.split_once('.') {
        Some((node, output)) => (node.to_owned(), Some(output.to_owned())),
        None => (text.value, None),
    };
    Some(InputName { node, output, span: text.span, path: item.path.clone() })
}

/// An expression; a number or a bare `true` is one too.
pub(super) fn expression(item: &Item<'_>) -> Option<Expression> {
    let scalar = item.scalar().filter(|scalar| scalar.value != Value::Null);
    let Some(scalar) = scalar else {
        item.expected("an expression");
        return None;
    };
    let text = match &scalar.value {
        Value::Text(text) => text.clone(),
        _ => scalar.written.clone(),
    };
    Some(Expression { text, written: scalar.written.clone(), span: item.span(), secret: scalar.secret })
}

/// `json`, or `{type: json, on_error: skip}`; a sink has no `on_error`.
fn format(item: &Item<'_>, is_source: bool) -> Option<At<FormatSpec>> {
    let kind = |item: &Item<'_>| {
        let text = item.text()?;
        match text.value.as_str() {
            "raw" => Some(FormatKind::Raw),
            "json" => Some(FormatKind::Json),
            other => {
                item.error(format!("unknown format {other:?}{}", suggest::or_list(other, ["raw", "json"], "formats")));
                None
            }
        }
    };
    let spec = if matches!(item.node.data, Data::Scalar(_)) {
        kind(item)?.into()
    } else {
        let section = Section::open(item.clone(), if is_source { &FORMAT_KEYS } else { &FORMAT_KEYS[..1] })?;
        let on_error = match section.get("on_error").filter(|_| is_source) {
            None => OnError::default(),
            Some(item) => match item.word(&["fail", "skip", "dead-letter"])?.value.as_str() {
                "skip" => OnError::Skip,
                "dead-letter" => OnError::DeadLetter,
                _ => OnError::Fail,
            },
        };
        FormatSpec { kind: kind(&section.required("type")?)?, on_error }
    };
    Some(At { value: spec, span: item.span() })
}

/// `{host: string, ts: {type: timestamp_ms, nullable: false}}`
fn schema(item: Item<'_>) -> Option<SchemaBlock> {
    let section = Section::open_any(item)?;
    if section.items().next().is_none() {
        section.report.error(section.span, &section.path, "a schema has at least one column");
    }
    let fields = section.items().filter_map(|(name, item)| Some(At { span: item.key_span, value: field(name, item)? })).collect();
    Some(SchemaBlock { span: section.span, fields })
}

fn field(name: &str, item: Item<'_>) -> Option<Field> {
    if matches!(item.node.data, Data::Scalar(_)) {
        return typed(name, &item);
    }
    let section = Section::open(item, &COLUMN_KEYS)?;
    let nullable = match section.get("nullable") {
        None => true,
        Some(item) => match item.scalar().map(|scalar| &scalar.value) {
            Some(Value::Bool(nullable)) => *nullable,
            _ => {
                item.expected("true or false");
                return None;
            }
        },
    };
    Some(typed(name, &section.required("type")?)?.with_nullable(nullable))
}

fn typed(name: &str, item: &Item<'_>) -> Option<Field> {
    let text = item.text()?;
    match types::parse_field(name, &text.value) {
        Ok(field) => Some(field),
        // In { } a comma ends a plain value: `map<string, int64>` comes in two pieces.
        Err(error) if text.value.matches('<').count() > text.value.matches('>').count() => {
            item.report.error_with_hint(text.span, &item.path, error.message, "put the type in quotes");
            None
        }
        Err(error) => {
            item.error(error.message);
            None
        }
    }
}

fn event_time(item: Item<'_>) -> Option<EventTimeBlock> {
    let section = Section::open(item, &EVENT_TIME_KEYS)?;
    let column = section.required("column").and_then(|item| item.text());
    let duration = |key: &str, default: Duration| section.get(key).map_or(Some(default), |item| item.duration().map(|at| at.value));
    let (out_of_orderness, idle_timeout) = (duration("out_of_orderness", Duration::ZERO), duration("idle_timeout", IDLE_TIMEOUT));
    Some(EventTimeBlock { column: column?, out_of_orderness: out_of_orderness?, idle_timeout: idle_timeout? })
}
