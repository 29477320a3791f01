//! Files that are no pipeline files: missing, empty, no UTF-8, no YAML; and expressions that YAML has torn apart.

use super::{check, errors};
use standpipe_pipeline::{LoadOptions, PipelineFile};
use std::path::Path;

fn read(path: &Path) -> (String, u8) {
    let found = PipelineFile::read(path, &LoadOptions::default()).map(|_| ()).unwrap_err();
    (found.to_string(), found.exit_code())
}

#[test]
fn files_that_cannot_be_read() {
    let missing = ("/no/such/pipeline.yaml: cannot read the file: there is none".to_owned(), 2);
    assert_eq!(read(Path::new("/no/such/pipeline.yaml")), missing);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(dir.path()), (format!("{}: cannot read the file: it is a directory", dir.path().display()), 2));
    let path = dir.path().join("p.yaml");
    for (bytes, place) in
        [(&b"name: \xff"[..], "1:7"), (b"\xc3(", "1:1"), (b"name: m\nsources: \xc3\xbc\xc3", "2:11"), (b"a: 1\n\xfe", "2:1")]
    {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path), (format!("{}:{place}: not UTF-8 text", path.display()), 2));
    }
}

#[test]
fn texts_that_are_no_pipeline() {
    for (text, message) in [
        ("", "pipeline.yaml:1:1: the file is empty"),
        ("\n\n", "pipeline.yaml:1:1: the file is empty"),
        ("# nothing yet\n", "pipeline.yaml:1:1: the file is empty"),
        ("---\n", "pipeline.yaml:1:1: the file is empty"),
        ("metrics", "pipeline.yaml:1:1: expected a map, found \"metrics\""),
        ("- a\n- b\n", "pipeline.yaml:1:1: expected a map, found a list"),
        (
            "{}",
            "pipeline.yaml:1:1: missing key \"name\"\npipeline.yaml:1:1: missing key \"sources\"\npipeline.yaml:1:1: missing key \"sinks\"",
        ),
        ("name: a\n---\nname: b\n", "pipeline.yaml:2:1: a file has one YAML document"),
        ("name: [a\n", "pipeline.yaml:1:7: unclosed bracket '['"),
    ] {
        assert_eq!(errors(text), message, "{text:?}");
    }
}

#[test]
fn yaml_that_is_none() {
    check(&[
        ("    connector: lines\n", "\tconnector: lines\n", "pipeline.yaml:4:1: a tab, where YAML takes only spaces: indent with spaces"),
        (
            "    connector: lines\n",
            "  \t  connector: lines\n",
            "pipeline.yaml:4:3: a tab, where YAML takes only spaces: indent with spaces",
        ),
        (
            "    format: json\n",
            "     format: json\n",
            "pipeline.yaml:6:6: a line that belongs to no map: let keys of one map begin in the same column",
        ),
        (
            "name: metrics",
            "name: \"metrics",
            "pipeline.yaml:2:1: a text in quotes does not end before the next line that is not indented: close the quotes",
        ),
        ("name: metrics\n", "name: metrics\nname: again\n", "pipeline.yaml:2:1: the key \"name\" is there twice, first at 1:1"),
        (
            "{n: count(*), mean: avg(value)}",
            "{n: count(*), n: avg(value)}",
            "pipeline.yaml:15:30: the key \"n\" is there twice, first at 15:17",
        ),
    ]);
}

#[test]
fn expressions_without_quotes() {
    const ALIAS: &str = "in YAML, * and & at the beginning of a value are for aliases and anchors: put the expression in quotes";
    check(&[
        ("{input: readings, filter: value > 90}", "{input: readings, select: *}", &format!("pipeline.yaml:10:34: {ALIAS}")),
        ("value > 90", "*value", &format!("pipeline.yaml:10:34: {ALIAS}")),
        ("value > 90", "@value > 90", "pipeline.yaml:10:34: in YAML, a value cannot begin with @: put the value in quotes"),
        ("value > 90", "!value", "pipeline.yaml:10:40: the tag !value is not supported"),
        (
            "value > 90",
            "'x' = host",
            "pipeline.yaml:10:38: there is text behind the closing quote: put the expression in quotes as a whole: \"name = 'x'\"",
        ),
        (
            "value > 90",
            "{value}",
            "pipeline.yaml:10:34: transforms.hot.filter: expected an expression, found a map: put the expression in quotes",
        ),
        (
            "value > 90",
            "[value]",
            "pipeline.yaml:10:34: transforms.hot.filter: expected an expression, found a list: put the expression in quotes",
        ),
        (
            "filter: value > 90",
            "select: {a: coalesce(host, 'x')}",
            "pipeline.yaml:10:56: there is text behind the closing quote: put the expression in quotes as a whole: \"name = 'x'\"",
        ),
        (
            "filter: value > 90",
            "filter: coalesce(value, 0.0) > 90",
            "pipeline.yaml:10:34: transforms.hot.filter: unbalanced parenthesis in \"coalesce(value\": put the expression in quotes\n\
             pipeline.yaml:10:50: transforms.hot: unbalanced parenthesis in \"0.0) > 90\": put the expression in quotes",
        ),
        (
            "filter: value > 90",
            "select: {a: coalesce(host, host)}",
            "pipeline.yaml:10:38: transforms.hot.select.a: unbalanced parenthesis in \"coalesce(host\": put the expression in quotes\n\
             pipeline.yaml:10:53: transforms.hot.select: unbalanced parenthesis in \"host)\": put the expression in quotes",
        ),
        (
            "value: float64}",
            "value: decimal(10, 2)}",
            "pipeline.yaml:7:53: sources.readings.schema.value: unbalanced parenthesis in \"decimal(10\": put the expression in quotes\n\
             pipeline.yaml:7:65: sources.readings.schema: unbalanced parenthesis in \"2)\": put the expression in quotes",
        ),
        (
            "value: float64}",
            "value: map<string, int64>}",
            "pipeline.yaml:7:53: sources.readings.schema.value: a type that is cut off, \"map<string\": put the type in quotes",
        ),
        ("value: float64}", "value: float64, tags: \"map<string, int64>\"}", ""),
    ]);
}
