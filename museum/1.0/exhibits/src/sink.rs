//! `exhibit-parts`: a file for each checkpoint, exactly once.

use arrow_array::{RecordBatch, cast::AsArray};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::sink::{Capabilities, Encoding};
use standpipe_sdk::{Committable, Context, Error, Recovered, Result, Sink, SinkDeclaration, SinkInput, Written};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Hands records over in files: one for each checkpoint, complete when it is to be seen.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartsConfig {
    /// The folder; it is made if it is not there.
    pub folder: PathBuf,
}

/// A file that nobody may take yet.
const HIDDEN: &str = ".";

/// The file that is being written.
struct Draft {
    name: String,
    file: File,
}

/// The sink: the file of the checkpoint to come, while it is written.
pub struct Parts {
    folder: PathBuf,
    context: Context,
    draft: Option<Draft>,
    /// Files so far, of this start of the job.
    files: u64,
    /// The lines of a batch; kept for its memory.
    lines: Vec<u8>,
}

impl Parts {
    fn outside(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
        move |error| Error::external(format!("{}: {error}", path.display())).retryable()
    }

    fn hidden(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{HIDDEN}{name}"))
    }

    /// What a file's name begins with, whichever start of the job wrote it.
    fn prefix(&self) -> String {
        format!("{}-{}-", self.context.job_name, self.context.node)
    }

    /// A name that was never given: the generation is another one at every start of the job, and a job that begins anew finds the files of the one before.
    fn begin(&mut self) -> Result<Draft> {
        loop {
            self.files += 1;
            let name = format!("{}{}-{}.jsonl", self.prefix(), self.context.generation, self.files);
            if !self.folder.join(&name).exists() {
                let path = self.hidden(&name);
                let file = File::create(&path).map_err(Self::outside(&path))?;
                return Ok(Draft { name, file });
            }
        }
    }

    /// Names are safe on disk when their folder is.
    fn sync_folder(&self) -> Result<()> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(Self::outside(&self.folder))
    }

    fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Self::outside(path)(error)),
            _ => Ok(()),
        }
    }
}

/// What was prepared: the file's name. Nothing was written: nothing.
fn name(prepared: &Committable) -> Option<&str> {
    std::str::from_utf8(&prepared.bytes).ok().filter(|name| !name.is_empty())
}

impl Sink for Parts {
    const NAME: &'static str = "exhibit-parts";
    type Config = PartsConfig;

    fn declare(_: &PartsConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration {
            encoding: Encoding::Records,
            // Rows are to be seen at `commit` only: the host calls `prepare` and `commit`, not `flush`.
            capabilities: Capabilities { ordered: true, transactional: true, ..Capabilities::default() },
            max_subtasks: Some(1),
            ..SinkDeclaration::default()
        })
    }

    fn open(config: PartsConfig, _: &SinkInput, context: Context) -> Result<Self> {
        fs::create_dir_all(&config.folder).map_err(Self::outside(&config.folder))?;
        Ok(Self { folder: config.folder, context, draft: None, files: 0, lines: Vec::new() })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        let records = batch.column(0).as_binary_opt::<i32>().ok_or_else(|| Error::data("expected records"))?;
        self.lines.clear();
        for record in records.iter().flatten() {
            self.lines.extend_from_slice(record);
            self.lines.push(b'\n');
        }
        let mut draft = match self.draft.take() {
            Some(draft) => draft,
            None => self.begin()?,
        };
        draft.file.write_all(&self.lines).map_err(Self::outside(&self.hidden(&draft.name)))?;
        self.draft = Some(draft);
        // "I have it": what makes it safe is the checkpoint.
        self.context.host.ack(seq);
        Ok(Written::Taken)
    }

    /// Never called for a transactional sink within a checkpoint.
    fn flush(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    /// From here on the file must survive whatever happens, and nobody may see it.
    fn prepare(&mut self, _: u64) -> Result<Vec<u8>> {
        let Some(draft) = self.draft.take() else { return Ok(Vec::new()) };
        draft.file.sync_all().map_err(Self::outside(&self.hidden(&draft.name)))?;
        self.sync_folder()?;
        Ok(draft.name.into_bytes())
    }

    /// The checkpoint is durable: the file may be seen. It may have been committed before, by this process or by one that died.
    fn commit(&mut self, _: u64, prepared: &[Committable]) -> Result<()> {
        for name in prepared.iter().filter_map(name) {
            let (hidden, seen) = (self.hidden(name), self.folder.join(name));
            match fs::rename(&hidden, &seen) {
                Err(error) if error.kind() != io::ErrorKind::NotFound || !seen.exists() => return Err(Self::outside(&hidden)(error)),
                _ => {}
            }
        }
        self.sync_folder()
    }

    /// After a restart: what the checkpoint has is committed; drafts that it has not belong to rows that come again.
    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        let kept: Vec<PathBuf> = prepared.iter().filter_map(name).map(|name| self.hidden(name)).collect();
        let prefix = format!("{HIDDEN}{}", self.prefix());
        for entry in fs::read_dir(&self.folder).map_err(Self::outside(&self.folder))? {
            let path = entry.map_err(Self::outside(&self.folder))?.path();
            let is_draft = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix));
            if is_draft && !kept.contains(&path) {
                Self::remove(&path)?;
            }
        }
        let fate = |prepared: &Committable| match name(prepared) {
            None => Recovered::Committed,
            Some(name) if self.folder.join(name).exists() => Recovered::Committed,
            Some(name) if self.hidden(name).exists() => Recovered::Commit,
            Some(_) => Recovered::Lost,
        };
        Ok(prepared.iter().map(fate).collect())
    }

    /// The job goes on from an older checkpoint: these rows come again, so their files must go, seen or not.
    fn abort(&mut self, prepared: &[Committable]) -> Result<()> {
        for name in prepared.iter().filter_map(name) {
            Self::remove(&self.hidden(name))?;
            Self::remove(&self.folder.join(name))?;
        }
        self.sync_folder()
    }
}
