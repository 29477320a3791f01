//! What the two processes say to each other. Both are of one build, so nothing here has a version; who speaks first makes sure of that ([`Create::build`]).
//!
//! Calls go over one socket, request and reply in turns. What an instance tells its host besides, at any time and from any thread, goes over another one, and what the host has to
//! answer comes back there.

use crate::batch::Packed;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use standpipe_loader::{CloseReason, Committable, Error, ErrorCode, InstanceContext, Recovered, SplitPosition, wire::InputDetails};
use std::{borrow::Cow, fmt};

/// A message, and what is to be known with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    /// Segments of the other side that it may fill again.
    pub(crate) released: Vec<u32>,
    /// Own segments that are no more.
    pub(crate) gone: Vec<u32>,
    /// Of a reply: how many news were told before it.
    pub(crate) told: u64,
    pub(crate) message: T,
}

/// Bytes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob<'a>(pub(crate) Cow<'a, [u8]>);

impl<'a> From<&'a [u8]> for Blob<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Blob<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_byte_buf(Visitor).map(Self::from)
    }
}

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    Reader,
    Enumerator,
    Transform,
    Sink,
}

/// An instance to make: the first request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Create {
    /// The build of the host, which must be that of the process.
    pub(crate) build: String,
    pub(crate) part: Part,
    /// The plugin's file, and the SHA-256 of its content.
    pub(crate) file: String,
    pub(crate) hash: String,
    pub(crate) kind: String,
    pub(crate) node: String,
    /// JSON.
    pub(crate) config: String,
    pub(crate) context: Context,
    /// The columns of each input as Arrow writes a schema, and the JSON that tells of it.
    pub(crate) inputs: Vec<(Blob<'static>, String)>,
    /// Which files it may use.
    pub(crate) sandbox: Option<crate::Sandbox>,
}

/// [`InstanceContext`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Context {
    job_id: String,
    job_name: String,
    node: String,
    subtask: u32,
    parallelism: u32,
    max_parallelism: u32,
    generation: u64,
    restored: bool,
}

impl From<&InstanceContext> for Context {
    fn from(context: &InstanceContext) -> Self {
        let InstanceContext { job_id, job_name, node, subtask, parallelism, max_parallelism, generation, restored } = context.clone();
        Self { job_id, job_name, node, subtask, parallelism, max_parallelism, generation, restored }
    }
}

impl From<Context> for InstanceContext {
    fn from(context: Context) -> Self {
        let Context { job_id, job_name, node, subtask, parallelism, max_parallelism, generation, restored } = context;
        Self { job_id, job_name, node, subtask, parallelism, max_parallelism, generation, restored }
    }
}

/// A split: its name, its details, its position.
pub(crate) type Split<'a> = (Cow<'a, str>, Cow<'a, str>, Option<Blob<'a>>);

pub(crate) fn split(split: &SplitPosition) -> Split<'_> {
    (split.split.as_str().into(), split.details.as_str().into(), split.position.as_deref().map(Blob::from))
}

/// What was prepared: checkpoint, subtask, bytes.
pub(crate) type Prepared<'a> = (u64, u32, Blob<'a>);

