//! The headers of records that are written: rows of a map column become librdkafka's headers, in their order; a name may be there twice. Used by `sink`; what the source
//! reads is made into columns by `batch`.

use arrow_array::{Array, ArrayRef, BinaryArray, MapArray, RecordBatch, StringArray, cast::AsArray};
use arrow_schema::DataType;
use rdkafka::message::{Header, OwnedHeaders};
use standpipe_sdk::{Error, Result};
use std::ops::Range;

/// Whether a column of that type holds headers.
#[must_use]
pub fn is_map(data_type: &DataType) -> bool {
    let DataType::Map(entries, _) = data_type else { return false };
    let DataType::Struct(fields) = entries.data_type() else { return false };
    matches!(fields.as_ref(), [name, value] if *name.data_type() == DataType::Utf8 && matches!(value.data_type(), DataType::Utf8 | DataType::Binary))
}

/// The headers of a batch's rows.
pub struct HeaderColumn<'a>(Option<Maps<'a>>);

struct Maps<'a> {
    rows: &'a MapArray,
    names: &'a StringArray,
    values: Bytes<'a>,
}

enum Bytes<'a> {
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
}

impl<'a> HeaderColumn<'a> {
    /// Those of that column; none without one.
    ///
    /// # Errors
    /// When the batch is not what was declared.
    pub fn of(batch: &'a RecordBatch, column: Option<&str>) -> Result<Self> {
        let Some(name) = column else { return Ok(Self(None)) };
        let column: &ArrayRef = batch.column_by_name(name).ok_or_else(|| Error::data(format!("a batch has no column {name:?}")))?;
        if !is_map(column.data_type()) {
            return Err(Error::unsupported(format!("headers of type {}", column.data_type())));
        }
        let rows = column.as_map();
        let values = match rows.values().data_type() {
            DataType::Utf8 => Bytes::Text(rows.values().as_string()),
            _ => Bytes::Binary(rows.values().as_binary()),
        };
        Ok(Self(Some(Maps { rows, names: rows.keys().as_string(), values })))
    }

    /// The headers of a row; `None`: it has none.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<RowHeaders<'_>> {
        let maps = self.0.as_ref()?;
        let length = if maps.rows.is_valid(row) { maps.rows.value_length(row) } else { 0 };
        let (start, length) = (usize::try_from(maps.rows.value_offsets()[row]).ok()?, usize::try_from(length).ok()?);
        (length > 0).then_some(RowHeaders { maps, entries: start..start + length })
    }
}

/// The headers of a row, as they lie in its batch.
pub struct RowHeaders<'a> {
    maps: &'a Maps<'a>,
    entries: Range<usize>,
}

impl RowHeaders<'_> {
    fn all(&self) -> impl Iterator<Item = Header<'_, &[u8]>> {
        self.entries.clone().map(|entry| Header { key: self.maps.names.value(entry), value: self.maps.values.get(entry) })
    }

    /// The most that they are in a record.
    #[must_use]
    pub fn largest(&self) -> usize {
        // Of both the length, of 5 bytes at most.
        self.all().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len) + 10).sum()
    }

    /// As librdkafka takes them.
    #[must_use]
    pub fn owned(&self) -> OwnedHeaders {
        self.all().fold(OwnedHeaders::new_with_capacity(self.entries.len()), OwnedHeaders::insert)
    }
}

impl Bytes<'_> {
    fn get(&self, entry: usize) -> Option<&[u8]> {
        match self {
            Self::Text(values) => values.is_valid(entry).then(|| values.value(entry).as_bytes()),
            Self::Binary(values) => values.is_valid(entry).then(|| values.value(entry)),
        }
    }
}
