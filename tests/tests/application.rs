//! A job manager that has one job alone (`jobmanager --application`): how it ends with the job, what it does without its files, and how another one with nothing of its own takes
//! its place.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod application_support;
mod cluster_support;

use application_support::{Application, JOB, file};
use cluster_support::{COUNTS, PATIENCE, SAFE, assert_exactly_once};
use serde_json::{Value, json};
use standpipe_cluster::bundle::Bundle;
use standpipe_tests::{Running, Signal, free_port, processes, read_rows, standpipe, wait_until};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

/// Few rows, into a file.
const SHORT: &str = "name: short
sources:
  numbers: {connector: generator, with: {count: 100, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: file, with: {path: DIR/out.jsonl}, format: json}
";
/// Without an end.
const ENDLESS: &str = "name: endless
sources:
  numbers: {connector: generator, with: {rate: 200, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: file, with: {path: DIR/out.jsonl}, format: json}
";
const CHECKPOINTS: &str = "checkpoint: {interval: 100ms, dir: DIR/ckpt}\n";

#[test]
fn a_job_that_finishes_ends_its_manager_and_is_the_only_one() {
    let mut application = Application::new(COUNTS, 3);
    application.start("manager");
    wait_until("the manager is ready", PATIENCE, || application.cluster.http("GET", "/readyz", b"").0 == 200);
    let waiting = application.wait_for("the job", |job| job["state"] == "CREATED");
    assert_eq!(waiting["waits"], "needs 3, has 0");
    let cluster = &application.cluster;
    assert_eq!(cluster.http("GET", "/healthz", b""), (200, json!({"status": "ok"})));
    // Another job, also one without an id, and a file of none; its own is known.
    let own = serde_json::to_vec(&application.bundle()).unwrap();
    let other = serde_json::to_vec(&Bundle { name: "other".to_owned(), ..application.bundle() }).unwrap();
    let query = |id: &str| format!("/v1/jobs?jobid={id}");
    let foreign = format!("/v1/blobs/{}", file("x", b"foreign").hash);
    for (method, path, body) in
        [("POST", "/v1/jobs".to_owned(), &own), ("POST", query(&"f".repeat(32)), &other), ("PUT", foreign, &b"foreign".to_vec())]
    {
        let (status, value) = cluster.http(method, &path, body);
        let expected = json!({"errors": [format!("this job manager runs the job counts ({JOB}) alone")]});
        assert_eq!((status, value), (409, expected), "{method} {path}");
    }
    assert_eq!(cluster.http("POST", &query(JOB), &own), (202, json!({"jobid": JOB})));
    let mut task_manager = cluster.task_manager("worker", 3);
    let (finished, ended) = application.ends(0, "FINISHED");
    assert!(finished.stdout.is_empty() && ended.get("cause").is_none() && ended.get("savepoint").is_none(), "{finished:?}");
    assert_exactly_once(application.folder());
    // The manager is gone, and knew that all had ended: nothing is wrong.
    task_manager.signal(Signal::TERM);
    let said = task_manager.wait().code(0).stderr;
    assert!(!said.contains("does not know that its work has ended"), "{said}");
}

#[test]
fn a_job_that_fails_says_why_and_the_exit_code_that_it_has() {
    let missing = SHORT.replace(
        "{connector: generator, with: {count: 100, fields: {n: {kind: sequence}}}}",
        "{connector: file, with: {path: DIR/none.jsonl}, format: json, schema: {n: int64}}",
    );
    let mut application = Application::new(&missing, 1);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    let (finished, ended) = application.ends(20, "FAILED");
    assert!(ended["cause"].as_str().unwrap().contains("none.jsonl"), "{ended}");
    assert!(finished.stderr.contains("error: the job has failed: ") && finished.stderr.contains("none.jsonl"), "{}", finished.stderr);
    // What cannot even be planned.
    let mut application = Application::new(&SHORT.replace("generator", "generatr"), 1);
    application.start("manager");
    let (_, ended) = application.ends(20, "FAILED");
    assert!(ended["cause"].as_str().unwrap().contains("did you mean \"generator\"?"), "{ended}");
}

#[test]
fn a_job_that_is_cancelled_is_not_begun_again_by_a_manager_that_has_nothing() {
    let mut application = Application::new(&format!("{ENDLESS}{CHECKPOINTS}"), 1);
    application.start("manager");
    let task_manager = application.cluster.task_manager("worker", 1);
    application.runs();
    assert_eq!(application.cluster.http("PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"), b"").0, 202);
    let (_, ended) = application.ends(21, "CANCELED");
    // It was replaced before anybody saw how it had ended.
    fs::remove_file(application.folder().at("ended.json")).unwrap();
    fs::remove_file(application.folder().at("asked")).unwrap();
    let again = application.manager("another").finish().code(21);
    assert!(again.stderr.contains("the job had ended already"), "{}", again.stderr);
    assert_eq!((application.ended(), application.asked()[0]["ended"].clone()), (ended.clone(), ended));
    assert!(processes(&task_manager).is_empty());
}

#[test]
fn a_job_that_is_stopped_says_where_its_savepoint_is() {
    let mut application = Application::new(&format!("{ENDLESS}{CHECKPOINTS}"), 1);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    application.taken(1);
    let (status, asked) = application.cluster.http("POST", &format!("/v1/jobs/{JOB}/stop"), b"{}");
    assert_eq!(status, 202, "{asked}");
    // Whoever waits hears it before the manager goes.
    let outcome = application.cluster.outcome(&format!("/v1/jobs/{JOB}/savepoints"), &asked);
    let (_, ended) = application.ends(0, "FINISHED");
    assert_eq!(ended["savepoint"], outcome["location"]);
    assert!(ended["savepoint"].as_str().unwrap().ends_with("-savepoint.json"), "{ended}");
    assert!(!read_rows(application.folder().at("out.jsonl")).is_empty());
}

/// The manager is killed, and another one takes its place that has nothing of its own.
fn is_replaced(mut application: Application, task_manager: &Running) {
    application.taken(3);
    let before = processes(task_manager);
    assert_eq!(before.len(), 1);
    application.running().signal(Signal::KILL);
    drop(application.cluster.manager.take().unwrap().wait());
    application.start("another");
    application.wait_for("what may still run is given its time", |job| job["state"] == "RESTARTING");
    let is_former = |pid: &i32| before.values().any(|former| former == pid);
    wait_until("what the former one began is ended", PATIENCE, || !processes(task_manager).values().any(is_former));
    let again = application.wait_for("it runs again", |job| job["state"] == "RUNNING");
    assert_eq!((&again["attempt"], &again["restarts"]), (&json!(1), &json!(0)), "{again:#}");
    application.wait_for("it goes on", |job| job["status"]["checkpoints"]["restored"].as_u64().is_some_and(|number| number >= 3));
    application.ends(0, "FINISHED");
    assert_exactly_once(application.folder());
}

#[test]
fn a_manager_with_nothing_goes_on_from_the_jobs_own_checkpoint() {
    let mut application = Application::new(&format!("{COUNTS}{SAFE}"), 4);
    application.start("manager");
    let first = application.cluster.task_manager("first", 2);
    let _second = application.cluster.task_manager("second", 2);
    is_replaced(application, &first);
}

#[test]
fn a_manager_that_does_not_see_the_checkpoints_hears_of_the_job_from_task_managers() {
    // In a folder of the task manager's own.
    let own = SAFE.replace("DIR/ckpt", "own-ckpt");
    let mut application = Application::new(&format!("{COUNTS}{own}"), 4);
    application.start("manager");
    let only = application.cluster.task_manager("only", 4);
    is_replaced(application, &only);
}

#[test]
fn a_job_keeps_the_parallelism_that_it_was_given() {
    let mut application = Application::new(&format!("{ENDLESS}{CHECKPOINTS}"), 1);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 3);
    application.taken(1);
    let path = format!("/v1/jobs/{JOB}/rescaling");
    let (status, asked) = application.cluster.http("PATCH", &path, b"{\"parallelism\": 3}");
    assert_eq!(status, 202, "{asked}");
    application.cluster.outcome(&path, &asked);
    application.wait_for("it goes on", |job| job["state"] == "RUNNING" && job["slots"] == 3);
    let kept = application.folder().at(&format!("ckpt/endless/runs/{JOB}/parallelism"));
    wait_until("it is kept", PATIENCE, || kept.exists());
    application.running().signal(Signal::KILL);
    drop(application.cluster.manager.take().unwrap().wait());
    application.start("another");
    application.wait_for("it goes on", |job| job["state"] == "RUNNING" && job["slots"] == 3);
    application.cluster.http("PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"), b"");
    application.ends(21, "CANCELED");
}

