//! What a session cluster makes of trouble: a task manager that is stopped and not killed, everything restarted one by one, a hundred jobs at once, bundles that are none.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;

use cluster_support::{COUNTS, Cluster, PATIENCE, SAFE, assert_exactly_once, start_manager};
use serde_json::{Value, json};
use standpipe_cluster::bundle::{Bundle, File, Hash, MOST_BYTES};
use standpipe_tests::{Running, Signal, processes, read_rows, repository, standpipe, wait_until};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

const JOBS: usize = 100;

#[test]
fn a_task_manager_that_is_stopped_for_a_while_runs_nothing_twice() {
    let cluster = Cluster::start();
    let mut first = cluster.task_manager("first", 2);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 2));
    cluster.taken(&id, 3);
    let worker = processes(&first)[&0];
    let _second = cluster.task_manager("second", 2);
    // It cannot end its worker, nor hear of its end.
    first.signal(Signal::STOP);
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    let again = cluster.wait_for(&id, "another attempt", |job| {
        // Looked at before the answer was asked for would prove nothing.
        assert!(job["attempt"] == 0 || !runs(), "both run: {job:#}");
        job["attempt"] == 1 && job["state"] == "RUNNING"
    });
    assert!(again["workers"][0]["taskmanager"].is_string(), "{again:#}");
    first.signal(Signal::CONT);
    wait_until("the first task manager is back", PATIENCE, || cluster.get("/overview")["taskmanagers"] == 2);
    wait_until("it has nothing", PATIENCE, || processes(&first).is_empty());
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn manager_and_task_managers_are_restarted_one_by_one_and_nobody_notices() {
    let mut cluster = Cluster::start();
    let mut first = cluster.task_manager("first", 2);
    let mut second = cluster.task_manager("second", 2);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 4));
    cluster.taken(&id, 2);
    let _third = cluster.task_manager("third", 2);
    first.signal(Signal::TERM);
    first.wait().success();
    cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    let mut manager = cluster.manager.take().unwrap();
    manager.signal(Signal::TERM);
    manager.wait().success();
    cluster.manager = Some(start_manager(&cluster.folder, cluster.port));
    cluster.taken(&id, 2);
    let _fourth = cluster.task_manager("fourth", 2);
    second.signal(Signal::TERM);
    second.wait().success();
    let last = cluster.wait_for(&id, "a third attempt", |job| job["attempt"] == 2 && job["state"] == "RUNNING");
    assert_eq!(last["restarts"], 0, "{last:#}");
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn slots_that_vanish_are_waited_for_until_others_have_joined() {
    let cluster = Cluster::start();
    let first = cluster.task_manager("first", 3);
    let mut second = cluster.task_manager("second", 2);
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}"), 5));
    cluster.taken(&id, 2);
    let waits = |for_what: &str| {
        let waiting = cluster.wait_for(&id, for_what, |job| job["waits"] == for_what);
        assert_eq!(waiting["state"], "RESTARTING", "{waiting:#}");
        assert!(processes(&first).is_empty(), "half of the job runs: {waiting:#}");
    };
    second.signal(Signal::KILL);
    waits("needs 5, has 3");
    let exceptions = cluster.exceptions(&id);
    assert!(exceptions.len() == 1 && exceptions[0].contains("has not been heard of for 3 s"), "{exceptions:?}");
    // It comes back with fewer than it had; those of whoever leaves while they are waited for do not count.
    let mut second = cluster.task_manager("second", 1);
    waits("needs 5, has 4");
    second.signal(Signal::TERM);
    second.wait().success();
    waits("needs 5, has 3");
    let _others = ["third", "fourth"].map(|name| cluster.task_manager(name, 1));
    let running = cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    let slots: Vec<&Value> = running["workers"].as_array().unwrap().iter().map(|worker| &worker["slots"]).collect();
    assert_eq!(slots, [3, 1, 1]);
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

