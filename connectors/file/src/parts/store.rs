//! Parts in an object store: each is a multipart upload, which nobody sees until it is completed, and completing it is one step of the store.
//!
//! A checkpoint has a part's upload and pieces; a commit completes it. One that is not there any more has been completed, if the object is there with the part's
//! length: names are given once. An upload that no checkpoint has is aborted by the next start: each subtask keeps a list of its uploads in the store
//! (`_standpipe/JOB.NODE-RUN-SUBTASK-000000.uploads`), since not every store can be asked for them. A process that is killed between beginning an upload and
//! listing it leaves one without any bytes.
//!
//! Stores let a part be completed, but not be written on or cut after that: a checkpoint ends all parts.

use super::{
    depot::{Depot, Draft, Found, Sealed, State, Upload},
    name::{Names, PartId},
};
use crate::outside;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    BackoffConfig, Error as StoreError, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    multipart::{MultipartStore, PartId as Piece},
    path::Path,
};
use serde::{Deserialize, Serialize};
use standpipe_sdk::{Error, Result, Secret};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use url::Url;

/// Bytes of a piece: stores want at least 5 MiB, and all of one upload alike but the last.
const PIECE: usize = 8 << 20;
/// Pieces of an upload, at most, in every store that we know.
pub(crate) const MAX_PIECES: usize = 10_000;
/// Bytes of a part, at most: what comes with its last batch has room behind them.
pub(crate) const MAX_PART: u64 = 64 << 30;
/// Pieces on their way at the same time.
const AT_ONCE: usize = 4;
/// Where the lists are, below the root. Readers of tables pass over what begins with an underscore.
const LISTS: &str = "_standpipe";

/// What parts need of a store.
trait Remote: ObjectStore + MultipartStore {}
impl<S: ObjectStore + MultipartStore> Remote for S {}

/// Whether a path is a URL.
pub(crate) fn is_url(path: &str) -> bool {
    path.contains("://")
}

/// Whether a path is in an object store.
pub(crate) fn is_remote(path: &str) -> bool {
    local_root(super::folders::split(path).0).is_ok_and(|local| local.is_none())
}

/// Whether a root can be written to.
pub(super) fn check_url(root: &str) -> Result<(), String> {
    if is_url(root) { scheme(root).map(|_| ()) } else { Ok(()) }
}

/// The folder of the disk that a root is.
pub(super) fn local_root(root: &str) -> Result<Option<String>> {
    if !is_url(root) {
        return Ok(Some(root.to_owned()));
    }
    match scheme(root).map_err(|message| Error::config("path", message))? {
        (ObjectStoreScheme::Local, url) => {
            let path = url.to_file_path().ok().and_then(|path| path.into_os_string().into_string().ok());
            path.map(Some).ok_or_else(|| Error::config("path", format!("{root:?} is no path")))
        }
        _ => Ok(None),
    }
}

/// Stores of the tests, which live as long as their process.
#[cfg(test)]
pub(super) static MEMORY: Mutex<BTreeMap<String, Arc<object_store::memory::InMemory>>> = Mutex::new(BTreeMap::new());

fn scheme(root: &str) -> Result<(ObjectStoreScheme, Url), String> {
    let url = Url::parse(root).map_err(|error| format!("{root:?} is no URL: {error}"))?;
    match ObjectStoreScheme::parse(&url).map_err(|error| error.to_string())?.0 {
        #[cfg(test)]
        ObjectStoreScheme::Memory => Ok((ObjectStoreScheme::Memory, url)),
        #[cfg(not(test))]
        ObjectStoreScheme::Memory => Err(not_a_place(root)),
        ObjectStoreScheme::Http => Err(not_a_place(root)),
        scheme => Ok((scheme, url)),
    }
}

/// A store in the memory of a process does not outlive it; plain HTTP has no uploads that can be completed.
fn not_a_place(root: &str) -> String {
    format!("{root:?}: use a folder, file://, s3://, gs:// or az://")
}

