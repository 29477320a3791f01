//! A tap: a look at the rows that an output of a node gives, while the job runs. It is a look and no delivery: rows are given as they pass, from the moment it is opened, and
//! where whoever looks is too slow, rows are passed over and counted. The job never waits for it, and a node that nobody looks at pays one load of an atomic per batch.
//!
//! What is kept for whoever looks are the very batches that pass: no data is copied. It is bounded in rows and bytes. A tap that nobody asks any more closes itself.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parking_lot::{Condvar, Mutex};
use standpipe_pipeline::plan::{Node, NodeId, Operator, Plan};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Bytes that a tap keeps, of the buffers that its batches hold; one batch is kept however large it is.
const MOST_BYTES: usize = 8 << 20;
/// Taps of a job in this process.
const MOST_TAPS: usize = 32;
/// A tap that was not asked for so long is of somebody who has gone.
const ABANDONED: Duration = Duration::from_secs(10);
/// Whoever has asked so lately looks at the end of the job, too.
const LOOKING: Duration = Duration::from_secs(3);
/// How long a job that has ended waits for those who look to have seen its last rows.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Why there is no tap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// There is no such node.
    #[error("the job has no node {name:?}: it has {known}")]
    Unknown {
        /// As it was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Several have that name.
    #[error("{name:?} may be {known}: say which")]
    Ambiguous {
        /// As it was asked for.
        name: String,
        /// Those that are meant, perhaps.
        known: String,
    },
    /// Too many look at this job.
    #[error("{MOST_TAPS} others look at rows of this job already")]
    Many,
}

/// Which rows are kept when more pass than are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Rows at most between two looks; as many as one looks for, or more.
    pub rows: usize,
    /// Those that passed last, also where fewer are taken than are kept; else those that passed first since it was asked.
    pub newest: bool,
}

/// Some rows that have passed.
#[derive(Debug, Default)]
pub struct Tapped {
    /// In the order in which they have passed, of all subtasks in this process.
    pub batches: Vec<RecordBatch>,
    /// Rows that were passed over before these; at the end also those behind the last one.
    pub dropped: u64,
    /// Nothing follows.
    pub ended: bool,
}

/// All taps of a job in this process.
#[derive(Debug)]
pub(crate) struct Taps {
    /// By node: how many look at it.
    open: Box<[AtomicU32]>,
    taps: Mutex<Vec<Arc<Shared>>>,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    node: NodeId,
    output: u32,
    keep: Keep,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    batches: VecDeque<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// Rows that were passed over, before one that was not.
    dropped: u64,
    /// Those behind the last one that is kept: whoever wants no more rows does not miss them.
    behind: u64,
    asked: Instant,
    ended: bool,
    /// Whoever looks knows that nothing follows, or has gone.
    seen_end: bool,
}

/// One tap; dropped, it is closed.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    taps: Arc<Taps>,
    schema: SchemaRef,
}

impl Taps {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { open: plan.nodes.iter().map(|_| AtomicU32::new(0)).collect(), taps: Mutex::default(), ended: AtomicBool::new(false) }
    }

    /// Rows pass an output of a node.
    pub(crate) fn pass(&self, node: NodeId, output: u32, batch: &RecordBatch) {
        if self.open.get(node.0 as usize).is_some_and(|open| open.load(Relaxed) > 0) {
            self.show(node, output, batch);
        }
    }

    #[cold]
    fn show(&self, node: NodeId, output: u32, batch: &RecordBatch) {
        let mut taps = self.taps.lock();
        self.retain(&mut taps, |tap| !tap.is_abandoned());
        taps.iter().filter(|tap| (tap.node, tap.output) == (node, output)).for_each(|tap| tap.push(batch));
    }

    fn retain(&self, taps: &mut Vec<Arc<Shared>>, keep: impl Fn(&Arc<Shared>) -> bool) {
        taps.retain(|tap| {
            let is_kept = keep(tap);
            if !is_kept {
                self.open.get(tap.node.0 as usize).into_iter().for_each(|open| _ = open.fetch_sub(1, Relaxed));
                // Whoever has gone may hold it for long.
                let mut state = tap.state.lock();
                state.batches.clear();
                (state.rows, state.bytes) = (0, 0);
            }
            is_kept
        });
    }

    /// Opens one for a node by its name or path, `stats` or `transforms.stats`, with that of an output behind it where it is not the main one, `stats.late`. Of a sink it
    /// gives the rows that go into it.
    ///
    /// # Errors
    /// When there is no such node or output, or too many look.
    pub(crate) fn open(self: &Arc<Self>, plan: &Plan, name: &str, keep: Keep) -> Result<Tap, TapError> {
        let (node, output) = find(plan, name)?;
        let schema = plan.node(node).outputs.get(output as usize).map(|output| Arc::clone(&output.schema));
        let schema = schema.ok_or_else(|| unknown(plan, name))?;
        let mut taps = self.taps.lock();
        self.retain(&mut taps, |tap| !tap.is_abandoned());
        if taps.len() >= MOST_TAPS {
            return Err(TapError::Many);
        }
        let ended = self.ended.load(Relaxed);
        let state = State::new(ended);
        let shared = Arc::new(Shared { node, output, keep, state: Mutex::new(state), changed: Condvar::new() });
        taps.push(Arc::clone(&shared));
        if let Some(open) = self.open.get(node.0 as usize) {
            open.fetch_add(1, Relaxed);
        }
        Ok(Tap { shared, taps: Arc::clone(self), schema })
    }

    /// No rows pass any more. Waits a moment for those who look to have seen the last ones.
    pub(crate) fn end(&self, wait: bool) {
        let taps = {
            let taps = self.taps.lock();
            self.ended.store(true, Relaxed);
            taps.clone()
        };
        let deadline = Instant::now() + LAST_LOOK;
        for tap in &taps {
            let mut state = tap.state.lock();
            state.ended = true;
            tap.changed.notify_all();
        }
        for tap in taps.iter().filter(|_| wait) {
            let mut state = tap.state.lock();
            let is_looking = state.asked.elapsed() < LOOKING;
            while is_looking && !state.seen_end && !tap.changed.wait_until(&mut state, deadline).timed_out() {}
        }
    }
}

