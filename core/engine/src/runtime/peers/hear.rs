//! What a process does with what it hears from another one.

use super::{Other, Peers, with_checkpoints};
use crate::{
    cluster::frame::Frame,
    dataflow::time::Time,
    runtime::{
        checkpoints::Message,
        error::{Cause, JobError},
        job::Job,
    },
};
use standpipe_checkpoint::coordinator::Part;
use standpipe_pipeline::plan::NodeId;
use std::sync::atomic::Ordering::SeqCst;

impl Peers {
    /// Acts on a frame.
    pub(super) fn hear(&self, job: &Job, from: &Other, frame: Frame) {
        match self.is_first() {
            true => self.first_hears(job, from, frame),
            false => self.other_hears(job, frame),
        }
    }

    fn first_hears(&self, job: &Job, from: &Other, frame: Frame) {
        let tell = |message| with_checkpoints(job, |checkpoints| checkpoints.tell(message));
        match frame {
            Frame::Time(time) => self.follow(job, from, time),
            Frame::Throttled(is) => self.waits(from.process, is),
            Frame::Aligned { group, time } => job.alignments.hear(from.process, group, time),
            Frame::Opened => job.opened(),
            Frame::Numbers(numbers) => numbers.add(&mut from.numbers.lock(), from.process, &job.metrics),
            Frame::Positions { checkpoint, node, subtask, positions } => {
                tell(Message::Positions(checkpoint, NodeId(node), subtask, positions));
            }
            Frame::Written { checkpoint, node, subtask, files } => {
                tell(Message::Written(checkpoint, Part::Subtask(node, subtask), Ok(files)));
            }
            Frame::Drained(checkpoint) => tell(Message::Drained(checkpoint)),
            Frame::PartFailed { checkpoint, reason } => tell(Message::Failed(checkpoint, reason)),
            Frame::Committed { checkpoint, node, subtask } => tell(Message::Committed(checkpoint, NodeId(node), subtask)),
            Frame::Ended { node, subtask } => tell(Message::Ended(NodeId(node), subtask)),
            Frame::Failed { node, class, message } => job.fail(JobError::elsewhere(node, class, Cause::Peer(message))),
            Frame::Done => from.done.store(true, SeqCst),
            _ => {}
        }
    }

    /// Passes a time on; what is not news here is not to the others.
    fn follow(&self, job: &Job, from: &Other, time: Time) {
        if job.ticker.follow(time) {
            self.tell_all_but(from.process, &Frame::Time(time));
        }
    }

    fn other_hears(&self, job: &Job, frame: Frame) {
        match frame {
            Frame::Time(time) => _ = job.ticker.follow(time),
            Frame::Beat(explained) => self.explained.store(explained, SeqCst),
            Frame::Throttled(is) => self.waiting_elsewhere.store(is, SeqCst),
            Frame::Aligned { group, time } => job.alignments.reached(group, time),
            Frame::Reader { node, subtask, command } => {
                if let Some(reader) = self.readers.lock().get(&node).and_then(|subtasks| subtasks.get(subtask as usize)) {
                    // One that has ended does not want it.
                    drop(reader.send(command.command()));
                }
            }
            Frame::Collecting(id) => with_checkpoints(job, |checkpoints| checkpoints.collecting(id)),
            Frame::Begun => self.begin(),
            Frame::BuildOn(base) => with_checkpoints(job, |checkpoints| checkpoints.build_on(base.into())),
            Frame::Newest(manifest) => with_checkpoints(job, |checkpoints| checkpoints.tell(Message::Newest(manifest))),
            Frame::CommitSinks(id) => with_checkpoints(job, |checkpoints| checkpoints.commit_sinks(id)),
            Frame::Over => {
                with_checkpoints(job, |checkpoints| {
                    checkpoints.set_over();
                    checkpoints.tell(Message::Over);
                });
                job.ticker.wake_sources();
            }
            Frame::Stop { drain } => job.stop(drain),
            Frame::Cancel => job.cancel(),
            _ => {}
        }
    }
}