/// Whether the store of a path has an option of that name.
pub(crate) fn check_option(path: &str, key: &str) -> Result<(), String> {
    let unknown = |_| format!("is no option of {path:?}");
    match scheme(super::folders::split(path).0) {
        Ok((ObjectStoreScheme::AmazonS3, _)) => key.parse::<AmazonS3ConfigKey>().map(|_| ()).map_err(unknown),
        Ok((ObjectStoreScheme::GoogleCloudStorage, _)) => key.parse::<GoogleConfigKey>().map(|_| ()).map_err(unknown),
        Ok((ObjectStoreScheme::MicrosoftAzure, _)) => key.parse::<AzureConfigKey>().map(|_| ()).map_err(unknown),
        _ => Err("is for object stores: s3://, gs://, az://".to_owned()),
    }
}

/// A request is tried again for some seconds; then the host says that it is, and tries again.
fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(10) }
}

fn build(root: &str, options: &BTreeMap<String, Secret>) -> Result<(Arc<dyn Remote>, Path)> {
    let (scheme, url) = scheme(root).map_err(|message| Error::config("path", message))?;
    let (_, prefix) = ObjectStoreScheme::parse(&url)?;
    let refused = |error: StoreError| Error::config("path", error.to_string());
    macro_rules! built {
        ($builder:ty, $key:ty) => {{
            let mut builder = <$builder>::from_env().with_url(root).with_retry(retry());
            for (key, value) in options {
                let known = key.parse::<$key>().map_err(|error| Error::config(format!("options.{key}"), error.to_string()))?;
                builder = builder.with_config(known, value.expose());
            }
            Arc::new(builder.build().map_err(refused)?) as Arc<dyn Remote>
        }};
    }
    let store = match scheme {
        #[cfg(test)]
        ObjectStoreScheme::Memory => MEMORY.lock().unwrap_or_else(PoisonError::into_inner).entry(root.to_owned()).or_default().clone(),
        ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder, AmazonS3ConfigKey),
        ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder, GoogleConfigKey),
        _ => built!(MicrosoftAzureBuilder, AzureConfigKey),
    };
    Ok((store, prefix))
}

/// What went wrong, and whether it may go right later.
fn failed(what: &str, place: &str, error: &StoreError) -> Error {
    // A server's answer may be a page of XML: one line of it will do.
    let message: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect();
    let is_final = matches!(
        error,
        StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::NotFound { .. }
            | StoreError::InvalidPath { .. }
    );
    let error = outside(what, place, message);
    if is_final { error } else { error.retryable() }
}

/// What a subtask knows of its uploads.
#[derive(Default, Serialize, Deserialize)]
struct Uploads {
    /// Name below the root, id.
    uploads: BTreeMap<String, String>,
}

/// What a depot and its drafts share.
struct Shared {
    store: Arc<dyn Remote>,
    runtime: Runtime,
    root: String,
    prefix: Path,
    list: Path,
    uploads: Mutex<Uploads>,
}

impl Shared {
    fn path(&self, name: &str) -> Result<Path> {
        let text = if self.prefix.as_ref().is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(&text).map_err(|error| Error::data(format!("{text:?} cannot be the name of an object: {error}")))
    }

    /// Begins an upload and lists it.
    fn begin(&self, name: &str) -> Result<String> {
        let path = self.path(name)?;
        let id = self.runtime.block_on(self.store.create_multipart(&path)).map_err(|error| failed("write", &self.shown(name), &error))?;
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.uploads.insert(name.to_owned(), id.clone());
        let list = serde_json::to_vec(&*uploads)?;
        let listed = self.runtime.block_on(self.store.put(&self.list, PutPayload::from(list)));
        listed.map_err(|error| {
            uploads.uploads.remove(name);
            failed("write", self.list.as_ref(), &error)
        })?;
        Ok(id)
    }

    fn forget(&self, name: &str) {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).uploads.remove(name);
    }

    fn shown(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }
}

/// A folder of an object store.
pub(crate) struct Store {
    shared: Arc<Shared>,
    names: Names,
}

