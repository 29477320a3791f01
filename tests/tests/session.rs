//! The deployment mode `session` against a running cluster, by the rows of the founding checklist (A1, A2, ...): `standpipe cluster start`, `deploy`, and what follows by the
//! handle. `deploy.rs` has what needs no cluster.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_tests::{Finished, Folder, Run, Running, Signal, binary, free_port, read_rows, signal, standpipe, wait_until};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileTypeExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(90);

/// So many numbers, as fast as they come, into a file; `DIR` is the test's folder.
const NUMBERS: &str = "name: numbers
sources:
  numbers: {connector: generator, with: {count: 1000, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: file, with: {path: DIR/out.jsonl}, format: json}
";
/// Numbers without end.
const ENDLESS: &str = "name: endless
sources:
  numbers: {connector: generator, with: {rate: 200, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: file, with: {path: DIR/endless.jsonl}, format: json}
";
const COLLECTED: &str = "name: collected
sources:
  numbers: {connector: generator, with: {count: 1000, fields: {n: {kind: sequence}}}}
transforms:
  named: {input: numbers, select: {n: n, name: \"concat('number ', cast(n as string))\"}}
sinks:
  rows: {input: named, connector: collect}
";

/// A cluster of this machine in a folder, and its client's files.
struct Session {
    folder: Folder,
    port: u16,
}

impl Session {
    fn start(slots: u32) -> Self {
        let session = Self { folder: Folder::new(), port: free_port() };
        let (slots, port) = (slots.to_string(), session.port.to_string());
        let run = standpipe(["cluster", "start", "--slots", &slots, "--port", &port, "--data"]).args([session.folder.at("cluster")]);
        let _ = run.timeout(PATIENCE).finish().code(0);
        session
    }

    /// A command with where the cluster is.
    fn run(&self, arguments: &[&str]) -> Run {
        let run = standpipe(arguments).in_directory(self.folder.path()).timeout(PATIENCE);
        run.args(["-D", "rest.address=127.0.0.1", "-D"]).args([format!("rest.port={}", self.port)])
    }

    fn deploy(&self, name: &str, pipeline: &str, more: &[&str]) -> Finished {
        let file = format!("{name}.yaml");
        self.folder.write(&file, pipeline.replace("DIR", self.folder.path().to_str().unwrap()));
        self.run(&["deploy", &file, "--handle", &format!("{name}.json")]).args(more).finish()
    }

    /// Deploys; later commands have the name alone.
    fn submit(&self, name: &str, pipeline: &str, more: &[&str]) {
        let deployed = self.deploy(name, pipeline, more).code(0);
        assert!(deployed.stdout.is_empty(), "{deployed:?}");
    }

    /// A command about a job: what it says is in its handle.
    fn job(&self, command: &str, name: &str) -> Run {
        standpipe(["deployment", command, "--handle", &format!("{name}.json")]).in_directory(self.folder.path()).timeout(PATIENCE)
    }

    fn state(&self, name: &str) -> String {
        self.job("status", name).finish().code(0).stdout.trim().to_owned()
    }

    fn runs(&self, name: &str) {
        wait_until("RUNNING", PATIENCE, || self.state(name) == "RUNNING");
    }

    fn handle(&self, name: &str) -> Value {
        serde_json::from_str(&self.folder.read(&format!("{name}.json"))).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        serde_json::from_str(&ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Its processes: job manager and task manager.
    fn started(&self) -> [i32; 2] {
        let started: Value = serde_json::from_str(&self.folder.read("cluster/cluster.json")).unwrap();
        ["job_manager", "task_manager"].map(|one| i32::try_from(started[one]["pid"].as_i64().unwrap()).unwrap())
    }

    /// The processes of workers, by the ids of their jobs.
    fn worker(&self, name: &str) -> i32 {
        let id = self.handle(name)["jobid"].as_str().unwrap().to_owned();
        let [_, task_manager] = self.started();
        let children = fs::read_to_string(format!("/proc/{task_manager}/task/{task_manager}/children")).unwrap();
        let of_job = |pid: &&str| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&id));
        children.split_whitespace().find(of_job).unwrap_or_else(|| panic!("no worker of {id} in {children:?}")).parse().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(self.folder.at("cluster")).output());
    }
}

fn numbers(folder: &Folder, file: &str) -> Vec<i64> {
    let mut numbers: Vec<i64> = read_rows(folder.at(file)).iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a1_the_same_file_runs_in_the_foreground_by_cli_and_in_session() {
    let session = Session::start(2);
    session.submit("numbers", NUMBERS, &[]);
    assert_eq!(session.job("wait", "numbers").finish().code(0).stdout, "FINISHED\n");
    assert!(numbers(&session.folder, "out.jsonl").into_iter().eq(0..1000));
    let written = session.folder.read("out.jsonl");
    fs::remove_file(session.folder.at("out.jsonl")).unwrap();
    let by_cli = session.run(&["deploy", "numbers.yaml", "-D", "deployment_mode=cli"]).finish().code(0);
    let handle: Value = serde_json::from_str(&by_cli.stdout).unwrap();
    let ran = Command::new("sh").args(["-c", handle["command"].as_str().unwrap()]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(session.folder.read("out.jsonl"), written);
}

#[test]
fn a8_ten_submissions_are_ten_jobs_of_one_manager() {
    let session = Session::start(10);
    let before = session.started();
    let mut taken = Vec::new();
    for number in 0..10 {
        let name = format!("job-{number}");
        let pipeline = ENDLESS.replace("endless", &name);
        let begun = Instant::now();
        session.submit(&name, &pipeline, &[]);
        session.runs(&name);
        taken.push(begun.elapsed());
    }
    taken.sort();
    // Measured in benches; here for whoever reads the log.
    eprintln!("deploy to RUNNING, seen by a client: p50 {:?}, longest {:?}", taken[5], taken[9]);
    assert_eq!(session.get("/overview")["jobs-running"], 10);
    assert_eq!(session.started(), before);
    let [manager, _] = before;
    let children = fs::read_to_string(format!("/proc/{manager}/task/{manager}/children")).unwrap();
    assert!(children.trim().is_empty(), "the manager runs no job itself: {children}");
    let ids: std::collections::BTreeSet<String> = (0..10).map(|i| session.handle(&format!("job-{i}"))["jobid"].to_string()).collect();
    assert_eq!(ids.len(), 10);
}

/// Passes connections on, and counts what clients send.
fn counting(port: u16) -> (u16, Arc<AtomicU64>) {
    let (listener, sent) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicU64::new(0)));
    let (own, count) = (listener.local_addr().unwrap().port(), Arc::clone(&sent));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, TcpStream::connect(("127.0.0.1", port))) else { return };
            let (mut back, mut out) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let count = Arc::clone(&count);
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    count.fetch_add(read as u64, SeqCst);
                    if server.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
                drop(server.shutdown(std::net::Shutdown::Write));
            });
            thread::spawn(move || drop(std::io::copy(&mut back, &mut out)));
        }
    });
    (own, sent)
}

