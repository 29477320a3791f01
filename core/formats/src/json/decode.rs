//! JSON records to record batches: the decoder that the engine calls after a source. It knows no policy: broken records are reported.

use arrow_array::{Array, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;

use super::column::Object;
use super::cursor::{Cursor, Result};
use crate::records::{RecordVisitor, each_record};
use crate::{Decoded, Decoder, FormatError, OnNull};

/// The decoder of the format `json`.
pub(crate) struct JsonDecoder {
    schema: SchemaRef,
    object: Object,
    on_null: OnNull,
}

impl JsonDecoder {
    pub(crate) fn new(schema: SchemaRef, on_null: OnNull) -> std::result::Result<Self, FormatError> {
        Ok(Self { object: Object::new(schema.fields(), "")?, schema, on_null })
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, records: &dyn Array) -> std::result::Result<Decoded, FormatError> {
        // What a failed call has left behind.
        self.object.truncate(0);
        let outcome = each_record(records, self.on_null, &mut self.object)?;
        let rows = RecordBatchOptions::new().with_row_count(Some(self.object.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), self.object.finish()?, &rows)?;
        Ok(Decoded { batch, kept: outcome.kept, broken: outcome.broken })
    }
}

impl RecordVisitor for Object {
    #[inline]
    fn record(&mut self, bytes: &[u8]) -> std::result::Result<bool, String> {
        let rows = self.len();
        decode_record(self, bytes).map(|()| true).map_err(|fault| {
            self.truncate(rows);
            fault.reason()
        })
    }

    fn null(&mut self) -> std::result::Result<(), String> {
        // An object without members: every column is null, if it may be.
        self.record(b"{}").map(drop)
    }
}

#[inline]
fn decode_record(object: &mut Object, bytes: &[u8]) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    cursor.token();
    object.decode(&mut cursor)?;
    cursor.end()
}
