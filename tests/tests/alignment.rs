//! `max_drift` as a user has it: files and generated rows that are far apart in event time come out together, over processes and through kills; what `job show` says of it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Row, Run, Signal, read_rows, standpipe, wait_until};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The seconds from a row to the next, of the stream 0 and of the stream 1: the first is ten times as long in event time.
const STEPS: [i64; 2] = [10, 1];

/// By how many seconds of event time the two streams (`s`) drift apart at most in the order of the rows, while both have some left.
fn drift(rows: &[Row]) -> i64 {
    let of = |row: &Row| {
        let stream = row["s"].as_i64().unwrap();
        (stream, row["n"].as_i64().unwrap() * STEPS[stream as usize])
    };
    let mut left: BTreeMap<i64, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *left.entry(of(row).0).or_default() += 1);
    let (mut times, mut drift) = (BTreeMap::new(), 0);
    for (stream, time) in rows.iter().map(of) {
        let highest = times.entry(stream).or_insert(time);
        *highest = time.max(*highest);
        *left.get_mut(&stream).unwrap() -= 1;
        let open = || times.iter().filter(|(stream, _)| left[*stream] > 0).map(|(_, time)| *time);
        drift = drift.max(open().max().unwrap_or(0) - open().min().unwrap_or(0));
    }
    drift
}

/// Two files of so many rows.
fn files(folder: &Folder, rows: i64) {
    for (stream, name) in [(0, "in-long.jsonl"), (1, "in-short.jsonl")] {
        let line = |i: i64| format!("{{\"s\":{stream},\"n\":{i},\"t\":{}}}\n", i * STEPS[stream]);
        folder.write(name, (0..rows).map(line).collect::<String>());
    }
    folder.write("files.yaml", FILES);
}

const FILES: &str = "
name: files
engine: {batch_rows: 10}
sources:
  in:
    connector: file
    with: {path: in-*.jsonl}
    format: json
    schema: {s: int64, n: int64, t: timestamp_s}
    event_time: {column: t, max_drift: 60s}
sinks:
  out: {input: in, connector: file, with: {path: out.jsonl}, format: json, parallelism: 1}
";

fn run(folder: &Folder, pipeline: &str, arguments: &[&str]) -> Run {
    standpipe(["run", pipeline, "--log-level", "info"]).args(arguments).in_directory(folder.path())
}

/// Every row of every stream, once.
fn assert_complete(rows: &[Row], streams: i64, of_each: i64) {
    let all: BTreeSet<(i64, i64)> = rows.iter().map(|row| (row["s"].as_i64().unwrap(), row["n"].as_i64().unwrap())).collect();
    assert_eq!((all.len() as i64, rows.len() as i64), (streams * of_each, streams * of_each));
}

#[test]
fn files_stay_together_in_event_time() {
    let folder = Folder::new();
    files(&folder, 2_000);
    let found = |arguments: &[&str]| {
        run(&folder, "files.yaml", arguments).finish().success();
        let rows = read_rows(folder.at("out.jsonl"));
        assert_complete(&rows, 2, 2_000);
        drift(&rows)
    };
    let apart = found(&["--set", "sources.in.event_time.max_drift=1d"]);
    assert!(apart > 15_000, "what is not held back drifts apart: {apart} s");
    let together = found(&[]);
    // A batch of the long one is 100 s.
    assert!((60..=60 + 100).contains(&together), "{together} s");
    // What subtasks and processes give has no order between them but that of their queues.
    for over in [&["-p", "2"][..], &["-p", "2", "--processes", "2"]] {
        let together = found(over);
        assert!(together <= 60 + 20 * 100, "{over:?}: {together} s");
    }
}

#[test]
fn more_files_than_are_open_at_a_time_are_read_in_the_order_of_their_times() {
    let folder = Folder::new();
    // An hour in each of 60 files, the last one first by name.
    for hour in 0..60 {
        let line = |i: i64| format!("{{\"s\":{hour},\"n\":{i},\"t\":{}}}\n", hour * 3_600 + i * 36);
        folder.write(&format!("in-{:02}.jsonl", 60 - hour), (0..100).map(line).collect::<String>());
    }
    folder.write("files.yaml", FILES);
    run(&folder, "files.yaml", &["--set", "sources.in.event_time.max_drift=30m"]).finish().success();
    let rows = read_rows(folder.at("out.jsonl"));
    assert_complete(&rows, 60, 100);
    // But for the first rows of each: where a file begins must be known.
    let time = |row: &Row| (row["n"].as_i64().filter(|n| *n >= 10)).map(|n| row["s"].as_i64().unwrap() * 3_600 + n * 36);
    let mut highest = 0;
    for time in rows.iter().filter_map(time) {
        highest = time.max(highest);
        // A batch is six minutes.
        assert!(time >= highest - 30 * 60 - 6 * 60, "a row of {time} s came behind one of {highest} s");
    }
}

