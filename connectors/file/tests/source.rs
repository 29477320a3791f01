//! The source as the host runs it: which files, which records, in which order, and from where after a restart. How a file is cut into records is tested in `lines`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{RecordBatch, cast::AsArray, types::Int64Type};
use serde_json::{Value, json};
use standpipe_connector_file::FileSource;
use standpipe_sdk::{
    ErrorCode,
    hosting::Polled,
    testing::{Harness, SourceHarness},
};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

fn source(config: Value) -> SourceHarness {
    Harness::source::<FileSource>(config)
}

fn records(batches: &[RecordBatch]) -> Vec<String> {
    let values = |batch: &RecordBatch| {
        batch.column(0).as_binary::<i32>().iter().map(|value| String::from_utf8(value.unwrap().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(values).collect()
}

fn read(config: Value) -> Vec<String> {
    records(&source(config).read_all().unwrap())
}

#[test]
fn a_file_gives_its_lines() {
    let folder = folder(&[("a", "one\ntwo\r\n\n\r\nthree"), ("empty", ""), ("blank", "\n\n\r\n")]);
    assert_eq!(read(json!({ "path": path(&folder, "a") })), ["one", "two", "three"]);
    assert_eq!(read(json!({ "path": path(&folder, "empty") })), [""; 0]);
    assert_eq!(read(json!({ "path": path(&folder, "blank") })), [""; 0]);
}

#[test]
fn a_pattern_gives_files_sorted_by_path_without_hidden_ones_and_folders() {
    let folder = folder(&[
        ("b.txt", "b"),
        ("a.txt", "a"),
        ("a10.txt", "a10"),
        ("a2.txt", "a2"),
        (".c.txt", "c"),
        ("d.csv", "d"),
        ("e.txt/f.txt", "f"),
    ]);
    let mut all = source(json!({ "path": path(&folder, "*.txt") }));
    let found = all.discover().unwrap();
    let names: Vec<_> = found.added.iter().map(|split| Path::new(&split.split).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.txt", "a10.txt", "a2.txt", "b.txt"]);
    assert!(found.exhausted);
    let mut deep = read(json!({ "path": path(&folder, "**/*.txt") }));
    deep.sort_unstable();
    assert_eq!(deep, ["a", "a10", "a2", "b", "f"]);
}

#[test]
fn a_file_whose_name_looks_like_a_pattern_is_that_file() {
    let folder = folder(&[("a[1].txt", "brackets"), ("a1.txt", "one")]);
    assert_eq!(read(json!({ "path": path(&folder, "a[1].txt") })), ["brackets"]);
}

#[test]
fn splits_are_read_in_turns_and_each_keeps_its_order() {
    let lines = |name: &str| (0..40).map(|line| format!("{name}{line}\n")).collect::<String>();
    let files: Vec<(String, String)> = (0..30).map(|file| (format!("{file:02}"), lines(&format!("{file:02}-")))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    let folder = folder(&files);
    let mut source = source(json!({ "path": path(&folder, "*") }));
    source.assign().unwrap();
    let (mut all, mut ended, mut order) = (Vec::new(), 0, Vec::new());
    while ended < files.len() {
        match source.poll(10).unwrap() {
            Polled::Batch { split, batch, .. } => {
                order.push(split);
                all.extend(records(&[batch]));
            }
            Polled::EndOfSplit(_) => ended += 1,
            Polled::Idle => panic!("a file is never idle"),
        }
    }
    assert_ne!(order[0], order[1], "in turns");
    for (name, content) in &files {
        let of_file: Vec<_> = all.iter().filter(|record| record.starts_with(&format!("{name}-"))).map(String::as_str).collect();
        assert_eq!(of_file, content.lines().collect::<Vec<_>>());
    }
    assert_eq!(all.len(), 30 * 40);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let content: String = (0..100).map(|line| format!("line {line}\n")).collect();
    let folder = folder(&[("a", &content)]);
    let mut source = source(json!({ "path": path(&folder, "a") }));
    source.assign().unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        let Polled::Batch { batch, .. } = source.poll(7).unwrap() else { panic!("there are lines") };
        all.extend(records(&[batch]));
    }
    let position = source.positions().values().next().unwrap().clone();
    assert_eq!(String::from_utf8(position).unwrap(), content.lines().take(21).map(|line| line.len() + 1).sum::<usize>().to_string());
    source.restart();
    all.extend(records(&source.read_all().unwrap()));
    assert_eq!(all, content.lines().collect::<Vec<_>>());
}

#[test]
fn a_split_can_be_given_back_and_paused() {
    let folder = folder(&[("a", "1\n22\n333\n"), ("b", "x\n")]);
    let (a, b) = (path(&folder, "a"), path(&folder, "b"));
    let mut source = source(json!({ "path": path(&folder, "*") }));
    source.assign().unwrap();
    source.reader().unwrap().pause(std::slice::from_ref(&a)).unwrap();
    assert!(matches!(source.poll(1).unwrap(), Polled::Batch { split, .. } if split == b));
    assert!(matches!(source.poll(1).unwrap(), Polled::EndOfSplit(split) if split == b));
    assert!(matches!(source.poll(1).unwrap(), Polled::Idle), "what is left is paused");
    source.reader().unwrap().resume(std::slice::from_ref(&a)).unwrap();
    assert!(matches!(source.poll(2).unwrap(), Polled::Batch { split, .. } if split == a));
    assert_eq!(source.reader().unwrap().unassign(std::slice::from_ref(&a)).unwrap(), [b"5".to_vec()]);
    assert!(matches!(source.poll(1).unwrap(), Polled::Idle));
    assert!(source.reader().unwrap().unassign(&[a]).is_err(), "it is not read here any more");
}

/// The files of this process that are open and lie in the folder.
fn open_files(folder: &TempDir) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.starts_with(folder.path())).count()
}

#[test]
fn a_file_that_is_paused_is_closed_and_the_next_one_has_its_turn() {
    // More than are open at a time, and larger than what is read of one at once.
    let lines = |file: usize| (0..50_000).map(move |line| format!("{file}-{line}-{}\n", "x".repeat(line % 50)));
    let files: Vec<(String, String)> = (0..40).map(|file| (format!("{file:02}"), lines(file).collect())).collect();
    let folder = folder(&files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect::<Vec<_>>());
    let mut source = source(json!({ "path": path(&folder, "*") }));
    source.assign().unwrap();
    let mut found: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let mut all_paused = Vec::new();
    // Each is paused at its first batch: all of them have one, though none ends.
    while all_paused.len() < 40 {
        let Polled::Batch { split, batch, .. } = source.poll(100).unwrap() else { panic!("it waits for a file that is paused") };
        assert!(!all_paused.contains(&split), "{split} is paused");
        found.entry(split.clone()).or_default().extend(records(&[batch]));
        source.reader().unwrap().pause(std::slice::from_ref(&split)).unwrap();
        all_paused.push(split);
        assert!(open_files(&folder) <= 16);
    }
    assert!(matches!(source.poll(100).unwrap(), Polled::Idle));
    assert_eq!(open_files(&folder), 0);
    // One after the other to its end, the last one first, and paused once more in between.
    for split in all_paused.into_iter().rev() {
        for _ in 0..2 {
            source.reader().unwrap().resume(std::slice::from_ref(&split)).unwrap();
            let Polled::Batch { split: of, batch, .. } = source.poll(20_000).unwrap() else { panic!("there is more") };
            assert_eq!(of, split);
            found.entry(of).or_default().extend(records(&[batch]));
            source.reader().unwrap().pause(std::slice::from_ref(&split)).unwrap();
        }
        source.reader().unwrap().resume(std::slice::from_ref(&split)).unwrap();
        loop {
            match source.poll(20_000).unwrap() {
                Polled::Batch { split: of, batch, .. } => found.entry(of).or_default().extend(records(&[batch])),
                Polled::EndOfSplit(of) => {
                    assert_eq!(of, split);
                    break;
                }
                Polled::Idle => panic!("there is an end"),
            }
        }
    }
    for (name, content) in &files {
        assert!(found[&path(&folder, name)] == content.lines().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn metadata_says_where_a_record_comes_from() {
    let folder = folder(&[("a", "one\r\n\ntwo\nthree")]);
    let mut source = source(json!({ "path": path(&folder, "a"), "metadata": ["offset", "path"] }));
    let schema = source.validate().unwrap().schema;
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["value", "offset", "path"]);
    assert_eq!(schema.field(1).metadata()["standpipe.role"], "position");
    let batches = source.read_all().unwrap();
    let offsets: Vec<i64> = batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(offsets, [0, 6, 10]);
    let paths: Vec<_> = batches.iter().flat_map(|batch| batch.column(2).as_string::<i32>().iter().flatten()).collect();
    assert_eq!(paths, vec![path(&folder, "a"); 3]);
}

#[test]
fn what_is_missing_is_found_at_the_start_and_named() {
    let folder = folder(&[("there", "x"), ("sub/x", "x")]);
    for (name, message) in [("missing", "No such file"), ("*.log", "no file matches"), ("sub", "is a directory")] {
        let file = path(&folder, name);
        let error = source(json!({ "path": file })).open().unwrap_err();
        assert_eq!(error.code, ErrorCode::EXTERNAL, "{error}");
        assert!(error.to_string().contains(&file) && error.to_string().contains(message), "{error}");
    }
    let error = source(json!({ "path": "/proc/self/mem/x" })).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL, "{error}");
}

#[test]
fn a_file_that_became_shorter_is_not_read_on() {
    let folder = folder(&[("a", "one\ntwo\nthree\n")]);
    let mut source = source(json!({ "path": path(&folder, "a") }));
    source.assign().unwrap();
    source.poll(2).unwrap();
    source.restart();
    fs::write(path(&folder, "a"), "one\n").unwrap();
    let error = source.read_all().unwrap_err();
    assert!(error.to_string().contains("has 4 bytes, but was read up to byte 8"), "{error}");
}

#[test]
fn a_named_pipe_is_read_as_it_fills() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let mut source = source(json!({ "path": pipe.to_str().unwrap() }));
    source.assign().unwrap();
    assert!(matches!(source.poll(9).unwrap(), Polled::Idle));
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, "one\ntwo").unwrap()
    });
    let mut all = Vec::new();
    loop {
        match source.reader().unwrap().poll(9, 1 << 20, Duration::from_secs(30)).unwrap() {
            Polled::Batch { batch, .. } => all.extend(records(&[batch])),
            Polled::EndOfSplit(_) => break,
            Polled::Idle => {}
        }
    }
    writer.join().unwrap();
    assert_eq!(all, ["one", "two"]);
}

