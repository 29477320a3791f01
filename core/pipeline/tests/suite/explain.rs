//! Plans as `explain` shows them.

use crate::{
    fixture::plan,
    plans::{DESIGN, explained, good},
    stand_ins,
};
use standpipe_pipeline::{Defaults, LoadOptions, PipelineFile, explain};
use std::path::Path;

/// An example of the repository.
fn example(name: &str) -> String {
    let (_, text) = stand_ins::EXAMPLES.into_iter().find(|(example, _)| *example == name).unwrap();
    let file = PipelineFile::parse(Path::new("pipeline.yaml"), text, &LoadOptions::default()).unwrap();
    explained(&file.plan(&stand_ins::catalogue(), &Defaults::default()).unwrap_or_else(|found| panic!("{found}")).plan)
}

#[test]
fn how_far_splits_may_be_ahead_and_of_whom() {
    let with = |more: &str| DESIGN.replacen("idle_timeout: 10s", &format!("idle_timeout: 10s, {more}"), 1);
    let explained = |more: &str| explained(&good(&with(more)));
    let time = "  event time ts, 2s out of order, idle after 10s\n";
    assert!(explained("max_drift: 90s").contains(&format!("{time}  at most 1m30s ahead of its slowest split\n")));
    let text = with("max_drift: 90s, alignment_group: all");
    assert!(explained_with_warnings(&text).0.contains(&format!("{time}  at most 1m30s ahead of the slowest split of the group all\n")));
    assert!(explained_with_warnings(&text).1.contains(
        &"pipeline.yaml:15:104: sources.readings.event_time.alignment_group: no other source is in the group \"all\"".to_owned()
    ));
    // A second source that is in the group, and one that is nearly.
    let second = |group: &str| {
        let source = "  more: {connector: lines, with: {path: x}, format: json, schema: {ts: timestamp_ms}, event_time: {column: ts, max_drift: 1s, alignment_group: GROUP}}\n\ntransforms:\n";
        text.replacen("transforms:\n", &source.replace("GROUP", group), 1)
    };
    assert!(!explained_with_warnings(&second("all")).1.iter().any(|warning| warning.contains("alignment_group")));
    let warnings = explained_with_warnings(&second("alle")).1;
    assert_eq!(warnings.iter().filter(|warning| warning.contains(", did you mean \"all")).count(), 2, "{warnings:?}");
}

