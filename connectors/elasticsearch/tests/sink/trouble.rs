//! The server is away, full, or does not let us in: the sink holds back, keeps everything, says so, and goes on when it can.

use crate::support::{PATIENCE, batch, config, counts, flush, numbers, sink, stand_in, write, write_rows};
use serde_json::json;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_sdk::{ErrorCode, Written, testing::TestHost};
use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

fn is_degraded(host: &TestHost) -> bool {
    host.metric("degraded") == Some(1.0)
}

fn says(host: &TestHost, text: &str) -> bool {
    host.messages().iter().any(|message| message.contains(text))
}

#[test]
fn a_stopped_server_makes_the_sink_busy_and_loses_nothing() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"], "buffer": "64KiB" })));
    sink.open().unwrap();
    server.set_running(false);
    let host = Arc::clone(&sink.host);
    let mut taken = 0;
    while matches!(sink.write(&batch(taken * 100..taken * 100 + 100)), Ok(Written::Taken)) {
        taken += 1;
        assert!(taken < 100, "the sink takes without end");
    }
    // A row is about 80 bytes: 64 KiB are some 800 rows, and one batch may go beyond.
    assert!((5..20).contains(&taken), "{taken} batches taken");
    assert!(host.wait_until(PATIENCE, is_degraded), "{:?}", host.messages());
    assert!(says(&host, "does not take documents"), "{:?}", host.messages());
    // The host shows the errors of calls that it makes again.
    for error in [sink.write(&batch(0..100)).unwrap_err(), sink.flush().unwrap_err()] {
        assert!(error.retryable && error.message.contains("does not take documents (no answer: "), "{error}");
    }
    assert_eq!((host.acknowledged(), counts(&host)["documents_ok"], host.wakes()), (0, 0, 0));
    server.set_running(true);
    assert!(host.wait_until(PATIENCE, |host| host.wakes() > 0), "the host is woken when there is room");
    write_rows(&mut sink, taken * 100..2_000, 100);
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..2_000).collect::<Vec<_>>());
    assert!(!is_degraded(&host) && says(&host, "taken again"));
    assert_eq!(counts(&host)["documents_ok"], 2_000);
}

#[test]
fn a_flush_that_cannot_end_can_be_cancelled() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({})));
    sink.open().unwrap();
    server.set_running(false);
    write(&mut sink, &batch(0..10));
    let host = Arc::clone(&sink.host);
    let canceller = std::thread::spawn(move || {
        assert!(host.wait_until(PATIENCE, is_degraded));
        host.cancel();
    });
    assert_eq!(sink.flush().unwrap_err().code, ErrorCode::CANCELLED);
    canceller.join().unwrap();
    assert_eq!(sink.host.acknowledged(), 0);
}

#[test]
fn a_blocked_index_holds_back_its_own_rows_only() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "index": "{host}-rows", "id": ["n"] })));
    // From the start it would be an error.
    write(&mut sink, &batch(0..1));
    flush(&mut sink);
    server.set_faults(Faults { refused_indices: vec!["h3-*".to_owned()], ..Faults::default() });
    write_rows(&mut sink, 1..350, 7);
    let host = Arc::clone(&sink.host);
    let is_stuck = |host: &TestHost| host.metric("documents_ok") == Some(300.0) && host.metric("documents_in_flight") == Some(50.0);
    assert!(host.wait_until(PATIENCE, |host| is_stuck(host) && is_degraded(host)), "{:?}", counts(&host));
    assert_eq!(host.acknowledged(), 1);
    assert!(says(&host, "cluster_block_exception"), "{:?}", host.messages());
    assert!(host.rejections().is_empty());
    server.set_faults(Faults::default());
    flush(&mut sink);
    assert_eq!(numbers(&server, "*"), (0..350).collect::<Vec<_>>());
    assert_eq!((host.acknowledged(), is_degraded(&host)), (51, false));
}

#[test]
fn credentials_that_are_taken_away_pause_the_sink() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"] })));
    write(&mut sink, &batch(0..1));
    flush(&mut sink);
    server.set_faults(Faults { authorization: Some("Basic other".to_owned()), ..Faults::default() });
    write_rows(&mut sink, 1..100, 50);
    let host = Arc::clone(&sink.host);
    assert!(host.wait_until(PATIENCE, is_degraded));
    assert!(says(&host, "security_exception"), "{:?}", host.messages());
    assert_eq!(host.acknowledged(), 1);
    server.set_faults(Faults::default());
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..100).collect::<Vec<_>>());
}

#[test]
fn credentials_that_rotate_are_fetched_again() {
    let basic = |user: &str| Faults { authorization: Some(format!("Basic {user}")), ..Faults::default() };
    // user:old1, user:new2, in base64.
    let (old, new) = (basic("dXNlcjpvbGQx"), basic("dXNlcjpuZXcy"));
    let server = stand_in(old);
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"], "username": "user", "password": "${file:PASSWORD}" })));
    sink.host.set_secret("file:PASSWORD", "old1");
    write(&mut sink, &batch(0..1));
    flush(&mut sink);
    server.set_faults(new.clone());
    write_rows(&mut sink, 1..100, 50);
    let error = sink.flush().unwrap_err();
    assert!(error.retryable && error.message.contains("security_exception"), "{error}");
    assert_eq!((is_degraded(&sink.host), sink.host.acknowledged()), (true, 1));
    sink.host.set_secret("file:PASSWORD", "new2");
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..100).collect::<Vec<_>>());
    assert!(!is_degraded(&sink.host) && says(&sink.host, "the credentials have changed"), "{:?}", sink.host.messages());
    // One that is there in time is never missed.
    server.set_faults(basic("dXNlcjpub3cz"));
    sink.host.set_secret("file:PASSWORD", "now3");
    write_rows(&mut sink, 100..200, 50);
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..200).collect::<Vec<_>>());
    assert!(sink.host.rejections().is_empty());
    let logs = format!("{:?}", sink.host.logs());
    assert!(!["old1", "new2", "now3"].iter().any(|secret| logs.contains(secret)), "{logs}");
}

