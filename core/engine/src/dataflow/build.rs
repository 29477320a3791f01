//! Builds the dataflow of a plan on a worker: an operator per chain, its edges, and a feedback edge from the sinks to each source. Every worker builds the same
//! operators in the same order, whether it runs a subtask of them or not.

use super::{
    alarm::Alarm,
    align::Aligner,
    aligned::Aligned,
    chunk::{Chunk, Item},
    follower::Follower,
    guard::{Guard, Logic},
    input::{Inputs, Puller},
    operator::OperatorHead,
    output::{self, Items, Rights},
    sink::SinkHead,
    source::{self, SourceHead},
    tail::{Steps, Tail},
    task::TaskHead,
    time::{CheckpointId, Time},
};
use crate::{
    operator::{Emitter, Operator as _, OperatorError, Snapshot},
    operators,
    runtime::{
        calls::CallTimer,
        checkpoints::Checkpoints,
        error::Phase,
        host::{Deliveries, InstanceHost},
        job::Job,
        reader::{self, EventSender, ReaderCommand},
        sink::{self, SinkLink},
        task,
    },
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use standpipe_pipeline::{
    placement::WorkerIndex,
    plan::{Chain, Edge, Exchange, Node, NodeId, Operator, Plan, ResultOrder},
};
use standpipe_state::{KeyGroupRange, range_of};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        Scope,
        channels::pact::{ExchangeCore, Pipeline},
        operators::{Concatenate, ConnectLoop, Feedback, generic::builder_rc::OperatorBuilder},
    },
    progress::Antichain,
    scheduling::SyncActivator,
    worker::Worker,
};

type Commands = (Sender<ReaderCommand>, Receiver<ReaderCommand>);

/// Channels that must exist before the workers: the commands of the readers, by source and subtask.
pub(crate) struct Wiring(BTreeMap<u32, Vec<Mutex<Option<Commands>>>>);

impl Wiring {
    pub(crate) fn new(job: &Job) -> Self {
        let sources = job.plan.nodes.iter().filter(|node| matches!(node.operator, Operator::Source(_)));
        Self(sources.map(|node| (node.id.0, (0..node.parallelism).map(|_| Mutex::new(Some(unbounded()))).collect())).collect())
    }

    /// How to reach the readers of each source.
    pub(crate) fn readers(&self) -> Vec<(NodeId, Vec<Sender<ReaderCommand>>)> {
        let sender = |commands: &Mutex<Option<Commands>>| commands.lock().as_ref().map(|(sender, _)| sender.clone());
        self.0.iter().map(|(node, subtasks)| (NodeId(*node), subtasks.iter().filter_map(sender).collect())).collect()
    }

    fn take(&self, node: NodeId, subtask: u32) -> Option<Commands> {
        self.0.get(&node.0)?.get(subtask as usize)?.lock().take()
    }
}

/// Builds the whole dataflow on this worker. A failure to make an operator ends the job.
pub(crate) fn dataflow(worker: &mut Worker, job: &Arc<Job>, wiring: &Wiring) {
    let me = WorkerIndex(worker.index() as u32);
    worker.dataflow_named::<Time, _, _>(&job.plan.name, |scope| {
        let mut building = Building { job, wiring, scope, me, streams: BTreeMap::new(), ends: BTreeMap::new() };
        let mut loops = Vec::new();
        for chain in &job.plan.chains {
            let Some(head) = chain.nodes.first().copied() else { continue };
            if matches!(job.node(head).operator, Operator::Source(_)) {
                // No summary: a source's output does not depend on its feedback, so this is no cycle of progress.
                let (handle, feedback) = scope.feedback::<Chunk>(0);
                loops.push((head, handle));
                building.source(chain, head, feedback);
            } else {
                building.operator(chain, head);
            }
        }
        for (source, handle) in loops {
            let reached = reachable(&job.plan, source);
            let ends: Vec<Items<'_>> =
                building.ends.iter().filter(|(head, _)| reached.contains(head)).map(|(_, stream)| stream.clone()).collect();
            scope.concatenate(ends).connect_loop(handle);
        }
    });
}

/// Every node that data of a source comes to.
fn reachable(plan: &Plan, source: NodeId) -> BTreeSet<NodeId> {
    let (mut found, mut next) = (BTreeSet::from([source]), vec![source]);
    while let Some(node) = next.pop() {
        next.extend(plan.readers(node).map(|edge| edge.to).filter(|to| found.insert(*to)));
    }
    found
}

/// A dataflow half built.
struct Building<'a, 'scope> {
    job: &'a Arc<Job>,
    wiring: &'a Wiring,
    scope: Scope<'scope, Time>,
    me: WorkerIndex,
    /// By index of the edge in the plan.
    streams: BTreeMap<usize, Items<'scope>>,
    /// Where data leaves the dataflow: a port that carries progress alone, by the chain's head.
    ends: BTreeMap<NodeId, Items<'scope>>,
}