impl Store {
    pub(super) fn open(root: &str, options: &BTreeMap<String, Secret>, names: Names, (run, subtask): (u64, u32)) -> Result<Self> {
        let (store, prefix) = build(root, options)?;
        let list = format!("{LISTS}/{}{run}-{subtask}-000000.uploads", names.prefix());
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("file-parts").enable_all().build()?;
        let mut shared =
            Shared { store, runtime, root: root.to_owned(), prefix, list: Path::default(), uploads: Mutex::new(Uploads::default()) };
        shared.list = shared.path(&list)?;
        Ok(Self { shared: Arc::new(shared), names })
    }

    /// Name below the root.
    fn below<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let text = path.as_ref();
        match self.shared.prefix.as_ref() {
            "" => Some(text),
            prefix => text.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }

    async fn listed(&self, path: &Path, found: &mut Vec<Found>) -> Result<(), StoreError> {
        let bytes = match self.shared.store.get(path).await {
            // Another subtask has taken it away.
            Err(StoreError::NotFound { .. }) => return Ok(()),
            other => other?.bytes().await?,
        };
        // One that cannot be read was cut off while it was written: it is taken away like any other.
        let uploads: Uploads = serde_json::from_slice(&bytes).unwrap_or_default();
        for (name, id) in uploads.uploads {
            let file = name.rsplit('/').next().unwrap_or_default();
            if let Some(part) = self.names.parse(file) {
                found.push(Found { part, state: State::Upload(id), path: name });
            }
        }
        Ok(())
    }

    async fn find_all(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        let mut objects = self.shared.store.list(Some(&self.shared.prefix));
        while let Some(object) = objects.try_next().await? {
            let Some(name) = self.below(&object.location) else { continue };
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
            let Some(part) = self.names.parse(file) else { continue };
            let state = if folder == LISTS { State::List } else { State::Visible };
            found.push(Found { part, state, path: name.to_owned() });
        }
        let lists: Vec<String> = found.iter().filter(|found| found.state == State::List).map(|found| found.path.clone()).collect();
        for list in lists {
            if let Ok(path) = self.shared.path(&list) {
                self.listed(&path, &mut found).await?;
            }
        }
        // A name is given once: what is seen is the completed upload.
        let seen: HashSet<String> = found.iter().filter(|found| found.state == State::Visible).map(|found| found.path.clone()).collect();
        found.retain(|found| !matches!(found.state, State::Upload(_)) || !seen.contains(&found.path));
        Ok(found)
    }
}

impl Depot for Store {
    fn begin(&mut self, _: PartId, name: &str) -> Result<Box<dyn Draft>> {
        Ok(Box::new(Object {
            shared: Arc::clone(&self.shared),
            name: name.to_owned(),
            id: None,
            buffer: Vec::new(),
            waiting: Vec::new(),
            pieces: Vec::new(),
            uploaded: 0,
        }))
    }

    fn can_cut(&self) -> bool {
        false
    }

    fn publish(&mut self, sealed: &Sealed) -> Result<()> {
        let (shared, name) = (&self.shared, &sealed.name);
        let path = shared.path(name)?;
        let Some(upload) = &sealed.upload else { return Err(Error::data(format!("{name} has no upload: the job wrote to a disk before"))) };
        let pieces = upload.pieces.iter().map(|piece| Piece { content_id: piece.clone() }).collect();
        match shared.runtime.block_on(shared.store.complete_multipart(&path, &upload.id, pieces)) {
            Ok(_) => {}
            Err(error) => {
                // Completed before, or the answer was lost.
                let found = shared.runtime.block_on(shared.store.head(&path));
                let length = sealed.length;
                match found {
                    Ok(found) if found.size == length => {}
                    Ok(found) => {
                        let size = found.size;
                        return Err(Error::external(format!("{} has {size} bytes, the checkpoint has {length}", shared.shown(name))));
                    }
                    Err(StoreError::NotFound { .. }) if matches!(error, StoreError::NotFound { .. }) => {
                        let name = shared.shown(name);
                        return Err(Error::external(format!(
                            "{name} cannot be completed: its upload is gone, taken away by a rule of the bucket or by hand"
                        )));
                    }
                    _ => return Err(failed("complete", &shared.shown(name), &error)),
                }
            }
        }
        shared.forget(name);
        Ok(())
    }

