//! What the demo's results must be, computed from the records of the Kafka log by plain code: no engine, no plugin, no Arrow.
//!
//! It follows the definitions of the pipeline in `examples/signal-quality.yaml`, and nothing else of it: a record's flag is a hash of (seed, partition, offset);
//! windows are 15 s of event time per baseline; a run is a row of flags 1 that a flag 0 ends; the current flag is that of the last record per baseline.

use chrono::NaiveDateTime;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Length of a window, milliseconds.
pub(super) const WINDOW_MILLIS: i64 = 15_000;
/// How far behind the newest record the pipeline expects others, milliseconds.
const DISORDER_MILLIS: i64 = 3_000;
/// One of so many records may be late: partitions are read at different speeds.
const LATE_SHARE: usize = 10;
/// The seed of the flag in the pipeline.
pub(super) const FLAG_SEED: u64 = 7;

/// Where a record is in the log.
pub(super) type Position = (i32, i64);

/// A record of the log.
#[derive(Debug, Clone)]
pub(super) struct LogRecord {
    /// Partition and offset.
    pub(super) position: Position,
    /// The JSON text.
    pub(super) value: Vec<u8>,
}

#[derive(Deserialize)]
struct Signal {
    #[serde(rename = "createTime")]
    create_time: String,
    #[serde(rename = "baselineId")]
    baseline: i32,
    #[serde(rename = "signalValue")]
    value: f32,
}

/// A record, as far as the truth needs it.
pub(super) struct Reading {
    pub(super) baseline: i32,
    /// Milliseconds since the epoch.
    time: i64,
    value: f64,
    flag: i32,
}

impl Reading {
    /// When the window begins that it belongs into.
    pub(super) fn window_start(&self) -> i64 {
        self.time - self.time.rem_euclid(WINDOW_MILLIS)
    }
}

/// Reads a record.
///
/// # Errors
/// When it is not what the producer writes.
pub(super) fn read(record: &LogRecord) -> Result<Reading, String> {
    let signal: Signal = serde_json::from_slice(&record.value).map_err(|error| format!("record at {:?}: {error}", record.position))?;
    let time =
        millis(&signal.create_time).ok_or_else(|| format!("record at {:?}: createTime {:?}", record.position, signal.create_time))?;
    Ok(Reading { baseline: signal.baseline, time, value: f64::from(signal.value), flag: flag(record.position) })
}

/// One window of one baseline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// Records.
    pub(super) count: u64,
    /// Sum of the signal.
    pub(super) sum: f64,
    /// Smallest signal.
    pub(super) min: f64,
    /// Largest signal.
    pub(super) max: f64,
    /// Sum of the flags.
    pub(super) flags: u64,
}

impl Default for Window {
    /// Of no record.
    fn default() -> Self {
        Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, flags: 0 }
    }
}

impl Window {
    /// Of one record.
    pub(super) fn of(reading: &Reading) -> Self {
        let Reading { value, flag, .. } = *reading;
        Self { count: 1, sum: value, min: value, max: value, flags: flag as u64 }
    }

    /// With the records of another one, too.
    pub(super) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.flags += other.flags;
    }
}

/// A row of flags 1 that a flag 0 ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Whose flags they are.
    pub(super) baseline: i32,
    /// How many flags 1.
    pub(super) length: u64,
    /// The time of the record with the flag 0.
    pub(super) end: i64,
}

/// Everything that must be in the indices. Times are milliseconds since the epoch.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// By (baseline, window start).
    pub(super) windows: BTreeMap<(i32, i64), Window>,
    /// By the place of the record that ended the run.
    pub(super) runs: BTreeMap<Position, Run>,
    /// By baseline: flag and time of its last record.
    pub(super) flags: BTreeMap<i32, (i32, i64)>,
}

/// The flag of a record: the lowest bit of the splitmix64 finaliser over seed, partition and offset.
pub(super) fn flag(position: Position) -> i32 {
    let mut z =
        FLAG_SEED ^ (position.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (position.1 as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) & 1) as i32
}