/// The ports of an operator, and what runs on this worker behind them.
struct Ports {
    outputs: output::Outputs,
    count: usize,
}

impl<'scope> Building<'_, 'scope> {
    /// The edges that leave a chain, with their index in the plan.
    fn leaving(&self, chain: &Chain) -> Vec<(usize, Edge)> {
        let inside = |edge: &Edge| edge.output == 0 && chain.nodes.windows(2).any(|pair| pair == [edge.from, edge.to]);
        let edges = self.job.plan.edges.iter().enumerate();
        edges.filter(|(_, edge)| chain.nodes.contains(&edge.from) && !inside(edge)).map(|(i, edge)| (i, edge.clone())).collect()
    }

    /// Adds the ports of the edges that leave a chain. A chain that nothing reads, and every sink, also has one at which its data ends.
    fn ports(
        &mut self,
        builder: &mut OperatorBuilder<'scope, Time>,
        chain: &Chain,
        head: NodeId,
        subtask: Option<u32>,
    ) -> Result<Ports, OperatorError> {
        let leaving = self.leaving(chain);
        let edges: Vec<Edge> = leaving.iter().map(|(_, edge)| edge.clone()).collect();
        let (outputs, streams) = output::outputs(self.job, builder, &edges, subtask, self.me)?;
        self.streams.extend(leaving.iter().map(|(index, _)| *index).zip(streams));
        let mut count = edges.len();
        if edges.is_empty() || matches!(self.job.node(head).operator, Operator::Sink(_)) {
            let (_, end) = builder.new_output::<Chunk>();
            self.ends.insert(head, end);
            count += 1;
        }
        Ok(Ports { outputs, count })
    }

    /// The fused steps behind a head.
    fn steps(&self, chain: &Chain) -> Result<Steps, OperatorError> {
        chain.nodes.iter().skip(1).map(|id| Ok((*id, operators::stateless(self.job.node(*id))?))).collect()
    }

    /// Reports a part that could not be made; the job ends before it runs.
    fn made<T>(&self, node: NodeId, result: Result<T, OperatorError>) -> Option<T> {
        result.map_err(|error| self.job.fail_node(node, Phase::Start, error)).ok()
    }

    fn source(&mut self, chain: &Chain, head: NodeId, feedback: Items<'scope>) {
        let job = self.job;
        let subtask = job.placement.subtask(head, self.me);
        let mut builder = OperatorBuilder::new(job.node(head).path.clone(), self.scope);
        let address = builder.operator_info().address;
        let ports = self.ports(&mut builder, chain, head, subtask);
        let mut feedback = builder.new_input_connection(feedback, Pipeline, Vec::<(usize, Antichain<Time>)>::new());
        let running = Rc::new(Cell::new(head));
        let parts = self.made(head, ports.and_then(|ports| Ok((ports, self.steps(chain)?))));
        let worker = self.scope.worker();
        let alarm = Alarm::new(worker.activator_for(Rc::clone(&address)));
        let activator = worker.sync_activator_for(address.to_vec());
        let commands = subtask.and_then(|subtask| self.wiring.take(head, subtask));
        builder.build_reschedule(|rights| {
            let logic = match (parts, subtask, commands) {
                (Some((ports, steps)), Some(subtask), Some(commands)) => {
                    let tail = Tail::new(job, head, subtask, steps, ports.outputs, Rc::clone(&running));
                    let (queue, events) = bounded(reader::QUEUE);
                    let notified = Arc::new(AtomicBool::new(false));
                    let wake = activator.clone();
                    job.ticker.subscribe(Box::new(move || _ = activator.activate()));
                    let aligned = aligned(job, head, subtask, &wake, &commands.0);
                    let sender = EventSender { queue, notified: Arc::clone(&notified), wake: Box::new(move || _ = wake.activate()) };
                    let made = SourceHead::new(source::Parts { job, node: head, subtask, events, notified, tail, alarm, rights, aligned });
                    self.made(head, made).map(|logic| {
                        reader::spawn(job, head, subtask, commands, sender);
                        Box::new(logic) as Box<dyn Logic>
                    })
                }
                (Some(_), None, _) if Follower::is_due(job, head, self.me) => {
                    job.ticker.subscribe(Box::new(move || _ = activator.activate()));
                    Some(Box::new(Follower::new(job, rights)) as Box<dyn Logic>)
                }
                _ => None,
            };
            let mut guard = Guard::new(job, running, subtask, logic);
            move |frontiers| {
                feedback.for_each(|_, _| {});
                guard.run(frontiers)
            }
        });
    }

    fn operator(&mut self, chain: &Chain, head: NodeId) {
        let job = self.job;
        let node = job.node(head);
        let subtask = job.placement.subtask(head, self.me);
        let mut builder = OperatorBuilder::new(node.path.clone(), self.scope);
        let address = builder.operator_info().address;
        let (mut pullers, mut edges) = (Vec::<Puller>::new(), Vec::new());
        for (index, edge) in job.plan.edges.iter().enumerate().filter(|(_, edge)| edge.to == head) {
            if let Some(stream) = self.streams.remove(&index) {
                pullers.push(match edge.exchange {
                    Exchange::Forward => {
                        let mut input = builder.new_input(stream, Pipeline);
                        Box::new(move |take| input.for_each(|right, chunk| take(right, chunk)))
                    }
                    Exchange::Hash(_) | Exchange::Rebalance => {
                        let route = ExchangeCore::<CapacityContainerBuilder<Chunk>, _>::new(|item: &Item| u64::from(item.target));
                        let mut input = builder.new_input(stream, route);
                        Box::new(move |take| input.for_each(|right, chunk| take(right, chunk)))
                    }
                });
                let upstream = if edge.exchange == Exchange::Forward { 1 } else { job.node(edge.from).parallelism };
                edges.push((edge.input, upstream));
            }
        }
        let ports = self.ports(&mut builder, chain, head, subtask);
        let running = Rc::new(Cell::new(head));
        let parts = self.made(head, ports.and_then(|ports| Ok((ports, self.steps(chain)?))));
        let worker = self.scope.worker();
        let alarm = Alarm::new(worker.activator_for(Rc::clone(&address)));
        let activator = worker.sync_activator_for(address.to_vec());
        builder.build_reschedule(|rights| {
            let logic = match (parts, subtask) {
                (Some((ports, steps)), Some(subtask)) => {
                    let inputs = Inputs::new(&node.path, edges);
                    let place = Place { job, head, subtask, activator, alarm, pullers, inputs, running: Rc::clone(&running), rights };
                    let made = place.logic(ports, steps);
                    self.made(head, made)
                }
                _ => None,
            };
            let mut guard = Guard::new(job, running, subtask, logic);
            move |frontiers| guard.run(frontiers)
        });
    }
}

