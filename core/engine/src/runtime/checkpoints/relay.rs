//! What stands for the coordinator of checkpoints in the processes where it is not: tables of this process' subtasks are written from here, and the first process hears
//! what has become of them.

use super::{
    Message,
    savepoint::SavepointError,
    tables_of,
    write::{self, Work},
};
use crate::{
    cluster::frame::Frame,
    operator::Snapshot,
    runtime::{job::Job, peers::Peers},
};
use crossbeam_channel::{Receiver, Sender, select};
use standpipe_checkpoint::coordinator::Part;
use std::sync::Arc;

/// Starts the thread, if the job takes checkpoints.
pub(crate) fn spawn(job: &Arc<Job>) {
    let Some(inbox) = job.checkpoints.as_ref().and_then(|checkpoints| checkpoints.inbox.lock().take()) else { return };
    let (shared, writer) = (Arc::clone(job), write::spawn(job));
    job.spawn_engine("checkpoints", move || {
        if let Some(peers) = &shared.peers {
            run(&shared, peers, &inbox, &writer);
        }
    });
}

/// Until the last checkpoint is committed or the job is given up.
fn run(job: &Job, peers: &Peers, inbox: &Receiver<Message>, writer: &Sender<Work>) {
    let cancelled = job.cancel_signal();
    loop {
        let message = select! {
            recv(inbox) -> message => message,
            recv(cancelled) -> _ => return,
        };
        match message {
            Ok(Message::Over) | Err(_) => return,
            Ok(message) => relay(job, peers, writer, message),
        }
    }
}

fn relay(job: &Job, peers: &Peers, writer: &Sender<Work>, message: Message) {
    match message {
        Message::Newest(manifest) => drop(writer.send(Work::Newest(manifest))),
        Message::Reported(id, node, subtask, report) => {
            if !report.positions.is_empty() {
                peers.tell_first(Frame::Positions { checkpoint: id, node: node.0, subtask, positions: report.positions });
            }
            if report.drained {
                peers.tell_first(Frame::Drained(id));
            }
            let state = Snapshot { tables: report.tables, rest: report.rest, stored: None };
            let (tables, rest) = tables_of(job, node, subtask, state);
            // The writer is gone only when the job is given up.
            drop(writer.send(Work::Tables(id, Part::Subtask(node.0, subtask), tables, rest)));
        }
        Message::Written(checkpoint, Part::Subtask(node, subtask), Ok(files)) => {
            peers.tell_first(Frame::Written { checkpoint, node, subtask, files });
        }
        Message::Written(checkpoint, _, Err(error)) => peers.tell_first(Frame::PartFailed { checkpoint, reason: error.to_string() }),
        Message::Failed(checkpoint, reason) => peers.tell_first(Frame::PartFailed { checkpoint, reason }),
        Message::Committed(checkpoint, node, subtask) => peers.tell_first(Frame::Committed { checkpoint, node: node.0, subtask }),
        Message::Ended(node, subtask) => peers.tell_first(Frame::Ended { node: node.0, subtask }),
        // The user's hand is in the first process.
        Message::Wanted(reply, _) => reply.send(Err(SavepointError::JobEnded)),
        // Of the coordinator's own process.
        _ => {}
    }
}
