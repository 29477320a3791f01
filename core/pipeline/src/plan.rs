//! The plan: what a pipeline file (later also SQL) becomes, and all that the engine knows of it. Typed, validated, nothing left to decide at run time but where
//! to run. `explain` prints it; its [`PlanHash`] and the hashes of its plugin files are for the
//! handshake of a cluster, so that every process runs the same one.
//!
//! Nodes are in topological order and named by [`NodeId`], their index. The engine builds one timely operator per [`Chain`].

use crate::file::{Checkpoint, RestartStrategy};
pub use crate::file::{DiskState, StateBackend};
use arrow_schema::SchemaRef;
use datafusion_physical_expr::{PhysicalExpr, aggregate::AggregateFunctionExpr};
use standpipe_formats::FormatSpec;
use standpipe_isolation::Limits;
use standpipe_loader::{
    AggregateFunction, AggregateKind, NodeInput, PluginFile, ScalarKind, SinkKind, SinkValidation, SourceKind, SourceValidation,
    TransformKind, TransformValidation,
};
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

pub use crate::expression::EvaluationError;
pub use standpipe_sdk::wire::ChangeMode;

/// Index of a node in [`Plan::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A hash of everything that decides the plan's results and shape, but for what references stand for (it is shown, and must not tell of a secret) and for the
/// content of plugin files, which count by name and version. So equal hashes are equal plans only where secrets and plugin files are equal too: two builds of one
/// version of a plugin have one hash here, and another [`PluginFile::hash`](standpipe_loader::PluginFile::hash). Stable across processes of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanHash(pub u64);

/// A validated job.
#[derive(Debug)]
pub struct Plan {
    /// The pipeline's `name`, references as written.
    pub name: String,
    /// Settings of the job as a whole.
    pub settings: JobSettings,
    /// `checkpoint:`: when checkpoints are taken and where they are kept. No part of the hash: it decides no result.
    pub checkpoint: Option<Checkpoint>,
    /// `engine.state`: where keyed state of plugins is kept. No part of the hash.
    pub state: StateBackend,
    /// `engine.metrics`: where Prometheus is answered while the job runs. No part of the hash.
    pub metrics: Option<SocketAddr>,
    /// `restart:`: when the job is started again after a failure. No part of the hash either.
    pub restart: RestartStrategy,
    /// The functions of plugins that expressions call.
    pub functions: Vec<PluginFunction>,
    /// In topological order.
    pub nodes: Vec<Node>,
    /// Every connection of an output to an input.
    pub edges: Vec<Edge>,
    /// What runs as one operator, in topological order of their heads. Every node is in exactly one chain.
    pub chains: Vec<Chain>,
    /// See [`PlanHash`].
    pub hash: PlanHash,
}

/// Settings of the job as a whole, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSettings {
    /// `parallelism`: what a node runs with that does not say otherwise.
    pub parallelism: u32,
    /// `engine.max_parallelism`: key groups; fixed at the job's first start.
    pub max_parallelism: u32,
    /// `engine.batch_rows`: rows of a batch that a source aims at.
    pub batch_rows: u32,
    /// `engine.in_flight_bytes`: how much a source subtask may have on its way to the sinks before it waits.
    pub in_flight_bytes: u64,
    /// `engine.flush_interval`: how long a source holds rows back to fill a batch, and the tick of progress.
    pub flush_interval: Duration,
}

/// One step of the job.
#[derive(Debug)]
pub struct Node {
    /// Its place in [`Plan::nodes`].
    pub id: NodeId,
    /// The name in the pipeline file. An encode step has the name of its sink with `.encode` behind it.
    pub name: String,
    /// The section and name for messages: `transforms.stats`.
    pub path: String,
    /// Subtasks.
    pub parallelism: u32,
    /// What it does.
    pub operator: Operator,
    /// What it gives; output 0 is the main one. A sink has at most `errors`, at index 0.
    pub outputs: Vec<Output>,
}

/// A stream that leaves a node.
#[derive(Debug, Clone)]
pub struct Output {
    /// `main`, `late`, `errors`, or a plugin's own name.
    pub name: String,
    /// Its columns, roles in the fields' metadata.
    pub schema: SchemaRef,
    /// How its rows relate.
    pub mode: ChangeMode,
    /// The key columns of an upsert stream, and of any stream that comes from a keyed node and still has them.
    pub key: Vec<String>,
    /// The event time column, if it has one.
    pub event_time: Option<usize>,
}

