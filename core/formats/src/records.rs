//! A column of encoded records, whatever its Arrow type, as an iterator over bytes; and the collector of encoded records.
//!
//! Decoders read through [`each_record`], which is compiled once per array type, so that a hot loop sees no virtual call. Encoders write through
//! [`RecordsBuilder`].

use arrow_array::cast::AsArray;
use arrow_array::{Array, BinaryArray, UInt32Array};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType;

use crate::{Broken, FormatError, OnNull};

/// The reason of a null record.
pub(crate) const TOMBSTONE: &str = "the record is null (a tombstone)";

/// What is done with each record of a column.
pub(crate) trait RecordVisitor {
    /// Takes the next record: whether it is a row; `Err` says why it is broken.
    fn record(&mut self, bytes: &[u8]) -> Result<bool, String>;
    /// Takes a null record as a row without values.
    fn null(&mut self) -> Result<(), String>;
}

/// Which rows of the input made it, and why others did not.
pub(crate) struct Outcome {
    pub(crate) kept: Option<UInt32Array>,
    pub(crate) broken: Vec<Broken>,
}

/// Hands every record of a binary or string column to the visitor.
pub(crate) fn each_record(records: &dyn Array, on_null: OnNull, visitor: &mut impl RecordVisitor) -> Result<Outcome, FormatError> {
    match records.data_type() {
        DataType::Binary => visit(records.as_binary::<i32>().iter(), on_null, visitor),
        DataType::LargeBinary => visit(records.as_binary::<i64>().iter(), on_null, visitor),
        DataType::BinaryView => visit(records.as_binary_view().iter(), on_null, visitor),
        DataType::Utf8 => visit(records.as_string::<i32>().iter().map(|text| text.map(str::as_bytes)), on_null, visitor),
        DataType::LargeUtf8 => visit(records.as_string::<i64>().iter().map(|text| text.map(str::as_bytes)), on_null, visitor),
        DataType::Utf8View => visit(records.as_string_view().iter().map(|text| text.map(str::as_bytes)), on_null, visitor),
        other => Err(FormatError::Records(other.clone())),
    }
}

fn visit<'a>(
    records: impl Iterator<Item = Option<&'a [u8]>>,
    on_null: OnNull,
    visitor: &mut impl RecordVisitor,
) -> Result<Outcome, FormatError> {
    let mut kept: Vec<u32> = Vec::new();
    let mut broken = Vec::new();
    let mut is_whole = true;
    let mut total = 0;
    for (row, record) in (0_u32..).zip(records) {
        total += record.map_or(0, <[u8]>::len);
        if total > i32::MAX as usize {
            return Err(FormatError::BatchTooLarge);
        }
        let taken = match (record, on_null) {
            (Some(bytes), _) => visitor.record(bytes),
            (None, OnNull::Broken) => Err(TOMBSTONE.to_owned()),
            (None, OnNull::Row) => visitor.null().map(|()| true),
            (None, OnNull::Skip) => Ok(false),
        };
        if matches!(taken, Ok(true)) {
            if !is_whole {
                kept.push(row);
            }
            continue;
        }
        if std::mem::take(&mut is_whole) {
            kept.extend(0..row);
        }
        broken.extend(taken.err().map(|reason| Broken { row, reason }));
    }
    Ok(Outcome { kept: (!is_whole).then(|| kept.into()), broken })
}

/// Collects encoded records, one after the other, in one buffer.
pub(crate) struct RecordsBuilder {
    /// The records' bytes; an encoder appends to it and then calls [`Self::end`].
    pub(crate) bytes: Vec<u8>,
    offsets: Vec<i32>,
}

impl RecordsBuilder {
    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { bytes: Vec::with_capacity(bytes), offsets }
    }

    /// Ends the current record.
    pub(crate) fn end(&mut self) -> Result<(), FormatError> {
        self.offsets.push(i32::try_from(self.bytes.len()).map_err(|_| FormatError::BatchTooLarge)?);
        Ok(())
    }

    pub(crate) fn finish(self, nulls: Option<NullBuffer>) -> Result<BinaryArray, FormatError> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(BinaryArray::try_new(offsets, Buffer::from_vec(self.bytes), nulls)?)
    }
}
