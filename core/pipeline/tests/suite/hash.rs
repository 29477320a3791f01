//! What decides the hash of a plan, and what does not.

use crate::{
    fixture::plan,
    plans::{DESIGN, good},
};
use standpipe_pipeline::plan::PlanHash;

fn hash(text: &str) -> PlanHash {
    good(text).hash
}

#[test]
fn what_changes_the_result_changes_the_hash() {
    let base = hash(DESIGN);
    assert_eq!(hash(DESIGN), base);
    for (line, other) in [
        ("name: host-metrics", "name: other"),
        ("parallelism: 2", "parallelism: 3"),
        ("    parallelism: 1\n", "    parallelism: 2\n"),
        ("{max_parallelism: 128}", "{max_parallelism: 64}"),
        ("{max_parallelism: 128}", "{batch_rows: 100}"),
        ("path: \"data/*.jsonl\"", "path: \"data/x.jsonl\""),
        ("format: json\n", "format: {type: json, on_error: skip}\n"),
        ("format: json\n", "format: {type: json, on_null: row}\n"),
        ("value: float64", "value: float32"),
        ("metric: string", "metric: {type: string, nullable: false}"),
        ("host: string, metric: string", "metric: string, host: string"),
        ("out_of_orderness: 2s", "out_of_orderness: 3s"),
        ("idle_timeout: 10s", "idle_timeout: 11s"),
        ("idle_timeout: 10s", "idle_timeout: 10s, max_drift: 1m"),
        ("idle_timeout: 10s", "idle_timeout: 10s, max_drift: 1m, alignment_group: all"),
        ("input: readings\n    key_by: [host, metric]", "input: hot\n    key_by: [host, metric]"),
        ("key_by: [host, metric]", "key_by: [metric, host]"),
        ("tumbling: 10s", "tumbling: 11s"),
        ("tumbling: 10s", "tumbling: {size: 10s, offset: 1s}"),
        ("allowed_lateness: 5s", "allowed_lateness: 6s"),
        ("avg(value)", "avg(value + 0)"),
        ("n: \"count(*)\", mean: \"avg(value)\"", "mean: \"avg(value)\", n: \"count(*)\""),
        ("path: out.jsonl", "path: out2.jsonl"),
        ("single: true}", "single: true}, parallelism: 1"),
        ("  index: {input: stats", "  index: {input: stats.late"),
    ] {
        assert!(DESIGN.contains(line), "{line}");
        let changed = plan(&DESIGN.replacen(line, other, 1)).unwrap_or_else(|found| panic!("{other}: {found}"));
        // Only the sink's parallelism is what it would be anyway.
        assert_eq!(changed.plan.hash == base, other == "single: true}, parallelism: 1", "{other}");
    }
}

#[test]
fn what_means_the_same_has_the_same_hash() {
    let base = hash(DESIGN);
    for (line, other) in [
        ("name: host-metrics\n", "# A comment.\n\nname:   'host-metrics' # and another\n"),
        ("name: host-metrics\nparallelism: 2\n", "parallelism: 2\nname: host-metrics\n"),
        ("plugins: [./target/release]\n", ""),
        ("checkpoint: {interval: 10s, dir: ./checkpoints}\n", "checkpoint: {dir: elsewhere, interval: 11s}\n"),
        ("restart: {strategy: fixed-delay, attempts: 3, delay: 1s}\n", ""),
        ("{max_parallelism: 128}", "{batch_rows: 8192, max_parallelism: 128}"),
        ("    connector: lines\n    with: {path: \"data/*.jsonl\"}\n", "    with: {path: data/*.jsonl}\n    connector: lines\n"),
        ("    format: json\n", "    format: {on_error: fail, type: json}\n"),
        ("metric: string", "metric: {nullable: true, type: string}"),
        ("out_of_orderness: 2s, idle_timeout: 10s", "idle_timeout: 10000ms, out_of_orderness: 2s"),
        ("tumbling: 10s, allowed_lateness: 5s", "allowed_lateness: 5s, tumbling: {size: 10s}"),
        ("    input: readings\n    key_by: [host, metric]\n", "    key_by:\n    - host\n    - metric\n    input: readings\n"),
        ("{path: out.jsonl, single: true}", "{single: true, path: out.jsonl}"),
        ("    format: json\n", "    format: json\n    isolation: {mode: process, memory: 1GiB}\n"),
        // Not in the plan, because it leads to no sink.
        ("value > 90", "value > 91"),
    ] {
        assert!(DESIGN.contains(line), "{line}");
        assert_eq!(hash(&DESIGN.replacen(line, other, 1)), base, "{other}");
    }
}

#[test]
fn the_values_of_secrets_do_not_show_in_the_hash() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let text = format!(
        "
name: m
sources: {{s: {{connector: lines, with: {{path: '${{file:{0}}}'}}, format: raw}}}}
transforms:
  t: {{input: s, filter: \"value <> '${{file:{0}}}'\"}}
  u: {{input: t, select: {{v: \"concat(value, '${{file:{0}}}')\"}}}}
  w: {{input: u, key_by: v, aggregate: {{n: \"max(concat(v, '${{file:{0}}}'))\"}}}}
sinks: {{o: {{input: w, connector: records, with: {{path: x}}}}}}
",
        secret.display()
    );
    let hash_with = |value: &str| {
        std::fs::write(&secret, value).unwrap();
        hash(&text)
    };
    assert_eq!(hash_with("hunter2"), hash_with("correct horse battery staple"));
    assert_ne!(hash(&text), hash(&text.replace("value <>", "value =")));
}

/// A hash that is not the same tomorrow is of no use to a cluster. It may change with a release: then this number does too.
#[test]
fn the_hash_is_stable() {
    assert_eq!(format!("{:016x}", hash(DESIGN).0), "6e35fb2c48f09a63");
}
