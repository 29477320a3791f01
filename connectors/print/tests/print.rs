//! The sink as the host runs it. Standard output belongs to the process, so each test runs this program again, for the function [`child`] alone, and looks at what
//! comes out of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use serde_json::{Value, json};
use standpipe_connector_print::PrintSink;
use standpipe_sdk::{ErrorCode, sink::ChangeMode, testing::Harness};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

/// What the child writes and where it reports: JSON.
const TASK: &str = "STANDPIPE_PRINT_TEST";

fn records(texts: &[Option<&str>]) -> RecordBatch {
    let values: ArrayRef = Arc::new(BinaryArray::from_iter(texts.iter().map(|text| text.map(str::as_bytes))));
    RecordBatch::try_from_iter_with_nullable([("value", values, true)]).unwrap()
}

/// Not a test by itself: does what the environment says.
#[test]
fn child() {
    let Ok(task) = env::var(TASK) else { return };
    let task: Value = serde_json::from_str(&task).unwrap();
    let texts: Vec<Option<&str>> = task["records"].as_array().unwrap().iter().map(Value::as_str).collect();
    let batch = records(&texts);
    if let Some(device) = task["stdout"].as_str() {
        rustix::stdio::dup2_stdout(fs::OpenOptions::new().write(true).open(device).unwrap()).unwrap();
    }
    let mut sink = Harness::sink::<PrintSink>(task["config"].clone(), batch.schema());
    let mut failure = String::new();
    for _ in 0..task["batches"].as_u64().unwrap() {
        if let Err(error) = sink.write(&batch) {
            failure = format!("{} {error}", error.code == ErrorCode::EXTERNAL);
            break;
        }
    }
    let report = json!({ "failure": failure, "acknowledged": sink.host.acknowledged(), "written": sink.written() });
    fs::write(task["report"].as_str().unwrap(), report.to_string()).unwrap();
}

fn command(task: &Value) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(TASK, task.to_string());
    command
}

fn report(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn records_are_lines_of_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    let out = command(&json!({ "config": { "prefix": "out> " }, "records": ["one", "", null, "two"], "batches": 2, "report": path }))
        .output()
        .unwrap();
    let lines: Vec<String> =
        String::from_utf8(out.stdout).unwrap().lines().filter(|line| line.starts_with("out> ")).map(str::to_owned).collect();
    assert_eq!(lines, ["out> one", "out> ", "out> ", "out> two"].repeat(2));
    assert_eq!(report(&path), json!({ "failure": "", "acknowledged": 2, "written": 2 }));
}

#[test]
fn a_reader_that_goes_away_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    let record = "x".repeat(1_000);
    let task = json!({ "config": {}, "records": [record], "batches": 100_000, "report": path });
    let mut child = command(&task).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == record));
    drop(lines);
    child.wait().unwrap();
    let report = report(&path);
    assert!(
        report["failure"].as_str().unwrap().starts_with("true ") && report["failure"].as_str().unwrap().contains("broken pipe"),
        "{report}"
    );
    assert_eq!(report["acknowledged"], report["written"]);
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    let task = json!({ "config": {}, "records": ["x"], "batches": 1, "report": path, "stdout": "/dev/full" });
    command(&task).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let report = report(&path);
    assert!(report["failure"].as_str().unwrap().contains("No space left"), "{report}");
    assert_eq!(report["acknowledged"], 0);
}

#[test]
fn it_takes_every_change_mode_in_one_subtask() {
    let sink = Harness::sink::<PrintSink>(json!({}), records(&[]).schema());
    let details = sink.validate().unwrap().details;
    assert_eq!(details.accepts, [ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract]);
    assert_eq!(details.max_subtasks, Some(1));
    let wrong = Harness::sink::<PrintSink>(json!({ "prefx": "a" }), records(&[]).schema()).validate().unwrap().details.problems;
    assert!(wrong.iter().any(|problem| problem.path == "prefx" && problem.suggestion.as_deref() == Some("prefix")), "{wrong:?}");
}
