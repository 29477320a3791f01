//! The end of a job that has none of its own: signals, failures of a node while the others are busy or stuck.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Finished, Folder, Running, Signal, fixture_plugin, read_rows, rows, standpipe};
use std::time::{Duration, Instant};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

const ENDLESS: &str = "
name: endless
sources:
  ticks:
    connector: generator
    with: {rate: 5000, fields: {n: {kind: sequence}, k: {kind: choice, values: [a, b, c]}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 0s}
transforms:
  # One window that is open all the time.
  counts: {input: ticks, key_by: [k], window: {tumbling: 1000d}, aggregate: {n: \"count(*)\"}}
sinks:
  seen: {input: ticks, connector: print, format: json}
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json}
  windows: {input: counts, connector: file, with: {path: windows.jsonl}, format: json}
";

const STUBBORN: &str = "
name: stubborn
sources:
  numbers: {connector: bad, with: {pause: 5}}
transforms:
  passed: {input: numbers, transform: bad, with: {}}
sinks:
  seen: {input: numbers, connector: print, format: json}
  all: {input: numbers, connector: file, with: {path: all.jsonl}, format: json}
  out: {input: passed, connector: bad, with: {}}
";

/// Runs the endless job until some thousand rows are out, sends the signal, and looks at what does not depend on `--drain`.
fn stop_endless(signal: Signal, arguments: &[&str], folder: &Folder) -> Finished {
    folder.write("endless.yaml", ENDLESS);
    let mut run = standpipe(["run", "endless.yaml"]).args(arguments).in_directory(folder.path()).start();
    run.wait_until("some thousand rows", PATIENCE, |run| run.stdout().lines().count() > 3000);
    assert_eq!(folder.names().iter().filter(|name| *name == "all.jsonl").count(), 0, "the file has its name before it is complete");
    let finished = stop(run, signal);
    assert_eq!(folder.names(), ["all.jsonl", "endless.yaml", "windows.jsonl"]);
    let seen = rows(&finished.stdout);
    let all = read_rows(folder.at("all.jsonl"));
    assert_eq!(all, seen);
    assert!(all.iter().zip(0..).all(|(row, n)| row["n"] == n), "rows are missing, doubled or out of order");
    assert!(finished.stderr.contains(&format!(": {} rows in, ", all.len())), "{} rows, and {}", all.len(), finished.stderr);
    finished
}

/// Sends the signal and expects the end, with 0, soon.
fn stop(mut run: Running, signal: Signal) -> Finished {
    run.signal(signal);
    let sent = Instant::now();
    let finished = run.wait().code(0);
    assert!(sent.elapsed() < Duration::from_secs(2), "stopping took {:?}", sent.elapsed());
    assert!(finished.stderr.contains("stopped in "), "{}", finished.stderr);
    finished
}

#[test]
fn ctrl_c_finishes_what_is_in_flight_and_fires_no_open_window() {
    let folder = Folder::new();
    stop_endless(Signal::INT, &[], &folder);
    assert_eq!(folder.read("windows.jsonl"), "");
}

#[test]
fn sigterm_does_what_ctrl_c_does_also_at_parallelism_2() {
    let folder = Folder::new();
    stop_endless(Signal::TERM, &["-p", "2"], &folder);
    assert_eq!(folder.read("windows.jsonl"), "");
}

#[test]
fn ctrl_c_with_drain_fires_the_open_windows() {
    let folder = Folder::new();
    let finished = stop_endless(Signal::INT, &["--drain"], &folder);
    let windows = read_rows(folder.at("windows.jsonl"));
    let counted: u64 = windows.iter().map(|row| row["n"].as_u64().unwrap()).sum();
    assert_eq!((windows.len(), counted), (3, finished.stdout.lines().count() as u64));
}

#[test]
fn an_idle_job_stops_at_once() {
    let run = standpipe(["run", "examples/word-count-changes.yaml"]).stdin_open();
    let mut run = run.start();
    run.write("one\n");
    run.wait_until("the first count", PATIENCE, |run| run.stdout().contains("one"));
    let finished = stop(run, Signal::INT);
    assert_eq!(rows(&finished.stdout).len(), 1);
}

/// Nothing is on its way: there is nothing to wait for.
#[test]
fn a_job_whose_server_does_not_answer_stops_at_once() {
    // Somebody listens, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let folder = Folder::new();
    folder.write("pipeline.yaml", STUBBORN);
    let run = standpipe(["run", "pipeline.yaml", "--log-level", "info"]).in_directory(folder.path()).plugin_path(fixture_plugin());
    let run = run.set("sources.numbers.connector", "kafka").set("sources.numbers.with", format!("{{bootstrap: \"{address}\", topic: t}}"));
    let mut run = run.set("sources.numbers.schema", "{n: int64}").set("sources.numbers.format", "json").start();
    run.wait_until("the start", PATIENCE, |run| run.stderr().contains("starts on"));
    stop(run, Signal::INT);
}

/// What is said to a terminal that is gone must not keep the signal from its work.
#[test]
fn a_job_without_stderr_stops_and_finishes_as_any_other() {
    let folder = Folder::new();
    folder.write("endless.yaml", ENDLESS);
    let mut run = standpipe(["run", "endless.yaml"]).in_directory(folder.path()).stderr_gone().start();
    run.wait_until("some rows", PATIENCE, |run| run.stdout().lines().count() > 100);
    run.signal(Signal::INT);
    let finished = run.wait().code(0);
    assert_eq!(read_rows(folder.at("all.jsonl")), rows(&finished.stdout));
    folder.write("wrong.yaml", "name: x\n");
    _ = standpipe(["run", "wrong.yaml"]).in_directory(folder.path()).stderr_gone().finish().code(2);
    let count = standpipe(["run", "examples/word-count.yaml", "--log-level", "debug"])
        .set("sinks.out.with.path", folder.at("out").display().to_string());
    _ = count.stderr_gone().finish().code(0);
}

/// The job with these settings of nodes, started, with some rows on their way.
fn start_stubborn(folder: &Folder, settings: &[(&str, &str)]) -> Running {
    folder.write("stubborn.yaml", STUBBORN);
    let mut run = standpipe(["run", "stubborn.yaml"]).in_directory(folder.path()).plugin_path(fixture_plugin());
    for (node, with) in settings {
        run = run.set(&format!("{node}.with"), with);
    }
    let mut run = run.start();
    run.wait_until("rows", PATIENCE, |run| !run.stdout().is_empty());
    run
}

#[test]
fn a_second_signal_ends_a_job_that_cannot_stop() {
    for (node, trouble, signal) in [
        ("sinks.out", "{at: write, how: block, after: 3, mark: stuck}", Signal::INT),
        ("sinks.out", "{at: finish, how: block, mark: stuck}", Signal::TERM),
        ("transforms.passed", "{at: process, how: block, after: 3, mark: stuck}", Signal::INT),
        ("sources.numbers", "{at: poll, how: block, after: 3, mark: stuck}", Signal::TERM),
    ] {
        let folder = Folder::new();
        let mut run = start_stubborn(&folder, &[(node, trouble)]);
        // `finish` comes with the signal, the other calls without it.
        if !trouble.contains("finish") {
            run.wait_until("the plugin is stuck", PATIENCE, |_| folder.at("stuck").exists());
        }
        run.signal(signal);
        run.wait_until("the first signal is understood", PATIENCE, |run| run.stderr().contains("a second signal ends at once"));
        run.wait_until("the plugin is stuck", PATIENCE, |_| folder.at("stuck").exists());
        run.signal(signal);
        let sent = Instant::now();
        let finished = run.wait().code(130);
        assert!(sent.elapsed() < Duration::from_secs(1), "{node}, {trouble}: {:?}", sent.elapsed());
        assert!(!finished.stderr.contains("error:"), "{}", finished.stderr);
    }
}

/// How long a job takes to end once the first of these nodes has failed; it says why, and leaves what was there.
fn fails_with_its_cause(settings: &[(&str, &str)]) -> Duration {
    let folder = Folder::new();
    folder.write("all.jsonl", "of an earlier run");
    let mut run = start_stubborn(&folder, settings);
    run.wait_until(&format!("{settings:?}"), PATIENCE, |_| folder.at("now").exists());
    let failed = Instant::now();
    let finished = run.wait().code(1);
    let took = failed.elapsed();
    let errors: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let is_first = |(failing, _): &(&str, &str)| errors.len() == 1 && errors[0].starts_with(&format!("error: {failing}: "));
    assert!(settings.first().is_some_and(is_first), "{settings:?}: {}", finished.stderr);
    assert!(errors[0].contains("as asked, in "), "{}", errors[0]);
    assert_eq!(folder.read("all.jsonl"), "of an earlier run", "a job that failed replaced a complete file");
    took
}

#[test]
fn a_failure_anywhere_ends_the_job_with_its_cause_within_a_second() {
    let stuck = "{at: write, how: block, after: 2}";
    for (failing, trouble, others) in [
        ("sources.numbers", "{at: poll, how: fail, after: 20, pause: 5, mark: now}", [].as_slice()),
        ("sources.numbers", "{at: poll, how: fail, after: 20, pause: 5, mark: now}", &[("sinks.out", stuck)]),
        (
            "sources.numbers",
            "{at: poll, how: panic, after: 20, pause: 5, mark: now}",
            &[("transforms.passed", "{at: process, how: block}")],
        ),
        ("transforms.passed", "{at: process, how: fail, after: 20, mark: now}", &[]),
        ("transforms.passed", "{at: process, how: panic, after: 20, mark: now}", &[("sinks.out", stuck)]),
        ("sinks.out", "{at: write, how: fail, after: 20, mark: now}", &[]),
        ("sinks.out", "{at: write, how: panic, after: 2, mark: now}", &[("sources.numbers", "{at: poll, how: block, after: 9}")]),
    ] {
        let mut settings = vec![(failing, trouble)];
        settings.extend(others);
        // A machine that is busy may be late once, but not each time.
        let in_time = (0..3).any(|_| fails_with_its_cause(&settings) < Duration::from_secs(1));
        assert!(in_time, "{settings:?}");
    }
}