#[test]
fn a_hundred_jobs_that_come_at_once_all_run() {
    const ROWS: usize = 100;
    let cluster = Cluster::start();
    let task_manager = cluster.task_manager("only", 4);
    let pipeline = |i: usize| {
        let source = format!("connector: generator, with: {{count: {ROWS}, fields: {{n: {{kind: sequence}}}}}}");
        format!(
            "name: job-{i}\nsources:\n  s: {{{source}}}\nsinks:\n  out: {{input: s, connector: file, with: {{path: DIR/out-{i}.jsonl}}, format: json}}\n"
        )
    };
    let ids: Vec<String> = thread::scope(|scope| {
        let submit = |i| {
            let cluster = &cluster;
            scope.spawn(move || cluster.submit(&Bundle { name: format!("job-{i}"), ..cluster.bundle(&pipeline(i), 1) }))
        };
        let all: Vec<_> = (0..JOBS).map(submit).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let done = || {
        let all = cluster.get("/jobs/overview");
        let jobs = all["jobs"].as_array().unwrap();
        assert!(jobs.iter().all(|job| job["state"] != "FAILED"), "{all:#}");
        jobs.iter().filter(|job| job["state"] == "FINISHED").count() == JOBS
    };
    wait_until("all jobs", 3 * PATIENCE, done);
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(read_rows(cluster.folder.at(&format!("out-{i}.jsonl"))).len(), ROWS, "job {i}");
        assert_eq!(cluster.job(id)["attempt"], 0);
    }
    assert!(processes(&task_manager).is_empty());
    // What they were made of is gone.
    let left = || fs::read_dir(cluster.folder.at("only/jobs")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    wait_until("the jobs' folders are gone", PATIENCE, || left() == 0);
}

#[test]
fn a_bundle_that_is_none_is_refused_with_what_is_wrong() {
    let cluster = Cluster::start();
    let bundle = cluster.bundle(COUNTS, 1);
    let refused = |bundle: &Bundle, status: u16, why: &str| {
        let (found, value) = cluster.post(bundle);
        let errors = value["errors"].as_array().unwrap().iter().map(|error| error.as_str().unwrap()).collect::<Vec<_>>().join("\n");
        assert!(found == status && errors.contains(why), "{found}: {errors}");
    };
    // Too large: as a whole, by what it says, and by what comes.
    let large = File { bytes: MOST_BYTES + 1, ..bundle.pipeline.clone() };
    refused(&Bundle { plugins: vec![large], ..bundle.clone() }, 400, "a file of a bundle may have");
    let (status, value) = cluster.http("POST", "/v1/jobs", &vec![b' '; 5 << 20]);
    assert!(status == 413 && value["errors"][0].is_string(), "{status}: {value}");
    let longer = File { bytes: bundle.pipeline.bytes + 1, ..bundle.pipeline.clone() };
    refused(&Bundle { pipeline: longer, ..bundle.clone() }, 400, "and the bundle says");
    // Corrupt.
    for text in ["", "{", "[]", "{\"standpipe\": 7}", "{\"standpipe\": \"0.1.0\", \"name\": \"x\", \"surprise\": 1}"] {
        let (status, value) = cluster.http("POST", "/v1/jobs", text.as_bytes());
        assert!(status == 400 && value["errors"][0].as_str().unwrap().contains("the bundle is not understood"), "{text}: {value}");
    }
    assert_eq!(cluster.http("PUT", &format!("/v1/blobs/{}", Hash::of(b"whole")), b"who").0, 400);
    // Of another release, or another ABI.
    refused(&Bundle { standpipe: "9.0.0".to_owned(), ..bundle.clone() }, 400, "9.0.0");
    let (file, core) = (cluster.folder.at("other_major.so"), repository().join("core"));
    let mut compiler = Command::new("cc");
    compiler.args(["-fPIC", "-shared", "-DMAJOR=2", "-DCANDIDATE=0", "-I"]).arg(core.join("abi/include"));
    assert!(compiler.arg(core.join("loader/tests/c/manifest.c")).arg("-o").arg(&file).status().unwrap().success());
    let plugin = cluster.put("other_major.so", &fs::read(&file).unwrap());
    refused(&Bundle { plugins: vec![plugin], ..bundle }, 400, "speaks plugin ABI 2.1");
    assert_eq!(cluster.get("/jobs"), json!({"jobs": []}));
    // What is no request at all, in the same form.
    for (method, path, body, expected) in [
        ("DELETE", "/jobs", "", 405),
        ("GET", "/taskmanagers/0123456789abcdef0123456789abcdef/orders?generation=x", "", 400),
        ("POST", "/taskmanagers/x/beat", "{}", 400),
        ("POST", "/v1/blobs/missing", "{\"hashes\": [\"x\"]}", 400),
    ] {
        let (status, value) = cluster.http(method, path, body.as_bytes());
        assert!(status == expected && value["errors"][0].is_string(), "{method} {path}: {status} {value}");
    }
    let beat = |slots: u64, host: &str| {
        let beat = json!({"slots": slots, "host": host, "pid": 1, "seen": {"generation": 0, "number": 0}, "workers": []});
        cluster.http("POST", "/taskmanagers/0123456789abcdef0123456789abcdef/beat", beat.to_string().as_bytes())
    };
    assert_eq!((beat(u64::from(u32::MAX), "a").0, beat(1, "a\nb").0, beat(1, "a").0), (400, 400, 200));
    let known: Value = cluster.get("/overview");
    assert_eq!((&known["taskmanagers"], &known["slots-total"]), (&json!(1), &json!(1)));
}

#[test]
fn a_job_that_is_submitted_again_under_its_id_is_one_job() {
    let cluster = Cluster::start();
    let bundle = cluster.bundle(COUNTS, 1);
    let document = serde_json::to_vec(&bundle).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let post = |id: &str, document: &[u8]| cluster.http("POST", &format!("/v1/jobs?jobid={id}"), document);
    // At once, and one after the other.
    let answers = thread::scope(|scope| [0, 1].map(|_| scope.spawn(|| post(id, &document))).map(|one| one.join().unwrap()));
    for (status, value) in answers.into_iter().chain([post(id, &document)]) {
        assert_eq!((status, &value), (202, &json!({"jobid": id})));
    }
    assert_eq!(cluster.get("/jobs")["jobs"].as_array().unwrap().len(), 1);
    let other = serde_json::to_vec(&Bundle { name: "other".to_owned(), ..bundle }).unwrap();
    for (id, document, why) in [(id, &other, "another job has it"), ("0123", &document, "expected 32 hexadecimal digits")] {
        let (status, value) = post(id, document);
        assert!(status == 400 && value["errors"][0].as_str().unwrap().contains(why), "{status}: {value}");
    }
}

/// Passes bytes on to the manager and back, but for the answer to the first job that is submitted. How many were.
fn lose_the_first_answer(to: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, submitted) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&submitted);
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let (manager, count, loses) =
                (TcpStream::connect(("127.0.0.1", to)).unwrap(), Arc::clone(&count), Arc::new(AtomicBool::new(false)));
            let (mut from, mut onward, lost) = (client.try_clone().unwrap(), manager.try_clone().unwrap(), Arc::clone(&loses));
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                    if buffer[..bytes].starts_with(b"POST /v1/jobs?") {
                        lost.store(count.fetch_add(1, SeqCst) == 0, SeqCst);
                    }
                    drop(onward.write_all(&buffer[..bytes]));
                }
            });
            let (mut manager, mut client) = (manager, client);
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(bytes @ 1..) = manager.read(&mut buffer) {
                    if loses.load(SeqCst) {
                        break;
                    }
                    drop(client.write_all(&buffer[..bytes]));
                }
                drop(client.shutdown(Shutdown::Both));
            });
        }
    });
    (port, submitted)
}

