//! Checkpoints as a user has them: `checkpoint:` in the file, a process that is killed, `--restore`, `--fresh`, `checkpoint list` and `inspect`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Run, Running, Signal, assert_counted, read_rows, standpipe};
use std::{fs, time::Duration};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const ROWS: i64 = 60_000;

const COUNTS: &str = "
name: counts
checkpoint: {interval: 50ms, dir: ckpt}
sources:
  ticks:
    connector: generator
    with: {rate: 20000, count: 60000, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 0s}
transforms:
  counts: {input: ticks, key_by: [k], window: {tumbling: 200ms}, aggregate: {n: \"count(*)\", s: \"sum(n)\"}}
  totals: {input: ticks, key_by: [k], aggregate: {n: \"count(*)\", s: \"sum(n)\"}, emit: final}
sinks:
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json}
  windows: {input: counts, connector: file, with: {path: windows.jsonl}, format: json}
  totals-out: {input: totals, connector: file, with: {path: totals.jsonl}, format: json}
";

fn counts(folder: &Folder, arguments: &[&str]) -> Run {
    standpipe(["run", "counts.yaml", "--log-level", "info"]).args(arguments).in_directory(folder.path())
}

/// Waits until that run has taken so many checkpoints.
fn taken(run: &mut Running, checkpoints: usize) {
    run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= checkpoints);
}

/// A run that is killed when it has taken so many checkpoints.
fn killed_after(checkpoints: usize, folder: &Folder, arguments: &[&str]) {
    let mut run = counts(folder, arguments).start();
    taken(&mut run, checkpoints);
    run.signal(Signal::KILL);
    _ = run.wait();
}

/// As if nothing had happened.
fn assert_exactly_once(folder: &Folder) {
    let all = read_rows(folder.at("all.jsonl"));
    assert!(all.iter().zip(0..).all(|(row, n)| row["n"] == n) && all.len() as i64 == ROWS, "{} rows", all.len());
    assert_counted(&all, &read_rows(folder.at("windows.jsonl")), &read_rows(folder.at("totals.jsonl")));
}

#[test]
fn a_process_that_is_killed_goes_on_from_its_last_checkpoint_and_its_files_are_as_if_nothing_had_happened() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    // Killed before its first checkpoint, after some, and stopped; on one worker, on three, on two.
    let mut run = counts(&folder, &[]).start();
    run.wait_until("its start", PATIENCE, |run| run.stderr().contains("starts on"));
    run.signal(Signal::KILL);
    _ = run.wait();
    for (parallelism, signal) in [("1", Signal::KILL), ("3", Signal::KILL), ("2", Signal::INT), ("2", Signal::KILL)] {
        let mut run = counts(&folder, &["--restore", "latest", "-p", parallelism]).start();
        taken(&mut run, 4);
        run.signal(signal);
        let ended = run.wait();
        assert_eq!(ended.stderr.contains("counts: stopped in"), signal == Signal::INT, "{}", ended.stderr);
    }
    let last = counts(&folder, &["--restore", "latest"]).finish().success();
    assert!(last.stderr.contains("counts: goes on from checkpoint "), "{}", last.stderr);
    assert_exactly_once(&folder);
    // It has ended: there is nothing left to do, and nothing is done twice.
    let again = counts(&folder, &["--restore", "latest"]).finish().success();
    assert!(again.stderr.contains(": 0 rows in, 0 rows out"), "{}", again.stderr);
    assert_exactly_once(&folder);
}

#[test]
fn where_there_are_checkpoints_a_job_begins_with_nothing_only_if_it_is_told_to() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    killed_after(3, &folder, &[]);
    let error = counts(&folder, &[]).finish().one_error(2);
    assert!(error.contains("there are checkpoints in ckpt/counts, up to "), "{error}");
    assert!(error.contains("--restore latest goes on from there, --fresh begins with nothing"), "{error}");
    let error = counts(&folder, &["--restore", "4711"]).finish().one_error(2);
    assert!(error.contains("there is no checkpoint 4711 in ckpt/counts; there are "), "{error}");
    let error = counts(&folder, &["--restore", "newest"]).finish().code(2).stderr;
    assert!(error.contains("expected latest, the number of a checkpoint, or the path of its manifest, found \"newest\""), "{error}");
    counts(&folder, &["--fresh"]).finish().success();
    assert_exactly_once(&folder);
}

#[test]
fn an_older_checkpoint_can_be_chosen() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    killed_after(10, &folder, &["--set", "checkpoint.keep=1000"]);
    let run = counts(&folder, &["--restore", "3"]).finish().success();
    assert!(run.stderr.contains("goes on from checkpoint 3 in ckpt/counts"), "{}", run.stderr);
    assert_exactly_once(&folder);
}