#[test]
fn a8_only_files_that_are_missing_are_sent() {
    let session = Session::start(2);
    let (port, sent) = counting(session.port);
    let through = format!("rest.port={port}");
    session.submit("first", NUMBERS, &["-D", &through]);
    let first = sent.swap(0, SeqCst);
    let plugin = fs::metadata(standpipe_tests::plugin("connector_file")).unwrap().len();
    assert!(first > plugin, "{first} bytes, of a plugin of {plugin}");
    assert_eq!(session.job("wait", "first").finish().code(0).stdout, "FINISHED\n");
    sent.store(0, SeqCst);
    session.submit("second", &NUMBERS.replace("out.jsonl", "second.jsonl"), &["-D", &through]);
    let second = sent.load(SeqCst);
    assert!(second < 10_000, "{second} bytes");
    assert_eq!(session.job("wait", "second").finish().code(0).stdout, "FINISHED\n");
    assert!(numbers(&session.folder, "second.jsonl").into_iter().eq(0..1000));
}

#[test]
fn a9_results_are_collected_in_every_format_and_as_often_as_one_likes() {
    let session = Session::start(2);
    session.submit("collected", COLLECTED, &["--parallelism", "2"]);
    let collect = |more: &[&str]| session.job("collect", "collected").args(more).finish().code(0);
    let rows: Vec<Value> = collect(&["--format", "json"]).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut found: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    found.sort_unstable();
    assert!(found.iter().copied().eq(0..1000));
    assert!(rows.iter().all(|row| row["name"] == format!("number {}", row["n"])), "{:?}", rows[0]);
    // The job has ended: its rows are still there.
    assert_eq!(session.job("wait", "collected").finish().code(0).stdout, "FINISHED\n");
    assert_eq!(collect(&["--format", "json", "rows"]).stdout.lines().count(), 1000);
    let table = collect(&["--limit", "3"]).stdout;
    assert_eq!((table.lines().count(), table.lines().next().map(str::trim_end)), (4, Some("n  name")), "{table}");
    let csv = collect(&["--format", "csv", "--limit", "2"]).stdout;
    assert_eq!((csv.lines().count(), csv.lines().next()), (3, Some("n,name")), "{csv}");
    let by_job =
        standpipe(["job", "collect", "--handle", "collected.json", "--limit", "1", "--format", "json"]).in_directory(session.folder.path());
    assert_eq!(by_job.finish().code(0).stdout.lines().count(), 1);
    _ = collect(&["--format", "parquet", "--output", "rows.parquet"]);
    let parquet = fs::read(session.folder.at("rows.parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    _ = collect(&["--format", "arrow", "--output", "rows.arrow"]);
    let arrow = fs::read(session.folder.at("rows.arrow")).unwrap();
    assert!(arrow.ends_with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), "an Arrow IPC stream");
    // A pipe is written to as it is, and stays one.
    let pipe = session.folder.at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    _ = collect(&["--format", "json", "--output", "pipe"]);
    assert_eq!(reader.join().unwrap().lines().count(), 1000);
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    let other = session.job("collect", "collected").args(["other"]).finish().one_error(2);
    assert_eq!(other, "session: the job has no node \"other\": it has sources.numbers, transforms.named, sinks.rows");
    session.submit("numbers", NUMBERS, &[]);
    let none = session.job("collect", "numbers").finish().one_error(2);
    assert!(none.contains("the job has no sink of the connector collect"), "{none}");
}

#[test]
fn a10_what_does_not_end_is_collected_with_a_limit_or_a_timeout() {
    let session = Session::start(2);
    let endless = ENDLESS.replace("connector: file, with: {path: DIR/endless.jsonl}, format: json", "connector: collect");
    session.submit("endless", &endless, &[]);
    let refused = session.job("collect", "endless").finish().one_error(2);
    assert!(refused.contains("the job does not end by itself: say how many rows"), "{refused}");
    let limited = session.job("collect", "endless").args(["--limit", "250", "--format", "json"]).finish().code(0).stdout;
    let found: Vec<i64> = limited.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap()).collect();
    assert_eq!(found, (0..250).collect::<Vec<_>>());
    let begun = Instant::now();
    let timed = session.job("collect", "endless").args(["--timeout", "1500ms", "--format", "json"]).finish().code(0).stdout;
    assert!(timed.lines().count() >= 250 && begun.elapsed() >= Duration::from_millis(1500), "{} rows", timed.lines().count());
    // Ctrl-C: what has come is kept.
    let mut waiting = session.job("collect", "endless").args(["--limit", "1000000", "--format", "json"]).start();
    waiting.wait_until("rows", PATIENCE, |run| run.stdout().lines().count() > 100);
    waiting.signal(Signal::INT);
    _ = waiting.wait().code(0);
    assert_eq!(session.job("cancel", "endless").finish().code(0).stdout, "CANCELED\n");
    // It has ended: there is an end to its rows.
    let rest = session.job("collect", "endless").args(["--format", "json"]).finish();
    assert!(rest.stdout.lines().count() >= 250 && !rest.stderr.contains("end by itself"), "{}", rest.stderr);
}

