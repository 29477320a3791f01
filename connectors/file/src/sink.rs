//! The sink: what a user can ask for, and which of the two ways of writing it is: one file ([`crate::single`]), or parts in a folder ([`crate::parts`]).

use crate::{
    content::{self, format_of},
    enumerate::STDIN as STDOUT,
    parts::{self, store},
    single::Single,
};
use arrow_array::RecordBatch;
use arrow_schema::Schema;
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_formats::{FormatKind, FormatSpec, template::Template};
use standpipe_sdk::{
    CloseReason, Committable, Context, Error, Recovered, Result, Secret, Sink, SinkDeclaration, SinkInput, Written, is_reference,
    sink::{Capabilities, ChangeMode, Encoding, TypeClass},
    units::{Size, Time},
    wire::Problem,
};
use std::{collections::BTreeMap, time::Duration};

/// What the path of one file may hold.
pub(crate) const SUBTASK: &str = "{subtask}";

/// Writes one file, or parts into a folder. A file is written as `PATH.inprogress` and gets its name, replacing an older one, when the job has ended; a part gets its name at a checkpoint.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct FileSinkConfig {
    /// A file, a named pipe (the job waits for its reader), or `-` for standard output: `{subtask}` stands for the number of the subtask, from 0; without it there is one subtask. Or a folder for parts, which ends with `/`: of the disk, or the URL of an object store (`s3://`, `gs://`, `az://`); columns may be in it: `out/day={ts:%Y-%m-%d}/host={host}/`.
    pub path: String,
    /// Whether a newline follows each record.
    #[serde(default = "default_newline")]
    pub newline: bool,
    /// Whether to create the directory that the file or folder is in.
    #[serde(default)]
    pub create_dirs: bool,
    /// When a part of a folder is full.
    #[serde(default)]
    pub roll: Option<Roll>,
    /// Options of the object store (`aws_endpoint`, `aws_allow_http`, ...), stronger than the environment (`AWS_ENDPOINT`, ...).
    #[serde(default)]
    pub options: BTreeMap<String, Secret>,
}

const fn default_newline() -> bool {
    true
}

/// When a part of a folder is full.
#[derive(Deserialize, JsonSchema, Debug, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub struct Roll {
    /// With so many bytes, give or take a batch.
    #[serde(default = "default_size")]
    pub size: Size,
    /// At the first checkpoint or row so long after it was begun.
    #[serde(default = "default_interval")]
    pub interval: Time,
}

const fn default_size() -> Size {
    Size(128 << 20)
}

const fn default_interval() -> Time {
    Time(Duration::from_secs(600))
}

impl Default for Roll {
    fn default() -> Self {
        Self { size: default_size(), interval: default_interval() }
    }
}

impl FileSinkConfig {
    fn is_folder(&self) -> bool {
        self.path.ends_with('/') || store::is_url(&self.path)
    }

    /// What is wrong with it, and `columns` of the rows. As it is written: of a path with references only what they cannot change.
    fn problems(&self, columns: &Schema, spec: &FormatSpec, stage: Stage) -> Vec<Problem> {
        let is_known = stage == Stage::Resolved || !is_reference(&self.path);
        let mut problems = Vec::new();
        let mut wrong = |path: &str, message: String, suggestion: Option<String>| {
            problems.push(Problem { path: path.to_owned(), message, suggestion });
        };
        if self.path.is_empty() {
            wrong("path", "is empty".to_owned(), None);
        } else if self.is_folder() {
            if let Err((message, suggestion)) = parts::check(&self.path, is_known, columns) {
                wrong("path", message, suggestion);
            }
        } else if is_known && spec.kind == FormatKind::Parquet {
            wrong("path", format!("{:?} is one file; parquet is written in parts, into a folder: end the path with /", self.path), None);
        }
        if !self.is_folder() && self.roll.is_some() && is_known {
            wrong("roll", "is for the parts of a folder: end the path with /".to_owned(), None);
        }
        if self.roll.is_some_and(|roll| roll.size.0 == 0) {
            wrong("roll.size", "must be more than 0B".to_owned(), None);
        }
        if self.roll.is_some_and(|roll| roll.size.0 as u64 > store::MAX_PART) && is_known && store::is_remote(&self.path) {
            wrong(
                "roll.size",
                format!("must be at most {}GiB: an object has {} pieces at most", store::MAX_PART >> 30, store::MAX_PIECES),
                None,
            );
        }
        for key in self.options.keys().filter(|_| is_known) {
            if let Err(message) = store::check_option(&self.path, key) {
                wrong(&format!("options.{key}"), message, None);
            }
        }
        problems
    }
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The pipeline, as it is written.
    Written,
    /// What its references stand for is known.
    Resolved,
}

/// A way of writing, with the calls of a [`Sink`].
pub(crate) trait Writer: Send {
    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written>;
    fn flush(&mut self, checkpoint: u64) -> Result<()>;
    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>>;
    fn commit(&mut self, prepared: &[Committable]) -> Result<()>;
    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>>;
    fn finish(&mut self) -> Result<()>;
    fn close(&mut self, reason: CloseReason) -> Result<()>;
}

/// Writes files.
pub struct FileSink(Box<dyn Writer>);

impl Sink for FileSink {
    const NAME: &'static str = "file";
    type Config = FileSinkConfig;

    fn declare(config: &FileSinkConfig, input: &SinkInput) -> Result<SinkDeclaration> {
        let spec = format_of(input)?;
        let encodes = spec.of_files().is_some();
        let columns = match config.is_folder() && !encodes {
            true => {
                let path = parts::without_references(&config.path);
                Template::names(&path).unwrap_or_default().into_iter().map(str::to_owned).collect()
            }
            false => Vec::new(),
        };
        let types = match encodes {
            true => vec![TypeClass::Dictionary, TypeClass::Large, TypeClass::View, TypeClass::ListView, TypeClass::Nested],
            false => Vec::new(),
        };
        Ok(SinkDeclaration {
            encoding: if encodes { Encoding::Files } else { Encoding::Records },
            columns,
            types,
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract],
            capabilities: Capabilities { ordered: true, transactional: config.path != STDOUT, ..Capabilities::default() },
            max_subtasks: (!config.is_folder() && !config.path.contains(SUBTASK)).then_some(1),
            problems: config.problems(&input.schema, &spec, Stage::Written),
            ..SinkDeclaration::default()
        })
    }

    fn open(config: FileSinkConfig, input: &SinkInput, context: Context) -> Result<Self> {
        let spec = format_of(input)?;
        let columns = content::columns(input, &spec);
        if let Some(problem) = config.problems(&columns, &spec, Stage::Resolved).into_iter().next() {
            let error = Error::config(problem.path, problem.message);
            return Err(problem.suggestion.into_iter().fold(error, |error, suggestion| error.with("suggestion", suggestion)));
        }
        if config.path == STDOUT && context.references.contains_key("path") {
            return Err(Error::config(
                "path",
                "is a reference that stands for standard output, of which no checkpoint holds what it does of a file: write - itself",
            ));
        }
        Ok(Self(match config.is_folder() {
            true => parts::open(&config, input, context)?,
            false => Box::new(Single::open(&config, input, context)?),
        }))
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.0.write(seq, batch)
    }

    fn flush(&mut self, checkpoint: u64) -> Result<()> {
        self.0.flush(checkpoint)
    }

    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        self.0.prepare(checkpoint)
    }

    fn commit(&mut self, _: u64, prepared: &[Committable]) -> Result<()> {
        self.0.commit(prepared)
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        self.0.recover(prepared)
    }

    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        self.0.close(reason)
    }
}
