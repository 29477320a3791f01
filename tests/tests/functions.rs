//! Functions of plugins in expressions: scalar ones in `select` and `filter`, aggregate ones in windows and without, what `check` says of wrong calls, and that plan and
//! bundle know of them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::json;
use standpipe_tests::{Folder, Row, Run, assert_same_rows, last_rows, read_rows, rows, standpipe};

const FUNCTIONS: &str = "
functions:
  team: {function: names, with: {names: {1: Red, 2: Green}, otherwise: none}}
";

/// A pipeline of one transform, `t`, between prices in a file and stdout.
fn folder(functions: &str, transform: &str) -> Folder {
    let folder = Folder::new();
    let row = |id: i64, second: i64, price: f64, amount: i64| {
        format!("{{\"id\":{id},\"at\":\"2024-01-01 00:00:{second:02}\",\"price\":{price},\"amount\":{amount}}}\n")
    };
    folder.write("in.jsonl", [row(1, 0, 10.0, 1), row(2, 1, 4.0, 2), row(1, 2, 20.0, 3), row(3, 11, 7.0, 1), row(1, 12, 1.0, 1)].concat());
    folder.write(
        "pipeline.yaml",
        format!(
            "name: functions{functions}
sources: {{in: {{connector: file, with: {{path: in.jsonl}}, format: json, schema: {{id: int32, at: timestamp, price: float64, amount: int64}}, event_time: {{column: at}}}}}}
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

fn given(functions: &str, transform: &str, parallelism: &str) -> Vec<Row> {
    let finished = command("run", &folder(functions, transform)).args(["--parallelism", parallelism]).finish().success();
    rows(&finished.stdout)
}

fn row(columns: serde_json::Value) -> Row {
    columns.as_object().unwrap().clone()
}

#[test]
fn a_scalar_function_computes_columns_and_decides_about_rows() {
    let expected: Vec<Row> =
        ["Red", "Green", "Red", "none", "Red"].iter().zip([1, 2, 1, 3, 1]).map(|(team, id)| row(json!({"id": id, "team": team}))).collect();
    let transform = "{input: in, select: {id: id, team: team(id)}}";
    assert_same_rows("select", &given(FUNCTIONS, transform, "2"), &expected);
    // Upper case is the same name: expressions are SQL.
    let transform = "{input: in, filter: \"TEAM(id) = 'none' or team(2) = 'Red'\"}";
    let found = given(FUNCTIONS, transform, "1");
    assert_eq!(found.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), [3]);
}

#[test]
fn an_aggregate_function_folds_windows() {
    let transform =
        "{input: in, key_by: [id], window: {tumbling: 10s}, aggregate: {mean: \"weighted_avg(price, amount)\", n: \"count(*)\"}}";
    for parallelism in ["1", "2"] {
        let found: Vec<Row> = given("", transform, parallelism)
            .into_iter()
            .map(|window| row(json!({"id": window["id"], "mean": window["mean"], "n": window["n"]})))
            .collect();
        let expected = [(1, 17.5, 2), (2, 4.0, 1), (3, 7.0, 1), (1, 1.0, 1)];
        let expected: Vec<Row> = expected.iter().map(|(id, mean, n)| row(json!({"id": id, "mean": mean, "n": n}))).collect();
        assert_same_rows(&format!("parallelism {parallelism}"), &found, &expected);
    }
}

#[test]
fn an_aggregate_function_keeps_running_values() {
    let transform =
        |emit: &str| format!("{{input: in, key_by: [id], aggregate: {{mean: \"weighted_avg(price, amount * 1)\"}}, emit: {emit}}}");
    let expected = |means: &[(i32, f64)]| -> Vec<Row> { means.iter().map(|(id, mean)| row(json!({"id": id, "mean": mean}))).collect() };
    let last = expected(&[(1, 14.2), (2, 4.0), (3, 7.0)]);
    for parallelism in ["1", "2"] {
        assert_same_rows("final", &given("", &transform("final"), parallelism), &last);
        assert_same_rows("changes", &last_rows(&given("", &transform("changes"), parallelism), &["id"]), &last);
        let each = expected(&[(1, 10.0), (2, 4.0), (1, 17.5), (3, 7.0), (1, 14.2)]);
        assert_same_rows("each", &given("", &transform("each"), parallelism), &each);
    }
}

/// Means over windows that are open at a checkpoint, and over everything; whole numbers, so that sums do not depend on their order.
const FOLDS: &str = "
name: folds
parallelism: 2
checkpoint: {interval: 100ms, dir: ckpt}
restart: {strategy: fixed-delay, attempts: 3, delay: 10ms}
sources:
  in:
    connector: generator
    with:
      count: 4000
      rate: 4000
      splits: 2
      start: \"2024-01-01 00:00:00\"
      step: 10ms
      fields: {k: {kind: choice, values: [1, 2, 3, 4, 5]}, at: {kind: timestamp}, v: {kind: uniform-int, min: 0, max: 99}, w: {kind: uniform-int, min: 1, max: 9}}
    event_time: {column: at, out_of_orderness: 1s}
transforms:
  windows: {input: in, key_by: [k], window: {tumbling: 30s}, aggregate: {mean: \"weighted_avg(v, w)\", n: \"count(*)\"}}
  totals: {input: in, key_by: [k], aggregate: {mean: \"weighted_avg(v, w)\"}}
sinks:
  windows-out: {input: windows, connector: file, with: {path: windows.jsonl}}
  totals-out: {input: totals, connector: file, with: {path: totals.jsonl}}
";

#[test]
fn what_functions_have_folded_goes_on_after_a_crash() {
    let undisturbed = Folder::new();
    undisturbed.write("folds.yaml", FOLDS);
    standpipe(["run", "folds.yaml"]).in_directory(undisturbed.path()).finish().success();
    let expected = |file: &str| read_rows(undisturbed.at(file));
    assert!(expected("windows.jsonl").len() >= 10 && expected("totals.jsonl").len() == 5);
    for processes in ["1", "2"] {
        let folder = Folder::new();
        folder.write("folds.yaml", FOLDS);
        let run =
            standpipe(["run", "folds.yaml", "--processes", processes]).in_directory(folder.path()).env("STANDPIPE_CRASH_AT", "committed:4");
        let stderr = run.finish().success().stderr;
        assert!(stderr.contains("folds: goes on from checkpoint 4 in ckpt/folds"), "{stderr}");
        for file in ["windows.jsonl", "totals.jsonl"] {
            assert_same_rows(&format!("{file}, {processes} processes"), &read_rows(folder.at(file)), &expected(file));
        }
    }
}

/// `check` shows one line, which begins with the place.
#[test]
fn a_wrong_call_is_one_line_at_check() {
    let select = |call: &str| format!("{{input: in, select: {{x: \"{call}\"}}}}");
    let aggregate = |call: &str| format!("{{input: in, aggregate: {{x: \"{call}\"}}}}");
    let function = |text: &str| format!("\nfunctions:\n  team: {text}\n");
    let good = FUNCTIONS.to_owned();
    for (functions, transform, expected) in [
        (good.clone(), select("team(price)"), "transforms.t.select.x: team(): names: takes a whole number or a text, not float64"),
        (good.clone(), select("team(id, id)"), "transforms.t.select.x: team(): names: takes 1 argument, the key, not 2"),
        (good.clone(), select("team()"), "transforms.t.select.x: team(): names: takes 1 argument, the key, not 0"),
        (good.clone(), select("tem(id)"), "transforms.t.select.x: unknown function \"tem\", did you mean \"team\"?"),
        (
            good.clone(),
            select("names(id)"),
            "transforms.t.select.x: names: names: is missing; a function with a configuration gets a name under functions",
        ),
        (good.clone(), aggregate("weighted_avg(price)"), "transforms.t.aggregate.x: weighted_avg: takes 2 arguments, not 1"),
        (good.clone(), aggregate("weighted_avg(distinct price, id)"), "weighted_avg() knows neither DISTINCT nor IGNORE NULLS"),
        (good.clone(), aggregate("weighted_avg(at, id)"), "weighted_avg() takes float64 as argument 1, not timestamp"),
        (good.clone(), aggregate("weighted_avg('a', id)"), "weighted_avg() takes float64 as argument 1, not string"),
        (good.clone(), select("weighted_avg(price, id)"), "weighted_avg() is an aggregate function, which only aggregate: can compute"),
        (
            function("{function: nmes}"),
            select("team(id)"),
            "functions.team.function: there is no function \"nmes\", did you mean \"names\"?",
        ),
        (
            function("{function: names, with: {nams: {}}}"),
            select("team(id)"),
            "functions.team.with: unknown key \"nams\", did you mean \"names\"?",
        ),
        (function("{function: names, with: {names: {a: b}}}"), select("team(id)"), "the argument is a whole number, this is none"),
        (
            function("{function: names, with: {names: {1: \"${HOME}\"}}}"),
            select("team(id)"),
            "the configuration of a function has no references",
        ),
        (
            "\nfunctions: {lower: {function: names, with: {names: {}}}}\n".to_owned(),
            select("lower('A')"),
            "there is a function \"lower\" already",
        ),
        ("\nfunctions: {team-name: {function: names}}\n".to_owned(), select("id"), "the name of a function begins with a letter"),
    ] {
        let stderr = command("check", &folder(&functions, &transform)).finish().code(2).stderr;
        assert!(stderr.contains(expected), "{stderr}\nhas not\n{expected}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    }
}

#[test]
fn plan_hash_and_list_know_functions() {
    let explain = |functions: &str| {
        let text = command("explain", &folder(functions, "{input: in, select: {x: \"team(id)\"}}")).finish().success().stdout;
        (text.split("plan ").nth(1).unwrap()[..16].to_owned(), text)
    };
    let (hash, text) = explain(FUNCTIONS);
    assert!(text.contains("\nfunctions.team: function names@0.1.0\n  plugin standpipe-transforms-examples "), "{text}");
    assert_ne!(hash, explain(&FUNCTIONS.replace("Green", "Blue")).0, "another configuration is another plan");
    let list = standpipe(["plugin", "list"]).finish().success().stdout;
    assert!(list.contains("weighted_avg") && list.contains("aggregate"), "{list}");
    assert!(list.contains("names") && list.contains("scalar"), "{list}");
}
