//! Every row once, whatever goes wrong; the right index, the right document.

use crate::support::{batch, columns, config, counts, flush, numbers, rejections, sink, stand_in, write, write_rows};
use arrow_array::{Int64Array, StringArray};
use serde_json::{Value, json};
use standpipe_connector_elasticsearch::ElasticsearchSink;
use standpipe_elasticsearch_stand_in::{Faults, FieldType};
use standpipe_sdk::testing::Harness;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ROWS: i64 = 2_000;

#[test]
fn every_row_arrives_once_under_every_mix_of_faults() {
    let mixes = [
        Faults::default(),
        Faults { busy_every: 3, ..Faults::default() },
        Faults { busy_items: 0.3, ..Faults::default() },
        Faults { unavailable_items: 0.3, ..Faults::default() },
        Faults { cut_after_apply: 0.3, ..Faults::default() },
        Faults {
            busy_every: 5,
            busy_items: 0.1,
            unavailable_items: 0.1,
            cut_after_apply: 0.2,
            latency: Duration::from_millis(1),
            ..Faults::default()
        },
    ];
    for (seed, faults) in (0..).zip(mixes) {
        let has_faults = seed > 0;
        let server = stand_in(Faults { seed, ..faults });
        for in_flight in [1, 4] {
            let index = format!("rows-{in_flight}");
            let mut sink = sink(config(&server.url(), json!({ "index": index, "id": ["n"], "in_flight": in_flight })));
            write_rows(&mut sink, 0..ROWS, 130);
            flush(&mut sink);
            assert_eq!(numbers(&server, &index), (0..ROWS).collect::<Vec<_>>(), "mix {seed}");
            assert_eq!(sink.host.acknowledged(), sink.written());
            let counts = counts(&sink.host);
            assert_eq!((counts["documents_ok"], counts["documents_in_flight"]), (2_000, 0), "mix {seed}");
            assert_eq!(counts["documents_retried"] > 0, has_faults, "mix {seed}: {counts:?}");
            sink.finish().unwrap();
        }
    }
}

#[test]
fn without_ids_a_row_that_was_not_applied_is_written_once() {
    let server = stand_in(Faults { seed: 9, busy_every: 4, busy_items: 0.2, unavailable_items: 0.1, ..Faults::default() });
    let mut sink = sink(config(&server.url(), json!({})));
    assert!(!sink.validate().unwrap().details.capabilities.idempotent);
    write_rows(&mut sink, 0..ROWS, 64);
    flush(&mut sink);
    assert_eq!(numbers(&server, "rows"), (0..ROWS).collect::<Vec<_>>());
}

#[test]
fn a_replay_with_ids_changes_nothing() {
    let server = stand_in(Faults::default());
    for op_type in ["index", "create"] {
        let mut sink = sink(config(&server.url(), json!({ "index": op_type, "id": ["host", "n"], "op_type": op_type })));
        assert!(sink.validate().unwrap().details.capabilities.idempotent);
        write_rows(&mut sink, 0..300, 100);
        flush(&mut sink);
        sink.restart();
        // A harness goes on counting; the new instance starts at 1.
        let mut sink = self::sink(config(&server.url(), json!({ "index": op_type, "id": ["host", "n"], "op_type": op_type })));
        write_rows(&mut sink, 100..400, 100);
        flush(&mut sink);
        assert_eq!(numbers(&server, op_type), (0..400).collect::<Vec<_>>(), "{op_type}");
        assert_eq!(counts(&sink.host)["documents_ok"], 300);
        let versions: Vec<u64> = server.documents(op_type).iter().map(|document| document.version).collect();
        assert_eq!(versions.contains(&2), op_type == "index", "create leaves a document as it is");
    }
    assert_eq!(server.documents("index")[0].id, "h0|0");
}

#[test]
fn documents_have_the_columns_and_go_to_the_index_of_their_row() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "index": "{host}-{ts:%Y.%m.%d}", "id": ["n"] })));
    write(&mut sink, &batch(0..3_000));
    sink.finish().unwrap();
    let documents = server.documents("*");
    assert_eq!(documents.len(), 3_000);
    for document in &documents {
        let n = document.source["n"].as_i64().unwrap();
        assert_eq!(document.index, format!("h{}-1970.01.{:02}", n % 7, n / 1_440 + 1));
        assert_eq!(document.source["ts"], format!("1970-01-{:02}T{:02}:{:02}:00Z", n / 1_440 + 1, n / 60 % 24, n % 60));
    }
    assert_eq!(documents[0].source, json!({ "host": "h0", "n": 0, "ts": "1970-01-01T00:00:00Z" }));
}

