//! Watermarks at both ends of an edge: [`SplitWatermarks`] makes a source subtask's from the event times of its splits, [`EdgeWatermarks`] merges those of all
//! upstream subtasks at a receiver. A watermark of t says: no row before t follows, late ones aside.
//!
//! They read no clock: the caller passes the instant in (a wall clock that is set would make splits idle) and asks [`SplitWatermarks::next_change`] when to ask again.
//! `dataflow::source` and `dataflow::input` call them; windows and timers take what comes out.

use crate::{
    dataflow::chunk::Mark,
    operator::{END, Micros, NO_WATERMARK},
};
use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::max,
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
};
use hashbrown::HashMap;
use standpipe_pipeline::plan::EventTime;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The watermark of a source subtask: the minimum over its active splits of the highest event time seen, less the out-of-orderness.
///
/// A split that is assigned but not read yet holds it at the minimum. One that has been read and had nothing for the idle timeout does not hold it; when all are
/// idle it is the highest of them, as if the others had been idle first. That a split has been read without giving rows is said of one split by
/// [`Self::read_up_to_its_end`], of all by [`Self::nothing_to_read`]. A subtask without splits is idle at once; before it is told of its first assignment (an empty
/// one counts) it waits.
#[derive(Debug)]
pub(crate) struct SplitWatermarks {
    settings: Option<Settings>,
    splits: HashMap<Arc<str>, SplitTime>,
    /// The first assignment has come.
    told_of_splits: bool,
    /// The highest watermark that was told: it never goes back.
    told: Micros,
}

#[derive(Debug)]
struct Settings {
    column: usize,
    out_of_orderness: Micros,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct SplitTime {
    /// No row of this split before it follows.
    time: Micros,
    /// Since when nothing has come; `None`: it has not been read.
    quiet_since: Option<Instant>,
    /// It is too far ahead of its group, and not read on: no wonder that nothing comes.
    paused: bool,
}

impl SplitTime {
    /// When it becomes idle, if nothing comes; `None`: never.
    fn idle_at(&self, timeout: Duration) -> Option<Instant> {
        self.quiet_since.filter(|_| !self.paused).and_then(|since| since.checked_add(timeout))
    }

    fn is_active(&self, timeout: Duration, now: Instant) -> bool {
        self.idle_at(timeout).is_none_or(|at| now < at)
    }
}

impl SplitWatermarks {
    /// Without event time the watermark is the minimum until the source ends.
    pub(crate) fn new(event_time: Option<&EventTime>) -> Self {
        let settings = event_time.map(|event_time| Settings {
            column: event_time.column,
            out_of_orderness: micros(event_time.out_of_orderness),
            idle_timeout: event_time.idle_timeout,
        });
        Self { settings, splits: HashMap::new(), told_of_splits: false, told: NO_WATERMARK }
    }

    /// The subtask has been given its splits and how far event time has come in each, or none; once per split.
    pub(crate) fn assigned(&mut self, splits: impl IntoIterator<Item = (Arc<str>, Micros)>) {
        self.told_of_splits = true;
        self.splits.extend(splits.into_iter().map(|(split, time)| (split, SplitTime { time, quiet_since: None, paused: false })));
    }

    /// How far event time has come in a split, for one that goes on from here: no row before it is to be expected, or it would be late in this run too.
    pub(crate) fn time_of(&self, split: &str) -> Micros {
        self.splits.get(split).map_or(self.told, |split| split.time.max(self.told))
    }

    /// The split has been read to its end, or taken away.
    pub(crate) fn ended(&mut self, split: &str) {
        self.splits.remove(split);
    }

    /// Rows of a split.
    ///
    /// # Errors
    /// When the event time column is not what the plan says.
    pub(crate) fn rows(&mut self, split: &str, batch: &RecordBatch, now: Instant) -> Result<(), String> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let Some(split) = self.splits.get_mut(split) else { return Ok(()) };
        split.quiet_since = Some(now);
        let column = batch.columns().get(settings.column).ok_or_else(|| format!("there is no event time column {}", settings.column))?;
        if let Some(highest) = highest_time(column)? {
            split.time = split.time.max(highest.saturating_sub(settings.out_of_orderness).min(END - 1));
        }
        Ok(())
    }

    /// What the source itself knows of a split: no row before `time` follows.
    pub(crate) fn hint(&mut self, split: &str, time: Micros, now: Instant) {
        if let (Some(_), Some(split)) = (&self.settings, self.splits.get_mut(split)) {
            split.quiet_since = Some(now);
            split.time = split.time.max(time.min(END - 1));
        }
    }

    /// That split has been read as far as it goes, and has nothing to give now.
    pub(crate) fn read_up_to_its_end(&mut self, split: &str, now: Instant) {
        if let Some(split) = self.splits.get_mut(split) {
            split.quiet_since.get_or_insert(now);
        }
    }

    /// The reader has nothing to give now, of any split: they have all been read as far as they go.
    pub(crate) fn nothing_to_read(&mut self, now: Instant) {
        self.splits.values_mut().filter(|split| !split.paused).for_each(|split| _ = split.quiet_since.get_or_insert(now));
    }

    /// Nothing was taken from the reader for that long, whatever it had (backpressure): this time does not count as silence.
    pub(crate) fn not_taken_for(&mut self, time: Duration) {
        self.splits.values_mut().filter_map(|split| split.quiet_since.as_mut()).for_each(|since| *since += time);
    }

    /// The split is read no more for now. It is waited for as long as it is not: nobody knows whether it has something.
    pub(crate) fn pause(&mut self, split: &str) {
        if let Some(split) = self.splits.get_mut(split) {
            split.paused = true;
        }
    }

