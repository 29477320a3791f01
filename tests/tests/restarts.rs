//! `restart:`: a job whose process fails, crashes or is killed is started again from its newest checkpoint, as often as the strategy says; one that is stopped is not.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Run, Running, Signal, fixture_plugin, has_ended, processes, read_rows, signal, standpipe, wait_until};
use std::time::Duration;

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const ROWS: usize = 40_000;

const COPY: &str = "
name: copy
checkpoint: {interval: 50ms, dir: ckpt}
restart: {strategy: fixed-delay, attempts: 5, delay: 100ms}
sources:
  ticks: {connector: generator, with: {rate: 8000, count: 40000, fields: {n: {kind: sequence}}}}
sinks:
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json}
";

fn copy(folder: &Folder) -> Run {
    folder.write("copy.yaml", COPY);
    standpipe(["run", "copy.yaml", "--log-level", "info"]).in_directory(folder.path())
}

/// The process that the job runs in: the child of the one that was started.
fn child(run: &Running) -> i32 {
    processes(run)[&0]
}

fn assert_whole(folder: &Folder) {
    let rows = read_rows(folder.at("all.jsonl"));
    assert!(rows.len() == ROWS && rows.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", rows.len());
}

#[test]
fn a_process_that_is_killed_is_started_again_from_its_newest_checkpoint() {
    let folder = Folder::new();
    let mut run = copy(&folder).start();
    for restarts in 1..=3 {
        run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= 3 * restarts);
        assert!(signal(child(&run), Signal::KILL));
        run.wait_until("the restart", PATIENCE, |run| run.stderr().matches("copy: goes on from checkpoint ").count() == restarts);
    }
    let finished = run.wait().success();
    for time in ["1st", "2nd", "3rd"] {
        let said = format!("copy: its process was killed by signal 9; it is started again in 0.1 s, for the {time} time");
        assert!(finished.stderr.contains(&said), "{}", finished.stderr);
    }
    assert_whole(&folder);
}

#[test]
fn a_signal_stops_the_job_and_is_counted_once() {
    // A terminal's Ctrl-C comes to both processes.
    for (stop, to_both) in [(Signal::INT, false), (Signal::INT, true), (Signal::TERM, false)] {
        let folder = Folder::new();
        let mut run = copy(&folder).start();
        run.wait_until("a checkpoint", PATIENCE, |run| run.stderr().contains("is durable after"));
        if to_both {
            assert!(signal(child(&run), stop));
        }
        run.signal(stop);
        let stopped = run.wait().success();
        assert!(stopped.stderr.contains("copy: stopped in ") && !stopped.stderr.contains("started again"), "{}", stopped.stderr);
        copy(&folder).args(["--restore", "latest"]).finish().success();
        assert_whole(&folder);
    }
}

#[test]
fn the_job_dies_with_its_supervisor() {
    let folder = Folder::new();
    let mut run = copy(&folder).start();
    run.wait_until("a checkpoint", PATIENCE, |run| run.stderr().contains("is durable after"));
    let child = child(&run);
    run.signal(Signal::KILL);
    _ = run.wait();
    wait_until("the end of the child", PATIENCE, || has_ended(child));
    copy(&folder).args(["--restore", "latest"]).finish().success();
    assert_whole(&folder);
}

#[test]
fn a_job_that_fails_again_and_again_is_given_up() {
    let folder = Folder::new();
    folder.write(
        "bad.yaml",
        "name: bad
restart: {strategy: fixed-delay, attempts: 2, delay: 10ms}
sources: {numbers: {connector: generator, with: {count: 100, fields: {n: {kind: sequence}}}}}
transforms: {bad: {input: numbers, transform: bad, with: {at: process}}}
sinks: {out: {input: bad, connector: print, format: json}}
",
    );
    let run = standpipe(["run", "bad.yaml"]).in_directory(folder.path()).plugin_path(fixture_plugin()).finish().code(1);
    assert_eq!(run.stderr.matches("error: ").count(), 3, "every failure is told: {}", run.stderr);
    assert!(run.stderr.contains("bad: it has failed; it has been started 3 times and is given up"), "{}", run.stderr);
    assert!(run.stderr.contains("restart: without checkpoint: a job that is started again begins with nothing"), "{}", run.stderr);
}

#[test]
fn what_another_start_would_not_help_is_not_started_again() {
    let folder = Folder::new();
    // Wrong at its start, and missing outside.
    let missing = copy(&folder).set("sources.ticks.connector", "file").set("sources.ticks.with", "{path: nothing.jsonl}");
    let missing = missing.set("sources.ticks.schema", "{n: int64}").set("sources.ticks.format", "json").finish().code(3);
    assert!(!missing.stderr.contains("started again"), "{}", missing.stderr);
    // A file would be in use.
    let print = || copy(&folder).set("sinks.all.connector", "print").set("sinks.all.with", "{}");
    let mut run = print().start();
    run.wait_until("a checkpoint", PATIENCE, |run| run.stderr().contains("is durable after"));
    // Another process takes over: the two do not fight.
    print().args(["--restore", "latest"]).finish().success();
    let former = run.wait().code(1);
    assert!(former.stderr.contains("error: another process runs this job in ckpt/copy: it is of generation "), "{}", former.stderr);
    assert!(!former.stderr.contains("started again"), "{}", former.stderr);
}
