//! Checkpoints as files: where they are ([`location`]), what one of them consists of ([`manifest`]), how its tables are written ([`table`]), and how they are added,
//! found and removed ([`store`]). It knows nothing of engines: what is in the tables is theirs.
//!
//! ```text
//! DIR/JOB/generations/000003                            a process has taken over the job
//! DIR/JOB/generations/000003.base                       ... and goes on from this checkpoint
//! DIR/JOB/data/000003-00000041-transforms.stats-0-panes.arrow
//! DIR/JOB/checkpoints/00000041-000003.json              the manifest; a checkpoint exists when this does
//! DIR/JOB/checkpoints/00000042-000003-savepoint.json    ... of one that stays until it is removed on request
//! ```
//!
//! A table is an Arrow IPC file, so pyarrow, DuckDB or DataFusion read it. A manifest names every file that its checkpoint needs, those of former checkpoints too
//! where nothing has changed since: so a file is garbage when no manifest names it. Objects are created, never replaced.
//!
//! **Fencing.** Of two processes that think they run the job, one must lose, whatever the delays. A process claims a generation (creates its object), then looks for
//! the newest checkpoint, notes it as its base, and begins. Whoever writes a manifest looks afterwards whether its generation is still the newest, and commits
//! nothing if not. So a manifest was there before a later generation looked, and then is its base or before it; or its writer sees that generation. A manifest that
//! came too late is passed over for ever: its number is higher than the base of a later generation ([`store`]).

#![forbid(unsafe_code)]

pub mod coordinator;
pub mod location;
pub mod manifest;
pub mod store;
pub mod table;

pub use location::Location;
pub use manifest::{FileRef, Kind, Manifest, NodeState};
pub use store::{Start, Store, TakenOver};

/// Why a checkpoint cannot be written, found or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A place that is none.
    #[error("{url:?} is no place for checkpoints: {reason}")]
    Location {
        /// As written.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store said no, or did not answer.
    #[error("{what}: {source}")]
    Store {
        /// What was done to which object: `cannot write checkpoints/00000041.json`.
        what: String,
        /// The store's words.
        source: object_store::Error,
    },
    /// Another process has taken over.
    #[error("another process runs this job in {place}: it is of generation {newest}, this one of {generation}")]
    Fenced {
        /// The folder or URL.
        place: String,
        /// Of the other process.
        newest: u64,
        /// Of this process.
        generation: u64,
    },
    /// A checkpoint that does not exist.
    #[error("there is no checkpoint {wanted} in {place}{present}")]
    Missing {
        /// A number or a name.
        wanted: String,
        /// The folder or URL.
        place: String,
        /// `; there are 39 to 41`, or nothing.
        present: String,
    },
    /// An object that is not what we write.
    #[error("{object}: {reason}")]
    Damaged {
        /// Its path.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A table that cannot be written as Arrow.
    #[error("table {table}: {source}")]
    Arrow {
        /// Its name.
        table: String,
        /// Arrow's words.
        source: arrow::error::ArrowError,
    },
}

impl CheckpointError {
    pub(crate) fn store(doing: &str, path: &object_store::path::Path, source: object_store::Error) -> Self {
        Self::Store { what: format!("cannot {doing} {path}"), source }
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store { source, .. } if !matches!(source,
            object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } | object_store::Error::InvalidPath { .. }))
    }
}
