//! A source of numbered rows.

use super::Probe;
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use standpipe_sdk::{
    CloseReason, Context, Enumerator, Error, Poll, PollLimits, Result, Source, SourceDeclaration, Split,
    sink::Encoding,
    source::{Discovery, SplitDescription},
    wire::Capabilities,
};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

/// Columns of the source: a key, an event time, a number that is unique in the job.
pub fn numbers_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("n", DataType::Int64, false),
    ]))
}

/// Row `i` of a split: what the tests' naive references compute with.
pub fn number(split: u64, i: u64, keys: u64) -> (String, i64, i64) {
    let n = split * 1_000_000_000 + i;
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    // Event times run ahead and fall back by up to 5 ms.
    (format!("key-{}", mixed % keys), (i * 100 + mixed % 5_000) as i64, n as i64)
}

/// Numbered rows.
#[derive(serde::Deserialize, schemars::JsonSchema, Clone)]
pub struct NumbersConfig {
    pub probe: String,
    #[serde(default = "one")]
    pub splits: u64,
    /// Per split; none: without end.
    pub rows: Option<u64>,
    #[serde(default = "batch")]
    pub batch: u64,
    #[serde(default = "ten")]
    pub keys: u64,
    /// Fails after so many rows of a split.
    pub fail_at: Option<u64>,
    /// Panics after so many rows of a split.
    pub panic_at: Option<u64>,
    /// Why it cannot be opened.
    pub missing: Option<String>,
    /// Rows a second and split; none: as fast as it can.
    pub rate: Option<u64>,
    /// Splits from this one on give no more after `quiet_after` rows, without an end, until the probe awakens them.
    #[serde(default = "one")]
    pub quiet_from: u64,
    pub quiet_after: Option<u64>,
    /// A quiet split says so by a batch without rows.
    #[serde(default)]
    pub says_quiet: bool,
    /// What it reads is gone for good after so many polls that found nothing.
    pub gone_after: Option<u32>,
    /// So many calls fail in a way that may pass, after some rows.
    #[serde(default)]
    pub flaky: u32,
    /// Only one split is found at a time.
    #[serde(default)]
    pub one_by_one: bool,
    /// Event times of the first split are so many times as far apart.
    #[serde(default = "one")]
    pub stretch: u64,
    /// It can pause splits.
    #[serde(default)]
    pub pauses: bool,
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}

fn batch() -> u64 {
    500
}

pub struct Numbers {
    config: NumbersConfig,
    node: String,
    subtask: u32,
    /// Id, number, the next row, the first row of this run.
    splits: Vec<(String, u64, u64, u64)>,
    next: usize,
    began: Instant,
    flaked: u32,
    polls: u32,
    paused: Vec<String>,
}

impl Source for Numbers {
    const NAME: &'static str = "numbers";
    type Config = NumbersConfig;
    type Enumerator = NumbersSplits;

