//! What the manager keeps: its jobs, with bundles, stages, attempts and history, and how often it was started.
//!
//! redb, not SQLite. All that is asked of the store is one small document by id, at most a few writes a second, and all of them at the start: no query, no join. redb is Rust
//! alone, so nothing of C is built or has to be patched with it; a commit is one `fsync` of checksummed pages written beside the old ones, of which the newest whole one is
//! found after a SIGKILL or a power cut without a replay; and its file is locked, so that a second manager on the same data is refused at once rather than found out
//! by what it breaks. What SQLite has beyond that, a shell to look in with, the REST interface gives.

use crate::manager::Job;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const GENERATION: &str = "generation";
const FORMAT: &str = "format";
/// Of the documents. Another one is not read.
const OWN_FORMAT: u64 = 1;

/// Why nothing can be kept, or found again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another manager has it.
    #[error("{0}: another job manager uses this data; give each one a --data folder of its own")]
    Taken(PathBuf),
    /// Of another release.
    #[error("{path}: its format is {found}, and this release reads {OWN_FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// A document that is not understood.
    #[error("{path}: job {job} is not understood: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The job.
        job: String,
        /// Why.
        reason: String,
    },
    /// The file or the disk.
    #[error("{path}: {source}")]
    System {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The manager's database.
pub struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens the database in a folder, made if it is missing, and counts this start: gives the generation, from 1, and the jobs that were kept.
    ///
    /// # Errors
    /// When another manager has it, or it cannot be read or written.
    pub fn open(folder: &Path) -> Result<(Self, u64, Vec<Job>), StoreError> {
        let path = folder.join("manager.redb");
        let at = system(&path);
        fs::create_dir_all(folder).map_err(|error| at(Box::new(error)))?;
        // Bundles may have secrets in their configuration.
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        file.and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o600))).map_err(|error: io::Error| at(Box::new(error)))?;
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Taken(path.clone()),
            other => at(Box::new(other)),
        })?;
        let store = Self { path: path.clone(), database };
        let generation = store.begin()?;
        let jobs = store.jobs()?;
        Ok((store, generation, jobs))
    }

    fn begin(&self) -> Result<u64, StoreError> {
        let begin = || -> Result<Result<u64, u64>, redb::Error> {
            let transaction = self.database.begin_write()?;
            let generation = {
                let mut numbers = transaction.open_table(NUMBERS)?;
                let format = numbers.get(FORMAT)?.map_or(OWN_FORMAT, |format| format.value());
                if format != OWN_FORMAT {
                    return Ok(Err(format));
                }
                let generation = numbers.get(GENERATION)?.map_or(0, |generation| generation.value()) + 1;
                numbers.insert(FORMAT, OWN_FORMAT)?;
                numbers.insert(GENERATION, generation)?;
                transaction.open_table(JOBS)?;
                generation
            };
            transaction.commit()?;
            Ok(Ok(generation))
        };
        let begun = begin().map_err(|error| system(&self.path)(Box::new(error)))?;
        begun.map_err(|found| StoreError::Format { path: self.path.clone(), found })
    }

    fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        let read = || -> Result<BTreeMap<String, Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(JOBS)?;
            table.iter()?.map(|entry| entry.map(|(id, job)| (id.value().to_owned(), job.value().to_vec())).map_err(Into::into)).collect()
        };
        let documents = read().map_err(|error| system(&self.path)(Box::new(error)))?;
        let understood = |(job, document): (String, Vec<u8>)| {
            let damaged = |error: serde_json::Error| StoreError::Damaged { path: self.path.clone(), job, reason: error.to_string() };
            serde_json::from_slice(&document).map_err(damaged)
        };
        documents.into_iter().map(understood).collect()
    }

    /// Keeps these jobs as they are, all or none; durable when it returns.
    ///
    /// # Errors
    /// When the disk is full, or worse.
    pub fn save<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) -> Result<(), StoreError> {
        let save = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(JOBS)?;
                for job in jobs {
                    table.insert(job.id.as_str(), serde_json::to_vec(job)?.as_slice())?;
                }
            }
            Ok(transaction.commit()?)
        };
        save().map_err(system(&self.path))
    }

    /// Forgets these jobs.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn remove<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
        let remove = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(JOBS)?;
                for id in ids {
                    table.remove(id)?;
                }
            }
            Ok(transaction.commit()?)
        };
        remove().map_err(system(&self.path))
    }
}

fn system(path: &Path) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    move |source| StoreError::System { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::job_for_tests;

    #[test]
    fn jobs_are_there_again_and_every_start_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (store, generation, jobs) = Store::open(folder.path()).unwrap();
        assert_eq!((generation, jobs), (1, Vec::new()));
        let (a, b) = (job_for_tests("a"), job_for_tests("b"));
        store.save([&a, &b]).unwrap();
        store.remove(["b", "nobody"]).unwrap();
        // Two managers on the same data are one too many.
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Taken(_))));
        drop(store);
        let (_store, generation, jobs) = Store::open(folder.path()).unwrap();
        assert_eq!((generation, jobs), (2, vec![a]));
    }

    #[test]
    fn what_is_no_database_or_of_another_release_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager.redb");
        fs::write(&path, "nothing of ours").unwrap();
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("manager.redb"), "{error}");
        fs::remove_file(&path).unwrap();
        let (store, ..) = Store::open(folder.path()).unwrap();
        let transaction = store.database.begin_write().unwrap();
        transaction.open_table(NUMBERS).unwrap().insert(FORMAT, 7).unwrap();
        transaction.open_table(JOBS).unwrap().insert("x", b"{".as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(store);
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Format { found: 7, .. })));
    }
}
