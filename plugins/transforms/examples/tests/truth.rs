//! The transforms on the data of the repository's `examples/`, against the golden outputs there, which `truth.py` has computed in plain Python.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, cast::AsArray, types::*};
use serde_json::{Value, json};
use standpipe_sdk::testing::Harness;
use standpipe_transforms_examples::{Flag, RunLength, SplitWords};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples").join(name)).unwrap()
}

fn golden(name: &str) -> Vec<Value> {
    example(&format!("golden/{name}.jsonl")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn words_are_counted_as_tr_and_uniq_count_them() {
    let lines: ArrayRef = Arc::new(StringArray::from(example("data/words.txt").lines().collect::<Vec<_>>()));
    let batch = RecordBatch::try_from_iter([("line", lines)]).unwrap();
    let config = json!({ "column": "line", "separator": "non-letters", "lowercase": true });
    let words = Harness::transform::<SplitWords>(config, batch.schema()).process(&batch).unwrap();
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    words[0].column(0).as_string::<i32>().iter().flatten().for_each(|word| *counts.entry(word).or_default() += 1);
    let counts: Vec<Value> = counts.into_iter().map(|(word, n)| json!({ "word": word, "n": n })).collect();
    assert_eq!(counts, golden("word-count"));
}

/// Seconds of a time of the one day of the data, `2024-01-01`.
fn seconds(text: &str) -> i64 {
    let parts: Vec<i64> = text[11..19].split(':').map(|part| part.parse().unwrap()).collect();
    (parts[0] * 60 + parts[1]) * 60 + parts[2]
}

#[test]
fn runs_of_flags_are_those_of_the_truth() {
    let text = example("data/signals.jsonl");
    let (mut offsets, mut ids, mut times, mut offset) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let signal: Value = serde_json::from_str(line).unwrap();
        offsets.push(offset);
        ids.push(signal["baselineId"].as_i64().unwrap() as i32);
        times.push(seconds(signal["createTime"].as_str().unwrap()));
        offset += line.len() as i64;
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("baseline_id", Arc::new(Int32Array::from(ids))),
        ("create_time", Arc::new(TimestampMicrosecondArray::from(times))),
        ("offset", Arc::new(Int64Array::from(offsets))),
    ];
    let signals = RecordBatch::try_from_iter(columns).unwrap();
    let flagged = Harness::transform::<Flag>(json!({ "seed": 7 }), signals.schema()).process(&signals).unwrap().remove(0);
    let config = json!({ "column": "flag", "time": "create_time" });
    let runs = Harness::transform::<RunLength>(config, flagged.schema()).keyed(&["baseline_id"]).process(&flagged).unwrap().remove(0);
    let ids = runs.column(0).as_primitive::<Int32Type>().values();
    let lengths = runs.column(1).as_primitive::<Int64Type>().values();
    let ends = runs.column(2).as_primitive::<TimestampMicrosecondType>().values();
    let found: Vec<_> = ids.iter().zip(lengths).zip(ends).map(|((id, length), end)| (i64::from(*id), *length, *end)).collect();
    let expected: Vec<_> = golden("flag-runs")
        .iter()
        .map(|run| (run["baseline_id"].as_i64().unwrap(), run["run_length"].as_i64().unwrap(), seconds(run["end_time"].as_str().unwrap())))
        .collect();
    assert_eq!(found, expected);
}
