//! All that is wrong is said at once, in the order of the file; and one mistake is one finding, whatever follows from it.

use super::{GOOD, check, errors, replaced};

#[test]
fn independent_mistakes_are_shown_at_once() {
    let text = "\
name: metrics
paralelism: 2
restart: {strategy: fixed-delay, attempts: 0, delay: 1}
sources:
  readings:
    connector: lines
    with: {pth: in.jsonl}
    format: json
    schema: {host: string, ts: timestamp_ms, value: float64}
    event_time: {column: tss, idle_timeout: 5}
  numbers: {connector: numbers}
transforms:
  hot: {input: numbers, filter: nn > 1, key_by: n}
  hot2: {input: numbers, filter: n + 1}
  sums: {input: numbers, key_by: [name, nme], aggregate: {a: sum(n), b: avg(m), a: count(*)}}
  loop: {input: loop, select: '*'}
  call: {input: numbers, transform: tagg}
sinks:
  one: {input: numbrs, connector: records, with: {path: x}}
  two: {input: numbers, connector: records, with: {path: '${STANDPIPE_NO_SUCH}', key: [n]}, format: xml}
  three: {connector: kafka, parallelism: 0}
  four: {input: numbers, connector: records, with: {path: 5, keys: []}}
";
    assert_eq!(
        errors(text),
        "\
pipeline.yaml:2:1: unknown key \"paralelism\", did you mean \"parallelism\"?
pipeline.yaml:3:44: restart.attempts: expected a whole number from 1 to 4294967295, found \"0\"
pipeline.yaml:3:54: restart.delay: \"1\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m
pipeline.yaml:10:45: sources.readings.event_time.idle_timeout: \"5\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m
pipeline.yaml:13:33: transforms.hot.filter: unknown column \"nn\", did you mean \"n\"?
pipeline.yaml:13:41: transforms.hot: \"key_by\" means nothing to \"filter\": only aggregate and transform have keys
pipeline.yaml:14:34: transforms.hot2.filter: a filter is a condition (bool), this is int64
pipeline.yaml:15:41: transforms.sums.key_by: unknown column \"nme\", did you mean \"name\"?
pipeline.yaml:15:73: transforms.sums.aggregate.b: unknown column \"m\"; columns: n, name, ts, list
pipeline.yaml:15:81: the key \"a\" is there twice, first at 15:59
pipeline.yaml:16:3: transforms.loop: \"loop\" reads itself
pipeline.yaml:17:37: transforms.call.transform: there is no transform \"tagg\", did you mean \"tag\"? Found: run-length, tag. Searched: nothing
pipeline.yaml:19:16: sinks.one.input: there is no node \"numbrs\", did you mean \"numbers\"?
pipeline.yaml:20:58: sinks.two.with.path: the environment variable STANDPIPE_NO_SUCH is not set
pipeline.yaml:20:101: sinks.two.format: unknown format \"xml\"; formats: raw, json, csv, parquet
pipeline.yaml:21:3: sinks.three: missing key \"input\"
pipeline.yaml:21:42: sinks.three.parallelism: expected a whole number from 1 to 32768, found \"0\"
pipeline.yaml:22:59: sinks.four.with.path: expected text, found \"5\"
pipeline.yaml:22:62: sinks.four.with: unknown key \"keys\", did you mean \"key\"?"
    );
}

/// What could not be read is not missing, and what reads it is not wrong.
#[test]
fn one_mistake_is_one_finding() {
    check(&[
        (
            "connector: lines",
            "conector: lines",
            "pipeline.yaml:4:5: sources.readings: unknown key \"conector\", did you mean \"connector\"?",
        ),
        ("    format: json", "    fromat: json", "pipeline.yaml:6:5: sources.readings: unknown key \"fromat\", did you mean \"format\"?"),
        (
            "    event_time: {column",
            "    event_tme: {column",
            "pipeline.yaml:8:5: sources.readings: unknown key \"event_tme\", did you mean \"event_time\"?",
        ),
        ("sources:\n", "source:\n", "pipeline.yaml:2:1: unknown key \"source\", did you mean \"sources\"?"),
        ("transforms:\n", "transform:\n", "pipeline.yaml:9:1: unknown key \"transform\", did you mean \"transforms\"?"),
        (
            "    key_by: [host]",
            "    key_of: [host]",
            "pipeline.yaml:13:5: transforms.stats: unknown key \"key_of\", did you mean \"key_by\"?",
        ),
        (
            "filter: value > 90",
            "fliter: value > 90",
            "pipeline.yaml:10:26: transforms.hot: unknown key \"fliter\", did you mean \"filter\"?",
        ),
        (
            "format: json",
            "format: xml",
            "pipeline.yaml:6:13: sources.readings.format: unknown format \"xml\"; formats: raw, json, csv, parquet",
        ),
        (
            "value: float64}",
            "value: flaot64}",
            "pipeline.yaml:7:53: sources.readings.schema.value: unknown type \"flaot64\", did you mean \"float64\"?",
        ),
        (
            "name: metrics",
            "name: metrics\nparallelism: ${STANDPIPE_NO_SUCH}",
            "pipeline.yaml:2:14: parallelism: the environment variable STANDPIPE_NO_SUCH is not set",
        ),
        (
            "value > 90",
            "\"value > ${STANDPIPE_NO_SUCH}\"",
            "pipeline.yaml:10:34: transforms.hot.filter: the environment variable STANDPIPE_NO_SUCH is not set",
        ),
    ]);
    let text = replaced("connector: lines", "connector: kafka").replace("avg(value)", "avg(valu)").replace("records", "rceords");
    assert_eq!(
        errors(&text),
        "pipeline.yaml:4:16: sources.readings.connector: there is no source \"kafka\". Found: lines, numbers. Searched: nothing\n\
         pipeline.yaml:17:34: sinks.out.connector: there is no sink \"rceords\", did you mean \"records\"? Found: appends, broken, records, rows. Searched: nothing"
    );
}

#[test]
fn many_nodes_are_refused_before_anything_walks_over_them() {
    let filters: String = (0..1_100).map(|i| format!("  t{i}: {{input: t{}, filter: 'true'}}\n", i + 1)).collect();
    let text = GOOD.replace("transforms:\n", &format!("transforms:\n{filters}"));
    assert_eq!(errors(&text), "pipeline.yaml:1:1: a pipeline has at most 1000 nodes, this one has 1104");
}

#[test]
fn a_long_chain_is_planned() {
    let filters: String = (0..900).map(|i| format!("  t{i}: {{input: t{}, filter: value > {i}}}\n", i + 1)).collect();
    let text = GOOD.replace("transforms:\n", &format!("transforms:\n{filters}  t900: {{input: readings, select: '*'}}\n"));
    assert_eq!(errors(&text.replace("input: hot", "input: t0")), "");
}