#[test]
fn files_that_are_missing_are_sent_and_the_next_manager_has_them() {
    let mut application = Application::new(&format!("{COUNTS}{SAFE}"), 2);
    let large: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 253) as u8).collect();
    let notes = file("notes.bin", &large);
    application.describe(&Bundle { resources: vec![notes.clone()], ..application.bundle() });
    application.start("manager");
    let asked = json!({"hashes": application.bundle().files().map(|file| file.hash).collect::<Vec<_>>()});
    let missing = application.cluster.http("POST", "/v1/blobs/missing", asked.to_string().as_bytes());
    assert_eq!(missing, (200, json!({"missing": [notes.hash]})), "what is here is not asked for");
    assert_eq!(application.cluster.http("GET", "/readyz", b"").0, 200);
    assert_eq!(application.job(), None);
    application.cluster.put("notes.bin", &large);
    let _task_manager = application.cluster.task_manager("worker", 2);
    application.taken(2);
    application.running().signal(Signal::KILL);
    drop(application.cluster.manager.take().unwrap().wait());
    application.start("another");
    let missing = application.cluster.http("POST", "/v1/blobs/missing", asked.to_string().as_bytes());
    assert_eq!(missing, (200, json!({"missing": []})));
    application.ends(0, "FINISHED");
    assert_exactly_once(application.folder());
    let names = |path: &str| {
        let all = fs::read_dir(application.folder().at(path)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        all.collect::<BTreeSet<_>>()
    };
    let runs = format!("ckpt/counts/runs/{JOB}");
    assert!(names(&runs).iter().eq(["ended.json", "managers"]), "what was sent is not needed any more: {:?}", names(&runs));
    assert!(names(&format!("{runs}/managers")).iter().eq(["1", "2"]), "each manager has taken the job");
}