/// What a node does.
#[derive(Debug)]
pub enum Operator {
    /// Reads: plugin reader, then decoding, then watermarks, fused. Outputs: `main`, and `errors` if it decodes.
    Source(SourceNode),
    /// Keeps the rows for which the predicate is true. Stateless.
    Filter(FilterNode),
    /// Computes columns. Stateless.
    Project(ProjectNode),
    /// Passes all inputs on; their schemas are equal.
    Union,
    /// A plugin's transform, keyed or not.
    Transform(TransformNode),
    /// Keyed windows on event time. Outputs: `main`, `late` (the input's columns).
    Window(WindowNode),
    /// Aggregates without a window.
    Aggregate(AggregateNode),
    /// Encodes rows into records for the sink behind it, with the parallelism of what is before it. Stateless.
    Encode(EncodeNode),
    /// Writes: a plugin's sink. Output: `errors` (what it rejects).
    Sink(SinkNode),
}

/// See [`Operator::Source`].
#[derive(Debug)]
pub struct SourceNode {
    /// The connector.
    pub kind: SourceKind,
    /// Its `with:`, references to secrets as written.
    pub config: serde_json::Value,
    /// What it said of itself.
    pub validation: SourceValidation,
    /// How its records become rows; `None` for a source of rows.
    pub decode: Option<DecodeStep>,
    /// The event time; `None`: the source has none, and its watermark is the minimum until it ends.
    pub event_time: Option<EventTime>,
    /// `isolation`: its enumerator and readers each run in a process of their own, which may use so much. No part of the hash: it decides no result.
    pub isolation: Option<Limits>,
}

/// Decoding: the column `value` of the source becomes `schema`'s columns; the source's other columns follow them as they are.
#[derive(Debug, Clone)]
pub struct DecodeStep {
    /// The format and what to do with broken records.
    pub format: FormatSpec,
    /// The decoded columns alone; the node's main output has the source's other columns behind them.
    pub schema: SchemaRef,
}

/// `event_time:` of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct EventTime {
    /// The column of the main output; a timestamp of any unit.
    pub column: usize,
    /// How far behind the highest event time seen the watermark stays.
    pub out_of_orderness: Duration,
    /// After how long without data a split is idle.
    pub idle_timeout: Duration,
    /// How far its splits may be ahead; `None`: as far as they like.
    pub alignment: Option<Alignment>,
}

/// `max_drift:` and `alignment_group:` of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// How far a split may be ahead of the group's watermark.
    pub max_drift: Duration,
    /// Sources with the same name wait for each other; `None`: the splits of the source alone do.
    pub group: Option<String>,
}

/// See [`Operator::Filter`].
pub struct FilterNode {
    /// A boolean expression over the input; null is false.
    pub predicate: Arc<dyn PhysicalExpr>,
    /// The row kind column of an upsert stream, unless key columns alone decide: a row that fails deletes its key, because an earlier row of that key may have passed, and a
    /// row that deletes passes as it is. `None`: rows that fail are dropped.
    pub row_kind: Option<usize>,
    /// As written.
    pub text: String,
}

/// See [`Operator::Project`].
#[derive(Debug)]
pub struct ProjectNode {
    /// One per output column, in order.
    pub columns: Vec<ProjectColumn>,
    /// The row kind column of an upsert stream: of a row that deletes only the key need be there, so that it keeps the columns of the input, and what would be
    /// computed is null.
    pub row_kind: Option<usize>,
}

/// A computed column.
pub struct ProjectColumn {
    /// Its name.
    pub name: String,
    /// Over the input.
    pub expression: Arc<dyn PhysicalExpr>,
    /// As written.
    pub text: String,
}

/// See [`Operator::Transform`].
#[derive(Debug)]
pub struct TransformNode {
    /// The plugin's kind.
    pub kind: TransformKind,
    /// Its `with:`.
    pub config: serde_json::Value,
    /// The inputs as the plugin was told.
    pub inputs: Vec<NodeInput>,
    /// What it said of itself.
    pub validation: TransformValidation,
    /// The columns of `key_by` in the input; empty: not keyed. A keyed transform has one input.
    pub keys: Vec<usize>,
    /// Of a transform whose calls may end later than they return; never of a keyed one.
    pub asynchronous: Option<AsyncCalls>,
    /// As that of a source; never of a keyed one. No part of the hash.
    pub isolation: Option<Limits>,
}