#[test]
fn a_job_that_goes_on_waits_for_a_blocked_index() {
    let server = stand_in(Faults { refused_indices: vec!["rows".to_owned()], ..Faults::default() });
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"] }))).with_context(|context| context.restored = true);
    write(&mut sink, &batch(0..10));
    let error = sink.flush().unwrap_err();
    assert!(error.retryable && error.message.contains("cluster_block_exception"), "{error}");
    server.set_faults(Faults::default());
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..10).collect::<Vec<_>>());
}

#[test]
fn an_answer_that_comes_too_late_is_asked_for_again() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"], "timeout": "100ms" })));
    sink.open().unwrap();
    server.set_faults(Faults { latency: std::time::Duration::from_millis(400), ..Faults::default() });
    write_rows(&mut sink, 0..200, 50);
    let host = Arc::clone(&sink.host);
    assert!(host.wait_until(PATIENCE, is_degraded));
    assert!(says(&host, "no answer within 100ms"), "{:?}", host.messages());
    server.set_faults(Faults::default());
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..200).collect::<Vec<_>>());
    assert_eq!(counts(&host)["documents_ok"], 200);
}

#[test]
fn batches_are_acknowledged_in_order() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "index": "{host}-rows", "id": ["n"], "in_flight": 3 })));
    write(&mut sink, &batch(0..1));
    flush(&mut sink);
    server.set_faults(Faults { refused_indices: vec!["h1-*".to_owned()], ..Faults::default() });
    // Row 8 alone belongs to h1.
    for row in [7, 8, 14] {
        write(&mut sink, &batch(row..row + 1));
    }
    let host = Arc::clone(&sink.host);
    // The third batch is not delivered, so the fourth is not acknowledged.
    assert!(host.wait_until(PATIENCE, |host| host.metric("documents_ok") == Some(3.0) && host.metric("documents_in_flight") == Some(1.0)));
    assert!(host.wait_until(PATIENCE, |host| host.acknowledged() == 2), "{}", host.acknowledged());
    server.set_faults(Faults::default());
    flush(&mut sink);
    assert_eq!(host.acknowledged(), 4);
}

#[test]
fn a_node_that_is_down_is_left_out() {
    let server = stand_in(Faults::default());
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hosts = [format!("http://{down}"), server.url()];
    let mut sink = sink(config("", json!({ "hosts": hosts, "id": ["n"], "retry": { "initial": "10s", "max": "60s" } })));
    write_rows(&mut sink, 0..1_000, 100);
    let start = std::time::Instant::now();
    flush(&mut sink);
    assert!(start.elapsed().as_secs() < 9, "the other node is tried without a pause");
    assert_eq!(numbers(&server, "rows"), (0..1_000).collect::<Vec<_>>());
    assert!(says(&sink.host, "is unreachable"), "{:?}", sink.host.messages());
}

#[test]
fn two_nodes_share_the_requests() {
    let first = stand_in(Faults::default());
    let second = StandIn::proxy("127.0.0.1:0", &first.url(), Faults::default()).unwrap();
    let mut sink = sink(config("", json!({ "hosts": [first.url(), second.url()], "id": ["n"] })));
    write_rows(&mut sink, 0..1_000, 100);
    flush(&mut sink);
    assert_eq!(numbers(&first, "rows"), (0..1_000).collect::<Vec<_>>());
    // What the second gets it passes on to the first.
    let (all, passed) = (first.bulk_requests(), second.bulk_requests());
    assert!(passed >= all / 3 && passed <= all * 2 / 3, "{passed} of {all}");
}

#[test]
fn what_is_refused_from_the_start_is_one_error_of_the_first_write() {
    let index = stand_in(Faults { refused_indices: vec!["rows".to_owned()], ..Faults::default() });
    let rights = stand_in(Faults::default());
    for (server, why) in [(&index, "cluster_block_exception: index [rows] blocked"), (&rights, "security_exception")] {
        let mut sink = sink(config(&server.url(), json!({ "id": ["n"], "batch": { "max_age": "60s" } })));
        sink.open().unwrap();
        if why.starts_with("security") {
            // The greeting was let in.
            server.set_faults(Faults { authorization: Some("Basic other".to_owned()), ..Faults::default() });
        }
        let start = Instant::now();
        let error = sink.write(&batch(0..10)).unwrap_err();
        assert_eq!(error.code, ErrorCode::EXTERNAL);
        assert!(error.message.contains("does not let us write") && error.message.contains(why), "{error}");
        assert!(!error.retryable && start.elapsed() < Duration::from_secs(4), "the first batch does not wait to be full");
        assert_eq!(sink.write(&batch(10..20)).unwrap_err().message, error.message, "a failed sink takes nothing");
    }
}

#[test]
fn a_server_that_is_away_at_the_first_write_is_waited_for() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"] })));
    sink.open().unwrap();
    server.set_running(false);
    assert_eq!(sink.write(&batch(0..10)).unwrap(), Written::Taken);
    server.set_running(true);
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..10).collect::<Vec<_>>());
}