#[test]
fn a10_a_full_buffer_holds_the_job_until_somebody_reads_and_nothing_is_lost() {
    let session = Session::start(1);
    let small =
        COLLECTED.replace("count: 1000", "count: 200000").replace("connector: collect", "connector: collect, with: {buffer: 600KiB}");
    session.submit("small", &small, &[]);
    session.runs("small");
    let bytes = || -> u64 {
        let jobs = fs::read_dir(session.folder.at("cluster/taskmanager/jobs")).unwrap().map(|entry| entry.unwrap().path());
        let folders = jobs.filter(|path| path.extension().is_some_and(|end| end == "collect")).map(|path| path.join("rows"));
        folders
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten())
            .map(|entry| entry.unwrap().metadata().map_or(0, |one| one.len()))
            .sum()
    };
    wait_until("a full buffer", PATIENCE, || bytes() >= 600 << 10);
    assert_eq!(session.state("small"), "RUNNING", "it waits");
    assert!(bytes() < 2 << 20, "{} bytes are kept", bytes());
    let rows = session.job("collect", "small").args(["--format", "json"]).finish().code(0).stdout;
    let mut found: Vec<i64> = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap()).collect();
    found.sort_unstable();
    assert!(found.iter().copied().eq(0..200_000), "{} rows", found.len());
    assert_eq!(session.job("wait", "small").finish().code(0).stdout, "FINISHED\n");
    // What made room is gone, and whoever begins now is told.
    let again = session.job("collect", "small").args(["--format", "json"]).finish().code(0);
    assert!(again.stderr.contains("the first rows are missing") && again.stdout.lines().count() < 200_000, "{}", again.stderr);
}