/// How the calls of a transform that end later are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncCalls {
    /// Calls of a subtask that may be pending, or wait for others before them, at the same time; at least 1.
    pub capacity: u32,
    /// In which order their results go on.
    pub order: ResultOrder,
    /// How long one may be pending before the job fails.
    pub timeout: Duration,
}

impl Default for AsyncCalls {
    fn default() -> Self {
        Self { capacity: 16, order: ResultOrder::Input, timeout: Duration::from_secs(60) }
    }
}

/// The order of results that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultOrder {
    /// That of the input.
    Input,
    /// That in which they come; none passes a watermark.
    Any,
}

/// See [`Operator::Window`]. Output columns: the keys, `window_start`, `window_end` (timestamps of the event time's unit), the aggregates.
#[derive(Debug)]
pub struct WindowNode {
    /// The key columns of the input.
    pub keys: Vec<usize>,
    /// The event time column of the input.
    pub time: usize,
    /// How rows fall into windows.
    pub assigner: WindowAssigner,
    /// How long after its end a window still takes rows.
    pub allowed_lateness: Duration,
    /// In output order.
    pub aggregates: Vec<WindowAggregate>,
}

/// How rows fall into windows. Windows are `[start, end)`, aligned to the epoch plus the offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowAssigner {
    /// One window per row.
    Tumbling {
        /// Length.
        size: Duration,
        /// Shift of the alignment.
        offset: Duration,
    },
}

/// An aggregate of a window: a DataFusion function, evaluated once per pane.
pub struct WindowAggregate {
    /// Output column.
    pub name: String,
    /// Function and arguments over the input.
    pub function: Arc<AggregateFunctionExpr>,
    /// Of a plugin's function: the names of its state's columns. Its accumulator's state is not consumed by looking at it.
    pub state: Option<Vec<String>>,
    /// As written.
    pub text: String,
}

/// See [`Operator::Aggregate`]. Output columns: the keys, the aggregates, and for [`Emit::Changes`] the row kind `op`.
#[derive(Debug)]
pub struct AggregateNode {
    /// The key columns of the input; empty: one group.
    pub keys: Vec<usize>,
    /// When it gives rows.
    pub emit: Emit,
    /// In output order.
    pub aggregates: Vec<RunningAggregate>,
}

/// When an aggregate without a window gives rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Each key once, when all inputs have ended.
    Final,
    /// The changed keys, coalesced per batch (upsert).
    Changes,
    /// One row per input row, in order: running totals.
    Each,
}

/// An aggregate whose accumulator is kept and read again and again.
pub struct RunningAggregate {
    /// Output column.
    pub name: String,
    /// What it computes.
    pub function: Folding,
    /// Over the input; none for `count(*)`.
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// The output column's type.
    pub data_type: arrow_schema::DataType,
    /// As written.
    pub text: String,
}

/// Who keeps the value of an aggregate without a window.
#[derive(Debug, Clone)]
pub enum Folding {
    /// The engine.
    BuiltIn(RunningFunction),
    /// A plugin.
    Plugin(AggregateFunction),
}

impl Node {
    /// The plugin whose code it runs, if it is one's.
    #[must_use]
    pub fn plugin(&self) -> Option<UsedPlugin<'_>> {
        let (kind, name, plugin) = match &self.operator {
            Operator::Source(source) => ("source", source.kind.name(), source.kind.plugin()),
            Operator::Transform(transform) => ("transform", transform.kind.name(), transform.kind.plugin()),
            Operator::Sink(sink) => ("sink", sink.kind.name(), sink.kind.plugin()),
            _ => return None,
        };
        Some(UsedPlugin { path: self.path.clone(), kind, name, plugin })
    }

    /// What each process of its plugin may use, if it is to have one; `None`: it runs in the job's.
    #[must_use]
    pub const fn isolation(&self) -> Option<&Limits> {
        match &self.operator {
            Operator::Source(source) => source.isolation.as_ref(),
            Operator::Transform(transform) => transform.isolation.as_ref(),
            Operator::Sink(sink) => sink.isolation.as_ref(),
            _ => None,
        }
    }
}

impl PluginFunction {
    /// The plugin that it is of.
    #[must_use]
    pub fn plugin(&self) -> UsedPlugin<'_> {
        let kind = match self.kind {
            FunctionKind::Scalar(_) => "scalar",
            FunctionKind::Aggregate(_) => "aggregate",
        };
        UsedPlugin { path: format!("functions.{}", self.name), kind, name: self.kind.name(), plugin: self.kind.plugin() }
    }
}

