//! The CSV codec: RFC 4180 with another delimiter or quote where asked for. The columns of the schema, in their order, are the fields of a record.
//!
//! Nulls and empty texts are told apart: a field without quotes that is the null text (by default the empty one) is null, one with quotes never is. A quote within
//! a quoted field is written twice; there is no other escape. A quote that does not begin a field stands for itself. Values have the text that they have in JSON,
//! without its quotes; of floats also `NaN`, `inf` and `-inf`. Lists, structs and maps have no form.
//!
//! A header is a record as any other, so that it is known wherever reading begins, in each of many files: the names of the columns, in their order.
//!
//! Ours because a broken record must not take its batch with it, and because the known readers of CSV do not say whether a field had quotes
//! (arrow-csv, csv-core); property-tested against arrow-csv (`tests/csv_properties.rs`). Reading: `split` (fields) -> the columns of the JSON codec -> `decode`.
//! Writing: `encode`.

mod decode;
mod encode;
mod split;

pub(crate) use decode::CsvDecoder;
pub(crate) use encode::CsvEncoder;

use arrow_schema::{DataType, Field, Schema};

use crate::{FormatError, FormatSpec, types};

/// Characters that are in the text of a number, a time or base64: as a delimiter they would need quotes everywhere.
const IN_VALUES: &str = "+-./:=_";

/// How the fields of a record are told apart.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    delimiter: u8,
    quote: u8,
    null: Vec<u8>,
    /// Whether a record that is the names of the columns is a header.
    header: bool,
}

impl Dialect {
    fn new(spec: &FormatSpec) -> Result<Self, FormatError> {
        let option = |option, message: String| FormatError::Option { format: "csv", option, message };
        let delimiter = spec.delimiter.unwrap_or(',');
        let is_good = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '\n' | '\r' | '\0');
        if !is_good(delimiter) || IN_VALUES.contains(delimiter) {
            let message = format!("{delimiter:?} is no delimiter: it must be one ASCII character that is not part of numbers and times");
            return Err(option("delimiter", message));
        }
        let quote = spec.quote.unwrap_or('"');
        if !is_good(quote) || IN_VALUES.contains(quote) || quote == delimiter {
            return Err(option(
                "quote",
                format!("{quote:?} is no quote: it must be one ASCII character that is in no number, and not the delimiter"),
            ));
        }
        let null = spec.null_text.clone().unwrap_or_default();
        if let Some(found) = null.chars().find(|c| *c == delimiter || *c == quote || matches!(c, '\n' | '\r')) {
            return Err(option("null_text", format!("{null:?} holds {found:?}, which ends or quotes a field")));
        }
        // Both are ASCII.
        Ok(Self { delimiter: delimiter as u8, quote: quote as u8, null: null.into_bytes(), header: spec.header.unwrap_or_default() })
    }

    /// Whether a field needs quotes: without them it would end early, begin with a quote, or be null.
    fn needs_quotes(&self, text: &[u8]) -> bool {
        let special = |byte: &u8| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r');
        text == self.null || text.iter().any(special)
    }

    /// Writes a text as a field.
    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        if !self.needs_quotes(text) {
            out.extend_from_slice(text);
            return;
        }
        out.push(self.quote);
        for byte in text {
            if *byte == self.quote {
                out.push(self.quote);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}

/// The record that names the columns.
///
/// # Errors
/// When an option has no meaning.
pub(crate) fn header(spec: &FormatSpec, schema: &Schema) -> Result<Vec<u8>, FormatError> {
    let dialect = Dialect::new(spec)?;
    let mut out = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        if at > 0 {
            out.push(dialect.delimiter);
        }
        dialect.write(field.name().as_bytes(), &mut out);
    }
    Ok(out)
}

/// A record has no place for parts of a value, and a schema without columns none for a row.
fn check(schema: &Schema) -> Result<(), FormatError> {
    if schema.fields().is_empty() {
        return Err(FormatError::NoColumns("csv"));
    }
    match schema.fields().iter().find(|field| is_nested(field.data_type())) {
        Some(field) => Err(unsupported(field)),
        None => Ok(()),
    }
}

fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_nested(value),
        DataType::RunEndEncoded(_, values) => is_nested(values.data_type()),
        other => other.is_nested(),
    }
}

fn unsupported(field: &Field) -> FormatError {
    FormatError::ColumnType { format: "csv", column: field.name().clone(), found: types::type_text(field) }
}
