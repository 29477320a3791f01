//! Checkpoints of a running job. `coordinate` has a thread that asks, collects and commits, by the decisions of [`standpipe_checkpoint::coordinator`]; `write` one that
//! encodes tables and waits for the store; `relay` stands for the coordinator where it is in another process; `splits` says what sources remember; `restore` reads a checkpoint back. Operators and the threads of plugins report to
//! [`Checkpoints`], which the job has when checkpoints are on.
//!
//! A cut is a timestamp (`dataflow::time`): the coordinator lets the ticker enter checkpoint n, sources report where they stand as they take up its timestamps, and
//! whoever has state reports it when its input frontier has passed what is before n (`dataflow::align`).

mod coordinate;
mod plugins;
pub(crate) mod relay;
mod restore;
pub(crate) mod savepoint;
mod spans;
pub(crate) mod splits;
mod write;

pub(crate) use coordinate::{Readers, commits, spawn};
pub use plugins::other_plugins;
pub(crate) use restore::Restored;
pub use restore::check_restore;

use crate::{
    dataflow::time::CheckpointId,
    operator::{OperatorError, Snapshot},
    runtime::job::Job,
};
use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use savepoint::When;
use splits::{EnumeratorState, Positions};
use standpipe_checkpoint::{CheckpointError, FileRef, Manifest, Store, TakenOver, coordinator::Part, store::NewTable};
use standpipe_loader::Committable;
use standpipe_pipeline::plan::NodeId;
use standpipe_state::{Base, Cut, LazyTables};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use write::Rest;

/// The table of what a sink has prepared and not committed.
pub(crate) const COMMITTABLES: &str = "committables";

/// That a job takes checkpoints, how and where.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// Where they are.
    pub store: Arc<Store>,
    /// What this process has taken over there.
    pub taken_over: TakenOver,
    /// From one trigger to the next.
    pub interval: Duration,
    /// From the end of one to the next trigger at least.
    pub min_pause: Duration,
    /// When one is given up.
    pub timeout: Duration,
    /// How many in a row may fail before the job does; `None`: any number.
    pub tolerated_failures: Option<u32>,
    /// How many are kept.
    pub keep: usize,
    /// Whether state of nodes that are no more is left behind.
    pub allow_non_restored_state: bool,
}

impl std::fmt::Debug for CheckpointOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointOptions").field("place", &self.store.place()).finish_non_exhaustive()
    }
}

/// The state of a part at a cut.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tables: Vec<(String, arrow::array::RecordBatch)>,
    /// Tables that the writer is to read first.
    pub(crate) rest: Option<LazyTables>,
    /// Of a source: the positions in `tables`, to be committed upstream.
    pub(crate) positions: Positions,
    /// Of a source: its windows have fired before their time, since the job is drained.
    pub(crate) drained: bool,
}

impl From<Snapshot> for Report {
    fn from(snapshot: Snapshot) -> Self {
        Self { tables: snapshot.tables, rest: snapshot.rest, ..Self::default() }
    }
}

/// What the coordinator's thread is told.
pub(crate) enum Message {
    /// All plugins are open.
    Opened,
    /// A source's enumerator has looked for the first time: what it remembers is known from now on.
    Found,
    /// A subtask's state.
    Reported(u64, NodeId, u32, Report),
    /// The positions of a source's subtask in another process.
    Positions(u64, NodeId, u32, Positions),
    /// A source in another process had been drained at the cut.
    Drained(u64),
    /// The job is to stop.
    Changed,
    /// A subtask's state cannot be had.
    Failed(u64, String),
    /// Its tables are written.
    Written(u64, Part, Result<Vec<(String, FileRef)>, CheckpointError>),
    /// The manifest is.
    Manifest(u64, Result<(), CheckpointError>),
    /// A sink's subtask has committed.
    Committed(u64, NodeId, u32),
    /// A source's subtask gives nothing any more.
    Ended(NodeId, u32),
    /// Somebody wants a savepoint: now, or of the job as it stops.
    Wanted(savepoint::Reply, When),
    /// From the coordinator, where it is in another process: the newest durable checkpoint, on which the next one may build.
    Newest(Box<Manifest>),
    /// From there, too: the last one is committed.
    Over,
}

/// What the threads and operators of a job share with its coordinator.
pub(crate) struct Checkpoints {
    pub(crate) options: CheckpointOptions,
    /// The number of the checkpoint that is collected; 0: none.
    wanted: AtomicU64,
    /// On which checkpoint that one may build.
    base: Mutex<Base>,
    messages: Sender<Message>,
    /// Until the coordinator's thread takes it.
    inbox: Mutex<Option<Receiver<Message>>>,
    /// Sinks that commit.
    committers: Mutex<BTreeMap<(NodeId, u32), Sender<u64>>>,
    /// By source: what its enumerator has found, as it was before the readers were told.
    enumerators: Mutex<BTreeMap<NodeId, EnumeratorState>>,
    restored: Mutex<Option<Arc<Restored>>>,
    over: AtomicBool,
}

