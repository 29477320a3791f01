//! A session cluster between a real Kafka and real services, on a million rows: its task managers and its manager are killed under load, one after the other and both at once.
//! Nothing is lost, nothing is there twice, and the job's exceptions say why it was started again. Two kills each, with `cargo xtask test --all` four and six.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;
mod services_support;

use cluster_support::{Cluster, PATIENCE, start_manager};
use serde_json::{Value, json};
use services_support::{
    Kafka, OpenSearch,
    million::{ROWS, pipeline},
    unique,
};
use standpipe_cluster::bundle::Bundle;
use standpipe_tests::{Row, Running, Seen, Signal, all, assert_windows, processes, read_rows, wait_until};
use std::{collections::BTreeMap, fs, path::Path};

/// Each of two task managers has so many slots, and the job needs all of them.
const SLOTS: u32 = 2;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kill {
    /// Another task manager joins at once.
    TaskManager,
    /// It is started again at once: the job goes on, and nobody notices.
    Manager,
    /// It comes back when its task managers have ended their work by themselves.
    ManagerForLong,
    /// Both at the same time.
    Both,
}

impl Kill {
    /// What a user is told; none: the job is not started again.
    const fn why(self) -> Option<&'static str> {
        match self {
            Self::TaskManager | Self::Both => Some("has not been heard of for 3 s"),
            Self::Manager => None,
            Self::ManagerForLong => Some("has not heard of the job manager for too long"),
        }
    }
}

/// A job that is lived through.
struct Trial {
    cluster: Cluster,
    /// The one that is killed next is the first.
    task_managers: Vec<Running>,
    joined: u32,
    id: String,
    name: String,
    /// The newest checkpoint before a kill.
    checkpoint: u64,
    attempt: u64,
    whys: Vec<&'static str>,
}

impl Trial {
    fn start(mut pipeline: Value) -> Self {
        let cluster = Cluster::start();
        let name = pipeline["name"].as_str().unwrap().to_owned();
        pipeline["checkpoint"]["dir"] = json!(cluster.folder.at("checkpoints"));
        pipeline["restart"]["attempts"] = json!(100);
        let bundle = Bundle { name: name.clone(), ..cluster.bundle(&pipeline.to_string(), 2 * SLOTS) };
        let id = cluster.submit(&bundle);
        let mut trial = Self { cluster, task_managers: Vec::new(), joined: 0, id, name, checkpoint: 0, attempt: 0, whys: Vec::new() };
        (0..2).for_each(|_| trial.join());
        trial
    }

    fn join(&mut self) {
        self.joined += 1;
        let joining = self.cluster.task_manager(&format!("tm{}", self.joined), SLOTS);
        self.task_managers.push(joining);
    }

    /// The number of the newest durable checkpoint: of the files, for the job's status comes once a second.
    fn newest(&self) -> u64 {
        let folder = self.cluster.folder.at("checkpoints").join(&self.name).join("checkpoints");
        let id = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok()?["id"].as_u64();
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(|entry| id(&entry.path())).max().unwrap_or(0)
    }

    /// Waits until the job is at work: two more checkpoints.
    fn work(&mut self) {
        let before = self.checkpoint;
        wait_until("checkpoints", PATIENCE, || {
            let newest = self.newest();
            self.checkpoint = newest;
            newest >= before + 2
        });
    }

    fn workers(&self) -> Vec<BTreeMap<u32, i32>> {
        self.task_managers.iter().map(processes).collect()
    }

    fn kill(&mut self, kill: Kill) {
        self.work();
        println!("{}: {kill:?} at checkpoint {}", self.name, self.checkpoint);
        let workers = self.workers();
        if kill != Kill::Manager && kill != Kill::ManagerForLong {
            self.task_managers.remove(0).signal(Signal::KILL);
        }
        if kill != Kill::TaskManager {
            self.cluster.manager.take().unwrap().signal(Signal::KILL);
        }
        if kill == Kill::ManagerForLong {
            wait_until("the workers end", PATIENCE, || self.workers().iter().all(BTreeMap::is_empty));
        }
        if kill != Kill::TaskManager {
            self.cluster.manager = Some(start_manager(&self.cluster.folder, self.cluster.port));
        }
        if kill != Kill::Manager && kill != Kill::ManagerForLong {
            self.join();
        }
        self.attempt += u64::from(kill.why().is_some());
        self.whys.extend(kill.why());
        let attempt = self.attempt;
        self.cluster.wait_for(&self.id, "the job goes on", |job| job["attempt"] == attempt && job["state"] == "RUNNING");
        if kill == Kill::Manager {
            self.work();
            assert_eq!(self.workers(), workers, "{kill:?}");
        }
    }