#[test]
fn a_row_without_an_index_goes_to_the_fallback_or_to_the_dead_letters() {
    let server = stand_in(Faults::default());
    let hosts = columns(vec![("host", Arc::new(StringArray::from(vec![Some("a"), None, Some("B")])))]);
    let made = |more: Value| Harness::sink::<ElasticsearchSink>(config(&server.url(), more), hosts.schema());
    let mut fallback = made(json!({ "index": "x-{host}", "index_fallback": "x-unknown" }));
    write(&mut fallback, &hosts);
    fallback.finish().unwrap();
    assert_eq!(counts(&fallback.host)["index_fallbacks"], 2);
    assert_eq!(server.documents("x-unknown").len(), 2);
    let mut dead = made(json!({ "index": "x-{host}", "on_reject": "dead-letter" }));
    write(&mut dead, &hosts);
    dead.finish().unwrap();
    let seen = rejections(&dead.host);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [(1, 1), (1, 2)]);
    assert_eq!(seen[&(1, 1)]["type"], "no_index_name");
    assert_eq!(counts(&dead.host)["documents_dead_lettered"], 2);
    assert_eq!(server.documents("x-a").len(), 2);
}

/// Every seventh row has a host that is no number.
fn with_conflicts(server: &standpipe_elasticsearch_stand_in::StandIn) {
    let field_types = vec![FieldType { index: "rows".to_owned(), field: "host".to_owned(), kind: "long".to_owned() }];
    server.set_faults(Faults { seed: 4, busy_items: 0.2, field_types, ..Faults::default() });
}

fn some_wrong(rows: std::ops::Range<i64>) -> arrow_array::RecordBatch {
    let hosts: StringArray = rows.clone().map(|n| Some(if n % 7 == 3 { "x".to_owned() } else { n.to_string() })).collect();
    columns(vec![("host", Arc::new(hosts)), ("n", Arc::new(Int64Array::from_iter_values(rows)))])
}

#[test]
fn a_refused_row_goes_to_the_dead_letters_with_the_reason() {
    let server = stand_in(Faults::default());
    with_conflicts(&server);
    let mut sink = Harness::sink::<ElasticsearchSink>(
        config(&server.url(), json!({ "id": ["n"], "on_reject": "dead-letter" })),
        some_wrong(0..0).schema(),
    );
    write(&mut sink, &some_wrong(0..100));
    write(&mut sink, &some_wrong(100..200));
    flush(&mut sink);
    let expected: Vec<i64> = (0..200).filter(|n| n % 7 == 3).collect();
    let seen = rejections(&sink.host);
    let rows: Vec<i64> = seen.keys().map(|(seq, row)| (i64::try_from(*seq).unwrap() - 1) * 100 + i64::from(*row)).collect();
    assert_eq!(rows, expected);
    let first = &seen[&(1, 3)];
    assert_eq!(
        (&first["status"], &first["type"], &first["index"], &first["id"]),
        (&json!(400), &json!("mapper_parsing_exception"), &json!("rows"), &json!("3"))
    );
    assert!(first["reason"].as_str().unwrap().contains("failed to parse field [host] of type [long]"));
    assert_eq!(numbers(&server, "rows"), (0..200).filter(|n| n % 7 != 3).collect::<Vec<_>>());
    let counts = counts(&sink.host);
    assert_eq!((counts["documents_dead_lettered"], counts["documents_in_flight"]), (expected.len() as u64, 0));
    assert_eq!(sink.host.acknowledged(), 2);
}

#[test]
fn a_refused_row_fails_the_job_unless_told_otherwise() {
    let server = stand_in(Faults::default());
    with_conflicts(&server);
    let made = |more: Value| Harness::sink::<ElasticsearchSink>(config(&server.url(), more), some_wrong(0..0).schema());
    let mut fail = made(json!({ "id": ["n"] }));
    // The first write waits for the first answer, and so may be the one that says it.
    let error = fail.write(&some_wrong(0..100)).and_then(|_| fail.flush()).unwrap_err().to_string();
    assert!(error.contains("mapper_parsing_exception: failed to parse field [host]") && error.contains("on_reject"), "{error}");
    assert_eq!(fail.host.acknowledged(), 0);
    assert!(fail.write(&some_wrong(0..1)).is_err(), "a failed sink takes nothing");
    let mut dropped = made(json!({ "id": ["n"], "on_reject": "drop" }));
    write(&mut dropped, &some_wrong(0..100));
    flush(&mut dropped);
    assert_eq!((counts(&dropped.host)["documents_dropped"], dropped.host.acknowledged(), dropped.host.rejections().len()), (14, 1, 0));
}

#[test]
fn a_document_that_no_request_can_carry_is_found_and_rejected() {
    let server = stand_in(Faults { max_body_bytes: Some(4_000), ..Faults::default() });
    let texts: StringArray = (0..60).map(|n| Some("x".repeat(if n == 37 { 5_000 } else { 10 }))).collect();
    let rows = columns(vec![("n", Arc::new(Int64Array::from_iter_values(0..60))), ("text", Arc::new(texts))]);
    let settings =
        config(&server.url(), json!({ "id": ["n"], "on_reject": "dead-letter", "batch": { "max_docs": 1000, "max_age": "5ms" } }));
    let mut sink = Harness::sink::<ElasticsearchSink>(settings, rows.schema());
    write(&mut sink, &rows);
    flush(&mut sink);
    assert_eq!(
        rejections(&sink.host).into_iter().map(|(place, details)| (place, details["status"].clone())).collect::<Vec<_>>(),
        [((1, 37), json!(413))]
    );
    assert_eq!(numbers(&server, "rows"), (0..60).filter(|n| *n != 37).collect::<Vec<_>>());
}

