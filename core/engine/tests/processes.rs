//! Jobs over several processes: what comes out is the same, one that fails or falls silent ends all of them with its cause, and who is not of the job changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use serde_json::json;
use standpipe_engine::{Cluster, Membership, Outcome, RunOptions, Secret, Value, run};
use standpipe_pipeline::plan::Plan;
use standpipe_sdk::CloseReason;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::Duration,
};
use support::{
    ended,
    over::{JOINING, Over, Talk, clusters, listeners, memberships, start_talking},
    plan::{Builder, config},
    plugins::{Probe, number},
    until,
};

type Totals = BTreeMap<(String, i64), (i64, i64)>;

fn windows(batches: &[RecordBatch]) -> Totals {
    let mut totals = Totals::new();
    for batch in batches {
        let start = batch.column_by_name("window_start").unwrap().as_primitive::<TimestampMicrosecondType>();
        let value = |name: &str, row: usize| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            let key = (batch.column(0).as_string::<i32>().value(row).to_owned(), start.value(row));
            assert_eq!(totals.insert(key, (value("count", row), value("sum", row))), None, "a window came twice");
        }
    }
    totals
}

fn naive(splits: u64, rows: u64, keys: u64) -> Totals {
    let mut totals = Totals::new();
    for (key, ts, n) in (0..splits).flat_map(|split| (0..rows).map(move |i| number(split, i, keys))) {
        let total = totals.entry((key, ts - ts.rem_euclid(1_000_000))).or_default();
        *total = (total.0 + 1, total.1 + n);
    }
    totals
}

/// Whatever they talk over, the processes do the same.
const TALKS: [Talk; 2] = [Talk::Clear, Talk::Tls];

/// A source without end, at some speed.
fn endless(name: &str) -> Plan {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 4, config(name, json!({"splits": 4, "rate": 20_000})));
    let pass = plan.pass("pass", 4, source, json!({}), true);
    plan.collect("out", 4, pass, config(name, json!({})));
    plan.build()
}

#[test]
fn what_comes_out_is_the_same_over_any_processes() {
    let all = [vec![2, 2], vec![1, 1, 2], vec![4, 1], vec![1, 4]];
    for (slots, talk) in all.iter().flat_map(|slots| TALKS.map(|talk| (slots, talk))) {
        let name = format!("over-{slots:?}-{talk:?}");
        let mut plan = Builder::new();
        let source = plan.numbers("numbers", 3, config(&name, json!({"splits": 5, "rows": 20_000, "keys": 31})));
        plan.collect("all", 2, source, config(&name, json!({"refuse": 1_000})));
        let stats = plan.window("stats", 4, source, Duration::from_secs(1));
        plan.collect("out", 1, stats, config(&name, json!({"acknowledge": "flush"})));
        let pass = plan.pass("pass", 4, source, json!({}), true);
        plan.collect("passed", 3, pass, config(&name, json!({})));
        let job = start_talking(plan.build(), slots, talk, RunOptions::new());
        let report = job.ended().unwrap();
        let probe = Probe::of(&name);
        assert_eq!(windows(&probe.rows("out")), naive(5, 20_000, 31), "{slots:?}");
        let mut all: Vec<i64> = (0..5).flat_map(|split| (0..20_000).map(move |i| number(split, i, 1).2)).collect();
        all.sort_unstable();
        assert!(probe.values("passed", "n") == all && probe.values("all", "n") == all, "{slots:?}");
        assert_eq!((report.end, report.totals.rows_in), (Outcome::Finished, 100_000), "the first process counts for all");
        assert_eq!(report.totals.rejected, 100, "{slots:?}");
        let committed = probe.committed.lock().unwrap();
        assert!(committed.len() == 5 && committed.values().all(|position| position == b"20000"), "{committed:?}");
        let closed = probe.closed.lock().unwrap();
        assert_eq!(closed.len(), 3 + 2 + 1 + 3);
        assert!(closed.iter().all(|(_, _, reason)| *reason == CloseReason::Finished), "{closed:?}");
        // A plugin's own numbers come from every process.
        let metrics = job.first().metrics();
        let rows = metrics.snapshot().into_iter().filter(|sample| sample.labels.get("node").is_some_and(|node| node == "sinks.passed"));
        let rows: f64 = rows.filter_map(|sample| if let Value::Counter(rows) = sample.value { Some(rows) } else { None }).sum();
        assert_eq!(rows, 100_000.0, "{slots:?}");
    }
}

