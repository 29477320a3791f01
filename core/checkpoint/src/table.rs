//! Tables as Arrow IPC files, compressed by LZ4: any Arrow reads them. What is read may have been damaged (`standpipe_formats::ipc`).

use crate::CheckpointError;
use arrow::{
    array::{AsArray, RecordBatch},
    compute::{max, min},
    datatypes::{DataType, SchemaRef, UInt16Type},
    ipc::{
        CompressionType,
        writer::{FileWriter, IpcWriteOptions},
    },
};
use bytes::Bytes;
use standpipe_formats::ipc::{self, NotIpc, TAIL};
use std::ops::Range;

/// The column that says to which key group a row belongs.
pub const KEY_GROUP: &str = "key_group";

/// A file's content.
///
/// # Errors
/// When Arrow refuses the batch.
pub fn encode(table: &str, batch: &RecordBatch) -> Result<Bytes, CheckpointError> {
    let write = || {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut writer = FileWriter::try_new_with_options(Vec::new(), batch.schema_ref(), options)?;
        writer.write(batch)?;
        writer.into_inner()
    };
    write().map(Bytes::from).map_err(|source| CheckpointError::Arrow { table: table.to_owned(), source })
}

/// The batches of a file.
///
/// # Errors
/// When it is no such file. The content of columns is checked, too: a store may be writable by others.
pub fn decode(object: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, CheckpointError> {
    ipc::read_file(bytes).map_err(|error| CheckpointError::Damaged { object: object.to_owned(), reason: error.to_string() })
}

/// The columns of a file of that length, of which `read` gives parts.
///
/// # Errors
/// When it is no such file, or cannot be read.
pub async fn schema(
    object: &str,
    length: u64,
    read: impl AsyncFn(Range<u64>) -> Result<Bytes, CheckpointError>,
) -> Result<SchemaRef, CheckpointError> {
    let damaged = |error: NotIpc| CheckpointError::Damaged {
        object: object.to_owned(),
        reason: format!("its content is not what was written: {error}"),
    };
    let begin = length.checked_sub(TAIL as u64).ok_or_else(|| damaged(NotIpc::too_short()))?;
    let tail: [u8; TAIL] = read(begin..length).await?.as_ref().try_into().map_err(|_| damaged(NotIpc::too_short()))?;
    let footer = read(ipc::footer_place(length, tail).map_err(damaged)?).await?;
    ipc::schema_of(&footer).map_err(damaged)
}

/// The first and the last key group of a table that has them.
#[must_use]
pub fn key_groups(batch: &RecordBatch) -> Option<(u16, u16)> {
    let column = batch.column_by_name(KEY_GROUP).filter(|column| *column.data_type() == DataType::UInt16)?;
    let groups = column.as_primitive::<UInt16Type>();
    Some((min(groups)?, max(groups)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray, UInt16Array};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            (KEY_GROUP, Arc::new(UInt16Array::from(vec![7, 3, 9]))),
            ("host", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_table_comes_back() {
        let bytes = encode("keys", &batch()).unwrap();
        assert!(bytes.starts_with(b"ARROW1"));
        assert_eq!(decode("x", bytes).unwrap(), [batch()]);
        assert_eq!(key_groups(&batch()), Some((3, 9)));
        assert_eq!(key_groups(&batch().slice(0, 0)), None);
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let bytes = encode("keys", &batch()).unwrap();
        for end in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            let error = decode("data/x.arrow", bytes.slice(..end)).unwrap_err().to_string();
            assert!(error.starts_with("data/x.arrow: "), "{error}");
        }
    }
}
