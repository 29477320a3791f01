//! A checkpoint as a trace of its own, so that a job that runs for months has no endless one; it is linked with the job's start. In it is, of each node, `align` (from the
//! trigger until all its subtasks have given their state) and `write` (from the first of them until all of it is stored), then `manifest` and `commit`. One that is given
//! up says why, and which nodes had not answered. Of subtasks in other processes it is known only when their state is stored.

use crate::runtime::job::Job;
use standpipe_checkpoint::coordinator::Reason;
use standpipe_pipeline::plan::NodeId;
use standpipe_trace::{Beginning, Kind, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Of a checkpoint that is being collected.
#[derive(Default)]
pub(super) struct Collecting {
    whole: Span,
    nodes: BTreeMap<NodeId, Node>,
    manifest: Span,
}

struct Node {
    /// Subtasks whose state is not here, nor stored.
    asked: BTreeSet<u32>,
    /// Subtasks whose state is not stored.
    missing: BTreeSet<u32>,
    align: Option<Span>,
    /// Once there is something to store.
    write: Option<Span>,
    bytes: u64,
}

/// What is said of one when it begins.
pub(super) struct About {
    pub(super) id: u64,
    pub(super) is_savepoint: bool,
    pub(super) reason: Reason,
}

impl Collecting {
    /// Its enumerators are asked; these nodes have state.
    pub(super) fn begin(job: &Job, about: &About, nodes: impl Iterator<Item = (NodeId, u32)>) -> Self {
        let options = &job.options;
        if !options.traces.is_on() {
            return Self::default();
        }
        let name = if about.is_savepoint { "savepoint" } else { "checkpoint" };
        let beginning = Beginning { name, kind: Kind::Inside, parent: None, link: options.parent.as_ref() };
        let whole = options.traces.begin(&beginning).with("job_id", options.job_id.as_str()).with("job_name", job.plan.name.as_str());
        let reason = match about.reason {
            Reason::Interval => "interval",
            Reason::Savepoint => "request",
            Reason::Last => "last",
        };
        let whole = whole.with("checkpoint", about.id).with("reason", reason).with("generation", options.generation);
        let node = |(id, parallelism): (NodeId, u32)| {
            let subtasks: BTreeSet<u32> = (0..parallelism).collect();
            (id, Node { asked: subtasks.clone(), missing: subtasks, align: None, write: None, bytes: 0 })
        };
        Self { nodes: nodes.map(node).collect(), whole, manifest: Span::default() }
    }

    /// Sources go behind the cut: from now on it is waited for everybody.
    pub(super) fn triggered(&mut self, job: &Job) {
        for (id, node) in &mut self.nodes {
            let span = self.whole.child("align").with("operator", job.node(*id).path.as_str());
            node.align = Some(span.with("subtasks", job.node(*id).parallelism));
        }
    }

    /// A subtask has given its state.
    pub(super) fn reported(&mut self, job: &Job, id: NodeId, subtask: u32) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.asked.remove(&subtask);
        if node.write.is_none() {
            node.write = Some(self.whole.child("write").with("operator", job.node(id).path.as_str()));
        }
        if node.asked.is_empty() {
            node.align = None;
        }
    }

    /// A subtask's state is stored, in so many bytes.
    pub(super) fn written(&mut self, job: &Job, id: NodeId, subtask: u32, bytes: u64) {
        self.reported(job, id, subtask);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.missing.remove(&subtask);
        node.bytes += bytes;
        if node.missing.is_empty()
            && let Some(mut write) = node.write.take()
        {
            write.set("bytes", node.bytes);
        }
    }

    /// All of it is stored: its manifest is created.
    pub(super) fn manifest(&mut self) {
        self.manifest = self.whole.child("manifest");
    }

    /// It is durable: so large, of which so much is new. What is left of it is to be committed.
    pub(super) fn durable(mut self, bytes: u64, written: u64) -> Span {
        self.whole.set("bytes", bytes);
        self.whole.set("bytes_written", written);
        self.whole
    }

    /// It is given up.
    pub(super) fn give_up(mut self, why: &str) {
        for node in self.nodes.values_mut() {
            if let Some(align) = &mut node.align {
                let missing: Vec<String> = node.asked.iter().map(u32::to_string).collect();
                align.fail(&format!("subtasks that have not given their state: {}", missing.join(", ")));
            }
            if let Some(write) = &mut node.write {
                write.fail("not all of it was stored");
            }
        }
        self.manifest.fail(why);
        self.whole.fail(why);
    }
}
