//! The checkpoints of one job: claims a generation, writes tables, creates manifests, lists, reads, and removes what is not needed any more. See the crate's
//! documentation for the layout.
//!
//! Calls block until the store has answered; whoever calls has a thread for it. What they give is durable: on this machine's disk files and folders are synced.

mod aside;
mod copy;
mod local;
mod names;
mod place;
mod start;

use start::Begun;
pub use start::{Found, Start, TakenOver};

use crate::{
    CheckpointError, Location,
    manifest::{FORMAT, FileRef, Kind, Manifest},
    table,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use names::{Name, Names};
use object_store::{
    Error, ObjectStoreExt, PutMode, PutPayload,
    path::{Path, PathPart},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::runtime::{Handle, Runtime};

const GENERATIONS: &str = "generations";
const DATA: &str = "data";
const CHECKPOINTS: &str = "checkpoints";
const BASE: &str = ".base";
/// Listings at most until one is not empty.
const LOOKS: usize = 3;
/// Characters of what is said of a manifest.
const LONGEST_REASON: usize = 500;
/// Requests at a time.
const CONCURRENT: usize = 8;

/// A table that is to be written.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// The node's path: `transforms.stats`.
    pub node: String,
    /// The subtask whose state it is.
    pub subtask: u32,
    /// The table's name, unique in the node.
    pub name: String,
    /// Of a table in several files: which one, from 0.
    pub piece: u32,
    /// Its rows.
    pub batch: RecordBatch,
    /// A file that may have the very same content: if so, it is not written again.
    pub same: Option<FileRef>,
}

/// See the module's documentation.
pub struct Store {
    location: Location,
    /// `PREFIX/JOB`.
    root: Path,
    job: String,
    runtime: Handle,
    /// Until it is dropped.
    _threads: Threads,
    /// By checkpoint: a manifest that was read or written once is not read again.
    known: Mutex<BTreeMap<Name, Known>>,
    /// Notes that were read once.
    begun: Mutex<BTreeMap<u64, Begun>>,
}

/// Those of a store. Whoever drops it may be asynchronous, and must not wait for them.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // Nothing is on its way: each call has waited for its own.
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// The paths that a checkpoint needs.
type Known = BTreeSet<String>;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl Store {
    /// The checkpoints of the job of that name.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(location: Location, job: &str) -> Result<Self, CheckpointError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("checkpoint-io").enable_all().build();
        let runtime =
            runtime.map_err(|error| CheckpointError::Location { url: location.as_str().to_owned(), reason: error.to_string() })?;
        let root = location.prefix.clone().join(job);
        let (handle, threads) = (runtime.handle().clone(), Threads(Some(runtime)));
        Ok(Self {
            location,
            root,
            job: job.to_owned(),
            runtime: handle,
            _threads: threads,
            known: Mutex::default(),
            begun: Mutex::default(),
        })
    }

    /// For messages: the place and the job.
    #[must_use]
    pub fn place(&self) -> String {
        // As the store writes it: `a#b` is `a%23b`.
        let folder = PathPart::from(self.job.as_str());
        format!("{}/{}", self.location.as_str().trim_end_matches('/'), folder.as_ref())
    }

    /// Where the manifest of one of its checkpoints is: what [`Start::From`] takes.
    #[must_use]
    pub fn manifest_place(&self, manifest: &Manifest) -> String {
        format!("{}/{CHECKPOINTS}/{}", self.place(), Name::of(manifest))
    }

    /// Where the manifest of that number, generation and kind is, or would be.
    #[must_use]
    pub fn place_of(&self, id: u64, generation: u64, kind: Kind) -> String {
        format!("{}/{CHECKPOINTS}/{}", self.place(), Name { id, generation, kind })
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    fn path(&self, folder: &str, name: &str) -> Path {
        self.root.clone().join(folder).join(name)
    }

    async fn names(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        let path = self.root.clone().join(folder);
        let found =
            self.location.store.list_with_delimiter(Some(&path)).await.map_err(|error| CheckpointError::store("list", &path, error))?;
        Ok(found.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    /// Creates an object; false: there is one, with other content.
    async fn create(&self, path: &Path, content: Bytes) -> Result<bool, CheckpointError> {
        let payload = PutPayload::from_bytes(content.clone());
        let created = match self.location.folder.clone() {
            Some(folder) => {
                let (at, content) = (path.clone(), content.clone());
                on_disk("create", path, move || local::create(&folder, &at, &content)).await?
            }
            None => match self.location.store.put_opts(path, payload, PutMode::Create.into()).await {
                Ok(_) => true,
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => false,
                Err(error) => return Err(CheckpointError::store("create", path, error)),
            },
        };
        // It may be ours: a request whose answer was lost is sent again by the library.
        Ok(created || self.get(path).await? == content)
    }

    /// Writes an object; one that is there is replaced. See [`Self::sync`].
    async fn put(&self, path: &Path, content: Bytes) -> Result<(), CheckpointError> {
        match self.location.folder.clone() {
            Some(folder) => {
                let at = path.clone();
                on_disk("write", path, move || local::put(&folder, &at, &content)).await
            }
            None => {
                let put = self.location.store.put(path, PutPayload::from_bytes(content)).await;
                put.map(drop).map_err(|error| CheckpointError::store("write", path, error))
            }
        }
    }

    async fn get(&self, path: &Path) -> Result<Bytes, CheckpointError> {
        let read = async { self.location.store.get(path).await?.bytes().await };
        read.await.map_err(|error| CheckpointError::store("read", path, error))
    }

    /// Makes the names in a folder on this machine's disk survive the machine.
    async fn sync(&self, folder: &str) -> Result<(), CheckpointError> {
        let Some(root) = self.location.folder.clone() else { return Ok(()) };
        let path = self.path(folder, "-");
        let at = path.clone();
        on_disk("sync", &path, move || local::sync_folders(&root, &at)).await
    }

    /// Writes tables for a checkpoint, those aside that are there already. They are garbage until a manifest names them.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, generation: u64, checkpoint: u64, tables: Vec<NewTable>) -> Result<Vec<FileRef>, CheckpointError> {
        let write = |new: NewTable| async move {
            let piece = if new.piece == 0 { String::new() } else { format!(".{}", new.piece) };
            let name = format!("{generation:06}-{checkpoint:08}-{}-{}-{}{piece}.arrow", new.node, new.subtask, new.name);
            let path = self.path(DATA, &name);
            let content = table::encode(&new.name, &new.batch)?;
            let file = FileRef {
                path: format!("{DATA}/{name}"),
                subtask: new.subtask,
                checkpoint,
                rows: new.batch.num_rows() as u64,
                bytes: content.len() as u64,
                key_groups: table::key_groups(&new.batch),
                hash: hash(&content),
            };
            if let Some(same) = new.same.filter(|same| (&same.hash, same.bytes, same.rows) == (&file.hash, file.bytes, file.rows)) {
                return Ok(same);
            }
            self.put(&path, content).await?;
            Ok(file)
        };
        self.wait(async {
            let files: Vec<FileRef> = stream::iter(tables).map(write).buffered(CONCURRENT).try_collect().await?;
            if files.iter().any(|file| file.checkpoint == checkpoint) {
                self.sync(DATA).await?;
            }
            Ok(files)
        })
    }

    /// Whether all files of a checkpoint are there, in their lengths.
    ///
    /// # Errors
    /// The first that is not, by its path; when the store does not answer.
    pub fn check_files(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let check = |file: &FileRef| {
            let (path, expected) = (self.below(&file.path), file.bytes);
            async move {
                let damaged = |reason: String| Err(CheckpointError::Damaged { object: path.to_string(), reason });
                match self.location.store.head(&path).await {
                    Ok(found) if found.size == expected => Ok(()),
                    Ok(found) => damaged(format!("it has {} bytes, {expected} were written", found.size)),
                    Err(Error::NotFound { .. }) => damaged("it is missing".to_owned()),
                    Err(error) => Err(CheckpointError::store("look at", &path, error)),
                }
            }
        };
        self.wait(stream::iter(manifest.files().map(check)).buffered(CONCURRENT).try_collect())
    }

    /// The columns of a table's file; its rows are not read.
    ///
    /// # Errors
    /// When it is missing or no such file.
    pub fn schema(&self, file: &FileRef) -> Result<SchemaRef, CheckpointError> {
        let path = self.below(&file.path);
        self.wait(async {
            let range = async |range: Range<u64>| {
                let read = self.location.store.get_range(&path, range).await;
                read.map_err(|error| CheckpointError::store("read", &path, error))
            };
            table::schema(path.as_ref(), file.bytes, range).await
        })
    }

    /// Reads a table's file.
    ///
    /// # Errors
    /// When it is missing or is not what was written.
    pub fn table(&self, file: &FileRef) -> Result<Vec<RecordBatch>, CheckpointError> {
        let path = self.below(&file.path);
        let content = self.wait(self.get(&path))?;
        if hash(&content) != file.hash {
            return Err(CheckpointError::Damaged { object: path.to_string(), reason: "its content is not what was written".to_owned() });
        }
        table::decode(path.as_ref(), content)
    }

    /// Makes a checkpoint exist: all or nothing.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] when another process has taken over: then nothing may be committed.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let path = self.path(CHECKPOINTS, &Name::of(manifest).to_string());
        let damaged = |reason: String| CheckpointError::Damaged { object: path.to_string(), reason };
        let content = Bytes::from(serde_json::to_vec_pretty(manifest).map_err(|error| damaged(error.to_string()))?);
        self.wait(async {
            if !self.create(&path, content).await? {
                return Err(damaged("it is there already".to_owned()));
            }
            // Only now: see "Fencing" in the crate's documentation.
            let newest = self.newest_generation().await?;
            if newest > manifest.generation {
                return Err(CheckpointError::Fenced { place: self.place(), newest, generation: manifest.generation });
            }
            self.remember(manifest);
            Ok(())
        })
    }

    fn remember(&self, manifest: &Manifest) -> Known {
        let known: Known = manifest.paths().into_iter().map(str::to_owned).collect();
        self.known().insert(Name::of(manifest), known.clone());
        known
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Name, Known>> {
        // What is in it holds also after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of all checkpoints that a restore may go on from, oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn list(&self) -> Result<Vec<u64>, CheckpointError> {
        self.wait(async { Ok(self.names_of_checkpoints().await?.restorable().iter().map(|name| name.id).collect()) })
    }

    /// A number that is higher than that of any checkpoint.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn next_id(&self) -> Result<u64, CheckpointError> {
        Ok(self.wait(self.names_of_checkpoints())?.highest() + 1)
    }

    async fn names_of_checkpoints(&self) -> Result<Names, CheckpointError> {
        let mut names: Vec<Name> = Vec::new();
        // A listing may see neither what comes nor what goes while it is made. Where another process takes a checkpoint and removes the one before it that can be all there is.
        for _ in 0..LOOKS {
            names = self.names(CHECKPOINTS).await?.iter().filter_map(|name| Name::parse(name)).collect();
            if !names.is_empty() {
                break;
            }
        }
        names.sort_unstable();
        let bases = self.begun().await?.into_iter().map(|(generation, begun)| (generation, begun.base)).collect();
        Ok(Names::sort(names, &bases))
    }

    /// A checkpoint's manifest.
    ///
    /// # Errors
    /// When there is none, or it was written by a later release.
    pub fn read(&self, id: u64) -> Result<Manifest, CheckpointError> {
        self.wait(async {
            let names = self.names_of_checkpoints().await?;
            // Of one number there may be two, one of them by a process that did not know that it was passed over.
            match names.holding.iter().chain(names.aside.iter().rev()).find(|name| name.id == id) {
                Some(name) => self.manifest(*name).await,
                None => Err(self.missing(id, &names.restorable())),
            }
        })
    }

    fn missing(&self, id: u64, present: &[Name]) -> CheckpointError {
        let present = match present {
            [] => "; it is empty".to_owned(),
            [only] => format!("; there is {}", only.id),
            [first, .., last] => format!("; there are {} to {}", first.id, last.id),
        };
        CheckpointError::Missing { wanted: id.to_string(), place: self.place(), present }
    }

    async fn manifest(&self, name: Name) -> Result<Manifest, CheckpointError> {
        let path = self.path(CHECKPOINTS, &name.to_string());
        let content = self.get(&path).await?;
        let damaged = |reason: String| CheckpointError::Damaged { object: path.to_string(), reason: on_one_line(&reason) };
        let manifest = parse(&content).map_err(damaged)?;
        // Where it belongs is known by its name before it is read.
        let own = Name::of(&manifest);
        if own == name { Ok(manifest) } else { Err(damaged(format!("it is the manifest that is called {own}"))) }
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// When the store does not answer, or the newest cannot be read: an older one in its place would repeat what the newest covers.
    pub fn latest(&self) -> Result<Option<Manifest>, CheckpointError> {
        self.wait(async {
            let mut missing = None;
            loop {
                let Some(name) = self.names_of_checkpoints().await?.holding.last().copied() else { return Ok(None) };
                match self.manifest(name).await {
                    // A process that still runs the job has taken newer ones meanwhile, and removed this one.
                    Err(CheckpointError::Store { source: object_store::Error::NotFound { .. }, .. }) if missing != Some(name) => {
                        missing = Some(name);
                    }
                    read => return read.map(Some),
                }
            }
        })
    }

    /// Removes all checkpoints but the newest `keep` (the newest one always stays), those that were passed over, and the files that nothing needs any more.
    /// Savepoints stay.
    ///
    /// # Errors
    /// When the store does not answer. Files that could not be removed are by [`Self::sweep`].
    pub fn retain(&self, keep: usize) -> Result<(), CheckpointError> {
        self.wait(async {
            let names = self.names_of_checkpoints().await?;
            let mut old: Vec<Name> = names.holding.iter().filter(|name| name.kind == Kind::Checkpoint).copied().collect();
            old.truncate(old.len().saturating_sub(keep.max(1)));
            old.extend(&names.passed_over);
            self.remove_checkpoints(&old, &names.restorable()).await
        })
    }

    /// Removes one checkpoint or savepoint, and the files that only it needs.
    ///
    /// # Errors
    /// When there is none of that number, when it is the newest checkpoint, or the store does not answer.
    pub fn discard(&self, id: u64) -> Result<(), CheckpointError> {
        self.wait(async {
            let names = self.names_of_checkpoints().await?;
            // A job that runs builds the next one on it.
            if names.holding.iter().rfind(|name| name.kind == Kind::Checkpoint).is_some_and(|newest| newest.id == id) {
                return Err(CheckpointError::Needed { id, place: self.place() });
            }
            let all = names.restorable();
            let name = all.iter().find(|name| name.id == id).ok_or_else(|| self.missing(id, &all))?;
            self.remove_checkpoints(&[*name], &all).await
        })
    }

    /// Removes these; of `all`, the others stay.
    async fn remove_checkpoints(&self, old: &[Name], all: &[Name]) -> Result<(), CheckpointError> {
        let (mut kept, mut garbage) = (BTreeSet::new(), BTreeSet::new());
        for name in all.iter().filter(|name| !old.contains(name)) {
            kept.extend(self.known_of(*name).await?);
        }
        for name in old {
            garbage.extend(self.known_of(*name).await?.into_iter().filter(|file| !kept.contains(file)));
        }
        // Manifests go first: a checkpoint that exists is whole.
        self.remove(old.iter().map(|name| self.path(CHECKPOINTS, &name.to_string())).collect()).await?;
        old.iter().for_each(|name| _ = self.known().remove(name));
        self.remove(garbage.iter().map(|path| self.below(path)).collect()).await
    }

    /// Removes files that no checkpoint needs: those of former generations, and of this one those that were written for a checkpoint up to `given_up`. What a later
    /// generation writes is not touched. Not to be called while this process writes for one of these.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn sweep(&self, generation: u64, given_up: u64) -> Result<(), CheckpointError> {
        self.wait(async {
            let mut needed = BTreeSet::new();
            // Listed before the manifests: a file whose manifest comes meanwhile is not among them, or is needed.
            let names = self.names(DATA).await?;
            let found = self.names_of_checkpoints().await?;
            for name in found.restorable().iter().chain(&found.passed_over) {
                needed.extend(self.known_of(*name).await?);
            }
            let is_garbage = |name: &String| {
                let mut numbers = name.splitn(3, '-').map(str::parse::<u64>);
                let (Some(Ok(of)), Some(Ok(checkpoint))) = (numbers.next(), numbers.next()) else { return false };
                (of < generation || (of == generation && checkpoint <= given_up)) && !needed.contains(&format!("{DATA}/{name}"))
            };
            self.remove(names.iter().filter(|name| is_garbage(name)).map(|name| self.path(DATA, name)).collect()).await
        })
    }

    fn below(&self, path: &str) -> Path {
        path.split('/').fold(self.root.clone(), |at, part| at.join(part))
    }

    async fn known_of(&self, name: Name) -> Result<Known, CheckpointError> {
        let known = self.known().get(&name).cloned();
        match known {
            Some(known) => Ok(known),
            None => Ok(self.remember(&self.manifest(name).await?)),
        }
    }

    async fn remove(&self, paths: Vec<Path>) -> Result<(), CheckpointError> {
        let remove = |path: Path| async move {
            match self.location.store.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(CheckpointError::store("remove", &path, error)),
            }
        };
        stream::iter(paths).map(remove).buffer_unordered(CONCURRENT).try_for_each(|()| future::ready(Ok(()))).await
    }
}

/// Does something to an object on this machine's disk, on a thread that may wait.
async fn on_disk<T: Send + 'static>(
    verb: &str,
    path: &Path,
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CheckpointError> {
    let done = tokio::task::spawn_blocking(what).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    done.map_err(|source| CheckpointError::store(verb, path, Error::Generic { store: "LocalFileSystem", source: Box::new(source) }))
}

fn hash(content: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(content))
}

/// What is said of a word that is not known has the word, whatever is in it.
fn on_one_line(text: &str) -> String {
    text.chars().take(LONGEST_REASON).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn parse(content: &[u8]) -> Result<Manifest, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        format: u32,
        standpipe: String,
    }
    let versioned: Versioned = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if versioned.format > FORMAT {
        return Err(format!(
            "it is of format {}, by standpipe {}; this release reads up to {FORMAT}",
            versioned.format, versioned.standpipe
        ));
    }
    serde_json::from_slice(content).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