fn explained_with_warnings(text: &str) -> (String, Vec<String>) {
    let planned = plan(text).unwrap_or_else(|found| panic!("{found}"));
    (explained(&planned.plan), planned.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn a_bounded_word_count() {
    assert_eq!(
        example("word-count"),
        "\
word-count: 5 nodes, 4 chains, 1 slot, plan HASH
  parallelism 1, max parallelism 128, batches of 8192 rows, 64MiB in flight, flushed every 10ms

sources.lines: source file, parallelism 1, chain 0
  plugin stand-ins linked
  bounded
  decode raw, on error fail
  -> main: append
     line string
  -> errors: append
     record binary, reason string, split string

transforms.words: transform split-words, parallelism 1, chain 1
  <- lines, forward
  plugin stand-ins linked
  -> main: append
     word string not null

transforms.counts: aggregate, parallelism 1, chain 2
  <- words, hash of word
  emit final
  n = count(*)
  -> main: append, key word
     word string not null, n int64 not null

sinks.out.encode: encode, parallelism 1, chain 2
  <- counts, forward
  as json
  -> main: append
     value binary

sinks.out: sink file, parallelism 1, chain 3
  <- out.encode, forward
  plugin stand-ins linked
  guarantee at-least-once
    checkpoint: there is none: after a failure everything is read and written again; add checkpoint: {interval: 10s}
    sinks.out: file is neither transactional nor idempotent as it is configured: rows that come again are there twice; see whether a key of it, such as an id, changes that
  -> errors: append
     value binary, reason string, details string

workers: 1 slot in 1 process
  0: lines[0] words[0] counts[0] out.encode[0] out[0]
"
    );
}

#[test]
fn a_continuous_word_count() {
    let text = example("word-count-changes");
    let count =
        "  emit changes\n  n = count(*)\n  -> main: upsert, key word\n     word string not null, n int64 not null, op string not null\n";
    assert!(text.contains(count), "{text}");
}

#[test]
fn the_example_of_the_design_is_a_plan() {
    let planned = plan(DESIGN).unwrap_or_else(|found| panic!("{found}"));
    let warnings: Vec<String> = planned.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "pipeline.yaml:19:3: transforms.hot: it leads to no sink; it is left out of the plan",
            "pipeline.yaml:20:3: transforms.shaped: nothing reads it; it is left out of the plan",
            "pipeline.yaml:21:3: transforms.runs: nothing reads it; it is left out of the plan",
            "pipeline.yaml:27:3: transforms.totals: nothing reads it; it is left out of the plan",
            "pipeline.yaml:28:3: transforms.both: nothing reads it; it is left out of the plan",
        ]
    );
    assert_eq!(
        explained(&planned.plan),
        "\
host-metrics: 5 nodes, 5 chains, 2 slots, plan HASH
  parallelism 2, max parallelism 128, batches of 8192 rows, 64MiB in flight, flushed every 10ms

sources.readings: source lines, parallelism 1, chain 0
  plugin fixture linked
  bounded
  decode json, on error fail
  event time ts, 2s out of order, idle after 10s
  -> main: append, event time ts
     host string, metric string, ts timestamp_ms, value float64
  -> errors: append
     record binary, reason string, split string

transforms.stats: window, parallelism 2, chain 1
  <- readings, hash of host, metric
  tumbling 10s of ts, allowed lateness 5s
  n = count(*)
  mean = avg(value)
  low = min(value)
  high = max(value)
  -> main: append, key host, metric, event time window_end
     host string, metric string, window_start timestamp_ms not null, window_end timestamp_ms not null, n int64 not null, mean float64, low float64, high float64
  -> late: append, event time ts
     host string, metric string, ts timestamp_ms, value float64

sinks.out.encode: encode, parallelism 2, chain 2
  <- stats, forward
  as json
  -> main: append
     value binary

sinks.out: sink records, parallelism 1, chain 3
  <- out.encode, rebalance
  plugin fixture linked
  guarantee at-least-once
    sinks.out: records is neither transactional nor idempotent as it is configured: rows that come again are there twice; see whether a key of it, such as an id, changes that
  -> errors: append
     value binary, reason string, details string

sinks.index: sink rows, parallelism 2, chain 4
  <- stats, forward
  plugin fixture linked
  guarantee at-least-once
    sinks.index: rows is neither transactional nor idempotent as it is configured: rows that come again are there twice; see whether a key of it, such as an id, changes that
  -> errors: append
     host string, metric string, window_start timestamp_ms not null, window_end timestamp_ms not null, n int64 not null, mean float64, low float64, high float64, reason string, details string

workers: 2 slots in 1 process
  0: readings[0] stats[0] out.encode[0] out[0] index[0]
  1: stats[1] out.encode[1] index[1]
"
    );
    assert_eq!(planned.plan.slots(), 2);
}

