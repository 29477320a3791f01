//! Where parts are kept, as the sink of parts sees it: a disk ([`super::disk`]) or an object store ([`super::store`]).

use super::name::PartId;
use serde::{Deserialize, Serialize};
use standpipe_sdk::{Error, Result};

/// A part that is whole and durable, but not to be seen yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    /// Below the root.
    pub(super) name: String,
    /// Bytes.
    pub(super) length: u64,
    /// How it was uploaded, in an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upload: Option<Upload>,
}

/// An upload that waits to be completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(super) id: String,
    /// What the store has called its pieces, in their order.
    pub(super) pieces: Vec<String>,
}

/// A part that is being written. Bytes are appended to its buffer, which touches nothing outside; its depot does the rest.
pub(crate) trait Draft: Send {
    /// Where bytes are appended.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// Bytes, those of the buffer included.
    fn length(&self) -> u64;

    /// Bytes in memory.
    fn held(&self) -> usize;

    /// It is not wanted.
    fn discard(self);
}

/// What lies in a depot of a sink's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(super) part: PartId,
    pub(super) state: State,
    /// Below the root.
    pub(super) path: String,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Readers see it.
    Visible,
    /// A file under its working name.
    Pending,
    /// An upload that is not completed.
    Upload(String),
    /// The list of a subtask's uploads.
    List,
}

/// Where parts are kept. What fails may be tried again, and loses nothing.
pub(crate) trait Depot: Send {
    type Draft: Draft;

    /// Why there cannot be a part of that name.
    fn refuses(&self, name: &str) -> Option<String>;

    /// A part that nobody sees, and nothing outside knows of, before it is settled.
    fn begin(&mut self, name: &str) -> Self::Draft;

    /// Takes from the buffers what is worth it.
    fn settle(&mut self, drafts: Vec<&mut Self::Draft>) -> Result<()>;

    /// Makes all of them durable, so that they can be cut to their lengths later.
    fn sync(&mut self, drafts: Vec<&mut Self::Draft>) -> Result<()>;

    /// Makes all of them durable, and moves them to `sealed`; an empty one is none. Nothing follows.
    fn seal(&mut self, drafts: &mut Vec<Self::Draft>, sealed: &mut Vec<Sealed>) -> Result<()>;

    /// Whether a part can be written on behind a checkpoint, and be cut to its length there.
    fn can_cut(&self) -> bool;

    /// Lets parts be seen. Once more changes nothing.
    fn publish(&mut self, sealed: &[Sealed]) -> Result<()>;

    /// Lets a part be seen as it was at a checkpoint, whatever has become of it. Once more changes nothing.
    fn publish_cut(&mut self, name: &str, length: u64) -> Result<()>;

    /// Everything of this sink's.
    fn find(&mut self) -> Result<Vec<Found>>;

    /// Takes away what was found.
    fn remove(&mut self, found: &Found) -> Result<()>;

    /// All parts are seen, and none follows.
    fn end(&mut self) -> Result<()>;

    /// Nothing is done any more: another start may write here.
    fn let_go(&mut self) {}

    /// The root, for messages.
    fn place(&self) -> String;
}

/// A part of a checkpoint that is not there any more, and what may have happened.
pub(super) fn gone(part: &str, how: &str) -> Error {
    Error::external(format!(
        "{part} is in the checkpoint, and is gone: {how} and then moved away before two more checkpoints were durable; a part that was moved must be put back, with its name, until then"
    ))
}
