//! The JSON that crosses beside the tables: what `validate` answers and what a manifest describes. The SDK writes it, the loader reads it.
//!
//! It evolves freely: readers ignore members that they do not know, and every new member has a default. Words of the enumerations here that a later minor version
//! adds are for `words`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the rows of a stream relate to each other (SEMANTICS.md, "Streams and change modes").
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[serde(rename_all = "snake_case")]
pub enum ChangeMode {
    /// Every row stands for itself.
    #[default]
    Append,
    /// A row replaces the earlier one of the same key; the row kind column tells deletes.
    Upsert,
    /// Rows are added and taken back; the row kind column tells which.
    Retract,
}

/// What the plugin's batches hold.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Typed columns.
    #[default]
    Rows,
    /// A column `value` of encoded records (the host decodes or encodes by `format`), then the columns asked for.
    Records,
    /// Of a sink: typed columns, to which it applies the pipeline's `format` itself. What it encodes is files, not records.
    Files,
}

/// What a kind can do; the host plans and judges guarantees by it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct Capabilities {
    /// A source that ends.
    pub bounded: bool,
    /// A source that reads the same rows again from a position.
    pub replayable: bool,
    /// A source that passes over nothing where it has no position: it begins where it began the first time. A bounded one does by its nature.
    pub rewinds: bool,
    /// A sink that makes rows visible at `commit` only.
    pub transactional: bool,
    /// A sink in which writing a row twice is the same as once.
    pub idempotent: bool,
    /// Rows of a split come, or rows are written, in order.
    pub ordered: bool,
    /// A sink whose rows lie in the checkpoint, in what it prepares, until they are committed: it needs checkpoints, and the host does not flush it in between. A batch that
    /// it does not acknowledge holds up its sources until it has prepared.
    pub needs_log: bool,
    /// A transform whose output depends on the input rows alone.
    pub deterministic: bool,
}

/// An output of a node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct OutputDetails {
    /// `main`, or the name after the dot in `NODE.name`.
    pub name: String,
    /// Its change mode.
    #[serde(default)]
    pub mode: ChangeMode,
}

/// The shape of a declared state.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// One value per key.
    Value,
    /// A list per key.
    List,
    /// A map per key.
    Map,
    /// One value per key, combined by the host.
    Reducing,
}

/// A declared state; its Arrow field is in the schema beside it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StateDetails {
    /// Unique in the node, of up to 64 ASCII letters, digits, `_` and `-`; names the state in checkpoints.
    pub name: String,
    /// Its shape.
    pub kind: StateKind,
    /// Grows when the author changes the meaning.
    #[serde(default)]
    pub version: u32,
    /// Milliseconds after the last write at which a value is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_live_ms: Option<u64>,
}

/// A wrong value in the configuration or a wrong input.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct Problem {
    /// Where in the configuration: `hosts[0]`; empty: the node as a whole.
    pub path: String,
    /// One line for people.
    pub message: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// An error about the configuration is a problem like the others.
impl From<crate::Error> for Problem {
    fn from(error: crate::Error) -> Self {
        let text = |key: &str| error.details.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        Self { path: text("path").unwrap_or_default(), suggestion: text("suggestion"), message: error.message }
    }
}

/// A class of column types that a plugin may or may not take; `check` refuses a stream with a column of one that it does not.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum TypeClass {
    /// Dictionary-encoded columns.
    Dictionary,
    /// `LargeUtf8`, `LargeBinary`, `LargeList`.
    Large,
    /// `Utf8View`, `BinaryView`.
    View,
    /// `ListView`, `LargeListView`.
    ListView,
    /// Run-end encoded columns.
    RunEnd,
    /// Lists, structs, maps.
    Nested,
}

