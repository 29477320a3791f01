//! When rows come: splits, positions and the rate. The position in a split is the number of its rows that have been given, as decimal text.
//!
//! The enumerator decides the time of the first row, so that a restart finds the same; readers build batches with [`crate::columns`].

use crate::{
    columns::{Clock, Columns, Rows},
    config::{GeneratorConfig, Start},
};
use standpipe_sdk::{
    Context, Enumerator, Error, Poll, PollLimits, Result, Source, SourceDeclaration, Split,
    source::{Capabilities, Discovery, Encoding, SplitDescription},
};
use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

/// With a rate, rows are held back so long, so that batches have more than one.
const LINGER: Duration = Duration::from_millis(10);

fn wrong_config(message: String) -> Error {
    Error::config("", message)
}

/// Tells the splits and the time of the first row.
pub struct GeneratorEnumerator {
    config: GeneratorConfig,
    /// Microseconds since the epoch.
    start: i64,
    is_told: bool,
}

impl Enumerator for GeneratorEnumerator {
    type Config = GeneratorConfig;

    fn open(config: GeneratorConfig, context: Context) -> Result<Self> {
        let start = match config.start().map_err(wrong_config)? {
            Start::At(time) => time,
            Start::Now => context.host.now(),
        };
        Ok(Self { config, start, is_told: false })
    }

    fn discover(&mut self, _: Duration) -> Result<Discovery> {
        let splits = if self.is_told { 0 } else { self.config.splits };
        self.is_told = true;
        let added = (0..splits).map(|split| SplitDescription { split: split.to_string(), details: self.start.to_string() }).collect();
        Ok(Discovery { added, removed: Vec::new(), exhausted: true })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(self.start.to_string().into_bytes())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<()> {
        self.start = parse(snapshot, "the time of the first row")?;
        Ok(())
    }
}

fn parse<T: std::str::FromStr>(bytes: &[u8], what: &str) -> Result<T> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| Error::data(format!("{text:?} is not {what}")))
}

struct OpenSplit {
    id: String,
    number: u64,
    clock: Clock,
    /// Rows given.
    given: u64,
}

impl OpenSplit {
    const fn next_row(&self, splits: u64) -> u64 {
        self.number + self.given * splits
    }
}

/// It does not wait longer at a time, for it does not look whether it is cancelled.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Gives the rows of its splits in the order of their numbers, as far as batches allow.
pub struct GeneratorSource {
    config: GeneratorConfig,
    columns: Columns,
    splits: Vec<OpenSplit>,
    paused: HashSet<String>,
    /// With a rate: row `.1` is due at `.0`.
    pace: Option<(Instant, u64)>,
}

impl Source for GeneratorSource {
    const NAME: &'static str = "generator";
    type Config = GeneratorConfig;
    type Enumerator = GeneratorEnumerator;

    fn declare(config: &GeneratorConfig) -> Result<SourceDeclaration> {
        let problems = config.problems();
        let schema = match Columns::of(config) {
            Ok(columns) => columns.schema(),
            Err(_) => std::sync::Arc::new(arrow_schema::Schema::empty()),
        };
        let capabilities =
            Capabilities { bounded: config.count.is_some(), replayable: true, rewinds: true, ordered: true, ..Capabilities::default() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema, capabilities, problems })
    }

    fn open(config: GeneratorConfig, _: Context) -> Result<Self> {
        let columns = Columns::of(&config).map_err(wrong_config)?;
        Ok(Self { config, columns, splits: Vec::new(), paused: HashSet::new(), pace: None })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        let step = self.config.step().map_err(wrong_config)?;
        for split in splits {
            let number = parse(split.id.as_bytes(), "the number of a split")?;
            let start = parse(split.details.as_bytes(), "the time of the first row")?;
            let given = split.position.as_deref().map_or(Ok(0), |position| parse(position, "a number of rows"))?;
            self.splits.push(OpenSplit { id: split.id, number, clock: Clock { start, step }, given });
        }
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        self.paused.retain(|id| !splits.contains(id));
        splits.iter().map(|id| Ok(self.remove(id)?.given.to_string().into_bytes())).collect()
    }

    fn pause(&mut self, splits: &[String]) -> Result<()> {
        self.paused.extend(splits.iter().cloned());
        Ok(())
    }

    fn resume(&mut self, splits: &[String]) -> Result<()> {
        self.paused.retain(|id| !splits.contains(id));
        Ok(())
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let limits = PollLimits { wait: limits.wait.min(LONGEST_WAIT), ..limits };
        let stride = u64::from(self.config.splits);
        let active = self.splits.iter_mut().filter(|split| !self.paused.contains(&split.id));
        let Some(split) = active.min_by_key(|split| split.next_row(stride)) else {
            thread::sleep(limits.wait);
            return Ok(Poll::Idle);
        };
        let first = split.next_row(stride);
        let left = self.config.count.unwrap_or(u64::MAX).saturating_sub(first).div_ceil(stride);
        if left == 0 {
            let id = split.id.clone();
            self.remove(&id)?;
            return Ok(Poll::EndOfSplit(id));
        }
        let due = match self.config.rate {
            None => u64::MAX,
            Some(rate) => due_rows(self.pace.get_or_insert_with(|| (Instant::now(), first)), rate, first, limits.wait).div_ceil(stride),
        };
        if due == 0 {
            return Ok(Poll::Idle);
        }
        let room = limits.max_rows.min(limits.max_bytes / self.columns.row_bytes().max(1)).max(1) as u64;
        let rows = Rows { first, stride, count: room.min(left).min(due) as usize };
        let batch = self.columns.build(split.clock, rows)?;
        split.given += rows.count as u64;
        Ok(Poll::Batch { split: split.id.clone(), batch, position: split.given.to_string().into_bytes(), watermark: None })
    }
}

impl GeneratorSource {
    fn remove(&mut self, id: &str) -> Result<OpenSplit> {
        let at = self.splits.iter().position(|split| split.id == id);
        let at = at.ok_or_else(|| Error::data(format!("the split {id} is not read here")))?;
        Ok(self.splits.swap_remove(at))
    }
}

/// How many rows from `first` on are due by the rate: none until [`LINGER`] after the first of them is due, for which it waits.
fn due_rows(pace: &(Instant, u64), rate: f64, first: u64, wait: Duration) -> u64 {
    let (begin, base) = pace;
    let due = Duration::try_from_secs_f64(first.saturating_sub(*base) as f64 / rate).unwrap_or(Duration::MAX);
    let ready = due.saturating_add(LINGER);
    let left = ready.saturating_sub(begin.elapsed());
    if !left.is_zero() {
        thread::sleep(left.min(wait));
    }
    let elapsed = begin.elapsed();
    if elapsed < ready {
        return 0;
    }
    let since_base = (elapsed.as_secs_f64() * rate) as u64;
    base.saturating_add(since_base).saturating_add(1).saturating_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_is_too_high_to_count_with() {
        let begin = Instant::now() - Duration::from_secs(1);
        for (base, rate) in [(0, 1e25), (0, f64::MAX), (u64::MAX - 1, 1e3), (7, 1e19)] {
            let due = due_rows(&(begin, base), rate, base, Duration::ZERO);
            assert!(due >= 1_000.min(u64::MAX - base), "{due} of base {base}, rate {rate}");
        }
        assert_eq!(due_rows(&(begin, 0), 1e-300, 1, Duration::ZERO), 0);
    }
}