    fn declare(config: &NumbersConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: config.rows.is_some(), replayable: true, ..Default::default() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: numbers_schema(), capabilities, problems: Vec::new() })
    }

    fn open(config: NumbersConfig, context: Context) -> Result<Self> {
        Ok(Self {
            config,
            node: context.node,
            subtask: context.subtask,
            splits: Vec::new(),
            next: 0,
            began: Instant::now(),
            flaked: 0,
            polls: 0,
            paused: Vec::new(),
        })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let number = split.id.trim_start_matches("split-").parse()?;
            let at = split.position.as_deref().map_or(Ok(0), |position| String::from_utf8_lossy(position).parse())?;
            self.splits.push((split.id, number, at, at));
        }
        Ok(())
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let probe = Probe::of(&self.config.probe);
        if self.splits.is_empty() {
            return Ok(Poll::Idle);
        }
        if let Some(gone_after) = self.config.gone_after {
            self.polls += 1;
            return if self.polls <= gone_after { Ok(Poll::Idle) } else { Err(Error::external("the topic is gone")) };
        }
        self.next = (self.next + 1) % self.splits.len();
        while self.paused.contains(&self.splits[self.next].0) {
            assert!(self.paused.len() < self.splits.len(), "polled though all splits are paused");
            self.next = (self.next + 1) % self.splits.len();
        }
        let (id, split, at, first) = self.splits[self.next].clone();
        if self.config.rows.is_some_and(|rows| at >= rows) {
            self.splits.remove(self.next);
            return Ok(Poll::EndOfSplit(id));
        }
        if self.config.fail_at.is_some_and(|fail_at| at >= fail_at) {
            probe.fails();
            return Err(Error::data(format!("row {at} is broken")));
        }
        if self.config.panic_at.is_some_and(|panic_at| at >= panic_at) {
            probe.fails();
            panic!("the source is broken at row {at}");
        }
        if at >= 1000 && self.flaked < self.config.flaky {
            self.flaked += 1;
            return Err(Error::external("the broker does not answer").retryable());
        }
        let is_quiet = split >= self.config.quiet_from && !probe.awake.load(SeqCst);
        let quiet_after = self.config.quiet_after.filter(|_| is_quiet).unwrap_or(u64::MAX);
        if at >= quiet_after {
            if self.config.says_quiet {
                let batch = RecordBatch::new_empty(numbers_schema());
                return Ok(Poll::Batch { split: id, batch, position: at.to_string().into_bytes(), watermark: None });
            }
            return Ok(Poll::Idle);
        }
        let mut count =
            self.config.batch.min(limits.max_rows as u64).min(quiet_after - at).min(self.config.rows.map_or(u64::MAX, |rows| rows - at));
        if let Some(rate) = self.config.rate {
            let due = first + (self.began.elapsed().as_secs_f64() * rate as f64) as u64;
            count = count.min(due.saturating_sub(at));
            if count == 0 {
                std::thread::sleep(limits.wait.min(Duration::from_millis(2)));
                return Ok(Poll::Idle);
            }
        }
        let rows: Vec<_> = (at..at + count).map(|i| number(split, i, self.config.keys)).collect();
        let stretch = if split == 0 { self.config.stretch as i64 } else { 1 };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| Some(row.0.as_str())).collect::<StringArray>()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1 * stretch))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        self.splits[self.next].2 = at + count;
        probe.read.fetch_add(count, SeqCst);
        let batch = RecordBatch::try_new(numbers_schema(), columns)?;
        Ok(Poll::Batch { split: id, batch, position: (at + count).to_string().into_bytes(), watermark: None })
    }

    fn pause(&mut self, splits: &[String]) -> Result<()> {
        if !self.config.pauses {
            return Err(Error::unsupported("numbers come as they come"));
        }
        for split in splits {
            assert!(self.splits.iter().any(|known| known.0 == *split) && !self.paused.contains(split), "{split} is not to be paused");
        }
        self.paused.extend_from_slice(splits);
        Probe::of(&self.config.probe).paused.fetch_add(splits.len() as u64, SeqCst);
        Ok(())
    }

    fn resume(&mut self, splits: &[String]) -> Result<()> {
        assert!(splits.iter().all(|split| self.paused.contains(split)), "{splits:?} are not paused");
        self.paused.retain(|split| !splits.contains(split));
        Ok(())
    }

    fn checkpoint_committed(&mut self, _: u64, positions: &[(String, Vec<u8>)]) -> Result<()> {
        let probe = Probe::of(&self.config.probe);
        probe.committed.lock().unwrap().extend(positions.iter().cloned());
        Ok(())
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        Probe::of(&self.config.probe).closed.lock().unwrap().push((self.node.clone(), self.subtask, reason));
        Ok(())
    }
}

pub struct NumbersSplits(NumbersConfig, u64);

impl Enumerator for NumbersSplits {
    type Config = NumbersConfig;

    fn open(config: NumbersConfig, _: Context) -> Result<Self> {
        match &config.missing {
            Some(missing) => {
                Probe::of(&config.probe).fails();
                Err(Error::external(missing))
            }
            None => Ok(Self(config, 0)),
        }
    }

    fn discover(&mut self, _: Duration) -> Result<Discovery> {
        let split = |i| SplitDescription { split: format!("split-{i}"), details: String::new() };
        let begin = self.1;
        self.1 = if self.0.one_by_one { begin + 1 } else { self.0.splits };
        Ok(Discovery { added: (begin..self.1).map(split).collect(), removed: Vec::new(), exhausted: self.1 == self.0.splits })
    }
}

/// The event times of a batch of numbers.
pub fn event_times(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
}