    /// The split is read again; its silence counts from now on.
    pub(crate) fn resume(&mut self, split: &str, now: Instant) {
        if let Some(split) = self.splits.get_mut(split) {
            split.paused = false;
            split.quiet_since = split.quiet_since.map(|_| now);
        }
    }

    /// How far event time has come in a split alone.
    pub(crate) fn time_in(&self, split: &str) -> Micros {
        self.splits.get(split).map_or(NO_WATERMARK, |split| split.time)
    }

    /// How far event time has come in the split that is furthest.
    pub(crate) fn furthest(&self) -> Option<Micros> {
        self.splits.values().map(|split| split.time).max()
    }

    /// The splits that are paused, each with how far event time has come in it.
    pub(crate) fn paused(&self) -> impl Iterator<Item = (&Arc<str>, Micros)> {
        self.splits.iter().filter(|(_, split)| split.paused).map(|(name, split)| (name, split.time))
    }

    /// The splits that are ahead of `limit` and not paused. An idle one has nothing to hold back; if something comes, it is not idle any more.
    pub(crate) fn ahead(&self, limit: Micros, now: Instant) -> Vec<Arc<str>> {
        let timeout = self.idle_timeout();
        let ahead = self.splits.iter().filter(|(_, split)| split.time > limit && !split.paused && split.is_active(timeout, now));
        ahead.map(|(name, _)| Arc::clone(name)).collect()
    }

    fn idle_timeout(&self) -> Duration {
        self.settings.as_ref().map_or(Duration::MAX, |settings| settings.idle_timeout)
    }

    /// The watermark as it stands now.
    pub(crate) fn current(&mut self, now: Instant) -> Mark {
        if !self.told_of_splits {
            return Mark { time: self.told, idle: false, holder: None };
        }
        let timeout = self.idle_timeout();
        let active = self.splits.iter().filter(|(_, split)| split.is_active(timeout, now));
        // Of several at the same time the same one every time.
        match active.min_by(|(a, x), (b, y)| (x.time, a).cmp(&(y.time, b))) {
            None => {
                self.told = self.splits.values().map(|split| split.time).fold(self.told, Micros::max);
                Mark { time: self.told, idle: true, holder: None }
            }
            Some((holder, split)) => {
                self.told = self.told.max(split.time);
                Mark { time: self.told, idle: false, holder: Some(Arc::clone(holder)) }
            }
        }
    }

    /// The instant after `now` at which the watermark may change although nothing comes.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        let timeout = self.settings.as_ref()?.idle_timeout;
        self.splits.values().filter_map(|split| split.idle_at(timeout)).filter(|at| *at > now).min()
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

/// The highest value of a timestamp column, rounded down to microseconds.
fn highest_time(column: &ArrayRef) -> Result<Option<Micros>, String> {
    let DataType::Timestamp(unit, _) = column.data_type() else {
        return Err(format!("the event time column is {}, not a timestamp", column.data_type()));
    };
    Ok(match unit {
        TimeUnit::Second => max(column.as_primitive::<TimestampSecondType>()).map(|time| time.saturating_mul(1_000_000)),
        TimeUnit::Millisecond => max(column.as_primitive::<TimestampMillisecondType>()).map(|time| time.saturating_mul(1000)),
        TimeUnit::Microsecond => max(column.as_primitive::<TimestampMicrosecondType>()),
        TimeUnit::Nanosecond => max(column.as_primitive::<TimestampNanosecondType>()).map(|time| time.div_euclid(1000)),
    })
}

/// The watermark of an edge: that of its upstream subtasks, see [`merge`].
#[derive(Debug)]
pub(crate) struct EdgeWatermarks {
    subtasks: Vec<Mark>,
    merged: Mark,
}

const NOTHING_YET: Mark = Mark { time: NO_WATERMARK, idle: false, holder: None };

impl EdgeWatermarks {
    /// Nothing is known of that many upstream subtasks.
    pub(crate) fn new(subtasks: usize) -> Self {
        Self { subtasks: vec![NOTHING_YET; subtasks], merged: NOTHING_YET }
    }

    /// How many upstream subtasks there are.
    pub(crate) fn len(&self) -> usize {
        self.subtasks.len()
    }

    /// An upstream subtask has said `mark`: the edge's mark, if it is another one now.
    pub(crate) fn update(&mut self, subtask: usize, mark: Mark) -> Option<Mark> {
        *self.subtasks.get_mut(subtask)? = mark;
        let merged = merge(self.subtasks.iter(), self.merged.time);
        (merged != self.merged).then(|| {
            self.merged = merged.clone();
            merged
        })
    }
}

/// [`END`] where all have ended; one that has ended is not waited for, and says nothing of how far the others are. Of the others it is the minimum over those that are
/// not idle; when all are idle it is the highest of them: which of them was idle last must not matter. It never goes back.
pub(crate) fn merge<'a>(marks: impl Iterator<Item = &'a Mark> + Clone, before: Micros) -> Mark {
    let open = marks.filter(|mark| mark.time != END);
    if let Some(lowest) = open.clone().filter(|mark| !mark.idle).min_by_key(|mark| mark.time) {
        return Mark { time: lowest.time.max(before), idle: false, holder: lowest.holder.clone() };
    }
    match open.map(|mark| mark.time).max() {
        Some(highest) => Mark { time: highest.max(before), idle: true, holder: None },
        None => Mark { time: END, idle: false, holder: None },
    }
}

#[cfg(test)]
mod tests;
