//! Plans of files that are right: exchanges, chains, parallelism, modes, keys and times.

use crate::fixture::{plan, plan_with};
use standpipe_pipeline::{
    Defaults, EngineSetting, LoadOptions, PipelineFile, explain,
    plan::{Emit, Exchange, Operator, Plan},
};
use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// The example of the design, with the plugins of the fixture.
pub(crate) const DESIGN: &str = r#"
name: host-metrics
parallelism: 2
plugins: [./target/release]
checkpoint: {interval: 10s, dir: ./checkpoints}
restart: {strategy: fixed-delay, attempts: 3, delay: 1s}
engine: {max_parallelism: 128}

sources:
  readings:
    connector: lines
    with: {path: "data/*.jsonl"}
    format: json
    schema: {host: string, metric: string, ts: timestamp_ms, value: float64}
    event_time: {column: ts, out_of_orderness: 2s, idle_timeout: 10s}
    parallelism: 1

transforms:
  hot:     {input: readings, filter: "value > 90"}
  shaped:  {input: hot, select: {host: "host", fahrenheit: "value * 9 / 5 + 32"}}
  runs:    {input: readings, key_by: [host], transform: run-length, with: {column: value}}
  stats:
    input: readings
    key_by: [host, metric]
    window: {tumbling: 10s, allowed_lateness: 5s}
    aggregate: {n: "count(*)", mean: "avg(value)", low: "min(value)", high: "max(value)"}
  totals:  {input: readings, key_by: [host], aggregate: {n: "count(*)", last: "last_value(value)"}, emit: changes}
  both:    {inputs: [hot, readings], union: true}

sinks:
  out: {input: stats, connector: records, with: {path: out.jsonl, single: true}, format: json}
  index: {input: stats, connector: rows, with: {hosts: ["http://127.0.0.1:9200"]}}
"#;

pub(crate) fn good(text: &str) -> Plan {
    plan(text).unwrap_or_else(|found| panic!("{found}")).plan
}

pub(crate) fn node<'a>(plan: &'a Plan, name: &str) -> &'a standpipe_pipeline::plan::Node {
    plan.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
}

/// `from -> to: exchange` of every edge.
pub(crate) fn edges(plan: &Plan) -> Vec<String> {
    let edge = |edge: &standpipe_pipeline::plan::Edge| {
        let (from, to) = (plan.node(edge.from), plan.node(edge.to));
        let exchange = match &edge.exchange {
            Exchange::Forward => "forward".to_owned(),
            Exchange::Rebalance => "rebalance".to_owned(),
            Exchange::Hash(columns) => format!("hash {columns:?}"),
        };
        format!(
            "{}({}).{} -> {}({}): {exchange}",
            from.name, from.parallelism, from.outputs[edge.output as usize].name, to.name, to.parallelism
        )
    };
    plan.edges.iter().map(edge).collect()
}

/// The text without its hash, which changes with DataFusion.
pub(crate) fn explained(plan: &Plan) -> String {
    explain::text(plan, &[]).replace(&format!("{:016x}", plan.hash.0), "HASH")
}

#[test]
fn a_chain_ends_where_a_stream_is_read_twice() {
    let text = "
name: m
sources: {s: {connector: lines, with: {path: x}, format: raw}}
transforms:
  a: {input: s, filter: value > 'a'}
  b: {input: a, filter: value > 'b'}
  c: {input: a, filter: value > 'c'}
  d: {inputs: [b, c], union: true}
sinks: {o: {input: d, connector: records, with: {path: x}, format: raw}}
";
    let plan = good(text);
    let chains: Vec<Vec<&str>> =
        plan.chains.iter().map(|chain| chain.nodes.iter().map(|id| plan.node(*id).name.as_str()).collect()).collect();
    assert_eq!(chains, [vec!["s", "a"], vec!["b"], vec!["c"], vec!["d", "o.encode"], vec!["o"]]);
}