    fn publish_cut(&mut self, name: &str, _: u64) -> Result<()> {
        Err(Error::data(format!("{name} cannot be written on in an object store: the job wrote to a disk before")))
    }

    fn find(&mut self) -> Result<Vec<Found>> {
        self.shared.runtime.block_on(self.find_all()).map_err(|error| failed("list", &self.shared.root, &error))
    }

    fn remove(&mut self, found: &Found) -> Result<()> {
        let path = self.shared.path(&found.path)?;
        let removed = match &found.state {
            State::Upload(id) => self.shared.runtime.block_on(self.shared.store.abort_multipart(&path, id)),
            _ => self.shared.runtime.block_on(self.shared.store.delete(&path)),
        };
        match removed {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", &self.shared.shown(&found.path), &error)),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.shared.runtime.block_on(self.shared.store.delete(&self.shared.list)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", self.shared.list.as_ref(), &error)),
        }
    }

    fn place(&self) -> String {
        self.shared.root.clone()
    }
}

/// An object that is being uploaded.
struct Object {
    shared: Arc<Shared>,
    name: String,
    /// The upload's, once there is one.
    id: Option<String>,
    buffer: Vec<u8>,
    /// Pieces that are not with the store, the first of them with the number of `pieces`.
    waiting: Vec<Bytes>,
    /// Pieces that are.
    pieces: Vec<String>,
    uploaded: u64,
}

impl Object {
    /// Uploads what is waiting. What fails is waiting still.
    fn upload(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.id.insert(self.shared.begin(&self.name)?).clone(),
        };
        let (shared, path, first) = (&self.shared, self.shared.path(&self.name)?, self.pieces.len());
        let mut done = 0;
        let result = shared.runtime.block_on(async {
            let pieces = self.waiting.iter().enumerate();
            let puts = pieces.map(|(at, bytes)| shared.store.put_part(&path, &id, first + at, PutPayload::from(bytes.clone())));
            let mut puts = stream::iter(puts).buffered(AT_ONCE);
            while let Some(piece) = puts.next().await {
                self.pieces.push(piece?.content_id);
                done += 1;
            }
            Ok(())
        });
        self.uploaded += self.waiting.drain(..done).map(|bytes| bytes.len() as u64).sum::<u64>();
        result.map_err(|error: StoreError| failed("write", &shared.shown(&self.name), &error))
    }
}

impl Draft for Object {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn length(&self) -> u64 {
        let waiting: usize = self.waiting.iter().map(Bytes::len).sum();
        self.uploaded + (waiting + self.buffer.len()) as u64
    }

    fn settle(&mut self) -> Result<()> {
        if self.buffer.len() >= PIECE {
            let mut whole = Bytes::from(std::mem::take(&mut self.buffer));
            while whole.len() >= PIECE {
                self.waiting.push(whole.split_to(PIECE));
            }
            self.buffer.extend_from_slice(&whole);
        }
        self.upload()
    }

    fn sync(&mut self) -> Result<()> {
        self.settle()
    }

    fn seal(&mut self) -> Result<Option<Sealed>> {
        self.settle()?;
        if !self.buffer.is_empty() {
            self.waiting.push(Bytes::from(std::mem::take(&mut self.buffer)));
            self.upload()?;
        }
        let Some(id) = self.id.clone() else { return Ok(None) };
        Ok(Some(Sealed { name: self.name.clone(), length: self.uploaded, upload: Some(Upload { id, pieces: self.pieces.clone() }) }))
    }

    fn discard(self: Box<Self>) {
        // The list has it: it is aborted with whatever else this run leaves.
    }
}
