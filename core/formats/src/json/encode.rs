//! Record batches to JSON records: the encoder that the engine calls before a sink.
//!
//! Each row becomes one object with every column under its own name, nulls as `null`. Nothing is allocated per row: a batch's columns are first
//! brought to the few Arrow types that JSON distinguishes ([`plain_type`]; a cast only for columns that have another one), then written value by
//! value by `encode_values`.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use arrow_cast::display::FormatOptions;
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Schema, TimeUnit};

use super::cursor::plain_run;
use super::encode_values::Cell;
use crate::block::{Fixed, append};
use crate::records::RecordsBuilder;
use crate::{Encoder, FormatError};

/// A value that does not fit is an error, never a null.
const STRICT: CastOptions = CastOptions { safe: false, format_options: FormatOptions::new() };

/// The encoder of the format `json`.
pub(crate) struct JsonEncoder {
    columns: Vec<(Fixed, ValueEncoder)>,
    /// The size of the last batch's records, a guess for the next.
    bytes_per_row: usize,
}

impl JsonEncoder {
    pub(crate) fn new(schema: &Schema) -> Result<Self, FormatError> {
        let columns = schema.fields().iter().map(|field| ValueEncoder::new("json", field));
        let columns = prefixes(schema.fields()).into_iter().zip(columns).map(|(prefix, column)| Ok((prefix, column?)));
        Ok(Self { columns: columns.collect::<Result<_, FormatError>>()?, bytes_per_row: 0 })
    }
}

impl Encoder for JsonEncoder {
    fn encode(&mut self, batch: &RecordBatch) -> Result<BinaryArray, FormatError> {
        if batch.num_columns() != self.columns.len() {
            return Err(FormatError::Columns { expected: self.columns.len(), found: batch.num_columns() });
        }
        let columns = self.columns.iter().zip(batch.columns());
        let plain = columns.map(|((_, column), array)| column.plain(array)).collect::<Result<Vec<_>, _>>()?;
        let cells = self.columns.iter().zip(&plain).map(|((prefix, column), array)| (prefix, column.cell(array))).collect::<Vec<_>>();
        let rows = batch.num_rows();
        let mut records = RecordsBuilder::with_capacity(rows, rows * (self.bytes_per_row + 1));
        for row in 0..rows {
            if cells.is_empty() {
                records.bytes.push(b'{');
            }
            for (prefix, cell) in &cells {
                prefix.write(&mut records.bytes);
                cell.write(row, &mut records.bytes);
            }
            records.bytes.push(b'}');
            records.end()?;
        }
        self.bytes_per_row = records.bytes.len().div_ceil(rows.max(1));
        records.finish(None)
    }
}

/// Writes the values of one column; also for other formats.
#[derive(Debug)]
pub(crate) struct ValueEncoder {
    field: FieldRef,
}

impl ValueEncoder {
    pub(crate) fn new(format: &'static str, field: &Field) -> Result<Self, FormatError> {
        let unsupported = || FormatError::ColumnType { format, column: field.name().clone(), found: crate::types::type_text(field) };
        let data_type =
            plain_type(field.data_type()).filter(|plain| plain == field.data_type() || can_cast_types(field.data_type(), plain));
        Ok(Self { field: Arc::new(field.clone().with_data_type(data_type.ok_or_else(unsupported)?)) })
    }

    /// The type that is written.
    pub(crate) fn data_type(&self) -> &DataType {
        self.field.data_type()
    }

    /// The column in the type that is written.
    pub(crate) fn plain(&self, array: &ArrayRef) -> Result<ArrayRef, FormatError> {
        if array.data_type() == self.field.data_type() {
            Ok(Arc::clone(array))
        } else {
            Ok(cast_with_options(array, self.field.data_type(), &STRICT)?)
        }
    }

    /// The writer of a column that [`Self::plain`] gave.
    pub(crate) fn cell<'a>(&self, array: &'a ArrayRef) -> Cell<'a> {
        Cell::new(&self.field, array)
    }
}

/// The type that a value is written by: one for strings, one for lists, and so on. None for what has no form in JSON (intervals, unions).
fn plain_type(data_type: &DataType) -> Option<DataType> {
    let plain_field = |field: &FieldRef| Some(Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())?)));
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value)?,
        DataType::RunEndEncoded(_, value) => plain_type(value.data_type())?,
        DataType::Float16 => DataType::Float32,
        &(DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale)) => DataType::Decimal128(precision, scale),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(plain_field(item)?),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect::<Option<_>>()?),
        DataType::Map(entries, ordered) => {
            let DataType::Struct(fields) = entries.data_type() else { return None };
            let [key, value] = fields.as_ref() else { return None };
            let key = Arc::new(key.as_ref().clone().with_data_type(DataType::Utf8));
            let fields = DataType::Struct([key, plain_field(value)?].into_iter().collect());
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(fields)), *ordered)
        }
        DataType::Interval(_) | DataType::Duration(_) | DataType::Union(..) => return None,
        same => same.clone(),
    })
}

/// What stands before the value of each field of an object: `{"a":`, `,"b":`.
pub(super) fn prefixes<'a>(fields: impl IntoIterator<Item = &'a FieldRef>) -> Vec<Fixed> {
    let prefix = |(at, field): (usize, &FieldRef)| {
        let mut prefix = vec![if at == 0 { b'{' } else { b',' }];
        write_string(field.name().as_bytes(), &mut prefix);
        prefix.push(b':');
        Fixed::new(prefix)
    };
    fields.into_iter().enumerate().map(prefix).collect()
}

/// A text as a JSON string, with its quotes.
pub(super) fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(text.as_bytes(), &mut out);
    out
}

/// Writes a UTF-8 text as a JSON string, with its quotes. Only what must be escaped is.
#[inline]
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    write_string_of(text, 0, text.len(), out);
}

/// The same for a text within others.
#[inline]
pub(super) fn write_string_of(texts: &[u8], start: usize, end: usize, out: &mut Vec<u8>) {
    out.push(b'"');
    let text = &texts[start..end];
    if plain_run(text, 0).0 == text.len() {
        append(out, texts, start, end);
    } else {
        write_escaped(text, out);
    }
    out.push(b'"');
}

fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut pos = 0;
    loop {
        let (end, _) = plain_run(text, pos);
        out.extend_from_slice(&text[pos..end]);
        let Some(&byte) = text.get(end) else { return };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
            }
        }
        pos = end + 1;
    }
}