#[test]
fn a11_a_job_whose_process_is_killed_leaves_the_counts_of_the_others_right() {
    let session = Session::start(2);
    let slow = NUMBERS.replace("count: 1000", "count: 1000, rate: 500");
    session.submit("good", &slow, &[]);
    session.submit("bad", ENDLESS, &[]);
    session.runs("good");
    session.runs("bad");
    signal(session.worker("bad"), Signal::KILL);
    let failed = session.job("wait", "bad").finish().code(1);
    assert!(failed.stdout.starts_with("FAILED: ") && failed.stdout.contains("killed by signal 9"), "{failed:?}");
    assert_eq!(session.job("wait", "good").finish().code(0).stdout, "FINISHED\n");
    assert!(numbers(&session.folder, "out.jsonl").into_iter().eq(0..1000));
}

#[test]
fn a19_a20_settings_of_the_engine_count_where_the_pipeline_says_nothing() {
    let session = Session::start(2);
    let checkpoints = format!("engine.checkpoint.dir={}", session.folder.at("ckpt").display());
    session.submit("set", ENDLESS, &["-D", "engine.checkpoint.interval=100ms", "-D", &checkpoints, "-D", "engine.parallelism=2"]);
    session.runs("set");
    let id = session.handle("set")["jobid"].as_str().unwrap().to_owned();
    assert_eq!(session.get(&format!("/jobs/{id}"))["slots"], 2, "the manager has planned with them");
    wait_until("checkpoints", PATIENCE, || session.get(&format!("/jobs/{id}/checkpoints"))["counts"]["completed"].as_u64() > Some(1));
    assert!(session.folder.at("ckpt/endless").is_dir());
    // What the pipeline says is stronger, also for a manager that is given both.
    session.submit("own", &format!("{ENDLESS}parallelism: 1\n").replace("endless", "own"), &["-D", "engine.batch_rows=7"]);
    let own = session.get(&format!("/jobs/{}", session.handle("own")["jobid"].as_str().unwrap()));
    assert_eq!((&own["slots"], &own["waits"]), (&json!(1), &json!("needs 1, has 0")), "{own:#}");
    assert_eq!(session.state("own"), "CREATED: needs 1, has 0");
    assert_eq!(session.job("cancel", "own").finish().code(0).stdout, "CANCELED\n");
    assert_eq!(session.job("cancel", "set").finish().code(0).stdout, "CANCELED\n");
}

