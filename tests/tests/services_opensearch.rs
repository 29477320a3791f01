//! The binary on a real OpenSearch: documents and indices that it refuses, and a cluster that is away for some seconds.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{OpenSearch, PATIENCE, run};
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_tests::{Folder, assert_same_rows, free_port, read_rows};

/// `{n, v}` with n from 0 to 99; every tenth `v` is a text that is no number.
fn input() -> String {
    (0..100).map(|n| json!({ "n": n, "v": if n % 10 == 4 { "x".to_owned() } else { n.to_string() } }).to_string() + "\n").collect()
}

/// A run from the file `in.jsonl` into an index, with these keys in the sink's `with:` too.
fn into_index(folder: &Folder, search: &OpenSearch, index: &str, more: &Value) -> Value {
    folder.write("in.jsonl", input());
    let source =
        json!({ "connector": "file", "with": { "path": "in.jsonl" }, "format": "json", "schema": { "n": "int64", "v": "string" } });
    let sink = json!({ "input": "rows", "connector": "elasticsearch", "with": search.with(&search.url, index, &["n"], more) });
    json!({ "name": "index", "sources": { "rows": source }, "sinks": { "out": sink } })
}

/// An index whose `v` is a number.
fn with_mapping(search: &OpenSearch, index: &str) {
    search.must("PUT", &search.index(index), &json!({ "mappings": { "properties": { "v": { "type": "long" } } } }));
}

#[test]
fn a_document_that_does_not_fit_fails_the_job() {
    let Some(search) = OpenSearch::shared() else { return };
    with_mapping(&search, "strict");
    let folder = Folder::new();
    let line = run(&folder, &into_index(&folder, &search, "strict", &json!({}))).finish().one_error(1);
    assert!(line.starts_with("sinks.out: elasticsearch: "), "{line}");
    assert!(line.contains("[v] of type [long]") && line.contains(&search.index("strict")), "{line}");
}

#[test]
fn documents_that_do_not_fit_become_dead_letters() {
    let Some(search) = OpenSearch::shared() else { return };
    with_mapping(&search, "letters");
    let folder = Folder::new();
    let mut pipeline = into_index(&folder, &search, "letters", &json!({ "on_reject": "dead-letter" }));
    pipeline["sinks"]["letters"] =
        json!({ "input": "out.errors", "connector": "file", "with": { "path": "letters.jsonl" }, "format": "json" });
    let finished = run(&folder, &pipeline).finish().code(0);
    assert!(finished.stderr.trim_end().ends_with(", 10 rejected"), "{}", finished.stderr);

    let (bad, good): (Vec<_>, Vec<_>) = standpipe_tests::rows(&input()).into_iter().partition(|row| row["v"] == "x");
    assert_same_rows("documents", &search.documents("letters"), &good);
    let mut letters = read_rows(folder.at("letters.jsonl"));
    for letter in &mut letters {
        let reason = letter.remove("reason").unwrap();
        let details: Value = serde_json::from_str(letter.remove("details").unwrap().as_str().unwrap()).unwrap();
        assert!(reason.as_str().unwrap().contains("[v] of type [long]"), "{reason}");
        assert_eq!((&details["status"], &details["type"]), (&json!(400), &json!("mapper_parsing_exception")));
        assert_eq!((&details["index"], &details["id"]), (&json!(search.index("letters")), &json!(letter["n"].to_string())));
    }
    assert_same_rows("dead letters", &letters, &bad);
}

#[test]
fn an_index_that_may_not_be_made_fails_the_job() {
    let Some(search) = OpenSearch::shared() else { return };
    let forbidden = search.index("forbidden");
    let setting = |value: Value| json!({ "transient": { "action.auto_create_index": value } });
    // Of this name only: the other tests' indices are made as before.
    search.must("PUT", "_cluster/settings", &setting(json!(format!("-{forbidden},+*"))));
    let folder = Folder::new();
    let finished = run(&folder, &into_index(&folder, &search, "forbidden", &json!({}))).finish();
    search.must("PUT", "_cluster/settings", &setting(Value::Null));
    let line = finished.one_error(1);
    assert!(line.starts_with("sinks.out: elasticsearch: ") && line.contains("index_not_found_exception"), "{line}");
    assert!(line.contains(&forbidden), "{line}");
}

