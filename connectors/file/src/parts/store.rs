//! Parts in an object store: each is a multipart upload, which nobody sees until it is completed, and completing it is one step of the store.
//!
//! A checkpoint has a part's upload and pieces; a commit completes it. One that is not there any more has been completed, if the object is there with the part's
//! length: names are given once. An upload that no checkpoint has is aborted by the next start: each subtask keeps a list of its uploads in the store
//! (`_standpipe/JOB.NODE-RUN-SUBTASK-000000.uploads`), since not every store can be asked for them. A process that is killed between beginning uploads and
//! listing them leaves some without any bytes. A store has no locks: of two starts that know of no checkpoint, the second takes the uploads of the first for left
//! behind, and the first fails when it ends.
//!
//! Stores let a part be completed, but not be written on or cut after that: a checkpoint ends all parts.

use super::{
    depot::{Depot, Draft, Found, Sealed, State, Upload, gone},
    name::Names,
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
    sync::Arc,
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
/// What the name of a list ends with: no part does, whatever its folder.
const LIST: &str = ".uploads";
/// Bytes of an object's name.
const MAX_KEY: usize = 1024;

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
pub(super) static MEMORY: std::sync::Mutex<BTreeMap<String, Arc<object_store::memory::InMemory>>> = std::sync::Mutex::new(BTreeMap::new());

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
        ObjectStoreScheme::Memory => {
            MEMORY.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(root.to_owned()).or_default().clone()
        }
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

/// Whether an object, or an upload, is not there. Of uploads the library does not always say so: it hands on what Google and Azure have answered.
fn is_gone(error: &StoreError) -> bool {
    let answers = ["status code: 404", "InvalidBlockList", "NoSuchUpload"];
    matches!(error, StoreError::NotFound { .. })
        || matches!(error, StoreError::Generic { source, .. } if { let text = source.to_string(); answers.iter().any(|answer| text.contains(answer)) })
}

/// What a subtask knows of its uploads.
#[derive(Default, Serialize, Deserialize)]
struct Uploads {
    /// Name below the root, id.
    uploads: BTreeMap<String, String>,
}

/// A folder of an object store.
pub(crate) struct Store {
    store: Arc<dyn Remote>,
    runtime: Runtime,
    root: String,
    prefix: Path,
    names: Names,
    list: Path,
    uploads: Uploads,
    /// The list in the store has all of them.
    is_listed: bool,
}

impl Store {
    pub(super) fn open(root: &str, options: &BTreeMap<String, Secret>, names: Names, (run, subtask): (u64, u32)) -> Result<Self> {
        let (store, prefix) = build(root, options)?;
        let list = format!("{LISTS}/{}{run}-{subtask}-000000{LIST}", names.prefix());
        let list = path_below(&prefix, &list)?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("file-parts").enable_all().build()?;
        Ok(Self { store, runtime, root: root.to_owned(), prefix, names, list, uploads: Uploads::default(), is_listed: true })
    }

    fn path(&self, name: &str) -> Result<Path> {
        path_below(&self.prefix, name)
    }

    fn shown(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }

    /// Name below the root.
    fn below<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let text = path.as_ref();
        match self.prefix.as_ref() {
            "" => Some(text),
            prefix => text.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }

    /// Uploads what is waiting. What fails is waiting still.
    fn upload(&mut self, mut drafts: Vec<&mut Object>) -> Result<()> {
        drafts.retain(|draft| !draft.waiting.is_empty());
        self.begin_uploads(&mut drafts)?;
        let mut puts = Vec::new();
        for (at, draft) in drafts.iter().enumerate() {
            let (Some(id), path) = (draft.id.clone(), self.path(&draft.name)?) else { continue };
            for (piece, bytes) in (draft.pieces.len()..).zip(draft.waiting.iter().cloned()) {
                let (store, path, id) = (&self.store, path.clone(), id.clone());
                puts.push(async move { (at, store.put_part(&path, &id, piece, PutPayload::from(bytes)).await) });
            }
        }
        let (mut done, mut result) = (Vec::new(), Ok(()));
        self.runtime.block_on(async {
            let mut puts = stream::iter(puts).buffered(AT_ONCE);
            while let Some((at, piece)) = puts.next().await {
                match piece {
                    Ok(piece) => done.push((at, piece.content_id)),
                    // The pieces behind it are uploaded once more.
                    Err(error) => {
                        // It is one of these.
                        let name = drafts.get(at).map(|draft| self.shown(&draft.name)).unwrap_or_default();
                        result = Err(failed("write", &name, &error));
                        break;
                    }
                }
            }
        });
        for (at, piece) in done {
            if let Some(draft) = drafts.get_mut(at) {
                draft.uploaded += draft.waiting.remove(0).len() as u64;
                draft.pieces.push(piece);
            }
        }
        result
    }

    /// Begins the uploads that there are none of yet, and lists all of them at once, before they have any bytes.
    fn begin_uploads(&mut self, drafts: &mut [&mut Object]) -> Result<()> {
        let mut creates = Vec::new();
        for (at, draft) in drafts.iter().enumerate().filter(|(_, draft)| draft.id.is_none()) {
            let (store, path) = (&self.store, self.path(&draft.name)?);
            creates.push(async move { (at, store.create_multipart(&path).await) });
        }
        let created: Vec<_> = self.runtime.block_on(stream::iter(creates).buffered(AT_ONCE).collect());
        let mut result = Ok(());
        for (at, id) in created {
            let Some(draft) = drafts.get_mut(at) else { continue };
            match id {
                Ok(id) => {
                    self.uploads.uploads.insert(draft.name.clone(), id.clone());
                    self.is_listed = false;
                    draft.id = Some(id);
                }
                Err(error) => result = Err(failed("write", &format!("{}{}", self.root, draft.name), &error)),
            }
        }
        if !self.is_listed {
            let list = PutPayload::from(serde_json::to_vec(&self.uploads)?);
            let listed = self.runtime.block_on(self.store.put(&self.list, list));
            listed.map_err(|error| failed("write", self.list.as_ref(), &error))?;
            self.is_listed = true;
        }
        result
    }

    async fn complete(&self, sealed: &Sealed) -> Result<()> {
        let (name, path) = (self.shown(&sealed.name), self.path(&sealed.name)?);
        let Some(upload) = &sealed.upload else { return Err(Error::data(format!("{name} has no upload: the job wrote to a disk before"))) };
        let pieces = upload.pieces.iter().map(|piece| Piece { content_id: piece.clone() }).collect();
        let Err(error) = self.store.complete_multipart(&path, &upload.id, pieces).await else { return Ok(()) };
        // Completed before, or the answer was lost.
        match self.store.head(&path).await {
            Ok(found) if found.size == sealed.length => Ok(()),
            Ok(found) => Err(Error::external(format!("{name} has {} bytes, the checkpoint has {}", found.size, sealed.length))),
            Err(StoreError::NotFound { .. }) if is_gone(&error) => Err(gone(
                &name,
                "its upload was taken away, by a rule of the bucket, by hand or by another start of the job, or it was completed",
            )),
            Err(_) => Err(failed("complete", &name, &error)),
        }
    }

    async fn listed(&self, path: &Path, found: &mut Vec<Found>) -> Result<(), StoreError> {
        let bytes = match self.store.get(path).await {
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
        let mut objects = self.store.list(Some(&self.prefix));
        while let Some(object) = objects.try_next().await? {
            let Some(name) = self.below(&object.location) else { continue };
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
            let Some(part) = self.names.parse(file) else { continue };
            // A value of a column may give a part's folder that name.
            let state = if folder == LISTS && file.ends_with(LIST) { State::List } else { State::Visible };
            found.push(Found { part, state, path: name.to_owned() });
        }
        let lists: Vec<String> = found.iter().filter(|found| found.state == State::List).map(|found| found.path.clone()).collect();
        for list in lists {
            if let Ok(path) = self.path(&list) {
                self.listed(&path, &mut found).await?;
            }
        }
        // A name is given once: what is seen is the completed upload.
        let seen: HashSet<String> = found.iter().filter(|found| found.state == State::Visible).map(|found| found.path.clone()).collect();
        found.retain(|found| !matches!(found.state, State::Upload(_)) || !seen.contains(&found.path));
        Ok(found)
    }

    fn take_away(&self, path: &Path) -> Result<()> {
        match self.runtime.block_on(self.store.delete(path)) {
            Err(error) if !is_gone(&error) => Err(failed("remove", path.as_ref(), &error)),
            _ => Ok(()),
        }
    }
}

fn path_below(prefix: &Path, name: &str) -> Result<Path> {
    let text = if prefix.as_ref().is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    Path::parse(&text).map_err(|error| Error::data(format!("{text:?} cannot be the name of an object: {error}")))
}

impl Depot for Store {
    type Draft = Object;

    fn refuses(&self, name: &str) -> Option<String> {
        let is_long = self.prefix.as_ref().len() + 1 + name.len() > MAX_KEY;
        is_long.then(|| format!("its folder has too long a name: an object's has at most {MAX_KEY} bytes"))
    }

    fn begin(&mut self, name: &str) -> Object {
        Object { name: name.to_owned(), id: None, buffer: Vec::new(), waiting: Vec::new(), pieces: Vec::new(), uploaded: 0 }
    }

    fn settle(&mut self, mut drafts: Vec<&mut Object>) -> Result<()> {
        drafts.iter_mut().for_each(|draft| draft.cut());
        self.upload(drafts)
    }

    fn sync(&mut self, drafts: Vec<&mut Object>) -> Result<()> {
        self.settle(drafts)
    }

    fn seal(&mut self, drafts: &mut Vec<Object>, sealed: &mut Vec<Sealed>) -> Result<()> {
        for draft in drafts.iter_mut() {
            draft.cut();
            if !draft.buffer.is_empty() {
                draft.waiting.push(Bytes::from(std::mem::take(&mut draft.buffer)));
            }
        }
        self.upload(drafts.iter_mut().collect())?;
        sealed.extend(drafts.drain(..).filter_map(|draft| {
            let upload = Upload { id: draft.id?, pieces: draft.pieces };
            Some(Sealed { name: draft.name, length: draft.uploaded, upload: Some(upload) })
        }));
        Ok(())
    }

    fn can_cut(&self) -> bool {
        false
    }

    fn publish(&mut self, sealed: &[Sealed]) -> Result<()> {
        let completed = stream::iter(sealed.iter().map(|sealed| self.complete(sealed))).buffered(AT_ONCE);
        self.runtime.block_on(completed.try_collect::<()>())?;
        for sealed in sealed {
            self.uploads.uploads.remove(&sealed.name);
        }
        Ok(())
    }

    fn publish_cut(&mut self, name: &str, _: u64) -> Result<()> {
        Err(Error::data(format!("{name} cannot be written on in an object store: the job wrote to a disk before")))
    }

    fn find(&mut self) -> Result<Vec<Found>> {
        self.runtime.block_on(self.find_all()).map_err(|error| failed("list", &self.root, &error))
    }

    fn remove(&mut self, found: &Found) -> Result<()> {
        let path = self.path(&found.path)?;
        let State::Upload(id) = &found.state else { return self.take_away(&path) };
        match self.runtime.block_on(self.store.abort_multipart(&path, id)) {
            Err(error) if !is_gone(&error) => Err(failed("remove", &self.shown(&found.path), &error)),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.take_away(&self.list)
    }

    fn place(&self) -> String {
        self.root.clone()
    }
}

/// An object that is being uploaded.
pub(crate) struct Object {
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
    /// Cuts whole pieces off the buffer.
    fn cut(&mut self) {
        if self.buffer.len() >= PIECE {
            let mut whole = Bytes::from(std::mem::take(&mut self.buffer));
            while whole.len() >= PIECE {
                self.waiting.push(whole.split_to(PIECE));
            }
            self.buffer.extend_from_slice(&whole);
        }
    }
}

impl Draft for Object {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn length(&self) -> u64 {
        self.uploaded + self.held() as u64
    }

    fn held(&self) -> usize {
        self.waiting.iter().map(Bytes::len).sum::<usize>() + self.buffer.len()
    }

    fn discard(self) {
        // The list has it: it is aborted with whatever else this run leaves.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_is_gone_is_known_by_every_stores_answer() {
        let generic = |text: &str| StoreError::Generic { store: "GCS", source: text.into() };
        assert!(is_gone(&StoreError::NotFound { path: "x".to_owned(), source: "x".into() }));
        assert!(is_gone(&generic(
            "Error performing complete multipart request: ... Server returned non-2xx status code: 404 Not Found: x"
        )));
        assert!(is_gone(&generic("Server returned non-2xx status code: 400 Bad Request: <Error><Code>InvalidBlockList</Code>")));
        assert!(!is_gone(&generic("Server returned non-2xx status code: 503 Slow Down: x")));
    }
}