#[test]
fn wrong_values_are_named_with_their_path() {
    let problems = |config: Value| {
        source(config).validate().unwrap().details.problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({ "path": "" })), ["path: is empty"]);
    assert_eq!(problems(json!({ "path": "a", "metadata": ["path", "offset", "path"] })), ["metadata[2]: is there twice"]);
    assert_eq!(problems(json!({ "path": "a", "max_record_bytes": 0 })), ["max_record_bytes: 0 is not between 1 and 1073741824"]);
    assert!(problems(json!({ "path": "a***" }))[0].starts_with("path: \"a***\" is no pattern"));
    assert!(problems(json!({ "path": "${FILES}[" })).is_empty(), "a reference is checked when it is known");
    let unknown = source(json!({ "pth": "a" })).validate().unwrap().details.problems;
    assert!(unknown.iter().any(|problem| problem.path == "pth" && problem.suggestion.as_deref() == Some("path")), "{unknown:?}");
}

#[test]
fn a_restart_cannot_read_a_pipe_again() {
    let mut piped = source(json!({ "path": "-" }));
    assert!(!piped.validate().unwrap().details.capabilities.replayable);
    let at = standpipe_sdk::hosting::SplitPosition { split: "-".to_owned(), details: String::new(), position: Some(b"5".to_vec()) };
    piped.reader().unwrap().assign(&[at]).unwrap();
    let error = piped.poll(1).unwrap_err();
    assert!(error.to_string().contains("standard input has been read already"), "{error}");
}