#[test]
fn what_was_sent_is_kept_also_where_the_jobs_first_process_makes_the_folder() {
    let mut application = Application::new(&format!("{ENDLESS}{CHECKPOINTS}"), 1);
    fs::remove_dir(application.folder().at("ckpt")).unwrap();
    let notes = file("notes.bin", b"of a client");
    application.describe(&Bundle { resources: vec![notes.clone()], ..application.bundle() });
    application.start("manager");
    wait_until("it waits", PATIENCE, || application.cluster.http("GET", "/readyz", b"").0 == 200);
    application.cluster.put("notes.bin", b"of a client");
    let _task_manager = application.cluster.task_manager("worker", 1);
    application.taken(1);
    let kept = application.folder().at(&format!("ckpt/endless/runs/{JOB}/{}", notes.hash.digits()));
    wait_until("it is kept", PATIENCE, || kept.exists());
    application.running().signal(Signal::KILL);
    drop(application.cluster.manager.take().unwrap().wait());
    application.start("another");
    application.wait_for("it goes on", |job| job["status"]["checkpoints"]["restored"].is_u64());
    application.cluster.http("PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"), b"");
    application.ends(21, "CANCELED");
}

#[test]
fn a_manager_that_another_one_has_followed_ends_and_cleans_nothing_up() {
    let mut application = Application::new(&format!("{ENDLESS}{CHECKPOINTS}"), 1);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    application.taken(1);
    // As another one does that takes the job.
    let claims = application.folder().at(&format!("ckpt/endless/runs/{JOB}/managers"));
    fs::write(claims.join("2"), "7").unwrap();
    application.cluster.http("PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"), b"");
    let finished = application.cluster.manager.take().unwrap().wait().code(3);
    assert!(finished.stderr.contains("another job manager has taken the job since"), "{}", finished.stderr);
    assert!(!application.folder().at("ended.json").exists() && application.asked().is_empty());
    assert!(!claims.with_file_name("ended.json").exists());
}