impl Checkpoints {
    pub(crate) fn new(options: CheckpointOptions) -> Self {
        let (messages, inbox) = unbounded();
        Self {
            options,
            wanted: AtomicU64::new(0),
            base: Mutex::new(Base::Nothing),
            messages,
            inbox: Mutex::new(Some(inbox)),
            committers: Mutex::default(),
            enumerators: Mutex::default(),
            restored: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// The cut before the first one that will be asked for.
    pub(crate) fn before_first(&self) -> Option<CheckpointId> {
        CheckpointId::new(self.options.taken_over.first_id.checked_sub(1)?)
    }

    pub(crate) fn tell(&self, message: Message) {
        // The coordinator's thread is gone only when the job is.
        drop(self.messages.send(message));
    }

    /// Whether that checkpoint is being collected: else a report of it would be for nothing.
    pub(crate) fn wants(&self, checkpoint: CheckpointId) -> bool {
        self.wanted.load(SeqCst) == checkpoint.number()
    }

    /// That checkpoint is being collected; 0: none. Until [`Self::build_on`] nothing refers to another one.
    pub(crate) fn collecting(&self, checkpoint: u64) {
        self.build_on(Base::Nothing);
        self.wanted.store(checkpoint, SeqCst);
    }

    /// It may refer to that one.
    pub(crate) fn build_on(&self, base: Base) {
        *self.base.lock() = base;
    }

    /// That checkpoint is durable: the sinks of this process commit it.
    pub(crate) fn commit_sinks(&self, checkpoint: u64) {
        self.committers.lock().values().for_each(|sink| _ = sink.send(checkpoint));
    }

    /// The last one is committed.
    pub(crate) fn set_over(&self) {
        self.over.store(true, SeqCst);
    }

    /// How the state is to be taken for the checkpoint that is being collected.
    pub(crate) fn cut(&self, checkpoint: CheckpointId) -> Cut {
        Cut { id: checkpoint.number(), base: *self.base.lock() }
    }

    /// All plugins are open and all operators are made: checkpoints may begin.
    pub(crate) fn opened(&self) {
        // What was restored has been handed out.
        *self.restored.lock() = None;
        self.tell(Message::Opened);
    }

    /// The state of a subtask at a cut.
    pub(crate) fn report(&self, checkpoint: CheckpointId, node: NodeId, subtask: u32, state: Result<Report, OperatorError>) {
        self.tell(match state {
            Ok(report) => Message::Reported(checkpoint.number(), node, subtask, report),
            Err(error) => Message::Failed(checkpoint.number(), error.to_string()),
        });
    }

    /// A source's subtask gives nothing any more.
    pub(crate) fn ended(&self, node: NodeId, subtask: u32) {
        self.tell(Message::Ended(node, subtask));
    }

    /// The last checkpoint is committed: sources let go.
    pub(crate) fn over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// A sink's subtask that is to commit: numbers of checkpoints come here.
    pub(crate) fn committer(&self, node: NodeId, subtask: u32) -> Receiver<u64> {
        let (sender, receiver) = unbounded();
        self.committers.lock().insert((node, subtask), sender);
        receiver
    }

    /// A sink's subtask has committed all up to that checkpoint.
    pub(crate) fn committed(&self, checkpoint: u64, node: NodeId, subtask: u32) {
        self.tell(Message::Committed(checkpoint, node, subtask));
    }

    /// What a source's enumerator has found; to be called before readers are told of it.
    pub(crate) fn found(&self, node: NodeId, state: EnumeratorState) {
        if self.enumerators.lock().insert(node, state).is_none() {
            self.tell(Message::Found);
        }
    }

    /// What the job goes on from; to be asked until all plugins are open and all workers have built their dataflow.
    pub(crate) fn restored(&self) -> Option<Arc<Restored>> {
        self.restored.lock().clone()
    }

    pub(crate) fn set_restored(&self, restored: Restored) {
        *self.restored.lock() = Some(Arc::new(restored));
    }
}

/// The tables of a subtask that are to be written, and those that are to be read first.
fn tables_of(job: &Job, node: NodeId, subtask: u32, state: Snapshot) -> (Vec<NewTable>, Option<Rest>) {
    let path = &job.node(node).path;
    let table = |(name, batch)| NewTable { node: path.clone(), subtask, name, piece: 0, batch, same: None };
    let rest = state.rest.map(|tables| Rest { node: path.clone(), subtask, tables });
    (state.tables.into_iter().map(table).collect(), rest)
}

/// What a sink has prepared and not committed, as a table.
pub(crate) fn committables_table(committables: &[Committable]) -> Result<arrow::array::RecordBatch, arrow::error::ArrowError> {
    use arrow::array::{ArrayRef, BinaryBuilder, UInt32Array, UInt64Array};
    // They may be large: no room beyond what is needed.
    let mut bytes = BinaryBuilder::with_capacity(committables.len(), committables.iter().map(|c| c.bytes.len()).sum());
    committables.iter().for_each(|committable| bytes.append_value(&committable.bytes));
    let columns: [(&str, ArrayRef); 3] = [
        ("checkpoint", Arc::new(UInt64Array::from_iter_values(committables.iter().map(|c| c.checkpoint)))),
        ("subtask", Arc::new(UInt32Array::from_iter_values(committables.iter().map(|c| c.subtask)))),
        ("bytes", Arc::new(bytes.finish())),
    ];
    arrow::array::RecordBatch::try_from_iter(columns)
}