#[test]
fn expressions_are_shown_as_written_and_chained() {
    let text = "
name: m
sources:
  s: {connector: lines, with: {path: x, follow: true, offsets: true}, format: {type: json, on_error: dead-letter, on_null: row}, schema: {host: string, value: float64}}
transforms:
  hot: {input: s, filter: value > 90}
  shaped: {input: hot, select: {'*': true, value: value * 2, upper: upper(host)}}
sinks:
  out: {input: shaped, connector: records, with: {path: x}}
  broken: {input: s.errors, connector: records, with: {path: x}}
";
    let plan = good(text);
    assert_eq!(
        explained(&plan),
        "\
m: 7 nodes, 4 chains, 1 slot, plan HASH
  parallelism 1, max parallelism 128, batches of 8192 rows, 64MiB in flight, flushed every 10ms

sources.s: source lines, parallelism 1, chain 0
  plugin fixture linked
  unbounded
  decode json, on error dead-letter, tombstones are rows
  -> main: append
     host string, value float64, offset int64 not null
  -> errors: append
     record binary, reason string, split string

transforms.hot: filter, parallelism 1, chain 0
  <- s, forward
  where value > 90
  -> main: append
     host string, value float64, offset int64 not null

transforms.shaped: select, parallelism 1, chain 0
  <- hot, forward
  value = value * 2
  upper = upper(host)
  -> main: append
     host string, value float64, offset int64 not null, upper string

sinks.out.encode: encode, parallelism 1, chain 0
  <- shaped, forward
  as json
  -> main: append
     value binary

sinks.out: sink records, parallelism 1, chain 1
  <- out.encode, forward
  plugin fixture linked
  guarantee none
    checkpoint: there is none: after a failure sources.s begins anew, and passes over what came before that; add checkpoint: {interval: 10s}
    sinks.out: records is neither transactional nor idempotent as it is configured: rows that come again are there twice; see whether a key of it, such as an id, changes that
  -> errors: append
     value binary, reason string, details string

sinks.broken.encode: encode, parallelism 1, chain 2
  <- s.errors, forward
  as json
  -> main: append
     value binary

sinks.broken: sink records, parallelism 1, chain 3
  <- broken.encode, forward
  plugin fixture linked
  guarantee none
    checkpoint: there is none: after a failure sources.s begins anew, and passes over what came before that; add checkpoint: {interval: 10s}
    sinks.broken: records is neither transactional nor idempotent as it is configured: rows that come again are there twice; see whether a key of it, such as an id, changes that
  -> errors: append
     value binary, reason string, details string

workers: 1 slot in 1 process
  0: s[0] hot[0] shaped[0] out.encode[0] out[0] broken.encode[0] broken[0]
"
    );
    assert_eq!(
        explain::text(&plan, &[2, 1]).split("workers:").nth(1),
        Some(
            " 3 slots in 2 processes\n  0: s[0] hot[0] shaped[0] out.encode[0] out[0] broken.encode[0] broken[0]\n  1: nothing\n  2: nothing\n"
        )
    );
}

#[test]
fn how_calls_that_end_later_are_held() {
    let text = |calls: &str| {
        format!(
            "name: m\nsources: {{s: {{connector: lines, with: {{path: x}}, format: raw}}}}\ntransforms: {{t: {{input: s, transform: tag{calls}}}}}\nsinks: {{o: {{input: t, connector: records, with: {{path: x}}}}}}\n"
        )
    };
    let shown = |calls: &str| {
        let shown = explained(&crate::plans::good(&text(calls)));
        shown.lines().find(|line| line.contains("asynchronous")).map(str::to_owned)
    };
    assert_eq!(shown(""), None);
    let wished = "  asynchronous, 4 calls at the same time, results in the order of the input, timeout 2s500ms";
    assert_eq!(shown(", with: {later: true}").as_deref(), Some(wished));
    let said = "  asynchronous, 32 calls at the same time, results in any order, timeout 1m";
    assert_eq!(shown(", with: {later: true}, async: {capacity: 32, order: any, timeout: 60s}").as_deref(), Some(said));
    // The order decides what the result is, the rest does not.
    let hash = |calls: &str| crate::plans::good(&text(&format!(", with: {{later: true}}, async: {calls}"))).hash;
    assert_eq!(hash("{}"), hash("{capacity: 9, order: input, timeout: 1h}"));
    assert_ne!(hash("{}"), hash("{order: any}"));
}
