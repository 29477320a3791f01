//! What a slow or dead sink does to memory, and what an idle job does to the processor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use serde_json::json;
use standpipe_engine::Outcome;
use std::{
    sync::{Mutex, PoisonError, atomic::Ordering::SeqCst},
    time::Duration,
};
use support::{
    ended,
    plan::{Builder, config},
    plugins::Probe,
    start, until,
};

/// These tests measure the process, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Bytes of memory in use.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Processor time of the process so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_sink_that_stops_acknowledging_stops_the_source_and_nothing_is_lost_after_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for parallelism in [1, 2] {
        let name = format!("stuck-{parallelism}");
        let probe = Probe::of(&name);
        probe.stuck.store(true, SeqCst);
        let mut plan = Builder::new();
        plan.settings.in_flight_bytes = 4 << 20;
        let numbers = plan.numbers("numbers", parallelism, config(&name, json!({"splits": 4, "batch": 4096, "rows": 2_000_000})));
        let pass = plan.pass("pass", parallelism, numbers, json!({}), true);
        plan.collect("out", parallelism, pass, config(&name, json!({"forget": true})));
        let before = resident();
        let job = start(plan.build(), parallelism);
        let metrics = job.metrics();
        let source = &metrics.nodes()[0];
        until("the budget is spent", || source.in_flight_bytes.load(SeqCst) >= i64::from(parallelism) * (4 << 20));
        let read = source.rows_in.get();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(source.rows_in.get(), read, "the sources wait");
        // While they wait, and each of them.
        let held = source.backpressure();
        assert_eq!(held.len() as u32, parallelism);
        assert!(held.values().all(|waited| *waited >= Duration::from_millis(250)), "{held:?}");
        assert_eq!(source.rows_in.by_subtask().count() as u32, parallelism);
        assert!(source.rows_in.by_subtask().all(|rows| rows > 0) && source.rows_in.by_subtask().sum::<u64>() == read);
        let in_flight = source.in_flight_bytes.load(SeqCst);
        // A batch of 4096 rows is about 120 KB, and one may go over the limit.
        assert!(in_flight < i64::from(parallelism) * ((4 << 20) + (200 << 10)), "{in_flight} bytes in flight");
        assert!(read < 8_000_000, "not all was read");
        // Each row is about 30 bytes: what was held back would be 240 MB.
        assert!(resident().saturating_sub(before) < 100 << 20, "memory grew by {} MB", (resident() - before) >> 20);
        probe.stuck.store(false, SeqCst);
        assert_eq!(ended(&job).unwrap().end, Outcome::Finished);
        assert_eq!(job.metrics().nodes()[2].rows_out.get(), 8_000_000, "everything came in the end");
        let (ended, later) = (source.backpressure(), source.backpressure());
        assert_eq!(ended, later, "nothing is held back any more");
    }
}

#[test]
fn a_sink_that_acknowledges_in_its_flush_alone_does_not_stop_the_job() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut plan = Builder::new();
    plan.settings.in_flight_bytes = 256 << 10;
    let numbers = plan.numbers("numbers", 1, config("flushed", json!({"batch": 1000, "rows": 200_000})));
    plan.collect("out", 1, numbers, config("flushed", json!({"acknowledge": "flush"})));
    let job = start(plan.build(), 1);
    ended(&job).unwrap();
    assert_eq!(Probe::of("flushed").row_count("out"), 200_000);
}

/// The first source is held back by its budget until the sink is flushed; the second keeps the sink's queue from ever being silent.
#[test]
fn a_trickle_does_not_keep_a_sink_from_being_flushed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut plan = Builder::new();
    plan.settings.in_flight_bytes = 64 << 10;
    plan.settings.flush_interval = Duration::from_millis(200);
    let held = plan.numbers("held", 1, config("trickle", json!({"batch": 1000, "rows": 20_000})));
    let trickle = plan.numbers("trickle", 1, config("trickle", json!({"rate": 500})));
    let both = plan.union("both", 1, &[held, trickle]);
    plan.collect("out", 1, both, config("trickle", json!({"acknowledge": "flush"})));
    let job = start(plan.build(), 1);
    until("the held source has given everything", || job.metrics().nodes()[0].rows_in.get() == 20_000);
    job.control().stop(false);
    ended(&job).unwrap();
}

