//! What is wrong with a pipeline, with what it reads and with where it writes: each is one clear line on stderr, nothing on stdout, and the right exit code.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::json;
use standpipe_tests::{Finished, Folder, Run, binary, free_port, read_rows, rows, standpipe};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

/// Nothing is wrong with this one.
const GOOD: &str = "name: good
sources:
  lines:
    connector: file
    with: {path: in.jsonl}
    format: json
    schema: {word: string, count: int64}
transforms:
  big:
    input: lines
    filter: \"count > 1\"
  twice:
    input: big
    select: {word: \"word\", twice: \"count * 2\"}
sinks:
  out:
    input: twice
    connector: file
    with: {path: out.jsonl}
    format: json
";

const INPUT: &str = "{\"word\":\"a\",\"count\":1}\n{\"word\":\"b\",\"count\":2}\n";

/// A folder with the good pipeline, after a change, and its input.
fn changed(from: &str, to: &str) -> Folder {
    assert!(GOOD.contains(from), "{from} is not in the pipeline");
    let folder = Folder::new();
    folder.write("pipeline.yaml", GOOD.replacen(from, to, 1));
    folder.write("in.jsonl", INPUT);
    folder
}

fn command(name: &str, folder: &Folder) -> Run {
    standpipe([name, "pipeline.yaml"]).in_directory(folder.path())
}

/// Runs the good pipeline after a change; it is to fail with that exit code. Gives the one line of the error.
fn error(from: &str, to: &str, code: i32) -> String {
    let folder = changed(from, to);
    let line = command("run", &folder).finish().one_error(code);
    assert_eq!(folder.names(), ["in.jsonl", "pipeline.yaml"], "{line}: something is left behind");
    line
}

/// An error that `check` finds too, with the same words.
fn found_by_check(from: &str, to: &str) -> String {
    let line = error(from, to, 2);
    assert_eq!(command("check", &changed(from, to)).finish().one_error(2), line);
    line
}

#[test]
fn nothing_is_wrong_with_the_good_pipeline() {
    let folder = changed("", "");
    let finished = command("run", &folder).finish().code(0);
    assert!(finished.stdout.is_empty() && finished.stderr.contains(" 2 rows in, 1 rows out"), "{finished:?}");
    assert_eq!(folder.read("out.jsonl"), "{\"word\":\"b\",\"twice\":4}\n");
}

#[test]
fn mistakes_in_the_pipeline_file_are_named_with_their_place() {
    for (from, to, expected) in [
        (
            "{path: out.jsonl}",
            "{path: out.jsonl, create_dir: true}",
            "pipeline.yaml:19:29: sinks.out.with: unknown key \"create_dir\", did you mean \"create_dirs\"?",
        ),
        ("name: good", "name: good\nparalelism: 2", "pipeline.yaml:2:1: unknown key \"paralelism\", did you mean \"parallelism\"?"),
        ("{path: out.jsonl}", "{}", "pipeline.yaml:19:5: sinks.out.with: missing key \"path\""),
        ("name: good\n", "", "pipeline.yaml:1:1: missing key \"name\""),
        ("name: good", "name: good\nparallelism: many", "pipeline.yaml:2:14: parallelism: expected a whole number"),
        ("path: in.jsonl", "path: [1, 2]", "pipeline.yaml:5:18: sources.lines.with.path: expected text, found a list"),
        ("count > 1", "cuont > 1", "pipeline.yaml:11:13: transforms.big.filter: unknown column \"cuont\", did you mean \"count\"?"),
        ("input: big", "input: bgi", "pipeline.yaml:13:12: transforms.twice.input: there is no node \"bgi\", did you mean \"big\"?"),
        ("count: int64", "count: int65", "pipeline.yaml:7:35: sources.lines.schema.count: unknown type \"int65\", did you mean \"int64\"?"),
        ("name: good", "name: [good", "pipeline.yaml:"),
        ("sources:", "name: again\nsources:", "pipeline.yaml:2:1: the key \"name\" is there twice"),
    ] {
        let line = found_by_check(from, to);
        assert!(line.starts_with(expected), "{to}: {line}");
    }
}

#[test]
fn an_expression_with_a_wrong_type_is_found_before_anything_runs() {
    for (from, to, expected) in [
        ("\"count > 1\"", "\"word + 1 > 1\"", ["transforms.big.filter: ", "string", "int64"]),
        ("\"count > 1\"", "\"count + 1\"", ["transforms.big.filter: ", "condition", "int64"]),
        ("\"count > 1\"", "\"count >\"", ["transforms.big.filter: ", "expression", "count >"]),
    ] {
        let line = found_by_check(from, to);
        assert!(line.starts_with("pipeline.yaml:11:13: ") && expected.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[test]
fn nodes_that_lead_nowhere_or_to_themselves() {
    let line = found_by_check("input: lines", "input: twice");
    assert!(line.starts_with("pipeline.yaml:9:3: ") && line.contains("cycle: big -> twice -> big"), "{line}");
    let without_sinks = &GOOD[GOOD.find("sinks:").unwrap()..];
    let line = found_by_check(without_sinks, "");
    assert!(line.starts_with("pipeline.yaml:") && line.contains("\"sinks\""), "{line}");
}

#[test]
fn an_unknown_connector_lists_those_found_and_where_it_looked() {
    let line = found_by_check("connector: file", "connector: flie");
    let here = binary().parent().unwrap().display().to_string();
    let place = "pipeline.yaml:4:16: sources.lines.connector: there is no source \"flie\", did you mean \"file\"?";
    assert!(line.starts_with(place) && line.contains(&here), "{line}");
    for name in ["file", "generator", "kafka"] {
        assert!(line.split_once("Found: ").unwrap().1.contains(name), "{line}");
    }
}

#[test]
fn a_mistake_on_the_command_line_is_named_as_it_was_written() {
    for (set, expected) in [
        ("sinks.out.with.pth=x", "--set sinks.out.with.pth=x: "),
        ("sources.lines.schema.count=int65", "--set sources.lines.schema.count=int65: "),
        ("nothing.here=1", "--set nothing.here=1: "),
    ] {
        let line = command("run", &changed("", "")).args(["--set", set]).finish().one_error(2);
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn files_that_are_missing() {
    let folder = Folder::new();
    let line = standpipe(["run", "nowhere.yaml"]).in_directory(folder.path()).finish().one_error(3);
    assert!(line.starts_with("nowhere.yaml: cannot read the file: "), "{line}");
    for (path, expected) in [
        ("nowhere.jsonl", "sources.lines: file: cannot read nowhere.jsonl: No such file or directory"),
        ("\"*.nowhere\"", "sources.lines: file: no file matches *.nowhere"),
    ] {
        let line = error("in.jsonl", path, 3);
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn places_where_nothing_can_be_written() {
    for (path, expected) in [
        ("nowhere/out.jsonl", "cannot write nowhere/out.jsonl: there is no directory nowhere"),
        ("in.jsonl/out.jsonl", "cannot write in.jsonl/out.jsonl: there is no directory in.jsonl"),
        ("/dev/full", "cannot write /dev/full: No space left on device"),
        (".", "cannot write ."),
    ] {
        let line = error("out.jsonl", path, 3);
        assert!(line.starts_with(&format!("sinks.out: file: {expected}")), "{line}");
    }
}

#[test]
fn a_directory_without_permission() {
    // Root may write everywhere.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let folder = changed("out.jsonl", "closed/out.jsonl");
    let closed = folder.at("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let line = command("run", &folder).finish().one_error(3);
    assert!(line.starts_with("sinks.out: file: cannot write closed/out.jsonl: Permission denied"), "{line}");
}

/// A pipeline from the generator to the file sink, with another source or sink in the place of one of them.
fn with_service(source: &str, sink: &str) -> Folder {
    let folder = Folder::new();
    folder.write("pipeline.yaml", format!("name: service\nsources: {{rows: {{{source}}}}}\nsinks: {{out: {{input: rows, {sink}}}}}\n"));
    folder
}

const GENERATED: &str = "connector: generator, with: {count: 10, fields: {n: {kind: sequence}}}";
const TO_FILE: &str = "connector: file, with: {path: out.jsonl}, format: json";

#[test]
fn services_that_cannot_be_reached() {
    let address = format!("127.0.0.1:{}", free_port());
    let kafka = format!("connector: kafka, with: {{bootstrap: \"{address}\", topic: t, connect_timeout: 1s}}, format: json");
    let elasticsearch = format!("connector: elasticsearch, with: {{hosts: [\"http://{address}\"], index: i, id: [n]}}");
    for (folder, node) in [
        (with_service(&format!("{kafka}, schema: {{n: int64}}"), TO_FILE), "sources.rows: kafka: "),
        (with_service(GENERATED, &kafka), "sinks.out: kafka: "),
        (with_service(GENERATED, &elasticsearch), "sinks.out: elasticsearch: "),
    ] {
        let finished = command("run", &folder).args(["--log-level", "error"]).finish();
        assert!(finished.elapsed < Duration::from_secs(10), "{:?}", finished.elapsed);
        let line = finished.one_error(3);
        assert!(line.starts_with(node) && line.contains(&address), "{line}");
        assert_eq!(folder.names(), ["pipeline.yaml"]);
    }
}

/// Broken in different ways, and three that are not.
const BROKEN: &[u8] = b"{\"word\":\"a\",\"count\":1}
{\"word\":\"b\",\"count\":2
{\"word\":\"c\",\"count\":3}
{\"word\":\"d\",\"count\":\"x\"}
{\"word\":\"\xff\xfe\",\"count\":9}
no JSON
{\"word\":\"e\",\"count\":4}
";

fn on_broken(from: &str, to: &str) -> (Folder, Finished) {
    let folder = changed(from, to);
    folder.write("in.jsonl", BROKEN);
    let finished = command("run", &folder).finish();
    (folder, finished)
}

#[test]
fn a_broken_record_fails_the_job_unless_the_pipeline_says_otherwise() {
    for format in ["json", "{type: json, on_error: fail}"] {
        let (folder, finished) = on_broken("format: json", &format!("format: {format}"));
        let line = finished.one_error(1);
        assert!(line.starts_with("sources.lines: split \"in.jsonl\", "), "{line}");
        assert!(line.contains("end of the record") && line.ends_with("in {\"word\":\"b\",\"count\":2"), "{line}");
        assert_eq!(folder.names(), ["in.jsonl", "pipeline.yaml"], "a job that failed left a file");
    }
}

#[test]
fn broken_records_can_be_skipped_and_are_counted() {
    let (folder, finished) = on_broken("format: json", "format: {type: json, on_error: skip}");
    let finished = finished.code(0);
    assert!(finished.stderr.trim_end().ends_with(": 7 rows in, 2 rows out, 4 broken"), "{}", finished.stderr);
    assert_eq!(folder.read("out.jsonl"), "{\"word\":\"c\",\"twice\":6}\n{\"word\":\"e\",\"twice\":8}\n");
}

#[test]
fn broken_records_can_be_kept_with_their_reasons() {
    let dead = "sinks:\n  dead: {input: lines.errors, connector: file, with: {path: dead.jsonl}, format: json}";
    let folder = changed("sinks:", dead);
    folder.write("in.jsonl", BROKEN);
    let finished = command("run", &folder).set("sources.lines.format", "{type: json, on_error: dead-letter}").finish().code(0);
    assert!(finished.stderr.trim_end().ends_with(", 4 broken"), "{}", finished.stderr);
    assert_eq!(folder.read("out.jsonl"), "{\"word\":\"c\",\"twice\":6}\n{\"word\":\"e\",\"twice\":8}\n");
    let dead = read_rows(folder.at("dead.jsonl"));
    for (row, reason) in dead.iter().zip(["end of the record", "\"x\"", "invalid UTF-8", "expected an object"]) {
        assert!(row["reason"].as_str().unwrap().contains(reason) && row["split"] == "in.jsonl", "{row:?}");
    }
    // Bytes are written as base64.
    let records: Vec<_> = dead.iter().map(|row| row["record"].clone()).collect();
    assert_eq!((records.len(), &records[3]), (4, &json!("bm8gSlNPTg==")));
}

#[test]
fn records_that_nobody_takes_are_refused_before_anything_runs() {
    let line = found_by_check("format: json", "format: {type: json, on_error: dead-letter}");
    assert!(line.starts_with("pipeline.yaml:6:") && line.contains("lines.errors"), "{line}");
}

#[test]
fn control_characters_of_a_record_do_not_reach_the_terminal() {
    let folder = changed("", "");
    folder.write("in.jsonl", "{\"word\":\"\u{1b}[2J\u{7}\u{0}\",\"count\":1}\n");
    let line = command("run", &folder).finish().one_error(1);
    assert!(!line.contains(char::is_control) && line.contains("\\u{1b}[2J"), "{line}");
}

#[test]
fn empty_input_gives_empty_output() {
    for content in ["", "\n", "\n\n\n"] {
        let folder = changed("", "");
        folder.write("in.jsonl", content);
        let finished = command("run", &folder).finish().code(0);
        assert!(finished.stderr.contains(" 0 rows in, 0 rows out"), "{}", finished.stderr);
        assert_eq!(folder.read("out.jsonl"), "");
    }
}

#[test]
fn one_huge_line_is_a_record_like_another() {
    let folder = changed("", "");
    let long = "x".repeat(63 << 20);
    folder.write("in.jsonl", format!("{{\"word\":\"{long}\",\"count\":5}}\n{{\"word\":\"b\",\"count\":7}}"));
    command("run", &folder).finish().success();
    let found = rows(&folder.read("out.jsonl"));
    assert!(found[0]["word"] == long.as_str() && found[0]["twice"] == 10 && found[1]["twice"] == 14 && found.len() == 2);
}

#[test]
fn a_line_that_is_too_long_is_refused_with_its_place() {
    let folder = changed("", "");
    folder.write("in.jsonl", format!("{{\"word\":\"b\",\"count\":7}}\n{{\"word\":\"{}\",\"count\":5}}\n", "x".repeat(65 << 20)));
    let line = command("run", &folder).finish().one_error(1);
    assert_eq!(line, "sources.lines: file: in.jsonl: the record at byte 23 is longer than max_record_bytes, 67108864");
}

#[test]
fn text_that_is_no_utf_8_is_a_broken_record() {
    let raw = "name: raw
sources: {lines: {connector: file, with: {path: in.txt}, format: raw, schema: {line: string}}}
sinks: {out: {input: lines, connector: print, format: json}}
";
    let folder = Folder::new();
    folder.write("pipeline.yaml", raw);
    folder.write("in.txt", b"good\n\xff\xfe\n");
    let line = command("run", &folder).finish().one_error(1);
    assert!(line.starts_with("sources.lines: split \"in.txt\", ") && line.contains("UTF-8"), "{line}");
}

#[test]
fn a_pipeline_file_that_is_no_text() {
    let line = standpipe(["check", "examples"]).finish().one_error(2);
    assert!(line.starts_with("examples: cannot read the file: ") && line.contains("directory"), "{line}");
    for (content, expected) in [
        (&b"\xff\xfe"[..], "not UTF-8"),
        (b"", "empty"),
        (b"- 1\n- 2\n", ""),
        (b"just text", ""),
        (b"name: x\nsources:\n\tlines: {}\n", "tab"),
        (b"\0\0\0", ""),
    ] {
        let folder = Folder::new();
        folder.write("pipeline.yaml", content);
        let line = command("run", &folder).finish().one_error(2);
        assert!(line.starts_with("pipeline.yaml") && line.contains(expected), "{line}");
    }
}
