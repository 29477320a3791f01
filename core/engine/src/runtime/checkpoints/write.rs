//! The thread that waits for the store: it encodes and writes the tables of a checkpoint, creates its manifest, and removes what is not needed any more.
//!
//! What has not changed is not written: a table of changes is the last file of a chain whose former ones the base has, and a table whose content is that of the base's
//! file is that file. The base is the newest durable checkpoint, which nobody removes before a newer one is durable; so what a manifest refers to is there.

use super::{Checkpoints, Message};
use crate::{
    cluster::frame::Frame,
    runtime::{job::Job, steps::Step},
};
use crossbeam_channel::{Receiver, Sender, unbounded};
use standpipe_checkpoint::{CheckpointError, FileRef, Kind, Manifest, coordinator::Part, store::NewTable};
use standpipe_state::{
    Base, LazyTables,
    snapshot::{SnapshotError, since},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
};

/// What there is to write.
pub(super) enum Work {
    /// The tables of a part of a checkpoint, and those of it that are still to be read.
    Tables(u64, Part, Vec<NewTable>, Option<Rest>),
    /// All of them are written.
    Manifest(Box<Manifest>),
    /// Another process has created that one, on which the next one may build.
    Newest(Box<Manifest>),
    /// That checkpoint is given up: what was written for it is garbage. In doubt: its manifest may be there, or come.
    GivenUp { id: u64, in_doubt: bool },
}

/// Tables of a subtask that come piece by piece.
pub(super) struct Rest {
    pub(super) node: String,
    pub(super) subtask: u32,
    pub(super) tables: LazyTables,
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
    // The newest checkpoint, on which the next one may build.
    let mut newest: Option<Box<Manifest>> = None;
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
            Work::Newest(manifest) => newest = Some(manifest),
            Work::GivenUp { id, in_doubt } => {
                // It may be the disk that is full. But a store that does not work may also show less than there is: so once more when it has proved to.
                if !in_doubt {
                    sweep(&mut Some(id));
                }
                garbage = Some(id);
            }
            // It has been given up meanwhile.
            Work::Tables(id, ..) if checkpoints.wanted.load(SeqCst) != id => {}
            Work::Tables(id, part, tables, rest) => {
                let base = match *checkpoints.base.lock() {
                    Base::Checkpoint(base) => newest.as_deref().filter(|newest| newest.id == base),
                    Base::Nothing | Base::Alone => None,
                };
                checkpoints.tell(Message::Written(id, part, write(checkpoints, id, tables, rest, base)));
            }
            Work::Manifest(manifest) => {
                job.reached(Step::Write, manifest.id);
                let result = store.commit(&manifest);
                let durable = result.is_ok();
                let id = manifest.id;
                if durable {
                    job.reached(Step::Durable, id);
                }
                if durable && manifest.kind == Kind::Checkpoint {
                    // Before they hear that anything builds on it.
                    job.tell_others(&Frame::Newest(manifest.clone()));
                    newest = Some(manifest);
                }
                checkpoints.tell(Message::Manifest(id, result));
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

/// Writes what is new in the tables of a part, and gives all of their files, in the order in which they are applied.
fn write(
    checkpoints: &Checkpoints,
    id: u64,
    tables: Vec<NewTable>,
    rest: Option<Rest>,
    base: Option<&Manifest>,
) -> Result<Vec<(String, FileRef)>, CheckpointError> {
    let mut writing = Writing { checkpoints, id, base, files: Vec::new(), begun: BTreeMap::new() };
    writing.write(tables)?;
    let Some(Rest { node, subtask, tables }) = rest else { return Ok(writing.files) };
    for table in tables {
        if checkpoints.wanted.load(SeqCst) != id {
            // Given up meanwhile: nobody wants to know.
            break;
        }
        let failed = |error: SnapshotError| CheckpointError::Damaged { object: node.clone(), reason: error.to_string() };
        let (name, batch) = table.map_err(failed)?;
        writing.write(vec![NewTable { node: node.clone(), subtask, name, piece: 0, batch, same: None }])?;
    }
    Ok(writing.files)
}

/// The files of a part, as far as they are written.
struct Writing<'a> {
    checkpoints: &'a Checkpoints,
    id: u64,
    base: Option<&'a Manifest>,
    files: Vec<(String, FileRef)>,
    /// By table: how many pieces have come.
    begun: BTreeMap<String, u32>,
}

impl Writing<'_> {
    fn write(&mut self, tables: Vec<NewTable>) -> Result<(), CheckpointError> {
        let mut new = Vec::new();
        for mut table in tables {
            let pieces = self.begun.entry(table.name.clone()).or_default();
            table.piece = *pieces;
            *pieces += 1;
            if table.piece == 0 {
                self.refer(&mut table)?;
            }
            // One without rows needs no file.
            if table.batch.num_rows() > 0 {
                new.push(table);
            }
        }
        let names: Vec<String> = new.iter().map(|table| table.name.clone()).collect();
        let options = &self.checkpoints.options;
        let written = options.store.write(options.taken_over.generation, self.id, new)?;
        self.files.extend(names.into_iter().zip(written));
        Ok(())
    }

    /// Names the files of the base that still hold.
    fn refer(&mut self, table: &mut NewTable) -> Result<(), CheckpointError> {
        let former = self.base.map(|base| base.files_of(&table.node, &table.name, table.subtask)).unwrap_or_default();
        match since(&table.batch) {
            Some(_) if self.base.is_none() => {
                let reason = format!("table {}: there are changes, and nothing that they are changes of", table.name);
                return Err(CheckpointError::Damaged { object: table.node.clone(), reason });
            }
            Some(cut) => {
                let unchanged = former.into_iter().filter(|file| file.checkpoint <= cut);
                self.files.extend(unchanged.map(|file| (table.name.clone(), file.clone())));
            }
            None => table.same = former.first().copied().filter(|_| former.len() == 1).cloned(),
        }
        Ok(())
    }
}
