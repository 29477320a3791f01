//! State on this machine's disk: a database of fjall in a folder of its own, of one process. It is scratch: what a job goes on from is in its checkpoints, so nothing
//! is synced, and the folder is removed with the process that made it, or, if that was killed, by the next one of the same job.
//!
//! ```text
//! DIR/JOB/RUN-PID-n/lock     held as long as the process lives
//! DIR/JOB/RUN-PID-n/db/      fjall's
//! ```

use fjall::{Database, Keyspace, KeyspaceCreateOptions, config::PartitioningPolicy};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const LOCK: &str = "lock";
const NEW_LOCK: &str = "lock.new";
/// Of what is read, for all keyspaces together.
const BLOCK_CACHE: u64 = 16 << 20;
/// fjall takes no less.
const JOURNAL: u64 = 64 << 20;

/// State on disk that cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
#[error("state on disk, in {folder}: cannot {doing}: {reason}")]
pub struct ScratchError {
    folder: String,
    doing: &'static str,
    reason: String,
}

/// See the module's documentation.
pub struct Scratch {
    /// Always there but in `drop`.
    database: Option<Database>,
    folder: PathBuf,
    _lock: File,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Several in one process have folders of their own.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Scratch {
    /// A new database for a run of a job. What runs of the job that are no more have left is removed.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn open(dir: &Path, job: &str, run: &str) -> Result<Arc<Self>, ScratchError> {
        // A name may be any text; that two jobs may share a folder does no harm.
        let of_job = dir.join(job.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_"));
        let name = format!("{run}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = of_job.join(name);
        let failed = |doing| {
            let folder = folder.display().to_string();
            move |reason: &dyn std::fmt::Display| ScratchError { folder, doing, reason: reason.to_string() }
        };
        fs::create_dir_all(&folder).map_err(|error| failed("make the folder")(&error))?;
        // It is there only when it is held: another process of the same job may look for what is left at this very moment.
        let (new, lock) = (folder.join(NEW_LOCK), folder.join(LOCK));
        let lock = File::create(&new).and_then(|held| held.lock().and_then(|()| fs::rename(&new, &lock)).map(|()| held));
        let lock = lock.map_err(|error| failed("lock it")(&error))?;
        remove_left(&of_job, &folder);
        let database = Database::builder(folder.join("db")).cache_size(BLOCK_CACHE).max_journaling_size(JOURNAL);
        let database = database.manual_journal_persist(true).worker_threads(1).open();
        let database = database.map_err(|error| failed("open it")(&reason(&error)))?;
        Ok(Arc::new(Self { database: Some(database), folder, _lock: lock }))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn size(&self) -> Result<u64, ScratchError> {
        self.database().disk_space().map_err(|error| self.failed("count its bytes", &error))
    }

    #[allow(clippy::expect_used, reason = "only `drop` takes it")]
    pub(crate) fn database(&self) -> &Database {
        self.database.as_ref().expect("it is there until the end")
    }

    /// A part of it that holds so many bytes back before it writes a file.
    pub(crate) fn keyspace(&self, name: &str, memtable: u64) -> Result<Keyspace, ScratchError> {
        // Filters and indexes in parts on every level: one of megabytes would be read anew for every key, for the cache does not take what is larger than a share of it.
        let parts = || PartitioningPolicy::all(true);
        let options = || {
            let options = KeyspaceCreateOptions::default().max_memtable_size(memtable).manual_journal_persist(true);
            options.filter_block_partitioning_policy(parts()).index_block_partitioning_policy(parts())
        };
        self.database().keyspace(name, options).map_err(|error| self.failed("make a part of it", &error))
    }

    pub(crate) fn failed(&self, doing: &'static str, error: &fjall::Error) -> ScratchError {
        ScratchError { folder: self.folder.display().to_string(), doing, reason: reason(error) }
    }
}

/// fjall's words for what people can do something about.
fn reason(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Poisoned => "a write before this one has failed; is the disk full?".to_owned(),
        other => other.to_string(),
    }
}

/// Removes the folders of processes that are no more: nobody holds their locks. What cannot be removed is left to the next one.
fn remove_left(of_job: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(of_job) else { return };
    for folder in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path != own && path.is_dir()) {
        // One without a lock is being made, or removed, at this moment.
        if File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            drop(fs::remove_dir_all(&folder));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Closed before its files go.
        self.database = None;
        drop(fs::remove_dir_all(&self.folder));
        // Goes if it is empty.
        drop(self.folder.parent().map(fs::remove_dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.join("job")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn the_folder_goes_with_its_process_and_what_a_killed_one_left_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("job/left-1-0");
        fs::create_dir_all(left.join("db")).unwrap();
        File::create(left.join(LOCK)).unwrap();
        let held = dir.path().join("job/held-2-0");
        fs::create_dir_all(&held).unwrap();
        let lock = File::create(held.join(LOCK)).unwrap();
        lock.lock().unwrap();

        let one = Scratch::open(dir.path(), "job", "run").unwrap();
        assert!(!left.exists() && held.exists());
        let two = Scratch::open(dir.path(), "job", "run").unwrap();
        assert!(one.folder().exists() && one.folder() != two.folder());
        one.keyspace("a", 1 << 20).unwrap().insert("k", "v").unwrap();
        let folder = two.folder().to_owned();
        drop(two);
        assert!(!folder.exists());
        drop(one);
        assert_eq!(folders(dir.path()), [held]);
        drop(lock);
        drop(Scratch::open(dir.path(), "job", "run").unwrap());
        assert!(!dir.path().join("job").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Scratch::open(file.path(), "job", "run").unwrap_err().to_string();
        assert!(error.starts_with(&format!("state on disk, in {}/job/run-", file.path().display())), "{error}");
        assert!(error.contains("cannot make the folder: Not a directory"), "{error}");
    }
}