impl Shared {
    fn is_abandoned(&self) -> bool {
        self.state.lock().asked.elapsed() > ABANDONED
    }

    fn push(&self, batch: &RecordBatch) {
        let mut state = self.state.lock();
        if self.keep.newest {
            state.push_newest(batch, self.keep.rows)
        } else {
            state.push_oldest(batch, self.keep.rows)
        }
        self.changed.notify_all();
    }
}

impl State {
    fn new(ended: bool) -> Self {
        let batches = VecDeque::new();
        Self { batches, rows: 0, bytes: 0, dropped: 0, behind: 0, asked: Instant::now(), ended, seen_end: false }
    }

    fn push_oldest(&mut self, batch: &RecordBatch, most: usize) {
        let bytes = batch.get_array_memory_size();
        let is_full = !self.batches.is_empty() && self.bytes.saturating_add(bytes) > MOST_BYTES;
        let taken = if is_full { 0 } else { batch.num_rows().min(most.saturating_sub(self.rows)) };
        if taken > 0 {
            self.dropped += std::mem::take(&mut self.behind);
            self.batches.push_back(batch.slice(0, taken));
            (self.rows, self.bytes) = (self.rows + taken, self.bytes.saturating_add(bytes));
        }
        self.behind += (batch.num_rows() - taken) as u64;
    }

    fn push_newest(&mut self, batch: &RecordBatch, most: usize) {
        self.batches.push_back(batch.clone());
        (self.rows, self.bytes) = (self.rows + batch.num_rows(), self.bytes.saturating_add(batch.get_array_memory_size()));
        self.pass_over_all_but(most);
    }

    /// Keeps the newest rows, so many and no more bytes than may be kept.
    fn pass_over_all_but(&mut self, most: usize) {
        while self.rows > most || (self.bytes > MOST_BYTES && self.batches.len() > 1) {
            let Some(first) = self.batches.pop_front() else { return };
            let too_many = self.rows.saturating_sub(most);
            self.bytes = self.bytes.saturating_sub(first.get_array_memory_size());
            if too_many > 0 && too_many < first.num_rows() {
                let rest = first.slice(too_many, first.num_rows() - too_many);
                self.bytes = self.bytes.saturating_add(rest.get_array_memory_size());
                self.batches.push_front(rest);
                (self.rows, self.dropped) = (self.rows - too_many, self.dropped + too_many as u64);
            } else {
                (self.rows, self.dropped) = (self.rows - first.num_rows(), self.dropped + first.num_rows() as u64);
            }
        }
    }

    fn take(&mut self, most: usize) -> Tapped {
        let mut taken = Tapped { dropped: std::mem::take(&mut self.dropped), ..Tapped::default() };
        let mut left = most;
        while left > 0
            && let Some(batch) = self.batches.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(batch.get_array_memory_size());
            let rows = batch.num_rows().min(left);
            if rows < batch.num_rows() {
                let rest = batch.slice(rows, batch.num_rows() - rows);
                self.bytes = self.bytes.saturating_add(rest.get_array_memory_size());
                self.batches.push_front(rest);
            }
            (self.rows, left) = (self.rows - rows, left - rows);
            taken.batches.push(batch.slice(0, rows));
        }
        taken.ended = self.ended && self.batches.is_empty();
        if taken.ended {
            taken.dropped += std::mem::take(&mut self.behind);
        }
        self.seen_end = taken.ended;
        taken
    }
}