/// Computes the truth from the log. `late` are the records that the pipeline reported as late: they are in no window, but in runs and flags.
///
/// Which records are late depends on how fast partitions are read. What does not: no record is, before one that is later than its window by more than the allowed
/// disorder; and the producer writes a partition in the order of time, so that few are.
///
/// # Errors
/// When a record of the log is not what the producer writes, or was reported late and cannot have been.
pub(super) fn compute(log: &[LogRecord], late: &HashSet<Position>) -> Result<Truth, String> {
    let mut truth = Truth::default();
    let mut open: HashMap<i32, u64> = HashMap::new();
    let (mut newest, mut newest_late) = (i64::MIN, None);
    // A baseline is in one partition, and the log is sorted by partition and offset: its records come in order.
    for record in log {
        let reading = read(record)?;
        let Reading { baseline, time, flag, .. } = reading;
        truth.flags.insert(baseline, (flag, time));
        let run = open.entry(baseline).or_default();
        match (flag, *run) {
            (1, _) => *run += 1,
            (_, 0) => {}
            (_, length) => {
                truth.runs.insert(record.position, Run { baseline, length, end: time });
                *run = 0;
            }
        }
        newest = newest.max(time);
        let start = reading.window_start();
        if late.contains(&record.position) {
            newest_late = newest_late.max(Some((start, record.position)));
            continue;
        }
        truth.windows.entry((baseline, start)).or_default().add(&Window::of(&reading));
    }
    if let Some((start, position)) = newest_late
        && newest < start + WINDOW_MILLIS + DISORDER_MILLIS
    {
        return Err(format!("the record at {position:?} was reported late, but no record is late enough for its window to be over"));
    }
    if late.len() > log.len() / LATE_SHARE {
        return Err(format!("{} of {} records were reported late, though each partition is in order", late.len(), log.len()));
    }
    Ok(truth)
}

/// `YYYY-MM-DD HH:MM:SS[.fff]` or the ISO form of it, UTC, as milliseconds since the epoch.
pub(super) fn millis(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('Z');
    let time = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"].iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())?;
    Some(time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, time: &str, value: f32) -> LogRecord {
        LogRecord {
            position: (0, offset),
            value: format!(r#"{{"createTime":"{time}","baselineId":42,"signalValue":{value}}}"#).into_bytes(),
        }
    }

    #[test]
    fn reads_times_as_utc() {
        assert_eq!(millis("1970-01-01 00:00:00"), Some(0));
        assert_eq!(millis("2024-02-29T12:00:00.25Z"), Some(1_709_208_000_250));
        assert_eq!(millis("nonsense"), None);
    }

    #[test]
    fn windows_hold_what_is_not_late_and_runs_hold_all() {
        let log: Vec<_> = (0..200).map(|i| record(i, &format!("2024-01-01 00:00:{:02}", i * 60 / 200), 0.5)).collect();
        let late = HashSet::from([(0, 3)]);
        let truth = compute(&log, &late).unwrap();
        assert_eq!(truth.windows.len(), 4);
        assert_eq!(truth.windows.values().map(|w| w.count).sum::<u64>(), 199);
        let ones: u64 = (0..200).map(|i| flag((0, i)) as u64).sum();
        let in_runs: u64 = truth.runs.values().map(|run| run.length).sum();
        let open = (0..200).rev().take_while(|i| flag((0, *i)) == 1).count() as u64;
        assert_eq!(in_runs + open, ones);
        assert_eq!(truth.flags[&42], (flag((0, 199)), millis("2024-01-01 00:00:59").unwrap()));
    }

    #[test]
    fn what_cannot_be_late_is_not_believed() {
        let log: Vec<_> = (0..200).map(|i| record(i, &format!("2024-01-01 00:00:{:02}", i * 60 / 200), 0.5)).collect();
        // 00:00:41, in the window that ends at 00:00:45: over at 00:00:48.
        assert!(compute(&log, &HashSet::from([(0, 139)])).is_ok());
        let error = compute(&log, &HashSet::from([(0, 170)])).unwrap_err();
        assert!(error.contains("(0, 170) was reported late"), "{error}");
        let error = compute(&log, &(0..21).map(|offset| (0, offset)).collect()).unwrap_err();
        assert!(error.contains("21 of 200 records"), "{error}");
    }

    #[test]
    fn a_broken_record_is_named() {
        let error = compute(&[LogRecord { position: (2, 9), value: b"{".to_vec() }], &HashSet::new()).unwrap_err();
        assert!(error.contains("(2, 9)"), "{error}");
    }
}
