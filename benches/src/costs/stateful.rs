//! The job with state, `pipelines/stateful.yaml`: its variants, and whether what it gives is right.
//!
//! Every row has what was added and the sum so far; so each sum must be the one before it of the same key and the row's value. After a restart, rows that come again must be
//! the same ones, and those behind them must go on from their sums: state that is lost, doubled or of another moment is seen.

use super::job::Reader;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Where state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// A plugin's state in memory.
    Memory,
    /// A plugin's state on disk, with the cache that is the default.
    Disk,
    /// An aggregate of the engine, which is in memory.
    Aggregate,
}

impl Keeper {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Aggregate];

    /// For `--only`, and for tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Aggregate => "aggregate",
        }
    }

    /// For tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Memory => "plugin's state, in memory",
            Self::Disk => "plugin's state, on disk, cache of 64 MiB",
            Self::Aggregate => "aggregate without a window",
        }
    }

    /// `--set` arguments, besides those of the pipeline.
    pub(crate) fn settings(self, scratch: &str) -> Vec<String> {
        match self {
            Self::Memory => Vec::new(),
            Self::Disk => vec![format!("engine.state={{backend: disk, dir: {scratch:?}, cache: 64MiB}}")],
            Self::Aggregate => vec![
                "transforms.sums={input: both, key_by: [id], emit: each, aggregate: {n: \"last_value(n)\", value: \"last_value(value)\", running_sum: \"sum(value)\"}}"
                    .to_owned(),
            ],
        }
    }
}

/// A row of its output. `n` is the number of the update, -1 where a key comes for the first time.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    id: u64,
    n: i64,
    value: i64,
    running_sum: i64,
}

/// Reads the output of one job, over its restarts.
#[derive(Default)]
pub(crate) struct Sums {
    /// By key.
    sums: Vec<i64>,
    /// Keys that have come for the first time.
    pub(crate) filled: usize,
    /// Every update that has come, in order.
    updates: Vec<Row>,
    /// The number of the next update from this start of the job; after a kill `None` until the first comes.
    next: Option<usize>,
    /// Until the killed process is known to be through.
    killed: Option<Instant>,
    /// The first row of a job that was killed and started again; and the first that had not come before.
    pub(crate) first: Option<Instant>,
    /// See `first`.
    pub(crate) new: Option<Instant>,
    /// The first row of all.
    pub(crate) begun: Option<Instant>,
    /// A restored job need not begin with the first update, and its sums are taken as they come.
    restored: bool,
}

impl Sums {
    /// Of a job that begins with so many keys.
    pub(crate) fn new(keys: usize) -> Self {
        Self { sums: vec![0; keys], next: Some(0), ..Self::default() }
    }

    /// Of one that goes on from a checkpoint, whose sums another reader has known.
    pub(crate) fn restored(before: Self) -> Self {
        Self { next: None, restored: true, begun: None, ..before }
    }

    /// Updates so far.
    pub(crate) fn updates(&self) -> usize {
        self.updates.len()
    }

    /// The process has been killed: what comes may begin again.
    pub(crate) fn kill(&mut self, at: Instant) {
        (self.killed, self.first, self.new) = (Some(at), None, None);
    }

    /// From the kill to the first row, and to the first new one.
    pub(crate) fn recovered(&self) -> Option<(Duration, Duration)> {
        let killed = self.killed?;
        Some((self.first?.saturating_duration_since(killed), self.new?.saturating_duration_since(killed)))
    }

    fn row(&mut self, row: Row, at: Instant) -> Result<()> {
        self.begun.get_or_insert(at);
        let sum = usize::try_from(row.id).ok().and_then(|id| self.sums.get_mut(id)).with_context(|| format!("an unknown key: {row:?}"))?;
        if row.n < 0 {
            ensure!(row.running_sum == *sum + row.value, "a sum is wrong: {row:?} after {sum}");
            *sum = row.running_sum;
            self.filled += 1;
            return Ok(());
        }
        let n = usize::try_from(row.n)?;
        if self.next != Some(n) {
            let restarted = self.killed.is_some() && self.first.is_none() || self.restored && self.next.is_none();
            ensure!(restarted && n <= self.updates.len(), "update {:?} was to come: {row:?}", self.next);
            self.first = Some(at);
        }
        self.next = Some(n + 1);
        if let Some(before) = self.updates.get(n) {
            ensure!(*before == row, "{before:?} has come again as {row:?}");
            return Ok(());
        }
        ensure!(row.running_sum == *sum + row.value, "a sum is wrong: {row:?} after {sum}");
        *sum = row.running_sum;
        self.updates.push(row);
        if self.first.is_some() && self.new.is_none() {
            self.new = Some(at);
        }
        Ok(())
    }
}

