//! Parts as the host has them written: when a part ends, what it is called, when it is seen, what is left alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};
use standpipe_connector_file::FileSink;
use standpipe_sdk::{
    CloseReason, Committable, ErrorCode,
    testing::{Harness, SinkHarness},
};
use std::{fs, path::Path, sync::Arc};

fn row() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("host", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]))
}

/// A sink of records whose path names these columns.
fn sink(config: Value, columns: &[&str]) -> SinkHarness {
    let mut fields = vec![Field::new("value", DataType::Binary, true)];
    fields.extend(columns.iter().map(|name| row().field_with_name(name).unwrap().clone()));
    Harness::sink::<FileSink>(config, row()).with_batches(Arc::new(Schema::new(fields)))
}

fn records(texts: &[&str]) -> RecordBatch {
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(texts));
    RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, true)])), vec![values]).unwrap()
}

/// Names and contents below a folder, by name, but for the locks of those who are at it.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    walk(folder, "", &mut files);
    files.retain(|(name, _)| !name.ends_with(".lock"));
    files.sort();
    files
}

fn walk(folder: &Path, below: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{name}/"), files)
        } else {
            files.push((name, fs::read_to_string(entry.path()).unwrap()))
        }
    }
}

fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}/", folder.path().display());
    (folder, path)
}

#[test]
fn a_part_ends_with_its_size_and_is_seen_when_a_checkpoint_has_it() {
    let (folder, path) = folder();
    let mut sink = sink(json!({ "path": path, "roll": { "size": "6B" } }), &[]);
    for text in ["one", "two", "three"] {
        sink.write(&records(&[text])).unwrap();
    }
    assert_eq!(sink.host.acknowledged(), 3);
    assert!(files(folder.path()).iter().all(|(name, _)| name.ends_with(".inprogress")));
    sink.checkpoint(1).unwrap();
    let open = ("test.node-1-0-000001.jsonl.inprogress", "");
    let found = files(folder.path());
    assert_eq!(found[0], ("test.node-1-0-000000.jsonl".to_owned(), "one\ntwo\n".to_owned()), "{open:?}");
    assert_eq!(found[1], ("test.node-1-0-000001.jsonl".to_owned(), "three\n".to_owned()));
    sink.write(&records(&["x"])).unwrap();
    sink.checkpoint(2).unwrap();
    // Text is written on behind a checkpoint.
    assert_eq!(files(folder.path())[2], ("test.node-1-0-000002.jsonl.inprogress".to_owned(), "x\n".to_owned()));
    sink.write(&records(&["y"])).unwrap();
    sink.finish().unwrap();
    assert_eq!(files(folder.path())[2..], named(&[("test.node-1-0-000002.jsonl", "x\ny\n")]));
}

#[test]
fn a_part_ends_with_its_age() {
    let (folder, path) = folder();
    let mut sink = sink(json!({ "path": path, "roll": { "interval": "0s" } }), &[]);
    sink.write(&records(&["one", "two"])).unwrap();
    sink.write(&records(&["three"])).unwrap();
    sink.finish().unwrap();
    let expected = [("test.node-1-0-000000.jsonl", "one\ntwo\n"), ("test.node-1-0-000001.jsonl", "three\n")];
    assert_eq!(files(folder.path()), named(&expected));
}

#[test]
fn rows_go_where_their_values_say_and_not_all_at_the_same_time() {
    let (folder, path) = folder();
    let mut sink = sink(json!({ "path": format!("{path}h={{host}}/") }), &["host"]);
    let names: Vec<String> = (0..200).map(|row| format!("h{:02}", row % 100)).collect();
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(&names));
    let hosts: ArrayRef = Arc::new(StringArray::from_iter_values(&names));
    let batch = RecordBatch::try_from_iter_with_nullable([("value", values, true), ("host", hosts, true)]).unwrap();
    sink.write(&batch).unwrap();
    sink.write(&batch).unwrap();
    sink.flush().unwrap();
    let open = files(folder.path()).len();
    sink.finish().unwrap();
    let found = files(folder.path());
    assert!(open > 100 && found.len() == open, "of 100 folders 64 are written at a time: {open} parts");
    for host in &names {
        let lines: usize =
            found.iter().filter(|(name, _)| name.starts_with(&format!("h={host}/"))).map(|(_, text)| text.lines().count()).sum();
        assert_eq!(lines, 4, "{host}");
    }
    assert!(found.iter().all(|(name, text)| text.lines().all(|line| name.starts_with(&format!("h={line}/")))));
}

