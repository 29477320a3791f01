//! What the processes tell Prometheus, read by a real one: its server scrapes a job, a task manager and a job manager, its own tool finds nothing to say about the text, and every
//! query of the Grafana dashboard and of the alert rules in docs/monitoring is answered from what was scraped.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use standpipe_tests::{Folder, Running, free_port, on_path, repository, skip, standpipe, wait_until};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// Never ends; event time a second behind the clock.
const PIPELINE: &str = "
name: measured
parallelism: 2
sources:
  ticks:
    connector: generator
    with: {rate: 2000, splits: 2, start: now, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 1s}
transforms:
  stats: {input: ticks, key_by: [k], window: {tumbling: 1s}, aggregate: {n: \"count(*)\"}}
sinks:
  out: {input: stats, connector: file, with: {path: \"DIR/out-{subtask}.jsonl\"}, format: json}
checkpoint: {interval: 300ms, dir: DIR/ckpt}
restart: {strategy: fixed-delay, attempts: 3, delay: 100ms}
";

/// What this job has nothing to tell of: its source does not know its lag.
const NOT_HERE: [&str; 1] = ["standpipe_source_lag_records"];

fn text(port: u16) -> Option<String> {
    ureq::get(format!("http://127.0.0.1:{port}/metrics")).call().ok()?.body_mut().read_to_string().ok()
}

fn pipeline(folder: &Folder) -> std::path::PathBuf {
    folder.write("measured.yaml", PIPELINE.replace("DIR", folder.path().to_str().unwrap()))
}

/// A job of its own, with its endpoint.
fn start_job(folder: &Folder, port: u16) -> Running {
    let metrics = format!("127.0.0.1:{port}");
    let mut run = standpipe(["run"]).args([pipeline(folder)]).args(["--quiet", "--metrics", &metrics]).timeout(4 * PATIENCE).start();
    run.wait_until("the endpoint", PATIENCE, |_| text(port).is_some_and(|text| text.contains("standpipe_checkpoint_last_size_bytes{")));
    run
}

/// The value of the first sample that begins so.
fn value(text: &str, begins: &str) -> Option<f64> {
    text.lines().find(|line| line.starts_with(begins))?.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_job_tells_its_figures_and_they_grow() {
    let (folder, port) = (Folder::new(), free_port());
    let mut run = start_job(&folder, port);
    let first = text(port).unwrap();
    let rows = |text: &str| {
        let of_source = text
            .lines()
            .filter(|line| line.starts_with("standpipe_operator_rows_in_total{") && line.contains("operator=\"sources.ticks\""));
        of_source.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let mut later = String::new();
    wait_until("more rows and checkpoints", PATIENCE, || {
        later = text(port).unwrap();
        rows(&later) > rows(&first) + 1000.0 && value(&later, "standpipe_checkpoints_completed_total{").is_some_and(|taken| taken > 1.0)
    });
    for subtask in ["0", "1"] {
        let labels = format!("operator=\"transforms.stats\",subtask=\"{subtask}\"}}");
        let busy = later.lines().find(|line| line.starts_with("standpipe_operator_busy_seconds_total{") && line.contains(&labels));
        assert!(busy.is_some_and(|line| line.contains("job_name=\"measured\"")), "subtask {subtask}\n{later}");
    }
    assert!(later.contains("plugin=\"generator\"") && later.contains("plugin=\"file\""), "{later}");
    assert_eq!(value(&later, "standpipe_job_restarts_total{"), Some(0.0));
    assert!(
        later.lines().any(|line| line.starts_with("standpipe_job_state{") && line.contains("state=\"running\"") && line.ends_with(" 1"))
    );
    // Anything else there is nothing.
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    assert_eq!(agent.get(format!("http://127.0.0.1:{port}/")).call().unwrap().status().as_u16(), 404);
    assert_eq!(agent.post(format!("http://127.0.0.1:{port}/metrics")).send("").unwrap().status().as_u16(), 405);
    run.signal(standpipe_tests::Signal::TERM);
    run.wait().success();
}

#[test]
fn the_address_may_be_in_the_pipeline_and_one_that_is_taken_is_an_error_at_once() {
    let (folder, port) = (Folder::new(), free_port());
    let run = standpipe(["run"]).args([pipeline(&folder)]).args(["--quiet"]).set("engine.metrics", format!("127.0.0.1:{port}"));
    let mut run = run.timeout(PATIENCE).start();
    run.wait_until("the endpoint", PATIENCE, |_| text(port).is_some_and(|text| text.contains("standpipe_build_info{")));
    run.signal(standpipe_tests::Signal::TERM);
    run.wait().success();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let error =
        standpipe(["run"]).args([pipeline(&folder)]).args(["--set", "restart.attempts=1", "--metrics", &address]).finish().code(3).stderr;
    assert!(error.contains(&format!("error: metrics cannot be served at {address}: Address already in use")), "{error}");
}

/// A Prometheus server; ended with the value.
struct Prometheus {
    server: Child,
    port: u16,
    _folder: Folder,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Prometheus {
    fn start(targets: &[u16]) -> Option<Self> {
        let Some(program) = on_path(&["prometheus"]) else {
            skip("Prometheus");
            return None;
        };
        let (folder, port) = (Folder::new(), free_port());
        let targets: Vec<String> = targets.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let rules = repository().join("docs/monitoring/alerts.yaml");
        let scrape = json!([{"job_name": "standpipe", "static_configs": [{"targets": targets}]}]);
        // JSON is YAML.
        let configuration =
            json!({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [rules], "scrape_configs": scrape});
        let file = folder.write("prometheus.yml", configuration.to_string());
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file.display())).arg(format!("--storage.tsdb.path={}", folder.at("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let prometheus = Self { server, port, _folder: folder };
        wait_until("Prometheus", PATIENCE, || prometheus.get("/api/v1/targets").is_some());
        Some(prometheus)
    }

    fn get(&self, path: &str) -> Option<Value> {
        let answer = ureq::get(format!("http://127.0.0.1:{}{path}", self.port)).call().ok()?.body_mut().read_to_string().ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// How many series a query gives; panics where it is none.
    fn query(&self, query: &str) -> usize {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let sent = agent.post(format!("http://127.0.0.1:{}/api/v1/query", self.port)).send_form([("query", query)]);
        let answer: Value = serde_json::from_str(&sent.unwrap().body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{query}\n{answer:#}");
        answer["data"]["result"].as_array().unwrap().len()
    }
}

/// The queries of all panels, as Grafana would ask them.
fn panels() -> Vec<(String, String)> {
    let file = fs::read_to_string(repository().join("docs/monitoring/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let queries = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| {
            (title.clone(), target["expr"].as_str().unwrap().replace("$__rate_interval", "5s").replace("$pipeline", ".*"))
        })
    };
    dashboard["panels"].as_array().unwrap().iter().flat_map(queries).collect()
}

/// The metrics of ours that a query names.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("standpipe_")).map(str::to_owned).collect()
}

fn lint(text: &str) {
    let Some(program) = on_path(&["promtool"]) else { return skip("promtool") };
    let mut tool = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && words.trim().is_empty(), "{words}\n---\n{text}");
}

/// A manager and a task manager with an endpoint, and the job on them.
fn start_cluster(folder: &Folder, port: u16, metrics: u16) -> [Running; 2] {
    let (bind, url, address) = (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"), format!("127.0.0.1:{metrics}"));
    let mut manager =
        standpipe(["jobmanager", "--bind", &bind]).args(["--data".into(), folder.at("manager")]).timeout(4 * PATIENCE).start();
    manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http://"));
    let arguments = ["taskmanager", "--slots", "2", "--jobmanager", &url, "--metrics", &address];
    let mut task_manager = standpipe(arguments).args(["--data".into(), folder.at("one")]).timeout(4 * PATIENCE).start();
    task_manager
        .wait_until("its endpoint", PATIENCE, |_| text(metrics).is_some_and(|text| text.contains("standpipe_taskmanager_connected 1")));
    let content = fs::read(pipeline(folder)).unwrap();
    let hash = Hash::of(&content);
    _ = ureq::put(format!("{url}/v1/blobs/{hash}")).send(&content).unwrap();
    let bundle = Bundle {
        standpipe: "0.1.0".to_owned(),
        name: "measured".to_owned(),
        pipeline: File { path: "measured.yaml".to_owned(), hash, bytes: content.len() as u64 },
        plugins: Vec::new(),
        resources: Vec::new(),
        // The task manager answers for it: that address is taken, and nobody minds.
        configuration: BTreeMap::from([("engine.metrics".to_owned(), address)]),
        options: Options::default(),
    };
    _ = ureq::post(format!("{url}/v1/jobs")).send(serde_json::to_vec(&bundle).unwrap()).unwrap();
    task_manager.wait_until("the job's figures", PATIENCE, |_| {
        text(metrics).is_some_and(|text| text.contains("standpipe_checkpoint_last_age_seconds{"))
    });
    [manager, task_manager]
}

#[test]
fn a_cluster_of_this_machine_answers_where_it_is_told_to() {
    let (folder, port, metrics) = (Folder::new(), free_port().to_string(), free_port());
    let data = folder.at("cluster");
    let start = standpipe(["cluster", "start", "--slots", "3", "--port", &port, "--metrics", &format!("127.0.0.1:{metrics}"), "--data"]);
    let _ = start.args([&data]).timeout(PATIENCE).finish().code(0);
    let told = text(metrics);
    let _ = standpipe(["cluster", "stop", "--data"]).args([&data]).timeout(PATIENCE).finish().code(0);
    assert!(told.as_ref().is_some_and(|told| told.contains("standpipe_taskmanager_slots 3")), "{told:?}");
}

#[test]
fn prometheus_reads_all_of_it_and_every_query_in_the_docs_is_answered() {
    let (alone, on_cluster) = (Folder::new(), Folder::new());
    let [job, manager, task_manager] = [free_port(), free_port(), free_port()];
    let _cluster = start_cluster(&on_cluster, manager, task_manager);
    let _run = start_job(&alone, job);
    let all = [job, manager, task_manager].map(|port| text(port).unwrap());
    all.iter().for_each(|text| lint(text));
    assert!(all[2].contains("job_name=\"measured\"") && !all[1].contains("standpipe_operator_"), "a job is told once");
    let Some(prometheus) = Prometheus::start(&[job, manager, task_manager]) else { return };
    wait_until("three targets that are up", PATIENCE, || prometheus.query("up == 1") == 3);
    // Two looks of a rate.
    wait_until("a rate", PATIENCE, || prometheus.query("rate(standpipe_operator_rows_in_total[5s]) > 0") > 0);
    let told: BTreeSet<String> = all.iter().flat_map(|text| names(text)).collect();
    let panels = panels();
    assert!(panels.len() > 20, "{} queries", panels.len());
    for (title, query) in panels {
        for name in names(&query).iter().filter(|name| !NOT_HERE.contains(&name.as_str())) {
            assert!(told.contains(name), "{title}: nobody tells {name}");
        }
        let series = prometheus.query(&query);
        assert!(series > 0 || NOT_HERE.iter().any(|name| query.contains(name)), "{title}: {query} gives nothing");
    }
    let rules = prometheus.get("/api/v1/rules").unwrap();
    let rules: Vec<Value> =
        rules["data"]["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
    assert_eq!(rules.len(), 12);
    for rule in rules {
        let query = rule["query"].as_str().unwrap();
        for name in names(query).iter().filter(|name| !NOT_HERE.contains(&name.as_str())) {
            assert!(told.contains(name), "{}: nobody tells {name}", rule["name"]);
        }
        // All is well here.
        assert_eq!(prometheus.query(query), 0, "{}", rule["name"]);
    }
}
