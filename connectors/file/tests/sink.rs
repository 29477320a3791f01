//! The sink as the host runs it: what is in the file, when it is there under its name, what is left after a failure and after a restart.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};
use standpipe_connector_file::FileSink;
use standpipe_sdk::{
    CloseReason, Committable, ErrorCode, Recovered,
    sink::ChangeMode,
    testing::{Harness, SinkHarness},
};
use std::{
    fs,
    io::Read,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, true)]))
}

fn records(texts: &[Option<&str>]) -> RecordBatch {
    let values: ArrayRef = Arc::new(BinaryArray::from_iter(texts.iter().map(|text| text.map(str::as_bytes))));
    RecordBatch::try_new(schema(), vec![values]).unwrap()
}

fn lines(count: usize, name: &str) -> RecordBatch {
    let texts: Vec<String> = (0..count).map(|line| format!("{name} {line}")).collect();
    records(&texts.iter().map(|text| Some(text.as_str())).collect::<Vec<_>>())
}

fn sink(config: Value) -> SinkHarness {
    Harness::sink::<FileSink>(config, schema())
}

fn to(path: &Path) -> Value {
    json!({ "path": path.to_str().unwrap() })
}

fn pending(path: &Path) -> std::path::PathBuf {
    format!("{}.inprogress", path.display()).into()
}

#[test]
fn a_file_appears_when_it_is_whole_and_replaces_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, "old").unwrap();
    let mut sink = sink(to(&path));
    sink.write(&records(&[Some("{}"), Some(""), None, Some("[1]")])).unwrap();
    sink.flush().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_to_string(pending(&path)).unwrap(), "{}\n\n\n[1]\n");
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n\n\n[1]\n");
    assert!(!pending(&path).exists());
}

#[test]
fn a_job_without_rows_gives_an_empty_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    sink(to(&path)).finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn what_is_acknowledged_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut sink = sink(to(&path));
    sink.write(&records(&[Some("small")])).unwrap();
    assert_eq!(sink.host.acknowledged(), 0);
    sink.flush().unwrap();
    assert_eq!((sink.host.acknowledged(), fs::read_to_string(pending(&path)).unwrap().as_str()), (1, "small\n"));
    let large = lines(100_000, "a line that is long enough");
    sink.write(&large).unwrap();
    assert_eq!(sink.host.acknowledged(), 2);
    assert_eq!(fs::read_to_string(pending(&path)).unwrap().lines().count(), 100_001);
    sink.finish().unwrap();
    assert!(fs::read_to_string(&path).unwrap().ends_with("a line that is long enough 99999\n"));
}

#[test]
fn records_may_come_without_newlines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut sink = sink(json!({ "path": path.to_str().unwrap(), "newline": false }));
    sink.write(&records(&[Some("ab"), Some("c")])).unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
}

#[test]
fn a_failed_job_leaves_nothing_unless_a_checkpoint_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    for (is_remembered, name) in [(false, "a"), (true, "b")] {
        let path = folder.path().join(name);
        let mut sink = sink(to(&path));
        sink.write(&records(&[Some("x")])).unwrap();
        if is_remembered {
            sink.checkpoint(1).unwrap();
        }
        sink.instance().unwrap().close(CloseReason::Failed).unwrap();
        assert!(!path.exists());
        assert_eq!(pending(&path).exists(), is_remembered);
    }
}

#[test]
fn a_stopped_job_says_where_its_output_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut sink = sink(to(&path));
    sink.write(&records(&[Some("x")])).unwrap();
    sink.instance().unwrap().close(CloseReason::Stopped).unwrap();
    assert!(!path.exists());
    assert_eq!(fs::read_to_string(pending(&path)).unwrap(), "x\n");
    assert!(sink.host.messages()[0].contains("out.inprogress"), "{:?}", sink.host.messages());
}

#[test]
fn a_restart_cuts_the_file_to_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut first = sink(to(&path));
    first.write(&records(&[Some("1"), Some("2")])).unwrap();
    let bytes = first.instance().unwrap().prepare(1).unwrap();
    first.write(&lines(50_000, "after the checkpoint")).unwrap();
    first.instance().unwrap().close(CloseReason::Failed).unwrap();
    drop(first);

    let prepared = [Committable { checkpoint: 1, subtask: 0, bytes }];
    let mut second = sink(to(&path)).with_context(|context| context.restored = true);
    assert_eq!(second.instance().unwrap().recover(&prepared).unwrap(), [Recovered::Committed]);
    second.write(&records(&[Some("3")])).unwrap();
    second.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n3\n");

    // The job ended, but is started once more from the checkpoint before its end.
    let mut third = sink(to(&path)).with_context(|context| context.restored = true);
    third.instance().unwrap().recover(&prepared).unwrap();
    assert!(!path.exists(), "it is not whole any more");
    third.write(&records(&[Some("three")])).unwrap();
    third.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\nthree\n");
}

