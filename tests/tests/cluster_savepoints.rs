//! Savepoints, checkpoints and another parallelism on a session cluster: asked for by REST in Flink's words, also of a manager that is killed meanwhile, and gone on from by `run` and
//! by another submission.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;

use cluster_support::{COUNTS, Cluster, PATIENCE, SAFE, assert_exactly_once, start_manager};
use serde_json::{Value, json};
use standpipe_tests::{Signal, standpipe, wait_until};
use std::{fs, path::Path};

fn safe() -> String {
    format!("{COUNTS}{SAFE}")
}

fn location(outcome: &Value) -> String {
    outcome["location"].as_str().unwrap_or_else(|| panic!("{outcome:#}")).to_owned()
}

#[test]
fn a_savepoint_in_a_target_directory_is_all_that_run_and_another_submission_need() {
    let cluster = Cluster::start();
    let _task_manager = cluster.task_manager("only", 2);
    let id = cluster.submit(&cluster.bundle(&safe(), 2));
    cluster.taken(&id, 2);
    // Where nothing can be, and then the job goes on.
    cluster.folder.write("file", "");
    let path = format!("/jobs/{id}/savepoints");
    let (status, asked) = cluster.http("POST", &path, json!({"target-directory": cluster.folder.at("file/x")}).to_string().as_bytes());
    assert_eq!(status, 202, "{asked}");
    let failed = cluster.outcome(&path, &asked);
    let why = failed["failure-cause"]["stack-trace"].as_str().unwrap();
    assert!(why.contains("is no place for checkpoints"), "{failed:#}");
    let to = format!("file://{}", cluster.folder.at("kept").display());
    let trigger = "0123456789abcdef0123456789abcdef";
    let body = json!({"target-directory": to, "triggerId": trigger, "formatType": "CANONICAL"}).to_string();
    let (status, asked) = cluster.http("POST", &path, body.as_bytes());
    assert_eq!((status, &asked["request-id"]), (202, &json!(trigger)));
    // The client has not heard the answer, and asks again: it is one savepoint.
    assert_eq!(cluster.http("POST", &path, body.as_bytes()).0, 202);
    let taken = location(&cluster.outcome(&path, &asked));
    assert_eq!(fs::read_dir(cluster.folder.at("kept")).unwrap().count(), 1, "{taken}");
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
    // The job's own checkpoints are gone.
    fs::remove_dir_all(cluster.folder.at("ckpt")).unwrap();
    let mut bundle = cluster.bundle(&safe(), 1);
    bundle.options.restore = Some(taken.clone());
    let again = cluster.submit(&bundle);
    let restored = cluster.wait_for(&again, "its status", |job| job["status"]["checkpoints"]["restored"].is_u64());
    let number = restored["status"]["checkpoints"]["restored"].as_u64().unwrap();
    assert!(taken.contains(&format!("{number:08}-")), "{taken}");
    cluster.state(&again, "FINISHED");
    assert_exactly_once(&cluster.folder);
    // `run` takes it just so.
    cluster.folder.write("counts.yaml", safe().replace("DIR", cluster.folder.path().to_str().unwrap()));
    let run = standpipe(["run", "counts.yaml", "--restore", &taken]).in_directory(cluster.folder.path()).timeout(PATIENCE).finish();
    let run = run.code(0);
    assert!(run.stderr.contains("goes on from"), "{}", run.stderr);
    assert_exactly_once(&cluster.folder);
    // Nobody needs it any more.
    let (status, asked) = cluster.http("POST", "/v1/savepoint-disposal", json!({"savepoint-path": taken}).to_string().as_bytes());
    assert_eq!(status, 202, "{asked}");
    let disposed = cluster.outcome("/v1/savepoint-disposal", &asked);
    let path = taken.strip_prefix("file://").unwrap_or(&taken).to_owned();
    assert!(disposed["failure-cause"].is_null() && !Path::new(&path).exists(), "{disposed:#}");
    let (_, asked) = cluster.http("POST", "/savepoint-disposal", json!({"savepoint-path": taken}).to_string().as_bytes());
    let failed = cluster.outcome("/savepoint-disposal", &asked);
    assert!(failed["failure-cause"]["stack-trace"].as_str().is_some_and(|why| !why.is_empty()), "{failed:#}");
}