fn keyed(job: &str, sink: &str) -> Plan {
    good(&format!(
        "
name: m
{job}
sources: {{s: {{connector: numbers, parallelism: 1}}}}
transforms:
  t: {{input: s, key_by: name, aggregate: {{n: count(*)}}}}
sinks: {{o: {{input: t, {sink}}}}}
"
    ))
}

#[test]
fn rows_of_a_key_meet_in_one_subtask() {
    let rows = "connector: rows, with: {hosts: []}";
    let records = "connector: records, with: {path: x}";
    assert_eq!(edges(&keyed("parallelism: 4", rows)), ["s(1).main -> t(4): hash [1]", "t(4).main -> o(4): forward"]);
    assert_eq!(
        edges(&keyed("parallelism: 4", &format!("{rows}, parallelism: 2"))),
        ["s(1).main -> t(4): hash [1]", "t(4).main -> o(2): hash [0]"]
    );
    assert_eq!(
        edges(&keyed("parallelism: 4", &format!("{rows}, parallelism: 1"))),
        ["s(1).main -> t(4): hash [1]", "t(4).main -> o(1): rebalance"]
    );
    assert_eq!(
        edges(&keyed("parallelism: 4", &format!("{records}, parallelism: 2"))),
        ["s(1).main -> t(4): hash [1]", "t(4).main -> o.encode(2): hash [0]", "o.encode(2).main -> o(2): forward"]
    );
    assert_eq!(
        edges(&keyed("parallelism: 4", &format!("{records}, parallelism: 1"))),
        ["s(1).main -> t(4): hash [1]", "t(4).main -> o.encode(4): forward", "o.encode(4).main -> o(1): rebalance"]
    );
    assert_eq!(edges(&keyed("parallelism: 1", rows)), ["s(1).main -> t(1): hash [1]", "t(1).main -> o(1): forward"]);
}

#[test]
fn one_group_has_one_subtask_and_so_what_follows_it() {
    let text = "
name: m
parallelism: 4
sources: {s: {connector: numbers}}
transforms:
  t: {input: s, aggregate: {n: count(*), last: last_value(name)}}
  u: {input: t, select: '*'}
sinks: {o: {input: u, connector: rows, with: {hosts: []}}}
";
    assert_eq!(edges(&good(text)), ["s(4).main -> t(1): rebalance", "t(1).main -> u(1): forward", "u(1).main -> o(1): forward"]);
    let found = plan(&text.replace("select: '*'", "select: '*', parallelism: 4")).unwrap_err();
    assert_eq!(
        found,
        "pipeline.yaml:7:14: transforms.u.input: an upsert stream without key columns cannot be spread over 4 subtasks; run this node with parallelism 1"
    );
}

#[test]
fn parallelism_is_of_the_node_or_the_job_or_the_configuration() {
    let text = |job: &str, node: &str| {
        format!("name: m\n{job}\nsources: {{s: {{connector: numbers, {node}}}}}\nsinks: {{o: {{input: s, connector: appends}}}}\n")
    };
    let of = |job: &str, node: &str, options: &LoadOptions, configured: Option<u32>| {
        let planned = plan_with(&text(job, node), options, &Defaults { parallelism: configured.and_then(NonZeroU32::new) })
            .unwrap_or_else(|found| panic!("{found}"));
        node_parallelism(&planned.plan)
    };
    let none = LoadOptions::default();
    let four = LoadOptions { parallelism: Some(4), ..Default::default() };
    assert_eq!(of("", "", &none, None), 1);
    assert_eq!(of("", "", &none, Some(3)), 3);
    assert_eq!(of("parallelism: 2", "", &none, Some(3)), 2);
    assert_eq!(of("parallelism: 2", "", &four, Some(3)), 4);
    assert_eq!(of("parallelism: 2", "parallelism: 5", &four, Some(3)), 5);
    let set = LoadOptions { set: vec![("sources.s.parallelism".to_owned(), "7".to_owned())], ..Default::default() };
    assert_eq!(of("parallelism: 2", "parallelism: 5", &set, None), 7);
}

