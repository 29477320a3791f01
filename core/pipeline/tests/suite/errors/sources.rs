//! Sources: connectors, `with`, formats, schemas, event time.

use super::{check, errors, replaced};

#[test]
fn sources() {
    check(&[
        (
            "out_of_orderness: 2s",
            "max_drift: 0ms",
            "pipeline.yaml:8:41: sources.readings.event_time.max_drift: is 0s, which would hold all splits back but the last; write how far one may be ahead of the others, such as 30s",
        ),
        (
            "out_of_orderness: 2s",
            "max_drift: soon",
            "pipeline.yaml:8:41: sources.readings.event_time.max_drift: \"soon\" is no duration; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m",
        ),
        (
            "out_of_orderness: 2s",
            "max_drft: 30s",
            "pipeline.yaml:8:30: sources.readings.event_time: unknown key \"max_drft\", did you mean \"max_drift\"?",
        ),
        (
            "out_of_orderness: 2s",
            "alignment_group: all",
            "pipeline.yaml:8:47: sources.readings.event_time.alignment_group: needs \"max_drift\": how far this source may be ahead of the others of its group",
        ),
        (
            "out_of_orderness: 2s",
            "max_drift: 30s, alignment_group: ''",
            "pipeline.yaml:8:63: sources.readings.event_time.alignment_group: expected text, found \"\"",
        ),
        (
            "out_of_orderness: 2s",
            "max_drift: 30s, alignment_group: [all]",
            "pipeline.yaml:8:63: sources.readings.event_time.alignment_group: expected text, found a list",
        ),
        (
            "connector: lines",
            "connectr: lines",
            "pipeline.yaml:4:5: sources.readings: unknown key \"connectr\", did you mean \"connector\"?",
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
            "pipeline.yaml:5:12: sources.readings.with: unknown key \"pth\", did you mean \"path\"?",
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
            "format: {type: json, on_null: drop}",
            "pipeline.yaml:6:35: sources.readings.format.on_null: unknown value \"drop\"; possible values: broken, skip, row",
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
