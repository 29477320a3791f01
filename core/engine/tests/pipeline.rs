//! Pipelines as users write them, planned and run: all verbs together against what they must give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use arrow::{array::AsArray, datatypes::Int64Type};
use standpipe_pipeline::{Defaults, LoadOptions, PipelineFile, plan::Plan};
use std::{collections::BTreeMap, path::Path, sync::atomic::Ordering::SeqCst};
use support::{
    ended,
    plan::catalogue,
    plugins::{Probe, number},
    run_to_end, start, until,
};

fn plan(text: &str) -> Plan {
    let file = PipelineFile::parse(Path::new("test.yaml"), text, &LoadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"));
    file.plan(&catalogue(), &Defaults::default()).unwrap_or_else(|problems| panic!("{problems}")).plan
}

/// Runs a pipeline file's text.
fn run(text: &str, slots: u32) {
    run_to_end(plan(text), slots).unwrap();
}

/// Rows per key as a sink got them from the transform `tally`.
fn tallied(probe: &Probe, sink: &str) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for batch in probe.rows(sink) {
        let keys = batch.column(0).as_string::<i32>();
        for (key, count) in keys.iter().flatten().zip(batch.column(1).as_primitive::<Int64Type>().values()) {
            *counts.entry(key.to_owned()).or_default() += count;
        }
    }
    counts
}

#[test]
fn all_verbs_give_what_they_must_at_any_parallelism() {
    for parallelism in [1, 2, 4] {
        let name = format!("verbs-{parallelism}");
        let text = format!(
            r#"
name: verbs
parallelism: {parallelism}
sources:
  numbers: {{connector: numbers, with: {{probe: {name}, splits: 5, rows: 20000, keys: 11}}, event_time: {{column: ts, out_of_orderness: 5ms}}}}
transforms:
  some: {{input: numbers, filter: "n >= 100"}}
  shaped: {{input: some, select: {{"*": true, twice: "n * 2"}}}}
  stats: {{input: shaped, key_by: [key], window: {{tumbling: 1s}}, aggregate: {{count: "count(*)", twice: "sum(twice)", max: "max(n)"}}}}
  totals: {{input: shaped, key_by: [key], aggregate: {{count: "count(*)", max: "max(n)"}}, emit: final}}
  running: {{input: shaped, aggregate: {{count: "count(*)"}}, emit: each}}
  passed: {{input: shaped, key_by: [key], transform: pass, with: {{}}}}
  both: {{inputs: [shaped, passed], union: true}}
sinks:
  windows: {{input: stats, connector: collect, with: {{probe: {name}}}}}
  keys: {{input: totals, connector: collect, with: {{probe: {name}}}, parallelism: 1}}
  counts: {{input: running, connector: collect, with: {{probe: {name}}}}}
  all: {{input: both, connector: collect, with: {{probe: {name}}}}}
  lines: {{input: some, connector: lines, format: json, with: {{probe: {name}}}}}
"#
        );
        run(&text, parallelism);

        let rows: Vec<_> = (0..5).flat_map(|split| (0..20_000).map(move |i| number(split, i, 11))).filter(|row| row.2 >= 100).collect();
        let mut windows: BTreeMap<(String, i64), (i64, i64, i64)> = BTreeMap::new();
        let mut totals: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for (key, ts, n) in &rows {
            let window = windows.entry((key.clone(), ts - ts.rem_euclid(1_000_000))).or_insert((0, 0, i64::MIN));
            *window = (window.0 + 1, window.1 + 2 * n, window.2.max(*n));
            let total = totals.entry(key.clone()).or_insert((0, i64::MIN));
            *total = (total.0 + 1, total.1.max(*n));
        }
        let probe = Probe::of(&name);
        let sorted = |mut values: Vec<i64>| {
            values.sort_unstable();
            values
        };
        let expect = |sink: &str, column: &str, values: Vec<i64>| {
            assert!(probe.values(sink, column) == sorted(values), "{sink}.{column} at parallelism {parallelism}");
        };
        expect("windows", "count", windows.values().map(|window| window.0).collect());
        expect("windows", "twice", windows.values().map(|window| window.1).collect());
        expect("windows", "max", windows.values().map(|window| window.2).collect());
        let given: BTreeMap<String, i64> = probe
            .rows("keys")
            .iter()
            .flat_map(|batch| {
                let keys = batch.column_by_name("key").unwrap().as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>();
                keys.into_iter().zip(batch.column_by_name("count").unwrap().as_primitive::<Int64Type>().values().to_vec())
            })
            .collect();
        assert_eq!(given, totals.iter().map(|(key, total)| (key.clone(), total.0)).collect());
        expect("keys", "max", totals.values().map(|total| total.1).collect());
        expect("counts", "count", (1..=rows.len() as i64).collect());
        expect("all", "n", rows.iter().flat_map(|row| [row.2, row.2]).collect());
        let lines = probe.lines("lines");
        assert_eq!(lines.len(), rows.len());
        let n = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_i64().unwrap();
        assert!(sorted(lines.iter().map(n).collect()) == sorted(rows.iter().map(|row| row.2).collect()));
    }
}

