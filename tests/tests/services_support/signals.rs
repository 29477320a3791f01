//! The signals of `examples/signal-quality.yaml`: a known data set, and what its documents must be, computed from the records of the log by plain code that follows the
//! definitions: no engine, no plugin, no Arrow.

use super::{Kafka, kafka::Record};
use serde_json::{Value, json};
use standpipe_tests::Row;
use std::{collections::BTreeMap, fmt::Write};

/// As keys they are spread over all four partitions.
pub(crate) const BASELINES: [i64; 6] = [42, 22, 5, 11, 3, 4];
pub(crate) const PARTITIONS: usize = 4;
/// Milliseconds of event time from the first signal to the last.
pub(crate) const DURATION: i64 = 240_000;
/// Milliseconds between two signals of a baseline.
const PERIOD: i64 = 100;
/// What the pipeline allows, less a little.
const DISORDER: i64 = 2_900;
pub(crate) const WINDOW: i64 = 15_000;
const SEED: u64 = 7;

/// A number that looks random: splitmix64.
fn hash(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The flag that `flag` with seed 7 gives the record.
pub(crate) fn flag(record: &Record) -> i64 {
    let place = (record.partition as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (record.offset as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    (hash(SEED ^ place) & 1) as i64
}

/// A time, milliseconds after noon, as a record has it.
fn text(time: i64) -> String {
    let (seconds, millis) = (time / 1_000, time % 1_000);
    format!("2024-01-31 {:02}:{:02}:{:02}.{millis:03}", 12 + seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// The inverse.
fn millis(text: &str) -> i64 {
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    ((number(11, 13) - 12) * 3_600 + number(14, 16) * 60 + number(17, 19)) * 1_000 + number(20, 23)
}

/// As a document has it: ISO 8601, a fraction only where there is one.
fn iso(time: i64) -> String {
    format!("{}Z", text(time).replace(' ', "T").trim_end_matches(".000"))
}

/// A line of the data set.
pub(crate) fn signal(lines: &mut String, baseline: i64, time: i64) {
    let value = (hash((baseline * 1_000_003 + time) as u64) % 20_001) as f64 / 10_000.0 - 1.0;
    writeln!(lines, r#"{{"createTime":"{}","baselineId":{baseline},"signalValue":{value}}}"#, text(time)).unwrap();
}

/// Signals out of order, but no later than the pipeline allows; at the end one of each baseline at [`DURATION`].
pub(crate) fn punctual() -> String {
    let mut lines = String::new();
    for now in (0..DURATION).step_by(PERIOD as usize) {
        for baseline in BASELINES {
            let delay = (hash((now * 31 + baseline) as u64) % DISORDER as u64) as i64;
            signal(&mut lines, baseline, (now - delay).max(0));
        }
    }
    BASELINES.iter().for_each(|baseline| signal(&mut lines, *baseline, DURATION));
    lines
}

/// Appends signals to the topic, by baseline; makes the topic if need be.
pub(crate) fn produce(kafka: &Kafka, topic: &str, lines: &str) {
    let schema = json!({ "createTime": "string", "baselineId": "int32", "signalValue": "float32" });
    let more = json!({ "key": "baselineId", "create_topic": { "partitions": PARTITIONS, "replication": 1 } });
    kafka.write_rows(topic, lines, &schema, more);
}

/// What the documents must be.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) windows: Vec<Row>,
    pub(crate) runs: Vec<Row>,
    pub(crate) current: Vec<Row>,
    pub(crate) late: Vec<Row>,
}

#[derive(Default)]
struct Window {
    values: Vec<f64>,
    flags: i64,
}

fn row(value: Value) -> Row {
    value.as_object().unwrap().clone()
}

impl Truth {
    /// From the log, which is in the order of partitions and offsets. A baseline is in one partition, so its signals come in order.
    pub(crate) fn of(log: &[Record], is_late: impl Fn(&Record, i64) -> bool) -> Self {
        let mut truth = Self::default();
        let mut windows: BTreeMap<(i64, i64), Window> = BTreeMap::new();
        let mut lengths: BTreeMap<i64, i64> = BTreeMap::new();
        let mut current: BTreeMap<i64, Row> = BTreeMap::new();
        for record in log {
            let signal: Value = serde_json::from_str(&record.value).unwrap();
            let (baseline, value) = (signal["baselineId"].as_i64().unwrap(), signal["signalValue"].as_f64().unwrap());
            let (time, flag) = (millis(signal["createTime"].as_str().unwrap()), flag(record));
            let (partition, offset) = (record.partition, record.offset);
            current.insert(baseline, row(json!({ "baseline_id": baseline, "flag": flag, "create_time": iso(time) })));
            let length = lengths.entry(baseline).or_default();
            if flag == 1 {
                *length += 1;
            } else if *length > 0 {
                let run = json!({ "baseline_id": baseline, "run_length": *length, "end_time": iso(time), "log_partition": partition, "log_offset": offset });
                truth.runs.push(row(run));
                *length = 0;
            }
            if is_late(record, time) {
                truth.late.push(row(json!({
                    "baseline_id": baseline, "create_time": iso(time), "signal": value, "flag": flag, "log_partition": partition, "log_offset": offset,
                })));
            } else {
                let window = windows.entry((baseline, time - time % WINDOW)).or_default();
                window.values.push(value);
                window.flags += flag;
            }
        }
        truth.current = current.into_values().collect();
        truth.windows = windows.into_iter().map(|((baseline, start), window)| window.document(baseline, start)).collect();
        truth
    }
}

impl Window {
    fn document(self, baseline: i64, start: i64) -> Row {
        let Self { values, flags } = self;
        // The column has 32 bits, the sum 64.
        let sum: f64 = values.iter().map(|value| f64::from(*value as f32)).sum();
        row(json!({
            "baseline_id": baseline, "window_start": iso(start), "window_end": iso(start + WINDOW), "mean": sum / values.len() as f64,
            "max": values.iter().copied().fold(f64::MIN, f64::max), "min": values.iter().copied().fold(f64::MAX, f64::min),
            "n": values.len(), "flags": flags,
        }))
    }
}
