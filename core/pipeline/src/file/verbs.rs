//! Transforms of the file: exactly one verb each, and the qualifiers that mean something to it.

use super::{
    nodes::{self, Expression, InputName, Name, With},
    reader::{Item, Section},
};
use crate::{
    diagnostic::{At, Span},
    plan::Emit,
    yaml::{Data, Value},
};
use std::time::Duration;

pub(crate) const TRANSFORM_KEYS: [&str; 12] =
    ["input", "inputs", "filter", "select", "union", "transform", "aggregate", "with", "key_by", "window", "emit", "parallelism"];
pub(crate) const WINDOW_KEYS: [&str; 5] = ["tumbling", "allowed_lateness", "sliding", "session", "cumulate"];
pub(crate) const TUMBLING_KEYS: [&str; 2] = ["size", "offset"];
const VERBS: [&str; 5] = ["filter", "select", "union", "transform", "aggregate"];

#[derive(Debug)]
pub(crate) struct TransformBlock {
    pub(crate) name: Name,
    /// At least one.
    pub(crate) inputs: Vec<InputName>,
    /// With the place of the verb's key.
    pub(crate) verb: At<Verb>,
    pub(crate) key_by: Vec<At<String>>,
    pub(crate) parallelism: Option<At<u32>>,
}

impl PartialEq for Verb {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

#[derive(Debug)]
pub(crate) enum Verb {
    Filter(Expression),
    Select(Vec<SelectItem>),
    Union,
    Transform { kind: At<String>, with: With },
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
    pub(crate) expression: Expression,
    pub(crate) path: String,
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
    let section = Section::open_but(item, &TRANSFORM_KEYS, &["sql"])?;
    let inputs = inputs(&section);
    let verb_name = the_verb(&section);
    let key_by = section.get("key_by").map_or(Some(Vec::new()), |item| key_by(&item));
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
        key_by: key_by?,
        parallelism,
    })
}

/// The one verb of a transform.
fn the_verb(section: &Section<'_>) -> Option<&'static str> {
    if let Some(item) = section.get("sql") {
        section.report.error(
            item.key_span,
            &section.path,
            "SQL is not in this release; there are filter, select, union, transform, aggregate",
        );
        return None;
    }
    let mut found = VERBS.into_iter().filter(|verb| section.has(verb));
    let Some(first) = found.next() else {
        section.report.error(
            section.span,
            &section.path,
            format!("a transform has exactly one of {}; this one has none", VERBS.join(", ")),
        );
        return None;
    };
    for item in found.clone().filter_map(|verb| section.get(verb)) {
        let second = item.path.rsplit('.').next().unwrap_or_default();
        section.report.error(
            item.key_span,
            &section.path,
            format!("a transform has exactly one verb; this one has {first:?} and {second:?}"),
        );
    }
    if found.next().is_some() { None } else { Some(first) }
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
            items.iter().map(nodes::input).collect()
        }
        (None, None) => {
            section.report.error(section.span, &section.path, "missing key \"input\"");
            None
        }
    }
}

fn key_by(item: &Item<'_>) -> Option<Vec<At<String>>> {
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
        "transform" => Some(Verb::Transform { kind: item.text()?, with: nodes::with(section)? }),
        _ => {
            let columns = aggregate(item);
            let window = section.get("window").map_or(Some(None), |item| window(item).map(Some));
            let emit = section.get("emit").map_or(Some(None), |item| emit(&item).map(Some));
            Some(Verb::Aggregate { columns: columns?, window: window?, emit: emit? })
        }
    }
}

fn select(item: Item<'_>) -> Option<Vec<SelectItem>> {
    if item.scalar().is_some_and(|scalar| scalar.value == Value::Text("*".to_owned())) {
        return Some(vec![SelectItem::All]);
    }
    let section = Section::open_any(item)?;
    let columns = section.items().map(|(name, item)| match name {
        "*" if matches!(item.scalar().map(|scalar| &scalar.value), Some(Value::Bool(true))) => Some(SelectItem::All),
        "*" => {
            item.expected("true");
            None
        }
        _ => named(name, &item).map(SelectItem::Column),
    });
    some_columns(columns.collect::<Option<Vec<_>>>()?, &section)
}

fn aggregate(item: Item<'_>) -> Option<Vec<NamedExpression>> {
    let section = Section::open_any(item)?;
    let columns = section.items().map(|(name, item)| named(name, &item)).collect::<Vec<_>>();
    some_columns(columns.into_iter().collect::<Option<Vec<_>>>()?, &section)
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

fn emit(item: &Item<'_>) -> Option<At<Emit>> {
    let word = item.word(&["final", "changes", "each"])?;
    let value = match word.value.as_str() {
        "final" => Emit::Final,
        "changes" => Emit::Changes,
        _ => Emit::Each,
    };
    Some(At { value, span: word.span })
}

fn window(item: Item<'_>) -> Option<WindowBlock> {
    let section = Section::open(item, &WINDOW_KEYS)?;
    let later = ["sliding", "session", "cumulate"].into_iter().filter_map(|kind| Some((kind, section.get(kind)?))).next();
    if let Some((kind, item)) = later {
        section.report.error(item.key_span, &section.path, format!("{kind} windows are not in this release; tumbling ones are"));
        return None;
    }
    let tumbling = section.required("tumbling")?;
    let (size, offset) = match tumbling.node.data {
        Data::Map(_) => {
            let parts = Section::open(tumbling, &TUMBLING_KEYS)?;
            (parts.required("size")?, parts.get("offset"))
        }
        _ => (tumbling, None),
    };
    let length = size.duration()?;
    if length.value.is_zero() {
        size.error("a window must be longer than 0s");
        return None;
    }
    let shift = offset.as_ref().map_or(Some(Duration::ZERO), |item| item.duration().map(|at| at.value))?;
    if let Some(offset) = offset.filter(|_| shift >= length.value) {
        offset.error("the offset must be shorter than the window");
        return None;
    }
    let allowed_lateness = section.get("allowed_lateness").map_or(Some(Duration::ZERO), |item| item.duration().map(|at| at.value))?;
    Some(WindowBlock { size: length, offset: shift, allowed_lateness, span: section.span })
}
