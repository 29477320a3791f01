//! The tables in which keyed state leaves memory and comes back: a row per key (or per key and more), with the columns
//!
//! - `key_group` (uint16): the unit of repartitioning;
//! - `key` (a struct of the key columns, by their names; absent where there are none);
//! - then what the operator keeps.
//!
//! A table of changes says in its schema's metadata ([`SINCE`]) since which checkpoint; what it has to say of a key replaces what former tables say of it.
//!
//! Operators build them with [`keyed_table`] and read them back with [`owned_rows`]; the engine stores them.

use crate::key::{EncodedKeys, KeyError};
use crate::key_group::{KeyGroupRange, key_group};
use crate::keys::KeyIndex;
use crate::scratch::ScratchError;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray, UInt16Array};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The column of key groups.
pub const KEY_GROUP: &str = "key_group";
/// The column of keys.
pub const KEY: &str = "key";

/// In the metadata of a table's schema: it has what has changed since the checkpoint of that number, not all.
pub const SINCE: &str = "standpipe.since";
/// In a table of changes: the key has nothing any more.
pub const REMOVED: &str = "removed";

/// Of a table of changes: since which checkpoint.
#[must_use]
pub fn since(table: &RecordBatch) -> Option<u64> {
    table.schema_ref().metadata().get(SINCE)?.parse().ok()
}

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
    /// Of state on disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
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

/// Keys in one table of a snapshot; of more there are several tables of the name. A column of texts holds 2 GiB at most.
pub const KEYS_OF_A_TABLE: usize = 1 << 18;

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

/// A whole table and its changes as one: the rows that hold, without [`REMOVED`]. `tables` are the chain of one former subtask, in its order.
///
/// # Errors
/// When they are not of one form.
pub fn merged(tables: &[RecordBatch]) -> Result<Vec<RecordBatch>, SnapshotError> {
    if tables.iter().all(|table| since(table).is_none()) {
        return Ok(tables.to_vec());
    }
    let mut said: HashSet<Vec<u8>> = HashSet::new();
    let mut found = Vec::with_capacity(tables.len());
    for table in tables.iter().rev() {
        let mut keys = EncodedKeys::new();
        let columns = table.column_by_name(KEY).and_then(|key| key.as_struct_opt()).map(|key| key.columns().to_vec()).unwrap_or_default();
        keys.encode(&columns, table.num_rows())?;
        let removed = table.column_by_name(REMOVED).and_then(|removed| removed.as_boolean_opt());
        let holds = |row: usize| !said.contains(keys.key(row)) && removed.is_none_or(|removed| !removed.value(row));
        let mask: BooleanArray = (0..table.num_rows()).map(|row| Some(holds(row))).collect();
        said.extend((0..table.num_rows()).map(|row| keys.key(row).to_vec()));
        let rest: Vec<usize> = (0..table.num_columns()).filter(|at| table.schema_ref().field(*at).name() != REMOVED).collect();
        let rows = filter_record_batch(&table.project(&rest)?, &mask)?;
        let mut metadata = table.schema_ref().metadata().clone();
        metadata.remove(SINCE);
        let schema = Schema::new_with_metadata(rows.schema_ref().fields().clone(), metadata);
        found.push(RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec())?);
    }
    found.reverse();
    Ok(found)
}
