//! What the manager keeps: its jobs, with bundles, stages, attempts and history, and how often it was started.
//!
//! redb, not SQLite. All that is asked of the store is one small document by id, at most a few writes a second, and all of them at the start: no query, no join. redb is Rust
//! alone, so nothing of C is built or has to be patched with it; a commit is one `fsync` of checksummed pages written beside the old ones, of which the newest whole one is
//! found after a SIGKILL or a power cut without a replay; and its file is locked, so that a second manager on the same data is refused at once rather than found out
//! by what it breaks. What SQLite has beyond that, a shell to look in with, the REST interface gives.

use crate::{manager::Job, triggers::Trigger};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const TRIGGERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("triggers");
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
    #[error("{path}: {id} is not understood: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The job's or request's.
        id: String,
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

/// What was kept.
#[derive(Debug)]
pub struct Kept {
    /// Of this start: higher than that of any before, also of one whose data are lost, as far as the clock can tell.
    pub generation: u64,
    /// All jobs.
    pub jobs: Vec<Job>,
    /// What users have asked of jobs, by its id.
    pub triggers: Vec<(String, Trigger)>,
}

/// What is to be kept, and what is to be forgotten, together.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// As they are now.
    pub jobs: Vec<&'a Job>,
    /// By id.
    pub forgotten: Vec<&'a str>,
    /// By id; none: it is forgotten.
    pub triggers: Vec<(&'a str, Option<&'a Trigger>)>,
}

impl Changes<'_> {
    /// There is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.forgotten.is_empty() && self.triggers.is_empty()
    }
}

/// The manager's database.
pub struct Store {
    path: PathBuf,
    database: Database,
}

/// [`Changes`] as documents, so that they can be written when nobody holds what they are of.
pub struct Documents {
    jobs: Vec<(String, Vec<u8>)>,
    forgotten: Vec<String>,
    triggers: Vec<(String, Option<Vec<u8>>)>,
}

impl Documents {
    /// Of these changes.
    ///
    /// # Errors
    /// When one cannot be written as JSON.
    pub fn of(changes: &Changes<'_>) -> Result<Self, serde_json::Error> {
        let trigger = |(id, trigger): &(&str, Option<&Trigger>)| Ok(((*id).to_owned(), trigger.map(serde_json::to_vec).transpose()?));
        Ok(Self {
            jobs: changes.jobs.iter().map(|job| Ok((job.id.clone(), serde_json::to_vec(job)?))).collect::<serde_json::Result<_>>()?,
            forgotten: changes.forgotten.iter().map(|id| (*id).to_owned()).collect(),
            triggers: changes.triggers.iter().map(trigger).collect::<serde_json::Result<_>>()?,
        })
    }
}

impl Store {
    /// Opens the database in a folder, made if it is missing, and counts this start.
    ///
    /// # Errors
    /// When another manager has it, or it cannot be read or written.
    pub fn open(folder: &Path) -> Result<(Self, Kept), StoreError> {
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
        let jobs = store.documents(JOBS)?.into_values().collect();
        let triggers = store.documents(TRIGGERS)?.into_iter().collect();
        Ok((store, Kept { generation, jobs, triggers }))
    }

    fn begin(&self) -> Result<u64, StoreError> {
        // Task managers that have heard of a manager whose data are lost follow the next one all the same. It may begin within the same second.
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let clock = u64::try_from(clock).unwrap_or(u64::MAX);
        let begin = || -> Result<Result<u64, u64>, redb::Error> {
            let transaction = self.database.begin_write()?;
            let generation = {
                let mut numbers = transaction.open_table(NUMBERS)?;
                let format = numbers.get(FORMAT)?.map_or(OWN_FORMAT, |format| format.value());
                if format != OWN_FORMAT {
                    return Ok(Err(format));
                }
                let generation = numbers.get(GENERATION)?.map_or(0, |generation| generation.value()).saturating_add(1).max(clock);
                numbers.insert(FORMAT, OWN_FORMAT)?;
                numbers.insert(GENERATION, generation)?;
                transaction.open_table(JOBS)?;
                transaction.open_table(TRIGGERS)?;
                generation
            };
            transaction.commit()?;
            Ok(Ok(generation))
        };
        let begun = begin().map_err(|error| system(&self.path)(Box::new(error)))?;
        begun.map_err(|found| StoreError::Format { path: self.path.clone(), found })
    }

    fn documents<T: DeserializeOwned>(&self, table: TableDefinition<'_, &str, &[u8]>) -> Result<BTreeMap<String, T>, StoreError> {
        let read = || -> Result<BTreeMap<String, Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(table)?;
            table.iter()?.map(|entry| entry.map(|(id, text)| (id.value().to_owned(), text.value().to_vec())).map_err(Into::into)).collect()
        };
        let documents = read().map_err(|error| system(&self.path)(Box::new(error)))?;
        let understood = |(id, document): (String, Vec<u8>)| match serde_json::from_slice(&document) {
            Ok(document) => Ok((id, document)),
            Err(error) => Err(StoreError::Damaged { path: self.path.clone(), id, reason: error.to_string() }),
        };
        documents.into_iter().map(understood).collect()
    }

    /// Keeps what has changed, all or none; durable when it returns.
    ///
    /// # Errors
    /// When the disk is full, or worse.
    pub fn save(&self, changes: &Documents) -> Result<(), StoreError> {
        let save = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut jobs = transaction.open_table(JOBS)?;
                for (id, job) in &changes.jobs {
                    jobs.insert(id.as_str(), job.as_slice())?;
                }
                for id in &changes.forgotten {
                    jobs.remove(id.as_str())?;
                }
                let mut triggers = transaction.open_table(TRIGGERS)?;
                for (id, trigger) in &changes.triggers {
                    match trigger {
                        Some(trigger) => triggers.insert(id.as_str(), trigger.as_slice())?,
                        None => triggers.remove(id.as_str())?,
                    };
                }
            }
            Ok(transaction.commit()?)
        };
        save().map_err(|error| system(&self.path)(Box::new(error)))
    }
}

fn system(path: &Path) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    move |source| StoreError::System { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manager::job_for_tests, protocol::Attempt};

    fn save(store: &Store, changes: &Changes<'_>) {
        store.save(&Documents::of(changes).unwrap()).unwrap();
    }

    #[test]
    fn jobs_and_requests_are_there_again_and_every_start_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (store, kept) = Store::open(folder.path()).unwrap();
        assert_eq!((kept.jobs, kept.triggers), (Vec::new(), Vec::new()));
        let (a, b) = (job_for_tests("a"), job_for_tests("b"));
        let trigger = Trigger::new(Attempt { job: "a".to_owned(), term: 1, number: 3 }, serde_json::json!({"do": "savepoint"}), 7);
        save(&store, &Changes { jobs: vec![&a, &b], triggers: vec![("t", Some(&trigger)), ("u", Some(&trigger))], ..Changes::default() });
        save(&store, &Changes { forgotten: vec!["b", "nobody"], triggers: vec![("u", None)], ..Changes::default() });
        // Two managers on the same data are one too many.
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Taken(_))));
        drop(store);
        let (store, again) = Store::open(folder.path()).unwrap();
        assert!(again.generation > kept.generation);
        assert_eq!((again.jobs, again.triggers), (vec![a], vec![("t".to_owned(), trigger)]));
        // Whoever has heard of this manager follows one whose data are new: its generation is not below that of the clock.
        drop(store);
        let other = tempfile::tempdir().unwrap();
        assert!(Store::open(other.path()).unwrap().1.generation + 60_000 > again.generation);
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
