//! Rows in files, from the sink, which writes them, to the task manager, which reads them and says how far somebody has got.
//!
//! ```text
//! NODE/schema      the message with the schema of an Arrow IPC stream
//! NODE/base        the number before the first file of this start of the job
//! NODE/000...017   messages with batches; the numbers grow
//! NODE/read        the last number that somebody has read, written by the task manager
//! ```
//!
//! Files that stand behind each other in this order are one stream. A file has its name when all of it is there. Nothing is synced: what the machine loses with its power is
//! read from the sources again, or lost with the machine's other files.

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Schema};
use standpipe_sdk::{Error, Result};
use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

/// A file is written when its rows have so many bytes, or when the host wants them delivered.
const PART: usize = 256 << 10;

/// See the module's documentation.
pub(crate) struct Store {
    folder: PathBuf,
    most: u64,
    writer: StreamWriter<Vec<u8>>,
    /// Files that are there, oldest first, with their bytes.
    files: VecDeque<(u64, u64)>,
    kept: u64,
    next: u64,
}

impl Store {
    /// Opens the folder. A start that does not go on from a checkpoint begins with nothing.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn open(folder: PathBuf, most: u64, schema: &Schema, restored: bool) -> Result<Self> {
        let at = |error: io::Error| outside(&folder, &error);
        fs::create_dir_all(&folder).map_err(at)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at)? {
            let entry = entry.map_err(at)?;
            match entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                Some(number) => files.push((number, entry.metadata().map_err(at)?.len())),
                // Half of a file, of a process that was killed.
                None if entry.path().extension().is_some() => drop(fs::remove_file(entry.path())),
                None => {}
            }
        }
        files.sort_unstable();
        // Numbers never come again: somebody may be reading.
        let base = number(&folder, "base");
        let last = files.last().map_or(base, |(number, _)| *number).max(number(&folder, "read"));
        if !restored {
            for (number, _) in files.drain(..) {
                fs::remove_file(path(&folder, number)).map_err(at)?;
            }
            write(&folder, "base", last.to_string().as_bytes())?;
        }
        let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(refused)?;
        write(&folder, "schema", &std::mem::take(writer.get_mut()))?;
        let kept = files.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self { folder, most, writer, files: files.into(), kept, next: last + 1 })
    }

    /// Whether more can be taken; what somebody has read makes room.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn has_room(&mut self) -> Result<bool> {
        if self.kept < self.most {
            return Ok(true);
        }
        let read = number(&self.folder, "read");
        while self.kept >= self.most
            && let Some((number, bytes)) = self.files.pop_front_if(|(number, _)| *number <= read)
        {
            let path = path(&self.folder, number);
            fs::remove_file(&path).map_err(|error| outside(&path, &error))?;
            self.kept -= bytes;
        }
        Ok(self.kept < self.most)
    }

    /// Takes rows; true: they can be read now.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<bool> {
        // What a full disk has refused before goes first: then nothing of this batch is taken, and it comes again.
        if self.writer.get_ref().len() >= PART {
            self.put()?;
        }
        self.writer.write(batch).map_err(refused)?;
        if self.writer.get_ref().len() < PART {
            return Ok(false);
        }
        match self.put() {
            // It is taken; the next call tries again.
            Err(error) if error.retryable => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// From now on all that was taken can be read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn put(&mut self) -> Result<()> {
        if self.writer.get_ref().is_empty() {
            return Ok(());
        }
        let name = name(self.next);
        write(&self.folder, &name, self.writer.get_ref())?;
        let bytes = self.writer.get_ref().len() as u64;
        self.writer.get_mut().clear();
        self.files.push_back((self.next, bytes));
        self.kept += bytes;
        self.next += 1;
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("{number:020}")
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(name(number))
}

