//! Sources and sinks of the file, and what they share with transforms: names of inputs, `with:`, expressions. A node of which a value is wrong is not read at all,
//! so that no later step reports what follows from it.

use super::{
    isolation,
    job::MOST_SUBTASKS,
    reader::{Item, Section},
};
use crate::{
    diagnostic::{At, Span},
    guarantee::{self, Guarantee},
    text::Text,
    yaml::{Data, Node, Value},
};
use arrow_schema::Field;
use standpipe_formats::{Compression, FormatKind, FormatSpec, OnError, OnNull, types};
use standpipe_isolation::Limits;
use std::time::Duration;

pub(crate) const SOURCE_KEYS: [&str; 7] = ["connector", "with", "format", "schema", "event_time", "isolation", "parallelism"];
pub(crate) const SINK_KEYS: [&str; 7] = ["input", "connector", "with", "format", "guarantee", "isolation", "parallelism"];
/// Of a source, of all formats.
pub(crate) const FORMAT_KEYS: [&str; 7] = ["type", "on_error", "on_null", "delimiter", "quote", "null_text", "header"];
/// Of a sink, of all formats.
pub(crate) const SINK_FORMAT_KEYS: [&str; 6] = ["type", "delimiter", "quote", "null_text", "header", "compression"];
pub(crate) const EVENT_TIME_KEYS: [&str; 5] = ["column", "out_of_orderness", "idle_timeout", "max_drift", "alignment_group"];
pub(crate) const COLUMN_KEYS: [&str; 2] = ["type", "nullable"];

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

/// `NAME` or `NAME.output`.
#[derive(Debug, Clone)]
pub(crate) struct InputName {
    pub(crate) text: Text,
    pub(crate) path: String,
}

impl InputName {
    /// Where it is.
    pub(crate) fn span(&self) -> Span {
        self.text.span
    }

    pub(crate) fn node(&self) -> &str {
        self.text.value.split_once('.').map_or(self.text.value.as_str(), |(node, _)| node)
    }

    /// The node, for messages.
    pub(crate) fn shown_node(&self) -> &str {
        if self.text.secret { &self.text.written } else { self.node() }
    }

    pub(crate) fn output(&self) -> Option<&str> {
        self.text.value.split_once('.').map(|(_, output)| output)
    }
}

#[derive(Debug)]
pub(crate) struct SourceBlock {
    pub(crate) name: Name,
    pub(crate) connector: Text,
    pub(crate) with: With,
    pub(crate) format: Option<At<FormatSpec>>,
    pub(crate) schema: Option<SchemaBlock>,
    pub(crate) event_time: Option<EventTimeBlock>,
    pub(crate) isolation: Option<Limits>,
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
    pub(crate) column: Text,
    pub(crate) out_of_orderness: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) alignment: Option<AlignmentBlock>,
}

/// `max_drift:` and `alignment_group:`.
#[derive(Debug)]
pub(crate) struct AlignmentBlock {
    pub(crate) max_drift: Duration,
    pub(crate) group: Option<Text>,
}

#[derive(Debug)]
pub(crate) struct SinkBlock {
    pub(crate) name: Name,
    pub(crate) input: InputName,
    pub(crate) connector: Text,
    pub(crate) with: With,
    pub(crate) format: Option<At<FormatSpec>>,
    /// What is demanded of it.
    pub(crate) guarantee: Option<At<Guarantee>>,
    pub(crate) isolation: Option<Limits>,
    pub(crate) parallelism: Option<At<u32>>,
}

/// For a key that is none of a source or sink.
const WITH_HINT: &str = "what the connector itself is to know goes under \"with\"";

pub(super) fn source(name: &str, item: Item<'_>) -> Option<SourceBlock> {
    let section = Section::open_but(item, &SOURCE_KEYS, &[], WITH_HINT)?;
    let connector = section.required("connector").and_then(|item| item.text());
    let with = with(&section);
    let format = section.optional("format", |item| format(&item, &FORMAT_KEYS));
    let schema = section.optional("schema", schema);
    let event_time = section.optional("event_time", event_time);
    let isolation = isolation::isolation(&section);
    let parallelism = parallelism(&section);
    Some(SourceBlock {
        name: node_name(name, &section),
        connector: connector?,
        with: with?,
        format: format?,
        schema: schema?,
        event_time: event_time?,
        isolation: isolation?,
        parallelism,
    })
}