const GENERATED: &str = "
name: generated
checkpoint: {interval: 50ms, dir: ckpt}
engine: {batch_rows: 10}
sources:
  long:
    connector: generator
    with: {rate: 500, count: 4000, step: 10s, start: '2024-01-01 00:00:00', fields: {n: {kind: sequence}, t: {kind: timestamp}, s: {kind: constant, value: 0}}}
    event_time: {column: t, max_drift: 60s, alignment_group: both}
  short:
    connector: generator
    with: {rate: 500, count: 4000, step: 1s, start: '2024-01-01 00:00:00', fields: {n: {kind: sequence}, t: {kind: timestamp}, s: {kind: constant, value: 1}}}
    event_time: {column: t, max_drift: 60s, alignment_group: both}
transforms:
  both: {inputs: [long, short], union: true}
sinks:
  out: {input: both, connector: file, with: {path: out.jsonl}, format: json, parallelism: 1}
";

#[test]
fn sources_of_a_group_stay_together_through_kills_and_other_parallelism() {
    let folder = Folder::new();
    folder.write("generated.yaml", GENERATED);
    for (restore, parallelism) in [(&[][..], "1"), (&["--restore", "latest"], "2"), (&["--restore", "latest"], "1")] {
        let mut job = run(&folder, "generated.yaml", &[restore, &["-p", parallelism]].concat()).start();
        job.wait_until("checkpoints", PATIENCE, |job| job.stderr().matches("is durable after").count() >= 4);
        // It is held back while the other one is read, and says so.
        wait_until("one of its splits is paused", PATIENCE, || {
            let shown = standpipe(["job", "show", "generated"]).in_directory(folder.path()).finish().success().stdout;
            let line = shown.lines().find(|line| line.starts_with("sources.long")).unwrap_or_else(|| panic!("{shown}"));
            line.contains(", 1 paused, ") && line.ends_with(" s ahead")
        });
        job.signal(Signal::KILL);
        _ = job.wait();
    }
    let last = run(&folder, "generated.yaml", &["--restore", "latest"]).finish().success();
    assert!(last.stderr.contains("generated: goes on from checkpoint "), "{}", last.stderr);
    let rows = read_rows(folder.at("out.jsonl"));
    assert_complete(&rows, 2, 4_000);
    let together = drift(&rows);
    assert!(together <= 60 + 20 * 100, "{together} s");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let folder = Folder::new();
    files(&folder, 10);
    for (written, said) in [
        ("max_drift: 0s", "files.yaml:10:40: sources.in.event_time.max_drift: is 0s, which would hold all splits back but the last"),
        ("max_drift: 60", "files.yaml:10:40: sources.in.event_time.max_drift: \"60\" is no duration: the unit is missing"),
        ("max_drifts: 60s", "files.yaml:10:29: sources.in.event_time: unknown key \"max_drifts\", did you mean \"max_drift\"?"),
        ("alignment_group: a", "files.yaml:10:46: sources.in.event_time.alignment_group: needs \"max_drift\""),
    ] {
        folder.write("files.yaml", FILES.replace("max_drift: 60s", written));
        let error = standpipe(["check", "files.yaml"]).in_directory(folder.path()).finish().code(2).stderr;
        assert!(error.contains(said), "{written}: {error}");
    }
    folder.write("files.yaml", FILES.replace("max_drift: 60s", "max_drift: 60s, alignment_group: one"));
    let checked = standpipe(["check", "files.yaml"]).in_directory(folder.path()).finish().success();
    assert!(
        checked.stderr.contains("sources.in.event_time.alignment_group: no other source is in the group \"one\""),
        "{}",
        checked.stderr
    );
    let explained = standpipe(["explain", "files.yaml"]).in_directory(folder.path()).finish().success().stdout;
    assert!(
        explained.contains("\n  at most 60s ahead of the slowest split of the group one\n") || explained.contains("1m ahead"),
        "{explained}"
    );
}
