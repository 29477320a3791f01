//! The image and `docker/compose.yaml`, in a real engine: `cargo xtask test --all`. Instead of the public images of Kafka and Elasticsearch, Kafka and OpenSearch run from the jars of
//! the other tests (tests/services/docker); of Kibana only the dashboard's queries run. All else is the compose file's own: names, commands, volumes, networks, health checks.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a test fails by a panic; small numbers")]

mod services_support;

use serde_json::{Value, json};
use services_support::{Engine, Kafka, OpenSearch, PATIENCE, kafka::Record, signals::flag};
use standpipe_tests::{Row, all, assert_same_rows, read_rows, repository, rows, wait_until};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The compose file's, less what a machine that is busy may take for itself.
const GRACE: Duration = Duration::from_secs(18);
const TOKEN: &str = "/var/lib/standpipe/token";

/// One engine at a time: they share the machine's rules for networks.
fn alone() -> MutexGuard<'static, ()> {
    static ENGINE: Mutex<()> = Mutex::new(());
    ENGINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine() -> Option<Engine> {
    if all() { Engine::start() } else { None }
}

#[test]
fn a21_the_image_is_small_has_all_plugins_and_no_rights() {
    let _alone = alone();
    let Some(engine) = engine() else { return };
    let image = engine.inspect(&engine.image);
    assert_eq!((&image["Config"]["User"], &image["Config"]["Entrypoint"]), (&json!("10001:10001"), &json!(["standpipe"])));
    // Nothing but the binary, its plugins, the added one and certificates, each once.
    let size = |folder: &str| -> u64 {
        fs::read_dir(engine.distribution.at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap())
            .filter(|file| file.is_file())
            .map(|file| file.len())
            .sum()
    };
    let (added, files) = (image["Size"].as_u64().unwrap() - engine.base_size(), size("dist") + size("dist/plugins") + size("added"));
    assert!(added < files + (1 << 20), "the image adds {added} bytes to its base, its files are {files}");
    println!("the image: {} MB on a base of {} MB", (added + engine.base_size()) / 1_000_000, engine.base_size() / 1_000_000);

    let kinds = engine.docker(&["run", "--rm", &engine.image, "plugin", "list"]);
    for kind in ["kafka ", "elasticsearch ", "file ", "generator ", "print ", "collect ", "split-words ", "session ", "cli ", "countdown "]
    {
        assert!(kinds.contains(&format!(" {kind}")), "no {kind}:\n{kinds}");
    }
    let shell = |script: &str| engine.try_docker(&["run", "--rm", "--entrypoint", "sh", &engine.image, "-c", script]);
    let id = shell("id -u; id -g; echo \"$HOME\"; touch here && ls");
    assert_eq!(String::from_utf8_lossy(&id.stdout), "10001\n10001\n/var/lib/standpipe\nhere\n");
    assert!(
        !shell("touch /opt/standpipe/plugins/libx.so || touch /etc/x || touch /usr/local/bin/x").status.success(),
        "a user may write there"
    );
    let certificates = shell("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt");
    assert!(String::from_utf8_lossy(&certificates.stdout).trim().parse::<u32>().unwrap() > 50, "{certificates:?}");

    // As whoever, without a disk to write on, without a network.
    let folder = &engine.distribution;
    let numbers = json!({ "connector": "generator", "with": { "count": 3, "fields": { "n": { "kind": "sequence" } } } });
    let pipeline = |source: Value| json!({ "name": "numbers", "sources": { "numbers": source }, "sinks": { "out": { "input": "numbers", "connector": "print" } } });
    folder.write("three.yaml", pipeline(numbers).to_string());
    let endless = json!({ "connector": "generator", "with": { "rate": 10, "fields": { "n": { "kind": "sequence" } } } });
    folder.write("endless.yaml", pipeline(endless).to_string());
    let mount = |name: &str| format!("{}:/{name}:ro", folder.at(name).display());
    let rights = ["--cap-drop", "ALL", "--network", "none", "--security-opt", "no-new-privileges"];
    let run = ["run", "--rm", "--read-only", "--user", "54321", "--tmpfs", "/tmp", "--volume", &mount("three.yaml")];
    let printed = engine.docker(&[&run[..], &rights, &[&engine.image, "run", "--quiet", "/three.yaml"]].concat());
    assert_eq!(printed, "{\"n\":0}\n{\"n\":1}\n{\"n\":2}");

    // As the container's first process, for which a signal without a handler is none.
    let run = [
        "run",
        "--detach",
        "--name",
        &engine.project,
        "--volume",
        &mount("endless.yaml"),
        &engine.image,
        "run",
        "--quiet",
        "/endless.yaml",
    ];
    engine.docker(&run);
    wait_until("the first row", PATIENCE, || engine.docker(&["logs", &engine.project]).contains("{\"n\":0}"));
    let begin = Instant::now();
    engine.docker(&["stop", "--time", "20", &engine.project]);
    assert_eq!(engine.inspect(&engine.project)["State"]["ExitCode"], 0);
    assert!(begin.elapsed() < GRACE, "{:?}", begin.elapsed());
}