/// A source's part in its group, if it is to keep step with others. It must look when the group has come further, and when the job is to stop.
fn aligned(job: &Arc<Job>, node: NodeId, subtask: u32, activator: &SyncActivator, reader: &Sender<ReaderCommand>) -> Option<Aligned> {
    let wake = |activator: SyncActivator| move || _ = activator.activate();
    let member = job.alignments.join(job, node, subtask, wake(activator.clone()))?;
    job.on_change(wake(activator.clone()));
    Some(Aligned::new(member, reader.clone()))
}

/// The cut before the first one of this run; `None`: no checkpoints are taken.
fn before_first_cut(job: &Job) -> Option<CheckpointId> {
    job.checkpoints.as_ref().and_then(Checkpoints::before_first)
}

/// What an operator goes on from, of these key groups.
///
/// # Errors
/// When it was let go before: beginning with nothing instead would lose it.
fn restored_state(job: &Job, node: NodeId, owned: KeyGroupRange) -> Result<Option<Vec<Snapshot>>, OperatorError> {
    let Some(checkpoints) = job.checkpoints.as_ref().filter(|checkpoints| checkpoints.options.taken_over.base.is_some()) else {
        return Ok(None);
    };
    let message = "its state was let go before it was asked for".to_owned();
    let restored = checkpoints.restored().ok_or_else(|| OperatorError::Data { node: job.node(node).path.clone(), message })?;
    Ok(restored.operator(node, owned))
}

fn key_groups(job: &Job, node: &Node, subtask: u32) -> KeyGroupRange {
    range_of(subtask, node.parallelism, job.plan.settings.max_parallelism)
}

/// What every head on a worker needs.
struct Place<'a> {
    job: &'a Arc<Job>,
    head: NodeId,
    subtask: u32,
    activator: SyncActivator,
    alarm: Alarm,
    pullers: Vec<Puller>,
    inputs: Inputs,
    running: Rc<Cell<NodeId>>,
    rights: Rights,
}