#[test]
fn a24_a_handle_tells_the_end_with_its_cause_and_the_log() {
    let session = Session::start(1);
    let missing = NUMBERS.replace(
        "connector: generator, with: {count: 1000, fields: {n: {kind: sequence}}}",
        "connector: file, with: {path: DIR/no.jsonl}, format: json, schema: {n: int64}",
    );
    session.submit("fails", &missing, &[]);
    let waited = session.job("wait", "fails").finish().code(1);
    assert!(waited.stdout.starts_with("FAILED: ") && waited.stdout.contains("no.jsonl"), "{waited:?}");
    assert!(waited.stderr.starts_with("error: the job failed: ") && waited.stderr.contains("no.jsonl"), "{waited:?}");
    let status: Value = serde_json::from_str(&session.job("status", "fails").args(["--format", "json"]).finish().code(0).stdout).unwrap();
    assert_eq!(status["state"], "FAILED");
    let log = session.job("logs", "fails").finish().code(0).stdout;
    assert!(log.starts_with("==> process 0 on ") && log.contains("no.jsonl"), "{log}");
    let handle = session.handle("fails");
    assert_eq!(handle["deployment_mode"], "session");
    let lost = json!({"jobid": "0".repeat(32), "deployment_mode": "session", "rest.address": "127.0.0.1", "rest.port": session.port});
    session.folder.write("lost.json", lost.to_string());
    let unknown = session.job("status", "lost").finish().one_error(3);
    assert!(unknown.contains("does not know the job"), "{unknown}");
    let wrong = session.deploy("wrong", "name: wrong\nsources: {}\n", &[]).code(2);
    assert!(wrong.stderr.contains("wrong.yaml:2:"), "{wrong:?}");
}

#[test]
fn a24_a_job_is_stopped_with_a_savepoint_from_which_another_goes_on() {
    let session = Session::start(1);
    let safe = "checkpoint: {interval: 200ms, dir: DIR/ckpt}\n";
    let pipeline = format!("{}{safe}", NUMBERS.replace("count: 1000", "count: 1000, rate: 300"));
    session.submit("first", &pipeline, &[]);
    let id = session.handle("first")["jobid"].as_str().unwrap().to_owned();
    wait_until("checkpoints", PATIENCE, || session.get(&format!("/jobs/{id}/checkpoints"))["counts"]["completed"].as_u64() > Some(1));
    let elsewhere = session.folder.at("elsewhere");
    let stopped = session.job("stop", "first").args(["--savepoint".into(), elsewhere.clone()]).finish().code(0);
    let savepoint = stopped.stdout.trim().to_owned();
    assert!(savepoint.starts_with(elsewhere.to_str().unwrap()), "{stopped:?}");
    assert_eq!(session.state("first"), "FINISHED", "it has ended when the command has");
    session.submit("second", &pipeline, &["--restore", &savepoint]);
    assert_eq!(session.job("wait", "second").finish().code(0).stdout, "FINISHED\n");
    assert!(numbers(&session.folder, "out.jsonl").into_iter().eq(0..1000));
    let late = session.job("stop", "first").finish().one_error(3);
    assert!(late.contains("the job is FINISHED"), "{late}");
}

