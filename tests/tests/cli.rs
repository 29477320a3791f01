//! The command line itself: help, usage errors, overrides, what goes to stdout and what to stderr.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::Value;
use standpipe_tests::{Finished, Folder, fixture_plugin, rows, standpipe};
use std::time::Duration;

const THREE: &str = "name: three
sources: {rows: {connector: generator, with: {count: 3, fields: {n: {kind: sequence}}}}}
sinks: {out: {input: rows, connector: print, format: json}}
";

fn three(arguments: &[&str]) -> Finished {
    let folder = Folder::new();
    folder.write("three.yaml", THREE);
    standpipe(arguments).in_directory(folder.path()).finish()
}

#[test]
fn help_and_version_go_to_stdout() {
    for arguments in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["plugin", "--help"], &["demo", "--help"]] {
        let finished = standpipe(arguments).finish().code(0);
        assert!(finished.stdout.contains("Usage: standpipe") && finished.stderr.is_empty(), "{finished:?}");
    }
    let help = standpipe(["--help"]).finish().stdout;
    for command in ["run", "check", "explain", "schema", "plugin", "demo", "Exit codes:"] {
        assert!(help.contains(command), "{command} is not in\n{help}");
    }
    let version = standpipe(["--version"]).finish().code(0).stdout;
    assert_eq!(version, format!("standpipe {}\n", env!("CARGO_PKG_VERSION")));
}

/// `standpipe schema | head -1`.
#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let plugin = fixture_plugin();
    let inspect = ["plugin", "inspect", plugin.to_str().unwrap()];
    for arguments in [&["schema"][..], &["plugin", "list"], &["explain", "examples/word-count.yaml"], &inspect] {
        let mut run = standpipe(arguments).stdout_unread().start();
        run.close_stdout();
        assert_eq!(run.wait().code(0).stderr, "", "{arguments:?}");
    }
}

#[test]
fn a_usage_error_is_2_and_goes_to_stderr() {
    for arguments in [
        &[][..],
        &["rnu"],
        &["run"],
        &["run", "three.yaml", "--paralelism", "2"],
        &["run", "three.yaml", "--parallelism", "0"],
        &["run", "three.yaml", "--parallelism", "two"],
        &["run", "three.yaml", "--set", "parallelism"],
        &["run", "three.yaml", "more.yaml"],
        &["plugin"],
        &["--log-format", "xml", "schema"],
    ] {
        let finished = three(arguments).code(2);
        let stderr = &finished.stderr;
        assert!(finished.stdout.is_empty() && (stderr.contains("Usage: ") || stderr.starts_with("error: ")), "{finished:?}");
    }
    assert!(three(&["chekc"]).stderr.contains("'check'"), "a suggestion");
}

#[test]
fn data_alone_goes_to_stdout() {
    let finished = three(&["run", "three.yaml"]).code(0);
    assert_eq!(finished.stdout, "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n");
    let [line] = finished.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{}", finished.stderr) };
    assert!(line.starts_with("three: finished in ") && line.ends_with(": 3 rows in, 3 rows out"), "{line}");
}

#[test]
fn quiet_says_nothing_but_errors() {
    let finished = three(&["run", "--quiet", "three.yaml"]).code(0);
    assert_eq!((finished.stdout.lines().count(), finished.stderr.as_str()), (3, ""));
    let line = three(&["run", "--quiet", "three.yaml", "--set", "sinks.out.input=rosw"]).one_error(2);
    assert!(line.contains("did you mean \"rows\"?"), "{line}");
}