pub(super) fn sink(name: &str, item: Item<'_>) -> Option<SinkBlock> {
    let section = Section::open_but(item, &SINK_KEYS, &[], WITH_HINT)?;
    let input = section.required("input").and_then(|item| input(&item));
    let connector = section.required("connector").and_then(|item| item.text());
    let with = with(&section);
    let format = section.optional("format", |item| format(&item, &SINK_FORMAT_KEYS));
    let guarantee = section.optional("guarantee", |item| item.word(&guarantee::WORDS));
    let isolation = isolation::isolation(&section);
    let parallelism = parallelism(&section);
    Some(SinkBlock {
        name: node_name(name, &section),
        input: input?,
        connector: connector?,
        with: with?,
        format: format?,
        guarantee: guarantee?,
        isolation: isolation?,
        parallelism,
    })
}

pub(super) fn node_name(name: &str, section: &Section<'_>) -> Name {
    Name { name: name.to_owned(), path: section.path.clone(), span: section.span }
}

pub(super) fn parallelism(section: &Section<'_>) -> Option<At<u32>> {
    section.get("parallelism").and_then(|item| item.count(MOST_SUBTASKS))
}

/// `with:`, empty if it is not there.
pub(super) fn with(section: &Section<'_>) -> Option<With> {
    let given = section.optional("with", |item| {
        if item.node.as_map().is_none() {
            item.expected("a map");
            return None;
        }
        Some(With { node: item.node.clone(), span: item.key_span })
    });
    let empty = || With { node: Node { span: section.span, data: Data::Map(Vec::new()) }, span: section.span };
    given.map(|with| with.unwrap_or_else(empty))
}

pub(super) fn input(item: &Item<'_>) -> Option<InputName> {
    Some(InputName { text: item.text()?, path: item.path.clone() })
}

/// An expression; a number or a bare `true` is one too.
pub(super) fn expression(item: &Item<'_>) -> Option<Text> {
    match item.scalar() {
        Some(scalar) if scalar.value != Value::Null => {
            let value = match &scalar.value {
                Value::Text(text) => text.clone(),
                _ => scalar.written.clone(),
            };
            Some(Text { value, written: scalar.written.clone(), secret: scalar.secret, span: item.span() })
        }
        None => {
            // {a} is a map and [a] a list where an expression without quotes begins so.
            item.expected_with_hint("an expression", "put the expression in quotes");
            None
        }
        Some(_) => {
            item.expected("an expression");
            None
        }
    }
}

/// `json`, or `{type: json, on_error: skip}`; the keys of all formats, of which one takes some.
fn format(item: &Item<'_>, keys: &[&'static str]) -> Option<At<FormatSpec>> {
    if matches!(item.node.data, Data::Scalar(_)) {
        return Some(At { value: format_kind(item)?.into(), span: item.span() });
    }
    // What is known depends on the type.
    let kind = Section::open_any(item.clone())?.get("type").and_then(|item| item.scalar()).and_then(|scalar| match &scalar.value {
        Value::Text(text) => FormatKind::ALL.into_iter().find(|kind| kind.name() == text),
        _ => None,
    });
    let of_kind =
        |key: &&'static str| kind.is_none_or(|kind| matches!(*key, "type" | "on_error" | "on_null") || kind.options().contains(key));
    let known: Vec<&'static str> = keys.iter().copied().filter(of_kind).collect();
    let section = Section::open(item.clone(), &known)?;
    let policies = [("fail", OnError::Fail), ("skip", OnError::Skip), ("dead-letter", OnError::DeadLetter)];
    let compressions = [("none", Compression::None), ("snappy", Compression::Snappy), ("zstd", Compression::Zstd)];
    let on_error = if known.contains(&"on_error") { section.optional("on_error", |item| item.word(&policies)) } else { Some(None) };
    let nulls = [("broken", OnNull::Broken), ("skip", OnNull::Skip), ("row", OnNull::Row)];
    let on_null = if known.contains(&"on_null") { section.optional("on_null", |item| item.word(&nulls)) } else { Some(None) };
    let delimiter = section.optional("delimiter", |item| character(&item));
    let quote = section.optional("quote", |item| character(&item));
    let null_text = section.optional("null_text", |item| any_text(&item));
    let header = section.optional("header", |item| boolean(&item));
    let compression = section.optional("compression", |item| item.word(&compressions));
    let value = FormatSpec {
        kind: format_kind(&section.required("type")?)?,
        on_error: on_error?.map_or_else(OnError::default, |policy| policy.value),
        on_null: on_null?.map_or_else(OnNull::default, |policy| policy.value),
        delimiter: delimiter?,
        quote: quote?,
        null_text: null_text?,
        header: header?,
        compression: compression?.map(|compression| compression.value),
    };
    Some(At { value, span: item.span() })
}