    /// The first two of them, unless all are to be, and then to the end.
    fn live_through(&mut self, kills: &[Kill]) {
        let number = if all() { kills.len() } else { 2 };
        kills.iter().take(number).for_each(|kill| self.kill(*kill));
        self.finish();
    }

    /// To the end of the job, and whether it was told what has happened to it.
    fn finish(&mut self) {
        let finished = self.cluster.state(&self.id, "FINISHED");
        assert_eq!((&finished["attempt"], &finished["restarts"]), (&json!(self.attempt), &json!(self.attempt)), "{finished:#}");
        let mut told = self.cluster.exceptions(&self.id);
        told.reverse();
        assert_eq!(told.len(), self.whys.len(), "{told:#?}");
        for (told, why) in told.iter().zip(&self.whys) {
            assert!(told.contains(why), "{why}: {told:#?}");
        }
    }
}

/// Readers of committed records see every row, and every window, once.
#[test]
fn a_million_rows_from_kafka_to_kafka_exactly_once_while_a_cluster_is_killed() {
    let Some(kafka) = Kafka::shared() else { return };
    let (rows_to, windows_to) = (unique("all"), unique("windows"));
    let to = |topic: &str| {
        let create = json!({ "partitions": 3, "replication": 1 });
        // What is held is little, so that there are rows for all of it.
        let with = kafka.with(topic, json!({ "delivery": "exactly-once", "max_pending": "16KiB", "create_topic": create }));
        json!({ "connector": "kafka", "with": with, "format": "json" })
    };
    let mut sinks = json!({ "all": to(&rows_to), "windows": to(&windows_to) });
    (sinks["all"]["input"], sinks["windows"]["input"]) = (json!("numbers"), json!("counts"));
    let mut pipeline = pipeline(&kafka, &unique("cluster-kafka"), sinks);
    // Small batches: it lasts longer.
    pipeline["engine"]["in_flight_bytes"] = json!("256KiB");
    let mut trial = Trial::start(pipeline);
    // Quick as it is, the job would have ended before a manager that is away for long is back.
    trial.live_through(&[Kill::TaskManager, Kill::Manager, Kill::Both, Kill::TaskManager]);
    let folder = &trial.cluster.folder;
    kafka.copy_rows(&rows_to, &json!({ "n": "int64" }), folder, "rows.jsonl");
    Seen::none_of(ROWS).and_file(folder.at("rows.jsonl")).assert_once("rows");
    let columns = json!({ "k": "int64", "window_start": "int64", "n": "int64", "s": "int64" });
    kafka.copy_rows(&windows_to, &columns, folder, "windows.jsonl");
    assert_windows(&read_rows(folder.at("windows.jsonl")), ROWS);
}

/// The ids make every row one document, written however often.
#[test]
fn a_million_rows_from_kafka_to_opensearch_by_id_while_a_cluster_is_killed() {
    let (Some(kafka), Some(search)) = (Kafka::shared(), OpenSearch::shared()) else { return };
    let more = json!({ "batch": { "max_docs": 5_000 } });
    let to = |input: &str, name: &str, id: &[&str]| json!({ "input": input, "connector": "elasticsearch", "with": search.with(&search.url, name, id, &more) });
    let sinks = json!({ "all": to("rows", "all", &["n"]), "windows": to("counts", "windows", &["k", "window_start"]) });
    let mut pipeline = pipeline(&kafka, &unique("cluster-search"), sinks);
    // A checkpoint waits for what is on its way: little, so that there are many of them.
    pipeline["engine"]["in_flight_bytes"] = json!("256KiB");
    let mut trial = Trial::start(pipeline);
    trial.live_through(&[Kill::Both, Kill::ManagerForLong, Kill::TaskManager, Kill::Manager, Kill::Both, Kill::TaskManager]);
    let number = |row: &Row, column: &str| row[column].as_i64().unwrap();
    let rows = search.documents("all");
    let mut seen = Seen::none_of(ROWS);
    for row in &rows {
        assert_eq!(number(row, "k"), number(row, "n") % 100, "{row:?}");
        seen = seen.and_text(format!("{{\"n\":{}}}", number(row, "n")).as_bytes());
    }
    seen.assert_once("documents");
    assert_windows(&search.documents("windows"), ROWS);
}
