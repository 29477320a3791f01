//! Updates of a document stay in order, with many requests at the same time and with faults.

use crate::support::{columns, config, counts, flush, stand_in, write};
use arrow_array::{Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use serde_json::json;
use standpipe_connector_elasticsearch::ElasticsearchSink;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_sdk::{
    testing::{Harness, SinkHarness},
    wire::{ChangeMode, ROLE, ROLE_ROW_KIND},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

const KEYS: i64 = 17;

/// Upserts and deletes of a few keys: the kind follows from the number, which grows.
fn changes(rows: std::ops::Range<i64>) -> RecordBatch {
    let kind = |n: i64| if n % 11 == 0 { "-D" } else { "+U" };
    let kinds: StringArray = rows.clone().map(|n| Some(kind(n))).collect();
    let keys: StringArray = rows.clone().map(|n| Some(key(n))).collect();
    let plain = columns(vec![("op", Arc::new(kinds)), ("key", Arc::new(keys)), ("n", Arc::new(Int64Array::from_iter_values(rows)))]);
    let mut fields: Vec<Field> = plain.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[0] = fields[0].clone().with_metadata(HashMap::from([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())]));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), plain.columns().to_vec()).unwrap()
}

/// Scattered, so that a key comes several times in a batch and in every request.
fn key(n: i64) -> String {
    format!("k{}", n * n % KEYS)
}

fn expected(rows: i64) -> BTreeMap<String, i64> {
    let mut state = BTreeMap::new();
    for n in 0..rows {
        if n % 11 == 0 {
            state.remove(&key(n))
        } else {
            state.insert(key(n), n)
        };
    }
    state
}

fn upserts(url: &str, in_flight: u32) -> SinkHarness {
    let config = config(url, json!({ "in_flight": in_flight, "batch": { "max_docs": 20, "max_age": "1ms" } }));
    Harness::sink::<ElasticsearchSink>(config, changes(0..0).schema()).with_mode(ChangeMode::Upsert, &["key"])
}

fn run(server: &StandIn, in_flight: u32, rows: i64) {
    let mut sink = upserts(&server.url(), in_flight);
    for from in (0..rows).step_by(70) {
        write(&mut sink, &changes(from..rows.min(from + 70)));
    }
    flush(&mut sink);
    let state: BTreeMap<String, i64> = server.documents("rows").into_iter().map(|d| (d.id, d.source["n"].as_i64().unwrap())).collect();
    assert_eq!(state, expected(rows));
    assert_eq!(
        server.documents("rows")[0].source.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["key", "n"],
        "the row kind is no part of a document"
    );
    assert_eq!(counts(&sink.host)["documents_ok"], u64::try_from(rows).unwrap());
}

#[test]
fn each_key_ends_as_its_last_change() {
    run(&stand_in(Faults::default()), 4, 3_000);
    run(&stand_in(Faults { seed: 1, busy_items: 0.3, unavailable_items: 0.2, busy_every: 7, ..Faults::default() }), 4, 3_000);
    run(&stand_in(Faults { seed: 2, cut_after_apply: 0.2, busy_items: 0.2, ..Faults::default() }), 3, 3_000);
}

#[test]
fn a_reader_never_sees_a_key_go_back() {
    let server = stand_in(Faults { seed: 3, busy_items: 0.3, unavailable_items: 0.1, busy_every: 9, ..Faults::default() });
    server.record_operations();
    run(&server, 4, 2_000);
    let mut last = HashMap::new();
    let mut seen = 0;
    for operation in server.operations().iter().filter(|operation| operation.kind == "index") {
        let source: serde_json::Value = serde_json::from_str(&operation.source).unwrap();
        let n = source["n"].as_i64().unwrap();
        assert!(last.insert(operation.id.clone(), n).is_none_or(|before| before < n), "{} goes back to {n}", operation.id);
        seen += 1;
    }
    assert!(seen > 500, "{seen} writes");
}

#[test]
fn the_key_is_the_id_and_nothing_else_is_taken() {
    let server = stand_in(Faults::default());
    let sink = upserts(&server.url(), 2);
    let declared = sink.validate().unwrap();
    assert!(declared.details.capabilities.idempotent && declared.details.accepts.contains(&ChangeMode::Upsert));
    assert!(!declared.details.accepts.contains(&ChangeMode::Retract));
    assert_eq!(declared.details.problems, []);
    let wrong = config(&server.url(), json!({ "id": ["n"] }));
    let wrong =
        Harness::sink::<ElasticsearchSink>(wrong, changes(0..0).schema()).with_mode(ChangeMode::Upsert, &["key"]).validate().unwrap();
    assert_eq!(wrong.details.problems[0].suggestion.as_deref(), Some("[key]"));
    assert!(changes(0..1).column(0).len() == 1);
}