fn format_kind(item: &Item<'_>) -> Option<FormatKind> {
    let text = item.text()?;
    let found = FormatKind::ALL.into_iter().find(|kind| kind.name() == text.value);
    if found.is_none() {
        item.error(format!("unknown format {text:?}{}", text.or_list(FormatKind::ALL.map(FormatKind::name), "formats")));
    }
    found
}

fn character(item: &Item<'_>) -> Option<char> {
    let text = any_text(item)?;
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) => Some(character),
        _ => {
            item.expected("one character");
            None
        }
    }
}

/// A text, which may be empty or white space.
fn any_text(item: &Item<'_>) -> Option<String> {
    match item.scalar().map(|scalar| &scalar.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => {
            item.expected("text");
            None
        }
    }
}

fn boolean(item: &Item<'_>) -> Option<bool> {
    match item.scalar().map(|scalar| &scalar.value) {
        Some(Value::Bool(value)) => Some(*value),
        _ => {
            item.expected("true or false");
            None
        }
    }
}

/// `{host: string, ts: {type: timestamp_ms, nullable: false}}`
fn schema(item: Item<'_>) -> Option<SchemaBlock> {
    let section = Section::open_any(item)?;
    if section.items().next().is_none() {
        section.report.error(section.span, &section.path, "a schema has at least one column");
        return None;
    }
    let mut fields = Vec::new();
    let mut torn = false;
    for (name, item) in section.items() {
        // In { } a comma ends a plain value: `map<string, int64>` comes in two pieces, `map<string` and a key `int64>`.
        let is_piece = torn && name.ends_with('>') && item.is_null();
        if is_piece {
            continue;
        }
        torn =
            item.scalar().is_some_and(|scalar| scalar.plain && scalar.written.matches('<').count() > scalar.written.matches('>').count());
        if torn {
            let message = format!("a type that is cut off, {:?}", item.scalar().map(|scalar| scalar.written.as_str()).unwrap_or_default());
            item.report.error_with_hint(item.span(), &item.path, message, "put the type in quotes");
            fields.push(None);
        } else {
            fields.push(field(name, &item).map(|value| At { span: item.key_span, value }));
        }
    }
    Some(SchemaBlock { span: section.span, fields: fields.into_iter().collect::<Option<_>>()? })
}

fn field(name: &str, item: &Item<'_>) -> Option<Field> {
    match item.node.data {
        Data::Scalar(_) => return typed(name, item),
        Data::Map(_) => {}
        Data::List(_) => {
            item.expected("a type such as string or list<int64>");
            return None;
        }
    }
    let section = Section::open(item.clone(), &COLUMN_KEYS)?;
    let nullable = section.optional("nullable", |item| boolean(&item));
    let field = section.required("type").and_then(|item| typed(name, &item));
    Some(field?.with_nullable(nullable?.unwrap_or(true)))
}

fn typed(name: &str, item: &Item<'_>) -> Option<Field> {
    let text = item.text()?;
    match types::parse_field(name, &text.value) {
        Ok(field) => Some(field),
        Err(_) if text.secret => {
            item.error(format!("{text:?} is no type"));
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
    let duration = |key: &str, default: Duration| Some(section.optional(key, |item| item.duration())?.map_or(default, |at| at.value));
    let (out_of_orderness, idle_timeout) = (duration("out_of_orderness", Duration::ZERO), duration("idle_timeout", IDLE_TIMEOUT));
    let alignment = alignment(&section);
    Some(EventTimeBlock { column: column?, out_of_orderness: out_of_orderness?, idle_timeout: idle_timeout?, alignment: alignment? })
}

/// How far splits may be ahead of others. The inner `None`: as far as they like.
fn alignment(section: &Section<'_>) -> Option<Option<AlignmentBlock>> {
    let max_drift = section.optional("max_drift", |item| {
        let at = item.duration()?;
        if at.value.is_zero() {
            item.error("is 0s, which would hold all splits back but the last; write how far one may be ahead of the others, such as 30s");
            return None;
        }
        Some(at.value)
    });
    let group = section.optional("alignment_group", |item| {
        let name = item.text()?;
        if section.get("max_drift").is_none() {
            item.error("needs \"max_drift\": how far this source may be ahead of the others of its group");
            return None;
        }
        Some(name)
    });
    let (max_drift, group) = (max_drift?, group?);
    Some(max_drift.map(|max_drift| AlignmentBlock { max_drift, group }))
}
