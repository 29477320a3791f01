//! Transforms of the file: exactly one verb each, and the qualifiers that mean something to it.

use super::{
    isolation,
    nodes::{self, InputName, Name, With},
    reader::{Item, Section},
};
use crate::{
    diagnostic::{At, Span},
    plan::{Emit, ResultOrder},
    text::Text,
    yaml::{Data, Value},
};
use standpipe_isolation::Limits;
use std::time::Duration;

pub(crate) const TRANSFORM_KEYS: [&str; 14] = [
    "input",
    "inputs",
    "filter",
    "select",
    "union",
    "transform",
    "aggregate",
    "with",
    "async",
    "isolation",
    "key_by",
    "window",
    "emit",
    "parallelism",
];
pub(crate) const ASYNC_KEYS: [&str; 3] = ["capacity", "order", "timeout"];
/// More calls of a subtask than anything outside of it would take at the same time.
pub(crate) const MOST_PENDING: u32 = 65_536;
pub(crate) const WINDOW_KEYS: [&str; 2] = ["tumbling", "allowed_lateness"];
/// Windows of the design that a later release brings.
const LATER_WINDOWS: [&str; 3] = ["sliding", "session", "cumulate"];
pub(crate) const TUMBLING_KEYS: [&str; 2] = ["size", "offset"];
const VERBS: [&str; 5] = ["filter", "select", "union", "transform", "aggregate"];

#[derive(Debug)]
pub(crate) struct TransformBlock {
    pub(crate) name: Name,
    /// At least one.
    pub(crate) inputs: Vec<InputName>,
    /// With the place of the verb's key.
    pub(crate) verb: At<Verb>,
    pub(crate) key_by: Vec<Text>,
    pub(crate) parallelism: Option<At<u32>>,
}

#[derive(Debug)]
pub(crate) enum Verb {
    Filter(Text),
    Select(Vec<SelectItem>),
    Union,
    Transform { kind: Text, with: With, asynchronous: Option<AsyncBlock>, isolation: Option<Limits> },
    Aggregate { columns: Vec<NamedExpression>, window: Option<WindowBlock>, emit: Option<At<Emit>> },
}

/// A column of `select`.
#[derive(Debug)]
pub(crate) enum SelectItem {
    /// `"*": true`
    All,
    /// Instead of a column of that name of `*`, or behind what is there.
    Column(NamedExpression),
}

/// `name: expression`
#[derive(Debug)]
pub(crate) struct NamedExpression {
    pub(crate) name: At<String>,
    pub(crate) expression: Text,
    pub(crate) path: String,
}

/// `async:`
#[derive(Debug)]
pub(crate) struct AsyncBlock {
    pub(crate) capacity: Option<u32>,
    pub(crate) order: Option<At<ResultOrder>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) span: Span,
}

/// `window:`
#[derive(Debug)]
pub(crate) struct WindowBlock {
    pub(crate) size: At<Duration>,
    pub(crate) offset: Duration,
    pub(crate) allowed_lateness: Duration,
    pub(crate) span: Span,
}

pub(super) fn transform(name: &str, item: Item<'_>) -> Option<TransformBlock> {
    let section = Section::open_but(item, &TRANSFORM_KEYS, &["sql"], "")?;
    let inputs = inputs(&section);
    let verb_name = the_verb(&section);
    let key_by = section.optional("key_by", |item| key_by(&item));
    let parallelism = nodes::parallelism(&section);
    let verb_name = verb_name?;
    refuse_idle_qualifiers(&section, verb_name);
    let item = section.get(verb_name)?;
    let span = item.key_span;
    let value = verb(verb_name, item, &section);
    Some(TransformBlock {
        name: nodes::node_name(name, &section),
        inputs: inputs?,
        verb: At { value: value?, span },
        key_by: key_by?.unwrap_or_default(),
        parallelism,
    })
}

