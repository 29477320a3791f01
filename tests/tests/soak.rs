//! A job lives through a random sequence of losses: of processes (at any moment, and at the named steps of a checkpoint), of the store, of time, while it is rescaled 4 -> 3 -> 5
//! over one to three processes. What goes in comes out, exactly once. The seed is printed, and gives the same sequence again: `STANDPIPE_SOAK_SEED`; `STANDPIPE_SOAK_ROUNDS` says how long it is.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;
mod soak_support;

use serde_json::{Value, json};
use services_support::{Kafka, unique};
use soak_support::{STORE, Soak, plan};
use standpipe_tests::{Folder, Random, Seen, all, assert_windows, read_rows};
use std::{env, fs};

const KEYS: i64 = 100;
/// A second while there are faults, so that the rows last until there are no more.
const RATE: i64 = 8_000;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is no number")))
}

/// Every row into parts, counted by windows and by running aggregates into files.
fn pipeline(rows: i64) -> Value {
    let fields =
        json!({ "n": { "kind": "sequence" }, "k": { "kind": "uniform-int", "min": 0, "max": KEYS - 1 }, "t": { "kind": "timestamp" } });
    let with = json!({ "count": rows, "rate": RATE, "splits": 6, "step": "1ms", "fields": fields });
    let aggregate = json!({ "n": "count(*)", "s": "sum(n)" });
    let file = |input: &str, with: Value| json!({ "input": input, "connector": "file", "with": with, "format": "json" });
    json!({
        "name": "soak",
        "checkpoint": { "interval": "150ms", "dir": STORE },
        "restart": { "strategy": "fixed-delay", "attempts": 100_000, "delay": "50ms" },
        "sources": { "ticks": { "connector": "generator", "with": with, "event_time": { "column": "t", "out_of_orderness": "0s" } } },
        "transforms": {
            "numbers": { "input": "ticks", "select": { "n": "n" } },
            "counts": { "input": "ticks", "key_by": ["k"], "window": { "tumbling": "10s" }, "aggregate": aggregate },
            "totals": { "input": "ticks", "key_by": ["k"], "aggregate": aggregate, "emit": "final" },
        },
        "sinks": {
            "all": file("numbers", json!({ "path": "all/", "create_dirs": true, "roll": { "size": "1MiB", "interval": "1s" } })),
            "windows": file("counts", json!({ "path": "windows.jsonl" })),
            "sums": file("totals", json!({ "path": "totals.jsonl" })),
        },
    })
}

/// Lives through the rounds, and on to the end; `more` is what else there is in the pipeline.
fn soak(more: impl FnOnce(&mut Value)) -> (Folder, i64) {
    let seed = number("STANDPIPE_SOAK_SEED").unwrap_or_else(|| if all() { Random::any_seed() } else { 4 });
    let rounds = number("STANDPIPE_SOAK_ROUNDS").unwrap_or(if all() { 50 } else { 4 }) as usize;
    println!("STANDPIPE_SOAK_SEED={seed} STANDPIPE_SOAK_ROUNDS={rounds}");
    // A round is of some ten seconds.
    let rows = 1_000_000 + rounds as i64 * 15 * RATE;
    let mut pipeline = pipeline(rows);
    more(&mut pipeline);
    let mut soak = Soak::new(&pipeline);
    for (number, round) in plan::rounds(seed, rounds).iter().enumerate() {
        println!("round {number}: {round:?}");
        soak.round(round);
    }
    soak.finish(("sources.ticks.with.rate", "10000000"));
    (soak.folder, rows)
}

fn assert_files(folder: &Folder, rows: i64) {
    let mut seen = Seen::none_of(rows);
    for part in fs::read_dir(folder.at("all")).unwrap().map(|entry| entry.unwrap().path()) {
        assert!(part.extension().is_some_and(|extension| extension == "jsonl"), "{} is left", part.display());
        seen = seen.and_file(part);
    }
    seen.assert_once("all/");
    assert_windows(&read_rows(folder.at("windows.jsonl")), rows);
    let totals = read_rows(folder.at("totals.jsonl"));
    let sum = |column: &str| totals.iter().map(|row| row[column].as_i64().unwrap()).sum::<i64>();
    assert_eq!((totals.len() as i64, sum("n"), sum("s")), (KEYS, rows, rows * (rows - 1) / 2));
}

#[test]
fn a_soak_into_files_and_windows() {
    let (folder, rows) = soak(|_| {});
    assert_files(&folder, rows);
}

#[test]
fn a_soak_into_kafka_exactly_once_and_files_and_windows() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = unique("soak");
    let (folder, rows) = soak(|pipeline| {
        let create = json!({ "partitions": 3, "replication": 1 });
        let with = kafka.with(&topic, json!({ "delivery": "exactly-once", "create_topic": create }));
        pipeline["sinks"]["topic"] = json!({ "input": "numbers", "connector": "kafka", "with": with, "format": "json" });
    });
    assert_files(&folder, rows);
    kafka.copy_rows(&topic, &json!({ "n": "int64" }), &folder, "topic.jsonl");
    Seen::none_of(rows).and_file(folder.at("topic.jsonl")).assert_once("the topic");
}
