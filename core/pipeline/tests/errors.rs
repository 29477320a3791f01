//! What is said about files that are wrong: the whole message, with line and column.

mod fixture;

use fixture::{plan, plan_with};
use standpipe_pipeline::{Class, Defaults, LoadOptions, PipelineFile};
use std::path::Path;

/// A file that is right, with one line in place of another; the messages that it gets.
const GOOD: &str = "\
name: metrics
sources:
  readings:
    connector: lines
    with: {path: in.jsonl}
    format: json
    schema: {host: string, ts: timestamp_ms, value: float64}
    event_time: {column: ts, out_of_orderness: 2s}
transforms:
  hot: {input: readings, filter: value > 90}
  stats:
    input: hot
    key_by: [host]
    window: {tumbling: 10s}
    aggregate: {n: count(*), mean: avg(value)}
sinks:
  out: {input: stats, connector: records, with: {path: out.jsonl}}
";

fn replaced(line: &str, other: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    GOOD.replacen(line, other, 1)
}

fn errors(text: &str) -> String {
    match plan(text) {
        Ok(_) => String::new(),
        Err(found) => found,
    }
}

#[track_caller]
fn check(cases: &[(&str, &str, &str)]) {
    let mut wrong = String::new();
    for (line, other, message) in cases {
        let found = errors(&replaced(line, other));
        if found != *message {
            wrong.push_str(&format!("--- {other}\nexpected {message}\nfound    {found}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_file_itself_is_right() {
    assert_eq!(errors(GOOD), "");
}

#[test]
fn keys_and_values() {
    check(&[
        ("name: metrics\n", "", "pipeline.yaml:1:1: missing key \"name\""),
        (
            "name: metrics",
            "nam: metrics",
            "pipeline.yaml:1:1: unknown key \"nam\", did you mean \"name\"?\npipeline.yaml:1:1: missing key \"name\"",
        ),
        ("name: metrics", "name: [metrics]", "pipeline.yaml:1:7: name: expected text, found a list"),
        ("name: metrics", "name:", "pipeline.yaml:1:1: name: expected text, found nothing"),
        (
            "name: metrics",
            "name: metrics\nparallelism: two",
            "pipeline.yaml:2:14: parallelism: expected a whole number from 1 to 32768, found \"two\"",
        ),
        (
            "name: metrics",
            "name: metrics\nparallelism: 0",
            "pipeline.yaml:2:14: parallelism: expected a whole number from 1 to 32768, found \"0\"",
        ),
        (
            "name: metrics",
            "name: metrics\nparallelism: 200",
            "pipeline.yaml:2:14: parallelism: 200 is more than engine.max_parallelism, which is 128",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {batchrows: 5}",
            "pipeline.yaml:2:10: engine: unknown key \"batchrows\", did you mean \"batch_rows\"?",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {in_flight_bytes: 64}",
            "pipeline.yaml:2:27: engine.in_flight_bytes: \"64\" is no size: the unit is missing; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as 64MiB",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {flush_interval: 0s}",
            "pipeline.yaml:2:26: engine.flush_interval: must be from 1ms to 1m",
        ),
        ("name: metrics", "name: metrics\ndeployment: {}", "pipeline.yaml:2:1: \"deployment\" comes with a later release: remove it"),
        (
            "name: metrics",
            "name: metrics\nrestart: {strategy: never}",
            "pipeline.yaml:2:21: restart.strategy: unknown value \"never\"; possible values: none, fixed-delay, exponential-delay, failure-rate",
        ),
        (
            "name: metrics",
            "name: metrics\nrestart: {strategy: fixed-delay, attempts: 3, failures: 1}",
            "pipeline.yaml:2:1: restart: missing key \"delay\"\npipeline.yaml:2:47: restart: \"failures\" means nothing to the strategy fixed-delay, which has strategy, attempts, delay",
        ),
        ("name: metrics", "name: metrics\ncheckpoint: {interval: 0s}", "pipeline.yaml:2:24: checkpoint.interval: must be more than 0s"),
        ("name: metrics", "name: ${STANDPIPE_NO_SUCH}", "pipeline.yaml:1:7: name: the environment variable STANDPIPE_NO_SUCH is not set"),
        (
            "path: in.jsonl",
            "path: '${file:/no/such}'",
            "pipeline.yaml:5:18: sources.readings.with.path: ${file:/no/such}: cannot read the file: entity not found",
        ),
        ("name: metrics", "name: \"metrics", "pipeline.yaml:2:1: invalid indentation in multiline quoted scalar"),
        (
            "  stats:\n",
            "  2stats:\n",
            "pipeline.yaml:11:3: transforms.2stats: a name begins with a letter and has letters, digits, _ and -, at most 100 of them",
        ),
        ("  hot: {", "  readings: {", "pipeline.yaml:10:3: transforms.readings: the name \"readings\" is taken by sources.readings"),
    ]);
}

#[test]
fn sources() {
    check(&[
        (
            "connector: lines",
            "connectr: lines",
            "pipeline.yaml:3:3: sources.readings: missing key \"connector\"\npipeline.yaml:4:5: sources.readings: unknown key \"connectr\", did you mean \"connector\"?",
        ),
        (
            "connector: lines",
            "connector: line",
            "pipeline.yaml:4:16: sources.readings.connector: there is no source \"line\", did you mean \"lines\"? Found: lines, numbers. Searched: nothing",
        ),
        (
            "connector: lines",
            "connector: kafka",
            "pipeline.yaml:4:16: sources.readings.connector: there is no source \"kafka\". Found: lines, numbers. Searched: nothing",
        ),
        (
            "with: {path: in.jsonl}",
            "with: {pth: in.jsonl}",
            "pipeline.yaml:5:5: sources.readings.with: missing key \"path\"\npipeline.yaml:5:12: sources.readings.with: unknown key \"pth\", did you mean \"path\"?",
        ),
        ("    with: {path: in.jsonl}\n", "", "pipeline.yaml:3:3: sources.readings.with: missing key \"path\""),
        ("path: in.jsonl", "path: 5", "pipeline.yaml:5:18: sources.readings.with.path: expected text, found \"5\""),
        (
            "    format: json\n",
            "",
            "pipeline.yaml:3:3: sources.readings: missing key \"format\": lines gives records; write format: json or format: raw",
        ),
        ("format: json", "format: jsn", "pipeline.yaml:6:13: sources.readings.format: unknown format \"jsn\", did you mean \"json\"?"),
        (
            "format: json",
            "format: {type: json, on_err: skip}",
            "pipeline.yaml:6:26: sources.readings.format: unknown key \"on_err\", did you mean \"on_error\"?",
        ),
        (
            "format: json",
            "format: {type: json, on_error: drop}",
            "pipeline.yaml:6:36: sources.readings.format.on_error: unknown value \"drop\"; possible values: fail, skip, dead-letter",
        ),
        (
            "format: json",
            "format: {type: json, on_error: dead-letter}",
            "pipeline.yaml:6:13: sources.readings.format: on_error: dead-letter sends broken records to readings.errors, which nothing reads; add a sink with input: readings.errors, or write on_error: skip",
        ),
        (
            "format: json",
            "format: raw",
            "pipeline.yaml:7:5: sources.readings.schema: the format raw has exactly one column, but the schema has 3",
        ),
        (
            "value: float64}",
            "value: flaot64}",
            "pipeline.yaml:7:53: sources.readings.schema.value: unknown type \"flaot64\", did you mean \"float64\"?",
        ),
        (
            "value: float64}",
            "value: {type: float64, nulable: false}}",
            "pipeline.yaml:7:69: sources.readings.schema.value: unknown key \"nulable\", did you mean \"nullable\"?",
        ),
        (
            "value: float64}",
            "value: decimal(10, 2)}",
            "pipeline.yaml:7:53: sources.readings.schema.value: unbalanced parenthesis in \"decimal(10\": put the expression in quotes\n\
             pipeline.yaml:7:65: sources.readings.schema: unbalanced parenthesis in \"2)\": put the expression in quotes",
        ),
        (
            "    schema: {host: string, ts: timestamp_ms, value: float64}\n",
            "",
            "pipeline.yaml:3:3: sources.readings: missing key \"schema\": the format json needs the columns of the records",
        ),
        (
            "with: {path: in.jsonl}",
            "with: {path: in.jsonl, offsets: true}\n    parallelism: 500",
            "pipeline.yaml:6:18: sources.readings.parallelism: 500 is more than engine.max_parallelism, which is 128",
        ),
        ("{host: string, ts", "{host: string, offset: int64, ts", ""),
        (
            "column: ts",
            "column: tss",
            "pipeline.yaml:8:26: sources.readings.event_time.column: unknown column \"tss\", did you mean \"ts\"?",
        ),
        (
            "column: ts",
            "column: host",
            "pipeline.yaml:8:26: sources.readings.event_time.column: the event time must be a timestamp, the column \"host\" is string",
        ),
        (
            "out_of_orderness: 2s",
            "out_of_orderness: 2",
            "pipeline.yaml:8:48: sources.readings.event_time.out_of_orderness: \"2\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m",
        ),
    ]);
    let clash =
        replaced("path: in.jsonl", "path: in.jsonl, offsets: true").replace("{host: string, ts", "{host: string, offset: int64, ts");
    assert_eq!(
        errors(&clash),
        "pipeline.yaml:7:28: sources.readings.schema: the column \"offset\" comes with every record of lines; give the record's own another name"
    );
    let rows =
        "name: m\nsources:\n  s: {connector: numbers, format: json, schema: {a: string}}\nsinks:\n  o: {input: s, connector: appends}\n";
    assert_eq!(
        errors(rows),
        "pipeline.yaml:3:35: sources.s.format: numbers gives rows with columns of its own; remove \"format\"\n\
         pipeline.yaml:3:41: sources.s.schema: numbers gives rows with columns of its own; remove \"schema\""
    );
    assert_eq!(
        errors("name: m\nsources: {}\n"),
        "pipeline.yaml:1:1: missing key \"sinks\"\npipeline.yaml:2:1: sources: a pipeline has at least one source"
    );
}

#[test]
fn transforms() {
    check(&[
        ("{input: readings, filter: value > 90}", "{filter: value > 90}", "pipeline.yaml:10:3: transforms.hot: missing key \"input\""),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings}",
            "pipeline.yaml:10:3: transforms.hot: a transform has exactly one of filter, select, union, transform, aggregate; this one has none",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings, filter: value > 90, select: '*'}",
            "pipeline.yaml:10:46: transforms.hot: a transform has exactly one verb; this one has \"filter\" and \"select\"",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings, sql: select 1}",
            "pipeline.yaml:10:26: transforms.hot: SQL is not in this release; there are filter, select, union, transform, aggregate",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: reading, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: there is no node \"reading\", did you mean \"readings\"?",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings.late, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: \"readings\" has no output \"late\"; outputs: main, errors",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: out, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: \"out\" is a sink; only out.errors, the rows that it rejects, can be read",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: stats.late, filter: value > 90}",
            "pipeline.yaml:10:3: transforms.hot: the nodes are in a cycle: hot -> stats -> hot",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: hot, filter: value > 90}",
            "pipeline.yaml:10:3: transforms.hot: \"hot\" reads itself",
        ),
        (
            "filter: value > 90",
            "filter: valu > 90",
            "pipeline.yaml:10:34: transforms.hot.filter: unknown column \"valu\", did you mean \"value\"?",
        ),
        (
            "filter: value > 90",
            "filter: value + 90",
            "pipeline.yaml:10:34: transforms.hot.filter: a filter is a condition (bool), this is float64",
        ),
        ("filter: value > 90", "filter: host > ts", ""),
        (
            "filter: value > 90",
            "filter: host + 1 > 2",
            "pipeline.yaml:10:34: transforms.hot.filter: Cannot coerce arithmetic expression string + int64 to valid types",
        ),
        (
            "filter: value > 90",
            "filter: value >",
            "pipeline.yaml:10:34: transforms.hot.filter: expected an expression, the expression ends in \"value >\"",
        ),
        ("filter: value > 90", "filter: {a: 1}", "pipeline.yaml:10:34: transforms.hot.filter: expected an expression, found a map"),
        (
            "filter: value > 90",
            "filter: value > 90, key_by: [host]",
            "pipeline.yaml:10:46: transforms.hot: \"key_by\" means nothing to \"filter\": only aggregate and transform have keys",
        ),
        (
            "filter: value > 90",
            "filter: value > 90, with: {}",
            "pipeline.yaml:10:46: transforms.hot: \"with\" means nothing to \"filter\": it is the configuration of a plugin's transform",
        ),
        (
            "filter: value > 90",
            "select: {a: coalesce(host, 'x')}",
            "pipeline.yaml:10:56: invalid trailing content after single-quoted scalar: put the expression in quotes",
        ),
        (
            "filter: value > 90",
            "select: {a: coalesce(host, host)}",
            "pipeline.yaml:10:38: transforms.hot.select.a: unbalanced parenthesis in \"coalesce(host\": put the expression in quotes\n\
             pipeline.yaml:10:53: transforms.hot.select: unbalanced parenthesis in \"host)\": put the expression in quotes",
        ),
        (
            "filter: value > 90",
            "select: {a: hst, b: valeu}",
            "pipeline.yaml:10:38: transforms.hot.select.a: unknown column \"hst\", did you mean \"host\"?\npipeline.yaml:10:46: transforms.hot.select.b: unknown column \"valeu\", did you mean \"value\"?",
        ),
        ("filter: value > 90", "select: {'*': yes}", "pipeline.yaml:10:40: transforms.hot.select.*: expected true, found \"yes\""),
        ("filter: value > 90", "select: {}", "pipeline.yaml:10:26: transforms.hot.select: at least one column is needed"),
        (
            "input: readings, filter: value > 90",
            "inputs: [readings], union: yes",
            "pipeline.yaml:10:36: transforms.hot.union: expected true, found \"yes\"",
        ),
        (
            "input: readings, filter: value > 90",
            "inputs: [readings, readings], filter: value > 90",
            "pipeline.yaml:10:3: transforms.hot: filter takes one input, not 2; join them by a transform with union: true",
        ),
        (
            "input: readings, filter: value > 90",
            "inputs: [readings, readings.errors], union: true",
            "pipeline.yaml:10:28: transforms.hot.inputs[1]: \"readings\" and \"readings.errors\" cannot be one stream: their columns are host, ts, value and record, reason, split; a select can make them equal",
        ),
        (
            "filter: value > 90",
            "transform: tagg",
            "pipeline.yaml:10:37: transforms.hot.transform: there is no transform \"tagg\", did you mean \"tag\"? Found: run-length, tag. Searched: nothing",
        ),
        (
            "filter: value > 90",
            "transform: run-length, with: {column: value}",
            "pipeline.yaml:10:3: transforms.hot: the transform \"run-length\" needs key_by",
        ),
        (
            "filter: value > 90",
            "transform: run-length, key_by: host, with: {column: valu}",
            "pipeline.yaml:10:78: transforms.hot.with.column: there is no column \"valu\", did you mean \"value\"?",
        ),
    ]);
}

