//! A session cluster: a job manager and task managers as processes, asked by plain HTTP. Jobs wait for slots, run over several task managers, survive the loss of any process,
//! and do not know of each other.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;

use cluster_support::{COUNTS, Cluster, PATIENCE, SAFE, assert_exactly_once, start_manager};
use serde_json::{Value, json};
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use standpipe_tests::{Folder, Signal, binary, fixture_plugin, free_port, processes, standpipe, wait_until};
use std::{fs, path::PathBuf, process::Command};

#[test]
fn a_job_waits_for_slots_says_so_and_runs_on_two_task_managers_when_capacity_joins() {
    let cluster = Cluster::start();
    let _three = cluster.task_manager("three", 3);
    let id = cluster.submit(&cluster.bundle(COUNTS, 5));
    let waiting = cluster.job(&id);
    assert_eq!((&waiting["state"], &waiting["waits"]), (&"CREATED".into(), &"needs 5, has 3".into()), "{waiting:#}");
    let two = cluster.task_manager("two", 2);
    let running = cluster.state(&id, "RUNNING");
    let slots: Vec<&Value> = running["workers"].as_array().unwrap().iter().map(|worker| &worker["slots"]).collect();
    assert_eq!(slots, [3, 2]);
    assert_eq!(cluster.get("/overview")["slots-available"], 0);
    assert_eq!(processes(&two).into_keys().collect::<Vec<_>>(), [1]);
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
    let overview = cluster.get("/v1/overview");
    assert_eq!((&overview["slots-available"], &overview["jobs-finished"]), (&json!(5), &json!(1)), "{overview}");
}

#[test]
fn a_task_manager_that_is_killed_loses_nothing_and_its_work_goes_elsewhere() {
    let cluster = Cluster::start();
    let mut first = cluster.task_manager("first", 3);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 3));
    cluster.state(&id, "RUNNING");
    let _second = cluster.task_manager("second", 3);
    cluster.taken(&id, 5);
    first.signal(Signal::KILL);
    let again = cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    assert_eq!(again["restarts"], 1);
    let exceptions = cluster.get(&format!("/jobs/{id}/exceptions"));
    let why = exceptions["root-exception"].as_str().unwrap();
    assert!(why.contains("has not been heard of for 3 s"), "{why}");
    cluster.wait_for(&id, "the job's own count", |job| job["status"]["restarts"] == 1);
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn a_manager_that_is_killed_comes_back_and_finds_its_job_running() {
    let mut cluster = Cluster::start();
    let task_manager = cluster.task_manager("only", 3);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 3));
    cluster.taken(&id, 2);
    let before = processes(&task_manager);
    cluster.manager.as_mut().unwrap().signal(Signal::KILL);
    cluster.manager = Some(start_manager(&cluster.folder, cluster.port));
    let found = cluster.wait_for(&id, "its status", |job| job["status"]["checkpoints"]["completed"].as_u64().is_some());
    assert_eq!((&found["state"], &found["attempt"], &found["restarts"]), (&"RUNNING".into(), &json!(0), &json!(0)), "{found:#}");
    assert_eq!((before.len(), processes(&task_manager)), (1, before));
    let finished = cluster.state(&id, "FINISHED");
    assert_eq!(finished["attempt"], 0);
    assert_exactly_once(&cluster.folder);
    // A second one on the same data would not know what the first one does.
    let error = standpipe(["jobmanager", "--bind", "127.0.0.1:0", "--data"]).args([cluster.folder.at("manager")]).finish().one_error(3);
    assert!(error.contains("another job manager uses this data"), "{error}");
    let url = format!("http://127.0.0.1:{}", cluster.port);
    let other = standpipe(["taskmanager", "--slots", "1", "--jobmanager", &url, "--data"]).args([cluster.folder.at("only")]);
    let refused = other.finish().code(3);
    assert!(refused.stderr.contains("another task manager uses this data"), "{}", refused.stderr);
}