#[test]
fn a_keyed_transform_counts_in_state_and_gives_by_timers_of_event_time() {
    for parallelism in [1, 3] {
        let name = format!("tally-{parallelism}");
        let text = format!(
            r#"
name: tally
parallelism: {parallelism}
sources:
  numbers: {{connector: numbers, with: {{probe: {name}, splits: 4, rows: 30000, keys: 17}}, event_time: {{column: ts, out_of_orderness: 5ms}}}}
transforms:
  counts: {{input: numbers, key_by: [key], transform: tally, with: {{}}}}
sinks:
  out: {{input: counts, connector: collect, with: {{probe: {name}}}}}
"#
        );
        run(&text, parallelism);
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        (0..4).flat_map(|split| (0..30_000).map(move |i| number(split, i, 17).0)).for_each(|key| *expected.entry(key).or_default() += 1);
        let probe = Probe::of(&name);
        assert_eq!(tallied(&probe, "out"), expected);
        assert!(probe.row_count("out") > 17, "timers fired before the end too");
    }
}

#[test]
fn timers_of_the_clock_fire_though_nothing_comes() {
    let text = r#"
name: clock
parallelism: 2
sources:
  numbers: {connector: numbers, with: {probe: clock, splits: 2, keys: 5, rate: 100000, quiet_from: 0, quiet_after: 2000}}
transforms:
  counts: {input: numbers, key_by: [key], transform: tally, with: {clock: true}}
sinks:
  out: {input: counts, connector: collect, with: {probe: clock}}
"#;
    let job = start(plan(text), 2);
    let probe = Probe::of("clock");
    until("every row is counted", || tallied(&probe, "out").values().sum::<i64>() == 4_000);
    // What the timers gave is delivered and has left the dataflow: nothing is held back by it.
    until("nothing is in flight", || job.metrics().nodes().iter().all(|node| node.in_flight_bytes.load(SeqCst) == 0));
    job.control().stop(false);
    ended(&job).unwrap();
}

#[test]
fn broken_records_go_to_the_dead_letters() {
    let text = r#"
name: broken
sources:
  texts: {connector: texts, with: {records: 10000}, format: {type: json, on_error: dead-letter}, schema: {n: int64}}
sinks:
  good: {input: texts, connector: collect, with: {probe: broken}}
  bad: {input: texts.errors, connector: lines, format: json, with: {probe: broken}}
"#;
    run(text, 1);
    let probe = Probe::of("broken");
    assert_eq!(probe.values("good", "n"), (0..10_000).filter(|n| n % 100 != 99).collect::<Vec<_>>());
    let bad = probe.lines("bad");
    assert_eq!(bad.len(), 100);
    // The record as bytes, in base64.
    assert!(bad.iter().all(|line| line.contains("\"e2Jyb2tlbg==\"") && line.contains("at byte 1")), "{}", bad[0]);
}

#[test]
fn a_broken_record_ends_a_job_that_wants_no_broken_records() {
    let text = r#"
name: strict
sources:
  texts: {connector: texts, with: {records: 1000}, format: json, schema: {n: int64}}
sinks:
  good: {input: texts, connector: collect, with: {probe: strict}}
"#;
    let error = run_to_end(plan(text), 1).unwrap_err();
    assert_eq!((error.node.as_str(), error.class().exit_code()), ("sources.texts", 1));
    assert!(error.to_string().starts_with("sources.texts: "), "{error}");
}