#[test]
fn set_changes_a_key_of_the_pipeline() {
    let numbers = |arguments: &[&str]| {
        let output = three(&[&["run", "-q", "three.yaml"], arguments].concat()).code(0).stdout;
        rows(&output).iter().map(|row| row["n"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[]), [0, 1, 2]);
    assert_eq!(numbers(&["--set", "sources.rows.with.count=2"]), [0, 1]);
    assert_eq!(numbers(&["--set", "sources.rows.with.fields={n: {kind: sequence, start: 7}}"]), [7, 8, 9]);
    // A key that is not there yet, and the last one of several.
    assert_eq!(
        numbers(&["--set", "sources.rows.with.seed=5", "--set", "sources.rows.with.count=9", "--set", "sources.rows.with.count=1"]),
        [0]
    );
    let output = three(&["run", "-q", "three.yaml", "--set", "sinks.out.with.prefix=row="]).code(0).stdout;
    assert_eq!(output, "row={\"n\":0}\nrow={\"n\":1}\nrow={\"n\":2}\n");
}

#[test]
fn the_schema_of_pipeline_files_is_json() {
    let finished = standpipe(["schema"]).finish().code(0);
    assert!(finished.stderr.is_empty());
    let schema: Value = serde_json::from_str(&finished.stdout).unwrap();
    for section in ["name", "sources", "transforms", "sinks", "parallelism"] {
        assert!(schema["properties"].get(section).is_some(), "{section} is not in the schema");
    }
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
}

#[test]
fn explain_shows_every_node_and_the_same_plan_every_time() {
    let explain = || standpipe(["explain", "examples/signal-quality-file.yaml", "-p", "2"]).finish().code(0).stdout;
    let text = explain();
    for node in ["signals", "flagged", "windows", "runs", "current", "signal-windows", "flag-runs", "current-flag", "late-signals"] {
        assert!(text.contains(node), "{node} is not in\n{text}");
    }
    assert_eq!(explain(), text);
}

#[test]
fn check_runs_nothing() {
    let finished = three(&["check", "three.yaml"]).code(0);
    assert!(finished.stdout.is_empty() && finished.stderr.starts_with("three.yaml: three is valid: "), "{finished:?}");
}

#[test]
fn check_says_what_each_sink_holds_after_a_failure() {
    const PIPELINE: &str = "
name: held
checkpoint: {interval: 1s}
sources: {lines: {connector: file, with: {path: in.jsonl}, format: json, schema: {n: int64}}}
transforms: {stamped: {input: lines, select: {\"*\": true, at: \"now()\"}}}
sinks:
  copy: {input: lines, connector: file, with: {path: out.jsonl}}
  shown: {input: lines, connector: print}
  index: {input: stamped, connector: elasticsearch, with: {hosts: [\"http://127.0.0.1:9200\"], index: x, id: [n]}}
";
    let folder = Folder::new();
    folder.write("held.yaml", PIPELINE);
    let check = |set: &[(&str, &str)]| {
        let run = standpipe(["check", "held.yaml"]).in_directory(folder.path());
        set.iter().fold(run, |run, (key, value)| run.set(key, value)).finish()
    };
    let said = check(&[]).code(0).stderr;
    let lines: Vec<&str> = said.lines().skip(1).collect();
    let print = "  sinks.shown: print is neither transactional nor idempotent as it is configured: ";
    assert_eq!(
        (lines[0], lines[1], lines[3]),
        ("sinks.copy: exactly-once", "sinks.shown: at-least-once", "sinks.index: effectively-once"),
        "{said}"
    );
    assert!(lines.len() == 4 && lines[2].starts_with(print), "{said}");
    // What is demanded and held, and what is not.
    check(&[("sinks.copy.guarantee", "exactly-once"), ("sinks.index.guarantee", "effectively-once")]).success();
    let error = check(&[("sinks.shown.guarantee", "exactly-once")]).one_error(2);
    assert!(
        error.starts_with(
            "--set sinks.shown.guarantee=exactly-once: sinks.shown.guarantee: exactly-once is demanded, and it is at-least-once: "
        ),
        "{error}"
    );
    let error = check(&[("sinks.index.guarantee", "effectively-once"), ("sinks.index.with.id", "[n, at]")]).one_error(2);
    assert!(error.contains("transforms.stamped: now() differs each time that it is computed"), "{error}");
    // Standard input cannot be read again; a job that runs is refused in the same way.
    let said = check(&[("sources.lines.with.path", "\"-\"")]).code(0).stderr;
    assert!(said.contains("sinks.copy: at-most-once\n"), "{said}");
    assert_eq!(said.matches("warning: held.yaml: sources.lines: file cannot give its rows again").count(), 1, "{said}");
    let run = standpipe(["run", "held.yaml"]).in_directory(folder.path());
    let error = run.set("sources.lines.with.path", "\"-\"").set("sinks.copy.guarantee", "at-least-once").finish().one_error(2);
    assert!(error.contains("at-least-once is demanded, and it is at-most-once: sources.lines: "), "{error}");
}

#[test]
fn log_lines_are_json_where_that_is_asked_for() {
    let folder = Folder::new();
    folder.write("slow.yaml", THREE.replace("connector: print, format: json", "connector: bad"));
    let run = standpipe(["--log-format", "json", "--log-level", "debug", "run", "slow.yaml", "--quiet"]);
    let finished = run.in_directory(folder.path()).plugin_path(fixture_plugin()).set("sinks.out.with", "{log: 3}").finish().code(0);
    let lines: Vec<Value> =
        finished.stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let ours: Vec<&Value> = lines.iter().filter(|line| line["message"] == "as asked, a line").collect();
    assert_eq!(ours.len(), 3, "{}", finished.stderr);
    for line in ours {
        assert!(
            line["level"] == "INFO"
                && line["operator"] == "sinks.out"
                && line["job"].as_str().is_some_and(|job| job.len() == 32)
                && line["timestamp"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn a_failure_is_logged_with_its_job_and_operator() {
    let folder = Folder::new();
    folder.write("fails.yaml", THREE.replace("connector: print, format: json", "connector: bad, with: {at: write, how: fail}"));
    let run = standpipe(["--log-format", "json", "--log-level", "info", "run", "fails.yaml", "--quiet"]);
    let finished = run.in_directory(folder.path()).plugin_path(fixture_plugin()).finish().code(1);
    let lines: Vec<Value> = finished.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["failed"] == true).collect();
    let [line] = failed[..] else { panic!("{}", finished.stderr) };
    assert!(line["operator"] == "sinks.out" && line["job"].as_str().is_some_and(|job| job.len() == 32), "{line}");
    assert!(line["message"].as_str().is_some_and(|message| message.contains("as asked, in write")), "{line}");
}

#[test]
fn the_log_level_says_which_lines_come() {
    let folder = Folder::new();
    folder.write("log.yaml", THREE.replace("connector: print, format: json", "connector: bad, with: {log: 2}"));
    let lines = |arguments: &[&str], filter: &str| {
        let run = standpipe(["run", "log.yaml", "--quiet"]).args(arguments).env("STANDPIPE_LOG", filter).timeout(Duration::from_secs(30));
        let stderr = run.in_directory(folder.path()).plugin_path(fixture_plugin()).finish().code(0).stderr;
        stderr.lines().filter(|line| line.contains("INFO") && line.contains("as asked, a line")).count()
    };
    assert_eq!(
        [lines(&[], ""), lines(&["--log-level", "info"], ""), lines(&["--log-level", "error"], ""), lines(&[], "info")],
        [0, 2, 0, 2]
    );
}