#[test]
fn workers_end_when_the_manager_is_silent_for_a_lease_and_begin_again_when_it_is_back() {
    let mut cluster = Cluster::start();
    let task_manager = cluster.task_manager("only", 3);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 3));
    cluster.taken(&id, 3);
    cluster.manager.as_mut().unwrap().signal(Signal::KILL);
    wait_until("the end of the worker", PATIENCE, || processes(&task_manager).is_empty());
    cluster.manager = Some(start_manager(&cluster.folder, cluster.port));
    let again = cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    assert!(again["restarts"] == 1, "{again:#}");
    let why = cluster.exceptions(&id);
    assert!(why.len() == 1 && why[0].contains("has not heard of the job manager for too long"), "{why:?}");
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn a_plugin_that_aborts_ends_its_own_job_alone_and_one_that_panics_is_named() {
    let cluster = Cluster::start();
    let task_manager = cluster.task_manager("only", 3);
    let good = cluster.submit(&cluster.bundle(COUNTS, 2));
    cluster.state(&good, "RUNNING");
    let before = processes(&task_manager);
    // The plugin comes with the bundle, under a name of its own.
    let plugin = cluster.put("libtrouble.so", &fs::read(fixture_plugin()).unwrap());
    let bad = |how: &str| {
        let source = format!("connector: bad, with: {{at: poll, how: {how}, after: 5}}");
        let pipeline = format!("name: bad\nsources:\n  s: {{{source}}}\nsinks:\n  out: {{input: s, connector: print, format: json}}\n");
        let bundle = Bundle { name: "bad".to_owned(), plugins: vec![plugin.clone()], ..cluster.bundle(&pipeline, 1) };
        let id = cluster.submit(&bundle);
        let failed = cluster.wait_for(&id, "its end", |job| job["state"] == "FAILED");
        (id, failed["why"].as_str().unwrap().to_owned())
    };
    let (_, why) = bad("abort");
    assert!(why.contains("was killed by signal 6"), "{why}");
    let (id, why) = bad("panic");
    assert!(why.contains("as asked, in poll"), "{why}");
    let log = cluster.text(&format!("/v1/jobs/{id}/logs"));
    assert!(log.contains("==> process 0 on 127.0.0.1") && log.contains("as asked, in poll") && log.contains("{\"number\""), "{log}");
    assert_eq!(processes(&task_manager), before);
    assert_eq!(cluster.state(&good, "FINISHED")["attempt"], 0);
    assert_exactly_once(&cluster.folder);
}

#[test]
fn a_task_manager_that_is_stopped_gives_its_work_back_at_once() {
    let cluster = Cluster::start();
    let mut first = cluster.task_manager("first", 2);
    // No restart strategy: it is no failure.
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}checkpoint: {{interval: 100ms, dir: DIR/ckpt}}\n"), 2));
    cluster.taken(&id, 3);
    let _second = cluster.task_manager("second", 2);
    first.signal(Signal::TERM);
    first.wait().success();
    let again = cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    assert_eq!(again["restarts"], 0, "{again:#}");
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

/// Ends a cluster that is no child of the test, also when the test fails.
struct Stop(PathBuf);

impl Drop for Stop {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(&self.0).output());
    }
}

#[test]
fn a_cluster_of_this_machine_is_started_and_stopped_and_its_job_goes_on() {
    let (folder, port) = (Folder::new(), free_port());
    let text = port.to_string();
    let cluster = |arguments: &[&str]| standpipe(["cluster"]).args(arguments).args(["--data".into(), folder.at("data")]).timeout(PATIENCE);
    let _stop = Stop(folder.at("data"));
    let started = cluster(&["start", "--slots", "2", "--port", &text]).finish().code(0);
    assert_eq!(started.stdout, format!("http://127.0.0.1:{port}\n"));
    let error = cluster(&["start", "--slots", "2", "--port", &text]).finish().one_error(2);
    assert!(error.contains("a cluster runs already"), "{error}");
    let asked = Cluster { manager: None, port, folder: Folder::new() };
    let id = asked.submit(&asked.bundle(&format!("{COUNTS}{SAFE}"), 2));
    asked.taken(&id, 2);
    cluster(&["stop"]).finish().success();
    let error = cluster(&["stop"]).finish().one_error(2);
    assert!(error.contains("no cluster runs"), "{error}");
    _ = cluster(&["start", "--slots", "2", "--port", &text]).finish().code(0);
    let finished = asked.state(&id, "FINISHED");
    assert_eq!((&finished["attempt"], &finished["restarts"]), (&json!(1), &json!(0)), "{finished:#}");
    cluster(&["stop"]).finish().success();
    assert_exactly_once(&asked.folder);
}

#[test]
fn whoever_has_no_token_is_not_answered() {
    let folder = Folder::new();
    folder.write("token", "0123456789abcdef-secret\n");
    folder.write("short", "x\n");
    let port = free_port();
    let bind = format!("127.0.0.1:{port}");
    let manager = |token: &str| {
        standpipe(["jobmanager", "--bind", &bind, "--data"]).args([folder.at("manager"), "--token-file".into(), folder.at(token)])
    };
    let error = manager("short").finish().one_error(2);
    assert!(error.contains("at least 16 characters"), "{error}");
    let mut running = manager("token").start();
    running.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http://"));
    let url = format!("http://{bind}");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    assert_eq!(agent.get(format!("{url}/overview")).call().unwrap().status(), 401);
    assert_eq!(
        agent.get(format!("{url}/overview")).header("Authorization", "Bearer 0123456789abcdef-secret").call().unwrap().status(),
        200
    );
    let worker = |token: &[&str]| {
        let arguments = ["taskmanager", "--slots", "1", "--jobmanager", &url, "--data"];
        standpipe(arguments).args([folder.at("worker")]).args(token).in_directory(folder.path()).timeout(PATIENCE)
    };
    let refused = worker(&[]).finish().code(2);
    assert!(refused.stderr.contains("Authorization: Bearer TOKEN"), "{}", refused.stderr);
    let mut task_manager = worker(&["--token-file", "token", "--log-level", "info"]).start();
    task_manager.wait_until("the task manager", PATIENCE, |run| run.stderr().contains("slots are with the job manager"));
}