#[test]
fn a_checkpoint_is_taken_on_request_and_the_history_has_sizes_and_times() {
    let cluster = Cluster::start();
    let _task_manager = cluster.task_manager("only", 2);
    let id = cluster.submit(&cluster.bundle(&safe().replace("interval: 100ms", "interval: 1h"), 2));
    cluster.state(&id, "RUNNING");
    let path = format!("/v1/jobs/{id}/checkpoints");
    let (status, asked) = cluster.http("POST", &path, br#"{"checkpointType": "FULL"}"#);
    assert_eq!(status, 202, "{asked}");
    let number = cluster.outcome(&path, &asked)["checkpointId"].as_u64().unwrap();
    assert_eq!(cluster.http("POST", &path, br#"{"checkpointType": "x"}"#).0, 400);
    let (_, asked) = cluster.http("POST", &format!("/v1/jobs/{id}/savepoints"), b"");
    let savepoint = location(&cluster.outcome(&format!("/v1/jobs/{id}/savepoints"), &asked));
    let mut history = Value::Null;
    wait_until("the history", PATIENCE, || {
        history = cluster.get(&path);
        history["counts"]["completed"] == 2
    });
    let kinds: Vec<&Value> = history["history"].as_array().unwrap().iter().map(|one| &one["checkpoint_type"]).collect();
    assert_eq!(kinds, ["SAVEPOINT", "CHECKPOINT"], "{history:#}");
    assert_eq!(
        (&history["latest"]["completed"]["id"], &history["latest"]["savepoint"]["external_path"]),
        (&json!(number), &json!(savepoint))
    );
    let newest = &history["history"][0];
    assert!(newest["state_size"].as_u64().unwrap() > 0 && newest["trigger_timestamp"].as_u64().unwrap() > 0, "{newest:#}");
    assert_eq!(history["counts"], json!({"restored": 0, "total": 2, "in_progress": 0, "completed": 2, "failed": 0}));
    cluster.state(&id, "FINISHED");
    assert!(cluster.get(&path)["history"].as_array().unwrap().len() >= 2, "it outlives the job");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn what_was_asked_of_a_job_outlives_the_manager() {
    let mut cluster = Cluster::start();
    let _task_manager = cluster.task_manager("only", 2);
    let id = cluster.submit(&cluster.bundle(&safe(), 2));
    cluster.taken(&id, 2);
    let path = format!("/v1/jobs/{id}/savepoints");
    let (_, answered) = cluster.http("POST", &path, b"{}");
    let before = cluster.outcome(&path, &answered);
    let (status, open) = cluster.http("POST", &format!("/v1/jobs/{id}/stop"), b"{}");
    assert_eq!(status, 202, "{open}");
    // It may have been answered by now, and may not.
    cluster.manager.as_mut().unwrap().signal(Signal::KILL);
    cluster.manager = Some(start_manager(&cluster.folder, cluster.port));
    assert_eq!(cluster.outcome(&path, &answered), before);
    let after = location(&cluster.outcome(&path, &open));
    assert!(after.ends_with("-savepoint.json") && Path::new(&after).exists(), "{after}");
    cluster.state(&id, "FINISHED");
    let mut bundle = cluster.bundle(&safe(), 2);
    bundle.options.restore = Some(after);
    let again = cluster.submit(&bundle);
    cluster.state(&again, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn a_job_is_rescaled_through_a_savepoint_and_every_row_comes_once() {
    let cluster = Cluster::start();
    let _three = cluster.task_manager("three", 3);
    let _two = cluster.task_manager("two", 2);
    let id = cluster.submit(&cluster.bundle(&safe(), 2));
    cluster.taken(&id, 2);
    let url = format!("http://127.0.0.1:{}", cluster.port);
    let rescale = |to: &str| standpipe(["job", "rescale", &id, to, "--jobmanager", &url]).timeout(PATIENCE).finish();
    let refused = rescale("9").one_error(1);
    assert!(refused.contains("needs 9, has 5"), "{refused}");
    rescale("5").success();
    let grown = cluster.wait_for(&id, "five subtasks", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    let slots: u64 = grown["workers"].as_array().unwrap().iter().map(|worker| worker["slots"].as_u64().unwrap()).sum();
    assert_eq!((slots, &grown["restarts"]), (5, &json!(0)), "{grown:#}");
    cluster.taken(&id, 2);
    // What the job itself counts for Prometheus.
    assert_eq!(cluster.job(&id)["status"]["restarts"], 0, "a rescale is no failure");
    // By its handle, through the deployment mode.
    let handle = json!({"deployment_mode": "session", "jobid": id, "rest.address": "127.0.0.1", "rest.port": cluster.port});
    let handle = cluster.folder.write("handle.json", handle.to_string());
    let by_handle = |to: &str| standpipe(["deployment", "rescale", to, "--handle"]).args([&handle]).timeout(PATIENCE).finish();
    let refused = by_handle("9").one_error(3);
    assert!(refused.contains("needs 9, has 5"), "{refused}");
    by_handle("2").success();
    cluster.wait_for(&id, "two subtasks", |job| job["attempt"] == 2 && job["state"] == "RUNNING" && job["slots"] == 2);
    cluster.taken(&id, 2);
    // As a client of Flink's would.
    let path = format!("/v1/jobs/{id}/rescaling");
    let (status, asked) = cluster.http("PATCH", &format!("{path}?parallelism=1"), b"");
    assert_eq!(status, 202, "{asked}");
    location(&cluster.outcome(&path, &asked));
    cluster.wait_for(&id, "one subtask", |job| job["attempt"] == 3 && job["slots"] == 1);
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
    let (status, refused) = cluster.http("PATCH", &format!("{path}?parallelism=2"), b"");
    assert_eq!(status, 409, "{refused}");
    assert_eq!(cluster.http("PATCH", &format!("{path}?parallelism=x"), b"").0, 400);
}

#[test]
fn a_job_of_a_cluster_is_listed_shown_and_stopped_from_the_command_line() {
    let cluster = Cluster::start();
    let _task_manager = cluster.task_manager("only", 2);
    let id = cluster.submit(&cluster.bundle(&safe(), 2));
    cluster.taken(&id, 2);
    let url = format!("http://127.0.0.1:{}", cluster.port);
    let job = |arguments: &[&str]| standpipe(["job"]).args(arguments).args(["--jobmanager", &url]).timeout(PATIENCE).finish();
    let list = job(&["list"]).code(0).stdout;
    assert!(list.contains("counts") && list.contains(&id[..8]) && list.contains("RUNNING"), "{list}");
    let shown = job(&["show", "counts", "--format", "json"]).code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["jid"], id);
    let shown = job(&["show", &id[..8]]).code(0).stdout;
    assert!(shown.contains("RUNNING") && shown.contains("sources.ticks"), "{shown}");
    let savepoint = job(&["savepoint", "counts"]).code(0).stdout;
    assert!(Path::new(savepoint.trim()).exists(), "{savepoint}");
    let logs = job(&["logs", "counts"]).code(0).stdout;
    assert!(logs.contains("==> process 0"), "{logs}");
    let error = job(&["show", "nobody"]).one_error(2);
    assert!(error.contains("counts"), "{error}");
    let to = cluster.folder.at("kept");
    let stopped = job(&["stop", "counts", "--to", to.to_str().unwrap()]).code(0).stdout;
    assert!(stopped.trim().starts_with(to.to_str().unwrap()) && Path::new(stopped.trim()).exists(), "{stopped}");
    cluster.state(&id, "FINISHED");
    let id = cluster.submit(&cluster.bundle(&COUNTS.replace("DIR/", "DIR/x-"), 2));
    cluster.state(&id, "RUNNING");
    job(&["cancel", &id]).success();
    cluster.state(&id, "CANCELED");
    let error = standpipe(["job", "list", "--jobmanager", "http://127.0.0.1:1"]).timeout(PATIENCE).finish().one_error(3);
    assert!(error.contains("127.0.0.1:1"), "{error}");
}
