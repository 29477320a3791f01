//! The time that calls of plugins and operators take: added up per node, and a call over the time budget is named in log and metrics, also while it has not
//! returned. A call costs two readings of the clock and an uncontended lock; the job's supervisor looks for those that hang ([`Calls::name_slow`]).

use super::job::Job;
use parking_lot::Mutex;
use standpipe_pipeline::plan::NodeId;
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// A call that has not returned.
#[derive(Debug)]
struct Call {
    function: &'static str,
    begin: Instant,
    /// It has been named as slow.
    named: bool,
}

/// What a thread, or an operator on a worker, is calling.
#[derive(Debug)]
struct Caller {
    node: NodeId,
    subtask: u32,
    call: Mutex<Option<Call>>,
}

/// All callers of a job.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Vec<Weak<Caller>>>);

impl Calls {
    /// Names the calls that take longer than the job's budget and have not been named.
    pub(crate) fn name_slow(&self, job: &Job) {
        let mut callers = self.0.lock();
        callers.retain(|caller| caller.strong_count() > 0);
        for caller in callers.iter().filter_map(Weak::upgrade) {
            if let Some(call) = caller.call.lock().as_mut().filter(|call| !call.named && call.begin.elapsed() > job.options.call_budget) {
                call.named = true;
                caller.name(job, call.function, "has not returned for", call.begin.elapsed());
            }
        }
    }
}

impl Calls {
    /// Whether a call that has been named has still not returned.
    pub(crate) fn is_slow(&self) -> bool {
        let callers = self.0.lock();
        callers.iter().filter_map(Weak::upgrade).any(|caller| caller.call.lock().as_ref().is_some_and(|call| call.named))
    }
}

impl Caller {
    fn name(&self, job: &Job, function: &str, what: &str, took: Duration) {
        job.node_metrics(self.node).slow_calls.add(self.subtask, 1);
        let (id, operator) = (&job.options.job_id, &job.node(self.node).path);
        tracing::warn!(job = %id, %operator, subtask = self.subtask, "{function} {what} {:.1} s", took.as_secs_f64());
    }
}

/// For a counter.
pub(crate) fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// Measures the calls of one thread or operator.
pub(crate) struct CallTimer {
    job: Arc<Job>,
    caller: Arc<Caller>,
}

impl CallTimer {
    pub(crate) fn new(job: &Arc<Job>, node: NodeId, subtask: u32) -> Self {
        let caller = Arc::new(Caller { node, subtask, call: Mutex::new(None) });
        job.calls.0.lock().push(Arc::downgrade(&caller));
        Self { job: Arc::clone(job), caller }
    }

    /// Makes a call whose time counts as work.
    pub(crate) fn time<R>(&self, function: &'static str, call: impl FnOnce() -> R) -> R {
        let (result, took) = self.watch(function, call);
        self.busy(took);
        result
    }

    /// Makes a call that may only be waiting; how long it took.
    pub(crate) fn watch<R>(&self, function: &'static str, call: impl FnOnce() -> R) -> (R, Duration) {
        let begin = Instant::now();
        *self.caller.call.lock() = Some(Call { function, begin, named: false });
        let result = call();
        let took = begin.elapsed();
        let ended = self.caller.call.lock().take();
        if took > self.job.options.call_budget && ended.is_none_or(|call| !call.named) {
            self.caller.name(&self.job, function, "took", took);
        }
        (result, took)
    }

    /// That time was work.
    pub(crate) fn busy(&self, took: Duration) {
        self.job.node_metrics(self.caller.node).busy_nanos.add(self.caller.subtask, nanos(took));
    }
}
