//! The aligned sources of a job in this process: their subtasks say how far they have come, and hear how far all have. What a group has reached is decided by
//! [`crate::alignment`], at once where it runs in one process; over several the first one decides. Each of the others tells it the least of its subtasks, and it tells all
//! what is reached: when it changes, and at most every [`PACE`]. `dataflow::aligned` calls it, once per turn of a source and never per row.

use super::{job::Job, peers::Peers};
use crate::{
    alignment::{Group, NOT_WAITED_FOR},
    cluster::frame::Frame,
    operator::{Micros, NO_WATERMARK},
};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::Mutex;
use standpipe_pipeline::{
    placement::Placement,
    plan::{Alignment, Node, NodeId, Operator, Plan},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

/// How often a process tells what has changed at most. Sources that are held back go on by `max_drift` of event time in two of these at the most.
const PACE: Duration = Duration::from_millis(10);

/// The groups of a job.
pub(crate) struct Alignments {
    /// In the order of the plan, the same in all processes.
    groups: Vec<Arc<Shared>>,
    of_source: BTreeMap<NodeId, usize>,
    /// Something may have to be told.
    news: Receiver<()>,
}

/// A group, as this process knows it.
struct Shared {
    decision: Mutex<Group>,
    /// Whether what is reached is decided here.
    decides: bool,
    /// Members of `decision`, by source and subtask.
    subtasks: BTreeMap<(NodeId, u32), usize>,
    /// In the first process: those of other processes.
    processes: BTreeMap<u32, usize>,
    reached: AtomicI64,
    waiting: Mutex<Vec<Arc<Waiting>>>,
    /// Where there are other processes.
    news: Option<Sender<()>>,
}

/// A subtask that may wait until something is reached.
struct Waiting {
    /// [`NOT_WAITED_FOR`]: it does not wait.
    until: AtomicI64,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A source's subtask as a member of its group.
pub(crate) struct Member {
    group: Arc<Shared>,
    index: usize,
    max_drift: Micros,
    waiting: Arc<Waiting>,
}

fn alignment(node: &Node) -> Option<&Alignment> {
    match &node.operator {
        Operator::Source(source) => source.event_time.as_ref()?.alignment.as_ref(),
        _ => None,
    }
}

impl Alignments {
    /// Of a plan's sources, in a process.
    pub(crate) fn new(plan: &Plan, placement: &Placement, process: u32, is_alone: bool) -> Self {
        // A source that names no group has one of its own.
        let mut groups: Vec<(Option<&str>, Vec<&Node>)> = Vec::new();
        let mut of_source = BTreeMap::new();
        for (node, alignment) in plan.nodes.iter().filter_map(|node| Some((node, alignment(node)?))) {
            let name = alignment.group.as_deref();
            let known = groups.iter().position(|(known, _)| name.is_some() && *known == name);
            of_source.insert(node.id, known.unwrap_or(groups.len()));
            match known.and_then(|known| groups.get_mut(known)) {
                Some((_, sources)) => sources.push(node),
                None => groups.push((name, vec![node])),
            }
        }
        let (tell, news) = bounded(1);
        let group = |(_, sources): &(_, Vec<&Node>)| Arc::new(Shared::new(sources, placement, process, Some(&tell).filter(|_| !is_alone)));
        Self { groups: groups.iter().map(group).collect(), of_source, news }
    }

    /// Makes a subtask of this process a member of its group; `None`: its source is not aligned. `wake` is called when what it waits for is reached.
    pub(crate) fn join(&self, job: &Job, node: NodeId, subtask: u32, wake: impl Fn() + Send + Sync + 'static) -> Option<Member> {
        let group = Arc::clone(self.groups.get(*self.of_source.get(&node)?)?);
        let max_drift = alignment(job.node(node))?.max_drift;
        let index = *group.subtasks.get(&(node, subtask))?;
        let waiting = Arc::new(Waiting { until: AtomicI64::new(NOT_WAITED_FOR), wake: Box::new(wake) });
        group.waiting.lock().push(Arc::clone(&waiting));
        Some(Member { group, index, max_drift: Micros::try_from(max_drift.as_micros()).unwrap_or(Micros::MAX), waiting })
    }

    /// In the first process: another one has come that far.
    pub(crate) fn hear(&self, process: u32, group: u32, time: Micros) {
        if let Some(group) = self.groups.get(group as usize)
            && let Some(member) = group.processes.get(&process)
        {
            group.says(*member, time);
        }
    }

    /// In another process: all have come that far.
    pub(crate) fn reached(&self, group: u32, time: Micros) {
        if let Some(group) = self.groups.get(group as usize) {
            group.reach(time);
        }
    }

    /// Starts to tell the other processes what changes, if there are some and something is aligned.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn spawn(job: &Arc<Job>) -> std::io::Result<()> {
        if job.peers.is_none() || job.alignments.groups.is_empty() {
            return Ok(());
        }
        super::peers::spawn(job, "alignment", |job, peers| job.alignments.tell(peers))
    }

    fn tell(&self, peers: &Peers) {
        let mut told = vec![NO_WATERMARK; self.groups.len()];
        loop {
            select! {
                recv(self.news) -> _ => {}
                recv(peers.closed()) -> _ => return,
            }
            for ((number, group), told) in (0..).zip(&self.groups).zip(&mut told) {
                let time = group.to_tell();
                if std::mem::replace(told, time) != time {
                    let frame = Frame::Aligned { group: number, time };
                    if group.decides { peers.tell_all(&frame) } else { peers.tell_first(frame) }
                }
            }
            if peers.closed().recv_timeout(PACE) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

impl Shared {
    fn new(sources: &[&Node], placement: &Placement, process: u32, news: Option<&Sender<()>>) -> Self {
        let place = |node: &Node, subtask: u32| placement.workers(node.id).get(subtask as usize).map(|worker| placement.process(*worker));
        let all = sources.iter().flat_map(|node| (0..node.parallelism).map(|subtask| (node.id, subtask, place(node, subtask))));
        let (here, there): (Vec<_>, Vec<_>) = all.partition(|(_, _, place)| *place == Some(process));
        let subtasks: BTreeMap<_, _> = here.iter().enumerate().map(|(index, (node, subtask, _))| ((*node, *subtask), index)).collect();
        let decides = process == 0;
        let others: BTreeSet<u32> = there.iter().filter_map(|(_, _, place)| place.filter(|_| decides)).collect();
        let processes: BTreeMap<u32, usize> = others.into_iter().zip(subtasks.len()..).collect();
        Self {
            decision: Mutex::new(Group::new(subtasks.len() + processes.len())),
            decides,
            subtasks,
            processes,
            reached: AtomicI64::new(NO_WATERMARK),
            waiting: Mutex::default(),
            news: news.cloned(),
        }
    }

    fn says(&self, member: usize, time: Micros) {
        let reached = {
            let mut decision = self.decision.lock();
            if !decision.says(member, time) {
                return;
            }
            decision.reached()
        };
        if self.decides {
            self.reach(reached);
        }
        if let Some(news) = &self.news {
            // One that waits there already is enough.
            _ = news.try_send(());
        }
    }

    /// All have come that far.
    fn reach(&self, time: Micros) {
        if self.reached.fetch_max(time, SeqCst) < time {
            let waiting = self.waiting.lock();
            waiting.iter().filter(|waiting| waiting.until.load(SeqCst) <= time).for_each(|waiting| (waiting.wake)());
        }
    }

    /// What the other processes are to hear.
    fn to_tell(&self) -> Micros {
        let decision = self.decision.lock();
        if self.decides { decision.reached() } else { decision.minimum() }
    }
}

impl Member {
    /// How far event time may come in a split of this subtask for now.
    pub(crate) fn limit(&self) -> Micros {
        self.group.reached.load(SeqCst).saturating_add(self.max_drift)
    }

    /// What the group has reached.
    pub(crate) fn reached(&self) -> Micros {
        self.group.reached.load(SeqCst)
    }

    /// This subtask has come that far; `None`: it is not to be waited for.
    pub(crate) fn says(&self, time: Option<Micros>) {
        self.group.says(self.index, time.unwrap_or(NOT_WAITED_FOR));
    }

    /// Asks to be woken when the limit is at least `time`; `None`: for nothing. True: it is so already.
    pub(crate) fn wait_for(&self, time: Option<Micros>) -> bool {
        self.waiting.until.store(time.map_or(NOT_WAITED_FOR, |time| time.saturating_sub(self.max_drift)), SeqCst);
        // Looked at behind the store, so that either this sees what is reached, or whoever reaches it sees who waits.
        time.is_some_and(|time| time <= self.limit())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.waiting.until.store(NOT_WAITED_FOR, SeqCst);
    }
}
