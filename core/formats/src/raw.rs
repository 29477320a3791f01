//! The format `raw`: a record is the value of the schema's one column, as it is. Nothing is copied where the Arrow types are the same.
//!
//! A string column takes valid UTF-8 only; another record is broken. On the way out, values of other types are written as their text, the same
//! as in JSON but without quotes; a null value is a null record (a tombstone).

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_buffer::NullBufferBuilder;
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::json::ValueEncoder;
use crate::records::{Outcome, RecordVisitor, RecordsBuilder, TOMBSTONE, each_record};
use crate::{Decoded, Decoder, Encoder, FormatError, OnNull, types};

/// The schema's one column.
fn only_column(schema: &Schema) -> Result<&Field, FormatError> {
    match schema.fields().as_ref() {
        [field] => Ok(field),
        fields => Err(FormatError::RawColumns(fields.len())),
    }
}

/// The decoder of the format `raw`.
pub(crate) struct RawDecoder {
    schema: SchemaRef,
    is_text: bool,
    on_null: OnNull,
}

impl RawDecoder {
    pub(crate) fn new(schema: SchemaRef, on_null: OnNull) -> Result<Self, FormatError> {
        let field = only_column(&schema)?;
        let is_text = match field.data_type() {
            DataType::Utf8 => true,
            DataType::Binary => false,
            _ => return Err(FormatError::ColumnType { format: "raw", column: field.name().clone(), found: types::type_text(field) }),
        };
        Ok(Self { schema, is_text, on_null })
    }

    fn copied(&self, records: &dyn Array, check_text: bool) -> Result<(BinaryArray, Outcome), FormatError> {
        let is_nullable = self.schema.fields().iter().all(|field| field.is_nullable());
        let valid = NullBufferBuilder::new(records.len());
        let mut copy = Copy { records: RecordsBuilder::with_capacity(records.len(), 0), check_text, is_nullable, valid };
        let outcome = each_record(records, self.on_null, &mut copy)?;
        Ok((copy.records.finish(copy.valid.finish())?, outcome))
    }

    /// The column of records as it is, if all of them are whole and of the type already (or of that of bytes that turn out to be text).
    fn as_it_is(&self, records: &dyn Array) -> Option<ArrayRef> {
        if records.null_count() > 0 {
            return None;
        }
        match (records.data_type(), self.is_text) {
            (DataType::Utf8, true) => Some(Arc::new(records.as_string::<i32>().clone())),
            (DataType::Binary, false) => Some(Arc::new(records.as_binary::<i32>().clone())),
            (DataType::Utf8, false) => Some(Arc::new(BinaryArray::from(records.as_string::<i32>().clone()))),
            (DataType::Binary, true) => text_of(records.as_binary::<i32>().clone()),
            _ => None,
        }
    }
}

/// Bytes as strings, without a copy, if all of them are valid UTF-8.
fn text_of(bytes: BinaryArray) -> Option<ArrayRef> {
    Some(Arc::new(StringArray::try_from_binary(bytes).ok()?))
}

/// Copies records.
struct Copy {
    records: RecordsBuilder,
    check_text: bool,
    /// Whether the column takes nulls.
    is_nullable: bool,
    valid: NullBufferBuilder,
}

impl RecordVisitor for Copy {
    fn record(&mut self, bytes: &[u8]) -> Result<bool, String> {
        if self.check_text
            && let Err(error) = std::str::from_utf8(bytes)
        {
            return Err(format!("invalid UTF-8 at byte {}", error.valid_up_to()));
        }
        self.records.bytes.extend_from_slice(bytes);
        self.valid.append_non_null();
        self.records.end().map(|()| true).map_err(|error| error.to_string())
    }

    fn null(&mut self) -> Result<(), String> {
        if !self.is_nullable {
            return Err(TOMBSTONE.to_owned());
        }
        self.valid.append_null();
        self.records.end().map_err(|error| error.to_string())
    }
}

impl Decoder for RawDecoder {
    fn decode(&mut self, records: &dyn Array) -> Result<Decoded, FormatError> {
        if let Some(column) = self.as_it_is(records) {
            return Ok(Decoded { batch: RecordBatch::try_new(self.schema.clone(), vec![column])?, kept: None, broken: Vec::new() });
        }
        let (bytes, mut outcome) = self.copied(records, false)?;
        let column = if self.is_text {
            // All at once; one by one only if there is a broken one to be found.
            match text_of(bytes) {
                Some(text) => text,
                None => {
                    let (bytes, checked) = self.copied(records, true)?;
                    outcome = checked;
                    Arc::new(StringArray::try_from_binary(bytes)?)
                }
            }
        } else {
            Arc::new(bytes)
        };
        let batch = RecordBatch::try_new(self.schema.clone(), vec![column])?;
        Ok(Decoded { batch, kept: outcome.kept, broken: outcome.broken })
    }
}

/// The encoder of the format `raw`.
pub(crate) struct RawEncoder {
    text: ValueEncoder,
}

impl RawEncoder {
    pub(crate) fn new(schema: &Schema) -> Result<Self, FormatError> {
        Ok(Self { text: ValueEncoder::new("raw", only_column(schema)?)? })
    }
}

impl Encoder for RawEncoder {
    fn encode(&mut self, batch: &RecordBatch) -> Result<BinaryArray, FormatError> {
        let [column] = batch.columns() else { return Err(FormatError::Columns { expected: 1, found: batch.num_columns() }) };
        let column = self.text.plain(column)?;
        match column.data_type() {
            DataType::Utf8 => return Ok(BinaryArray::from(column.as_string::<i32>().clone())),
            DataType::Binary => return Ok(column.as_binary::<i32>().clone()),
            _ => {}
        }
        let cell = self.text.cell(&column);
        let mut records = RecordsBuilder::with_capacity(column.len(), 0);
        let mut value = Vec::new();
        for row in 0..column.len() {
            value.clear();
            if column.is_valid(row) {
                cell.write(row, &mut value);
            }
            // Dates, times and ISO timestamps, which have no escapes.
            let text = value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(&value);
            records.bytes.extend_from_slice(text);
            records.end()?;
        }
        records.finish(column.logical_nulls())
    }
}