#[test]
fn a_job_that_is_stopped_gives_what_it_still_holds_if_that_is_wanted() {
    let session = Session::start(2);
    let pipeline = "name: NAME
checkpoint: {interval: 200ms, dir: DIR/ckpt}
sources:
  numbers: {connector: generator, with: {rate: 500, fields: {n: {kind: sequence}}}}
transforms:
  counts: {input: numbers, aggregate: {n: 'count(*)', last: 'max(n)'}, emit: final}
sinks:
  out: {input: counts, connector: file, with: {path: DIR/NAME.jsonl}, format: json}
";
    for (name, more, rows) in [("kept", &[][..], 0), ("drained", &["--drain"], 1)] {
        session.submit(name, &pipeline.replace("NAME", name), &[]);
        let id = session.handle(name)["jobid"].as_str().unwrap().to_owned();
        wait_until("checkpoints", PATIENCE, || session.get(&format!("/jobs/{id}/checkpoints"))["counts"]["completed"].as_u64() > Some(1));
        let stopped = session.job("stop", name).args(more).finish().code(0);
        assert!(stopped.stdout.starts_with(session.folder.at("ckpt").to_str().unwrap()), "{stopped:?}");
        let found = read_rows(session.folder.at(&format!("{name}.jsonl")));
        assert_eq!(found.len(), rows, "{found:?}");
        assert!(
            found.iter().all(|row| row["n"].as_u64() > Some(1) && row["n"].as_u64() == row["last"].as_u64().map(|last| last + 1)),
            "{found:?}"
        );
    }
}

const TOKEN: &str = "0123456789abcdef-a-secret";

/// A job manager that wants a token; it has no task manager.
fn guarded(folder: &Folder) -> (Running, u16) {
    folder.write("token", format!("{TOKEN}\n"));
    let port = free_port();
    let run = standpipe(["jobmanager", "--bind", &format!("127.0.0.1:{port}"), "--token-file", "token", "--data", "manager"]);
    let mut manager = run.in_directory(folder.path()).timeout(PATIENCE).start();
    manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http://"));
    (manager, port)
}

#[test]
fn a7_a_manager_that_wants_a_token_is_given_it_and_nobody_else_is() {
    let folder = Folder::new();
    let (_manager, port) = guarded(&folder);
    folder.write("numbers.yaml", NUMBERS.replace("DIR", folder.path().to_str().unwrap()));
    let port = format!("rest.port={port}");
    let deploy = |more: &[&str]| {
        let run = standpipe(["deploy", "numbers.yaml", "-D", "rest.address=127.0.0.1", "-D", &port]).args(more);
        run.in_directory(folder.path()).env("STANDPIPE_TEST_TOKEN", TOKEN).timeout(PATIENCE).finish()
    };
    let without = deploy(&[]).one_error(3);
    assert!(without.contains("wants a token (rest.token.file or rest.token)"), "{without}");
    let wrong = deploy(&["-D", "rest.token=another-token"]);
    assert!(wrong.stderr.contains("does not take this token") && !wrong.stderr.contains("another-token"), "{wrong:?}");
    let both = deploy(&["-D", &format!("rest.token={TOKEN}"), "-D", "rest.token.file=token"]).code(2);
    assert!(both.stderr.contains("is said beside rest.token") && !both.stderr.contains(TOKEN), "{both:?}");
    let gone = deploy(&["-D", "rest.token.file=no-such-file"]).one_error(3);
    assert!(gone.contains("rest.token.file: no-such-file: No such file"), "{gone}");
    // By its file, of which the handle has the path.
    let deployed = deploy(&["-D", "rest.token.file=token", "--handle", "job.json"]).code(0);
    assert!(!format!("{deployed:?}{}", folder.read("job.json")).contains(TOKEN));
    let elsewhere = Folder::new();
    let status = standpipe(["deployment", "status", "--handle"]).args([folder.at("job.json")]).in_directory(elsewhere.path()).finish();
    assert_eq!(status.code(0).stdout, "CREATED: needs 1, has 0\n");
    // By a reference, and by its value: neither is shown.
    folder.write("by-name.yaml", "rest.token: ${STANDPIPE_TEST_TOKEN}\n");
    _ = deploy(&["--config", "by-name.yaml"]).code(0);
    let show = |more: &[&str]| {
        let run = standpipe(["config", "show", "numbers.yaml", "-D", "rest.address=a", "-D", &port]).args(more);
        run.in_directory(folder.path()).env("STANDPIPE_TEST_TOKEN", TOKEN).finish().code(0).stdout
    };
    assert!(show(&["--config", "by-name.yaml"]).contains("${STANDPIPE_TEST_TOKEN}"));
    let plain = show(&["-D", &format!("rest.token={TOKEN}")]);
    assert!(plain.contains("***") && !plain.contains(TOKEN), "{plain}");
}

