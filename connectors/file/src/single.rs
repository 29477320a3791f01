//! A sink that writes one file per subtask, or to standard output: all its records end to end.
//!
//! Without checkpoints a file is there when the job has ended well, and not there if it failed. With checkpoints it is exactly what a job without a failure would
//! have written: a restart cuts the file, still under its working name, to its length at the checkpoint ([`crate::target`]). Made by [`crate::sink`].
//!
//! A subtask that is no more leaves its file to another, which adds nothing to it: it becomes `NAME-RUN`, with the start of the job that began it, so that it is in
//! nobody's way when there is a subtask of that number again. From then on it is with the subtask that has it, which a checkpoint remembers. So a subtask that
//! finds nothing in a checkpoint knows that what lies under its working name is in none.

#[cfg(test)]
mod tests;

use crate::{
    content::{Content, append_records},
    enumerate::STDIN as STDOUT,
    sink::{FileSinkConfig, SUBTASK, Writer},
    target::{Target, create_directories, directory, is_device, on_disk, pending_name, sync_directories},
};
use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};
use standpipe_formats::FileEncoder;
use standpipe_sdk::{CloseReason, Committable, Context, Error, Host, Recovered, Result, SinkInput, Written};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A file at a checkpoint.
#[derive(Serialize, Deserialize)]
struct Prepared {
    #[serde(flatten)]
    file: FileId,
    length: u64,
    /// Another subtask has it, under a name of its own.
    #[serde(default)]
    is_left: bool,
    /// Tells it from others if it has been renamed since; 0: nothing does.
    #[serde(default)]
    inode: u64,
}

/// Which file it is: a subtask begins one at most in each start of the job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FileId {
    /// The name that its subtask gave it.
    path: PathBuf,
    /// The start of the job that began it.
    #[serde(default)]
    run: u64,
}

impl FileId {
    /// `out-1.jsonl` of the third start, left to another subtask, is `out-1-3.jsonl`.
    fn left(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let dot = name.char_indices().skip(1).find(|(_, letter)| *letter == '.').map_or(name.len(), |(at, _)| at);
        let (stem, extension) = name.split_at(dot);
        self.path.with_file_name(format!("{stem}-{}{extension}", self.run))
    }
}

impl Prepared {
    fn of(file: &FileId, is_left: bool, target: &Target) -> Option<Self> {
        target.is_resumable().then(|| Self { file: file.clone(), length: target.length(), is_left, inode: target.inode() })
    }

    /// Where it may be: a restart renames it, and so does the end of the job. A name alone does not say which file has it: they may come round.
    fn places(&self) -> Vec<PathBuf> {
        let (own, left) = (&self.file.path, self.file.left());
        let mut places = vec![pending_name(&left), pending_name(own), own.clone(), left.clone()];
        if self.is_left {
            places = vec![pending_name(&left), left];
        }
        let is_it = |place: &PathBuf| self.inode > 0 && fs::metadata(place).is_ok_and(|found| found.ino() == self.inode);
        // A folder that was copied has other inodes.
        places.sort_by_key(|place| !is_it(place));
        places
    }
}

/// Writes one file.
pub(crate) struct Single {
    path: PathBuf,
    run: u64,
    /// The own file.
    file: FileId,
    content: Content,
    /// Of rows.
    encoder: Option<Box<dyn FileEncoder>>,
    host: Host,
    /// The last batch taken.
    taken: u64,
    /// `None`: not known yet (after a restart, before `recover`), or finished.
    target: Option<Target>,
    is_finished: bool,
    /// Files of subtasks that are no more: nothing is added to them, but they are published with the own one.
    inherited: Vec<(FileId, Target)>,
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
            file: FileId { path: path.clone(), run: context.generation },
            path,
            run: context.generation,
            content,
            encoder,
            host: context.host,
            taken: 0,
            target,
            is_finished: false,
            inherited: Vec::new(),
            is_remembered: context.restored,
        })
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
            target.fill(|buffer| Ok(encoder.begin(buffer)?))?;
        }
        Ok(target)
    }
}

impl Writer for Single {
    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        // Before the batch is taken: this may fail and be tried again.
        self.target()?.settle()?;
        let Some(target) = &mut self.target else { return Ok(Written::Busy) };
        match &mut self.encoder {
            None => target.fill(|buffer| append_records(batch, None, self.content.newline(), buffer))?,
            Some(encoder) => target.fill(|buffer| Ok(encoder.write(batch, buffer)?))?,
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
        let own = self.target.iter().filter_map(|target| Prepared::of(&self.file, false, target));
        let inherited = self.inherited.iter().filter_map(|(file, target)| Prepared::of(file, true, target));
        Ok(serde_json::to_vec(&own.chain(inherited).collect::<Vec<_>>())?)
    }

    /// The file gets its name in the end.
    fn commit(&mut self, _: &[Committable]) -> Result<()> {
        Ok(())
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        // A file only grows: of several checkpoints the last has the greatest length.
        let mut files: BTreeMap<FileId, Prepared> = BTreeMap::new();
        for committable in prepared {
            for file in serde_json::from_slice::<Vec<Prepared>>(&committable.bytes)? {
                if files.get(&file.file).is_none_or(|known| known.length <= file.length) {
                    files.insert(file.file.clone(), file);
                }
            }
        }
        // Once more after a failure: the files are free again. A pipe stays open.
        self.target.take_if(|target| target.is_resumable());
        self.inherited.clear();
        for (id, file) in files {
            if id.path == self.path && !file.is_left {
                self.target = Some(Target::resume_from(&self.path, &file.places(), Some(file.length))?);
                self.file = id;
            } else {
                let target = Target::resume_from(&id.left(), &file.places(), Some(file.length))?;
                self.inherited.push((id, target));
            }
        }
        if self.target.is_none() {
            self.file = FileId { path: self.path.clone(), run: self.run };
            self.target = Some(Target::create(&self.path)?);
        }
        Ok(vec![Recovered::Committed; prepared.len()])
    }

    fn finish(&mut self) -> Result<()> {
        self.target()?;
        // All that may be tried again, before anything gets its name.
        self.target.iter_mut().chain(self.inherited.iter_mut().map(|(_, target)| target)).try_for_each(Target::sync)?;
        self.is_finished = true;
        self.target.take().into_iter().chain(self.inherited.drain(..).map(|(_, target)| target)).try_for_each(Target::publish)
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

fn check_directory(path: &Path, create: bool) -> Result<()> {
    let parent = directory(path);
    if create {
        let mut changed = BTreeSet::new();
        create_directories(parent, &mut changed).map_err(|error| on_disk("create the directory", parent, error))?;
        return sync_directories(&mut changed);
    }
    if !parent.is_dir() {
        let (path, parent) = (path.display(), parent.display());
        return Err(Error::external(format!("cannot write {path}: there is no directory {parent} (create_dirs: true makes it)")));
    }
    Ok(())
}