pub(crate) fn prepared(prepared: &[Committable]) -> Vec<Prepared<'_>> {
    prepared.iter().map(|one| (one.checkpoint, one.subtask, Blob::from(one.bytes.as_slice()))).collect()
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    Create(Box<Create>),
    Open,
    /// For a reason of [`CloseReason::to_abi`].
    Close(u32),
    /// The last one.
    Destroy,
    Snapshot,
    Restore(Vec<Blob<'a>>),
    // Readers.
    Assign(Vec<Split<'a>>),
    Unassign(Cow<'a, [String]>),
    Pause(Cow<'a, [String]>),
    Resume(Cow<'a, [String]>),
    Poll {
        rows: u32,
        bytes: u64,
        micros: u64,
    },
    Committed {
        checkpoint: u64,
        positions: Vec<(Cow<'a, str>, Blob<'a>)>,
    },
    Lag,
    // Enumerators.
    Discover {
        micros: u64,
    },
    // Transforms.
    Process {
        input: u32,
        batch: Packed,
        /// It may end later.
        later: bool,
    },
    Watermark {
        input: u32,
        micros: i64,
    },
    /// Before that checkpoint.
    Drain(Option<u64>),
    /// Of an input, or of a sink.
    Finish(u32),
    // Sinks.
    Write {
        seq: u64,
        batch: Packed,
    },
    Flush(u64),
    Prepare(u64),
    Commit {
        up_to: u64,
        prepared: Vec<Prepared<'a>>,
    },
    Recover(Vec<Prepared<'a>>),
    Abort(Vec<Prepared<'a>>),
}

impl Request<'_> {
    /// As plugins have it, for messages.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Open => "open",
            Self::Close(_) => "close",
            Self::Destroy => "destroy",
            Self::Snapshot => "snapshot",
            Self::Restore(_) => "restore",
            Self::Assign(_) => "assign",
            Self::Unassign(_) => "unassign",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Poll { .. } => "poll",
            Self::Committed { .. } => "checkpoint_committed",
            Self::Lag => "lag",
            Self::Discover { .. } => "discover",
            Self::Process { .. } => "process",
            Self::Watermark { .. } => "on_watermark",
            Self::Drain(_) => "drain",
            Self::Finish(_) => "finish",
            Self::Write { .. } => "write",
            Self::Flush(_) => "flush",
            Self::Prepare(_) => "prepare",
            Self::Commit { .. } => "commit",
            Self::Recover(_) => "recover",
            Self::Abort(_) => "abort",
        }
    }
}

/// What a call answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The columns of its outputs; of a reader, of its batches.
    Created(Vec<Blob<'static>>),
    Done,
    Failed(Failure),
    Bytes(Blob<'static>),
    Positions(Vec<Blob<'static>>),
    Json(String),
    Idle,
    EndOfSplit(String),
    Rows {
        split: String,
        batch: Packed,
        position: Blob<'static>,
        watermark: Option<i64>,
    },
    /// By output.
    Given(Vec<(u32, Packed)>),
    Pending(u64),
    /// Of a write: it was taken, or not now.
    Taken(bool),
    /// By [`decision`].
    Recovered(Vec<u8>),
}

/// What an instance tells besides.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum News {
    Log {
        level: u32,
        json: String,
    },
    /// A metric under a number of the process' own.
    Metric {
        id: u64,
        name: String,
        kind: u32,
        labels: String,
    },
    Metrics(Vec<(u64, f64)>),
    Wake,
    Secret {
        id: u64,
        reference: String,
    },
    Ack(u64),
    /// Rows, reasons, details.
    Reject {
        seq: u64,
        rejections: Vec<(u32, String, String)>,
    },
    /// A call that was pending has ended.
    Ended {
        token: u64,
        result: Result<Vec<(u32, Packed)>, Failure>,
    },
}

/// What the host says besides.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Back {
    Cancelled,
    Secret { id: u64, value: Result<(String, u64), String> },
}

/// [`Error`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    code: u32,
    retryable: bool,
    message: String,
    /// JSON.
    details: String,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, retryable: bool, message: String, details: &serde_json::Map<String, serde_json::Value>) -> Self {
        // A map of JSON has its text always; of an error without details none is told.
        let details = if details.is_empty() { String::new() } else { serde_json::to_string(details).unwrap_or_default() };
        Self { code: code.0, retryable, message, details }
    }
}

impl From<standpipe_loader::PluginError> for Failure {
    fn from(error: standpipe_loader::PluginError) -> Self {
        Self::new(error.code, error.retryable, error.message, &error.details)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        // None, or what a process that has damaged itself says: the message is worth telling without them.
        let details = serde_json::from_str(&failure.details).unwrap_or_default();
        Self { code: ErrorCode(failure.code), retryable: failure.retryable, message: failure.message, details }
    }
}

/// The JSON that tells of an input. It has a text always; without one the process would refuse to make its instance.
pub(crate) fn details(details: &InputDetails) -> String {
    serde_json::to_string(details).unwrap_or_default()
}

/// A reason in its number.
pub(crate) const fn reason(reason: CloseReason) -> u32 {
    reason.to_abi()
}

/// A decision in its number, and back.
pub(crate) const fn decision(recovered: Recovered) -> u8 {
    match recovered {
        Recovered::Committed => 0,
        Recovered::Commit => 1,
        Recovered::Lost => 2,
    }
}

pub(crate) const fn recovered(decision: u8) -> Option<Recovered> {
    match decision {
        0 => Some(Recovered::Committed),
        1 => Some(Recovered::Commit),
        2 => Some(Recovered::Lost),
        _ => None,
    }
}