#[test]
fn a_job_whose_answer_was_lost_has_its_handle_all_the_same() {
    let cluster = Cluster::start();
    let (port, submitted) = lose_the_first_answer(cluster.port);
    let file = cluster.folder.write("counts.yaml", COUNTS.replace("DIR", cluster.folder.path().to_str().unwrap()));
    let run = standpipe(["deploy", "-D", "rest.address=127.0.0.1", "-D", &format!("rest.port={port}")]).args([file]);
    let handle: Value = serde_json::from_str(&run.timeout(PATIENCE).finish().code(0).stdout).unwrap();
    assert_eq!(submitted.load(SeqCst), 2, "the answer was not lost");
    let jobs = cluster.get("/jobs");
    assert_eq!((jobs["jobs"].as_array().unwrap().len(), &jobs["jobs"][0]["id"]), (1, &handle["jobid"]), "{jobs}");
}

#[test]
fn every_documented_request_is_answered_and_the_document_is_that_of_docs() {
    let cluster = Cluster::start();
    let document = cluster.get("/v1/openapi.json");
    let kept: Value = serde_json::from_slice(&fs::read(repository().join("docs/openapi.json")).unwrap()).unwrap();
    assert_eq!(document, kept);
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path =
            path.replace("{hash}", &Hash::of(b"x").to_string()).replace("{id}", &"0".repeat(32)).replace("{trigger}", &"1".repeat(32));
        for method in operations.as_object().unwrap().keys() {
            for prefix in ["", "/v1"] {
                let (status, value) = cluster.http(&method.to_uppercase(), &format!("{prefix}{path}"), b"x");
                let error = value["errors"][0].as_str().unwrap_or_default();
                assert!(status != 405 && status < 500 && error != "there is no such path", "{method} {path}: {status} {value}");
                assert!(status < 300 || value["errors"][0].is_string(), "{method} {path}: {status} {value}");
                asked += 1;
            }
        }
    }
    assert!(asked > 50, "{asked}");
}

