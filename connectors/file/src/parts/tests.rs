//! A job that is killed again and again, at any point of its checkpoints, started with another parallelism, now and then from an older checkpoint: what is to be
//! seen afterwards are its rows, each once. On a disk and in the object_store library's store in memory.

use super::store::MEMORY;
use crate::FileSink;
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_sdk::{
    CloseReason, Committable, Recovered,
    testing::{Harness, SinkHarness},
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a test writes to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Parquet,
    Store,
}

/// A point of time.
#[derive(Debug, Clone)]
enum Step {
    /// So many rows to a subtask.
    Write(u32, u8),
    /// All subtasks prepare; is it durable, and which of them commit?
    Checkpoint { durable: bool, commits: u8 },
    /// The process is gone, with or without a last word; the next one has so many subtasks, and goes on from the newest checkpoint or an older one.
    Crash { closes: bool, parallelism: u32, back: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u32, 1..40_u8).prop_map(|(subtask, rows)| Step::Write(subtask, rows)),
        3 => (prop::bool::weighted(0.9), any::<u8>()).prop_map(|(durable, commits)| Step::Checkpoint { durable, commits }),
        2 => (any::<bool>(), 1..4_u32, prop_oneof![5 => Just(0), 1 => 1..3_usize]).prop_map(|(closes, parallelism, back)| Step::Crash { closes, parallelism, back }),
    ];
    prop::collection::vec(step, 1..25)
}

struct Checkpoint {
    position: i64,
    committables: Vec<Committable>,
}

struct Job {
    kind: Kind,
    config: Value,
    generation: u64,
    subtasks: Vec<(SinkHarness, Vec<Committable>)>,
    position: i64,
    number: u64,
    durable: Vec<Checkpoint>,
}

fn schema(kind: Kind) -> SchemaRef {
    let n = Field::new("n", DataType::Int64, true);
    Arc::new(Schema::new(match kind {
        Kind::Parquet => vec![n],
        _ => vec![Field::new("value", DataType::Binary, true), n],
    }))
}

impl Job {
    fn start(kind: Kind, config: Value, parallelism: u32) -> Self {
        let mut job = Self { kind, config, generation: 0, subtasks: Vec::new(), position: 0, number: 0, durable: Vec::new() };
        job.restart(parallelism, 0);
        job
    }

    /// Starts the next process from one of the last checkpoints; one without any begins with nothing.
    fn restart(&mut self, parallelism: u32, back: usize) {
        self.generation += 1;
        let kept = self.durable.len().saturating_sub(back).max(1);
        self.durable.truncate(kept);
        let base = self.durable.last();
        self.position = base.map_or(0, |base| base.position);
        self.subtasks.clear();
        for subtask in 0..parallelism {
            let format = if self.kind == Kind::Parquet { "parquet" } else { "json" };
            let rows: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
            let sink =
                Harness::sink::<FileSink>(self.config.clone(), rows).with_batches(schema(self.kind)).with_format(json!({ "type": format }));
            let (generation, restored) = (self.generation, base.is_some());
            let mut sink = sink.with_context(|context| {
                (context.generation, context.subtask, context.parallelism, context.restored) = (generation, subtask, parallelism, restored);
            });
            sink.open().unwrap();
            if let Some(base) = base {
                let own: Vec<_> = base.committables.iter().filter(|it| it.subtask % parallelism == subtask).cloned().collect();
                let recovered = sink.instance().unwrap().recover(&own).unwrap();
                assert!(recovered.iter().all(|recovered| *recovered == Recovered::Committed));
            }
            self.subtasks.push((sink, Vec::new()));
        }
        self.check_clean();
    }

    fn write(&mut self, subtask: u32, rows: u8) {
        let numbers: Vec<i64> = (self.position..self.position + i64::from(rows)).collect();
        self.position += i64::from(rows);
        let at = subtask as usize % self.subtasks.len();
        let column: ArrayRef = Arc::new(Int64Array::from(numbers.clone()));
        let columns = match self.kind {
            Kind::Parquet => vec![column],
            _ => vec![Arc::new(BinaryArray::from_iter_values(numbers.iter().map(|n| format!("{n:05}")))) as ArrayRef, column],
        };
        self.subtasks[at].0.write(&RecordBatch::try_new(schema(self.kind), columns).unwrap()).unwrap();
    }