#[test]
fn files_of_subtasks_that_are_no_more_are_finished_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "path": folder.path().join("out-{subtask}").to_str().unwrap() });
    let prepared: Vec<Committable> = (0..2)
        .map(|subtask| {
            let mut sink = sink(config.clone()).with_context(|context| (context.subtask, context.parallelism) = (subtask, 2));
            sink.write(&records(&[Some(if subtask == 0 { "zero" } else { "one" })])).unwrap();
            let bytes = sink.instance().unwrap().prepare(7).unwrap();
            sink.instance().unwrap().close(CloseReason::Failed).unwrap();
            Committable { checkpoint: 7, subtask, bytes }
        })
        .collect();
    let mut sink = sink(config).with_context(|context| context.restored = true);
    sink.instance().unwrap().recover(&prepared).unwrap();
    sink.write(&records(&[Some("more")])).unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("out-0")).unwrap(), "zero\nmore\n");
    // With the start of the job that began it: there may be a subtask 1 again.
    assert_eq!(fs::read_to_string(folder.path().join("out-1-1")).unwrap(), "one\n");
}

#[test]
fn a_checkpoint_whose_file_is_gone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut sink = sink(to(&path)).with_context(|context| context.restored = true);
    let bytes = json!([{ "path": path, "length": 5 }]).to_string().into_bytes();
    let error = sink.instance().unwrap().recover(&[Committable { checkpoint: 1, subtask: 0, bytes: bytes.clone() }]).unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.to_string().contains("out"), "{error}");
    fs::write(pending(&path), "abc").unwrap();
    let error = sink.instance().unwrap().recover(&[Committable { checkpoint: 1, subtask: 0, bytes }]).unwrap_err();
    assert!(error.to_string().contains("has 3 bytes, the checkpoint has 5"), "{error}");
}

#[test]
fn a_file_is_written_by_one_sink_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut first = sink(to(&path));
    first.write(&records(&[Some("first")])).unwrap();
    first.flush().unwrap();
    let error = sink(to(&path)).open().unwrap_err();
    assert!(error.to_string().contains("being written by someone else"), "{error}");
    first.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\n");
    sink(to(&path)).finish().unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let mut sink = sink(json!({ "path": "/dev/full" }));
    let error = sink.write(&records(&[Some("x")])).unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.to_string().contains("/dev/full") && error.to_string().contains("No space left"), "{error}");
    assert_eq!(sink.host.acknowledged(), 0);
}

#[test]
fn a_named_pipe_gets_records_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let reader = std::thread::spawn({
        let path = path.clone();
        move || {
            let mut pipe = fs::File::open(path).unwrap();
            let mut first = [0; 4];
            pipe.read_exact(&mut first).unwrap();
            String::from_utf8(first.to_vec()).unwrap()
        }
    });
    let mut sink = sink(to(&path));
    sink.write(&records(&[Some("one")])).unwrap();
    assert_eq!(reader.join().unwrap(), "one\n");
    // The reader is gone; a process that another test is just starting has the pipe open, too, for a moment.
    let begin = Instant::now();
    let error = loop {
        match sink.write(&records(&[Some("two")])) {
            Err(error) => break error,
            Ok(_) => assert!(begin.elapsed() < Duration::from_secs(10), "nobody reads the pipe"),
        }
    };
    assert!(error.to_string().contains("Broken pipe"), "{error}");
    assert!(!pending(&path).exists());
}

#[test]
fn a_restart_leaves_a_named_pipe_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let reader = std::thread::spawn({
        let path = path.clone();
        move || fs::read_to_string(path).unwrap()
    });
    let mut sink = sink(to(&path)).with_context(|context| context.restored = true);
    sink.instance().unwrap().recover(&[]).unwrap();
    sink.write(&records(&[Some("one")])).unwrap();
    sink.finish().unwrap();
    drop(sink);
    assert_eq!(reader.join().unwrap(), "one\n");
}

#[test]
fn a_directory_must_be_there_or_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/out");
    let error = sink(to(&path)).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.to_string().contains("a/b") && error.to_string().contains("create_dirs"), "{error}");
    let mut sink = sink(json!({ "path": path.to_str().unwrap(), "create_dirs": true }));
    sink.write(&records(&[Some("x")])).unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "x\n");
}