#[test]
fn with_create_the_first_row_of_an_id_stands() {
    let server = stand_in(Faults { seed: 5, busy_items: 0.3, unavailable_items: 0.1, ..Faults::default() });
    let rows = |rows: std::ops::Range<i64>| {
        let keys: StringArray = rows.clone().map(|n| Some(key(n))).collect();
        columns(vec![("key", Arc::new(keys)), ("n", Arc::new(Int64Array::from_iter_values(rows)))])
    };
    let settings = config(&server.url(), json!({ "id": ["key"], "op_type": "create", "in_flight": 2 }));
    let mut sink = Harness::sink::<ElasticsearchSink>(settings, rows(0..0).schema());
    for from in (0..600).step_by(60) {
        write(&mut sink, &rows(from..from + 60));
    }
    flush(&mut sink);
    let mut first = BTreeMap::new();
    (0..600).for_each(|n| _ = first.entry(key(n)).or_insert(n));
    let found: BTreeMap<String, i64> = server.documents("rows").into_iter().map(|d| (d.id, d.source["n"].as_i64().unwrap())).collect();
    assert_eq!(found, first);
    assert_eq!(counts(&sink.host)["documents_ok"], 600);
}

/// As [`changes`], with a version that falls again and again: of each key only the highest counts.
#[test]
fn with_versions_the_highest_stands_whatever_comes_last() {
    let version = |n: i64| n * 7 % 1_009;
    let rows = |rows: std::ops::Range<i64>| {
        let plain = changes(rows.clone());
        let mut fields: Vec<Field> = plain.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new("v", arrow_schema::DataType::Int64, false));
        let mut arrays = plain.columns().to_vec();
        arrays.push(Arc::new(Int64Array::from_iter_values(rows.map(version))));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    };
    let server = stand_in(Faults { seed: 6, busy_items: 0.2, unavailable_items: 0.2, cut_after_apply: 0.1, ..Faults::default() });
    let settings = config(
        &server.url(),
        json!({ "version": "column", "version_column": "v", "in_flight": 3, "batch": { "max_docs": 20, "max_age": "1ms" } }),
    );
    let mut sink = Harness::sink::<ElasticsearchSink>(settings, rows(0..0).schema()).with_mode(ChangeMode::Upsert, &["key"]);
    let mut newest = BTreeMap::new();
    // The second half is a replay of what the first has written.
    for from in (0..1_000).step_by(50).chain((0..1_000).step_by(50)) {
        write(&mut sink, &rows(from..from + 50));
        (from..from + 50).for_each(|n| {
            let best = newest.entry(key(n)).or_insert(n);
            *best = if version(n) >= version(*best) { n } else { *best };
        });
    }
    flush(&mut sink);
    newest.retain(|_, n| *n % 11 != 0);
    let found: BTreeMap<String, i64> = server.documents("rows").into_iter().map(|d| (d.id, d.source["n"].as_i64().unwrap())).collect();
    assert_eq!(found, newest);
    assert_eq!(counts(&sink.host)["documents_ok"], 2_000);
}

/// A null in `n` deletes: a topic of states, with tombstones.
#[test]
fn tombstones_and_updates_are_applied_in_order() {
    for op_type in ["index", "update"] {
        let server = stand_in(Faults { seed: 8, busy_items: 0.3, unavailable_items: 0.1, cut_before_apply: 0.1, ..Faults::default() });
        let rows = |rows: std::ops::Range<i64>| {
            let keys: StringArray = rows.clone().map(|n| Some(key(n))).collect();
            let numbers: Int64Array = rows.map(|n| (n % 5 != 0).then_some(n)).collect();
            columns(vec![("key", Arc::new(keys)), ("n", Arc::new(numbers))])
        };
        let settings = config(
            &server.url(),
            json!({ "id": ["key"], "tombstone": "n", "op_type": op_type, "in_flight": 3, "batch": { "max_docs": 20, "max_age": "1ms" } }),
        );
        let mut sink = Harness::sink::<ElasticsearchSink>(settings, rows(0..0).schema());
        for from in (0..1_000).step_by(50) {
            write(&mut sink, &rows(from..from + 50));
        }
        flush(&mut sink);
        let mut expected = BTreeMap::new();
        for n in 0..1_000 {
            if n % 5 == 0 {
                expected.remove(&key(n))
            } else {
                expected.insert(key(n), n)
            };
        }
        let found: BTreeMap<String, i64> = server.documents("rows").into_iter().map(|d| (d.id, d.source["n"].as_i64().unwrap())).collect();
        assert_eq!(found, expected, "{op_type}");
        assert_eq!(counts(&sink.host)["documents_ok"], 1_000);
        // Deleting what is not there, or was never there, is done.
        let mut gone =
            Harness::sink::<ElasticsearchSink>(config(&server.url(), json!({ "id": ["key"], "op_type": "delete" })), rows(0..0).schema());
        write(&mut gone, &rows(0..1_000));
        gone.finish().unwrap();
        assert_eq!(server.documents("rows"), []);
    }
}

#[test]
fn an_update_leaves_other_fields_alone() {
    let server = stand_in(Faults::default());
    let keys = || Arc::new(StringArray::from(vec!["a", "b"]));
    let name = columns(vec![("key", keys()), ("name", Arc::new(StringArray::from(vec!["x", "y"])))]);
    let size = columns(vec![("key", keys()), ("size", Arc::new(Int64Array::from(vec![1, 2])))]);
    for rows in [name, size] {
        let settings = config(&server.url(), json!({ "id": ["key"], "op_type": "update" }));
        let mut sink = Harness::sink::<ElasticsearchSink>(settings, rows.schema());
        write(&mut sink, &rows);
        sink.finish().unwrap();
    }
    assert_eq!(server.documents("rows")[1].source, json!({ "key": "b", "name": "y", "size": 2 }));
}