    /// The bits of `commits` say which subtasks still commit.
    fn checkpoint(&mut self, durable: bool, commits: u8) {
        self.number += 1;
        let mut committables = Vec::new();
        for (subtask, (sink, uncommitted)) in (0..).zip(&mut self.subtasks) {
            let bytes = sink.instance().unwrap().prepare(self.number).unwrap();
            uncommitted.push(Committable { checkpoint: self.number, subtask, bytes });
            committables.extend(uncommitted.iter().cloned());
        }
        if !durable {
            return;
        }
        self.durable.push(Checkpoint { position: self.position, committables });
        for (subtask, (sink, uncommitted)) in self.subtasks.iter_mut().enumerate() {
            if commits & (1 << subtask) != 0 {
                sink.instance().unwrap().commit(self.number, &std::mem::take(uncommitted)).unwrap();
            }
        }
    }

    fn crash(&mut self, closes: bool) {
        for (sink, _) in &mut self.subtasks {
            if closes {
                sink.instance().unwrap().close(CloseReason::Failed).unwrap();
            }
            sink.restart();
        }
    }

    fn root(&self) -> &str {
        super::folders::split(self.config["path"].as_str().unwrap()).0
    }

    /// The files and their contents.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        if self.kind == Kind::Store {
            let store = Arc::clone(&MEMORY.lock().unwrap()[self.root()]);
            return store_files(&store);
        }
        let mut files = Vec::new();
        walk(Path::new(self.root()), &mut files);
        files
    }

    fn visible(&self) -> Vec<i64> {
        let mut rows = Vec::new();
        for (name, bytes) in self.files() {
            match self.kind {
                _ if [".inprogress", ".lock", ".uploads"].iter().any(|end| name.ends_with(end)) => {}
                Kind::Parquet => {
                    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap() {
                        rows.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
                    }
                }
                _ => rows.extend(std::str::from_utf8(&bytes).unwrap().lines().map(|line| line.parse::<i64>().unwrap())),
            }
        }
        rows.sort_unstable();
        rows
    }

    /// All that is before the position is to be seen, nothing else, and nothing else is left.
    fn check_clean(&self) {
        assert_eq!(self.visible(), (0..self.position).collect::<Vec<_>>());
        let left: Vec<_> = self
            .files()
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with(".inprogress") || name.ends_with(".uploads"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn end(mut self) {
        self.checkpoint(true, u8::MAX);
        for (sink, _) in &mut self.subtasks {
            sink.finish().unwrap();
        }
        self.check_clean();
        assert!(self.files().iter().all(|(name, _)| !name.ends_with(".lock")));
    }
}

fn store_files(store: &object_store::memory::InMemory) -> Vec<(String, Vec<u8>)> {
    use futures_util::TryStreamExt;
    use object_store::ObjectStore;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut files = Vec::new();
        for object in objects {
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            files.push((object.location.to_string(), bytes.to_vec()));
        }
        files
    })
}

fn walk(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, files) } else { files.push((path.display().to_string(), fs::read(&path).unwrap())) }
    }
}

fn run(kind: Kind, config: Value, steps: &[Step]) {
    let mut job = Job::start(kind, config, 2);
    for step in steps {
        match *step {
            Step::Write(subtask, rows) => job.write(subtask, rows),
            Step::Checkpoint { durable, commits } => job.checkpoint(durable, commits),
            Step::Crash { closes, parallelism, back } => {
                job.crash(closes);
                job.restart(parallelism, back);
            }
        }
        let seen = job.visible();
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "a row twice: {seen:?}");
    }
    job.end();
}

/// A sink of one subtask in a store of its own, with a folder for each host.
fn by_host(root: &str) -> SinkHarness {
    let rows: SchemaRef = Arc::new(Schema::new(vec![Field::new("host", DataType::Utf8, true)]));
    let batches = Schema::new(vec![Field::new("value", DataType::Binary, true), Field::new("host", DataType::Utf8, true)]);
    Harness::sink::<FileSink>(json!({ "path": format!("{root}{{host}}/") }), rows).with_batches(Arc::new(batches))
}

fn of_hosts(hosts: &[&str], bytes: usize) -> RecordBatch {
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(hosts.iter().map(|_| "x".repeat(bytes))));
    let hosts: ArrayRef = Arc::new(StringArray::from_iter_values(hosts));
    RecordBatch::try_from_iter_with_nullable([("value", values, true), ("host", hosts, true)]).unwrap()
}

