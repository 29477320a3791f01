//! The sending half of the edges of one operator on one worker: which subtask a batch is for, on which worker that runs, and the items that timely then ships.
//! Routing happens here, on whole batches; the exchange behind it reads one field of an item.

use super::{
    chunk::{Chunk, Item, Mark, Payload, Rows},
    time::Time,
    wire::BatchEncoder,
};
use crate::{
    exchange::Splitter,
    operator::OperatorError,
    runtime::{job::Job, metrics::NodeMetrics},
};
use standpipe_pipeline::{
    placement::WorkerIndex,
    plan::{Edge, Exchange, NodeId},
};
use std::sync::Arc;
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        Stream,
        operators::{Capability, InputCapability, generic::OutputBuilder, generic::builder_rc::OperatorBuilder},
    },
};

/// A stream of items.
pub(crate) type Items<'scope> = Stream<'scope, Time, Chunk>;

enum Route {
    /// To the only subtask that this one feeds.
    One(u32),
    /// Whole batches in turns.
    Turns { next: usize },
    /// By key.
    Key(Box<Splitter>),
}

/// One edge, seen from one upstream subtask.
struct OutEdge {
    route: Route,
    /// The workers of the subtasks that it reaches.
    targets: Vec<WorkerIndex>,
    /// For the targets in other processes.
    encoders: Vec<Option<BatchEncoder>>,
    from: u32,
    to: String,
    waiting: Chunk,
    port: OutputBuilder<Time, CapacityContainerBuilder<Chunk>>,
}

impl OutEdge {
    fn rows(&mut self, rows: Rows) -> Result<(), OperatorError> {
        match &mut self.route {
            Route::One(subtask) => {
                let subtask = *subtask as usize;
                self.push(subtask, rows)
            }
            Route::Turns { next } => {
                let subtask = *next;
                *next = (subtask + 1) % self.targets.len();
                self.push(subtask, rows)
            }
            Route::Key(splitter) => {
                let origin = rows.origin;
                let mut parts = Vec::with_capacity(self.targets.len());
                splitter.split(rows.batch, |subtask, batch| parts.push((subtask as usize, batch)))?;
                parts.into_iter().try_for_each(|(subtask, batch)| self.push(subtask, Rows { batch, origin: origin.clone() }))
            }
        }
    }

    fn push(&mut self, subtask: usize, rows: Rows) -> Result<(), OperatorError> {
        let payload = match &mut self.encoders[subtask] {
            None => Payload::Rows(rows),
            Some(encoder) => {
                let buffers = encoder.encode(&rows.batch).map_err(|source| OperatorError::Arrow { node: self.to.clone(), source })?;
                Payload::Encoded { buffers, origin: rows.origin }
            }
        };
        self.waiting.0.push(Item { target: self.targets[subtask].0, from: self.from, payload });
        Ok(())
    }

    fn mark(&mut self, mark: &Mark) {
        let mut push =
            |worker: WorkerIndex| self.waiting.0.push(Item { target: worker.0, from: self.from, payload: Payload::Mark(mark.clone()) });
        match self.route {
            Route::One(subtask) => push(self.targets[subtask as usize]),
            Route::Turns { .. } | Route::Key(_) => self.targets.iter().copied().for_each(push),
        }
    }
}

/// The rights to send on the ports of an operator, for one timestamp.
pub(crate) type Rights = Vec<Capability<Time>>;

/// All outgoing edges of an operator on a worker. Without edges it has one port that only carries progress.
pub(crate) struct Outputs {
    edges: Vec<OutEdge>,
    /// Edges by node of the chain and output.
    by_output: Vec<((NodeId, u32), Vec<usize>)>,
    /// Whose they are.
    subtask: u32,
}

