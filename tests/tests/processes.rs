//! `run --processes`: a job over several processes gives what it gives in one, survives the loss of any of them, is stopped as a whole and leaves none behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{
    Folder, Row, Run, Running, Signal, assert_counted, assert_same_rows, has_ended, processes, read_rows, signal, standpipe, wait_until,
};
use std::{fmt::Write, fs, time::Duration};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// As the engine has it.
const LEASE: Duration = Duration::from_secs(10);
const ROWS: i64 = 60_000;

const COUNTS: &str = "
name: counts
parallelism: 3
checkpoint: {interval: 50ms, dir: ckpt}
sources:
  ticks:
    connector: generator
    with: {rate: 20000, count: 60000, splits: 3, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 0s}
transforms:
  counts: {input: ticks, key_by: [k], window: {tumbling: 200ms}, aggregate: {n: \"count(*)\", s: \"sum(n)\"}}
  totals: {input: ticks, key_by: [k], aggregate: {n: \"count(*)\", s: \"sum(n)\"}, emit: final}
sinks:
  all: {input: ticks, connector: file, with: {path: \"all-{subtask}.jsonl\"}, format: json}
  windows: {input: counts, connector: file, with: {path: \"windows-{subtask}.jsonl\"}, format: json}
  totals-out: {input: totals, connector: file, with: {path: totals.jsonl}, format: json, parallelism: 1}
";
const RESTART: &str = "restart: {strategy: fixed-delay, attempts: 9, delay: 100ms}\n";

/// Sockets of one test are not seen by others.
fn of(folder: &Folder, run: Run) -> Run {
    run.in_directory(folder.path()).env("STANDPIPE_RUN_DIR", folder.at("run")).timeout(3 * PATIENCE)
}

fn counts(folder: &Folder, more: &str, arguments: &[&str]) -> Run {
    folder.write("counts.yaml", format!("{COUNTS}{more}"));
    of(folder, standpipe(["run", "counts.yaml", "--log-level", "info"]).args(arguments))
}

/// Waits until the run, as it was started the last time, has taken so many checkpoints.
fn taken(run: &mut Running, checkpoints: usize) {
    run.wait_until("checkpoints", PATIENCE, |run| {
        let stderr = run.stderr();
        let last = stderr.rfind("goes on from checkpoint").unwrap_or(0);
        stderr[last..].matches("is durable after").count() >= checkpoints
    });
}

/// The rows of all subtasks of a sink.
fn rows_of(folder: &Folder, name: &str) -> Vec<Row> {
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_of = |file: &str| file.starts_with(&format!("{name}-")) && file.ends_with(".jsonl");
    files.filter(|path| path.file_name().and_then(|file| file.to_str()).is_some_and(is_of)).flat_map(read_rows).collect()
}

/// As if nothing had happened.
fn assert_exactly_once(folder: &Folder) {
    let all = rows_of(folder, "all");
    let mut numbers: Vec<i64> = all.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..ROWS), "{} rows", numbers.len());
    assert_counted(&all, &rows_of(folder, "windows"), &read_rows(folder.at("totals.jsonl")));
}

#[test]
fn what_comes_out_is_the_same_over_any_processes() {
    let folder = Folder::new();
    for file in 0..5 {
        let mut text = String::new();
        for i in (0..8_000).map(|i| i * 5 + file) {
            let (word, ts) = (i * 7 % 101, 1_700_000_000_000_i64 + i * 3);
            writeln!(text, "{{\"word\": \"w{word}\", \"n\": {i}, \"ts\": {ts}}}").unwrap();
        }
        folder.write(&format!("in-{file}.json"), text);
    }
    folder.write(
        "words.yaml",
        "
name: words
parallelism: 4
sources:
  lines:
    connector: file
    with: {path: \"in-*.json\"}
    format: json
    schema: {word: string, n: int64, ts: timestamp_ms}
    event_time: {column: ts, out_of_orderness: 30s}
transforms:
  counts: {input: lines, key_by: [word], window: {tumbling: 10s}, aggregate: {n: \"count(*)\", s: \"sum(n)\", last: \"max(n)\"}}
  totals: {input: lines, key_by: [word], aggregate: {n: \"count(*)\", s: \"sum(n)\"}, emit: final}
sinks:
  windows: {input: counts, connector: file, with: {path: \"windows-{subtask}.jsonl\"}, format: json}
  sums: {input: totals, connector: print, format: json}
",
    );
    let run = |processes: &str| {
        let run = of(&folder, standpipe(["run", "words.yaml", "--processes"]).args(processes.split(' '))).finish().code(0);
        assert!(run.stderr.contains(": 40000 rows in, "), "the numbers are of the whole job: {}", run.stderr);
        (rows_of(&folder, "windows"), standpipe_tests::rows(&run.stdout))
    };
    let (windows, totals) = run("1");
    assert!(windows.len() > 1_000 && totals.len() == 101, "{} {}", windows.len(), totals.len());
    for processes in ["2", "3", "6", "3 --tls"] {
        let (found, sums) = run(processes);
        assert_same_rows(&format!("windows of {processes}"), &found, &windows);
        assert_same_rows(&format!("totals of {processes}"), &sums, &totals);
    }
}

#[test]
fn any_process_may_be_killed_and_files_are_as_if_nothing_had_happened() {
    for (arguments, how) in [(["--processes", "3"].as_slice(), "in the clear"), (["--processes", "3", "--tls"].as_slice(), "over TLS")] {
        let folder = Folder::new();
        // Slow enough for three restarts on a machine that is busy.
        let mut run = counts(&folder, RESTART, arguments).set("sources.ticks.with.rate", "6000").start();
        for (restarts, process) in [(1, 1), (2, 0), (3, 2)] {
            taken(&mut run, 4);
            assert!(signal(processes(&run)[&process], Signal::KILL));
            let said = format!("counts: process {process} of its 3 was killed by signal 9; it is started again in 0.1 s");
            run.wait_until("the restart", PATIENCE, |run| {
                run.stderr().contains(&said) && run.stderr().matches("counts: goes on from checkpoint ").count() == restarts
            });
        }
        let finished = run.wait().code(0);
        assert!(finished.stderr.contains("counts: finished in "), "{}", finished.stderr);
        let connected = finished.stderr.matches("connected to the other processes ").count();
        let said = finished.stderr.matches(&format!("connected to the other processes {how}")).count();
        assert!(said >= 3 && said == connected, "{said} of {connected} in {}", finished.stderr);
        assert_exactly_once(&folder);
    }
}

#[test]
fn a_process_that_is_stopped_is_found_out_by_its_lease() {
    // Of the first one another one tells.
    for (process, arguments) in [(1, ["--processes", "2", "--tls"].as_slice()), (0, ["--processes", "2"].as_slice())] {
        let folder = Folder::new();
        let mut run = counts(&folder, RESTART, arguments).start();
        taken(&mut run, 4);
        let id = processes(&run)[&process];
        assert!(signal(id, Signal::STOP));
        let said = format!("error: process {process} (pid {id}) has not been heard of for 10 s");
        run.wait_until("the lease to end", PATIENCE + LEASE, |run| run.stderr().contains(&said));
        run.wait_until("the restart", PATIENCE, |run| run.stderr().contains("counts: goes on from checkpoint "));
        assert!(has_ended(id), "one that is stopped cannot end itself, and was killed");
        run.wait().success();
        assert_exactly_once(&folder);
    }
}

#[test]
fn without_a_restart_strategy_the_loss_of_a_process_fails_the_job_by_name() {
    let folder = Folder::new();
    let mut run = counts(&folder, "", &["--processes", "2"]).start();
    taken(&mut run, 1);
    let all = processes(&run);
    assert!(signal(all[&1], Signal::KILL));
    let failed = run.wait().code(1);
    let said = format!("error: process 1 (pid {}) has ended without a word", all[&1]);
    assert!(failed.stderr.contains(&said), "{}", failed.stderr);
    assert!(failed.stderr.contains("error: process 1 of 2 has ended: signal: 9"), "{}", failed.stderr);
    assert!(all.values().all(|id| has_ended(*id)));
    counts(&folder, "", &["--restore", "latest"]).finish().success();
    assert_exactly_once(&folder);
}

#[test]
fn a_stop_is_clean_and_any_number_of_processes_goes_on() {
    let folder = Folder::new();
    let mut run = counts(&folder, "", &["--processes", "2"]).start();
    taken(&mut run, 3);
    run.signal(Signal::INT);
    let stopped = run.wait().code(0);
    assert!(stopped.stderr.contains("counts: stopped in "), "{}", stopped.stderr);
    // A savepoint, by the job's name; its status is of the whole job.
    let mut run = counts(&folder, RESTART, &["--processes", "3", "--tls", "--restore", "latest"]).start();
    taken(&mut run, 3);
    let job = |arguments: &[&str]| of(&folder, standpipe(["job"]).args(arguments)).finish().code(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&job(&["show", "counts", "--format", "json"])).unwrap();
    assert_eq!((&shown["state"], &shown["process"]), (&"running".into(), &run.id().into()), "{shown}");
    let number: u64 = job(&["stop", "counts", "--savepoint"]).trim().parse().unwrap();
    run.wait().success();
    // On one process, from that savepoint; then on two.
    let number = number.to_string();
    let mut run = counts(&folder, "", &["--restore", &number]).start();
    taken(&mut run, 3);
    run.signal(Signal::TERM);
    run.wait().success();
    counts(&folder, "", &["--processes", "2", "--restore", "latest"]).finish().success();
    assert_exactly_once(&folder);
}

#[test]
fn ctrl_c_leaves_no_process_behind_and_neither_does_a_supervisor_that_is_killed() {
    let folder = Folder::new();
    let mut run = counts(&folder, RESTART, &["--processes", "3"]).start();
    taken(&mut run, 2);
    let all = processes(&run);
    assert_eq!(all.len(), 3);
    // The terminal tells all of them.
    assert!(all.values().all(|id| signal(*id, Signal::INT)));
    run.signal(Signal::INT);
    let stopped = run.wait().code(0);
    assert!(stopped.stderr.contains("counts: stopped in "), "{}", stopped.stderr);
    assert!(all.values().all(|id| has_ended(*id)));

    let mut run = counts(&folder, RESTART, &["--processes", "3", "--restore", "latest"]).start();
    taken(&mut run, 2);
    let all = processes(&run);
    run.signal(Signal::KILL);
    _ = run.wait();
    wait_until("the end of all", PATIENCE, || all.values().all(|id| has_ended(*id)));
    counts(&folder, "", &["--restore", "latest"]).finish().success();
    assert_exactly_once(&folder);
}

#[test]
fn what_is_wrong_at_the_start_is_said_once() {
    let folder = Folder::new();
    let error = counts(&folder, "", &["--processes", "2", "--set", "sources.ticks.with.rate=0"]).finish().one_error(2);
    assert!(error.contains("rate"), "{error}");
    counts(&folder, "", &["--processes", "2"]).finish().success();
    let error = counts(&folder, "", &["--processes", "2"]).finish().one_error(2);
    assert!(error.contains("there are checkpoints in ckpt/counts"), "{error}");
    let error = counts(&folder, "", &["--processes", "65"]).finish().code(2).stderr;
    assert!(error.contains("--processes"), "{error}");
    // One process talks to no other.
    counts(&folder, "", &["--tls", "--restore", "latest"]).finish().success();
    let idle = counts(&folder, "", &["--processes", "4", "--restore", "latest"]).finish().code(0);
    assert!(idle.stderr.contains("a parallelism of 3 leaves some of 4 processes without work"), "{}", idle.stderr);
}