#[test]
fn a_sink_that_stops_acknowledging_stops_the_sources_of_all_processes() {
    TALKS.into_iter().for_each(a_stuck_sink_stops_all_sources);
}

fn a_stuck_sink_stops_all_sources(talk: Talk) {
    let name = format!("over-stuck-{talk:?}");
    let probe = Probe::of(&name);
    probe.stuck.store(true, SeqCst);
    let mut plan = Builder::new();
    plan.settings.in_flight_bytes = 1 << 20;
    let source = plan.numbers("numbers", 2, config(&name, json!({"splits": 4, "batch": 4096, "rows": 500_000})));
    let pass = plan.pass("pass", 2, source, json!({}), true);
    plan.collect("out", 1, pass, config(&name, json!({"forget": true})));
    let job = start_talking(plan.build(), &[1, 1], talk, RunOptions { standstill: Duration::from_millis(200), ..RunOptions::new() });
    let sources: Vec<_> = job.0.iter().map(|process| process.metrics()).collect();
    let in_flight = |process: usize| sources[process].nodes()[0].in_flight_bytes.load(SeqCst);
    until("the budgets are spent", || in_flight(1) >= 1 << 20 && in_flight(0) >= 1 << 20);
    let read = probe.read.load(SeqCst);
    // That the sink is to blame nobody knows.
    until("what stands still is named", || sources.iter().all(|metrics| metrics.nodes()[0].standstills.get() > 0));
    assert!(probe.read.load(SeqCst) - read < 200_000, "the sources wait");
    probe.stuck.store(false, SeqCst);
    assert_eq!(job.ended().unwrap().totals.rows_out, 2_000_000, "everything came in the end");
}

#[test]
fn a_source_that_is_quiet_in_one_process_holds_up_no_other() {
    let mut plan = Builder::new();
    plan.settings.in_flight_bytes = 64 << 10;
    plan.idle_timeout = Duration::from_millis(50);
    // The second split, in the second process, gives nothing after its first rows.
    let source = plan.numbers(
        "numbers",
        2,
        config("over-quiet", json!({"splits": 2, "rows": 100_000, "rate": 40_000, "quiet_from": 1, "quiet_after": 10})),
    );
    let stats = plan.window("stats", 2, source, Duration::from_millis(100));
    plan.collect("out", 2, stats, config("over-quiet", json!({"acknowledge": "flush"})));
    let job = start_talking(plan.build(), &[1, 1], Talk::Tls, RunOptions::new());
    let probe = Probe::of("over-quiet");
    until("the first split's windows have fired", || probe.values("out", "count").iter().sum::<i64>() > 30_000);
    probe.awake.store(true, SeqCst);
    assert_eq!(job.ended().unwrap().totals.rows_in, 200_000);
}

#[test]
fn a_failure_in_any_process_ends_all_with_its_cause() {
    for (broken, said, talk) in [
        (json!({"splits": 2, "rate": 20_000, "fail_at": 3_000}), " is broken", Talk::Clear),
        (json!({"splits": 2, "rate": 20_000, "fail_at": 3_000}), " is broken", Talk::Tls),
        (json!({"splits": 2, "rate": 20_000, "panic_at": 3_000}), "the source is broken at row ", Talk::Tls),
    ] {
        let name = format!("over-broken-{talk:?}-{broken}");
        let mut plan = Builder::new();
        let good = plan.numbers("good", 2, config(&name, json!({"splits": 2, "rate": 20_000})));
        plan.collect("kept", 2, good, config(&name, json!({})));
        let mut more = config(&name, broken);
        more["quiet_from"] = json!(0);
        let bad = plan.numbers("bad", 2, more);
        plan.collect("out", 2, bad, config(&name, json!({})));
        let job = start_talking(plan.build(), &[1, 1], talk, RunOptions::new());
        let error = job.ended().unwrap_err();
        assert!(error.to_string().contains(said) && error.node == "sources.bad", "{error}");
        assert!(job.0.iter().all(|process| !process.control().is_alone()), "the first was there to be told");
    }
}