#[test]
fn gzip_makes_requests_smaller_and_changes_nothing_else() {
    let sizes = [false, true].map(|gzip| {
        let server = stand_in(Faults::default());
        let mut sink = sink(config(&server.url(), json!({ "id": ["n"], "gzip": gzip, "batch": { "max_docs": 1000 } })));
        write_rows(&mut sink, 0..ROWS, 500);
        sink.finish().unwrap();
        assert_eq!(numbers(&server, "rows"), (0..ROWS).collect::<Vec<_>>());
        server.largest_body()
    });
    assert!(sizes[1] * 3 < sizes[0], "{sizes:?}");
}

/// Refused, retried, cut, a dead letter or dropped: every row is counted, and none twice.
#[test]
fn every_row_is_counted_once_under_faults() {
    for (seed, policy) in (0..).zip(["dead-letter", "drop"]) {
        let server = stand_in(Faults::default());
        let mut sink = Harness::sink::<ElasticsearchSink>(
            config(&server.url(), json!({ "id": ["n"], "on_reject": policy, "in_flight": 3 })),
            some_wrong(0..0).schema(),
        );
        let field_types = vec![FieldType { index: "rows".to_owned(), field: "host".to_owned(), kind: "long".to_owned() }];
        server.set_faults(Faults {
            seed,
            busy_every: 5,
            busy_items: 0.1,
            unavailable_items: 0.1,
            cut_before_apply: 0.1,
            cut_after_apply: 0.1,
            field_types,
            ..Faults::default()
        });
        for batch in 0..40 {
            write(&mut sink, &some_wrong(batch * 50..batch * 50 + 50));
        }
        flush(&mut sink);
        let counts = counts(&sink.host);
        let wrong = (0..2_000).filter(|n| n % 7 == 3).count() as u64;
        let refused = if policy == "drop" { "documents_dropped" } else { "documents_dead_lettered" };
        assert_eq!((counts["documents_in"], counts["documents_in_flight"], counts[refused]), (2_000, 0, wrong), "{counts:?}");
        assert_eq!(counts["documents_ok"], 2_000 - wrong);
        assert_eq!(server.documents("*").len() as u64, 2_000 - wrong);
        assert_eq!(sink.host.rejections().len() as u64, if policy == "drop" { 0 } else { wrong });
        assert!(counts["documents_retried"] > 0, "{counts:?}");
    }
}

#[test]
fn requests_are_as_rare_as_told() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({ "id": ["n"], "requests_per_second": 20.0, "in_flight": 4 })));
    let start = Instant::now();
    write_rows(&mut sink, 0..500, 50);
    flush(&mut sink);
    let (requests, seconds) = (server.bulk_requests(), start.elapsed().as_secs_f64());
    assert!(requests >= 10 && (requests - 1) as f64 <= seconds * 20.0, "{requests} requests in {seconds} s");
    assert_eq!(numbers(&server, "rows"), (0..500).collect::<Vec<_>>());
}

/// A late answer counts as a 429: requests get smaller until the server keeps up.
#[test]
fn a_slow_server_gets_smaller_requests() {
    let requests = |slow_after: &str| {
        let server = stand_in(Faults { latency: Duration::from_millis(30), ..Faults::default() });
        let mut sink =
            sink(config(&server.url(), json!({ "id": ["n"], "slow_after": slow_after, "in_flight": 1, "batch": { "max_docs": 64 } })));
        write_rows(&mut sink, 0..640, 640);
        flush(&mut sink);
        assert_eq!(counts(&sink.host)["documents_retried"], 0);
        let allowed = sink.host.metric("bulk_documents_allowed").unwrap();
        assert_eq!(allowed < 64.0, slow_after == "10ms", "{allowed} documents");
        server.bulk_requests()
    };
    let (patient, impatient) = (requests("10s"), requests("10ms"));
    assert!(patient <= 12 && impatient >= patient * 2, "{patient} and {impatient} requests");
}

#[test]
fn an_empty_batch_is_acknowledged_too() {
    let server = stand_in(Faults::default());
    let mut sink = sink(config(&server.url(), json!({})));
    write(&mut sink, &batch(0..0));
    write(&mut sink, &batch(0..10));
    write(&mut sink, &batch(0..0));
    flush(&mut sink);
    assert_eq!((sink.host.acknowledged(), server.documents("rows").len()), (3, 10));
}
