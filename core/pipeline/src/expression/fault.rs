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
    /// The function that there is not.
    pub(crate) unknown: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, unknown: None }
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
    Fault {
        message: message.strip_suffix('?').filter(|_| quoted.is_some()).map_or(message.clone(), str::to_owned),
        hint: quoted,
        unknown: None,
    }
}

/// `sql parser error: Expected: an expression, found: EOF at Line: 1, Column: 5`
fn syntax(message: &str, text: &str) -> Fault {
    if text.trim().is_empty() {
        return Fault::new("the expression is empty");
    }
    let message = one_line(message);
    let message = message.strip_prefix("sql parser error: ").unwrap_or(&message);
    let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let what = what.replace("Expected: ", "expected ").replace("found: EOF", "the expression ends").replace("found: ", "found ");
    let column = place.split_once("Column: ").and_then(|(_, column)| column.trim().parse::<u32>().ok());
    let place = column.filter(|_| !text.contains('\n')).map(|column| format!(" at character {column}")).unwrap_or_default();
    Fault::new(format!("{what}{place} in {text:?}"))
}

/// A message of DataFusion in one line, without its classes of errors.
pub(super) fn reason(message: &str) -> String {
    let message = one_line(message);
    let prefixes = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Internal error: ",
        "Arrow error: ",
        "External error: ",
        "Optimizer rule 'simplify_expressions' failed caused by ",
    ];
    let mut rest = message.as_str();
    while let Some(next) = prefixes.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = next;
    }
    rest.to_owned()
}

fn plan(message: &str, functions: &Functions) -> Fault {
    let message = reason(message);
    // What a function of a plugin says of its arguments.
    let message = message.split_once("user-defined coercion failed with: ").map_or(message.clone(), |(_, of_plugin)| reason(of_plugin));
    let rest = message.as_str();
    if let Some(name) = rest.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
        if let Some(why) = functions.refusal(name) {
            return Fault::new(format!("{name}(): {why}"));
        }
        let end = suggest::closest(name, functions.names()).map(|best| format!(", did you mean {best:?}?")).unwrap_or_default();
        return Fault { unknown: Some(name.to_owned()), ..Fault::new(format!("unknown function {name:?}{end}")) };
    }
    // DataFusion adds how to report a bug to what it calls internal.
    let end = rest.find("This issue was likely caused by").or_else(|| rest.find("This was likely caused by")).unwrap_or(rest.len());
    let rest = rest[..end].trim_end().trim_end_matches('.');
    let message = signature(rest).or_else(|| operands(rest)).unwrap_or_else(|| rest.to_owned());
    Fault::new(with_our_types(&message))
}

/// `Function 'avg' failed to match any signature, errors: Error during planning: Function 'avg' requires Decimal, but received String (DataType: Utf8).,...`:
/// one clause per way in which a function can be called.
fn signature(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("Failed to coerce arguments to satisfy a call to '") {
        let (name, rest) = rest.split_once("' function: coercion from ")?;
        let (found, _) = rest.split_once(" to the signature ")?;
        return Some(format!("{name}() does not take the arguments ({found})"));
    }
    let (name, _) = message.strip_prefix("Function '")?.split_once('\'')?;
    let (mut types, mut counts, mut found, mut given) = (Vec::new(), Vec::new(), None, None);
    for clause in message.split("Function '").filter_map(|clause| clause.split_once("' ")).map(|(_, clause)| clause) {
        if let Some((wanted, rest)) = clause.strip_prefix("requires ").and_then(|clause| clause.split_once(", but received ")) {
            push_new(&mut types, wanted.to_lowercase());
            found = rest
                .split_once(" (DataType: ")
                .map(|(_, data_type)| data_type.trim_end_matches([',', '.']).trim_end_matches(')'))
                .or(found);
        } else if let Some((wanted, rest)) =
            clause.strip_prefix("expects ").and_then(|clause| clause.split_once(" arguments but received "))
        {
            push_new(&mut counts, wanted.to_owned());
            given = rest.split([',', ' ']).next();
        }
    }
    match (found, given) {
        (Some(found), _) => Some(format!("{name}() takes {}, not {}", alternatives(&types), closed(found))),
        (None, Some(given)) => {
            let plural = if counts == ["1"] { "argument" } else { "arguments" };
            Some(format!("{name}() takes {} {plural}, not {given}", alternatives(&counts)))
        }
        (None, None) => None,
    }
}

/// The closing parentheses that the end of the clause has cost it.
fn closed(data_type: &str) -> String {
    let missing = data_type.matches('(').count().saturating_sub(data_type.matches(')').count());
    format!("{data_type}{}", ")".repeat(missing))
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// `a, b or c`
fn alternatives(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// `Cannot coerce arithmetic expression Utf8 + Int64 to valid types`
fn operands(message: &str) -> Option<String> {
    let arithmetic = message.strip_prefix("Cannot coerce arithmetic expression ").and_then(|rest| rest.strip_suffix(" to valid types"));
    let others =
        ["Cannot infer common argument type for logical boolean operation ", "Cannot infer common argument type for comparison operation "];
    let operation = arithmetic.or_else(|| others.iter().find_map(|prefix| message.strip_prefix(prefix)))?;
    Some(format!("cannot compute {operation}"))
}

/// Arrow's names of types, as a pipeline file writes them.
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
    for (theirs, ours) in [("(s)", "_s"), ("(ms)", "_ms"), ("(µs)", "_us"), ("(ns)", "_ns")] {
        out = out.replace(&format!("Timestamp{theirs}"), &format!("timestamp{ours}"));
    }
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
