//! Traces as a collector gets them: what the spans of a run, of a job that fails, and of a submission to a session cluster say, and how they hang together. And that a
//! collector that is not there, or does not answer, changes nothing of a job.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod traces_support;

use standpipe_tests::{Folder, Run, Running, Signal, fixture_plugin, free_port, processes, read_rows, signal, standpipe, wait_until};
use std::{
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};
use traces_support::{Collector, Got, named, names, one, part, parts};

const PATIENCE: Duration = Duration::from_secs(90);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

const COUNTED: &str = "
name: counted
parallelism: 2
sources:
  ticks:
    connector: generator
    with: {rate: 2000, count: 2000, splits: 2, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}}}
transforms:
  totals: {input: ticks, key_by: [k], aggregate: {n: \"count(*)\"}, emit: final}
sinks:
  out: {input: totals, connector: file, with: {path: \"DIR/out-{subtask}.jsonl\"}, format: json}
checkpoint: {interval: 100ms, dir: DIR/ckpt}
";
/// The same without end, started again after a failure.
const ENDLESS: &str = "
name: endless
sources:
  ticks: {connector: generator, with: {rate: 500, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: ticks, connector: file, with: {path: DIR/out.jsonl}, format: json}
checkpoint: {interval: 100ms, dir: DIR/ckpt}
restart: {strategy: fixed-delay, attempts: 3, delay: 100ms}
";
const BROKEN: &str = "
name: broken
sources:
  lines: {connector: file, with: {path: DIR/in.jsonl}, format: json, schema: {n: int64}}
sinks:
  out: {input: lines, connector: file, with: {path: DIR/out.jsonl}, format: json}
restart: {strategy: fixed-delay, attempts: 1, delay: 100ms}
";

fn pipeline(folder: &Folder, text: &str) -> std::path::PathBuf {
    folder.write("pipeline.yaml", text.replace("DIR", folder.path().to_str().unwrap()))
}

fn run(folder: &Folder, text: &str) -> Run {
    standpipe(["run", "--quiet"]).args([pipeline(folder, text)]).timeout(PATIENCE)
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_run_is_a_trace_and_each_checkpoint_one_of_its_own() {
    let (folder, collector) = (Folder::new(), Collector::start());
    let run = run(&folder, COUNTED).env(ENDPOINT, &collector.endpoint).env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b");
    let run = run.env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=rows");
    let finished = run.env("TRACEPARENT", format!("00-{TRACE}-b7ad6b7169203331-01")).finish().code(0);
    assert_eq!(finished.stderr, "", "{finished:?}");
    let spans = collector.spans();
    let whole = one(&spans, "run");
    assert_eq!((digits(&whole.span.trace_id), digits(&whole.span.parent_span_id)), (TRACE.to_owned(), "b7ad6b7169203331".to_owned()));
    assert_eq!((whole.service(), whole.resource["team"].as_str(), whole.headers["x-key"].as_str()), ("standpipe", "rows", "a b"));
    assert_eq!(whole.get("job_name"), "counted");
    part(&spans, whole, "plan");
    let job = part(&spans, whole, "job");
    assert_eq!(
        (job.get("rows_in"), job.get("end"), job.get("attempt"), job.get("slots")),
        ("2000".into(), "finished".into(), "0".into(), "2".into())
    );
    assert_eq!(job.failure(), None);
    part(&spans, job, "claim");
    let start = part(&spans, job, "start");
    let mut opened: Vec<(String, String)> =
        parts(&spans, start, "open").iter().map(|open| (open.get("operator"), open.get("plugin"))).collect();
    opened.sort();
    assert_eq!(opened, [("sinks.out".to_owned(), "file".to_owned()), ("sources.ticks".to_owned(), "generator".to_owned())]);
    assert_checkpoints(&spans, job);
}

fn assert_checkpoints(spans: &[Got], job: &Got) {
    let checkpoints = named(spans, "checkpoint");
    assert!(checkpoints.len() > 1, "{:#?}", names(spans));
    for checkpoint in &checkpoints {
        assert!(checkpoint.span.parent_span_id.is_empty() && checkpoint.span.trace_id != job.span.trace_id);
        let [link] = checkpoint.span.links.as_slice() else { panic!("{:?}", checkpoint.span.links) };
        assert_eq!((&link.trace_id, &link.span_id), (&job.span.trace_id, &job.span.span_id));
        assert_eq!((checkpoint.get("job_id"), checkpoint.get("job_name")), (job.get("job_id"), "counted".to_owned()));
        assert_eq!(checkpoint.failure(), None);
        for kind in ["align", "write"] {
            let mut operators: Vec<String> = parts(spans, checkpoint, kind).iter().map(|span| span.get("operator")).collect();
            operators.sort();
            assert_eq!(operators, ["sinks.out", "sources.ticks", "transforms.totals"], "{kind}");
        }
        part(spans, checkpoint, "manifest");
        part(spans, checkpoint, "commit");
        assert!(checkpoint.get("bytes").parse::<u64>().unwrap() > 0);
    }
    let last = checkpoints.iter().filter(|checkpoint| checkpoint.get("reason") == "last").count();
    assert_eq!(last, 1, "the last one of a job whose sources end");
}

#[test]
fn a_job_that_fails_says_why_and_each_start_of_it_is_a_span() {
    let (folder, collector) = (Folder::new(), Collector::start());
    folder.write("in.jsonl", "{\"n\": 1}\n{\"n\": \"one\"}\n");
    let finished = run(&folder, BROKEN).env(ENDPOINT, &collector.endpoint).env("OTEL_SERVICE_NAME", "mine").finish().code(1);
    assert!(finished.stderr.contains("error: sources.lines"), "{finished:?}");
    let spans = collector.spans();
    let whole = one(&spans, "run");
    assert!(whole.failure().is_some() && whole.span.parent_span_id.is_empty() && whole.service() == "mine");
    let jobs = parts(&spans, whole, "job");
    assert_eq!(jobs.len(), 2, "{:#?}", names(&spans));
    for (attempt, job) in jobs.iter().enumerate() {
        assert_eq!(job.get("attempt"), attempt.to_string());
        assert!(job.failure().is_some_and(|why| why.starts_with("sources.lines")), "{:?}", job.failure());
    }
    assert_eq!(part(&spans, whole, "restart").get("attempt"), "1");
}

const STUCK: &str = "
name: stuck
sources:
  ticks: {connector: generator, with: {rate: 500, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: ticks, connector: bad, with: {at: AT, how: block}}
checkpoint: {interval: 100ms, timeout: 300ms, tolerated_failures: 1, dir: DIR/ckpt}
";

#[test]
fn a_checkpoint_that_is_given_up_says_who_has_not_answered() {
    let (folder, collector) = (Folder::new(), Collector::start());
    let stuck = run(&folder, &STUCK.replace("AT", "flush")).plugin_path(fixture_plugin());
    let _ = stuck.env(ENDPOINT, &collector.endpoint).finish().code(1);
    let spans = collector.spans();
    let checkpoint = named(&spans, "checkpoint")[0];
    assert!(checkpoint.failure() == Some("1 of 3 parts did not come in time"), "{:?}", checkpoint.failure());
    let aligned = parts(&spans, checkpoint, "align")
        .iter()
        .map(|align| (align.get("operator"), align.failure().map(str::to_owned)))
        .collect::<Vec<_>>();
    assert!(aligned.contains(&("sinks.out".to_owned(), Some("subtasks that have not given their state: 0".to_owned()))), "{aligned:?}");
    assert!(aligned.contains(&("sources.ticks".to_owned(), None)), "{aligned:?}");
    assert!(parts(&spans, checkpoint, "manifest").is_empty());
    assert!(one(&spans, "job").failure().is_some());
}

#[test]
fn a_start_that_hangs_says_in_which_plugin() {
    let (folder, collector) = (Folder::new(), Collector::start());
    let mark = format!("{}/opening", folder.path().display());
    let text = STUCK.replace("at: AT", &format!("at: open, mark: {mark}"));
    let mut stuck = run(&folder, &text).plugin_path(fixture_plugin()).env(ENDPOINT, &collector.endpoint).start();
    stuck.wait_until("the call that hangs", PATIENCE, |_| folder.at("opening").is_file());
    stuck.signal(Signal::INT);
    let _ = stuck.wait().code(0);
    let spans = collector.spans();
    let start = one(&spans, "start");
    assert!(start.failure().is_some_and(|why| why.contains("before it ran")), "{:?}", start.failure());
    let failed: Vec<String> =
        parts(&spans, start, "open").iter().filter(|open| open.failure().is_some()).map(|open| open.get("operator")).collect();
    assert!(failed.contains(&"sinks.out".to_owned()), "{failed:?}");
}

fn start(run: Run, folder: &Folder, data: &str, collector: &Collector) -> Running {
    run.env(ENDPOINT, &collector.endpoint).args(["--data".into(), folder.at(data)]).timeout(4 * PATIENCE).start()
}

/// A manager that tells the collector.
fn start_manager(folder: &Folder, port: u16, collector: &Collector) -> Running {
    let bind = format!("127.0.0.1:{port}");
    let mut manager = start(standpipe(["jobmanager", "--lease", "3s", "--bind", &bind]), folder, "manager", collector);
    manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http://"));
    manager
}

/// A task manager whose workers tell the collector.
fn start_task_manager(folder: &Folder, port: u16, collector: &Collector) -> Running {
    let url = format!("http://127.0.0.1:{port}");
    let arguments = ["taskmanager", "--slots", "1", "--jobmanager", &url, "--log-level", "info"];
    let mut task_manager = start(standpipe(arguments), folder, "one", collector);
    task_manager.wait_until("the task manager", PATIENCE, |run| run.stderr().contains("slots are with the job manager"));
    task_manager
}

#[test]
fn a_submission_is_one_trace_over_all_processes_and_so_is_what_becomes_of_the_job() {
    let (folder, collector, port) = (Folder::new(), Collector::start(), free_port());
    let mut manager = start_manager(&folder, port, &collector);
    let (file, out) = (pipeline(&folder, ENDLESS), folder.at("out.jsonl.inprogress"));
    let at = format!("rest.port={port}");
    let deployed = standpipe(["deploy"]).args([file]).args(["-D", "rest.address=127.0.0.1", "-D", &at]);
    let handle = deployed.env(ENDPOINT, &collector.endpoint).timeout(PATIENCE).finish().code(0).stdout;
    let task_manager = start_task_manager(&folder, port, &collector);
    let rows = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    wait_until("rows", PATIENCE, || rows() > 100);
    let [worker] = processes(&task_manager).into_values().collect::<Vec<_>>()[..] else { panic!("not one worker") };
    assert!(signal(worker, Signal::KILL));
    wait_until("another worker", PATIENCE, || processes(&task_manager).values().any(|id| *id != worker));
    wait_until("its recovery", PATIENCE, || !named(&collector.spans(), "recover").is_empty());
    let url = format!("http://127.0.0.1:{port}");
    let _ = standpipe(["job", "stop", "endless", "--savepoint", "--jobmanager", &url]).timeout(PATIENCE).finish().code(0);
    wait_until("the end of its worker", PATIENCE, || processes(&task_manager).is_empty());
    manager.signal(Signal::TERM);
    let _ = manager.wait().code(0);
    let spans = collector.spans();
    let deploy = one(&spans, "deploy");
    assert_eq!((deploy.get("mode"), deploy.span.parent_span_id.is_empty()), ("session".to_owned(), true));
    part(&spans, deploy, "bundle");
    let submit = part(&spans, deploy, "submit");
    assert_eq!((submit.service(), deploy.service()), ("standpipe-jobmanager", "standpipe"));
    assert!(handle.contains(&submit.get("job_id")), "{handle}");
    part(&spans, submit, "plan");
    assert_starts(&spans, submit);
    let savepoint = one(&spans, "savepoint");
    assert_eq!((savepoint.failure(), savepoint.get("job_id")), (None, submit.get("job_id")));
    assert!(!read_rows(folder.at("out.jsonl")).is_empty());
}

/// The first one was killed, the second one was stopped.
fn assert_starts(spans: &[Got], submit: &Got) {
    let sorted = |name| {
        let mut found = parts(spans, submit, name);
        found.sort_by_key(|got| got.span.start_time_unix_nano);
        found
    };
    let attempts = sorted("attempt");
    let [first, second] = attempts[..] else { panic!("{:#?}", names(spans)) };
    assert!(first.failure().is_some_and(|why| why.contains("signal 9")), "{:?}", first.failure());
    assert_eq!((second.failure(), second.get("attempt")), (None, "1".to_owned()));
    for attempt in attempts {
        assert_eq!(part(spans, attempt, "launch").failure(), None);
    }
    // Nobody had a slot when it was submitted.
    assert_eq!(part(spans, submit, "schedule").get("slots"), "1");
    let recover = part(spans, submit, "recover");
    assert!(recover.get("cause").contains("signal 9") && recover.span.end_time_unix_nano >= second.span.start_time_unix_nano);
    // What was killed has said nothing.
    let job = part(spans, submit, "job");
    assert_eq!((job.get("attempt"), job.get("end"), job.service()), ("1".to_owned(), "stopped".to_owned(), "standpipe"));
    assert!(part(spans, part(spans, job, "start"), "restore").get("checkpoint").parse::<u64>().unwrap() > 0);
}

#[test]
fn a_client_may_have_a_trace_of_its_own() {
    let (folder, collector, port) = (Folder::new(), Collector::start(), free_port());
    let manager = start_manager(&folder, port, &collector);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let post = agent.post(format!("http://127.0.0.1:{port}/v1/jobs")).header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    assert_eq!(post.send(r#"{"standpipe": "0.1.0", "name": "n", "pipeline": {"path": "p", "hash": "sha256:0000000000000000000000000000000000000000000000000000000000000000", "bytes": 1}}"#).unwrap().status(), 409);
    wait_until("the span", PATIENCE, || !named(&collector.spans(), "submit").is_empty());
    let spans = collector.spans();
    let submit = one(&spans, "submit");
    assert_eq!((digits(&submit.span.trace_id), submit.failure()), (TRACE.to_owned(), Some("1 of its files are missing")));
    drop(manager);
}

#[test]
fn a_collector_that_is_not_there_changes_nothing() {
    let folder = Folder::new();
    let gone = format!("http://user:secret@127.0.0.1:{}", free_port());
    let finished = run(&folder, COUNTED).env(ENDPOINT, &gone).finish().code(0);
    let warnings: Vec<&str> = finished.stderr.lines().collect();
    assert!(warnings.len() == 2 && warnings[0].starts_with("warning: traces are not exported: 127.0.0.1:"), "{finished:?}");
    assert!(warnings[1].starts_with("warning: ") && warnings[1].ends_with("spans of this process' traces are lost"), "{finished:?}");
    assert!(!finished.stderr.contains("secret"), "{finished:?}");
}

#[test]
fn a_collector_that_does_not_answer_holds_up_no_end() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().flatten().collect::<Vec<TcpStream>>());
    let without = run(&folder, COUNTED).finish().code(0);
    let with = run(&Folder::new(), COUNTED).env(ENDPOINT, endpoint).finish().code(0);
    assert!(with.elapsed < without.elapsed + Duration::from_secs(8), "{:?} instead of {:?}", with.elapsed, without.elapsed);
    assert!(with.stderr.contains("spans of this process' traces are lost"), "{with:?}");
}

#[test]
fn traces_are_off_unless_they_are_wanted_and_possible() {
    let (folder, collector) = (Folder::new(), Collector::start());
    let with = |name: &str, value: &str| {
        let run = run(&folder, COUNTED).args(["--fresh"]).env(ENDPOINT, &collector.endpoint);
        run.env(name, value).finish().code(0).stderr
    };
    assert_eq!(with("OTEL_SDK_DISABLED", "true"), "");
    assert_eq!(with("OTEL_TRACES_EXPORTER", "none"), "");
    assert_eq!(
        with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        "warning: traces are not exported: OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is not spoken here: expected http/protobuf (a collector's port 4318)\n"
    );
    assert_eq!(
        with("OTEL_TRACES_EXPORTER", "zipkin"),
        "warning: traces are not exported: OTEL_TRACES_EXPORTER: \"zipkin\": expected otlp or none\n"
    );
    let missing = with("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem");
    assert!(
        missing.starts_with("warning: traces are not exported: OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere.pem: No such file"),
        "{missing}"
    );
    assert!(collector.spans().is_empty());
}