fn node_parallelism(plan: &Plan) -> u32 {
    node(plan, "s").parallelism
}

#[test]
fn emit_follows_the_input() {
    let text = |source: &str, emit: &str| {
        format!(
            "name: m\nsources: {{s: {{connector: {source}}}}}\ntransforms: {{t: {{input: s, aggregate: {{n: count(*)}}{emit}}}}}\nsinks: {{o: {{input: t, connector: records, with: {{path: x}}}}}}\n"
        )
    };
    let emit_of = |source: &str, emit: &str| {
        let planned = plan(&text(source, emit)).unwrap_or_else(|found| panic!("{found}"));
        let Operator::Aggregate(aggregate) = &node(&planned.plan, "t").operator else { panic!() };
        let columns: Vec<String> = node(&planned.plan, "t").outputs[0].schema.fields().iter().map(|field| field.name().clone()).collect();
        (aggregate.emit, columns.join(" "), planned.warnings.len())
    };
    let lines = "lines, with: {path: x}, format: raw";
    assert_eq!(emit_of(lines, ""), (Emit::Final, "n".to_owned(), 0));
    assert_eq!(emit_of("numbers", ""), (Emit::Changes, "n op".to_owned(), 0));
    assert_eq!(emit_of("numbers", ", emit: each"), (Emit::Each, "n".to_owned(), 0));
    assert_eq!(emit_of("numbers", ", emit: final"), (Emit::Final, "n".to_owned(), 1));
}

