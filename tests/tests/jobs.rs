//! `standpipe job`: running jobs are found by name, say how they do, take savepoints and stop on request; also those that are supervised.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::Value;
use standpipe_tests::{Finished, Folder, Run, Running, Signal, read_rows, standpipe};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::Duration,
};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const ROWS: usize = 60_000;

const COPY: &str = "
name: copy
checkpoint: {interval: 50ms, dir: ckpt}
sources:
  ticks: {connector: generator, with: {rate: 20000, count: 60000, fields: {n: {kind: sequence}}}}
sinks:
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json}
";
const SUPERVISED: &str = "restart: {strategy: fixed-delay, attempts: 5, delay: 100ms}\n";

/// Sockets of one test are not seen by others.
fn of(folder: &Folder, run: Run) -> Run {
    run.in_directory(folder.path()).env("STANDPIPE_RUN_DIR", folder.at("run"))
}

fn copy(folder: &Folder, more: &str) -> Run {
    folder.write("copy.yaml", format!("{COPY}{more}"));
    of(folder, standpipe(["run", "copy.yaml", "--log-level", "info"]))
}

fn job(folder: &Folder, arguments: &[&str]) -> Finished {
    of(folder, standpipe(["job"]).args(arguments)).finish()
}

fn shown(folder: &Folder) -> Value {
    serde_json::from_str(&job(folder, &["show", "copy", "--format", "json"]).success_text()).unwrap()
}

trait Text {
    fn success_text(self) -> String;
}

impl Text for Finished {
    fn success_text(self) -> String {
        let finished = self.code(0);
        finished.stdout
    }
}

fn wait_for_checkpoint(run: &mut Running) {
    run.wait_until("a checkpoint", PATIENCE, |run| run.stderr().contains("is durable after"));
}

