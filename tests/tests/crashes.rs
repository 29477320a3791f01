//! A process that dies at each named step of a checkpoint, before and after each arrow of: sink prepared -> checkpoint durable -> sink committed -> upstream committed.
//! It is started again by its supervisor, and nothing is lost, nothing twice, and nobody had to help.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Row, read_rows, standpipe};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    time::Duration,
};

const ROWS: i64 = 1_000_000;
const KEYS: i64 = 100;

const COUNTS: &str = "
name: counts
parallelism: 2
checkpoint: {interval: 30ms, dir: ckpt}
restart: {strategy: fixed-delay, attempts: 3, delay: 10ms}
sources:
  ticks:
    connector: generator
    with:
      count: 1000000
      rate: 1000000
      step: 1ms
      fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 99}, t: {kind: timestamp}}
    event_time: {column: t, out_of_orderness: 0s}
    parallelism: 1
transforms:
  counts: {input: ticks, key_by: [k], window: {tumbling: 10s}, aggregate: {n: \"count(*)\", s: \"sum(n)\"}}
  numbers: {input: ticks, select: {n: n}}
sinks:
  all: {input: numbers, parallelism: 1, connector: file, with: {path: all.jsonl}, format: json}
  windows: {input: counts, parallelism: 1, connector: file, with: {path: windows.jsonl}, format: json}
";

/// Every number once; every row in one window.
fn assert_as_if_nothing_had_happened(folder: &Folder) {
    // Of two subtasks, batches come in any order.
    let number = |line: std::io::Result<String>| -> usize {
        let line = line.unwrap();
        let number = line.strip_prefix("{\"n\":").and_then(|rest| rest.strip_suffix('}'));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let mut seen = vec![0_u8; ROWS as usize];
    BufReader::new(File::open(folder.at("all.jsonl")).unwrap()).lines().for_each(|line| seen[number(line)] += 1);
    let wrong: Vec<_> = seen.iter().enumerate().filter(|(_, times)| **times != 1).take(3).collect();
    assert!(wrong.is_empty(), "not once (number, times): {wrong:?}, ...");
    assert_windows(&read_rows(folder.at("windows.jsonl")));
}

fn assert_windows(windows: &[Row]) {
    let names: BTreeSet<_> = windows.iter().map(|row| (row["k"].as_i64(), row["window_start"].to_string())).collect();
    assert_eq!(names.len(), windows.len(), "a window came twice");
    let sum = |column: &str| windows.iter().map(|row| row[column].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("n"), sum("s")), (ROWS, ROWS * (ROWS - 1) / 2));
    let keys: BTreeMap<i64, i64> = windows.iter().map(|row| (row["k"].as_i64().unwrap(), 1)).collect();
    assert_eq!(keys.len() as i64, KEYS);
}

#[test]
fn at_every_step_of_a_checkpoint() {
    for step in ["prepare", "prepared", "write", "durable", "commit", "committed", "upstream", "done"] {
        let folder = Folder::new();
        folder.write("counts.yaml", COUNTS);
        let run = standpipe(["run", "counts.yaml"]).in_directory(folder.path()).env("STANDPIPE_CRASH_AT", format!("{step}:3"));
        let run = run.timeout(Duration::from_secs(120)).finish().code(0);
        let died = "counts: its process was killed by signal 6; it is started again in 0.0 s, for the 1st time";
        let goes_on = match step {
            "prepare" | "prepared" | "write" => "counts: goes on from checkpoint 2 in ckpt/counts",
            _ => "counts: goes on from checkpoint 3 in ckpt/counts",
        };
        assert!(run.stderr.contains(died) && run.stderr.contains(goes_on), "{step}: {}", run.stderr);
        assert_as_if_nothing_had_happened(&folder);
    }
}

/// Every number once; every row in one window; whichever process has written it.
fn assert_all_as_if_nothing_had_happened(folder: &Folder) {
    let mut numbers = Vec::new();
    for file in ["all-0.jsonl", "all-1.jsonl"] {
        for line in BufReader::new(File::open(folder.at(file)).unwrap()).lines() {
            let number = line.unwrap().trim_start_matches("{\"n\":").trim_end_matches('}').parse::<i64>().unwrap();
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..ROWS), "{} rows", numbers.len());
    assert_windows(&[read_rows(folder.at("windows-0.jsonl")), read_rows(folder.at("windows-1.jsonl"))].concat());
}

#[test]
fn at_every_step_in_whichever_of_two_processes_reaches_it() {
    let counts = COUNTS.replace("parallelism: 1", "parallelism: 2").replace("count: 1000000\n", "count: 1000000\n      splits: 2\n");
    let counts = counts
        .replace("path: all.jsonl", "path: \"all-{subtask}.jsonl\"")
        .replace("path: windows.jsonl", "path: \"windows-{subtask}.jsonl\"");
    for step in ["prepare", "prepared", "write", "durable", "commit", "committed", "upstream", "done"] {
        let folder = Folder::new();
        folder.write("counts.yaml", &counts);
        let run = standpipe(["run", "counts.yaml", "--processes", "2"]).in_directory(folder.path());
        let run = run.env("STANDPIPE_CRASH_AT", format!("{step}:3")).timeout(Duration::from_secs(120)).finish().code(0);
        let died = [0, 1].map(|process| format!("counts: process {process} of its 2 was killed by signal 6; it is started again in 0.0 s"));
        let goes_on = match step {
            "prepare" | "prepared" | "write" => "counts: goes on from checkpoint 2 in ckpt/counts",
            _ => "counts: goes on from checkpoint 3 in ckpt/counts",
        };
        assert!(died.iter().any(|died| run.stderr.contains(died)) && run.stderr.contains(goes_on), "{step}: {}", run.stderr);
        assert_all_as_if_nothing_had_happened(&folder);
    }
}

#[test]
fn a_step_that_does_not_exist_is_named() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS.replace("restart: {strategy: fixed-delay, attempts: 3, delay: 10ms}\n", ""));
    let error =
        |at: &str| standpipe(["run", "counts.yaml"]).in_directory(folder.path()).env("STANDPIPE_CRASH_AT", at).finish().one_error(2);
    assert_eq!(error("durable"), "STANDPIPE_CRASH_AT: \"durable\" is no STEP:CHECKPOINT");
    assert_eq!(error("durable:x"), "STANDPIPE_CRASH_AT: \"x\" is no number");
    let names = "prepare, prepared, write, durable, commit, committed, upstream, done";
    assert_eq!(error("commited:3"), format!("STANDPIPE_CRASH_AT: \"commited\" is none of {names}"));
}