#[test]
fn a_job_is_cancelled_and_another_one_stopped_with_a_savepoint() {
    let cluster = Cluster::start();
    let task_manager = cluster.task_manager("only", 2);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 2));
    cluster.taken(&id, 2);
    let (status, asked) = cluster.http("POST", &format!("/v1/jobs/{id}/stop"), br#"{"drain": false}"#);
    assert_eq!(status, 202, "{asked}");
    cluster.state(&id, "FINISHED");
    let done = cluster.outcome(&format!("/v1/jobs/{id}/savepoints"), &asked);
    let location = done["location"].as_str().unwrap();
    assert!(location.starts_with(cluster.folder.path().to_str().unwrap()) && location.ends_with("-savepoint.json"), "{location}");
    // Where there are checkpoints it does not begin with nothing, unless it is told to; from there to the end.
    let mut bundle = cluster.bundle(&format!("{COUNTS}{SAFE}"), 2);
    let refused = cluster.submit(&bundle);
    wait_until("the refusal", PATIENCE, || cluster.job(&refused)["state"] == "FAILED");
    assert!(cluster.job(&refused)["why"].as_str().unwrap().contains("there are checkpoints in"), "{}", cluster.job(&refused));
    bundle.options.restore = Some("latest".to_owned());
    let id = cluster.submit(&bundle);
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
    let id = cluster.submit(&Bundle {
        options: Options { parallelism: Some(2), ..Options::default() },
        ..cluster.bundle(&COUNTS.replace("DIR/", "DIR/x-"), 2)
    });
    cluster.state(&id, "RUNNING");
    assert_eq!(cluster.http("PATCH", &format!("/jobs/{id}?mode=cancel"), b"{}").0, 202);
    cluster.state(&id, "CANCELED");
    assert!(processes(&task_manager).is_empty());
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let cluster = Cluster::start();
    let bundle = cluster.bundle("name: counts\nsources: {}\n", 1);
    let (status, value) = cluster.post(&bundle);
    assert_eq!(status, 400, "{value}");
    assert!(value["errors"].as_array().unwrap().iter().any(|error| error.as_str().unwrap().contains("counts.yaml")), "{value}");
    let hash = Hash::of(b"nobody has sent this");
    let (status, value) = cluster.post(&Bundle { plugins: vec![File { path: "x.so".to_owned(), hash, bytes: 1 }], ..bundle.clone() });
    assert_eq!((status, &value["missing"]), (409, &json!([hash.to_string()])));
    let (status, value) = cluster.http("POST", "/v1/blobs/missing", json!({"hashes": [hash, bundle.pipeline.hash]}).to_string().as_bytes());
    assert_eq!((status, value), (200, json!({"missing": [hash]})));
    assert_eq!(cluster.http("PUT", &format!("/v1/blobs/{hash}"), b"something else").0, 400);
    assert_eq!(cluster.http("PUT", "/v1/blobs/..%2F..%2Fetc", b"x").0, 400);
    let escaping = File { path: "../x".to_owned(), ..bundle.pipeline.clone() };
    assert_eq!(cluster.post(&Bundle { resources: vec![escaping], ..bundle.clone() }).0, 400);
    // A plugin that is none.
    let plugin = cluster.put("libx.so", b"no library");
    let (status, value) = cluster.post(&Bundle { plugins: vec![plugin], ..cluster.bundle(COUNTS, 1) });
    assert!(status == 400 && value["errors"][0].as_str().unwrap().contains("libx.so"), "{status} {value}");
    for path in ["/v1/jobs/00000000000000000000000000000000", "/nothing", "/taskmanagers/x"] {
        assert_eq!(cluster.http("GET", path, b"").0, 404, "{path}");
    }
    let error = standpipe(["jobmanager", "--bind", "0.0.0.0:0", "--data"]).args([cluster.folder.at("other")]).finish().one_error(2);
    assert!(error.contains("give --token-file"), "{error}");
    let port = cluster.port.to_string();
    let error = standpipe(["jobmanager", "--bind", &format!("127.0.0.1:{port}"), "--data"])
        .args([cluster.folder.at("another")])
        .finish()
        .one_error(3);
    assert!(error.contains(&port), "{error}");
}