#[test]
fn a_process_that_is_gone_or_silent_ends_the_job_by_name() {
    TALKS.into_iter().for_each(one_that_is_gone_or_silent_is_named);
}

fn one_that_is_gone_or_silent_is_named(talk: Talk) {
    let plan = Arc::new(endless(&format!("over-gone-{talk:?}")));
    let options = |cluster: &Arc<Cluster>| RunOptions {
        slots: vec![2, 2],
        cluster: Some(Arc::clone(cluster)),
        lease: Duration::from_millis(500),
        ..RunOptions::new()
    };
    let own = std::process::id();
    // Connected, and then never heard of: as a process that is stopped.
    let connected = clusters(&plan, 2, talk);
    let error = ended(&run(Arc::clone(&plan), options(&connected[0])).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), format!("process 1 (pid {own}) has not been heard of for 0 s"));
    let connected = clusters(&plan, 2, talk);
    let other = run(Arc::clone(&plan), options(&connected[1])).unwrap();
    let error = ended(&other).unwrap_err();
    assert_eq!(error.to_string(), format!("process 0 (pid {own}) has not been heard of for 0 s"));
    assert!(other.control().is_alone(), "nobody else can say why");
    // Gone in the midst of it: as a process that is killed.
    for gone in [0, 1] {
        let name = format!("over-gone-{gone}-{talk:?}");
        let job = start_talking(endless(&name), &[1, 2, 1], talk, RunOptions::new());
        until("rows come through", || Probe::of(&name).row_count("out") > 1_000);
        if gone == 0 {
            job.first().control().cancel();
            assert_eq!(job.ended().unwrap().end, Outcome::Cancelled);
        } else {
            job.0[gone].control().cancel();
            let error = job.ended().unwrap_err();
            assert_eq!(error.to_string(), format!("process {gone} (pid {own}) has ended without a word"));
        }
    }
}

#[test]
fn a_stop_is_one_of_all_processes() {
    for (drain, talk) in [false, true].into_iter().flat_map(|drain| TALKS.map(|talk| (drain, talk))) {
        let name = format!("over-stop-{drain}-{talk:?}");
        let job = start_talking(endless(&name), &[2, 2], talk, RunOptions::new());
        let probe = Probe::of(&name);
        until("rows come through", || probe.row_count("out") > 1_000);
        job.first().control().stop(drain);
        let report = job.ended().unwrap();
        assert_eq!(report.end, Outcome::Stopped);
        assert_eq!(report.totals.rows_in, report.totals.rows_out, "what was in flight is delivered");
        assert_eq!(probe.row_count("out") as u64, report.totals.rows_out);
    }
}