impl Place<'_> {
    fn logic(self, ports: Ports, steps: Steps) -> Result<Box<dyn Logic>, OperatorError> {
        match self.job.node(self.head).operator {
            Operator::Sink(_) => Ok(Box::new(self.sink(ports))),
            Operator::Transform(_) => Ok(Box::new(self.task(ports, steps)?)),
            _ => Ok(Box::new(self.on_worker(ports, steps)?)),
        }
    }

    fn on_worker(self, ports: Ports, steps: Steps) -> Result<OperatorHead, OperatorError> {
        let (job, node) = (self.job, self.job.node(self.head));
        let mut operator = operators::operator(&job.plan, node)?;
        let owned = key_groups(job, node, self.subtask);
        if let Some(parts) = restored_state(job, self.head, owned)? {
            operator.restore(&parts, owned)?;
        }
        let is_stateful = matches!(node.operator, Operator::Window(_) | Operator::Aggregate(_));
        // What has no state has no cuts: what passes through it has. But where several are upstream, how far each is in event time is a state: a watermark that one of them has sent behind a
        // cut must not go on before it, with what another one has sent. Rows that follow that watermark wait at the next operator's cut, and would be late there.
        let cuts = if is_stateful || self.inputs.upstream() > 1 { before_first_cut(job) } else { None };
        let standing = operator.next_wakeup().is_some().then_some(self.rights);
        Ok(OperatorHead {
            job: Arc::clone(job),
            node: self.head,
            subtask: self.subtask,
            aligner: Aligner::new(cuts),
            operator,
            is_stateful,
            pullers: self.pullers,
            inputs: self.inputs,
            tail: Tail::new(job, self.head, self.subtask, steps, ports.outputs, self.running),
            timer: CallTimer::new(job, self.head, self.subtask),
            alarm: self.alarm,
            emitter: Emitter::default(),
            standing,
            ports: ports.count,
        })
    }

    fn task(self, ports: Ports, steps: Steps) -> Result<TaskHead, OperatorError> {
        let (job, head, subtask) = (self.job, self.head, self.subtask);
        let (calls, queue) = unbounded();
        let (answers, answered) = unbounded();
        let activator = self.activator;
        let plan = Arc::clone(&job.plan);
        let asynchronous = match &job.node(head).operator {
            Operator::Transform(transform) => transform.asynchronous,
            _ => None,
        };
        let (call_ended, ended) = bounded(1);
        let host = {
            let activator = activator.clone();
            InstanceHost::new(Arc::clone(job), head, subtask, move || _ = activator.activate()).for_calls(call_ended)
        };
        let context = job.context(head, subtask);
        let owned = key_groups(job, job.node(head), subtask);
        let state = restored_state(job, head, owned)?;
        let standing = state.is_some().then_some(self.rights);
        let (scratch, launcher) = (job.scratch.lock().clone(), job.options.plugin_process.clone());
        let make = move || {
            let mut operator = operators::transform(&plan, plan.node(head), &context, Arc::new(host), &launcher, scratch)?;
            state.map_or(Ok(()), |parts| operator.restore(&parts, owned))?;
            Ok(operator)
        };
        let channels = task::Channels { inputs: queue, outputs: answers, ended };
        task::spawn(job, head, subtask, make, asynchronous, channels, move || _ = activator.activate());
        Ok(TaskHead {
            job: Arc::clone(job),
            node: head,
            subtask,
            aligner: Aligner::new(before_first_cut(job)),
            calls: Some(calls),
            answers: answered,
            pending: Default::default(),
            pullers: self.pullers,
            inputs: self.inputs,
            tail: Tail::new(job, head, subtask, steps, ports.outputs, self.running),
            standing,
            overtaking: asynchronous.is_some_and(|calls| calls.order == ResultOrder::Any),
            ports: ports.count,
        })
    }

    fn sink(self, ports: Ports) -> SinkHead {
        let (job, head, subtask) = (self.job, self.head, self.subtask);
        let (queue, commands) = unbounded();
        let (deliveries, finished, notified) =
            (Arc::new(Deliveries::default()), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let wake_operator = {
            let (notified, activator) = (Arc::clone(&notified), self.activator);
            move || {
                if !notified.swap(true, SeqCst) {
                    _ = activator.activate();
                }
            }
        };
        let link =
            SinkLink { deliveries: Arc::clone(&deliveries), finished: Arc::clone(&finished), wake_operator: Arc::new(wake_operator) };
        sink::spawn(job, head, subtask, commands, link);
        let reads_errors = job.plan.readers(head).next().is_some();
        let errors_schema = job.node(head).outputs.first().filter(|_| reads_errors).map(|output| Arc::clone(&output.schema));
        SinkHead {
            job: Arc::clone(job),
            node: head,
            subtask,
            aligner: Aligner::new(before_first_cut(job)),
            queue: Some(queue),
            deliveries,
            finished,
            notified,
            pullers: self.pullers,
            inputs: self.inputs,
            unacknowledged: Default::default(),
            errors: ports.outputs,
            errors_schema,
            ports: ports.count,
        }
    }
}
