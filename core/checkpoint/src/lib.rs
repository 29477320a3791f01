//! Checkpoints as files: where they are ([`location`]), what one of them consists of ([`manifest`]), how its tables are written ([`table`]), and how they are added,
//! found and removed ([`store`]). It knows nothing of engines: what is in the tables is theirs.
//!
//! ```text
//! DIR/JOB/generations/000003                            a process has taken over the job
//! DIR/JOB/generations/000003.base                       ... and goes on from this checkpoint, or that of a manifest elsewhere
//! DIR/JOB/data/000003-00000041-transforms.stats-0-panes.arrow
//! DIR/JOB/checkpoints/00000041-000003.json              the manifest; a checkpoint exists when this does
//! DIR/JOB/checkpoints/00000042-000003-savepoint.json    ... of one that stays until it is removed on request
//! DIR/JOB/runs/ID/...                                   what a job manager that runs one job alone keeps of it (`store/aside.rs`)
//! ```
//!
//! A table is an Arrow IPC file, so pyarrow, DuckDB or DataFusion read it. A manifest names every file that its checkpoint needs, those of former checkpoints too
//! where nothing has changed since: so a file is garbage when no manifest names it. Objects are created, never replaced.
//!
//! **Fencing.** Of two processes that think they run the job, one must lose, whatever the delays. A process claims a generation (creates its object), then looks for
//! the newest checkpoint, reads it, notes it as its base, and begins. Whoever writes a manifest looks afterwards whether its generation is still the newest, and commits
//! nothing if not. So a manifest was there before a later generation looked, and then is its base or before it; or its writer sees that generation. A manifest that
//! came too late is passed over for ever: its number is higher than the base of a later generation ([`store`]).

#![forbid(unsafe_code)]

pub mod coordinator;
pub mod location;
pub mod manifest;
pub mod store;
pub mod table;

pub use location::Location;
pub use manifest::{FileRef, Kind, Manifest, NodeState, PluginUsed};
pub use store::{Found, Start, Store, TakenOver};

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
    #[error("{what}: {}", one_line(source))]
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
    /// What may not be removed.
    #[error("{id} is the newest checkpoint in {place}: the job goes on from it, or builds on it while it runs")]
    Needed {
        /// Its number.
        id: u64,
        /// The folder or URL.
        place: String,
    },
    /// A path or URL at which there is none.
    #[error(
        "at {text:?} there is no checkpoint: expected its manifest, like DIR/JOB/checkpoints/00000041-000003.json, or the folder of a job, DIR/JOB{there}"
    )]
    Nowhere {
        /// As it was written.
        text: String,
        /// `; there are DIR/a, DIR/b`, or nothing.
        there: String,
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

/// A store's words on one line. A server's answer may be a document, of which the code and the message say what is wrong.
fn one_line(error: &object_store::Error) -> String {
    let text = error.to_string();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
    };
    let said = match (text.find('<'), element("Code"), element("Message")) {
        (Some(document), Some(code), Some(message)) => format!("{} {code}: {message}", &text[..document]),
        _ => text,
    };
    said.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(':').to_owned()
}

impl CheckpointError {
    pub(crate) fn store(doing: &str, path: &object_store::path::Path, source: object_store::Error) -> Self {
        Self::Store { what: format!("cannot {doing} {path}"), source }
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use object_store::Error::{InvalidPath, NotFound, NotImplemented, NotSupported};
        matches!(self, Self::Store { source, .. }
            if !matches!(source, NotFound { .. } | NotImplemented { .. } | NotSupported { .. } | InvalidPath { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_one_line() {
        let said = |text: &str| {
            let source = object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
            CheckpointError::store("list", &object_store::path::Path::from("a/b"), source).to_string()
        };
        let answer =
            "status code: 404 Not Found: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>There is none</Message></Error>";
        assert_eq!(said(answer), "cannot list a/b: Generic S3 error: status code: 404 Not Found: NoSuchBucket: There is none");
        assert_eq!(said("one\n two <b>"), "cannot list a/b: Generic S3 error: one two <b>");
    }
}