#[test]
fn rows_of_a_format_of_files_are_encoded_here() {
    let (folder, path) = folder();
    let config = json!({ "path": format!("{path}{{host}}/") });
    let mut sink = Harness::sink::<FileSink>(config, row()).with_format(json!({ "type": "csv", "header": true }));
    let hosts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    sink.write(&RecordBatch::try_new(row(), vec![hosts, numbers]).unwrap()).unwrap();
    sink.finish().unwrap();
    let expected = [("a/test.node-1-0-000000.csv", "host,n\na,1\na,3\n"), ("b/test.node-1-0-000001.csv", "host,n\nb,2\n")];
    assert_eq!(files(folder.path()), named(&expected));
    let unknown = Harness::sink::<FileSink>(json!({ "path": path }), row()).with_format(json!({ "type": "avro" })).validate().unwrap_err();
    assert!(unknown.to_string().contains("a format that this plugin does not know"), "{unknown}");
}

#[test]
fn what_is_there_already_is_not_written_a_second_time() {
    let (folder, path) = folder();
    let foreign = [("test.node2-1-0-000000.jsonl", "theirs"), ("notes.txt", "mine"), ("other.node-1-0-000000.jsonl.inprogress", "theirs")];
    for (name, text) in foreign {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let left = folder.path().join("test.node-1-0-000007.jsonl.inprogress");
    fs::write(&left, "left by a killed run").unwrap();
    let mut first = sink(json!({ "path": path }), &[]);
    first.write(&records(&["one"])).unwrap();
    assert!(!left.exists());
    assert!(first.host.messages()[0].contains("1 parts of an earlier run"), "{:?}", first.host.messages());
    first.instance().unwrap().flush(0).unwrap();
    // Another process of the same job: it must not take away what is being written.
    let error = sink(json!({ "path": path }), &[]).open().unwrap_err();
    assert!(error.to_string().contains("is being written by someone else"), "{error}");
    first.finish().unwrap();
    let error = sink(json!({ "path": path }), &[]).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.to_string().contains("test.node-1-0-000000.jsonl for one"), "{error}");
    let mut kept: Vec<_> = files(folder.path()).into_iter().filter(|(name, _)| !name.starts_with("test.node-1")).collect();
    kept.sort_by_key(|(name, _)| foreign.iter().position(|(foreign, _)| foreign == name));
    assert_eq!(kept, named(&foreign));
}

#[test]
fn a_failure_leaves_nothing_that_no_checkpoint_has() {
    let (folder, path) = folder();
    let config = json!({ "path": path, "roll": { "size": "3B" } });
    let mut first = sink(config.clone(), &[]);
    for text in ["full", "x"] {
        first.write(&records(&[text])).unwrap();
        first.flush().unwrap();
    }
    first.instance().unwrap().close(CloseReason::Failed).unwrap();
    assert_eq!(files(folder.path()), []);

    let mut second = sink(config.clone(), &[]);
    second.write(&records(&["kept"])).unwrap();
    let bytes = second.instance().unwrap().prepare(1).unwrap();
    second.write(&records(&["lost"])).unwrap();
    second.instance().unwrap().close(CloseReason::Failed).unwrap();
    drop(second);
    let mut third = sink(config, &[]).with_context(|context| (context.restored, context.generation) = (true, 2));
    third.instance().unwrap().recover(&[Committable { checkpoint: 1, subtask: 0, bytes: bytes.clone() }]).unwrap();
    assert_eq!(files(folder.path()), named(&[("test.node-1-0-000000.jsonl", "kept\n")]));
    drop(third);
    // A part of the checkpoint that somebody has taken away is said.
    fs::remove_file(folder.path().join("test.node-1-0-000000.jsonl")).unwrap();
    let mut fourth = sink(json!({ "path": path }), &[]).with_context(|context| (context.restored, context.generation) = (true, 3));
    let error = fourth.instance().unwrap().recover(&[Committable { checkpoint: 1, subtask: 0, bytes }]).unwrap_err();
    assert!(error.to_string().contains("test.node-1-0-000000.jsonl is in the checkpoint, and is gone"), "{error}");
}

#[test]
fn a_path_may_come_from_outside_as_far_as_it_is_no_column() {
    let validation = sink(json!({ "path": "${OUT}/h={host}/" }), &[]).validate().unwrap().details;
    assert_eq!((validation.columns, validation.problems), (vec!["host".to_owned()], Vec::new()));
    let wrong = sink(json!({ "path": "${OUT}/h={hots}/" }), &[]).validate().unwrap().details.problems;
    assert_eq!((wrong[0].path.as_str(), wrong[0].message.as_str()), ("path", "{hots} names no column"));
    let none = sink(json!({ "path": "${OUT}", "options": { "aws_region": "x" } }), &[]).validate().unwrap().details;
    assert_eq!((none.columns, none.problems), (Vec::<String>::new(), Vec::new()));
}