#[test]
fn keys_modes_and_times_travel() {
    let text = "
name: m
sources: {s: {connector: numbers, event_time: {column: ts}}}
transforms:
  renamed: {input: s, select: {name: name, at: ts, n: n}}
  totals: {input: renamed, key_by: name, aggregate: {n: sum(n)}}
  shaped: {input: totals, select: {who: name, n: n + 1}}
  tagged: {input: shaped, transform: tag, with: {changes: true}}
  stats: {input: renamed, key_by: name, window: {tumbling: {size: 1m, offset: 10s}}, aggregate: {first: min(at), values: array_agg(distinct n)}}
  late: {input: stats.late, select: {at: at}}
sinks:
  a: {input: tagged, connector: rows, with: {hosts: []}}
  b: {input: stats, connector: appends}
  c: {input: late, connector: appends}
  d: {input: tagged.side, connector: appends}
  e: {input: a.errors, connector: appends}
";
    let text = explained(&good(text));
    for line in [
        "  -> main: append, event time at\n     name string, at timestamp_s not null, n int64 not null\n",
        "  -> main: upsert, key name\n     name string, n int64, op string not null\n",
        "  who = name\n  n = n + 1\n  -> main: upsert, key who\n     who string, n int64, op string not null\n",
        "  -> main: upsert, key who\n     who string, n int64, op string not null, tag string\n  -> side: append\n     note string\n",
        "  tumbling 1m, offset 10s of at, allowed lateness 0s\n",
        "  -> main: append, key name, event time window_end\n     name string, window_start timestamp_s not null, window_end timestamp_s not null, first timestamp_s, values list<int64>\n",
        "  -> late: append, event time at\n     name string, at timestamp_s not null, n int64 not null\n",
        "  -> main: append, event time at\n     at timestamp_s not null\n",
        "sinks.e: sink appends, parallelism 1, chain 9\n  <- a.errors, forward\n",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
}

/// What the filter of a stream by `name` is to do with rows that fail, where it is planned.
fn row_kind(transforms: &str, condition: &str) -> Result<Option<usize>, String> {
    let text = format!(
        "name: x\nsources: {{in: {{connector: numbers}}}}\ntransforms:\n{transforms}  f: {{input: t, filter: \"{condition}\"}}\nsinks: {{out: {{input: f, connector: records, with: {{path: x}}}}}}\n"
    );
    let planned = plan(&text)?;
    let mut filters = planned.plan.nodes.iter().filter_map(|node| match &node.operator {
        Operator::Filter(filter) => Some(filter.row_kind),
        _ => None,
    });
    Ok(filters.next_back().unwrap())
}

#[test]
fn a_filter_of_changes_deletes_unless_the_key_decides() {
    let upsert = "  t: {input: in, key_by: [name], aggregate: {n: count(*)}, emit: changes}\n";
    for (condition, expected) in [
        ("n > 1", Some(2)),
        ("n > 1 and name = 'a'", Some(2)),
        ("name = 'a' and random() < 0.5", Some(2)),
        ("upper(name) = 'A'", None),
        ("false", None),
    ] {
        assert_eq!(row_kind(upsert, condition), Ok(expected), "{condition}");
    }
    assert_eq!(row_kind("  t: {input: in, key_by: [name], aggregate: {n: count(*)}, emit: each}\n", "n > 1"), Ok(None));
    // Each row of a retract stream is taken back as it was given, so that both or neither pass.
    let retract = "  t: {input: in, transform: tag, with: {retracts: true}}\n";
    assert_eq!(row_kind(retract, "n > 1"), Ok(None));
    let place = "pipeline.yaml:5:25: transforms.f.filter: ";
    let message = "t is a retract stream: what depends on time or chance cannot be taken back";
    assert_eq!(row_kind(retract, "n > 1 and now() > ts"), Err(format!("{place}{message}")));
}

#[test]
fn paths_of_plugins_are_as_written() {
    let file = PipelineFile::parse(Path::new("jobs/p.yaml"), DESIGN, &LoadOptions::default()).unwrap();
    let [plugins] = file.plugin_paths().try_into().unwrap();
    assert_eq!(plugins.path, PathBuf::from("./target/release"));
    assert!(plugins.origin.starts_with("jobs/p.yaml:") && plugins.origin.ends_with(": plugins"), "{}", plugins.origin);
    assert_eq!(file.name(), "host-metrics");
    assert!(file.checkpoint.is_some() && file.restart.is_some());
}

#[test]
fn json_is_yaml() {
    let text = r#"{"name": "m", "sources": {"s": {"connector": "numbers"}}, "sinks": {"o": {"input": "s", "connector": "appends"}}}"#;
    assert_eq!(good(text).nodes.len(), 2);
}

#[test]
fn settings_from_outside_count_where_the_file_is_silent() {
    let setting =
        |key: &str, value: &str| EngineSetting { key: key.to_owned(), value: value.to_owned(), origin: format!("-D engine.{key}={value}") };
    let settings =
        vec![setting("parallelism", "3"), setting("batch_rows", "7"), setting("flush_interval", "20ms"), setting("restart.attempts", "1")];
    let file = |text: &str, parallelism| {
        let options = LoadOptions { parallelism, settings: settings.clone(), ..Default::default() };
        PipelineFile::parse(Path::new("pipeline.yaml"), text, &options).unwrap()
    };
    let overridden = |file: &PipelineFile| file.overridden.iter().map(|lost| format!("{}: {}", lost.key, lost.winner)).collect::<Vec<_>>();
    let blocks = "name: a\nparallelism: 2\nengine: {batch_rows: 9}\nrestart: {strategy: none}\n";
    let strong = [
        "parallelism: parallelism at pipeline.yaml:2:1",
        "batch_rows: engine.batch_rows at pipeline.yaml:3:10",
        "restart.attempts: restart at pipeline.yaml:4:1",
    ];
    assert_eq!(overridden(&file(blocks, None)), strong);
    assert_eq!(overridden(&file("name: a\n", Some(4))), ["parallelism: --parallelism"]);
    let wrong = file("name: a\n", None).check_read().unwrap_err().to_string();
    assert!(wrong.contains("-D engine.restart.attempts=1: restart: missing key \"strategy\""), "{wrong}");
}
