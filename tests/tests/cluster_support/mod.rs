//! A session cluster of processes, for tests: a job manager on a port of its own, task managers, jobs of a counted stream, and whether every row came once.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "a test fails by a panic, and no test file uses all of it")]

use serde_json::Value;
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use standpipe_tests::{Folder, Lan, Machine, Row, Run, Running, free_port, read_rows, standpipe, wait_until};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

/// Starting, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const ROWS: i64 = 40_000;
/// A task manager says so whenever it is heard anew.
pub(crate) const JOINED: &str = "slots are with the job manager";

/// Without checkpoints and restarts; `DIR` is the test's folder.
pub(crate) const COUNTS: &str = "
name: counts
sources:
  ticks:
    connector: generator
    with: {rate: 5000, count: 40000, splits: 5, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 0s}
transforms:
  totals: {input: ticks, key_by: [k], aggregate: {n: \"count(*)\", s: \"sum(n)\"}, emit: final}
sinks:
  all: {input: ticks, connector: file, with: {path: \"DIR/all-{subtask}.jsonl\"}, format: json}
  totals-out: {input: totals, connector: file, with: {path: DIR/totals.jsonl}, format: json, parallelism: 1}
";
pub(crate) const SAFE: &str = "
checkpoint: {interval: 100ms, dir: DIR/ckpt}
restart: {strategy: fixed-delay, attempts: 9, delay: 100ms}
";

/// A job manager on a port of its own; its folder holds what it keeps.
pub(crate) struct Cluster {
    pub(crate) folder: Folder,
    pub(crate) port: u16,
    /// None: it is not the test's.
    pub(crate) manager: Option<Running>,
}

pub(crate) fn start_manager(folder: &Folder, port: u16) -> Running {
    start_manager_with(folder, &["--bind", &format!("127.0.0.1:{port}"), "--lease", "3s"])
}

/// One that takes jobs of this machine, and task managers of others.
pub(crate) fn start_open_manager(folder: &Folder, port: u16, lease: Duration) -> Running {
    let lease = format!("{}ms", lease.as_millis());
    start_manager_with(folder, &["--bind", &format!("0.0.0.0:{port}"), "--open", "--lease", &lease])
}

fn start_manager_with(folder: &Folder, arguments: &[&str]) -> Running {
    let run = standpipe(["jobmanager", "--log-level", "info"]).args(arguments);
    let mut manager = run.args(["--data".into(), folder.at("manager")]).timeout(4 * PATIENCE).start();
    manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http://"));
    manager
}

fn task_manager(run: Run) -> Running {
    let mut run = run.timeout(4 * PATIENCE).start();
    run.wait_until("the task manager", PATIENCE, |run| run.stderr().contains(JOINED));
    run
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let manager = start_manager(&folder, port);
        Self { folder, port, manager: Some(manager) }
    }

    pub(crate) fn start_open(lease: Duration) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let manager = start_open_manager(&folder, port, lease);
        Self { folder, port, manager: Some(manager) }
    }

    pub(crate) fn task_manager(&self, name: &str, slots: u32) -> Running {
        task_manager(self.task_manager_of("127.0.0.1", name, slots))
    }

    /// On a machine of its own; the manager is on the test's.
    pub(crate) fn task_manager_on(&self, machine: &Machine, name: &str, slots: u32) -> Running {
        task_manager(self.task_manager_of(Lan::ADDRESS, name, slots).args(["--host", &machine.address]).on(machine))
    }

    fn task_manager_of(&self, manager: &str, name: &str, slots: u32) -> Run {
        let (url, slots) = (format!("http://{manager}:{}", self.port), slots.to_string());
        let arguments = ["taskmanager", "--slots", &slots, "--jobmanager", &url, "--log-level", "info"];
        standpipe(arguments).args(["--data".into(), self.folder.at(name)])
    }

    pub(crate) fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let request = ureq::http::Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port));
        let mut answer = agent.run(request.body(body.to_vec()).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, value) = self.http("GET", path, b"");
        assert_eq!(status, 200, "{value}");
        value
    }

    pub(crate) fn text(&self, path: &str) -> String {
        ureq::get(format!("http://127.0.0.1:{}{path}", self.port)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    pub(crate) fn put(&self, path: &str, content: &[u8]) -> File {
        let file = File { path: path.to_owned(), hash: Hash::of(content), bytes: content.len() as u64 };
        let (status, value) = self.http("PUT", &format!("/v1/blobs/{}", file.hash), content);
        assert!([200, 201].contains(&status), "{value}");
        file
    }

    pub(crate) fn bundle(&self, pipeline: &str, parallelism: u32) -> Bundle {
        let text = pipeline.replace("DIR", self.folder.path().to_str().unwrap());
        Bundle {
            standpipe: "0.1.0".to_owned(),
            name: "counts".to_owned(),
            pipeline: self.put("counts.yaml", text.as_bytes()),
            plugins: Vec::new(),
            resources: Vec::new(),
            configuration: BTreeMap::new(),
            options: Options { parallelism: Some(parallelism), ..Options::default() },
        }
    }

    pub(crate) fn post(&self, bundle: &Bundle) -> (u16, Value) {
        self.http("POST", "/v1/jobs", &serde_json::to_vec(bundle).unwrap())
    }

    pub(crate) fn submit(&self, bundle: &Bundle) -> String {
        let (status, value) = self.post(bundle);
        assert_eq!(status, 202, "{value}");
        value["jobid"].as_str().unwrap().to_owned()
    }

    /// What a user is shown of why the job was started again, newest first.
    pub(crate) fn exceptions(&self, id: &str) -> Vec<String> {
        let exceptions = self.get(&format!("/jobs/{id}/exceptions"));
        let entries = exceptions["exceptionHistory"]["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["stacktrace"].as_str().unwrap().to_owned()).collect()
    }

    /// What has become of a request below that path.
    pub(crate) fn outcome(&self, path: &str, asked: &Value) -> Value {
        let path = format!("{path}/{}", asked["request-id"].as_str().unwrap());
        let mut outcome = Value::Null;
        wait_until("an outcome", PATIENCE, || {
            outcome = self.get(&path);
            outcome["status"]["id"] == "COMPLETED"
        });
        outcome["operation"].take()
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}"))
    }

    pub(crate) fn wait_for(&self, id: &str, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let mut job = Value::Null;
        let is_over = |job: &Value| ["FINISHED", "FAILED", "CANCELED"].iter().any(|state| job["state"] == *state);
        wait_until(what, PATIENCE, || {
            job = self.job(id);
            let holds = condition(&job);
            assert!(holds || !is_over(&job), "{what}: {job:#}");
            holds
        });
        job
    }

    pub(crate) fn state(&self, id: &str, state: &str) -> Value {
        self.wait_for(id, state, |job| job["state"] == state)
    }

    /// Checkpoints that the job has completed since its last start.
    pub(crate) fn taken(&self, id: &str, checkpoints: u64) {
        self.wait_for(id, "checkpoints", |job| {
            job["status"]["checkpoints"]["completed"].as_u64().is_some_and(|taken| taken >= checkpoints)
        });
    }
}

/// The rows of all subtasks.
pub(crate) fn all(folder: &Path) -> Vec<Row> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("all-")).flat_map(read_rows).collect()
}

/// As if nothing had happened.
pub(crate) fn assert_exactly_once(folder: &Folder) {
    let all = all(folder.path());
    let mut numbers: Vec<i64> = all.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..ROWS), "{} rows", numbers.len());
    let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for row in &all {
        let of_key = expected.entry(row["k"].as_i64().unwrap()).or_default();
        *of_key = (of_key.0 + 1, of_key.1 + row["n"].as_i64().unwrap());
    }
    let totals = read_rows(folder.at("totals.jsonl"));
    let found = totals.iter().map(|row| (row["k"].as_i64().unwrap(), (row["n"].as_i64().unwrap(), row["s"].as_i64().unwrap())));
    assert_eq!((found.collect::<BTreeMap<_, _>>(), totals.len()), (expected, 10));
}
