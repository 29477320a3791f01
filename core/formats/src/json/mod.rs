//! The JSON codec: one object per record, in one pass, straight into Arrow buffers.
//!
//! Ours because it is on the hot path and measured faster than arrow-json (`benches/formats.rs`), whose reader it is property-tested against
//! (`tests/json_properties.rs`). The grammar is RFC 8259, strictly: no comments, no trailing commas, no leading zeros, no raw control
//! characters, no lone surrogates, only UTF-8, at most [`cursor::MAX_DEPTH`] levels of nesting. Of a duplicate key the last value wins.
//!
//! Reading: `cursor` (tokens) -> `number` (exact conversions) -> `column` and `nested` (one growing column per field, which can take back a
//! broken record) -> `decode` (records to batches). Writing: `encode` (batches), `encode_values` (values).

mod column;
mod cursor;
mod decode;
mod encode;
mod encode_values;
mod nested;
mod number;
mod scalar;

pub(crate) use column::Column;
pub(crate) use decode::JsonDecoder;
pub(crate) use encode::{JsonEncoder, ValueEncoder};
pub(crate) use encode_values::Cell;

use arrow_schema::Field;

use crate::{FormatError, types};

/// A field's path within its column.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn unsupported(field: &Field, path: &str) -> FormatError {
    FormatError::ColumnType { format: "json", column: path.to_owned(), found: types::type_text(field) }
}
