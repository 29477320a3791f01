//! A sink that writes one file per subtask, or to standard output: all its records end to end.
//!
//! Without checkpoints a file is there when the job has ended well, and not there if it failed. With checkpoints it is exactly what a job without a failure would
//! have written: a restart cuts the file, still under its working name, to its length at the checkpoint ([`crate::target`]). Made by [`crate::sink`].

use crate::{
    content::{Content, records},
    enumerate::STDIN as STDOUT,
    outside,
    sink::{FileSinkConfig, SUBTASK},
    target::{Target, directory, is_device},
};
use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};
use standpipe_formats::FileEncoder;
use standpipe_sdk::{CloseReason, Committable, Context, Error, Host, Recovered, Result, SinkInput, Written};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A file at a checkpoint.
#[derive(Serialize, Deserialize)]
struct Prepared {
    path: PathBuf,
    length: u64,
}

/// Writes one file.
pub(crate) struct Single {
    path: PathBuf,
    content: Content,
    /// Of rows.
    encoder: Option<Box<dyn FileEncoder>>,
    /// What the encoder has given.
    encoded: Vec<u8>,
    host: Host,
    /// The last batch taken.
    taken: u64,
    /// `None`: not known yet (after a restart, before `recover`), or finished.
    target: Option<Target>,
    is_finished: bool,
    /// Files of former subtasks that are no more: nothing is added to them, but they are published with the own one.
    inherited: Vec<Target>,
    /// A checkpoint may refer to what has been written.
    is_remembered: bool,
}

impl Single {
    pub(crate) fn open(config: &FileSinkConfig, input: &SinkInput, context: Context) -> Result<Self> {
        let path = PathBuf::from(config.path.replace(SUBTASK, &context.subtask.to_string()));
        let target = if config.path == STDOUT {
            Some(Target::stdout())
        } else {
            check_directory(&path, config.create_dirs)?;
            let is_known = !context.restored || is_device(&path);
            is_known.then(|| Target::create(&path)).transpose()?
        };
        let content = Content::new(input, config.newline)?;
        let encoder = content.encoder()?;
        Ok(Self {
            path,
            content,
            encoder,
            encoded: Vec::new(),
            host: context.host,
            taken: 0,
            target,
            is_finished: false,
            inherited: Vec::new(),
            is_remembered: context.restored,
        })
    }

    pub(crate) fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.target()?;
        let Some(target) = &mut self.target else { return Ok(Written::Busy) };
        match &mut self.encoder {
            None => {
                let newline = self.content.newline();
                for record in records(batch)? {
                    // A record that is null (a tombstone) has no bytes; its line stays empty.
                    target.write(record.unwrap_or_default())?;
                    target.write(newline)?;
                }
            }
            Some(encoder) => {
                self.encoded.clear();
                encoder.write(batch, &mut self.encoded)?;
                target.write(&self.encoded)?;
            }
        }
        let is_written = target.end_batch()?;
        self.taken = seq;
        if is_written {
            self.host.ack(seq);
        }
        Ok(Written::Taken)
    }

    pub(crate) fn flush(&mut self, checkpoint: u64) -> Result<()> {
        let Some(target) = &mut self.target else { return Ok(()) };
        if checkpoint > 0 {
            self.is_remembered = true;
            target.sync()?;
        } else {
            target.flush()?;
        }
        self.host.ack(self.taken);
        Ok(())
    }

    pub(crate) fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        if !self.is_finished {
            self.target()?;
        }
        self.flush(checkpoint)?;
        self.is_remembered = true;
        let files = self.target.iter().chain(&self.inherited).filter(|target| target.is_resumable());
        let files: Vec<_> = files.map(|target| Prepared { path: target.path().to_owned(), length: target.length() }).collect();
        Ok(serde_json::to_vec(&files)?)
    }

    pub(crate) fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        // A file only grows: of several checkpoints the last has the greatest length.
        let mut lengths: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for committable in prepared {
            for file in serde_json::from_slice::<Vec<Prepared>>(&committable.bytes)? {
                let length = lengths.entry(file.path).or_default();
                *length = file.length.max(*length);
            }
        }
        for (path, length) in lengths {
            if path == self.path {
                self.target = None;
                self.target = Some(Target::resume(&path, Some(length))?);
            } else {
                self.inherited.push(Target::resume(&path, Some(length))?);
            }
        }
        if self.target.is_none() {
            self.target = Some(Target::create(&self.path)?);
        }
        Ok(vec![Recovered::Committed; prepared.len()])
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        self.target()?;
        self.is_finished = true;
        self.target.take().into_iter().chain(self.inherited.drain(..)).try_for_each(Target::publish)
    }

    pub(crate) fn close(&mut self, reason: CloseReason) -> Result<()> {
        let Some(mut target) = self.target.take() else { return Ok(()) };
        if reason == CloseReason::Failed && !self.is_remembered {
            target.discard();
            return Ok(());
        }
        // A checkpoint refers to it, or the user stopped the job and may want to look.
        target.flush()?;
        if target.is_resumable() {
            let path = target.path().display();
            self.host.info(format!("{path} is not finished; what was written is in {path}.inprogress"), &[]);
        }
        Ok(())
    }

    /// The file. After a restart without a length to go back to, what was written before stays: at least once.
    fn target(&mut self) -> Result<&mut Target> {
        if self.is_finished {
            return Err(Error::data(format!("{} is finished", self.path.display())));
        }
        let target = match &mut self.target {
            Some(target) => target,
            none => none.insert(Target::resume(&self.path, None)?),
        };
        // What stands before the first row.
        if let Some(encoder) = self.encoder.as_mut().filter(|_| target.length() == 0) {
            self.encoded.clear();
            encoder.begin(&mut self.encoded)?;
            target.write(&self.encoded)?;
        }
        Ok(target)
    }
}

fn check_directory(path: &Path, create: bool) -> Result<()> {
    let parent = directory(path);
    if create {
        return fs::create_dir_all(parent).map_err(|error| outside("create the directory", parent.display(), error));
    }
    if !parent.is_dir() {
        let (path, parent) = (path.display(), parent.display());
        return Err(Error::external(format!("cannot write {path}: there is no directory {parent} (create_dirs: true makes it)")));
    }
    Ok(())
}