#[test]
fn aggregates() {
    check(&[
        ("key_by: [host]", "key_by: [hst]", "pipeline.yaml:13:14: transforms.stats.key_by: unknown column \"hst\", did you mean \"host\"?"),
        (
            "key_by: [host]",
            "key_by: []",
            "pipeline.yaml:13:13: transforms.stats.key_by: at least one column is needed; leave key_by out for one group of all rows",
        ),
        ("key_by: [host]", "key_by: [host, host]", "pipeline.yaml:13:20: transforms.stats.key_by[1]: \"host\" is there twice"),
        (
            "    key_by: [host]\n",
            "    parallelism: 2\n",
            "pipeline.yaml:13:18: transforms.stats.parallelism: an aggregate without key_by is one group of all rows and runs with parallelism 1",
        ),
        (
            "{tumbling: 10s}",
            "{tumbling: 10}",
            "pipeline.yaml:14:24: transforms.stats.window.tumbling: \"10\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m",
        ),
        ("{tumbling: 10s}", "{tumbling: 0s}", "pipeline.yaml:14:24: transforms.stats.window.tumbling: a window must be longer than 0s"),
        (
            "{tumbling: 10s}",
            "{tumbling: {size: 10s, offset: 10s}}",
            "pipeline.yaml:14:44: transforms.stats.window.tumbling.offset: the offset must be shorter than the window",
        ),
        (
            "{tumbling: 10s}",
            "{tumbling: 1500us}",
            "pipeline.yaml:14:24: transforms.stats.window: a window of 1ms500us is finer than the event time \"ts\", which counts in 1ms",
        ),
        (
            "{tumbling: 10s}",
            "{sliding: {size: 10s, slide: 5s}}",
            "pipeline.yaml:14:14: transforms.stats.window: sliding windows are not in this release; tumbling ones are",
        ),
        (
            "{tumbling: 10s}",
            "{session: {gap: 5s}}",
            "pipeline.yaml:14:14: transforms.stats.window: session windows are not in this release; tumbling ones are",
        ),
        (
            "{tumbling: 10s}",
            "{tumblin: 10s}",
            "pipeline.yaml:14:5: transforms.stats.window: missing key \"tumbling\"\npipeline.yaml:14:14: transforms.stats.window: unknown key \"tumblin\", did you mean \"tumbling\"?",
        ),
        (
            "    event_time: {column: ts, out_of_orderness: 2s}\n",
            "",
            "pipeline.yaml:13:5: transforms.stats.window: a window needs an event time, and \"hot\" has none: write event_time: at its source and keep that column as it is on the way",
        ),
        (
            "mean: avg(value)",
            "mean: avg(valu)",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: unknown column \"valu\", did you mean \"value\"?",
        ),
        (
            "mean: avg(value)",
            "mean: avgg(value)",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: unknown function \"avgg\", did you mean \"avg\"?",
        ),
        (
            "mean: avg(value)",
            "mean: avg(value) * 2",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: expected one aggregate function such as avg(value), found \"avg(value) * 2\": compute with its result in a select behind",
        ),
        (
            "mean: avg(value)",
            "host: avg(value)",
            "pipeline.yaml:15:30: transforms.stats.aggregate: there are two output columns \"host\": beside the aggregates there are the keys and what the host adds",
        ),
        (
            "mean: avg(value)",
            "window_end: avg(value)",
            "pipeline.yaml:15:30: transforms.stats.aggregate: there are two output columns \"window_end\": beside the aggregates there are the keys and what the host adds",
        ),
        (
            "    window: {tumbling: 10s}\n",
            "    emit: now\n",
            "pipeline.yaml:14:11: transforms.stats.emit: unknown value \"now\"; possible values: final, changes, each",
        ),
        (
            "{tumbling: 10s}\n",
            "{tumbling: 10s}\n    emit: final\n",
            "pipeline.yaml:15:5: transforms.stats: \"emit\" means nothing to \"aggregate\": a window gives its rows once, when it ends",
        ),
        (
            "    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}",
            "    aggregate: {n: stddev(value)}",
            "pipeline.yaml:14:20: transforms.stats.aggregate.n: stddev() needs a window; without one there are count, sum, min, max, avg, first_value, last_value",
        ),
        (
            "    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}",
            "    aggregate: {op: count(*)}\n    emit: changes",
            "pipeline.yaml:14:17: transforms.stats.aggregate: there are two output columns \"op\": beside the aggregates there are the keys and what the host adds",
        ),
        (
            "    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}",
            "    aggregate: {n: count(distinct host)}",
            "pipeline.yaml:14:20: transforms.stats.aggregate.n: DISTINCT, IGNORE NULLS and several arguments need a window",
        ),
    ]);
}

