//! Checkpoints in an S3-compatible store: a job that is killed goes on from there, one whose store fails goes on without, and what is not allowed is said.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{Bucket, Mode, PATIENCE, Proxy, run, with_s3};
use standpipe_tests::{Folder, Run, Running, Signal, read_rows, rows, standpipe};

/// Numbers into a file, counted by a window and by a running aggregate; `count`: none is without end.
fn pipeline(dir: &str, count: Option<i64>) -> Value {
    let fields = json!({ "n": { "kind": "sequence" }, "k": { "kind": "uniform-int", "min": 0, "max": 9 }, "t": { "kind": "timestamp" } });
    let mut with = json!({ "rate": 5_000, "fields": fields });
    if let Some(count) = count {
        with["count"] = json!(count);
    }
    let file = |path: &str| json!({ "connector": "file", "with": { "path": path }, "format": "json" });
    let sink = |input: &str, path: &str| {
        let mut sink = file(path);
        sink["input"] = json!(input);
        sink
    };
    json!({
        "name": "numbers",
        "checkpoint": { "interval": "100ms", "timeout": "2s", "dir": dir },
        "sources": { "ticks": { "connector": "generator", "with": with, "event_time": { "column": "t" } } },
        "transforms": {
            "windows": { "input": "ticks", "key_by": ["k"], "window": { "tumbling": "200ms" }, "aggregate": { "c": "count(*)" } },
            "totals": { "input": "ticks", "key_by": ["k"], "aggregate": { "c": "count(*)" }, "emit": "final" },
        },
        "sinks": {
            "all": sink("ticks", "all.jsonl"),
            "counts": sink("windows", "windows.jsonl"),
            "sums": sink("totals", "totals.jsonl"),
        },
    })
}

/// Waits for so many checkpoints of that run.
fn taken(job: &mut Running, checkpoints: usize) {
    job.wait_until("checkpoints", PATIENCE, |job| job.stderr().matches("is durable after").count() >= checkpoints);
}

fn counted(folder: &Folder, name: &str) -> i64 {
    read_rows(folder.at(name)).iter().map(|row| row["c"].as_i64().unwrap()).sum()
}

#[test]
fn a_job_that_is_killed_goes_on_from_a_checkpoint_in_s3() {
    const ROWS: i64 = 20_000;
    let Some(bucket) = Bucket::new("killed") else { return };
    let folder = Folder::new();
    let pipeline = pipeline(&bucket.dir(), Some(ROWS));
    let start = |arguments: &[&str]| with_s3(run(&folder, &pipeline), &bucket.url).args(["--log-level", "info"]).args(arguments).start();
    for arguments in [&["-p", "1"][..], &["-p", "2", "--restore", "latest"], &["-p", "3", "--restore", "latest"]] {
        let mut job = start(arguments);
        taken(&mut job, 3);
        job.signal(Signal::KILL);
        _ = job.wait();
    }
    let last = start(&["--restore", "latest"]).wait().code(0);
    assert!(last.stderr.contains("numbers: goes on from checkpoint "), "{}", last.stderr);
    let all = read_rows(folder.at("all.jsonl"));
    assert!(all.len() as i64 == ROWS && all.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", all.len());
    assert_eq!((counted(&folder, "windows.jsonl"), counted(&folder, "totals.jsonl")), (ROWS, ROWS));

    // Only what is kept is there, and the other commands read it.
    let command = |arguments: &[&str]| with_s3(standpipe(arguments).in_directory(folder.path()), &bucket.url).finish().code(0).stdout;
    let manifests = rows(&command(&["checkpoint", "list", "numbers.yaml", "--format", "json"]));
    assert_eq!(manifests.len(), 3, "three are kept");
    let names: Vec<String> = bucket.objects().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("jobs/numbers/checkpoints/")).count(), 3, "{names:?}");
    let url = format!("{}/numbers", bucket.dir());
    let query = "select count(*) as splits, bool_and(ended) as ended from ticks.splits";
    assert_eq!(rows(&command(&["state", "query", &url, query, "--format", "json"])), rows("{\"splits\":1,\"ended\":true}"));
}

