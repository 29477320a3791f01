//! The thread that waits for the store: it encodes and writes the tables of a checkpoint, creates its manifest, and removes what is not needed any more.

use super::{Checkpoints, Message};
use crate::runtime::job::Job;
use crossbeam_channel::{Receiver, Sender, unbounded};
use standpipe_checkpoint::{Manifest, coordinator::Part, store::NewTable};
use std::sync::{Arc, atomic::Ordering::SeqCst};

/// What there is to write.
pub(super) enum Work {
    /// The tables of a part of a checkpoint.
    Tables(u64, Part, Vec<NewTable>),
    /// All of them are written.
    Manifest(Box<Manifest>),
    /// That checkpoint is given up: what was written for it is garbage.
    GivenUp(u64),
}

/// Starts the thread; it ends when nobody sends any more.
pub(super) fn spawn(job: &Arc<Job>) -> Sender<Work> {
    let (sender, work) = unbounded();
    let shared = Arc::clone(job);
    job.spawn_engine("checkpoint-io", move || {
        if let Some(checkpoints) = &shared.checkpoints {
            run(&shared, checkpoints, &work);
        }
    });
    sender
}

fn run(job: &Job, checkpoints: &Checkpoints, work: &Receiver<Work>) {
    let (store, generation) = (&checkpoints.options.store, checkpoints.options.taken_over.generation);
    // The newest checkpoint that was given up and not swept away; 0: what a former process left that was killed.
    let mut garbage = job.is_first().then_some(0);
    let sweep = |garbage: &mut Option<u64>| {
        let Some(given_up) = *garbage else { return };
        match store.sweep(generation, given_up) {
            Ok(()) => *garbage = None,
            Err(error) => tracing::debug!(job = %job.options.job_id, "files that no checkpoint needs are not removed yet: {error}"),
        }
    };
    sweep(&mut garbage);
    for work in work {
        if job.cancelled() {
            return;
        }
        match work {
            Work::GivenUp(id) => {
                garbage = Some(id);
                sweep(&mut garbage);
            }
            // It has been given up meanwhile.
            Work::Tables(id, ..) if checkpoints.wanted.load(SeqCst) != id => {}
            Work::Tables(id, part, tables) => {
                let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
                let files = store.write(generation, id, tables);
                checkpoints.tell(Message::Written(id, part, files.map(|files| names.into_iter().zip(files).collect())));
            }
            Work::Manifest(manifest) => {
                let result = store.commit(&manifest);
                let durable = result.is_ok();
                checkpoints.tell(Message::Manifest(manifest.id, result));
                if durable {
                    sweep(&mut garbage);
                }
                if durable && let Err(error) = store.retain(checkpoints.options.keep) {
                    tracing::warn!(job = %job.options.job_id, "checkpoints that are not needed any more are not removed: {error}");
                }
            }
        }
    }
}
