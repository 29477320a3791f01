//! Record batches to CSV records: the encoder that the engine calls before a sink. Nothing is allocated per row: see `crate::json`'s encoder, whose values it writes.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, BinaryArray, Float32Array, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Schema};

use super::Dialect;
use crate::json::{Cell, ValueEncoder};
use crate::records::RecordsBuilder;
use crate::{Encoder, FormatError, FormatSpec};

/// The encoder of the format `csv`.
pub(crate) struct CsvEncoder {
    dialect: Dialect,
    columns: Vec<ValueEncoder>,
    /// The size of the last batch's records, a guess for the next.
    bytes_per_row: usize,
}

impl CsvEncoder {
    pub(crate) fn new(spec: &FormatSpec, schema: &Schema) -> Result<Self, FormatError> {
        super::check(schema)?;
        let columns = schema.fields().iter().map(|field| ValueEncoder::new("csv", field)).collect::<Result<_, _>>()?;
        Ok(Self { dialect: Dialect::new(spec)?, columns, bytes_per_row: 0 })
    }
}

/// A column to be written.
enum Values<'a> {
    Text(&'a StringArray),
    Float32(&'a Float32Array, Cell<'a>),
    Float64(&'a Float64Array, Cell<'a>),
    Other(Cell<'a>),
}

impl<'a> Values<'a> {
    fn new(column: &ValueEncoder, array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>(), column.cell(array)),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>(), column.cell(array)),
            _ => Self::Other(column.cell(array)),
        }
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, batch: &RecordBatch) -> Result<BinaryArray, FormatError> {
        if batch.num_columns() != self.columns.len() {
            return Err(FormatError::Columns { expected: self.columns.len(), found: batch.num_columns() });
        }
        let plain = self.columns.iter().zip(batch.columns()).map(|(column, array)| column.plain(array)).collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<_> =
            self.columns.iter().zip(&plain).map(|(column, array)| (Values::new(column, array), array.logical_nulls())).collect();
        let rows = batch.num_rows();
        let mut records = RecordsBuilder::with_capacity(rows, rows * (self.bytes_per_row + 1));
        for row in 0..rows {
            for (at, (values, nulls)) in columns.iter().enumerate() {
                if at > 0 {
                    records.bytes.push(self.dialect.delimiter);
                }
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    records.bytes.extend_from_slice(&self.dialect.null);
                } else {
                    self.dialect.value(values, row, &mut records.bytes);
                }
            }
            records.end()?;
        }
        self.bytes_per_row = records.bytes.len().div_ceil(rows.max(1));
        records.finish(None)
    }
}

impl Dialect {
    /// Writes a value that is not null.
    #[inline]
    fn value(&self, values: &Values<'_>, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        match values {
            Values::Text(texts) => return self.write(texts.value(row).as_bytes(), out),
            Values::Float32(floats, cell) => float(f64::from(floats.value(row)), cell, row, out),
            Values::Float64(floats, cell) => float(floats.value(row), cell, row, out),
            Values::Other(cell) => {
                cell.write(row, out);
                // Dates, times, ISO timestamps and base64, which have no escapes.
                if out.get(start) == Some(&b'"') {
                    out.pop();
                    out.remove(start);
                }
            }
        }
        // No delimiter and no quote is in the text of a value; but it may be the null text.
        if out[start..] == *self.null {
            out.insert(start, self.quote);
            out.push(self.quote);
        }
    }
}

fn float(value: f64, cell: &Cell<'_>, row: usize, out: &mut Vec<u8>) {
    match value {
        f64::INFINITY => out.extend_from_slice(b"inf"),
        f64::NEG_INFINITY => out.extend_from_slice(b"-inf"),
        value if value.is_nan() => out.extend_from_slice(b"NaN"),
        _ => cell.write(row, out),
    }
}