#[test]
fn a_job_moves_to_another_place_for_its_checkpoints() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    killed_after(5, &folder, &[]);
    let inspected = standpipe(["checkpoint", "inspect", "counts.yaml"]).in_directory(folder.path()).finish().success().stdout;
    let path = inspected.lines().find(|line| line.ends_with(".json")).unwrap();
    let moved = ["--set", "checkpoint.dir=other"];
    let error =
        counts(&folder, &[&moved[..], &["--restore", "ckpt/counts/checkpoints/00004711-000001.json"]].concat()).finish().one_error(2);
    let expected = "at \"ckpt/counts/checkpoints/00004711-000001.json\" there is no checkpoint: expected its manifest, like DIR/JOB/checkpoints/00000041-000003.json";
    assert!(error.contains(expected), "{error}");
    let error = counts(&folder, &[&moved[..], &["--restore", path, "--set", "name=another"]].concat()).finish().one_error(2);
    assert!(error.contains("it is of the job \"counts\", this is \"another\""), "{error}");

    // Told to go on from there, and killed before its first checkpoint: it has not forgotten.
    let slow = ["--set", "checkpoint.interval=1h"];
    let mut run = counts(&folder, &[&moved[..], &slow, &["--restore", path]].concat()).start();
    run.wait_until("its beginning", PATIENCE, |_| folder.at("other/counts/generations/000002.base").exists());
    run.signal(Signal::KILL);
    let killed = run.wait();
    assert!(killed.stderr.contains(&format!("checkpoints/{}", path.rsplit('/').next().unwrap())), "{}", killed.stderr);
    let error = counts(&folder, &moved).finish().one_error(2);
    assert!(error.contains("the job has begun from ") && error.contains("--restore latest goes on from there"), "{error}");
    killed_after(3, &folder, &[&moved[..], &["--restore", "latest"]].concat());
    let last = counts(&folder, &[&moved[..], &["--restore", "latest"]].concat()).finish().success();
    assert!(last.stderr.contains("in other/counts"), "{}", last.stderr);
    assert_exactly_once(&folder);
    // What is needed is there: the former place may go.
    fs::remove_dir_all(folder.at("ckpt")).unwrap();
    counts(&folder, &[&moved[..], &["--restore", "latest"]].concat()).finish().success();
    assert_exactly_once(&folder);
}

#[test]
fn checkpoints_are_listed_and_inspected() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    let checkpoint = |arguments: &[&str]| {
        let [verb, rest @ ..] = arguments else { panic!("a verb") };
        standpipe(["checkpoint", verb, "counts.yaml"]).args(rest).in_directory(folder.path()).finish()
    };
    assert_eq!(checkpoint(&["list"]).success().stdout, "NUMBER  KIND  TAKEN  TOOK  SIZE  RUN\n");
    assert!(checkpoint(&["inspect"]).one_error(2).contains("there is no checkpoint in ckpt/counts"));
    let mut run = counts(&folder, &["--set", "checkpoint.keep=2"]).start();
    taken(&mut run, 3);
    run.signal(Signal::INT);
    run.wait().success();
    let list = checkpoint(&["list"]).success().stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "the header and two that are kept: {list}");
    let number = lines[1].split(' ').next().unwrap();
    let inspected = checkpoint(&["inspect", number]).success().stdout;
    assert!(inspected.starts_with(&format!("checkpoint {number} of counts, run 1 (")), "{inspected}");
    for line in ["sources.ticks", "transforms.counts", "transforms.totals", "sinks.all"] {
        assert!(inspected.lines().any(|found| found.starts_with(line)), "{line}: {inspected}");
    }
    let totals = inspected.lines().find(|line| line.starts_with("transforms.totals")).unwrap();
    assert_eq!(totals.split_whitespace().collect::<Vec<_>>()[1..5], ["aggregate", "1", "keys", "10"]);
    let manifests = checkpoint(&["list", "--format", "json"]).success().stdout;
    let ids: Vec<String> = standpipe_tests::rows(&manifests).iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(ids, lines[1..].iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>());
    let missing = checkpoint(&["inspect", "99999"]).one_error(2);
    assert!(missing.contains("there is no checkpoint 99999"), "{missing}");
}

#[test]
fn what_cannot_hold_checkpoints_is_said_at_the_start() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    folder.write("file", "");
    let error = counts(&folder, &["--set", "checkpoint.dir=file/below"]).finish().one_error(3);
    assert!(error.contains("\"file/below\" is no place for checkpoints: Not a directory"), "{error}");
    let error = counts(&folder, &["--set", "checkpoint.dir=ftp://x/y"]).finish().one_error(2);
    assert!(error.contains("\"ftp://x/y\" is no place for checkpoints"), "{error}");
    let error = counts(&folder, &["--set", "checkpoint.interval=0s"]).finish().one_error(2);
    assert!(error.contains("checkpoint.interval: must be more than 0s"), "{error}");
    folder.write("none.yaml", COUNTS.replace("checkpoint: {interval: 50ms, dir: ckpt}\n", ""));
    let error = standpipe(["run", "none.yaml", "--restore", "latest"]).in_directory(folder.path()).finish().one_error(2);
    assert!(error.contains("the pipeline takes none: add checkpoint: {interval: 10s}"), "{error}");
    let error = standpipe(["checkpoint", "list", "none.yaml"]).in_directory(folder.path()).finish().one_error(2);
    assert!(error.contains("none.yaml takes no checkpoints"), "{error}");
    let error = standpipe(["checkpoint", "list", "missing.yaml"]).in_directory(folder.path()).finish().one_error(3);
    assert!(error.contains("missing.yaml"), "{error}");
}

#[test]
fn a_checkpoint_that_is_damaged_is_refused_with_the_name_of_its_file() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS);
    killed_after(3, &folder, &[]);
    let mut manifests: Vec<_> = fs::read_dir(folder.at("ckpt/counts/checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.sort();
    let newest = manifests.pop().unwrap();
    fs::write(&newest, "{\"format\": 1").unwrap();
    let error = counts(&folder, &["--restore", "latest"]).finish().one_error(1);
    assert!(error.contains(newest.file_name().unwrap().to_str().unwrap()) && error.contains("EOF while parsing"), "{error}");
    fs::write(&newest, "{\"format\": 99, \"standpipe\": \"9.0.0\"}").unwrap();
    let error = counts(&folder, &["--restore", "latest"]).finish().one_error(1);
    assert!(error.contains("it is of format 99, by standpipe 9.0.0; this release reads up to 1"), "{error}");
}