#[test]
fn a_trickle_alone_is_flushed_though_it_never_pauses() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut plan = Builder::new();
    let trickle = plan.numbers("trickle", 1, config("trickle-alone", json!({"rate": 500})));
    plan.collect("out", 1, trickle, config("trickle-alone", json!({"acknowledge": "flush"})));
    let job = start(plan.build(), 1);
    until("the sink has delivered something", || job.metrics().nodes()[1].rows_out.get() > 0);
    job.control().stop(false);
    ended(&job).unwrap();
}

#[test]
fn a_slow_task_is_backpressure_too() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut plan = Builder::new();
    plan.settings.in_flight_bytes = 1 << 20;
    let numbers = plan.numbers("numbers", 1, config("slow", json!({"batch": 2000})));
    let pass = plan.pass("pass", 1, numbers, json!({"sleep_ms": 20}), false);
    plan.collect("out", 1, pass, config("slow", json!({"forget": true})));
    let job = start(plan.build(), 1);
    let metrics = job.metrics();
    let [source, _, sink] = metrics.nodes() else { panic!("three nodes") };
    until("the task has passed something", || sink.rows_out.get() >= 20_000);
    let waiting = source.rows_in.get() - sink.rows_out.get();
    assert!(waiting * 30 < 2 << 20, "{waiting} rows wait for the task");
    job.control().stop(false);
    ended(&job).unwrap();
    assert_eq!(source.rows_out.get(), sink.rows_out.get(), "the stop finished what was in flight");
}

#[test]
fn a_stuck_sink_holds_only_the_sources_that_feed_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let stuck = Probe::of("half-stuck");
    stuck.stuck.store(true, SeqCst);
    let mut plan = Builder::new();
    plan.settings.in_flight_bytes = 512 << 10;
    let held = plan.numbers("held", 1, config("half-stuck", json!({})));
    plan.collect("stuck", 1, held, config("half-stuck", json!({"forget": true})));
    let free = plan.numbers("free", 1, config("half-free", json!({})));
    plan.collect("out", 1, free, config("half-free", json!({"forget": true})));
    let job = start(plan.build(), 2);
    let metrics = job.metrics();
    let nodes = metrics.nodes();
    until("one sink is stuck", || nodes[0].in_flight_bytes.load(SeqCst) >= 512 << 10);
    let before = nodes[3].rows_out.get();
    until("the other goes on far beyond its budget", || nodes[3].rows_out.get() > before + 1_000_000);
    job.control().cancel();
    ended(&job).unwrap();
}

#[test]
fn an_idle_job_costs_no_processor_time() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut plan = Builder::new();
    // It gives 500 rows in its first half second, then nothing for a long time.
    let numbers = plan.numbers("numbers", 2, config("idle", json!({"splits": 2, "rate": 1})));
    let pass = plan.pass("pass", 2, numbers, json!({}), true);
    let window = plan.window("stats", 4, pass, Duration::from_secs(1));
    plan.collect("out", 4, window, config("idle", json!({})));
    let job = start(plan.build(), 4);
    until("a row has come", || job.metrics().nodes()[0].rows_out.get() > 0);
    std::thread::sleep(Duration::from_millis(300));
    let before = processor_time();
    std::thread::sleep(Duration::from_secs(2));
    let spent = processor_time() - before;
    assert!(spent <= Duration::from_millis(40), "{spent:?} of processor time in 2 s");
    job.control().stop(false);
    ended(&job).unwrap();
}