impl Reader for Sums {
    fn line(&mut self, line: &[u8], at: Instant) -> Result<()> {
        let row = match serde_json::from_slice(line) {
            Ok(row) => row,
            // A process that is killed may leave the beginning of a line, behind which that of the next one stands.
            Err(_) if self.killed.is_some() && self.first.is_none() => match line.iter().rposition(|byte| *byte == b'{') {
                Some(begin @ 1..) => serde_json::from_slice(&line[begin..])?,
                _ => return Ok(()),
            },
            Err(error) => bail!("{error}: {}", String::from_utf8_lossy(line)),
        };
        self.row(row, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(sums: &mut Sums, n: i64, id: u64, value: i64, sum: i64) -> Result<()> {
        sums.line(format!("{{\"id\":{id},\"n\":{n},\"value\":{value},\"running_sum\":{sum}}}").as_bytes(), Instant::now())
    }

    fn filled() -> Sums {
        let mut sums = Sums::new(2);
        for (n, id, value, sum) in [(-1, 0, 5, 5), (0, 1, 1, 1), (-1, 1, 7, 8), (1, 0, 1, 6), (2, 0, 2, 8)] {
            give(&mut sums, n, id, value, sum).unwrap();
        }
        assert_eq!((sums.filled, sums.updates()), (2, 3));
        sums
    }

    #[test]
    fn wrong_sums_and_missing_rows_are_errors() {
        assert!(give(&mut filled(), 3, 0, 1, 8).is_err(), "a lost update");
        assert!(give(&mut filled(), 4, 0, 1, 9).is_err(), "a gap");
        assert!(give(&mut filled(), 2, 0, 2, 8).is_err(), "a row again without a restart");
        assert!(give(&mut filled(), 3, 2, 1, 1).is_err(), "an unknown key");
        assert!(filled().line(b"{\"id\":0,\"n\":3,\"va", Instant::now()).is_err(), "half a line");
        give(&mut filled(), 3, 0, 1, 9).unwrap();
    }

    #[test]
    fn after_a_kill_rows_come_again_and_are_the_same() {
        let mut sums = filled();
        sums.kill(Instant::now());
        give(&mut sums, 3, 1, 1, 9).unwrap();
        assert!(sums.recovered().is_none(), "the killed process is not through");
        sums.line(b"{\"id\":0,\"n\":4{\"id\":0,\"n\":2,\"value\":2,\"running_sum\":8}", Instant::now()).unwrap();
        assert!(sums.first.is_some() && sums.recovered().is_none());
        give(&mut sums, 3, 1, 1, 9).unwrap();
        assert!(give(&mut sums, 1, 0, 1, 6).is_err(), "it began again");
        give(&mut sums, 4, 1, 1, 10).unwrap();
        assert!(sums.recovered().is_some());

        let mut sums = filled();
        sums.kill(Instant::now());
        assert!(give(&mut sums, 1, 0, 1, 7).is_err(), "state of another moment");
        let mut sums = filled();
        sums.kill(Instant::now());
        give(&mut sums, 2, 0, 2, 8).unwrap();
        assert!(give(&mut sums, 3, 0, 1, 1).is_err(), "state is lost");
    }

    #[test]
    fn a_restored_job_goes_on() {
        let mut sums = Sums::restored(filled());
        give(&mut sums, 2, 0, 2, 8).unwrap();
        give(&mut sums, 3, 0, 1, 9).unwrap();
        assert!(give(&mut Sums::restored(filled()), 4, 0, 1, 9).is_err(), "a gap");
    }
}