#[test]
fn a_job_over_its_memory_ends_itself_alone_and_hears_why() {
    let cluster = Cluster::start();
    let url = format!("http://127.0.0.1:{}", cluster.port);
    let arguments = ["taskmanager", "--slots", "3", "--jobmanager", &url, "--memory-per-slot", "160MiB", "--cpus-per-slot", "1.5"];
    let run = standpipe(arguments).args(["--log-level".into(), "info".into(), "--data".into(), cluster.folder.at("limited")]);
    let mut task_manager = run.timeout(4 * PATIENCE).start();
    let is_told = |run: &Running| run.stderr().contains("slots are with the job manager") || run.stderr().contains("cannot be limited");
    task_manager.wait_until("the task manager", PATIENCE, is_told);
    if task_manager.stderr().contains("cannot be limited") {
        // A machine that lets nobody make control groups; what is said of it is one line.
        eprintln!("skipped: {}", task_manager.stderr());
        return;
    }
    let good = cluster.submit(&cluster.bundle(COUNTS, 2));
    cluster.state(&good, "RUNNING");
    let hungry = "
name: hungry
sources:
  s: {connector: generator, with: {count: 1000000000, fields: {n: {kind: sequence}}}}
transforms:
  all: {input: s, key_by: [n], aggregate: {c: \"count(*)\"}, emit: final}
sinks:
  out: {input: all, connector: file, with: {path: DIR/hungry.jsonl}, format: json}
";
    let id = cluster.submit(&Bundle { name: "hungry".to_owned(), ..cluster.bundle(hungry, 1) });
    let failed = cluster.wait_for(&id, "its end", |job| job["state"] == "FAILED");
    let why = failed["why"].as_str().unwrap();
    assert!(why.contains("it wanted more memory than it may have (1 slots of 167772160 bytes each"), "{why}");
    assert_eq!(cluster.state(&good, "FINISHED")["attempt"], 0);
    assert_exactly_once(&cluster.folder);
}