#[test]
fn files_that_nobody_sends_are_named() {
    let mut application = Application::new(SHORT, 1).with(&["--application-timeout", "500ms"]);
    let (one, two) = (file("data/one.csv", b"1"), file("data/two.csv", b"22"));
    application.describe(&Bundle { resources: vec![one.clone(), two.clone()], ..application.bundle() });
    application.blob("data/two.csv", b"22");
    // A blob with another content than its name says is as good as none.
    fs::write(application.folder().at(&format!("bundle/blobs/{}", one.hash.digits())), "changed").unwrap();
    application.start("manager");
    let (finished, ended) = application.ends(20, "FAILED");
    let cause = ended["cause"].as_str().unwrap();
    assert!(
        cause.contains("nobody has sent them within 0.5 s") && cause.contains(&format!("data/one.csv ({}, 1 bytes)", one.hash)),
        "{cause}"
    );
    assert!(!cause.contains("two.csv"), "{cause}");
    assert!(finished.stderr.contains("data/one.csv: ") && finished.stderr.contains("is not taken for it"), "{}", finished.stderr);
}

#[test]
fn plugins_are_those_of_the_distribution_whatever_they_are_called() {
    let mut application = Application::new(SHORT, 1);
    let folder = application.folder();
    folder.write("short.yaml", SHORT.replace("DIR", folder.path().to_str().unwrap()));
    let deployed = standpipe(["deploy", "short.yaml", "-D", "deployment_mode=cli"]).in_directory(folder.path()).finish().code(0);
    let handle: Value = serde_json::from_str(&deployed.stdout).unwrap();
    let written = folder.at(handle["bundle"].as_str().unwrap_or_else(|| panic!("{handle}")));
    let bundle: Bundle = serde_json::from_slice(&fs::read(written.join("bundle.json")).unwrap()).unwrap();
    assert!(bundle.plugins.len() >= 2, "{bundle:?}");
    let port = format!("rest.port={}", application.cluster.port);
    let another = standpipe(["deploy", "short.yaml", "-D", "rest.address=127.0.0.1", "-D", &port]).in_directory(folder.path());
    for file in [&bundle.pipeline].into_iter().chain(&bundle.resources) {
        assert_eq!(application.blob(&file.path, &fs::read(written.join(&file.path)).unwrap()), *file);
    }
    application.describe(&bundle);
    application.start("manager");
    // Whoever takes it for a session cluster hears what it is, also with a job whose files it has.
    wait_until("it has the job", PATIENCE, || application.job().is_some());
    let refused = another.finish().one_error(3);
    assert!(refused.ends_with(&format!("refuses: this job manager runs the job short ({JOB}) alone")), "{refused}");
    let _task_manager = application.cluster.task_manager("worker", 1);
    application.ends(0, "FINISHED");
    assert_eq!(read_rows(application.folder().at("out.jsonl")).len(), 100);
}