#[test]
fn a7_certificates_that_are_none_are_named() {
    let folder = Folder::new();
    folder.write("numbers.yaml", NUMBERS);
    folder.write("empty.pem", "");
    for (file, code, expected) in
        [("empty.pem", 2, "there is no certificate in it"), ("no-such.pem", 3, "rest.tls.ca: no-such.pem: No such file")]
    {
        let run = standpipe(["deploy", "numbers.yaml", "-D", "rest.address=127.0.0.1", "-D", "rest.port=1", "-D"]);
        let line = run.args([format!("rest.tls.ca={file}")]).in_directory(folder.path()).finish().one_error(code);
        assert!(line.contains(expected), "{line}");
    }
}

/// A certificate for 127.0.0.1 with its key, in files of that name.
fn certificate(folder: &Folder, name: &str) {
    let pem = |label: &str, der: &[u8]| {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    folder.write(&format!("{name}.pem"), pem("CERTIFICATE", certificate.der()));
    folder.write(&format!("{name}.key"), pem("PRIVATE KEY", &key.serialize_der()));
}

#[test]
fn a7_tls_is_spoken_to_whoever_has_the_certificate_and_to_nobody_else() {
    let folder = Folder::new();
    certificate(&folder, "own");
    certificate(&folder, "other");
    let port = free_port();
    let run = standpipe([
        "jobmanager",
        "--bind",
        &format!("127.0.0.1:{port}"),
        "--data",
        "manager",
        "--tls-cert",
        "own.pem",
        "--tls-key",
        "own.key",
    ]);
    let mut manager = run.in_directory(folder.path()).timeout(PATIENCE).start();
    manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: https://"));
    folder.write("numbers.yaml", NUMBERS);
    let deploy = |more: &[&str]| {
        let run = standpipe(["deploy", "numbers.yaml", "-D", "rest.address=127.0.0.1", "-D"]).args([format!("rest.port={port}")]);
        run.args(more).in_directory(folder.path()).timeout(PATIENCE).finish()
    };
    let place = format!("no job manager can be reached at 127.0.0.1:{port}");
    let wrong = deploy(&["-D", "rest.tls.ca=other.pem"]).one_error(3);
    assert!(wrong.contains(&place) && wrong.contains("certificate"), "{wrong}");
    let clear = deploy(&[]).one_error(3);
    assert!(clear.contains(&place), "{clear}");
    let deployed = deploy(&["-D", "rest.tls.ca=own.pem", "--handle", "job.json"]).code(0);
    assert!(deployed.stdout.is_empty(), "{deployed:?}");
    // The handle says how, wherever it is used.
    let elsewhere = Folder::new();
    let status = standpipe(["deployment", "status", "--handle"]).args([folder.at("job.json")]).in_directory(elsewhere.path()).finish();
    assert_eq!(status.code(0).stdout, "CREATED: needs 1, has 0\n");
}

#[test]
fn collect_in_the_foreground_prints_lines_of_json() {
    let folder = Folder::new();
    folder.write("collected.yaml", COLLECTED.replace("count: 1000", "count: 3"));
    let printed = standpipe(["run", "--quiet", "collected.yaml"]).in_directory(folder.path()).finish().code(0).stdout;
    let rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, (0..3).map(|n| json!({"n": n, "name": format!("number {n}")})).collect::<Vec<_>>());
    assert_eq!(folder.names(), ["collected.yaml"], "nothing is left behind");
}

#[test]
fn a_worker_of_a_session_is_none_of_the_clients() {
    // The client is gone before the job has ended.
    let session = Session::start(1);
    session.submit("endless", ENDLESS, &[]);
    session.runs("endless");
    let worker = session.worker("endless");
    assert!(processes_of(session.started()[1]).contains(&worker));
    assert_eq!(session.job("cancel", "endless").finish().code(0).stdout, "CANCELED\n");
    wait_until("the end of the worker", PATIENCE, || !processes_of(session.started()[1]).contains(&worker));
}

fn processes_of(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
