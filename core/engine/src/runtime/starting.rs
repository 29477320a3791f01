//! The start of a job in this process, as spans of its trace: `start`, and in it what the job goes on from and each node whose plugin is opened here. What threads that
//! hang would hold is held here: a start that comes to nothing has its end, too, and says which nodes were not open.

use super::job::{RunOptions, instances};
use crate::runtime::metrics::NodeMetrics;
use parking_lot::Mutex;
use standpipe_pipeline::{
    placement::Placement,
    plan::{NodeId, Plan},
};
use standpipe_trace::Span;
use std::collections::BTreeMap;

/// Until all is open here.
#[derive(Default)]
pub(crate) struct Starting(Mutex<Option<Begun>>);

struct Begun {
    start: Span,
    /// By node that has instances of its plugin here: how many are not open, and the time that they take.
    opening: BTreeMap<NodeId, (usize, Span)>,
}

impl Starting {
    /// It begins now, where anybody is told of it.
    pub(crate) fn begin(options: &RunOptions) -> Self {
        if !options.traces.is_on() {
            return Self::default();
        }
        let start = options.traces.span("start", options.parent.as_ref()).with("job_id", options.job_id.as_str());
        Self(Mutex::new(Some(Begun { start, opening: BTreeMap::new() })))
    }

    /// A part of it.
    pub(crate) fn part(&self, name: &'static str) -> Span {
        self.0.lock().as_ref().map(|begun| begun.start.child(name)).unwrap_or_default()
    }

    /// From now on plugins are opened in this process.
    pub(crate) fn opening(&self, plan: &Plan, placement: &Placement, process: u32, metrics: &[NodeMetrics]) {
        let mut begun = self.0.lock();
        let Some(begun) = begun.as_mut() else { return };
        for (node, metrics) in plan.nodes.iter().zip(metrics) {
            let count = instances(node, placement, process);
            if count > 0 {
                let span = begun.start.child("open").with("operator", node.path.as_str()).with("subtasks", node.parallelism);
                let span = span.with("plugin", metrics.plugin.as_deref().unwrap_or_default());
                let span = span.with("plugin_version", metrics.plugin_version.as_deref().unwrap_or_default());
                begun.opening.insert(node.id, (count, span));
            }
        }
    }

    /// An instance of the node's plugin is open.
    pub(crate) fn opened(&self, node: NodeId) {
        let mut begun = self.0.lock();
        let Some(begun) = begun.as_mut() else { return };
        if let Some((left, _)) = begun.opening.get_mut(&node) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                begun.opening.remove(&node);
            }
        }
    }

    /// All is open.
    pub(crate) fn over(&self) {
        drop(self.0.lock().take());
    }

    /// The job has ended, for that reason; nothing happens if it was open by then.
    pub(crate) fn give_up(&self, why: &str) {
        let Some(Begun { mut start, opening }) = self.0.lock().take() else { return };
        for (_, mut span) in opening.into_values() {
            span.fail("it was not open when the job ended");
        }
        start.fail(why);
    }
}
