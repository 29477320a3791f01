//! Sources: how they are tried, and how they are read.

mod checks;
mod positions;

use crate::{
    check::{Check, Stop, seconds},
    configuration,
    rows::{texts, valid},
    suite::{Case, Settings, Unusable, capabilities},
    watch::Watch,
};
use arrow_array::RecordBatch;
use standpipe_sdk::{
    CloseReason,
    hosting::{Polled, SourceEnumerator, SourceKind, SourceReader, SourceValidation, SplitPosition},
    wire::SplitDescription,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// The checks of a source, in their order.
pub(crate) const CHECKS: &[Check<SourceCase>] = &[
    Check {
        name: "configuration",
        about: "what is no configuration is refused, with a line and not with a panic",
        run: checks::configuration,
    },
    Check {
        name: "lifecycle",
        about: "instances are made, opened, closed and destroyed in any order that a host may need",
        run: checks::lifecycle,
    },
    Check { name: "enumerator", about: "splits are the same in every run, and its snapshot goes on", run: checks::enumerator },
    Check { name: "schema", about: "every batch has the declared columns, and valid Arrow in them", run: checks::schema },
    Check { name: "limits", about: "a poll gives no more rows than it was asked for", run: checks::limits },
    Check { name: "poll-deadline", about: "a poll that finds nothing comes back when its wait is over", run: checks::poll_deadline },
    Check { name: "positions", about: "reading from a position gives exactly the rest (`replayable`)", run: positions::positions },
    Check {
        name: "unassign",
        about: "splits that are given back and taken again go on without a row lost or twice",
        run: positions::unassign,
    },
    Check { name: "pause", about: "a paused split gives no rows, and loses none", run: positions::pause },
    Check { name: "end", about: "`bounded` means that every split ends, once", run: checks::end },
    Check { name: "commits", about: "a durable checkpoint's positions are taken", run: checks::commits },
    Check { name: "nonsense", about: "positions, splits and snapshots that make no sense are errors, not panics", run: checks::nonsense },
    Check { name: crate::CANCELLATION, about: "a call that waits comes back when it is cancelled", run: checks::cancellation },
    Check { name: "threads", about: "no thread outlives its instance", run: checks::threads },
    Check { name: crate::LEAKS, about: "memory does not grow with the rows", run: checks::leaks },
];

/// Rows that are read to be compared.
const SAMPLE: usize = 200;
/// Rows of a poll: few, so that there are positions in between.
const FEW: u32 = 7;
/// How long a poll waits.
const WAIT: Duration = Duration::from_millis(20);
/// A source that has given nothing for that long has nothing.
const QUIET: Duration = Duration::from_secs(1);
/// A source that goes on giving rows, and has no end, is read for so long.
const LONG: Duration = Duration::from_secs(10);

/// A source and what it is tried with.
pub(crate) struct SourceCase {
    kind: SourceKind,
    settings: Settings,
    declared: SourceValidation,
}

impl Case for SourceCase {
    /// It is read again and again, for as long as it gives rows.
    const PATIENCE: Duration = Duration::from_secs(120);

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn declares(&self) -> Vec<String> {
        capabilities(self.declared.details.capabilities)
    }
}

pub(crate) fn case(kind: SourceKind, settings: Settings) -> Result<SourceCase, Unusable> {
    let declared = kind.validate("node", &settings.config).map_err(|error| Unusable(error.to_string()))?;
    match declared.details.problems.as_slice() {
        [] => Ok(SourceCase { kind, settings, declared }),
        problems => Err(Unusable(format!("the configuration is refused: {}", configuration::line(problems)))),
    }
}

/// Positions by split.
type Positions = BTreeMap<String, Vec<u8>>;

/// What a poll has given: rows of a split, and the position behind them.
struct Step {
    split: String,
    rows: Vec<String>,
    position: Vec<u8>,
}

/// What was read.
#[derive(Default)]
struct Read {
    steps: Vec<Step>,
    ended: BTreeSet<String>,
    /// It stopped because there was nothing more, not because there was enough.
    quiet: bool,
}

impl Read {
    fn rows(&self) -> usize {
        self.steps.iter().map(|step| step.rows.len()).sum()
    }

    /// The rows by split behind the first `steps`.
    fn rest(&self, steps: usize) -> BTreeMap<&str, Vec<String>> {
        let mut rest: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for step in &self.steps[steps.min(self.steps.len())..] {
            rest.entry(&step.split).or_default().extend(step.rows.iter().cloned());
        }
        rest
    }

    /// The positions after the first `steps`.
    fn positions(&self, steps: usize) -> Positions {
        self.steps.iter().take(steps).map(|step| (step.split.clone(), step.position.clone())).collect()
    }
}

/// When reading is enough.
enum Enough {
    Rows(usize),
    /// So many of each split.
    OfEach(BTreeMap<String, usize>),
    Steps(usize),
}

impl SourceCase {
    fn watch(&self) -> Arc<Watch> {
        Watch::new(&self.settings.secrets)
    }

    fn enumerator(&self, watch: &Arc<Watch>) -> Result<SourceEnumerator, Stop> {
        let enumerator = self.kind.enumerator(&self.settings.config, &self.settings.context(1), watch.clone());
        let mut enumerator = enumerator.map_err(|error| Stop::from(error).during("create of the enumerator"))?;
        enumerator.open().map_err(|error| Stop::from(error).during("open of the enumerator"))?;
        Ok(enumerator)
    }

    fn reader(&self, watch: &Arc<Watch>) -> Result<SourceReader, Stop> {
        let mut reader = self.created(watch)?;
        reader.open().map_err(|error| Stop::from(error).during("open"))?;
        Ok(reader)
    }

    fn created(&self, watch: &Arc<Watch>) -> Result<SourceReader, Stop> {
        let reader = self.kind.reader(&self.settings.config, &self.settings.context(1), watch.clone());
        reader.map_err(|error| Stop::from(error).during("create"))
    }

    /// What an enumerator finds, until it says that there is no more, or has been quiet for a while.
    fn found(&self, enumerator: &mut SourceEnumerator) -> Result<(BTreeMap<String, SplitDescription>, bool), Stop> {
        let (mut splits, mut last) = (BTreeMap::new(), Instant::now());
        loop {
            let found = enumerator.discover(WAIT).map_err(|error| Stop::from(error).during("discover"))?;
            for split in found.added {
                let known = splits.len();
                splits.insert(split.split.clone(), split);
                if splits.len() > known {
                    last = Instant::now();
                }
            }
            found.removed.iter().for_each(|split| _ = splits.remove(split));
            let patience = if splits.is_empty() { self.settings.deadline } else { QUIET / 4 };
            if found.exhausted || last.elapsed() > patience {
                return Ok((splits, found.exhausted));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All splits, from these positions.
    fn splits(&self, positions: &Positions) -> Result<Vec<SplitPosition>, Stop> {
        let mut enumerator = self.enumerator(&self.watch())?;
        let (found, _) = self.found(&mut enumerator)?;
        enumerator.close(CloseReason::Finished)?;
        if found.is_empty() {
            return Err(Stop::skip(format!("the enumerator has found no split within {}", seconds(self.settings.deadline))));
        }
        let split = |split: SplitDescription| {
            let position = positions.get(&split.split).cloned();
            SplitPosition { split: split.split, details: split.details, position }
        };
        Ok(found.into_values().map(split).collect())
    }

    /// A reader with all splits, from these positions.
    fn reading(&self, positions: &Positions) -> Result<(SourceReader, Vec<SplitPosition>), Stop> {
        let splits = self.splits(positions)?;
        let mut reader = self.reader(&self.watch())?;
        reader.assign(&splits).map_err(|error| Stop::from(error).during("assign"))?;
        Ok((reader, splits))
    }

    /// Reads on with a reader, until it is enough, every split has ended, or nothing comes.
    fn read(&self, reader: &mut SourceReader, splits: usize, enough: &Enough) -> Result<Read, Stop> {
        let (mut read, begun, mut last) = (Read::default(), Instant::now(), Instant::now());
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let done = match enough {
                Enough::Rows(rows) => read.rows() >= *rows,
                Enough::Steps(steps) => read.steps.len() >= *steps,
                Enough::OfEach(wanted) => wanted.iter().all(|(split, rows)| counts.get(split).copied().unwrap_or(0) >= *rows),
            };
            if done || read.ended.len() >= splits || begun.elapsed() > LONG {
                return Ok(read);
            }
            if last.elapsed() > QUIET {
                read.quiet = true;
                return Ok(read);
            }
            match self.poll(reader, FEW, WAIT)? {
                Polled::Batch { split, batch, position, .. } => {
                    let rows = texts(&batch)?;
                    if !rows.is_empty() {
                        last = Instant::now();
                    }
                    *counts.entry(split.clone()).or_default() += rows.len();
                    read.steps.push(Step { split, rows, position });
                }
                Polled::EndOfSplit(split) => {
                    last = Instant::now();
                    if !read.ended.insert(split.clone()) {
                        return Err(Stop::fail(format!("the split {split:?} has ended twice")));
                    }
                }
                Polled::Idle => {}
            }
        }
    }

    /// A poll, whose batch is looked at before anything reads it.
    fn poll(&self, reader: &mut SourceReader, rows: u32, wait: Duration) -> Result<Polled, Stop> {
        let polled = reader.poll(rows, 1 << 20, wait).map_err(|error| Stop::from(error).during("poll"))?;
        if let Polled::Batch { batch, .. } = &polled {
            self.looked_at(batch)?;
        }
        Ok(polled)
    }

    fn looked_at(&self, batch: &RecordBatch) -> Result<(), Stop> {
        valid("a batch", batch)
    }
}
