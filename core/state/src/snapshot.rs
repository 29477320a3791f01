//! The tables in which keyed state leaves memory and comes back: a row per key (or per key and more), with the columns
//!
//! - `key_group` (uint16): the unit of repartitioning;
//! - `key` (a struct of the key columns, by their names; absent where there are none);
//! - then what the operator keeps.
//!
//! Operators build them with [`keyed_table`] and read them back with [`owned_rows`]; the engine stores them.

use crate::key::{EncodedKeys, KeyError};
use crate::key_group::{KeyGroupRange, key_group};
use crate::keys::KeyIndex;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray, UInt16Array};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema};
use std::collections::HashMap;
use std::sync::Arc;

/// The column of key groups.
pub const KEY_GROUP: &str = "key_group";
/// The column of keys.
pub const KEY: &str = "key";

/// Why a snapshot cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not of this operator, or of another form.
    #[error("the snapshot does not fit: {0}")]
    Misfit(String),
    /// Of its keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl SnapshotError {
    /// Says what part of a snapshot does not fit.
    #[must_use]
    pub fn of(self, part: &str) -> Self {
        match self {
            Self::Misfit(why) => Self::Misfit(format!("{part}: {why}")),
            other => Self::Misfit(format!("{part}: {other}")),
        }
    }
}

/// A table of rows of keyed state: `ids` has each row's key, `columns` what belongs to it; `metadata` goes to the schema.
///
/// # Errors
/// When a column has another length or type than it should.
pub fn keyed_table(
    index: &KeyIndex,
    key_fields: &Fields,
    ids: &[u32],
    max_parallelism: u32,
    columns: Vec<(FieldRef, ArrayRef)>,
    metadata: HashMap<String, String>,
) -> Result<RecordBatch, SnapshotError> {
    let groups: UInt16Array = ids.iter().map(|id| index.group(*id, max_parallelism).0).collect();
    let mut fields = vec![Arc::new(Field::new(KEY_GROUP, DataType::UInt16, false))];
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(groups)];
    if !key_fields.is_empty() {
        fields.push(Arc::new(Field::new(KEY, DataType::Struct(key_fields.clone()), false)));
        arrays.push(Arc::new(StructArray::try_new(key_fields.clone(), index.columns(ids)?, None)?));
    }
    for (field, array) in columns {
        fields.push(field);
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), arrays)?)
}

/// The rows of a table whose key group is in `owned`, and their encoded keys. Groups are computed from the keys: the column is for others to read.
///
/// # Errors
/// When the table has not these key columns.
pub fn owned_rows(
    table: &RecordBatch,
    key_fields: &Fields,
    max_parallelism: u32,
    owned: KeyGroupRange,
) -> Result<(RecordBatch, EncodedKeys), SnapshotError> {
    let mut keys = EncodedKeys::new();
    keys.encode(&key_columns(table, key_fields)?, table.num_rows())?;
    let mask: BooleanArray = keys.hashes().iter().map(|hash| Some(owned.contains(key_group(*hash, max_parallelism)))).collect();
    if mask.true_count() == table.num_rows() {
        return Ok((table.clone(), keys));
    }
    let rows = filter_record_batch(table, &mask)?;
    keys.encode(&key_columns(&rows, key_fields)?, rows.num_rows())?;
    Ok((rows, keys))
}

fn key_columns(table: &RecordBatch, key_fields: &Fields) -> Result<Vec<ArrayRef>, SnapshotError> {
    if key_fields.is_empty() {
        return Ok(Vec::new());
    }
    let column = column(table, KEY)?;
    let of_fields = |fields: &Fields| fields.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    match column.as_struct_opt() {
        Some(keys) if of_fields(keys.fields()) == of_fields(key_fields) => Ok(keys.columns().to_vec()),
        _ => Err(SnapshotError::Misfit(format!("its key is {}, not {}", column.data_type(), DataType::Struct(key_fields.clone())))),
    }
}

/// A column of a table by name.
///
/// # Errors
/// When there is none.
pub fn column<'a>(table: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, SnapshotError> {
    table.column_by_name(name).ok_or_else(|| SnapshotError::Misfit(format!("it has no column {name:?}")))
}

/// A column of a table by name, of a certain type.
///
/// # Errors
/// When there is none, or it is of another type.
pub fn typed_column<'a>(table: &'a RecordBatch, name: &str, data_type: &DataType) -> Result<&'a ArrayRef, SnapshotError> {
    let column = column(table, name)?;
    if column.data_type() != data_type {
        return Err(SnapshotError::Misfit(format!("its column {name:?} is {}, not {data_type}", column.data_type())));
    }
    Ok(column)
}
