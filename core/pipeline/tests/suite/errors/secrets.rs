//! What a `${REFERENCE}` stands for is nowhere to be seen: not in what is said about a file that is wrong, not in the plan of one that is right.

use super::{GOOD, errors, replaced};
use crate::fixture;
use standpipe_pipeline::{Defaults, LoadOptions, PipelineFile, explain};
use std::path::Path;

/// Calls `check` with a reference and what it stands for.
fn with_secret(value: &str, check: impl Fn(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, value).unwrap();
    check(&format!("${{file:{}}}", path.display()));
}

#[test]
fn errors_show_what_is_written() {
    const VALUE: &str = "hunter2 (";
    with_secret(VALUE, |reference| {
        for (line, other) in [
            ("name: metrics", "name: metrics\nparallelism: 'REF'"),
            ("name: metrics", "name: metrics\nplugins: ['REF']"),
            ("name: metrics", "name: metrics\nengine: {in_flight_bytes: 'REF'}"),
            ("name: metrics", "name: metrics\ncheckpoint: {interval: 'REF'}"),
            ("name: metrics", "name: metrics\nrestart: {strategy: 'REF'}"),
            ("connector: lines", "connector: 'REF'"),
            ("format: json", "format: 'REF'"),
            ("format: json", "format: {type: json, on_error: 'REF'}"),
            ("value: float64", "value: 'REF'"),
            ("column: ts", "column: 'REF'"),
            ("out_of_orderness: 2s", "out_of_orderness: 'REF'"),
            ("input: readings", "input: 'REF'"),
            ("input: readings", "input: 'readings.REF'"),
            ("value > 90", "\"value > REF\""),
            ("value > 90", "\"value > 'REF'\""),
            ("filter: value > 90", "select: {x: \"cast('REF' as int)\"}"),
            ("filter: value > 90", "transform: 'REF'"),
            ("filter: value > 90", "transform: run-length, key_by: host, with: {column: 'REF'}"),
            ("key_by: [host]", "key_by: ['REF']"),
            ("tumbling: 10s", "tumbling: 'REF'"),
            ("mean: avg(value)", "mean: \"avg(REF)\""),
            ("    window: {tumbling: 10s}\n", "    emit: 'REF'\n"),
            ("connector: records", "connector: 'REF'"),
            ("connector: records, with: {path: out.jsonl}", "connector: rows, with: {hosts: ['REF']}"),
            ("with: {path: out.jsonl}", "with: {path: out.jsonl, key: ['REF']}"),
        ] {
            let other = other.replace("REF", reference);
            let found = errors(&replaced(line, &other));
            assert!(found.contains(reference), "{other}: {found}");
            assert!(!found.contains("hunter2"), "{other}: {found}");
        }
    });
}

#[test]
fn plans_show_what_is_written() {
    with_secret("hunter2", |reference| {
        let text = GOOD
            .replace("name: metrics", "name: metrics of REF\ncheckpoint: {interval: 10s, dir: 'REF'}")
            .replace("path: in.jsonl", "path: 'REF'")
            .replace("value > 90", "\"host <> 'REF'\"")
            .replace("count(*)", "\"max(concat(host, 'REF'))\"")
            .replace("  stats:\n", "  shaped: {input: hot, select: {'*': true, x: \"concat(host, 'REF')\"}}\n  totals: {input: hot, aggregate: {x: \"max(concat(host, 'REF'))\"}}\n  stats:\n")
            .replace("sinks:\n", "sinks:\n  one: {input: shaped, connector: appends}\n  two: {input: totals, connector: records, with: {path: x, key: [x]}}\n")
            .replace("REF", reference);
        let file = PipelineFile::parse(Path::new("pipeline.yaml"), &text, &LoadOptions::default()).unwrap();
        assert_eq!(file.name(), format!("metrics of {reference}"));
        assert_eq!(file.checkpoint.as_ref().unwrap().dir(), "hunter2");
        let planned = file.plan(&fixture::catalogue(), &Defaults::default()).unwrap_or_else(|found| panic!("{found}"));
        let explained = explain::text(&planned.plan, &[]);
        for shown in [&explained, &format!("{file:?}"), &format!("{planned:?}"), &format!("{planned:#?}")] {
            assert!(shown.contains(reference), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for line in [
            format!("metrics of {reference}: "),
            format!("  where host <> '{reference}'\n"),
            format!("  x = concat(host, '{reference}')\n"),
            format!("  n = max(concat(host, '{reference}'))\n"),
        ] {
            assert!(explained.contains(&line), "{line} is not in {explained}");
        }
    });
}

/// A reference that names something, or that is a setting, works as if it were written out.
#[test]
fn references_stand_for_names_and_settings() {
    for (value, line, other) in [
        ("lines", "connector: lines", "connector: REF"),
        ("json", "format: json", "format: REF"),
        ("float64", "value: float64", "value: 'REF'"),
        ("ts", "column: ts", "column: 'REF'"),
        ("readings", "input: readings", "input: 'REF'"),
        ("host", "key_by: [host]", "key_by: ['REF']"),
        ("10s", "tumbling: 10s", "tumbling: 'REF'"),
        ("3", "name: metrics", "name: metrics\nparallelism: REF"),
        ("32MiB", "name: metrics", "name: metrics\nengine: {in_flight_bytes: 'REF'}"),
    ] {
        with_secret(value, |reference| assert_eq!(errors(&replaced(line, &other.replace("REF", reference))), "", "{other}"));
    }
}
