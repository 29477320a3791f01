//! The sink: one file per subtask, or standard output. Records are written end to end, each with a newline behind it.
//!
//! Without checkpoints a file is there when the job has ended well, and not there if it failed. With checkpoints it is exactly what a job without a failure would
//! have written: a restart cuts the file, still under its working name, to its length at the checkpoint ([`crate::target`]).

use crate::{
    enumerate::STDIN as STDOUT,
    outside,
    target::{Target, directory, is_device},
};
use arrow_array::{RecordBatch, cast::AsArray};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use standpipe_sdk::{
    CloseReason, Committable, Context, Error, Host, Recovered, Result, Sink, SinkDeclaration, SinkInput, Written, is_reference,
    sink::{Capabilities, ChangeMode, Encoding},
    wire::Problem,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What a path may hold.
const SUBTASK: &str = "{subtask}";

/// Writes records to a file, one per line. The file is written as `PATH.inprogress` and gets its name, replacing an older one, when the job has ended.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct FileSinkConfig {
    /// The file, a named pipe (the job waits for its reader), or `-` for standard output. `{subtask}` stands for the number of the subtask, from 0; without it there is one subtask.
    pub path: String,
    /// Whether a newline follows each record.
    #[serde(default = "default_newline")]
    pub newline: bool,
    /// Whether to create the directory that the file is in.
    #[serde(default)]
    pub create_dirs: bool,
}

const fn default_newline() -> bool {
    true
}

impl FileSinkConfig {
    fn problems(&self) -> Vec<Problem> {
        let wrong = |message: String| vec![Problem { path: "path".to_owned(), message, suggestion: None }];
        if self.path.is_empty() {
            return wrong("is empty".to_owned());
        }
        if !is_reference(&self.path) && self.path.ends_with('/') {
            return wrong(format!("{:?} is a directory", self.path));
        }
        Vec::new()
    }
}

/// A file at a checkpoint.
#[derive(Serialize, Deserialize)]
struct Prepared {
    path: PathBuf,
    length: u64,
}

/// Writes records to a file.
pub struct FileSink {
    path: PathBuf,
    newline: bool,
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

impl Sink for FileSink {
    const NAME: &'static str = "file";
    type Config = FileSinkConfig;

    fn declare(config: &FileSinkConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration {
            encoding: Encoding::Records,
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract],
            capabilities: Capabilities { ordered: true, transactional: config.path != STDOUT, ..Capabilities::default() },
            max_subtasks: (!config.path.contains(SUBTASK)).then_some(1),
            problems: config.problems(),
            ..SinkDeclaration::default()
        })
    }

    fn open(config: FileSinkConfig, _: &SinkInput, context: Context) -> Result<Self> {
        let path = PathBuf::from(config.path.replace(SUBTASK, &context.subtask.to_string()));
        let target = if config.path == STDOUT {
            Some(Target::stdout())
        } else {
            check_directory(&path, config.create_dirs)?;
            let is_known = !context.restored || is_device(&path);
            is_known.then(|| Target::create(&path)).transpose()?
        };
        let (newline, is_remembered) = (config.newline, context.restored);
        Ok(Self { path, newline, host: context.host, taken: 0, target, is_finished: false, inherited: Vec::new(), is_remembered })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        let newline: &[u8] = if self.newline { b"\n" } else { b"" };
        let target = self.target()?;
        let values = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        let values = values.ok_or_else(|| Error::data("a batch of records must begin with a binary column"))?;
        for record in values {
            // A record that is null (a tombstone) has no bytes; its line stays empty.
            target.write(record.unwrap_or_default())?;
            target.write(newline)?;
        }
        let is_written = target.end_batch()?;
        self.taken = seq;
        if is_written {
            self.host.ack(seq);
        }
        Ok(Written::Taken)
    }

    fn flush(&mut self, checkpoint: u64) -> Result<()> {
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

    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        if !self.is_finished {
            self.target()?;
        }
        self.flush(checkpoint)?;
        self.is_remembered = true;
        let files = self.target.iter().chain(&self.inherited).filter(|target| target.is_resumable());
        let files: Vec<_> = files.map(|target| Prepared { path: target.path().to_owned(), length: target.length() }).collect();
        Ok(serde_json::to_vec(&files)?)
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
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

    fn finish(&mut self) -> Result<()> {
        self.target()?;
        self.is_finished = true;
        self.target.take().into_iter().chain(self.inherited.drain(..)).try_for_each(Target::publish)
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
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
}

impl FileSink {
    /// The file. After a restart without a length to go back to, what was written before stays: at least once.
    fn target(&mut self) -> Result<&mut Target> {
        if self.is_finished {
            return Err(Error::data(format!("{} is finished", self.path.display())));
        }
        match &mut self.target {
            Some(target) => Ok(target),
            none => Ok(none.insert(Target::resume(&self.path, None)?)),
        }
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
