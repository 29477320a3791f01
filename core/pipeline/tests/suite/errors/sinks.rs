//! Sinks: connectors, formats, the modes that they take, how plugins fail.

use super::{check, errors, replaced};
use crate::fixture;
use standpipe_pipeline::{Class, Defaults, LoadOptions, PipelineFile};
use std::path::Path;

#[test]
fn sinks() {
    check(&[
        ("sinks:\n  out: {input: stats, connector: records, with: {path: out.jsonl}}\n", "", "pipeline.yaml:1:1: missing key \"sinks\""),
        (
            "  out: {input: stats, connector: records, with: {path: out.jsonl}}\n",
            "",
            "pipeline.yaml:16:1: sinks: expected a map, found nothing",
        ),
        (
            "{input: stats, connector",
            "{input: hot.late, connector",
            "pipeline.yaml:17:16: sinks.out.input: \"hot\" has no output \"late\"; outputs: main",
        ),
        (
            "{input: stats, connector",
            "{input: hot.errors, connector",
            "pipeline.yaml:17:16: sinks.out.input: \"hot\" has no output \"errors\"; outputs: main",
        ),
        (
            "{input: stats, connector",
            "{input: stats.lat, connector",
            "pipeline.yaml:17:16: sinks.out.input: \"stats\" has no output \"lat\", did you mean \"late\"?",
        ),
        (
            "{input: stats, connector",
            "{input: stat, connector",
            "pipeline.yaml:17:16: sinks.out.input: there is no node \"stat\", did you mean \"stats\"?",
        ),
        ("{input: stats, connector: records", "{connector: records", "pipeline.yaml:17:3: sinks.out: missing key \"input\""),
        (
            "connector: records",
            "connector: record",
            "pipeline.yaml:17:34: sinks.out.connector: there is no sink \"record\", did you mean \"records\"? Found: appends, broken, records, rows. Searched: nothing",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl, single: 1}",
            "pipeline.yaml:17:75: sinks.out.with.single: expected true or false, found \"1\"",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl, single: true}, parallelism: 2",
            "pipeline.yaml:17:95: sinks.out.parallelism: this plugin runs with at most 1 subtask with this configuration, not 2",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl, key: [hst]}",
            "pipeline.yaml:17:43: sinks.out.with: records wants the column \"hst\", which \"stats\" does not have, did you mean \"host\"?",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl}, format: {type: json, on_error: skip}",
            "pipeline.yaml:17:89: sinks.out.format: unknown key \"on_error\"; there are no other keys",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl}, format: raw",
            "pipeline.yaml:17:76: sinks.out.format: the format raw has exactly one column, but the schema has 5",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl}, format: parquet",
            "pipeline.yaml:17:76: sinks.out.format: records takes records, one by one: a parquet file has no records that could be written one by one",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl}, format: {type: csv, delimitr: x}",
            "pipeline.yaml:17:88: sinks.out.format: unknown key \"delimitr\", did you mean \"delimiter\"?",
        ),
        (
            "with: {path: out.jsonl}",
            "with: {path: out.jsonl}, format: {type: csv, delimiter: x}",
            "pipeline.yaml:17:76: sinks.out.format: delimiter: 'x' is no delimiter: it must be one ASCII character that is not part of numbers and times",
        ),
        (
            "connector: records, with: {path: out.jsonl}",
            "connector: rows, with: {hosts: [x]}",
            "pipeline.yaml:17:55: sinks.out.with.hosts[0]: \"x\" is no URL",
        ),
        (
            "connector: records, with: {path: out.jsonl}",
            "connector: rows, with: {hosts: [], mode: creat}",
            "pipeline.yaml:17:64: sinks.out.with.mode: unknown value \"creat\", did you mean \"create\"?",
        ),
        (
            "connector: records, with: {path: out.jsonl}",
            "connector: rows, with: {hosts: []}, format: json",
            "pipeline.yaml:17:67: sinks.out.format: rows takes rows, not records; remove \"format\"",
        ),
        (
            "connector: records, with: {path: out.jsonl}",
            "connector: broken, with: {how: other}",
            "pipeline.yaml:17:54: sinks.out.with.how: neither outside nor panic",
        ),
    ]);
}