/// The job manager's answer.
fn ask(engine: &Engine, path: &str, token: Option<&str>) -> (u16, Value) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(PATIENCE)).build().into();
    let mut request = agent.get(format!("http://127.0.0.1:{}{path}", engine.port("STANDPIPE_PORT")));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default())
}

/// `standpipe job ARGUMENTS` in the job manager's container.
fn job(engine: &Engine, arguments: &[&str]) -> String {
    engine.standpipe(&[&["job", "--jobmanager", "http://127.0.0.1:8081", "--token-file", TOKEN], arguments].concat())
}

/// Until the metrics job runs on both task managers and has written so many windows in all.
fn wait_for_windows(engine: &Engine, search: &OpenSearch, windows: u64) {
    wait_until("the job on both task managers", 2 * PATIENCE, || {
        let shown = job(engine, &["show", "signal-quality"]);
        shown.contains("RUNNING") && ["taskmanager-1", "taskmanager-2"].iter().all(|name| shown.contains(name))
    });
    wait_until("windows", 2 * PATIENCE, || count(search) >= windows);
}

/// Windows that there are.
fn count(search: &OpenSearch) -> u64 {
    search.count_of("standpipe-signal-windows-compose")
}

/// All documents of an index of the demo.
fn documents(search: &OpenSearch, sink: &str) -> Vec<Row> {
    search.documents_of(&format!("standpipe-{sink}-compose"))
}

