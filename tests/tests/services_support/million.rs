//! A million rows in a topic, and jobs that take them out of it, over two processes or in one, while a process dies at a named step of a checkpoint.

use super::{Kafka, PATIENCE, run, unique};
use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, all};
use std::sync::OnceLock;

pub(crate) const ROWS: i64 = 1_000_000;
/// Windows are of 10 s, rows 1 ms apart, keys as many as rows in a tenth of a window.
pub(crate) const WINDOWS: i64 = KEYS * (ROWS / 10_000);
const KEYS: i64 = 100;
const PARTITIONS: u32 = 4;
const STEPS: [&str; 8] = ["prepare", "prepared", "write", "durable", "commit", "committed", "upstream", "done"];

/// The steps at which a process is to die, and of how many it is one: where everything is to run all of them, else these.
pub(crate) fn steps(short: [(&'static str, u32); 2]) -> Vec<(&'static str, u32)> {
    if all() { STEPS.into_iter().zip([1, 2].into_iter().cycle()).collect() } else { short.to_vec() }
}

/// A topic with the rows `{n, k, t}`, filled when it is first asked for. `n` counts from 0 and makes `k`, so that every key is in every window; `t` is the time.
pub(crate) fn topic(kafka: &Kafka) -> &'static str {
    static TOPIC: OnceLock<String> = OnceLock::new();
    TOPIC.get_or_init(|| {
        let topic = unique("million");
        let fields = json!({ "n": { "kind": "sequence" }, "t": { "kind": "timestamp" } });
        let source = json!({ "connector": "generator", "with": { "count": ROWS, "step": "1ms", "fields": fields } });
        let keyed = json!({ "input": "rows", "select": { "n": "n", "k": format!("n % {KEYS}"), "t": "t" } });
        let with = kafka.with(&topic, json!({ "key": "k", "create_topic": { "partitions": PARTITIONS, "replication": 1 } }));
        let sink = json!({ "input": "keyed", "connector": "kafka", "with": with, "format": "json" });
        let pipeline =
            json!({ "name": "fill", "sources": { "rows": source }, "transforms": { "keyed": keyed }, "sinks": { "topic": sink } });
        run(&Folder::new(), &pipeline).finish().success();
        topic
    })
}

/// Reads the topic to its end: `rows` are its rows, `numbers` their `n`, `counts` count and sum by key and 10 s.
pub(crate) fn pipeline(kafka: &Kafka, name: &str, sinks: Value) -> Value {
    let with = kafka.with(topic(kafka), json!({ "bounded": true, "group": name }));
    let event_time = json!({ "column": "t", "out_of_orderness": "0s" });
    let schema = json!({ "n": "int64", "k": "int64", "t": "timestamp_us" });
    let aggregate = json!({ "n": "count(*)", "s": "sum(n)" });
    json!({
        "name": name,
        "parallelism": 2,
        "checkpoint": { "interval": "50ms", "dir": "checkpoints" },
        // A slow sink would have most rows in flight before the first checkpoint, and few would be left for the next.
        "engine": { "in_flight_bytes": "1MiB" },
        "restart": { "strategy": "fixed-delay", "attempts": 3, "delay": "10ms" },
        "sources": { "rows": { "connector": "kafka", "with": with, "format": "json", "schema": schema, "event_time": event_time } },
        "transforms": {
            "counts": { "input": "rows", "key_by": ["k"], "window": { "tumbling": "10s" }, "aggregate": aggregate },
            "numbers": { "input": "rows", "select": { "n": "n" } },
        },
        "sinks": sinks,
    })
}

/// Runs the job to its end; at that step of its second checkpoint one of its processes dies, and nobody helps.
pub(crate) fn dies_at(step: &str, processes: u32, folder: &Folder, pipeline: &Value, environment: impl Fn(Run) -> Run) {
    let name = pipeline["name"].as_str().unwrap();
    let run = environment(run(folder, pipeline)).args(["--processes", &processes.to_string()]).timeout(5 * PATIENCE);
    let run = run.env("STANDPIPE_RUN_DIR", folder.at("run")).env("STANDPIPE_CRASH_AT", format!("{step}:2")).finish().code(0);
    let died = match processes {
        1 => vec![format!("{name}: its process was killed by signal 6")],
        _ => (0..processes).map(|process| format!("{name}: process {process} of its {processes} was killed by signal 6")).collect(),
    };
    assert!(died.iter().any(|died| run.stderr.contains(died)), "{step} of {processes}: {}", run.stderr);
    let checkpoint = if ["prepare", "prepared", "write"].contains(&step) { 1 } else { 2 };
    let goes_on = format!("{name}: goes on from checkpoint {checkpoint} in ");
    assert!(run.stderr.contains(&goes_on), "{step} of {processes}: {}", run.stderr);
    assert_eq!(run.stderr.matches("it is started again").count(), 1, "{step} of {processes}: {}", run.stderr);
}
