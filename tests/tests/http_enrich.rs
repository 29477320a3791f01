//! An asynchronous transform as a user has it: `http-enrich` beside a service that takes its time, how much faster it is with several requests under way, and a process that is killed
//! in the middle of them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "../../plugins/transforms/http-enrich/tests/server/mod.rs"]
mod server;

use serde_json::{Value, json};
use server::{Answer, Server};
use standpipe_tests::{Folder, Run, Signal, read_rows, standpipe};
use std::{
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn rooms(keys: &[Value]) -> Answer {
    let room = |key: &Value| json!({"room": format!("room {}", key["k"])});
    (200, Value::Array(keys.iter().map(room).collect()).to_string())
}

/// A server that takes so long for every request.
fn slow(time: Duration) -> Server {
    Server::start(move |_, keys| {
        thread::sleep(time);
        rooms(keys)
    })
}

/// The pipeline, with more keys of the job, of the generator and of the transform.
fn pipeline(server: &Server, job: &str, generator: &str, transform: &str) -> String {
    format!(
        "name: rooms
{job}
sources:
  ticks: {{connector: generator, with: {{{generator}, fields: {{n: {{kind: sequence}}, k: {{kind: uniform-int, min: 0, max: 9}}}}}}}}
transforms:
  rooms:
    input: ticks
    transform: http-enrich
    with: {{url: \"{}\", keys: [k], columns: {{room: string}}, retry: {{attempts: 1}}}}
{transform}
sinks:
  out: {{input: rooms, connector: file, with: {{path: out.jsonl}}, format: json}}
",
        server.url
    )
}

fn run(folder: &Folder, arguments: &[&str]) -> Run {
    standpipe(["run", "rooms.yaml", "--log-level", "info"]).args(arguments).in_directory(folder.path())
}

fn quiet(folder: &Folder) -> Run {
    standpipe(["run", "rooms.yaml", "--quiet"]).in_directory(folder.path())
}

/// Every row once, with its room; in their order, or in any.
fn assert_all(folder: &Folder, count: usize, in_order: bool) {
    let mut rows = read_rows(folder.at("out.jsonl"));
    if !in_order {
        rows.sort_by_key(|row| row["n"].as_i64());
    }
    assert_eq!(rows.len(), count);
    for (n, row) in rows.iter().enumerate() {
        assert_eq!((&row["n"], &row["room"]), (&json!(n), &json!(format!("room {}", row["k"]))), "row {n}");
    }
}

#[test]
fn sixteen_requests_under_way_are_more_than_eight_times_as_fast_as_one() {
    let took = |capacity: u64| {
        let (folder, server) = (Folder::new(), slow(Duration::from_millis(100)));
        let calls = format!("    async: {{capacity: {capacity}}}");
        folder.write("rooms.yaml", pipeline(&server, "engine: {batch_rows: 50}", "count: 4800", &calls));
        run(&folder, &[]).finish().success();
        assert_all(&folder, 4800, true);
        assert_eq!((server.seen.most.load(SeqCst), server.seen.requests.load(SeqCst)), (capacity, 96));
        server.took()
    };
    let (one, sixteen) = (took(1), took(16));
    let ratio = one.as_secs_f64() / sixteen.as_secs_f64();
    eprintln!("one at a time {one:?}, sixteen {sixteen:?}: {ratio:.1} times");
    assert!(ratio > 8.0, "one at a time {one:?}, sixteen {sixteen:?}: {ratio:.1} times");
}

#[test]
fn rows_are_there_once_though_the_process_is_killed_with_requests_under_way() {
    for order in ["input", "any"] {
        let folder = Folder::new();
        let server = Server::start(|number, keys| {
            // Each after another time, so that they overtake each other.
            thread::sleep(Duration::from_millis(number * 7 % 30));
            rooms(keys)
        });
        let job = "checkpoint: {interval: 100ms, dir: ckpt}\nengine: {batch_rows: 200}";
        let calls = format!("    async: {{capacity: 8, order: {order}}}");
        folder.write("rooms.yaml", pipeline(&server, job, "rate: 10000, count: 40000", &calls));
        for checkpoints in [1, 4, 4] {
            let arguments: &[&str] = if checkpoints == 1 { &[] } else { &["--restore", "latest"] };
            let mut run = run(&folder, arguments).start();
            run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= checkpoints);
            run.wait_until("requests under way", PATIENCE, |_| server.seen.open.load(SeqCst) > 0);
            run.signal(Signal::KILL);
            _ = run.wait();
        }
        let last = run(&folder, &["--restore", "latest"]).finish().success();
        assert!(last.stderr.contains("rooms: goes on from checkpoint "), "{}", last.stderr);
        assert_all(&folder, 40_000, order == "input");
    }
}

#[test]
fn a_service_that_refuses_or_never_answers_ends_the_job_with_a_line_that_says_so() {
    let (folder, server) = (Folder::new(), Server::start(|_, _| (403, "not for you".to_owned())));
    folder.write("rooms.yaml", pipeline(&server, "", "count: 10", ""));
    let error = quiet(&folder).finish().one_error(1);
    assert!(error.contains("transforms.rooms: http-enrich: the service answers 403 Forbidden: not for you"), "{error}");

    let server = slow(Duration::from_secs(3600));
    folder.write("rooms.yaml", pipeline(&server, "", "count: 10", "    async: {timeout: 700ms}"));
    let error = quiet(&folder).finish().one_error(1);
    assert!(error.contains("transforms.rooms: http-enrich: a call has been pending for 0."), "{error}");
    assert!(error.contains(" s, longer than async.timeout, 0.7 s"), "{error}");
}

#[test]
fn a_job_is_cancelled_without_waiting_for_an_answer() {
    let (folder, server) = (Folder::new(), slow(Duration::from_secs(3600)));
    folder.write("rooms.yaml", pipeline(&server, "", "rate: 1000", ""));
    let mut run = run(&folder, &[]).start();
    run.wait_until("requests under way", PATIENCE, |_| server.seen.open.load(SeqCst) > 1);
    // The first one stops, which waits for what is under way.
    run.signal(Signal::INT);
    run.wait_until("the first signal is understood", PATIENCE, |run| run.stderr().contains("a second signal ends at once"));
    let begin = Instant::now();
    run.signal(Signal::INT);
    _ = run.wait();
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
}