#[test]
fn b22_b23_the_compose_file_runs_both_jobs_on_two_task_managers_and_goes_on_after_down_and_a_kill() {
    let _alone = alone();
    let Some(engine) = engine() else { return };
    engine.compose(&["config", "--quiet"]);
    engine.compose(&["up", "--detach", "--no-build", "metrics", "word-count"]);
    let search = OpenSearch::at(format!("http://127.0.0.1:{}", engine.port("ELASTICSEARCH_PORT")));

    // Word count: its rows are what its container has printed.
    wait_until("the end of word count", PATIENCE, || engine.container("word-count")["State"]["Status"] == "exited");
    let counts = engine.docker(&["logs", engine.container("word-count")["Id"].as_str().unwrap()]);
    let counts: String = counts.lines().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect();
    assert_eq!(engine.container("word-count")["State"]["ExitCode"], 0);
    assert_same_rows("word count", &rows(&counts), &read_rows(repository().join("examples/golden/word-count.jsonl")));

    // Nobody but this machine reaches it, and nobody without the token.
    for service in ["jobmanager", "taskmanager-1", "taskmanager-2", "kafka", "elasticsearch", "signals"] {
        let bindings = engine.container(service)["HostConfig"]["PortBindings"].take();
        for binding in bindings.as_object().into_iter().flatten().flat_map(|(_, binding)| binding.as_array().unwrap().clone()) {
            assert_eq!(binding["HostIp"], "127.0.0.1", "{service}");
        }
    }
    assert_eq!(ask(&engine, "/v1/jobs", None).0, 401);
    assert_eq!(ask(&engine, "/v1/jobs", Some("a-token-of-nobody-at-all")).0, 401);
    let token = engine.compose(&["exec", "--no-TTY", "jobmanager", "cat", "token"]);
    assert!(token.len() >= 32, "{}", token.len());
    assert_eq!(ask(&engine, "/v1/jobs", Some(&token)).0, 200);
    let mode = engine.compose(&["exec", "--no-TTY", "jobmanager", "stat", "--format", "%a %u", "token"]);
    assert_eq!(mode, "600 10001");

    wait_for_windows(&engine, &search, 5);
    let id = job_id(&engine, &token);

    // Down, and up again: everybody ends in time and well, and the same job goes on.
    let begin = Instant::now();
    engine.compose(&["stop"]);
    assert!(begin.elapsed() < GRACE, "{:?}", begin.elapsed());
    for service in ["jobmanager", "taskmanager-1", "taskmanager-2", "signals"] {
        assert_eq!(engine.container(service)["State"]["ExitCode"], 0, "{service}");
    }
    engine.compose(&["down"]);
    engine.compose(&["up", "--detach", "--no-build", "metrics"]);
    let before = count(&search);
    wait_for_windows(&engine, &search, before + 5);
    assert_eq!(job_id(&engine, &token), id, "it was deployed a second time");

    // A task manager that is killed: the job waits for slots, and goes on when they come.
    engine.compose(&["kill", "taskmanager-2"]);
    wait_until("the job waits for slots", PATIENCE, || job(&engine, &["show", "signal-quality"]).contains("needs 5, has 4"));
    engine.compose(&["up", "--detach", "--no-build", "taskmanager-2"]);
    let before = count(&search);
    wait_for_windows(&engine, &search, before + 5);

    // No more signals; what is in Kafka is processed, and open windows fire.
    engine.compose(&["stop", "signals"]);
    let log = Kafka { bootstrap: format!("localhost:{}", engine.port("KAFKA_PORT")) }.read("baseline_signal");
    let last = Truth::of(&log, &HashSet::new()).current;
    wait_until("the last signal of each baseline", PATIENCE, || {
        let mut found = documents(&search, "current-flag");
        found.sort_by_key(|row| row["baseline_id"].as_i64());
        found == last
    });
    job(&engine, &["stop", "signal-quality", "--drain"]);
    assert_truth(&search, &log);

    let check = Command::new("python3").arg(repository().join("docker/kibana/check.py")).arg(&search.url).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert_eq!(String::from_utf8_lossy(&check.stdout).lines().count(), 6, "a line for each panel");

    engine.compose(&["down", "--volumes"]);
    let label = format!("label=com.docker.compose.project={}", engine.project);
    for kind in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
        assert_eq!(engine.docker(&[kind, &["--quiet", "--filter", &label]].concat()), "", "{kind:?}");
    }
}

/// The metrics job's, of which there is one.
fn job_id(engine: &Engine, token: &str) -> String {
    let (status, overview) = ask(engine, "/v1/jobs/overview", Some(token));
    assert_eq!(status, 200, "{overview}");
    let jobs = overview["jobs"].as_array().unwrap().iter().filter(|job| job["name"] == "signal-quality");
    let ids: Vec<String> = jobs.map(|job| job["jid"].as_str().unwrap().to_owned()).collect();
    let [id] = &ids[..] else { panic!("{overview:#}") };
    id.clone()
}

/// What the documents must be, from the records of the log: as in `signals`, but by the clock, whose times are compared as texts.
#[derive(Default)]
struct Truth {
    /// By baseline and start.
    windows: BTreeMap<(i64, String), Window>,
    runs: Vec<Row>,
    current: Vec<Row>,
}

