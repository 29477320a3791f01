//! The source: reads the files that a subtask is assigned, in turns, at most [`MAX_OPEN`] of them at a time; one that is paused is closed. The position in a file is the byte behind the last
//! record given, as decimal text.
//!
//! Records come from [`crate::lines`] and leave as a binary column `value`, which the host decodes.

use crate::{
    FileEnumerator,
    enumerate::{STDIN, is_pattern},
    lines::{Limits, LineReader, Lines, Next, wait_for},
};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Context, Error, Poll, PollLimits, Result, Source, SourceDeclaration, Split, is_reference,
    source::{Capabilities, Encoding},
    wire::{Problem, ROLE, ROLE_POSITION, VALUE_COLUMN},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    iter::repeat_n,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Files that a subtask has open at the same time.
const MAX_OPEN: usize = 16;
/// Bytes of a batch at most, give or take a record, whatever the host allows.
const MAX_BATCH_BYTES: usize = 64 << 20;
/// The longest record that may be asked for: a batch's offsets have 31 bits.
const LONGEST_RECORD: u32 = 1 << 30;

/// Standard input has been read in this process: nobody can read it again.
static STDIN_TAKEN: AtomicBool = AtomicBool::new(false);

/// Reads lines of files. A record is a line without its newline (`\n` or `\r\n`); empty lines are skipped; the last line needs no newline.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct FileSourceConfig {
    /// A file or named pipe, a pattern with `*`, `?`, `[...]` or `**` (the files are read in the order of their paths), or `-` for standard input.
    pub path: String,
    /// Columns that say where a record comes from: `path`, `offset` (of its first byte in the file).
    #[serde(default)]
    pub metadata: Vec<MetadataColumn>,
    /// A longer record is an error. At most 1 GiB.
    #[serde(default = "default_max_record_bytes")]
    pub max_record_bytes: u32,
}

const fn default_max_record_bytes() -> u32 {
    64 << 20
}

/// A column that says where a record comes from.
#[derive(Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum MetadataColumn {
    /// The file's path, a string.
    Path,
    /// The place of the record's first byte in the file, int64.
    Offset,
}

impl FileSourceConfig {
    fn schema(&self) -> SchemaRef {
        let mut fields = vec![Field::new(VALUE_COLUMN, DataType::Binary, false)];
        fields.extend(self.metadata.iter().map(|column| match column {
            MetadataColumn::Path => Field::new("path", DataType::Utf8, false),
            MetadataColumn::Offset => {
                let role = (ROLE.to_owned(), ROLE_POSITION.to_owned());
                Field::new("offset", DataType::Int64, false).with_metadata(HashMap::from([role]))
            }
        }));
        Arc::new(Schema::new(fields))
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |path: String, message: String| problems.push(Problem { path, message, suggestion: None });
        if self.path.is_empty() {
            wrong("path".to_owned(), "is empty".to_owned());
        } else if !is_reference(&self.path)
            && is_pattern(&self.path)
            && let Err(error) = glob::Pattern::new(&self.path)
        {
            wrong("path".to_owned(), format!("{:?} is no pattern: {error}", self.path));
        }
        for (index, column) in self.metadata.iter().enumerate() {
            if self.metadata[..index].contains(column) {
                wrong(format!("metadata[{index}]"), "is there twice".to_owned());
            }
        }
        if !(1..=LONGEST_RECORD).contains(&self.max_record_bytes) {
            wrong("max_record_bytes".to_owned(), format!("{} is not between 1 and {LONGEST_RECORD}", self.max_record_bytes));
        }
        problems
    }
}

/// It does not wait longer at a time, for it does not look whether it is cancelled.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Reads the files that it is assigned.
pub struct FileSource {
    config: FileSourceConfig,
    schema: SchemaRef,
    /// Not opened yet, with the position to begin at.
    waiting: VecDeque<(String, u64)>,
    /// The next one to read first.
    open: VecDeque<OpenSplit>,
    paused: HashSet<String>,
}

struct OpenSplit {
    id: String,
    reader: LineReader,
}

impl Source for FileSource {
    const NAME: &'static str = "file";
    type Config = FileSourceConfig;
    type Enumerator = FileEnumerator;