/// The one verb of a transform.
fn the_verb(section: &Section<'_>) -> Option<&'static str> {
    if let Some(item) = section.get("sql") {
        let message = format!("SQL is not in this release; there are {}", VERBS.join(", "));
        section.report.error(item.key_span, &section.path, message);
        return None;
    }
    let mut found = VERBS.into_iter().filter(|verb| section.has(verb));
    let Some(first) = found.next() else {
        if !VERBS.iter().any(|verb| section.is_meant(verb)) {
            let message = format!("a transform has exactly one of {}; this one has none", VERBS.join(", "));
            section.report.error(section.span, &section.path, message);
        }
        return None;
    };
    let others: Vec<&str> = found.collect();
    for (second, item) in others.iter().filter_map(|verb| Some((verb, section.get(verb)?))) {
        let message = format!("a transform has exactly one verb; this one has {first:?} and {second:?}");
        section.report.error(item.key_span, &section.path, message);
    }
    others.is_empty().then_some(first)
}

/// Qualifiers that the verb would ignore are mistakes.
fn refuse_idle_qualifiers(section: &Section<'_>, verb: &str) {
    let idle = |key: &str, why: &str| {
        if let Some(item) = section.get(key) {
            section.report.error(item.key_span, &section.path, format!("{key:?} means nothing to {verb:?}: {why}"));
        }
    };
    if verb != "transform" {
        idle("with", "it is the configuration of a plugin's transform");
        idle("async", "it is about the calls of a plugin's transform");
        idle("isolation", "it is about the process of a plugin, and this is no plugin's work");
    }
    if verb != "aggregate" {
        idle("window", "only aggregate has windows");
        idle("emit", "only aggregate without a window has it");
    }
    if !matches!(verb, "aggregate" | "transform") {
        idle("key_by", "only aggregate and transform have keys");
    }
    if verb == "aggregate" && section.has("window") {
        idle("emit", "a window gives its rows once, when it ends");
    }
}

fn inputs(section: &Section<'_>) -> Option<Vec<InputName>> {
    match (section.get("input"), section.get("inputs")) {
        (Some(_), Some(second)) => {
            section.report.error(second.key_span, &section.path, "there is \"input\" and \"inputs\"; one of them is enough");
            None
        }
        (Some(one), None) => Some(vec![nodes::input(&one)?]),
        (None, Some(many)) => {
            let items = many.list()?;
            if items.is_empty() {
                many.error("at least one input is needed");
                return None;
            }
            // All of them are read, so that all that are wrong are reported.
            let inputs: Vec<Option<InputName>> = items.iter().map(nodes::input).collect();
            inputs.into_iter().collect()
        }
        (None, None) if section.is_meant("inputs") => None,
        (None, None) => section.required("input").and(None),
    }
}

fn key_by(item: &Item<'_>) -> Option<Vec<Text>> {
    let columns = item.texts()?;
    if columns.is_empty() {
        item.error("at least one column is needed; leave key_by out for one group of all rows");
        return None;
    }
    Some(columns)
}

fn verb(name: &str, item: Item<'_>, section: &Section<'_>) -> Option<Verb> {
    match name {
        "filter" => nodes::expression(&item).map(Verb::Filter),
        "select" => select(item).map(Verb::Select),
        "union" => {
            if !matches!(item.scalar().map(|scalar| &scalar.value), Some(Value::Bool(true))) {
                item.expected("true");
                return None;
            }
            Some(Verb::Union)
        }
        "transform" => {
            let (kind, with) = (item.text(), nodes::with(section));
            let asynchronous = section.optional("async", asynchronous);
            let isolation = isolation::of_transform(section);
            Some(Verb::Transform { kind: kind?, with: with?, asynchronous: asynchronous?, isolation: isolation? })
        }
        _ => {
            let columns = aggregate(item);
            let window = section.optional("window", window);
            let emit = section.optional("emit", |item| item.word(&EMIT));
            Some(Verb::Aggregate { columns: columns?, window: window?, emit: emit? })
        }
    }
}

fn select(item: Item<'_>) -> Option<Vec<SelectItem>> {
    if item.scalar().is_some_and(|scalar| scalar.value == Value::Text("*".to_owned())) {
        return Some(vec![SelectItem::All]);
    }
    let section = columns(item, "write {name: expression}, or \"*\" for all columns")?;
    let columns: Vec<Option<SelectItem>> = section
        .items()
        .map(|(name, item)| match name {
            "*" if matches!(item.scalar().map(|scalar| &scalar.value), Some(Value::Bool(true))) => Some(SelectItem::All),
            "*" => {
                item.expected("true");
                None
            }
            _ => named(name, &item).map(SelectItem::Column),
        })
        .collect();
    some_columns(columns.into_iter().collect::<Option<_>>()?, &section)
}

fn aggregate(item: Item<'_>) -> Option<Vec<NamedExpression>> {
    let section = columns(item, "write {name: \"count(*)\"}")?;
    let columns: Vec<Option<NamedExpression>> = section.items().map(|(name, item)| named(name, &item)).collect();
    some_columns(columns.into_iter().collect::<Option<_>>()?, &section)
}

/// Opens a map of names and expressions.
fn columns<'a>(item: Item<'a>, hint: &str) -> Option<Section<'a>> {
    if item.node.as_map().is_none() {
        item.expected_with_hint("a map", hint);
        return None;
    }
    Section::open_any(item)
}

