//! What the tests of crashes and cuts share: a job that writes a million rows and their windows into files, in one process or several, and what must be in them.
#![allow(dead_code, reason = "each test file takes what it needs")]

use standpipe_tests::{Folder, Seen, assert_windows, read_rows};

pub(crate) const ROWS: i64 = 1_000_000;

/// In one process.
pub(crate) const COUNTS: &str = "
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

/// So that each of so many processes reads, and writes files of its own.
pub(crate) fn counts_of(processes: u32) -> String {
    let each = |text: &str| text.replace('#', &processes.to_string());
    let counts = COUNTS.replace("parallelism: 2\n", &each("parallelism: #\n")).replace("parallelism: 1", &each("parallelism: #"));
    let counts = counts.replace("count: 1000000\n", &each("count: 1000000\n      splits: #\n"));
    counts.replace("path: all.jsonl", "path: \"all-{subtask}.jsonl\"").replace("path: windows.jsonl", "path: \"windows-{subtask}.jsonl\"")
}

/// Every number once; every row in one window.
pub(crate) fn assert_as_if_nothing_had_happened(folder: &Folder) {
    // Of two subtasks, batches come in any order.
    Seen::none_of(ROWS).and_file(folder.at("all.jsonl")).assert_once("all.jsonl");
    assert_windows(&read_rows(folder.at("windows.jsonl")), ROWS);
}

/// The same, whichever of the processes has written it.
pub(crate) fn assert_all_as_if_nothing_had_happened(folder: &Folder, processes: u32) {
    let files = |name: &str| (0..processes).map(|process| folder.at(&format!("{name}-{process}.jsonl"))).collect::<Vec<_>>();
    files("all").into_iter().fold(Seen::none_of(ROWS), Seen::and_file).assert_once("all");
    assert_windows(&files("windows").into_iter().flat_map(read_rows).collect::<Vec<_>>(), ROWS);
}