/// The JSON half of a validation's answer (`Validation::details`).
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ValidationDetails {
    /// One per child of `Validation::outputs`, in order.
    pub outputs: Vec<OutputDetails>,
    /// One per child of `Validation::state`, in order.
    pub states: Vec<StateDetails>,
    /// What the kind can do with this configuration.
    pub capabilities: Capabilities,
    /// What a source's main output or a sink's input holds.
    pub encoding: Encoding,
    /// A sink of records: the row's columns that it wants beside `value`, in order.
    pub columns: Vec<String>,
    /// An idempotent sink: the columns by which it tells rows apart; empty: any may count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<String>,
    /// The change modes it takes. A sink: empty means append only. A transform: besides append and the mode of its main output.
    pub accepts: Vec<ChangeMode>,
    /// Subtasks that the node may have at most (a file that cannot be shared: 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_subtasks: Option<u32>,
    /// Type classes that the plugin takes besides the plain ones.
    pub types: Vec<TypeClass>,
    /// A keyed transform that cannot run without `key_by`.
    pub requires_key: bool,
    /// Whether timers may be set.
    pub timers: bool,
    /// A transform of which calls of `process` may end later, in a node without `key_by`.
    #[serde(rename = "async", skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<AsyncDetails>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// What a transform wishes for its calls that end later. The pipeline's `async` is stronger.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct AsyncDetails {
    /// Calls of a subtask that may be pending at the same time. None: the host's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Milliseconds after which a call that is still pending is a failure. None: the host's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// An input as `validate` and `open` tell it (`ValidationInput::details`).
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct InputDetails {
    /// The node that it comes from.
    pub name: String,
    /// Its change mode.
    pub mode: ChangeMode,
    /// The columns of `key_by` of a keyed transform, or of the key of an upsert stream.
    pub key: Vec<String>,
    /// Of a sink: the pipeline's `format`, in its long form. None: the pipeline has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<serde_json::Value>,
}

/// The JSON half of a validation's input.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct ValidationInputDetails {
    /// The node's name in the pipeline.
    pub node: String,
    /// One per input schema.
    pub inputs: Vec<InputDetails>,
    /// Whether the node has `key_by`.
    pub keyed: bool,
}

/// A kind in a manifest.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct KindDescription {
    /// `source`, `transform`, `sink`, `scalar`, `aggregate`, `deployment`.
    pub kind: String,
    /// The name in pipelines.
    pub name: String,
    /// One line.
    #[serde(default)]
    pub summary: String,
    /// The JSON Schema of the configuration.
    pub config_schema: serde_json::Value,
}

/// The manifest's JSON.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Description {
    /// What the file holds.
    pub kinds: Vec<KindDescription>,
    /// How it was built: `sdk`, `arrow`, `target`, `profile`, ...
    pub build: serde_json::Map<String, serde_json::Value>,
}

/// What a deployment mode says about a configuration.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct DeploymentDetails {
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// The configuration with the mode's defaults.
    pub effective: serde_json::Map<String, serde_json::Value>,
}

/// How a deployed job does.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct JobStatus {
    /// `INITIALIZING`, `CREATED`, `RUNNING`, `FAILING`, `FAILED`, `CANCELLING`, `CANCELED`, `FINISHED`, `RESTARTING`; a later version may have more.
    pub state: String,
    /// Why it is in that state, where that is not plain: of a failed job, its error.
    pub cause: Option<String>,
}

impl JobStatus {
    /// A job in that state.
    #[must_use]
    pub fn new(state: &str) -> Self {
        Self { state: state.to_owned(), cause: None }
    }

    /// Whether it stays in that state for ever.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        ["FINISHED", "FAILED", "CANCELED"].contains(&self.state.as_str())
    }
}

/// Where a stopped job's savepoint is.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct Savepoint {
    /// What `--restore` takes.
    pub location: String,
}

/// A part of a job's log.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct LogLines {
    /// Lines, without their ends.
    pub lines: Vec<String>,
    /// Where the next part begins.
    pub cursor: String,
}

/// What an enumerator found.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct Discovery {
    /// New splits.
    pub added: Vec<SplitDescription>,
    /// Ids of splits that are gone.
    pub removed: Vec<String>,
    /// No split will ever be added.
    pub exhausted: bool,
}

/// A split that was found.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct SplitDescription {
    /// Unique in the source, the same in every run.
    pub split: String,
    /// For the reader; empty if the id says it all.
    pub details: String,
}

/// A split that a reader gave back.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct GivenBack {
    /// The split.
    pub split: String,
    /// The position after the last row given, in base64.
    pub position: String,
}

/// How far behind a reader is in a split.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct SplitLag {
    /// The split.
    pub split: String,
    /// Records not read yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Age of the next record, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
}

/// Field metadata key: what a column is for. Its values are the `ROLE_` constants.
pub const ROLE: &str = "standpipe.role";
/// The row kind of an upsert or retract stream: `+I`, `-U`, `+U`, `-D`.
pub const ROLE_ROW_KIND: &str = "row_kind";
/// The event time.
pub const ROLE_EVENT_TIME: &str = "event_time";
/// The source position.
pub const ROLE_POSITION: &str = "position";
/// The record's key.
pub const ROLE_KEY: &str = "key";
/// The record's headers.
pub const ROLE_HEADERS: &str = "headers";
/// Why a row was refused.
pub const ROLE_REASON: &str = "reason";
/// The column of encoded records.
pub const VALUE_COLUMN: &str = "value";