fn some_columns<T>(columns: Vec<T>, section: &Section<'_>) -> Option<Vec<T>> {
    if columns.is_empty() {
        section.report.error(section.span, &section.path, "at least one column is needed");
        return None;
    }
    Some(columns)
}

fn named(name: &str, item: &Item<'_>) -> Option<NamedExpression> {
    let expression = nodes::expression(item)?;
    Some(NamedExpression { name: At { value: name.to_owned(), span: item.key_span }, expression, path: item.path.clone() })
}

const EMIT: [(&str, Emit); 3] = [("final", Emit::Final), ("changes", Emit::Changes), ("each", Emit::Each)];

const ORDER: [(&str, ResultOrder); 2] = [("input", ResultOrder::Input), ("any", ResultOrder::Any)];

/// `{capacity: 16, order: any, timeout: 30s}`
fn asynchronous(item: Item<'_>) -> Option<AsyncBlock> {
    let section = Section::open(item, &ASYNC_KEYS)?;
    let capacity = section.optional("capacity", |item| item.count(MOST_PENDING));
    let order = section.optional("order", |item| item.word(&ORDER));
    let timeout = section.optional("timeout", |item| match item.duration()? {
        At { value, .. } if value.is_zero() => {
            item.error("a call needs longer than 0s");
            None
        }
        timeout => Some(timeout.value),
    });
    Some(AsyncBlock { capacity: capacity?.map(|capacity| capacity.value), order: order?, timeout: timeout?, span: section.span })
}

fn window(item: Item<'_>) -> Option<WindowBlock> {
    if item.node.as_map().is_none() {
        item.expected_with_hint("a map", "write {tumbling: 10s}");
        return None;
    }
    let section = Section::open_but(item, &WINDOW_KEYS, &LATER_WINDOWS, "")?;
    if let Some((kind, item)) = LATER_WINDOWS.into_iter().find_map(|kind| Some((kind, section.get(kind)?))) {
        section.report.error(item.key_span, &section.path, format!("{kind} windows are not in this release; tumbling ones are"));
        return None;
    }
    let lateness = section.optional("allowed_lateness", |item| item.duration());
    let tumbling = section.required("tumbling")?;
    let (size, offset) = match tumbling.node.data {
        Data::Map(_) => {
            let parts = Section::open(tumbling, &TUMBLING_KEYS)?;
            let offset = parts.optional("offset", |item| Some((item.duration()?, item)));
            (parts.required("size"), offset)
        }
        _ => (Some(tumbling), Some(None)),
    };
    let size = size?;
    let length = size.duration()?;
    if length.value.is_zero() {
        size.error("a window must be longer than 0s");
        return None;
    }
    let offset = offset?;
    if let Some((_, item)) = offset.as_ref().filter(|(offset, _)| offset.value >= length.value) {
        item.error("the offset must be shorter than the window");
        return None;
    }
    Some(WindowBlock {
        size: length,
        offset: offset.map_or(Duration::ZERO, |(offset, _)| offset.value),
        allowed_lateness: lateness?.map_or(Duration::ZERO, |at| at.value),
        span: section.span,
    })
}