/// Whoever comes to the port and is not of the job; `own` is what the second process says of itself.
fn hostile(address: std::net::SocketAddr, own: &Membership) -> Vec<thread::JoinHandle<Vec<TcpStream>>> {
    let connect = move || TcpStream::connect(address).unwrap();
    let tls = own.tls.is_some();
    let stranger = move |membership: Membership| {
        thread::spawn(move || {
            // It answers to no other process, so that one waits in vain; it is told so by its own deadline, or by a refusal.
            let (mut listeners, mut addresses) = listeners(membership.processes);
            addresses[0] = address;
            let listener = listeners.remove(1);
            Cluster::join(listener, &addresses, &membership, Duration::from_secs(2)).unwrap_err();
            Vec::new()
        })
    };
    let mut all = vec![
        // Silent ones, and one that says a byte now and then.
        thread::spawn(move || (0..100).map(|_| connect()).collect()),
        thread::spawn(move || {
            let mut slow = connect();
            for byte in b"standpip\x01\0\0\0" {
                if slow.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
            vec![slow]
        }),
        // Those that speak something else, and hear nothing.
        thread::spawn(move || {
            for said in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20), vec![0; 1 << 20], vec![255; 4096]] {
                let mut stream = connect();
                // It may be dropped before it has said all.
                _ = stream.write_all(&said);
                let mut heard = Vec::new();
                _ = stream.read_to_end(&mut heard);
                // TLS says what it has not understood: an alert, of 7 bytes.
                assert!(heard.is_empty() || tls && heard[0] == 21 && heard.len() == 7, "{heard:?}");
            }
            Vec::new()
        }),
    ];
    let peer = own.clone();
    all.push(stranger(Membership { secret: Secret::random().unwrap(), ..peer.clone() }));
    all.push(stranger(Membership { job_id: "cd".repeat(16), ..peer.clone() }));
    all.push(stranger(Membership { attempt: 7, ..peer }));
    all
}

#[test]
fn who_is_not_of_the_job_changes_nothing() {
    TALKS.into_iter().for_each(strangers_change_nothing);
}

fn strangers_change_nothing(talk: Talk) {
    let name = format!("over-hostile-{talk:?}");
    let plan = Arc::new(endless(&name));
    let (mut listeners, addresses) = listeners(3);
    let own = memberships(&plan, 3, talk);
    let mut joining = Vec::new();
    let mut join = |listener, own: &Membership| {
        let (addresses, own) = (addresses.clone(), own.clone());
        joining.push(thread::spawn(move || Arc::new(Cluster::join(listener, &addresses, &own, JOINING).unwrap())));
    };
    // Two processes listen; then they come, and the last process after them.
    join(listeners.remove(0), &own[0]);
    join(listeners.remove(0), &own[1]);
    let mut strangers = hostile(addresses[0], &own[1]);
    strangers.extend(hostile(addresses[1], &own[1]));
    let silent: Vec<Vec<TcpStream>> = strangers.into_iter().map(|stranger| stranger.join().unwrap()).collect();
    join(listeners.remove(0), &own[2]);
    let connected: Vec<Arc<Cluster>> = joining.into_iter().map(|thread| thread.join().unwrap()).collect();
    drop(silent);
    let options = |cluster| RunOptions { slots: vec![2, 1, 1], cluster: Some(cluster), ..RunOptions::new() };
    let job = Over(connected.into_iter().map(|cluster| run(Arc::clone(&plan), options(cluster)).unwrap()).collect());
    until("rows come through", || Probe::of(&name).row_count("out") > 1_000);
    // Nobody listens any more.
    TcpStream::connect(addresses[0]).unwrap_err();
    job.first().control().stop(false);
    assert_eq!(job.ended().unwrap().end, Outcome::Stopped);
}

#[test]
fn a_process_hears_why_it_is_refused_and_who_is_missing() {
    TALKS.into_iter().for_each(who_is_refused_hears_why);
}

fn who_is_refused_hears_why(talk: Talk) {
    let plan = endless("over-refused");
    let (mut listeners, addresses) = listeners(2);
    let own = memberships(&plan, 2, talk);
    let first = {
        let (listener, addresses, own) = (listeners.remove(0), addresses.clone(), own[0].clone());
        thread::spawn(move || Cluster::join(listener, &addresses, &own, Duration::from_secs(3)).unwrap_err().to_string())
    };
    let other_plan = Membership { plan: standpipe_pipeline::plan::PlanHash(99), ..own[1].clone() };
    let refused = Cluster::join(listeners.remove(0), &addresses, &other_plan, JOINING).unwrap_err().to_string();
    assert_eq!(refused, "process 1 is refused by process 0: its plan is another: the processes have read different pipelines or plugins");
    assert_eq!(first.join().unwrap(), "process 0 has waited 3 s in vain for process 1");
}