/// Adds a port per edge to an operator and returns its sending half, with the streams in the order of `edges`.
///
/// `subtask` is the one that runs on this worker; without one the ports exist but nothing is sent.
pub(crate) fn outputs<'scope>(
    job: &Arc<Job>,
    builder: &mut OperatorBuilder<'scope, Time>,
    edges: &[Edge],
    subtask: Option<u32>,
    me: WorkerIndex,
) -> Result<(Outputs, Vec<Items<'scope>>), OperatorError> {
    let (mut sending, mut streams) = (Vec::new(), Vec::new());
    let mut by_output: Vec<((NodeId, u32), Vec<usize>)> = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        let (port, stream) = builder.new_output::<Chunk>();
        streams.push(stream);
        let target = job.node(edge.to);
        let targets = job.placement.workers(edge.to).to_vec();
        let own = subtask.unwrap_or(0);
        // A subtask has one upstream subtask on a forward edge, all of them on any other.
        let from = if edge.exchange == Exchange::Forward { 0 } else { own };
        let route = match &edge.exchange {
            Exchange::Forward => Route::One(own),
            _ if targets.len() == 1 => Route::One(0),
            Exchange::Rebalance => Route::Turns { next: own as usize % targets.len() },
            Exchange::Hash(columns) => {
                let schema = &job.node(edge.from).outputs[edge.output as usize].schema;
                Route::Key(Box::new(Splitter::new(&target.path, schema, columns, job.plan.settings.max_parallelism, target.parallelism)?))
            }
        };
        let process = |worker: WorkerIndex| job.placement.process(worker);
        let encoders = targets.iter().map(|worker| (process(*worker) != process(me)).then(BatchEncoder::default)).collect();
        let port = OutputBuilder::from(port);
        sending.push(OutEdge { route, targets, encoders, from, to: target.path.clone(), waiting: Chunk::default(), port });
        match by_output.iter_mut().find(|(output, _)| *output == (edge.from, edge.output)) {
            Some((_, edges)) => edges.push(index),
            None => by_output.push(((edge.from, edge.output), vec![index])),
        }
    }
    Ok((Outputs { edges: sending, by_output, subtask: subtask.unwrap_or(0) }, streams))
}

impl Outputs {
    /// Sends rows that an output of a node of the chain gave. Rows that nothing reads are dropped and counted.
    pub(crate) fn rows(&mut self, node: NodeId, output: u32, rows: Rows, metrics: &NodeMetrics) -> Result<(), OperatorError> {
        let Some((_, edges)) = self.by_output.iter().find(|(key, _)| *key == (node, output)) else {
            metrics.unread_rows.add(self.subtask, rows.batch.num_rows() as u64);
            return Ok(());
        };
        let Some((last, others)) = edges.split_last() else { return Ok(()) };
        for edge in others {
            self.edges[*edge].rows(rows.clone())?;
        }
        self.edges[*last].rows(rows)
    }

    /// Sends a watermark to every subtask of every edge.
    pub(crate) fn mark(&mut self, mark: &Mark) {
        self.edges.iter_mut().for_each(|edge| edge.mark(mark));
    }

    /// Ships what waits, by the right of the message that is being handled.
    pub(crate) fn flush_for(&mut self, right: &InputCapability<Time>) {
        for edge in self.edges.iter_mut().filter(|edge| !edge.waiting.0.is_empty()) {
            edge.port.activate().session(right).give_container(&mut edge.waiting);
            edge.waiting.0.clear();
        }
    }

    /// Ships what waits, by rights that were kept.
    pub(crate) fn flush(&mut self, rights: &Rights) {
        for (edge, right) in self.edges.iter_mut().zip(rights).filter(|(edge, _)| !edge.waiting.0.is_empty()) {
            edge.port.activate().session(right).give_container(&mut edge.waiting);
            edge.waiting.0.clear();
        }
    }

    /// Keeps the rights of a message beyond its handling. One per edge, and one for the port that carries progress alone where there is one.
    pub(crate) fn retain(right: &InputCapability<Time>, ports: usize) -> Rights {
        (0..ports).map(|port| right.retain(port)).collect()
    }
}
