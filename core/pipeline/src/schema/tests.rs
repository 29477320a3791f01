use super::*;
use crate::{
    config_check,
    diagnostic::{Report, Span},
    file::{With, functions, isolation, job, nodes, verbs},
    yaml,
};

/// Every map of known keys: its definition here, and its table in the reader.
fn tables() -> [(&'static str, &'static [&'static str]); 18] {
    [
        ("", &job::JOB_KEYS),
        ("Engine", &job::ENGINE_KEYS),
        ("State", &job::STATE_KEYS),
        ("Checkpoint", &job::CHECKPOINT_KEYS),
        ("Restart", &job::RESTART_KEYS),
        ("Function", &functions::FUNCTION_KEYS),
        ("Source", &nodes::SOURCE_KEYS),
        ("DetailedFormat", &nodes::FORMAT_KEYS),
        ("DetailedSinkFormat", &nodes::SINK_FORMAT_KEYS),
        ("DetailedColumn", &nodes::COLUMN_KEYS),
        ("EventTime", &nodes::EVENT_TIME_KEYS),
        ("DetailedIsolation", &isolation::ISOLATION_KEYS),
        ("Sandbox", &isolation::SANDBOX_KEYS),
        ("Transform", &verbs::TRANSFORM_KEYS),
        ("Async", &verbs::ASYNC_KEYS),
        ("Window", &verbs::WINDOW_KEYS),
        ("DetailedTumbling", &verbs::TUMBLING_KEYS),
        ("Sink", &nodes::SINK_KEYS),
    ]
}

#[test]
fn editors_know_the_keys_that_the_reader_knows() {
    let schema = json_schema();
    for (definition, known) in tables() {
        let target = if definition.is_empty() { &schema } else { &schema["$defs"][definition] };
        let mut keys: Vec<&String> = target["properties"].as_object().unwrap_or_else(|| panic!("{definition}")).keys().collect();
        keys.sort();
        let mut known = known.to_vec();
        known.sort_unstable();
        assert_eq!(keys, known, "{definition}");
        assert_eq!(target["additionalProperties"], false, "{definition}");
    }
    // And there are no other maps of known keys.
    let closed = |definition: &&Value| definition["additionalProperties"] == false;
    assert_eq!(schema["$defs"].as_object().unwrap().values().filter(closed).count() + 1, tables().len());
}

#[test]
fn it_is_a_json_schema() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "Standpipe pipeline");
    assert_eq!(schema["required"], serde_json::json!(["name", "sources", "sinks"]));
    let mut references = Vec::new();
    walk(&schema, &mut |value| references.extend(value.get("$ref").and_then(Value::as_str).map(str::to_owned)));
    assert!(references.len() > 20);
    for reference in references {
        assert!(schema.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
    }
}

fn walk(value: &Value, see: &mut impl FnMut(&Value)) {
    see(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        Value::Object(members) => members.values().for_each(|member| walk(member, see)),
        _ => {}
    }
}

#[test]
fn no_key_may_be_null() {
    assert!(!json_schema().to_string().contains("\"null\""));
    assert_eq!(json_schema()["properties"]["engine"]["$ref"], "#/$defs/Engine");
}

/// What our check of plugins' configurations says to a pipeline file by this schema.
fn findings(text: &str) -> String {
    let report = Report::new(vec!["p.yaml".to_owned()]);
    let node = yaml::parse(text, 0, &report).unwrap();
    config_check::check(&With { node, span: Span::default() }, "", &json_schema(), &report);
    report.check().map_or_else(|found| found.to_string(), |()| String::new())
}

#[test]
fn the_examples_are_valid_by_it() {
    for text in [
        include_str!("../../../../examples/design.yaml"),
        include_str!("../../../../examples/signal-quality.yaml"),
        include_str!("../../../../examples/word-count.yaml"),
        include_str!("../../../../examples/word-count-changes.yaml"),
    ] {
        assert_eq!(findings(text), "", "{text}");
    }
}

#[test]
fn what_the_reader_refuses_is_invalid_by_it() {
    const GOOD: &str = include_str!("../../../../examples/design.yaml");
    for (line, other, finding) in [
        ("parallelism: 2  ", "paralelism: 2  ", "p.yaml:2:1: unknown key \"paralelism\", did you mean \"parallelism\"?"),
        ("parallelism: 2  ", "parallelism: 0  ", "p.yaml:2:14: parallelism: must be at least 1, not 0"),
        (
            "format: json  ",
            "format: xml  ",
            "p.yaml:12:13: sources.readings.format: unknown value \"xml\"; possible values: raw, json, csv, parquet",
        ),
        ("idle_timeout: 10s", "idle_timeout: 10", "p.yaml:14:66: sources.readings.event_time.idle_timeout: expected text, found \"10\""),
        ("union: true", "union: false", "p.yaml:27:45: transforms.both.union: expected true, found \"false\""),
        (
            "tumbling: 10s",
            "tumbling: {sise: 10s}",
            "p.yaml:24:25: transforms.stats.window.tumbling: unknown key \"sise\", did you mean \"size\"?",
        ),
        ("input: stats, ", "", "p.yaml:30:3: sinks.out: missing key \"input\""),
    ] {
        assert!(GOOD.contains(line), "{line}");
        assert_eq!(findings(&GOOD.replacen(line, other, 1)), finding, "{other}");
    }
}