#[test]
fn it_takes_every_change_mode_and_one_subtask_unless_the_path_tells_them_apart() {
    let details = |path: &str| sink(json!({ "path": path })).validate().unwrap().details;
    let one = details("out");
    assert_eq!(one.accepts, [ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract]);
    assert_eq!((one.max_subtasks, details("out-{subtask}").max_subtasks, details("-").max_subtasks), (Some(1), None, Some(1)));
    let problem = |path: &str| details(path).problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>();
    assert_eq!(problem(""), ["path: is empty"]);
    assert_eq!(problem("out/"), [""; 0]);
    assert_eq!(
        (details("out/").max_subtasks, problem("s3://bucket/out")),
        (None, vec!["path: \"s3://bucket/out\" is an object: an object store takes parts, into a folder that ends with /".to_owned()])
    );
    assert!(
        problem("ftp://host/")[0].contains("Unable to recognise URL")
            && problem("memory:///x/")[0].contains("use a folder, file://, s3://")
    );
}

#[test]
fn what_a_reference_stands_for_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out").display().to_string();
    let opened = |mut config: Value, out: &str, format: &str| {
        config["path"] = json!("${OUT}");
        let mut sink = sink(config).with_format(json!({ "type": format }));
        sink.host.set_secret("OUT", out);
        assert_eq!(sink.validate().unwrap().details.problems, []);
        let error = sink.open().unwrap_err();
        assert_eq!(error.code, ErrorCode::CONFIG);
        error.to_string()
    };
    for (config, out, format, expected) in [
        (json!({}), file.as_str(), "parquet", "is one file; parquet is written in parts, into a folder: end the path with /"),
        (json!({ "roll": { "size": "1MiB" } }), &file, "json", "roll: is for the parts of a folder"),
        (json!({ "options": { "aws_region": "x" } }), &file, "json", "options.aws_region: is for object stores"),
        (json!({}), "-", "json", "is a reference that stands for standard output"),
        (json!({}), "", "json", "path: is empty"),
        (json!({}), "s3://bucket/out", "json", "is an object: an object store takes parts"),
        (
            json!({ "roll": { "size": "65GiB" } }),
            "s3://bucket/out/",
            "json",
            "roll.size: must be at most 64GiB: an object has 10000 pieces at most",
        ),
    ] {
        let error = opened(config, out, format);
        assert!(error.contains(expected), "{out}: {error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut folder_sink = sink(json!({ "path": "${OUT}", "roll": { "size": "65GiB" } }));
    folder_sink.host.set_secret("OUT", &format!("{file}/"));
    folder_sink.write(&records(&[Some("x")])).unwrap();
    folder_sink.finish().unwrap();
    assert_eq!(fs::read_dir(format!("{file}/")).unwrap().count(), 1);
}

/// Runs a test once more where a disk of 1 MiB is mounted for it alone.
fn on_a_small_disk(name: &str, test: impl FnOnce(&Path)) {
    const DISK: &str = "STANDPIPE_SMALL_DISK";
    if let Some(disk) = std::env::var_os(DISK) {
        return test(Path::new(&disk));
    }
    let may = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).output().is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("{name} is left out: this user may not mount a disk of its own");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$STANDPIPE_SMALL_DISK\" && exec \"$@\"";
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    let output = again.args(["--exact", name]).env(DISK, folder.path()).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_job_goes_on_when_a_full_disk_has_room_again() {
    on_a_small_disk("a_job_goes_on_when_a_full_disk_has_room_again", |disk| {
        for name in ["out", "parts/"] {
            let (path, filler) = (disk.join(name), disk.join("filler"));
            fs::write(&filler, vec![0; 900 << 10]).unwrap();
            let mut sink = sink(json!({ "path": path.to_str().unwrap() }));
            let batch = lines(10_000, "a line that is long enough");
            // The batch has been taken; what the disk refuses is told at the next call, and however often that is made.
            sink.write(&batch).unwrap();
            for _ in 0..2 {
                let error = sink.write(&records(&[Some("behind")])).unwrap_err();
                assert!(error.retryable && error.to_string().contains("No space left"), "{error}");
                assert!(sink.instance().unwrap().prepare(1).unwrap_err().retryable);
            }
            assert_eq!(sink.host.acknowledged(), u64::from(name == "parts/"));
            fs::remove_file(&filler).unwrap();
            sink.write(&records(&[Some("behind")])).unwrap();
            sink.finish().unwrap();
            let file = if name == "out" { path } else { fs::read_dir(&path).unwrap().next().unwrap().unwrap().path() };
            let text = fs::read_to_string(&file).unwrap();
            assert_eq!((text.lines().count(), text.lines().last()), (10_001, Some("behind")));
            assert!(text.lines().take(10_000).enumerate().all(|(at, line)| line == format!("a line that is long enough {at}")));
            fs::remove_file(file).unwrap();
        }
    });
}
