//! The headers of records that are written: rows of a map column become librdkafka's headers, in their order; a name may be there twice. Used by `sink`; what the source
//! reads is made into columns by `batch`.

use arrow_array::{Array, ArrayRef, BinaryArray, MapArray, RecordBatch, StringArray, cast::AsArray};
use arrow_schema::DataType;
use rdkafka::message::{Header, OwnedHeaders};
use standpipe_sdk::{Error, Result};

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
    pub fn get(&self, row: usize) -> Option<OwnedHeaders> {
        let maps = self.0.as_ref()?;
        let length = if maps.rows.is_valid(row) { maps.rows.value_length(row) } else { 0 };
        let (start, length) = (usize::try_from(maps.rows.value_offsets()[row]).ok()?, usize::try_from(length).ok()?);
        if length == 0 {
            return None;
        }
        let add = |headers: OwnedHeaders, entry| headers.insert(Header { key: maps.names.value(entry), value: maps.values.get(entry) });
        Some((start..start + length).fold(OwnedHeaders::new_with_capacity(length), add))
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
