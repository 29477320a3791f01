//! Expressions in the real binary: what ends a job instead of giving wrong numbers, how deep they may be, what is said of secrets, and filters of changing streams.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::json;
use standpipe_tests::{Folder, Run, last_rows, rows, standpipe};

/// A pipeline of one transform, `t`, between rows of `host` and `n` in a file and stdout.
fn folder(transform: &str, input: &str) -> Folder {
    let folder = Folder::new();
    folder.write("in.jsonl", input);
    folder.write(
        "pipeline.yaml",
        format!(
            "name: expressions
sources: {{in: {{connector: file, with: {{path: in.jsonl}}, format: json, schema: {{host: string, at: timestamp, n: int64}}, event_time: {{column: at}}}}}}
transforms:
  t: {transform}
sinks: {{out: {{input: t, connector: print}}}}
"
        ),
    );
    folder
}

fn command(name: &str, folder: &Folder) -> Run {
    standpipe([name, "pipeline.yaml"]).in_directory(folder.path())
}

const LARGE: &str = "{\"host\":\"a\",\"at\":\"2024-01-01 00:00:00\",\"n\":9223372036854775807}\n";

#[test]
fn a_whole_number_that_overflows_ends_the_job() {
    for (transform, expression) in [
        ("{input: in, filter: \"n + 1 > 0\"}", "n + 1 > 0"),
        ("{input: in, select: {x: \"n * 2\"}}", "n * 2"),
        ("{input: in, aggregate: {x: \"sum(n * n)\"}}", "sum(n * n)"),
        ("{input: in, window: {tumbling: 10s}, aggregate: {x: \"max(n + 1)\"}}", "max(n + 1)"),
        ("{input: in, window: {tumbling: 10s}, aggregate: {x: \"sum(n * n)\", y: \"median(n)\"}}", "sum(n * n)"),
        ("{input: in, select: {x: \"-n - 2\"}}", "-n - 2"),
    ] {
        let line = command("run", &folder(transform, LARGE)).finish().one_error(1);
        let expected = format!("transforms.t: {expression:?} fails on a row: Arithmetic overflow: ");
        assert!(line.starts_with(&expected), "{line}\nis not\n{expected}");
    }
    let least = LARGE.replace("9223372036854775807", "-9223372036854775808");
    let line = command("run", &folder("{input: in, select: {x: \"-n\"}}", &least)).finish().one_error(1);
    assert!(line.starts_with("transforms.t: \"-n\" fails on a row: Arithmetic overflow: "), "{line}");
}

/// As deep as it may be; what `check` takes must not be too much for a worker's stack.
#[test]
fn the_deepest_expression_runs() {
    let chain = |term: &dyn Fn(usize) -> String, between: &str, terms: usize| (0..terms).map(term).collect::<Vec<_>>().join(between);
    let input = "{\"host\":\"a\",\"at\":\"2024-01-01 00:00:00\",\"n\":7}\n".repeat(3);
    let word = |word: &'static str| move |_: usize| word.to_owned();
    let deepest = |make: &dyn Fn(usize) -> String| {
        let accepted = |terms: &usize| command("check", &folder(&make(*terms), &input)).finish().stderr.contains(" is valid: ");
        (490..=500).rev().find(accepted).map(make).unwrap_or_else(|| panic!("not even 490: {}", make(490)))
    };
    let cases: [&dyn Fn(usize) -> String; 6] = [
        &|terms| format!("{{input: in, filter: \"{}\"}}", chain(&|i| format!("n = {i}"), " or ", terms)),
        &|terms| format!("{{input: in, filter: \"{}\"}}", chain(&|i| format!("host like '%{i}'"), " or ", terms) + " or n = 7"),
        &|terms| format!("{{input: in, select: {{x: \"{}\"}}}}", chain(&word("n"), " + ", terms)),
        &|terms| format!("{{input: in, select: {{x: \"{}\"}}}}", chain(&word("host"), " || ", terms)),
        &|terms| format!("{{input: in, select: {{x: \"n{}\"}}}}", "::text::bigint".repeat(terms / 2)),
        &|terms| {
            format!("{{input: in, window: {{tumbling: 10s}}, aggregate: {{x: \"sum({})\"}}}}", chain(&word("n"), " * 1 + ", terms / 2))
        },
    ];
    for case in cases {
        let transform = deepest(case);
        let finished = command("run", &folder(&transform, &input)).finish().code(0);
        assert!(!rows(&finished.stdout).is_empty(), "{transform}: {}", finished.stderr);
    }
    let too_deep = chain(&|i| format!("n = {i}"), " or ", 3000);
    let line = command("check", &folder(&format!("{{input: in, filter: \"{too_deep}\"}}"), &input)).finish().one_error(2);
    let message = "the expression is more than 500 operators deep: write a chain of a = 1 or a = 2 as: a in (1, 2)";
    assert_eq!(line, format!("pipeline.yaml:4:26: transforms.t.filter: {message}"));
}