#[derive(Default)]
struct Window {
    values: Vec<f64>,
    flags: i64,
    /// Of its signals those that are late documents too.
    late: usize,
}

fn row(value: Value) -> Row {
    value.as_object().unwrap().clone()
}

impl Truth {
    fn of(log: &[Record], late: &HashSet<(i64, i64)>) -> Self {
        let mut truth = Self::default();
        let (mut lengths, mut current) = (BTreeMap::<i64, i64>::new(), BTreeMap::new());
        for record in log {
            let signal: Value = serde_json::from_str(&record.value).unwrap();
            let (baseline, value) = (signal["baselineId"].as_i64().unwrap(), signal["signalValue"].as_f64().unwrap());
            let (time, flag) = (signal["createTime"].as_str().unwrap().replace(' ', "T"), flag(record));
            current.insert(baseline, row(json!({ "baseline_id": baseline, "flag": flag, "create_time": format!("{time}Z") })));
            let length = lengths.entry(baseline).or_default();
            if flag == 1 {
                *length += 1;
            } else if *length > 0 {
                let run = json!({
                    "baseline_id": baseline, "run_length": *length, "end_time": format!("{time}Z"), "log_partition": record.partition, "log_offset": record.offset,
                });
                truth.runs.push(row(run));
                *length = 0;
            }
            let second: u32 = time[17..19].parse().unwrap();
            let window = truth.windows.entry((baseline, format!("{}{:02}Z", &time[..17], second / 15 * 15))).or_default();
            window.values.push(value);
            window.flags += flag;
            window.late += usize::from(late.contains(&(record.partition, record.offset)));
        }
        truth.current = current.into_values().collect();
        truth
    }
}

/// Every document is right. Signals that are late are in no window, but one that was late before a restart may have been in time after it: then it is in both.
fn assert_truth(search: &OpenSearch, log: &[Record]) {
    let place = |row: &Row| (row["log_partition"].as_i64().unwrap(), row["log_offset"].as_i64().unwrap());
    let late: HashSet<(i64, i64)> = documents(search, "late-signals").iter().map(place).collect();
    assert!(late.len() * 10 <= log.len(), "{} of {} signals are late, though each partition is in order", late.len(), log.len());
    let truth = Truth::of(log, &late);
    assert_same_rows("flags", &documents(search, "current-flag"), &truth.current);
    assert_same_rows("runs", &documents(search, "flag-runs"), &truth.runs);

    let mut found: BTreeMap<(i64, String), Row> = BTreeMap::new();
    for window in documents(search, "signal-windows") {
        let key = (window["baseline_id"].as_i64().unwrap(), window["window_start"].as_str().unwrap().to_owned());
        assert!(found.insert(key, window).is_none(), "a window is there twice");
    }
    for (key, window) in &truth.windows {
        let document = found.remove(key);
        let count = document.as_ref().map_or(0, |document| document["n"].as_u64().unwrap()) as usize;
        let whole = window.values.len();
        assert!((whole - window.late..=whole).contains(&count), "{key:?}: {count} signals of {whole}, {} of them late", window.late);
        let Some(document) = document.filter(|_| window.late == 0) else { continue };
        let number = |name: &str| document[name].as_f64().unwrap();
        let near =
            |name: &str, expected: f64| assert!((number(name) - expected).abs() < 1e-6, "{key:?} {name}: {document:?}, not {expected}");
        near("mean", window.values.iter().sum::<f64>() / whole as f64);
        near("min", window.values.iter().copied().fold(f64::MAX, f64::min));
        near("max", window.values.iter().copied().fold(f64::MIN, f64::max));
        near("flags", window.flags as f64);
    }
    assert!(found.is_empty(), "windows that no signal is in: {found:?}");
    println!("{} signals, {} windows, {} runs, {} late: all right", log.len(), truth.windows.len(), truth.runs.len(), late.len());
}