impl Tap {
    /// The columns of its rows.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows that have passed, at most so many, once there are some, the job has ended, or the time is over.
    #[must_use]
    pub fn take(&self, most: usize, wait: Duration) -> Tapped {
        let deadline = Instant::now() + wait;
        let mut state = self.shared.state.lock();
        state.asked = Instant::now();
        while state.batches.is_empty() && !state.ended && !self.shared.changed.wait_until(&mut state, deadline).timed_out() {}
        state.asked = Instant::now();
        if self.shared.keep.newest {
            // More may be kept than are wanted this time.
            state.pass_over_all_but(most);
        }
        let taken = state.take(most);
        self.shared.changed.notify_all();
        taken
    }

    /// Nobody has asked it for so long that it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_abandoned()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.state.lock().seen_end = true;
        self.shared.changed.notify_all();
        let mut taps = self.taps.taps.lock();
        self.taps.retain(&mut taps, |tap| !Arc::ptr_eq(tap, &self.shared));
    }
}

/// The node and output that a name means.
fn find(plan: &Plan, name: &str) -> Result<(NodeId, u32), TapError> {
    let named = |name: &str| -> Vec<&Node> {
        match plan.nodes.iter().find(|node| node.path == name) {
            Some(node) => vec![node],
            None => plan.nodes.iter().filter(|node| node.name == name).collect(),
        }
    };
    match named(name).as_slice() {
        [node] => return of_main(plan, node).ok_or_else(|| unknown(plan, name)),
        [] => {}
        several => {
            let known = several.iter().map(|node| node.path.as_str()).collect::<Vec<_>>().join(" or ");
            return Err(TapError::Ambiguous { name: name.to_owned(), known });
        }
    }
    // A name has no dot, and neither has that of an output.
    let (node, output) = name.rsplit_once('.').ok_or_else(|| unknown(plan, name))?;
    let [node] = named(node)[..] else { return Err(unknown(plan, name)) };
    let is_sink = matches!(node.operator, Operator::Sink(_));
    let output = node.outputs.iter().position(|of_node| of_node.name == output).filter(|_| !is_sink);
    output.map(|output| (node.id, output as u32)).ok_or_else(|| unknown(plan, name))
}

/// The main output of a node; of a sink, what it reads, before it is encoded.
fn of_main(plan: &Plan, node: &Node) -> Option<(NodeId, u32)> {
    if !matches!(node.operator, Operator::Sink(_)) {
        return Some((node.id, 0));
    }
    let edge = plan.inputs(node.id).next()?;
    let from = plan.node(edge.from);
    let edge = if matches!(from.operator, Operator::Encode(_)) { plan.inputs(from.id).next()? } else { edge };
    Some((edge.from, edge.output))
}

