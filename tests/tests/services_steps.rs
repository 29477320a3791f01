//! A process dies at each named step of a checkpoint, before and after each arrow of: sink prepared -> checkpoint durable -> sink committed -> upstream committed; between a real
//! Kafka and real services, on a million rows. The job is started again by itself, and what it leaves is as if nothing had happened. All steps with `cargo xtask test --all`, else two of each.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{
    Bucket, Kafka, OpenSearch,
    million::{ROWS, WINDOWS, dies_at, pipeline, steps},
    unique, with_s3,
};
use standpipe_tests::{Folder, Seen, all, assert_windows, read_rows, rows};

fn sink(input: &str, connector: &str, with: &Value) -> Value {
    json!({ "input": input, "connector": connector, "with": with })
}

fn as_json(mut sink: Value) -> Value {
    sink["format"] = json!("json");
    sink
}

/// Readers of committed records see every row, and every window, once.
#[test]
fn at_each_step_from_kafka_to_kafka_exactly_once() {
    let Some(kafka) = Kafka::shared() else { return };
    // They are quick: where there is time, each step once more in the other number of processes.
    let steps = steps([("durable", 1), ("committed", 2)]);
    let again = steps.iter().filter(|_| all()).map(|(step, processes)| (*step, 3 - processes));
    for (step, processes) in again.chain(steps.iter().copied()) {
        let (rows_to, windows_to) = (unique("all"), unique("windows"));
        let to = |topic: &str| {
            let create = json!({ "partitions": 3, "replication": 1 });
            // What is held is little, so that there are rows for several checkpoints.
            kafka.with(topic, json!({ "delivery": "exactly-once", "max_pending": "1MiB", "create_topic": create }))
        };
        let sinks = json!({ "all": as_json(sink("numbers", "kafka", &to(&rows_to))), "windows": as_json(sink("counts", "kafka", &to(&windows_to))) });
        let folder = Folder::new();
        dies_at(step, processes, &folder, &pipeline(&kafka, &unique("to-kafka"), sinks), |run| run);
        kafka.copy_rows(&rows_to, &json!({ "n": "int64" }), &folder, "all.jsonl");
        Seen::none_of(ROWS).and_file(folder.at("all.jsonl")).assert_once(&format!("{step} of {processes}"));
        let columns = json!({ "k": "int64", "window_start": "int64", "n": "int64", "s": "int64" });
        kafka.copy_rows(&windows_to, &columns, &folder, "windows.jsonl");
        assert_windows(&read_rows(folder.at("windows.jsonl")), ROWS);
    }
}

/// The ids make every row one document, written however often.
#[test]
fn at_each_step_from_kafka_to_elasticsearch_and_opensearch_by_id() {
    let Some(kafka) = Kafka::shared() else { return };
    for search in OpenSearch::each() {
        // Nothing is committed there: what a flush has delivered is there.
        for (step, processes) in
            steps([("prepared", 1), ("upstream", 2)]).into_iter().filter(|(step, _)| !["commit", "committed"].contains(step))
        {
            let (all, windows) = (unique("all"), unique("windows"));
            let more = json!({ "batch": { "max_docs": 5_000 } });
            let sinks = json!({
                "all": sink("rows", "elasticsearch", &search.with(&search.url, &all, &["n"], &more)),
                "windows": sink("counts", "elasticsearch", &search.with(&search.url, &windows, &["k", "window_start"], &more)),
            });
            dies_at(step, processes, &Folder::new(), &pipeline(&kafka, &unique("to-search"), sinks), |run| run);
            // The id of a row is its number: so many different whole numbers, none beyond the last, are all of them.
            let found = sums(&search, &all, &["n", "k"]);
            let expected = [stats(ROWS, 0, ROWS - 1, ROWS * (ROWS - 1) / 2), stats(ROWS, 0, 99, ROWS / 100 * (99 * 100 / 2))];
            assert_eq!(found, expected, "{step} of {processes}: {}", search.url);
            let [counts, sums] = sums(&search, &windows, &["n", "s"]).try_into().unwrap();
            assert_eq!(
                (counts, &sums["count"], &sums["sum"]),
                (stats(WINDOWS, 100, 100, ROWS), &json!(WINDOWS), &json!(ROWS * (ROWS - 1) / 2))
            );
            search.must("DELETE", &format!("{},{}", search.index(&all), search.index(&windows)), &Value::Null);
        }
    }
}

fn stats(count: i64, min: i64, max: i64, sum: i64) -> Value {
    json!({ "count": count, "min": min, "max": max, "sum": sum })
}

/// Count, minimum, maximum and sum of whole numbers in the documents of an index.
fn sums(search: &OpenSearch, name: &str, columns: &[&str]) -> Vec<Value> {
    let index = search.index(name);
    search.must("POST", &format!("{index}/_refresh"), &Value::Null);
    let of = |column: &&str| ((*column).to_owned(), json!({ "stats": { "field": column } }));
    let question = json!({ "size": 0, "aggs": columns.iter().map(of).collect::<serde_json::Map<_, _>>() });
    let answer = search.must("POST", &format!("{index}/_search"), &question);
    let whole = |value: &Value| value.as_f64().unwrap() as i64;
    let of = |column: &&str| {
        let found = &answer["aggregations"][*column];
        stats(whole(&found["count"]), whole(&found["min"]), whole(&found["max"]), whole(&found["sum"]))
    };
    columns.iter().map(of).collect()
}

/// Parts that are seen hold every row once, and nothing is left of the process that died.
#[test]
fn at_each_step_from_kafka_to_parts_in_s3() {
    let Some(kafka) = Kafka::shared() else { return };
    for (step, processes) in steps([("commit", 1), ("done", 2)]) {
        let Some(bucket) = Bucket::new("steps") else { return };
        let parts = |input: &str| {
            let with = json!({ "path": format!("s3://{}/{input}/", bucket.name), "roll": { "size": "2MiB" } });
            as_json(sink(input, "file", &with))
        };
        let sinks = json!({ "all": parts("numbers"), "windows": parts("counts") });
        let folder = Folder::new();
        dies_at(step, processes, &folder, &pipeline(&kafka, &unique("to-s3"), sinks), |run| with_s3(run, &bucket.url));
        let (mut seen, mut windows) = (Seen::none_of(ROWS), Vec::new());
        for (name, bytes) in bucket.objects() {
            assert!(name.ends_with(".jsonl"), "{step} of {processes} leaves {name}");
            match name.starts_with("numbers/") {
                true => seen = seen.and_text(&bytes),
                false => windows.extend(rows(std::str::from_utf8(&bytes).unwrap())),
            }
        }
        seen.assert_once(&format!("{step} of {processes}"));
        assert_windows(&windows, ROWS);
    }
}