#[test]
fn sinks() {
    check(&[
        ("sinks:\n  out: {input: stats, connector: records, with: {path: out.jsonl}}\n", "", "pipeline.yaml:1:1: missing key \"sinks\""),
        (
            "  out: {input: stats, connector: records, with: {path: out.jsonl}}\n",
            "",
            "pipeline.yaml:16:1: sinks: expected a map, found nothing",
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
            "pipeline.yaml:17:95: sinks.out.parallelism: this plugin runs with at most 1 subtasks with this configuration, not 2",
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

#[test]
fn what_the_command_line_says_is_named() {
    let set = |key: &str, value: &str| LoadOptions { set: vec![(key.to_owned(), value.to_owned())], ..Default::default() };
    let found = |options: &LoadOptions| plan_with(GOOD, options, &Defaults::default()).map(|_| ()).unwrap_err();
    assert_eq!(
        found(&set("sinks.out.with.pth", "x")),
        "--set sinks.out.with.pth=x: sinks.out.with: unknown key \"pth\"; keys: key, single"
    );
    assert_eq!(
        found(&set("transforms.hot.filter", "valu > 1")),
        "--set transforms.hot.filter=valu > 1: transforms.hot.filter: unknown column \"valu\", did you mean \"value\"?"
    );
    let parallelism = LoadOptions { parallelism: Some(129), ..Default::default() };
    assert_eq!(found(&parallelism), "--parallelism: parallelism: 129 is more than engine.max_parallelism, which is 128");
}

#[test]
fn files_that_are_none() {
    let read = |path: &Path| PipelineFile::read(path, &LoadOptions::default()).map(|_| ()).unwrap_err();
    let missing = read(Path::new("/no/such/pipeline.yaml"));
    assert_eq!((missing.to_string().as_str(), missing.exit_code()), ("/no/such/pipeline.yaml: cannot read the file: entity not found", 2));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.yaml");
    std::fs::write(&path, b"name: \xff").unwrap();
    assert_eq!(read(&path).to_string(), format!("{}: not UTF-8 text, at byte 6", path.display()));
}

#[test]
fn a_secret_is_never_shown() {
    // PATH is set wherever tests run.
    let value = std::env::var("PATH").unwrap();
    for (line, other) in [
        ("filter: value > 90", "filter: \"value > ${PATH}\""),
        ("tumbling: 10s", "tumbling: '${PATH}'"),
        ("connector: records, with: {path: out.jsonl}", "connector: rows, with: {hosts: ['${PATH}']}"),
        ("format: json", "format: {type: json, on_error: '${PATH}'}"),
    ] {
        let found = errors(&replaced(line, other));
        assert!(found.contains("${PATH}") && !found.contains(&value), "{found}");
    }
}