#[test]
fn change_modes() {
    let file = |sink: &str, transform: &str| {
        format!(
            "name: m\nsources:\n  s: {{connector: numbers, event_time: {{column: ts}}}}\ntransforms:\n  t: {{input: s, key_by: name, aggregate: {{n: count(*)}}}}\n{transform}sinks:\n  o: {{{sink}}}\n"
        )
    };
    let rows = "connector: rows, with: {hosts: []}";
    for (sink, transform, message) in [
        (
            "input: t, connector: appends".to_owned(),
            "",
            "pipeline.yaml:7:14: sinks.o.input: t -> o: the sink \"appends\" takes append streams, t is an upsert stream by name",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {input: t, select: {n: n}}\n",
            "pipeline.yaml:6:17: transforms.u.select: t is an upsert stream by name; select must keep the column \"name\"",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {input: t, select: {name: name, op: n}}\n",
            "pipeline.yaml:6:17: transforms.u.select: the column \"op\" is the row kind of t, an upsert stream by name; give yours another name",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {input: t, key_by: name, aggregate: {m: max(n)}}\n",
            "pipeline.yaml:6:14: transforms.u.input: an aggregate takes append streams, \"t\" is an upsert stream by name",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {input: t, window: {tumbling: 1s}, aggregate: {m: max(n)}}\n",
            "pipeline.yaml:6:14: transforms.u.input: a window takes append streams, \"t\" is an upsert stream by name",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {input: t, transform: tag}\n",
            "pipeline.yaml:6:14: transforms.u.input: the transform \"tag\" takes append streams, \"t\" is an upsert stream by name",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {input: t, transform: tag, with: {accepts: [retract]}}\n",
            "pipeline.yaml:6:14: transforms.u.input: the transform \"tag\" takes retract streams, \"t\" is an upsert stream by name",
        ),
        ("input: u, connector: appends".to_owned(), "  u: {input: t, transform: tag, with: {accepts: [upsert]}}\n", ""),
        (
            format!("input: u, {rows}"),
            "  u: {input: s, key_by: name, transform: run-length, with: {column: name}}\n",
            "pipeline.yaml:6:14: transforms.u.input: the transform \"run-length\" does not take the column \"list\" of type list<int64>; leave it out or cast it in a select",
        ),
        (
            format!("input: u, {rows}"),
            "  u: {inputs: [t, s], union: true}\n",
            "pipeline.yaml:6:19: transforms.u.inputs[1]: \"t\" and \"s\" cannot be one stream: one is an upsert stream by name, the other is an append stream",
        ),
        (
            format!("input: s, {rows}"),
            "",
            "pipeline.yaml:7:14: sinks.o.input: the sink \"rows\" does not take the column \"list\" of type list<int64>; leave it out or cast it in a select",
        ),
        (
            "input: t, connector: appends".to_owned(),
            "  u: {input: s, window: {tumbling: 1500ms}, aggregate: {m: max(n)}}\n",
            "pipeline.yaml:6:36: transforms.u.window: a window of 1s500ms is finer than the event time \"ts\", which counts in 1s\n\
             pipeline.yaml:8:14: sinks.o.input: t -> o: the sink \"appends\" takes append streams, t is an upsert stream by name",
        ),
    ] {
        assert_eq!(errors(&file(&sink, transform)), message);
    }
}

#[test]
fn failures_of_plugins_have_their_class() {
    let text = |how: &str| replaced("connector: records, with: {path: out.jsonl}", &format!("connector: broken, with: {{how: {how}}}"));
    let failure = |how: &str| {
        let file = PipelineFile::parse(Path::new("pipeline.yaml"), &text(how), &LoadOptions::default()).unwrap();
        file.plan(&fixture::catalogue(), &Defaults::default()).unwrap_err()
    };
    let outside = failure("outside");
    assert_eq!(outside.to_string(), "pipeline.yaml:17:3: sinks.out: broken: cannot reach it");
    assert_eq!((outside.class, outside.exit_code()), (Class::External, 3));
    let panicked = failure("panic");
    assert!(panicked.to_string().starts_with("pipeline.yaml:17:3: sinks.out: plugin \"broken\" panicked in "), "{panicked}");
    assert!(panicked.to_string().contains("out of cheese"), "{panicked}");
    assert_eq!(panicked.exit_code(), 2);
}