fn unknown(plan: &Plan, name: &str) -> TapError {
    let known = plan.nodes.iter().map(|node| node.path.as_str()).collect::<Vec<_>>().join(", ");
    TapError::Unknown { name: name.chars().take(64).collect(), known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{ArrayRef, AsArray, Int64Array},
        datatypes::Int64Type,
    };

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef)]).unwrap()
    }

    /// One that looks at node 0, without a plan.
    fn tap(keep: Keep) -> (Arc<Taps>, Tap) {
        let taps =
            Arc::new(Taps { open: [AtomicU32::new(0), AtomicU32::new(0)].into(), taps: Mutex::default(), ended: AtomicBool::new(false) });
        let state = State::new(false);
        let shared = Arc::new(Shared { node: NodeId(0), output: 0, keep, state: Mutex::new(state), changed: Condvar::new() });
        taps.taps.lock().push(Arc::clone(&shared));
        taps.open[0].store(1, Relaxed);
        let schema = batch(0..0).schema();
        let tap = Tap { shared, taps: Arc::clone(&taps), schema };
        (taps, tap)
    }

    fn numbers(taken: &Tapped) -> Vec<i64> {
        taken.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn the_first_rows_are_kept_and_the_others_counted() {
        let (taps, tap) = tap(Keep { rows: 10, newest: false });
        (0..4).for_each(|i| taps.pass(NodeId(0), 0, &batch(i * 4..i * 4 + 4)));
        taps.pass(NodeId(0), 1, &batch(90..99));
        taps.pass(NodeId(1), 0, &batch(90..99));
        let first = tap.take(7, Duration::ZERO);
        assert_eq!((numbers(&first), first.dropped, first.ended), ((0..7).collect(), 0, false));
        taps.pass(NodeId(0), 0, &batch(16..20));
        let second = tap.take(100, Duration::ZERO);
        assert_eq!((numbers(&second), second.dropped), (vec![7, 8, 9, 16, 17, 18, 19], 6));
        assert!(tap.take(100, Duration::ZERO).batches.is_empty());
    }

    #[test]
    fn the_newest_rows_are_kept_where_that_is_wanted() {
        let (taps, tap) = tap(Keep { rows: 5, newest: true });
        (0..4).for_each(|i| taps.pass(NodeId(0), 0, &batch(i * 3..i * 3 + 3)));
        let taken = tap.take(100, Duration::ZERO);
        assert_eq!((numbers(&taken), taken.dropped), ((7..12).collect(), 7));
        taps.pass(NodeId(0), 0, &batch(0..100));
        assert_eq!(numbers(&tap.take(100, Duration::ZERO)), (95..100).collect::<Vec<_>>());
    }

    #[test]
    fn of_more_than_are_wanted_the_newest_are_given() {
        let (taps, tap) = tap(Keep { rows: 1_000, newest: true });
        (0..10).for_each(|i| taps.pass(NodeId(0), 0, &batch(i * 100..i * 100 + 100)));
        let taken = tap.take(50, Duration::ZERO);
        assert_eq!((numbers(&taken), taken.dropped), ((950..1_000).collect(), 950));
        let kept = |state: &State| (state.rows, state.bytes);
        assert_eq!(kept(&tap.shared.state.lock()), (0, 0));
        assert!(tap.take(50, Duration::ZERO).batches.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_is_no_copy() {
        let (taps, tap) = tap(Keep { rows: usize::MAX, newest: false });
        let large = batch(0..400_000);
        (0..10).for_each(|_| taps.pass(NodeId(0), 0, &large));
        let taken = tap.take(usize::MAX, Duration::ZERO);
        assert_eq!((taken.batches.len(), taken.dropped), (2, 0), "nothing is missing between them");
        assert!(taken.batches[0].column(0).to_data().ptr_eq(&large.column(0).to_data()));
        assert_eq!(tap.shared.state.lock().bytes, 0);
        // One that is larger than all that may be kept is seen all the same.
        taps.pass(NodeId(0), 0, &batch(0..4_000_000));
        let taken = tap.take(3, Duration::ZERO);
        assert_eq!((numbers(&taken), taken.dropped), (vec![0, 1, 2], 8 * 400_000));
    }

    #[test]
    fn a_tap_that_is_dropped_or_abandoned_costs_nothing_any_more() {
        let (taps, tap) = tap(Keep { rows: 10, newest: false });
        tap.shared.state.lock().asked = Instant::now().checked_sub(ABANDONED * 2).unwrap();
        taps.pass(NodeId(0), 0, &batch(0..3));
        assert!(taps.open[0].load(Relaxed) == 0 && taps.taps.lock().is_empty() && tap.is_closed());
        drop(tap);
        assert_eq!(taps.open[0].load(Relaxed), 0);
        let (taps, tap) = self::tap(Keep { rows: 10, newest: false });
        drop(tap);
        assert_eq!(taps.open[0].load(Relaxed), 0);
    }

    #[test]
    fn the_end_waits_for_who_looks_and_for_nobody_else() {
        // What was kept between two looks is not all that is wanted.
        let (taps, tap) = tap(Keep { rows: 3, newest: false });
        taps.pass(NodeId(0), 0, &batch(-3..0));
        assert_eq!(numbers(&tap.take(3, Duration::ZERO)), [-3, -2, -1]);
        taps.pass(NodeId(0), 0, &batch(0..3));
        let (ends, has_ended) = (Arc::clone(&taps), std::sync::mpsc::channel());
        let end = std::thread::spawn(move || {
            ends.end(true);
            has_ended.0.send(()).unwrap();
        });
        assert!(has_ended.1.recv_timeout(LAST_LOOK / 4).is_err(), "the last rows were not seen");
        let looks = std::thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                let taken = tap.take(2, Duration::from_secs(60));
                seen.extend(numbers(&taken));
                if taken.ended {
                    return seen;
                }
            }
        });
        assert_eq!(looks.join().unwrap(), [0, 1, 2]);
        end.join().unwrap();
        let begun = Instant::now();
        taps.end(true);
        assert!(begun.elapsed() < LAST_LOOK, "nobody looks any more");
    }
}