/// A number in a file that may not be there.
fn number(folder: &Path, name: &str) -> u64 {
    fs::read_to_string(folder.join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// A file that is there as a whole or not at all.
fn write(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (new, path) = (folder.join(format!("{name}.new")), folder.join(name));
    fs::write(&new, content).and_then(|()| fs::rename(&new, &path)).map_err(|error| {
        // Of a disk that is full, nothing is left.
        drop(fs::remove_file(&new));
        outside(&path, &error)
    })
}

/// A disk that is full may have room again.
fn outside(path: &Path, error: &io::Error) -> Error {
    let message = Error::external(format!("{}: {error}", path.display()));
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) { message.retryable() } else { message }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: ArrowError) -> Error {
    Error::data(format!("the rows cannot be kept: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, cast::AsArray, types::Int64Type};
    use arrow_ipc::reader::StreamReader;
    use std::sync::Arc;

    fn batch(from: i64, rows: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(from..from + rows)) as _)]).unwrap()
    }

    fn open(folder: &Path, most: u64, restored: bool) -> Store {
        Store::open(folder.to_owned(), most, &batch(0, 0).schema(), restored).unwrap()
    }

    /// What a reader sees.
    fn read(folder: &Path) -> (Vec<i64>, Vec<u64>) {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        let mut stream = fs::read(folder.join("schema")).unwrap();
        numbers.iter().for_each(|number| stream.extend(fs::read(path(folder, *number)).unwrap()));
        let rows = StreamReader::try_new(stream.as_slice(), None).unwrap().flat_map(|batch| {
            let batch = batch.unwrap();
            batch.column(0).as_primitive::<Int64Type>().values().to_vec()
        });
        (rows.collect(), numbers)
    }

    #[test]
    fn files_behind_each_other_are_one_stream() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1 << 20, false);
        assert_eq!(read(folder.path()), (vec![], vec![]), "the columns are known at once");
        assert!(!store.add(&batch(0, 3)).unwrap());
        assert!(!store.add(&batch(3, 2)).unwrap());
        assert_eq!(read(folder.path()).0, [0_i64; 0], "nothing is promised yet");
        store.put().unwrap();
        store.put().unwrap();
        assert!(store.add(&batch(5, 50_000)).unwrap(), "as large as a file");
        let (rows, numbers) = read(folder.path());
        assert!(rows.iter().copied().eq(0..50_005));
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn rows_that_could_not_be_written_are_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1 << 20, false);
        // It cannot be written as long as there is a folder in its place.
        let obstacle = folder.path().join(format!("{}.new", name(1)));
        fs::create_dir(&obstacle).unwrap();
        assert!(store.add(&batch(0, 50_000)).is_err());
        (0..5).for_each(|_| assert!(store.add(&batch(50_000, 1)).is_err()));
        fs::remove_dir(&obstacle).unwrap();
        assert!(!store.add(&batch(50_000, 1)).unwrap());
        store.put().unwrap();
        assert!(read(folder.path()).0.into_iter().eq(0..50_001));
    }

    #[test]
    fn what_nobody_has_read_stays_and_what_was_read_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1_000, false);
        let mut sent = 0;
        while store.has_room().unwrap() {
            store.add(&batch(sent, 10)).unwrap();
            store.put().unwrap();
            sent += 10;
        }
        assert!(sent >= 20 && !store.has_room().unwrap());
        let (rows, numbers) = read(folder.path());
        assert!(rows.iter().copied().eq(0..sent));
        fs::write(folder.path().join("read"), "2").unwrap();
        assert!(store.has_room().unwrap());
        assert_eq!(read(folder.path()).1, numbers[1..], "no more is gone than there must be");
        store.add(&batch(sent, 10)).unwrap();
        store.put().unwrap();
        assert!(store.has_room().unwrap());
        assert_eq!(read(folder.path()).1[0], 3);
        store.add(&batch(sent + 10, 10)).unwrap();
        store.put().unwrap();
        assert!(!store.has_room().unwrap(), "nobody has read the third");
    }

    #[test]
    fn a_restart_goes_on_and_a_start_from_nothing_begins_behind_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1 << 20, false);
        store.add(&batch(0, 1)).unwrap();
        store.put().unwrap();
        fs::write(folder.path().join("00000000000000000002.new"), "half").unwrap();
        let mut store = open(folder.path(), 1 << 20, true);
        store.add(&batch(1, 1)).unwrap();
        store.put().unwrap();
        assert_eq!(read(folder.path()), (vec![0, 1], vec![1, 2]));
        assert!(!folder.path().join("00000000000000000002.new").exists());
        let mut store = open(folder.path(), 1 << 20, false);
        assert_eq!(read(folder.path()), (vec![], vec![]));
        store.add(&batch(7, 1)).unwrap();
        store.put().unwrap();
        assert_eq!((read(folder.path()), number(folder.path(), "base")), ((vec![7], vec![3]), 2));
    }
}