#[test]
fn a_name_that_no_index_may_have_is_found_before_anything_runs() {
    let Some(search) = OpenSearch::shared() else { return };
    let folder = Folder::new();
    let mut pipeline = into_index(&folder, &search, "x", &json!({}));
    pipeline["sinks"]["out"]["with"]["index"] = json!("Signals");
    let line = run(&folder, &pipeline).finish().one_error(2);
    assert!(line.ends_with("sinks.out.with.index: \"Signals\" is no index name: it has upper-case letters"), "{line}");
}

/// A name that comes with a row is known when the row is there.
#[test]
fn a_row_that_names_no_index_is_a_dead_letter() {
    let Some(search) = OpenSearch::shared() else { return };
    let folder = Folder::new();
    let mut pipeline = into_index(&folder, &search, "by-row-{v}", &json!({ "on_reject": "dead-letter" }));
    folder.write("in.jsonl", "{\"n\":1,\"v\":\"a\"}\n{\"n\":2,\"v\":\"B C\"}\n{\"n\":3,\"v\":null}\n{\"n\":4,\"v\":\"a\"}\n");
    pipeline["sinks"]["letters"] =
        json!({ "input": "out.errors", "connector": "file", "with": { "path": "letters.jsonl" }, "format": "json" });
    let finished = run(&folder, &pipeline).finish().code(0);
    assert!(finished.stderr.trim_end().ends_with(", 2 rejected"), "{}", finished.stderr);
    assert_eq!(search.documents("by-row-a").len(), 2);
    let letters = read_rows(folder.at("letters.jsonl"));
    assert_eq!(letters.iter().map(|row| row["n"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert!(letters.iter().all(|row| !row["reason"].as_str().unwrap().is_empty()), "{letters:?}");
}

#[test]
fn a_cluster_that_is_away_for_a_while_gets_everything() {
    let Some(search) = OpenSearch::shared() else { return };
    let proxy = StandIn::proxy("127.0.0.1:0", &search.url, Faults::default()).unwrap();
    let source = json!({ "connector": "generator", "with": { "rate": 2_000, "count": 10_000, "fields": { "n": { "kind": "sequence" } } } });
    let with = search.with(&proxy.url(), "away", &["n"], &json!({ "batch": { "max_docs": 200, "max_age": "20ms" } }));
    let sink = json!({ "input": "numbers", "connector": "elasticsearch", "with": with });
    let pipeline = json!({ "name": "away", "sources": { "numbers": source }, "sinks": { "out": sink } });
    let folder = Folder::new();
    let mut job = run(&folder, &pipeline).args(["--log-level", "info"]).start();
    job.wait_until("the first documents", PATIENCE, |_| search.count("away") > 0);
    proxy.set_running(false);
    job.wait_until("the sink says that it is held back", PATIENCE, |job| job.stderr().contains("does not take documents"));
    let before = search.count("away");
    assert!(before < 10_000, "the cluster was away too late");
    proxy.set_running(true);
    job.wait_until("the sink says that it goes on", PATIENCE, |job| job.stderr().contains("documents are taken again"));
    job.wait().success();
    let mut numbers: Vec<i64> = search.documents("away").iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn an_address_where_nobody_listens_is_outside() {
    let Some(search) = OpenSearch::shared() else { return };
    let folder = Folder::new();
    let mut pipeline = into_index(&folder, &search, "x", &json!({}));
    let url = format!("http://127.0.0.1:{}", free_port());
    pipeline["sinks"]["out"]["with"]["hosts"] = json!([url]);
    let line = run(&folder, &pipeline).finish().one_error(3);
    assert!(line.starts_with("sinks.out: elasticsearch: ") && line.contains(&url), "{line}");
}

#[test]
fn an_index_that_lets_nobody_write_is_one_error_at_the_start() {
    let Some(search) = OpenSearch::shared() else { return };
    search.must("PUT", &search.index("blocked"), &json!({ "settings": { "index.blocks.write": true } }));
    let folder = Folder::new();
    let line = run(&folder, &into_index(&folder, &search, "blocked", &json!({}))).finish().one_error(3);
    assert!(line.contains("does not let us write (cluster_block_exception") && line.contains(&search.index("blocked")), "{line}");
}