fn assert_whole(folder: &Folder) {
    let rows = read_rows(folder.at("all.jsonl"));
    assert!(rows.len() == ROWS && rows.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", rows.len());
}

#[test]
fn a_job_shows_itself_takes_a_savepoint_and_stops_with_one() {
    for more in ["", SUPERVISED] {
        let folder = Folder::new();
        let mut run = copy(&folder, more).start();
        wait_for_checkpoint(&mut run);
        let list = job(&folder, &["list"]).success_text();
        assert!(list.lines().count() == 2 && list.contains("  running  ") && list.contains(&run.id().to_string()), "{list}");
        let status = shown(&folder);
        let node = |i: usize| status["nodes"][i]["node"].as_str().unwrap().to_owned();
        assert_eq!((status["state"].as_str(), node(0), node(1)), (Some("running"), "sources.ticks".into(), "sinks.all.encode".into()));
        assert!(status["totals"]["rows_in"].as_u64() > Some(0) && status["checkpoints"]["completed"].as_u64() > Some(0), "{status}");
        let text = job(&folder, &["show", &status["id"].as_str().unwrap()[..6]]).success_text();
        assert!(text.contains("checkpoints: ") && text.contains("\nsources.ticks "), "{text}");

        let saved: u64 = job(&folder, &["savepoint", "copy"]).success_text().trim().parse().unwrap();
        let stopped = job(&folder, &["stop", "copy", "--savepoint"]).code(0);
        assert!(stopped.stderr.contains("copy: stopped in "), "{}", stopped.stderr);
        let last: u64 = stopped.stdout.trim().parse().unwrap();
        assert!(last > saved);
        _ = run.wait().code(0);
        assert_eq!(job(&folder, &["list"]).success_text().lines().count(), 1, "it is not there any more");
        let list = of(&folder, standpipe(["checkpoint", "list", "copy.yaml"])).finish().success_text();
        let savepoints: Vec<&str> =
            list.lines().filter(|line| line.contains("savepoint")).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(savepoints, [saved.to_string(), last.to_string()]);

        let rest = copy(&folder, more).args(["--restore", &last.to_string()]).finish().code(0);
        assert!(rest.stderr.contains(&format!("copy: goes on from checkpoint {last} in ckpt/copy")), "{}", rest.stderr);
        assert_whole(&folder);
        let removed = of(&folder, standpipe(["checkpoint", "discard", "copy.yaml", &saved.to_string()])).finish().code(0);
        assert_eq!(removed.stderr, format!("{saved} is removed from ckpt/copy\n"));
    }
}

#[test]
fn a_job_without_checkpoints_takes_no_savepoint_and_runs_on() {
    let folder = Folder::new();
    let run = of(&folder, standpipe(["run", "plain.yaml"]));
    folder.write("plain.yaml", COPY.replace("checkpoint: {interval: 50ms, dir: ckpt}\n", ""));
    let mut run = run.start();
    run.wait_until("the job", PATIENCE, |_| folder.at("run").exists() && job(&folder, &["list"]).stdout.contains("running"));
    for arguments in [&["savepoint", "copy"][..], &["stop", "copy", "--savepoint"]] {
        let error = job(&folder, arguments).one_error(1);
        assert_eq!(error, "copy: the pipeline takes no checkpoints: add checkpoint: {interval: 10s}");
    }
    let stopped = job(&folder, &["stop", "copy"]).code(0);
    assert!(stopped.stderr.starts_with("copy: stopping\ncopy: stopped in "), "{}", stopped.stderr);
    _ = run.wait().code(0);
    let rows = read_rows(folder.at("all.jsonl"));
    assert!(!rows.is_empty() && rows.len() < ROWS && rows.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", rows.len());
}

#[test]
fn a_job_that_waits_to_be_started_again_says_so_and_can_be_stopped() {
    let folder = Folder::new();
    let mut run = copy(&folder, "restart: {strategy: fixed-delay, attempts: 5, delay: 1h}\n").start();
    wait_for_checkpoint(&mut run);
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap();
    let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, Signal::KILL).unwrap();
    run.wait_until("the failure", PATIENCE, |run| run.stderr().contains("started again in"));
    let status = shown(&folder);
    let why = "its process was killed by signal 9; it is started again in 3600.0 s, for the 1st time";
    assert_eq!(
        (status["state"].as_str(), status["reason"].as_str(), status["restarts"].as_u64()),
        (Some("restarting"), Some(why), Some(1))
    );
    let error = job(&folder, &["savepoint", "copy"]).one_error(1);
    assert_eq!(error, format!("copy: it cannot take a savepoint now: {why}"));
    let stopped = job(&folder, &["stop", "copy"]).code(0);
    assert_eq!(stopped.stderr, "copy: stopping\ncopy: ended\n");
    assert!(run.wait().code(0).stderr.contains("copy: stopped while it waited to be started again"));
    copy(&folder, "").args(["--restore", "latest"]).finish().success();
    assert_whole(&folder);
}

#[test]
fn a_cancelled_job_ends_at_once_and_loses_nothing_that_is_durable() {
    let folder = Folder::new();
    let mut run = copy(&folder, SUPERVISED).start();
    wait_for_checkpoint(&mut run);
    let cancelled = job(&folder, &["cancel", "copy"]).code(0);
    assert!(cancelled.stderr.contains("copy: cancelled in "), "{}", cancelled.stderr);
    let run = run.wait().code(0);
    assert!(!run.stderr.contains("started again"), "{}", run.stderr);
    copy(&folder, "").args(["--restore", "latest"]).finish().success();
    assert_whole(&folder);
}

#[test]
fn who_is_meant_must_be_clear() {
    let folder = Folder::new();
    assert_eq!(job(&folder, &["show", "copy"]).one_error(2), "no job \"copy\" runs here, nor any other");
    let start = |path: &str| copy(&folder, "").set("sinks.all.with.path", path).set("checkpoint.dir", path.replace(".jsonl", "")).start();
    let mut runs = [start("a.jsonl"), start("b.jsonl")];
    runs.iter_mut().for_each(wait_for_checkpoint);
    let error = job(&folder, &["stop", "copy"]).one_error(2);
    assert!(error.starts_with("several jobs are meant by \"copy\": name one by its id: copy ("), "{error}");
    let error = job(&folder, &["stop", "cpoy"]).one_error(2);
    assert!(error.starts_with("no job \"cpoy\" runs here; there are: copy ("), "{error}");
    // A killed job leaves its socket behind, which nobody trips over.
    let [mut a, b] = runs;
    a.signal(Signal::KILL);
    _ = a.wait();
    assert_eq!(fs::read_dir(folder.at("run")).unwrap().count(), 2);
    job(&folder, &["stop", "copy"]).success();
    _ = b.wait().code(0);
    assert_eq!(fs::read_dir(folder.at("run")).unwrap().count(), 0);
}

/// What a job answers to a line on its socket, as `nc -U` shows it.
fn said(folder: &Folder, line: &[u8]) -> String {
    let sockets = fs::read_dir(folder.at("run")).unwrap().map(|entry| entry.unwrap().path());
    let socket = sockets.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).last().unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    // A job that has heard enough hangs up.
    _ = stream.write_all(line);
    let mut answer = String::new();
    _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn the_socket_speaks_lines_of_json_and_what_is_none_changes_nothing() {
    for more in ["", SUPERVISED] {
        let folder = Folder::new();
        let mut run = copy(&folder, more).start();
        wait_for_checkpoint(&mut run);
        let status: Value = serde_json::from_str(&said(&folder, b"{\"do\": \"status\"}\n")).unwrap();
        assert_eq!((status["status"]["job"].as_str(), status["status"]["process"].as_u64()), (Some("copy"), Some(u64::from(run.id()))));
        for line in [&b"nothing of ours\n"[..], b"{\"do\": \"explode\"}\n", b"{\"do\": \"stop\", \"drian\": true}\n", b"\xff\xfe\n", b"\n"]
        {
            let answer = said(&folder, line);
            assert!(answer.is_empty() || answer.starts_with("{\"refused\":\"no request: "), "{line:?}: {answer}");
        }
        assert!(said(&folder, &vec![b'x'; 1 << 20]).len() < 1000);
        let number: Value = serde_json::from_str(&said(&folder, b"{\"do\": \"savepoint\"}\n")).unwrap();
        assert!(number["savepoint"]["number"].as_u64() > Some(0), "{number}");
        assert!(Path::new(number["savepoint"]["place"].as_str().unwrap()).exists(), "{number}");
        let stopped = said(&folder, b"{\"do\": \"stop\", \"savepoint\": true}\n");
        let answers: Vec<Value> = stopped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [stopping, savepoint, ended] = &answers[..] else { panic!("{stopped}") };
        assert!(stopping == "stopping" && savepoint["savepoint"]["number"].as_u64() > number["savepoint"]["number"].as_u64(), "{stopped}");
        assert!(ended["ended"].as_str().unwrap().starts_with("copy: stopped in "), "{stopped}");
        _ = run.wait().code(0);
    }
}

#[test]
fn a_folder_that_others_may_enter_is_refused_and_the_job_runs_without_it() {
    let folder = Folder::new();
    fs::create_dir(folder.at("run")).unwrap();
    fs::set_permissions(folder.at("run"), fs::Permissions::from_mode(0o755)).unwrap();
    let run = copy(&folder, "").finish().code(0);
    let why = format!(
        "{}: others may enter it; it must be a folder of yours alone (mode 700), or set STANDPIPE_RUN_DIR",
        folder.at("run").display()
    );
    assert!(run.stderr.contains(&format!("warning: `standpipe job` will not see this job: {why}\n")), "{}", run.stderr);
    assert_whole(&folder);
    assert_eq!(job(&folder, &["list"]).one_error(3), why);
}