/// A plugin where it is used.
#[derive(Debug, Clone)]
pub struct UsedPlugin<'a> {
    /// What uses it: `sources.readings`, `functions.team_name`.
    pub path: String,
    /// `source`, `transform`, `sink`, `scalar`, `aggregate`.
    pub kind: &'static str,
    /// The kind's name: `kafka`.
    pub name: &'a str,
    /// The file.
    pub plugin: &'a Arc<PluginFile>,
}

/// A function of a plugin by the name that it has in the pipeline's expressions.
#[derive(Debug, Clone)]
pub struct PluginFunction {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FunctionKind,
    /// Its `with:`.
    pub config: serde_json::Value,
}

/// A kind of function.
#[derive(Debug, Clone)]
pub enum FunctionKind {
    /// A row for each row.
    Scalar(ScalarKind),
    /// A row for each group.
    Aggregate(AggregateKind),
}

impl FunctionKind {
    /// The plugin that it is of.
    #[must_use]
    pub const fn plugin(&self) -> &Arc<PluginFile> {
        match self {
            Self::Scalar(kind) => kind.plugin(),
            Self::Aggregate(kind) => kind.plugin(),
        }
    }

    /// The kind's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Scalar(kind) => kind.name(),
            Self::Aggregate(kind) => kind.name(),
        }
    }

    /// The JSON Schema of its configuration.
    #[must_use]
    pub fn config_schema(&self) -> &serde_json::Value {
        match self {
            Self::Scalar(kind) => kind.config_schema(),
            Self::Aggregate(kind) => kind.config_schema(),
        }
    }
}

/// The functions of aggregates without a window. Types follow DataFusion's: count is int64; sum of integers is int64 or uint64, of floats float64; avg is float64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningFunction {
    /// Rows, or rows where the argument is not null.
    Count,
    /// Sum.
    Sum,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Mean.
    Avg,
    /// The first in arrival order, null included.
    First,
    /// The last in arrival order, null included.
    Last,
}

/// See [`Operator::Encode`]. Output columns: `value` (binary), then the row's columns that the sink asked for.
#[derive(Debug)]
pub struct EncodeNode {
    /// The format.
    pub format: FormatSpec,
    /// The input's columns that go on beside `value`.
    pub columns: Vec<usize>,
}

/// See [`Operator::Sink`].
#[derive(Debug)]
pub struct SinkNode {
    /// The connector.
    pub kind: SinkKind,
    /// Its `with:`.
    pub config: serde_json::Value,
    /// The batches that it gets: rows, or `value` and columns.
    pub input: NodeInput,
    /// What it said of itself.
    pub validation: SinkValidation,
    /// As that of a source. No part of the hash.
    pub isolation: Option<Limits>,
}

macro_rules! debug_as_written {
    ($($Node:ident),*) => {
        $(
            /// The expression as written: compiled, it may hold what a reference stands for.
            impl fmt::Debug for $Node {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($Node)).field("text", &self.text).finish_non_exhaustive()
                }
            }
        )*
    };
}

debug_as_written!(FilterNode, ProjectColumn, WindowAggregate, RunningAggregate);

/// An output feeds an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The node that gives.
    pub from: NodeId,
    /// Which of its outputs.
    pub output: u32,
    /// The node that takes.
    pub to: NodeId,
    /// Which of its inputs.
    pub input: u32,
    /// How rows find the subtask that takes them.
    pub exchange: Exchange,
}

/// How rows find the subtask that takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// Subtask i to subtask i; equal parallelism.
    Forward,
    /// By the key group of these columns of the output.
    Hash(Vec<usize>),
    /// Whole batches in turns; to the only subtask where there is one.
    Rebalance,
}

/// Nodes that run as one operator, joined by [`Exchange::Forward`] edges of main outputs with no other reader of them: a head of any kind, then stateless steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// At least one; the head first.
    pub nodes: Vec<NodeId>,
}

impl Plan {
    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The edges into a node, by input.
    pub fn inputs(&self, id: NodeId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == id)
    }

    /// The edges out of a node.
    pub fn readers(&self, id: NodeId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.from == id)
    }

    /// The plugins that it runs with: of each node and each function that has one.
    #[must_use]
    pub fn plugins(&self) -> Vec<UsedPlugin<'_>> {
        self.nodes.iter().filter_map(Node::plugin).chain(self.functions.iter().map(PluginFunction::plugin)).collect()
    }

    /// Workers that the job needs: the highest parallelism of its nodes.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.nodes.iter().map(|node| node.parallelism).max().unwrap_or(1)
    }
}
