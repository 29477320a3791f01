//! Arrow IPC, files and streams, of which nobody knows who has written them: a checkpoint that was damaged, rows that another process has sent. What is no such file or stream is an error; never a
//! panic, and never more memory than the bytes can stand for (`sound`).
//!
//! Checkpoints and the job manager read by it. Batches between the processes of one job do not come this way (the engine's `dataflow/wire`): those know each other.

mod sound;

use arrow_array::RecordBatch;
use arrow_ipc::{
    convert::fb_to_schema,
    reader::{FileReader, StreamReader},
};
use arrow_schema::{ArrowError, SchemaRef};
use std::{
    io::Cursor,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Bytes behind the footer of a file, by which [`footer_place`] finds it.
pub const TAIL: usize = sound::TAIL;

/// Why bytes are no Arrow IPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotIpc(String);

impl NotIpc {
    /// Of a file that cannot even have an end.
    #[must_use]
    pub fn too_short() -> Self {
        Self(sound::SHORT.to_owned())
    }
}

/// The batches of a file. The content of columns is checked, too.
///
/// # Errors
/// When it is no file, or compressed in another way than by LZ4.
pub fn read_file(file: impl AsRef<[u8]>) -> Result<Vec<RecordBatch>, NotIpc> {
    sound::check_file(file.as_ref())?;
    guarded(|| FileReader::try_new(Cursor::new(file.as_ref()), None)?.collect())
}

/// The columns and batches of a stream.
///
/// # Errors
/// As [`read_file`].
pub fn read_stream(stream: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), NotIpc> {
    sound::check_stream(stream)?;
    guarded(|| {
        let reader = StreamReader::try_new(stream, None)?;
        Ok((reader.schema(), reader.collect::<Result<_, _>>()?))
    })
}

/// Where the footer is in a file of that length, by its last bytes.
///
/// # Errors
/// When these are not the end of a file.
pub fn footer_place(length: u64, tail: [u8; TAIL]) -> Result<Range<u64>, NotIpc> {
    sound::footer_place(length, tail)
}

/// The columns of a file, by its footer.
///
/// # Errors
/// When it is no footer.
pub fn schema_of(footer: &[u8]) -> Result<SchemaRef, NotIpc> {
    let (_, schema) = sound::footer(footer)?;
    Ok(Arc::new(fb_to_schema(schema)))
}

/// Arrow asserts some of what it might say, as that the mask of a struct's nulls is long enough.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, NotIpc> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| NotIpc(error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect())),
        Err(_) => Err(NotIpc("its columns do not hold together".to_owned())),
    }
}