fn names(root: &str) -> Vec<String> {
    let store = Arc::clone(&MEMORY.lock().unwrap()[root]);
    store_files(&store).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_value_that_is_called_as_the_folder_of_the_lists_is_a_value() {
    let root = "memory:///lists/";
    let mut first = by_host(root);
    first.write(&of_hosts(&["_standpipe", "a"], 1)).unwrap();
    let bytes = first.instance().unwrap().prepare(1).unwrap();
    let committable = [Committable { checkpoint: 1, subtask: 0, bytes }];
    first.instance().unwrap().commit(1, &committable).unwrap();
    let parts: Vec<_> = names(root).into_iter().filter(|name| !name.ends_with(".uploads")).collect();
    assert_eq!(parts, ["lists/_standpipe/test.node-1-0-000000.jsonl", "lists/a/test.node-1-0-000001.jsonl"]);
    drop(first);
    let mut second = by_host(root).with_context(|context| (context.restored, context.generation) = (true, 2));
    second.instance().unwrap().recover(&committable).unwrap();
    assert_eq!(names(root), parts);
}

#[test]
fn objects_that_are_begun_hold_no_more_in_memory_than_parquet_may() {
    let root = "memory:///memory/";
    let hosts: Vec<String> = (0..48).map(|host| host.to_string()).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut sink = by_host(root);
    // 48 parts of 4 MiB, none of which has a piece for the store.
    for _ in 0..4 {
        sink.write(&of_hosts(&hosts, 1 << 20)).unwrap();
    }
    sink.flush().unwrap();
    let store = Arc::clone(&MEMORY.lock().unwrap()[root]);
    let lists: Vec<_> = store_files(&store).into_iter().filter(|(name, _)| name.ends_with(".uploads")).collect();
    let list: Value = serde_json::from_slice(&lists[0].1).unwrap();
    let sealed = list["uploads"].as_object().unwrap().len();
    assert!((16..32).contains(&sealed), "{sealed} of 48 parts are sealed");
    sink.finish().unwrap();
    assert!(names(root).len() >= 48 && names(root).iter().all(|name| name.ends_with(".jsonl")));
    MEMORY.lock().unwrap().remove(root);
}

#[test]
fn uploads_that_begin_together_are_listed_once() {
    let root = "memory:///together/";
    let hosts: Vec<String> = (0..200).map(|host| host.to_string()).collect();
    let mut sink = by_host(root);
    sink.write(&of_hosts(&hosts.iter().map(String::as_str).collect::<Vec<_>>(), 1)).unwrap();
    sink.flush().unwrap();
    let store = Arc::clone(&MEMORY.lock().unwrap()[root]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let list = runtime.block_on(store.head(&"together/_standpipe/test.node-1-0-000000.uploads".into())).unwrap();
    // The store counts what is begun or put: before the list 136 uploads, as 64 parts are written on, and no other list.
    assert_eq!(list.e_tag.as_deref(), Some("136"));
    sink.finish().unwrap();
    assert_eq!(names(root).len(), 200);
}

#[test]
fn an_object_has_a_name_of_1024_bytes_at_most() {
    let root = "memory:///names/";
    let mut sink = by_host(root);
    sink.write(&of_hosts(&["a", &"é".repeat(200)], 1)).unwrap();
    assert_eq!(sink.host.rejections()[0].1.row, 1);
    sink.finish().unwrap();
    assert_eq!(names(root), ["names/a/test.node-1-0-000000.jsonl"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn text_on_a_disk_is_seen_once(steps in steps(), size in prop::sample::select(vec!["1B", "100B", "1MiB"])) {
        let folder = tempfile::tempdir().unwrap();
        run(Kind::Text, json!({ "path": format!("{}/", folder.path().display()), "roll": { "size": size } }), &steps);
    }

    #[test]
    fn parquet_on_a_disk_is_seen_once(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        run(Kind::Parquet, json!({ "path": format!("{}/", folder.path().display()), "roll": { "size": "100B" } }), &steps);
    }

    #[test]
    fn objects_are_seen_once(steps in steps(), size in prop::sample::select(vec!["1B", "100B", "1MiB"])) {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let root = format!("memory:///{}/", NAMES.fetch_add(1, Ordering::Relaxed));
        run(Kind::Store, json!({ "path": format!("{root}n={{n}}/"), "roll": { "size": size } }), &steps);
        MEMORY.lock().unwrap().remove(&root);
    }
}