#[test]
fn parts_that_are_written_at_the_same_time_hold_no_more_in_memory_than_one_would() {
    let (folder, path) = folder();
    let config = json!({ "path": format!("{path}{{host}}/"), "roll": { "size": "1GiB" } });
    let schema = Arc::new(Schema::new(vec![Field::new("host", DataType::Utf8, true), Field::new("text", DataType::Utf8, true)]));
    let mut sink = Harness::sink::<FileSink>(config, schema.clone()).with_format(json!({ "type": "parquet", "compression": "none" }));
    // 8 parts of 24 MiB each: none of them is large.
    for round in 0..24 {
        for host in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..1024).map(|row| format!("{round:06}{row:010}").repeat(64))));
            let hosts: ArrayRef = Arc::new(StringArray::from_iter_values((0..1024).map(|_| host)));
            sink.write(&RecordBatch::try_new(schema.clone(), vec![hosts, texts]).unwrap()).unwrap();
        }
    }
    sink.finish().unwrap();
    let (mut files, mut bytes) = (0, 0);
    for host in fs::read_dir(folder.path()).unwrap() {
        for part in fs::read_dir(host.unwrap().path()).unwrap() {
            files += 1;
            bytes += part.unwrap().metadata().unwrap().len();
        }
    }
    assert!(bytes > 192 << 20 && (9..30).contains(&files), "{files} files of {bytes} bytes");
}

#[test]
fn what_waits_for_the_end_is_not_taken_away_by_another_start() {
    let (folder, path) = folder();
    fs::write(folder.path().join(".test.node-7-0.lock"), "").unwrap();
    fs::write(folder.path().join(".test.node2-7-0.lock"), "").unwrap();
    let config = json!({ "path": path, "roll": { "size": "1B" } });
    let mut first = sink(config.clone(), &[]);
    for text in ["one", "two"] {
        first.write(&records(&[text])).unwrap();
        first.flush().unwrap();
    }
    for generation in [1, 2] {
        let mut second = sink(config.clone(), &[]).with_context(|context| context.generation = generation);
        let error = second.open().unwrap_err();
        assert!(error.to_string().contains("is being written by someone else"), "{error}");
    }
    first.finish().unwrap();
    let expected = [("test.node-1-0-000000.jsonl", "one\n"), ("test.node-1-0-000001.jsonl", "two\n")];
    assert_eq!(files(folder.path()), named(&expected));
    let mut locks: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    locks.retain(|name| name.ends_with(".lock"));
    assert_eq!(locks, [".test.node2-7-0.lock"]);
}

#[test]
fn a_batch_may_have_more_folders_than_a_process_may_have_files() {
    let (folder, path) = folder();
    let mut sink = sink(json!({ "path": format!("{path}{{host}}/") }), &["host"]);
    let hosts: Vec<String> = (0..800).map(|row| row.to_string()).collect();
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(&hosts));
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(&hosts));
    let batch = RecordBatch::try_from_iter_with_nullable([("value", values, true), ("host", column, true)]).unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    sink.write(&batch).unwrap();
    assert!(open() < 500, "{} files are open", open());
    sink.flush().unwrap();
    assert!(open() < 500, "{} files are open", open());
    sink.finish().unwrap();
    assert_eq!(files(folder.path()).len(), 800);
}

#[test]
fn rows_whose_folder_no_disk_can_have_are_refused() {
    let (folder, path) = folder();
    let mut sink = sink(json!({ "path": format!("{path}a/h={{host}}/") }), &["host"]);
    let (long, encoded, fits) = ("x".repeat(254), "é".repeat(50), "y".repeat(253));
    let hosts: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(), "b", &encoded, &long, &fits]));
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(["0", "1", "2", "3", "4"]));
    let batch = RecordBatch::try_from_iter_with_nullable([("value", values, true), ("host", hosts, true)]).unwrap();
    sink.write(&batch).unwrap();
    let mut refused: Vec<_> = sink.host.rejections().into_iter().map(|(seq, rejection)| (seq, rejection.row)).collect();
    refused.sort_unstable();
    assert_eq!((refused, sink.host.acknowledged()), (vec![(1, 0), (1, 2), (1, 3)], 1));
    assert!(sink.host.rejections()[0].1.reason.contains("255 bytes"), "{:?}", sink.host.rejections());
    sink.finish().unwrap();
    let texts: Vec<_> = files(folder.path()).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["1\n", "4\n"]);
    // No row is to blame for what all parts are called.
    let mut never = Harness::sink::<FileSink>(json!({ "path": path }), row()).with_context(|context| context.job_name = "j".repeat(250));
    let error = never.open().unwrap_err();
    assert_eq!(error.code, ErrorCode::CONFIG, "{error}");
}