#[test]
fn a_savepoint_is_copied_into_a_bucket_and_a_job_goes_on_from_there_alone() {
    const ROWS: i64 = 20_000;
    let Some(bucket) = Bucket::new("copied") else { return };
    let folder = Folder::new();
    let pipeline = pipeline("ckpt", Some(ROWS));
    let with = |run: Run| with_s3(run, &bucket.url).env("STANDPIPE_RUN_DIR", folder.at("run").to_str().unwrap());
    let mut job = with(run(&folder, &pipeline)).args(["--log-level", "info"]).start();
    taken(&mut job, 2);
    // A bucket that is not there: the job goes on.
    let error = with(standpipe(["job", "stop", "numbers", "--to", "s3://no-such-bucket-of-ours/x"])).finish().code(1);
    assert!(error.stderr.contains("no-such-bucket-of-ours") || error.stderr.contains("NoSuchBucket"), "{}", error.stderr);
    let to = format!("s3://{}/savepoints", bucket.name);
    let stopped = with(standpipe(["job", "stop", "numbers", "--to", &to])).finish().code(0);
    let place = stopped.stdout.trim();
    assert!(place.starts_with(&to) && place.ends_with("-savepoint.json"), "{place}");
    _ = job.wait().code(0);
    std::fs::remove_dir_all(folder.at("ckpt")).unwrap();
    let last = with(run(&folder, &pipeline)).args(["--restore", place]).finish().code(0);
    assert!(last.stderr.contains(&format!("numbers: goes on from {place}")), "{}", last.stderr);
    let all = read_rows(folder.at("all.jsonl"));
    assert!(all.len() as i64 == ROWS && all.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", all.len());
    assert_eq!((counted(&folder, "windows.jsonl"), counted(&folder, "totals.jsonl")), (ROWS, ROWS));
}

#[test]
fn a_job_whose_store_fails_goes_on_and_takes_checkpoints_again() {
    let Some(bucket) = Bucket::new("away") else { return };
    let proxy = Proxy::new(&bucket.url);
    let folder = Folder::new();
    let mut pipeline = pipeline(&bucket.dir(), None);
    pipeline["sinks"]["seen"] = json!({ "input": "ticks", "connector": "print", "format": "json" });
    let mut job = with_s3(run(&folder, &pipeline), &proxy.url()).args(["--log-level", "info"]).timeout(4 * PATIENCE).start();
    taken(&mut job, 2);
    for mode in [Mode::Fail, Mode::Stall, Mode::Refuse] {
        let given_up = |job: &Running| job.stderr().matches("is given up: ").count();
        let before = given_up(&job);
        proxy.set(mode);
        job.wait_until("a checkpoint is given up", PATIENCE, |job| given_up(job) > before);
        let seen = job.stdout().len();
        job.wait_until("rows go on", PATIENCE, |job| job.stdout().len() > seen + 10_000);
        let durable = job.stderr().matches("is durable after").count();
        proxy.set(Mode::Pass);
        taken(&mut job, durable + 2);
    }
    job.signal(Signal::KILL);
    _ = job.wait();
    let mut job = with_s3(run(&folder, &pipeline), &proxy.url()).args(["--restore", "latest", "--log-level", "info"]).start();
    taken(&mut job, 1);
    job.signal(Signal::INT);
    let stopped = job.wait().code(0);
    assert!(stopped.stderr.contains("numbers: stopped in "), "{}", stopped.stderr);
    let all = read_rows(folder.at("all.jsonl"));
    assert!(all.len() > 10_000 && all.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", all.len());
}

#[test]
fn what_the_store_does_not_allow_is_said_at_the_start() {
    let Some(bucket) = Bucket::new("denied") else { return };
    let folder = Folder::new();
    let job = |dir: &str, arguments: &[&str]| with_s3(run(&folder, &pipeline(dir, Some(5_000))), &bucket.url).args(arguments).finish();
    let line = job("s3://there-is-no-such-bucket/jobs", &[]).one_error(3);
    assert!(line.contains("there-is-no-such-bucket") || line.contains("NoSuchBucket"), "{line}");
    _ = job(&bucket.dir(), &[]).code(0);

    let before = bucket.objects();
    bucket.deny("s3:PutObject");
    let line = job(&bucket.dir(), &["--restore", "latest"]).one_error(3);
    assert!(line.contains("cannot create jobs/numbers/generations/") && line.contains("403 Forbidden"), "{line}");
    assert!(bucket.objects() == before, "something has changed");
    bucket.deny("s3:GetObject");
    let line = job(&bucket.dir(), &["--restore", "latest"]).one_error(3);
    assert!(line.contains("cannot read jobs/numbers/") && line.contains("403 Forbidden"), "{line}");
}
