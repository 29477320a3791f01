//! DataFusion's errors as one line for people: which column or function is unknown, what was probably meant, where in the expression the syntax is wrong.

use super::functions::Functions;
use crate::suggest;
use arrow_schema::Schema;
use datafusion_common::{DataFusionError, SchemaError};

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }
}

pub(super) fn translate(error: &DataFusionError, text: &str, schema: &Schema, functions: &Functions) -> Fault {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => translate(inner, text, schema, functions),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => translate(first, text, schema, functions),
            None => Fault::new("the expression is wrong"),
        },
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, .. } => unknown_column(&field.flat_name(), field.name(), text, schema),
            other => Fault::new(one_line(&other.to_string())),
        },
        DataFusionError::SQL(inner, _) => syntax(&inner.to_string(), text),
        other => plan(&other.strip_backtrace(), functions),
    }
}

fn unknown_column(full: &str, name: &str, text: &str, schema: &Schema) -> Fault {
    let columns = schema.fields().iter().map(|field| field.name().as_str());
    let message = format!("unknown column {full:?}{}", suggest::or_list(name, columns, "columns"));
    // In SQL, "x" is a name and 'x' a text.
    let quoted = text.contains(&format!("\"{name}\"")).then(|| format!("if it is a text, write '{name}'"));
    Fault { message: message.strip_suffix('?').filter(|_| quoted.is_some()).map_or(message.clone(), str::to_owned), hint: quoted }
}

/// `sql parser error: Expected: an expression, found: EOF at Line: 1, Column: 5`
fn syntax(message: &str, text: &str) -> Fault {
    let message = one_line(message);
    let message = message.strip_prefix("sql parser error: ").unwrap_or(&message);
    let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let what = what.replace("Expected: ", "expected ").replace("found: EOF", "the expression ends").replace("found: ", "found ");
    let column = place.split_once("Column: ").and_then(|(_, column)| column.trim().parse::<u32>().ok());
    let place = column.filter(|_| !text.contains('\n')).map(|column| format!(" at character {column}")).unwrap_or_default();
    Fault::new(format!("{what}{place} in {text:?}"))
}

fn plan(message: &str, functions: &Functions) -> Fault {
    let message = one_line(message);
    let prefixes = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Internal error: ",
        "Arrow error: ",
        "Optimizer rule 'simplify_expressions' failed caused by ",
    ];
    let mut rest = message.as_str();
    while let Some(next) = prefixes.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = next;
    }
    if let Some(name) = rest.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
        let end = suggest::closest(name, functions.names()).map(|best| format!(", did you mean {best:?}?")).unwrap_or_default();
        return Fault::new(format!("unknown function {name:?}{end}"));
    }
    // DataFusion adds how to report a bug to what it calls internal.
    let end = rest.find("This issue was likely caused by").or_else(|| rest.find("This was likely caused by")).unwrap_or(rest.len());
    Fault::new(with_our_types(rest[..end].trim_end().trim_end_matches('.')))
}

/// Arrow's names of the simple types, as a pipeline file writes them.
fn with_our_types(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_alphanumeric());
        match word {
            "Utf8" => out.push_str("string"),
            "Boolean" => out.push_str("bool"),
            "Date32" => out.push_str("date"),
            "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" | "UInt64" | "Float32" | "Float64" | "Binary" => {
                out.push_str(&word.to_lowercase())
            }
            _ => out.push_str(word),
        }
        out.push_str(&part[word.len()..]);
    }
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