#[test]
fn a_bundle_that_is_none_is_a_job_that_has_failed() {
    let mut application = Application::new(SHORT, 1);
    application.handle(&[]);
    let ends = |application: &mut Application, why: &str| {
        let finished = application.manager("manager").finish().code(20);
        let cause = application.ended()["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains(why) && finished.stderr.contains(why), "{cause}\n{}", finished.stderr);
        let asked = application.asked();
        assert_eq!((asked.len(), &asked[0]["ended"]["state"]), (1, &json!("FAILED")));
        fs::remove_file(application.folder().at("asked")).unwrap();
    };
    let good = application.folder().read("bundle/bundle.json");
    for (text, why) in [
        ("", "the bundle is not understood"),
        ("{\"standpipe\": 7}", "the bundle is not understood"),
        (&good.replace("0.1.0", "9.0.0"), "9.0.0"),
    ] {
        application.folder().write("bundle/bundle.json", text);
        ends(&mut application, why);
    }
    application.folder().write("bundle/bundle.json", vec![b' '; 5 << 20]);
    ends(&mut application, "longer than");
    fs::remove_dir_all(application.folder().at("bundle")).unwrap();
    ends(&mut application, "No such file or directory");
    application.folder().write("bundle", "a file");
    ends(&mut application, "Not a directory");
    // What the command line has wrong is no end of a job.
    fs::remove_file(application.folder().at("ended.json")).unwrap();
    let refused = standpipe(["jobmanager", "--application", "x", "--jobid", "0123"]).finish().code(2);
    assert!(refused.stderr.contains("expected 32 hexadecimal digits"), "{}", refused.stderr);
    for arguments in [["--application", "x"], ["--linger", "1s"], ["--jobid", JOB]] {
        let _ = standpipe(["jobmanager"]).args(arguments).finish().code(2);
    }
    assert!(!application.folder().at("ended.json").exists() && application.asked().is_empty());
}

#[test]
fn a_clean_up_that_fails_changes_nothing_of_how_the_job_has_ended() {
    for (how, why) in [("panic", "as asked, in cleanup"), ("abort", "its process has ended: signal: 6")] {
        let mut application = Application::new(SHORT, 1);
        application.handle(&[("record.how", json!(how))]);
        application.start("manager");
        let _task_manager = application.cluster.task_manager("worker", 1);
        let (finished, _) = application.ends(0, "FINISHED");
        assert!(
            finished.stderr.contains("warning: the job's deployment mode has not cleaned up") && finished.stderr.contains(why),
            "{}",
            finished.stderr
        );
    }
    // A mode that nobody has, and a handle that is none.
    let mut application = Application::new(SHORT, 1);
    application.handle(&[("deployment_mode", json!("nobody"))]);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    let finished = application.cluster.manager.take().unwrap().wait().code(0);
    assert!(finished.stderr.contains("there is no mode \"nobody\""), "{}", finished.stderr);
    let mut application = Application::new(SHORT, 1);
    application.handle(&[]);
    application.folder().write("handle.json", "[]");
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    let finished = application.cluster.manager.take().unwrap().wait().code(0);
    assert!(finished.stderr.contains("--handle ") && application.asked().is_empty(), "{}", finished.stderr);
}

#[test]
fn a_signal_ends_the_manager_and_not_the_job() {
    let mut application = Application::new(&format!("{COUNTS}{SAFE}"), 2);
    application.start("manager");
    let task_manager = application.cluster.task_manager("worker", 2);
    application.taken(1);
    let before = processes(&task_manager);
    let begin = Instant::now();
    application.running().signal(Signal::TERM);
    let finished = application.cluster.manager.take().unwrap().wait().code(143);
    // Task managers and clients may hold connections open: it waits for none of them.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(finished.stderr.contains("has not ended"), "{}", finished.stderr);
    assert!(!application.folder().at("ended.json").exists() && application.asked().is_empty());
    // On the same data it finds the job as it was.
    application.start("manager");
    application.wait_for("it runs on", |job| job["state"] == "RUNNING" && job["attempt"] == 0);
    assert_eq!(processes(&task_manager), before);
    application.ends(0, "FINISHED");
    assert_exactly_once(application.folder());
}

#[test]
fn rows_are_collected_after_the_end_and_then_nobody_is_waited_for() {
    let collected = SHORT.replace(
        "out: {input: numbers, connector: file, with: {path: DIR/out.jsonl}, format: json}",
        "rows: {input: numbers, connector: collect}",
    );
    let mut application = Application::new(&collected, 1).with(&["--linger", "10m"]);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    application.wait_for("its end", |job| job["state"] == "FINISHED");
    wait_until("what it says at its end", PATIENCE, || application.folder().at("ended.json").exists());
    assert!(application.asked().is_empty(), "task managers have the rows: nothing is cleaned up yet");
    let url = format!("http://127.0.0.1:{}", application.cluster.port);
    let rows = standpipe(["job", "collect", JOB, "--jobmanager", &url, "--node", "rows", "--format", "json"])
        .timeout(PATIENCE)
        .finish()
        .code(0)
        .stdout;
    let mut numbers: Vec<i64> = standpipe_tests::rows(&rows).iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..100), "{rows}");
    application.ends(0, "FINISHED");
    // Who tells the manager to end does not wait for readers, and changes nothing of how the job has ended.
    let mut application = Application::new(&collected, 1).with(&["--linger", "10m"]);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    wait_until("what it says at its end", PATIENCE, || application.folder().at("ended.json").exists());
    application.running().signal(Signal::TERM);
    application.ends(0, "FINISHED");
    // Whoever does not come is not waited for longer than that: by default, for a minute.
    let mut application = Application::new(&collected, 1).with(&["--linger", "0s"]);
    application.start("manager");
    let _task_manager = application.cluster.task_manager("worker", 1);
    wait_until("what it says at its end", PATIENCE, || application.folder().at("ended.json").exists());
    let said = Instant::now();
    application.ends(0, "FINISHED");
    assert!(said.elapsed() < Duration::from_secs(30), "{:?}", said.elapsed());
}