    fn declare(config: &FileSourceConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: true, replayable: config.path != STDIN, ordered: true, ..Capabilities::default() };
        Ok(SourceDeclaration { encoding: Encoding::Records, schema: config.schema(), capabilities, problems: config.problems() })
    }

    fn open(config: FileSourceConfig, _: Context) -> Result<Self> {
        let schema = config.schema();
        Ok(Self { config, schema, waiting: VecDeque::new(), open: VecDeque::new(), paused: HashSet::new() })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let position = parse_position(&split)?;
            self.waiting.push_back((split.id, position));
        }
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let mut positions = Vec::with_capacity(splits.len());
        for id in splits {
            let position = if let Some(at) = self.open.iter().position(|split| split.id == *id) {
                self.open.remove(at).map(|split| split.reader.position())
            } else {
                let at = self.waiting.iter().position(|(waiting, _)| waiting == id);
                at.and_then(|at| self.waiting.remove(at)).map(|(_, position)| position)
            };
            let position = position.ok_or_else(|| Error::data(format!("the split {id} is not read here")))?;
            positions.push(position.to_string().into_bytes());
        }
        self.paused.retain(|split| !splits.contains(split));
        Ok(positions)
    }

    /// A file that is paused is closed: there may be more of them than may be open.
    fn pause(&mut self, splits: &[String]) -> Result<()> {
        self.paused.extend(splits.iter().cloned());
        for split in std::mem::take(&mut self.open) {
            if self.paused.contains(&split.id) && split.reader.can_be_opened_again() {
                self.waiting.push_back((split.id, split.reader.position()));
            } else {
                self.open.push_back(split);
            }
        }
        Ok(())
    }

    fn resume(&mut self, splits: &[String]) -> Result<()> {
        splits.iter().for_each(|split| {
            self.paused.remove(split);
        });
        Ok(())
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        self.open_more()?;
        let found = self.read_turn(limits)?;
        if !matches!(found, Poll::Idle) || limits.wait.is_zero() {
            return Ok(found);
        }
        let pipes: Vec<_> = self.open.iter().filter(|split| !self.paused.contains(&split.id)).map(|split| split.reader.as_fd()).collect();
        if wait_for(pipes, limits.wait.min(LONGEST_WAIT))? { self.read_turn(limits) } else { Ok(Poll::Idle) }
    }
}

impl FileSource {
    fn open_more(&mut self) -> Result<()> {
        let read = |open: &VecDeque<OpenSplit>, paused: &HashSet<String>| open.iter().filter(|split| !paused.contains(&split.id)).count();
        while read(&self.open, &self.paused) < MAX_OPEN {
            let next = self.waiting.iter().position(|(id, _)| !self.paused.contains(id));
            let Some((id, position)) = next.and_then(|next| self.waiting.remove(next)) else { return Ok(()) };
            let max_record = self.config.max_record_bytes as usize;
            let reader = if id == STDIN { take_stdin(position, max_record)? } else { LineReader::open(&id, position, max_record)? };
            self.open.push_back(OpenSplit { id, reader });
        }
        Ok(())
    }

    /// Reads from the first split that has something, and puts it at the end of the line.
    fn read_turn(&mut self, limits: PollLimits) -> Result<Poll> {
        let take = Limits {
            rows: limits.max_rows.max(1),
            bytes: limits.max_bytes.clamp(1, MAX_BATCH_BYTES),
            starts: self.config.metadata.contains(&MetadataColumn::Offset),
        };
        for _ in 0..self.open.len() {
            let Some(mut split) = self.open.pop_front() else { break };
            if self.paused.contains(&split.id) {
                self.open.push_back(split);
                continue;
            }
            match split.reader.next(take)? {
                Next::End => return Ok(Poll::EndOfSplit(split.id)),
                Next::NotReady => self.open.push_back(split),
                Next::Lines(lines) => {
                    let batch = self.batch(&split.id, lines)?;
                    let position = split.reader.position().to_string().into_bytes();
                    let id = split.id.clone();
                    self.open.push_back(split);
                    return Ok(Poll::Batch { split: id, batch, position, watermark: None });
                }
            }
        }
        Ok(Poll::Idle)
    }

    fn batch(&self, path: &str, lines: Lines) -> Result<RecordBatch> {
        let (rows, mut starts) = (lines.len(), lines.starts);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(lines.offsets));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(lines.values), None)?)];
        for column in &self.config.metadata {
            columns.push(match column {
                MetadataColumn::Path => Arc::new(StringArray::from_iter_values(repeat_n(path, rows))),
                MetadataColumn::Offset => Arc::new(Int64Array::from(starts.take().unwrap_or_default())),
            });
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

fn parse_position(split: &Split) -> Result<u64> {
    let Some(position) = &split.position else { return Ok(0) };
    let text = std::str::from_utf8(position).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| Error::data(format!("the position {:?} of {} is no byte count", String::from_utf8_lossy(position), split.id)))
}

fn take_stdin(position: u64, max_record: usize) -> Result<LineReader> {
    if position > 0 || STDIN_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Error::external("standard input has been read already and cannot be read again: a job that may restart needs a file"));
    }
    Ok(LineReader::stdin(max_record))
}
