//! Where parts are kept, as the sink of parts sees it: a disk ([`super::disk`]) or an object store ([`super::store`]).

use super::name::PartId;
use serde::{Deserialize, Serialize};
use standpipe_sdk::Result;

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

/// A part that is being written. Bytes are appended to its buffer; what fails after that may be tried again, and loses nothing.
pub(crate) trait Draft: Send {
    /// Where bytes are appended.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// Bytes, those of the buffer included.
    fn length(&self) -> u64;

    /// Takes from the buffer what is worth it.
    fn settle(&mut self) -> Result<()>;

    /// Makes all of it durable, so that it can be cut to this length later.
    fn sync(&mut self) -> Result<()>;

    /// Makes all of it durable. Nothing follows. `None`: it is empty.
    fn seal(&mut self) -> Result<Option<Sealed>>;

    /// It is not wanted.
    fn discard(self: Box<Self>);
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

/// Where parts are kept.
pub(crate) trait Depot: Send {
    /// Begins a part.
    fn begin(&mut self, part: PartId, name: &str) -> Result<Box<dyn Draft>>;

    /// Whether a part can be written on behind a checkpoint, and be cut to its length there.
    fn can_cut(&self) -> bool;

    /// Lets a part be seen. Once more changes nothing.
    fn publish(&mut self, sealed: &Sealed) -> Result<()>;

    /// Lets a part be seen as it was at a checkpoint, whatever has become of it. Once more changes nothing.
    fn publish_cut(&mut self, name: &str, length: u64) -> Result<()>;

    /// Everything of this sink's.
    fn find(&mut self) -> Result<Vec<Found>>;

    /// Takes away what was found.
    fn remove(&mut self, found: &Found) -> Result<()>;

    /// All parts are seen, and none follows.
    fn end(&mut self) -> Result<()>;

    /// The root, for messages.
    fn place(&self) -> String;
}