#[test]
fn probes_need_no_token_and_tell_nothing_else() {
    let mut application = Application::new(SHORT, 1);
    let token = application.folder().write("token", "0123456789abcdef-secret");
    // As Kubernetes mounts a secret: root's, and its group's to read.
    fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).unwrap();
    let token_file = token.display().to_string();
    application = application.with(&["--token-file", &token_file]);
    let (port, metrics) = (application.cluster.port, free_port());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let ask =
        |port: u16, path: &str| agent.get(format!("http://127.0.0.1:{port}{path}")).call().map_or(0, |answer| answer.status().as_u16());
    let url = format!("http://127.0.0.1:{port}");
    let arguments =
        ["taskmanager", "--slots", "1", "--jobmanager", &url, "--metrics", &format!("127.0.0.1:{metrics}"), "--token-file", &token_file];
    let mut task_manager = standpipe(arguments).args(["--data".into(), application.folder().at("worker")]).timeout(4 * PATIENCE).start();
    task_manager.wait_until("its port", PATIENCE, |run| run.stderr().contains("metrics: http://"));
    wait_until("the task manager lives", PATIENCE, || ask(metrics, "/healthz") == 200);
    assert_eq!(ask(metrics, "/readyz"), 503, "it has no manager");
    application.start("manager");
    wait_until("the manager is ready", PATIENCE, || ask(port, "/readyz") == 200);
    assert_eq!([ask(port, "/healthz"), ask(port, "/overview"), ask(port, "/v1/healthz"), ask(port, "/jobs")], [200, 401, 401, 401]);
    wait_until("the task manager is ready", PATIENCE, || ask(metrics, "/readyz") == 200);
    application.ends(0, "FINISHED");
    wait_until("it has no manager any more", PATIENCE, || ask(metrics, "/readyz") == 503);
}