#[test]
fn an_expression_that_fails_shows_no_secret() {
    for transform in [
        "{input: in, select: {x: \"cast(concat(host, '${PW}') as bigint)\"}}",
        "{input: in, filter: \"cast(concat(host, '${PW}') as bigint) > 0\"}",
        "{input: in, aggregate: {x: \"sum(cast(concat(host, '${PW}') as bigint))\"}}",
        "{input: in, window: {tumbling: 10s}, aggregate: {x: \"median(cast(concat(host, '${PW}') as bigint))\"}}",
    ] {
        let finished = command("run", &folder(transform, LARGE)).env("PW", "hunter2").args(["--log-level", "trace"]).finish();
        assert!(!finished.stderr.contains("hunter2") && !finished.stdout.contains("hunter2"), "{}", finished.stderr);
        let message = "fails on a row; the message is withheld because the expression has a secret";
        let errors: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].starts_with("error: transforms.t: ") && errors[0].ends_with(message), "{errors:?}");
    }
}

#[test]
fn an_error_of_a_connector_shows_the_reference() {
    let folder = folder("{input: in, filter: \"true\"}", LARGE);
    folder.write(
        "pipeline.yaml",
        folder.read("pipeline.yaml").replace("connector: print", "connector: file, with: {path: '${WHERE}/out.jsonl'}"),
    );
    for format in ["text", "json"] {
        let run = command("run", &folder).env("WHERE", "nowhere/hunter2").args(["--log-format", format, "--log-level", "trace"]);
        let finished = run.finish().code(3);
        assert!(finished.stderr.contains("error: sinks.out: file: cannot write ${WHERE}/out.jsonl: "), "{}", finished.stderr);
        assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
    }
}

#[test]
fn a_filter_of_changes_leaves_nothing_behind() {
    let numbers = [("a", 1), ("b", 9), ("a", 7), ("c", 3), ("b", 2), ("a", 4), ("c", 8), ("d", 6)];
    let input: String = numbers.iter().map(|(host, n)| format!("{{\"host\":\"{host}\",\"n\":{n}}}\n")).collect();
    for batch_rows in [1, 2, 3, 100] {
        let folder = folder("{input: g, filter: \"last < 5\"}", &input);
        let grouped = "transforms:\n  g: {input: in, key_by: [host], aggregate: {last: \"last_value(n)\"}, emit: changes}\n";
        folder.write("pipeline.yaml", folder.read("pipeline.yaml").replace("transforms:\n", grouped));
        let finished = command("run", &folder).set("engine.batch_rows", batch_rows.to_string()).finish().code(0);
        let mut left: Vec<_> =
            last_rows(&rows(&finished.stdout), &["host"]).into_iter().map(|row| json!([row["host"], row["last"]])).collect();
        left.sort_by_key(ToString::to_string);
        assert_eq!(left, [json!(["a", 4]), json!(["b", 2])], "batches of {batch_rows}: {}", finished.stdout);
    }
}

#[test]
fn a_reference_can_be_a_setting_of_a_connector() {
    let folder = Folder::new();
    folder.write(
        "pipeline.yaml",
        "name: settings
sources: {g: {connector: generator, with: {count: '${COUNT}', fields: {a: {kind: '${KIND}'}}}}}
sinks: {out: {input: g, connector: print}}
",
    );
    let finished = command("run", &folder).env("COUNT", "3").env("KIND", "sequence").finish().code(0);
    assert_eq!(rows(&finished.stdout).len(), 3, "{}", finished.stdout);
    let line = command("check", &folder).env("COUNT", "hunter2").env("KIND", "sequence").finish().one_error(2);
    assert!(line.contains(": sources.g.with.count: expected ") && line.contains("\"${COUNT}\"") && !line.contains("hunter2"), "{line}");
}
