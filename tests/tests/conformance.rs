//! `standpipe plugin check`: every bundled plugin passes the conformance suite, as do the examples; a plugin that crashes, ends the process or hangs is a finding, and what cannot be tried is one line.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_tests::{Folder, Run, example_plugin, fixture_plugin, plugin, repository, standpipe};
use std::{path::PathBuf, process::Command, time::Duration};

/// Batches in the search for leaks: enough to see what each loses, few enough for every change of the code.
const BATCHES: &str = "3000";

fn check(file: PathBuf, arguments: &[&str]) -> Run {
    standpipe(["plugin", "check"]).args([file]).args(arguments).timeout(Duration::from_secs(300))
}

/// Checks one kind, which must pass; its report. `passes` are checks that must not be left out.
fn passed(file: PathBuf, folder: &Folder, name: &str, config: &Value, more: &[&str], passes: &[&str]) {
    let config = config.to_string();
    let run = check(file, &["--name", name, "--config", &config, "--batches", BATCHES, "--format", "json"]);
    let finished = run.args(more).in_directory(folder.path()).finish();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}{}", finished.stdout, finished.stderr));
    let findings = report["reports"][0]["findings"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let of = |verdict: &str| findings.iter().filter(|found| found["verdict"] == verdict).collect::<Vec<_>>();
    assert!(of("failed").is_empty() && finished.code(0).stderr.is_empty(), "{name}: {:#?}", of("failed"));
    for check in passes {
        let finding = findings.iter().find(|found| found["check"] == *check).unwrap();
        assert_eq!(finding["verdict"], "passed", "{name}: {finding:#}");
    }
}

#[test]
fn bundled_sources_pass() {
    let folder = Folder::new();
    let always =
        ["configuration", "lifecycle", "enumerator", "schema", "limits", "commits", "nonsense", "cancellation", "threads", "leaks"];
    let fields = json!({"n": {"kind": "sequence"}, "word": {"kind": "string", "length": 5}, "at": {"kind": "timestamp"}});
    let rows = json!({"count": 500, "splits": 3, "seed": 7, "fields": fields});
    let positions = [&always[..], &["positions", "end"]].concat();
    passed(plugin("connector_generator"), &folder, "generator", &rows, &["--kind", "source"], &positions);
    let slow = json!({"rate": 2000, "fields": fields});
    passed(plugin("connector_generator"), &folder, "generator", &slow, &["--kind", "source"], &always);
    let lines = |from: u32| (from..from + 300).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    folder.write("a.jsonl", lines(0));
    folder.write("b.jsonl", lines(300));
    let one = json!({"path": "a.jsonl"});
    passed(plugin("connector_file"), &folder, "file", &one, &["--kind", "source"], &positions);
    passed(plugin("connector_file"), &folder, "file", &json!({"path": "*.jsonl"}), &["--kind", "source"], &positions);
    passed(example_plugin("countdown"), &folder, "countdown", &json!({"from": 300}), &[], &positions);
}

#[test]
fn bundled_sinks_pass() {
    let folder = Folder::new();
    let always =
        ["configuration", "lifecycle", "capabilities", "acknowledgements", "batches", "change-modes", "busy", "finish", "nonsense"];
    let always = [&always[..], &["cancellation", "release", "threads", "leaks"]].concat();
    passed(plugin("connector_print"), &folder, "print", &json!({"prefix": "row "}), &[], &always);
    passed(plugin("connector_collect"), &folder, "collect", &json!({}), &[], &always);
    let transactional = [&always[..], &["transactions", "recovery", "abort"]].concat();
    passed(plugin("connector_file"), &folder, "file", &json!({"path": "out.jsonl"}), &["--kind", "sink"], &transactional);
    let parts = json!({"path": "parts/", "create_dirs": true});
    passed(plugin("connector_file"), &folder, "file", &parts, &["--kind", "sink"], &transactional);
    let stand_in = StandIn::start("127.0.0.1:0", Faults::default()).unwrap();
    let index = json!({"hosts": [stand_in.url()], "index": "conformance", "id": ["id"], "batch": {"max_age": "10ms"}});
    passed(plugin("connector_elasticsearch"), &folder, "elasticsearch", &index, &[], &[&always[..], &["replay"]].concat());
}

#[test]
fn bundled_transforms_and_functions_pass() {
    let folder = Folder::new();
    let examples = || plugin("transforms_examples");
    let always =
        ["configuration", "lifecycle", "schema", "batches", "deterministic", "batch-sizes", "snapshot", "nonsense", "cancellation"];
    let always = [&always[..], &["release", "threads", "leaks"]].concat();
    let rows = ["--schema", "key:string, set:bool, n:int64, price:float64, at:timestamp, offset:int64 not null, text:string"];
    let keyed = [&rows[..], &["--key", "key"]].concat();
    passed(examples(), &folder, "split-words", &json!({"column": "text", "keep": ["key"]}), &rows, &always);
    passed(examples(), &folder, "flag", &json!({}), &rows, &always);
    passed(examples(), &folder, "run-length", &json!({"column": "set", "time": "at"}), &keyed, &always);
    passed(examples(), &folder, "pair-average", &json!({"column": "price", "sliding": true}), &keyed, &always);
    passed(examples(), &folder, "running-sum", &json!({"column": "n"}), &keyed, &always);

    let scalar = ["configuration", "bind", "arguments", "result", "immutable", "rows", "concurrent", "release", "leaks"];
    passed(examples(), &folder, "names", &json!({"names": {"1": "one", "2": "two"}}), &["--arguments", "int64"], &scalar);
    let aggregate =
        ["bind", "arguments", "result", "consumes-nothing", "merge", "batch-sizes", "groups", "forget", "nonsense", "release", "leaks"];
    passed(examples(), &folder, "weighted_avg", &json!({}), &[], &aggregate);
}

#[test]
fn example_plugins_pass() {
    let folder = Folder::new();
    let hand_over = ["acknowledgements", "transactions", "recovery", "abort", "release", "threads", "leaks"];
    passed(example_plugin("handover"), &folder, "handover", &json!({"folder": "out"}), &[], &hand_over);
    let sources = repository().join("examples/plugins/c");
    let library = folder.at("libc_example.so");
    let made = Command::new("make").arg("-C").arg(sources).arg(format!("OUT={}", library.display())).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (of_source, of_transform) = (["positions", "end", "nonsense", "leaks"], ["snapshot", "nonsense", "release", "leaks"]);
    passed(library.clone(), &folder, "c-numbers", &json!({"count": 400}), &[], &of_source);
    passed(library.clone(), &folder, "c-running-total", &json!({}), &["--schema", "n:int64, k:string", "--key", "k"], &of_transform);
    passed(library, &folder, "c-lines", &json!({"path": "out.txt"}), &[], &["acknowledgements", "batches", "release", "threads", "leaks"]);
}

#[test]
fn bundled_deployment_modes_pass() {
    let folder = Folder::new();
    let always = ["configuration", "unknown-keys", "validate", "lifecycle", "handles", "cancellation", "threads", "leaks"];
    passed(plugin("deployment_cli"), &folder, "cli", &json!({}), &[], &always);
    let nobody = json!({"rest.address": "127.0.0.1", "rest.port": 9});
    passed(plugin("deployment_session"), &folder, "session", &nobody, &[], &always);
    let nowhere = json!({"kubernetes.config.file": "no-such-file"});
    passed(plugin("deployment_kubernetes"), &folder, "kubernetes-application", &nowhere, &[], &always);
    passed(example_plugin("background"), &folder, "background", &json!({"background.folder": "jobs"}), &[], &always);
}

#[test]
fn a_pipeline_says_what_a_node_is_tried_with() {
    let folder = Folder::new();
    folder.write(
        "pipeline.yaml",
        "name: words
sources: {rows: {connector: generator, with: {count: 100, fields: {user: {kind: sequence}, text: {kind: string, length: 9}}}}}
transforms: {words: {input: rows, transform: split-words, with: {column: text, keep: [user]}}}
sinks: {out: {input: words, connector: print, format: csv}}
",
    );
    for (file, node) in [("connector_generator", "rows"), ("transforms_examples", "transforms.words"), ("connector_print", "sinks.out")] {
        let run = check(plugin(file), &["--pipeline", "pipeline.yaml", "--node", node, "--batches", "500"]).in_directory(folder.path());
        let finished = run.finish().code(0);
        assert!(finished.stdout.contains(" passed, 0 failed, "), "{}", finished.stdout);
    }
    let line = check(plugin("connector_print"), &["--pipeline", "pipeline.yaml", "--node", "rows"])
        .in_directory(folder.path())
        .finish()
        .one_error(2);
    assert!(line.starts_with("pipeline.yaml: sources.rows is a node of ") && line.contains("generator"), "{line}");
    let line = check(plugin("connector_print"), &["--pipeline", "pipeline.yaml", "--node", "word"])
        .in_directory(folder.path())
        .finish()
        .one_error(2);
    assert!(line.starts_with("pipeline.yaml: there is no node \"word\"; there are: sources.rows, "), "{line}");
}

#[test]
fn rows_of_a_file_are_taken() {
    let folder = Folder::new();
    folder.write("rows.jsonl", "{\"text\":\"a b\",\"n\":1}\n{\"text\":null,\"n\":2}\n{\"text\":\"c\",\"n\":3}\n");
    let of = |more: &[&str]| {
        let run =
            check(plugin("transforms_examples"), &["--name", "split-words", "--config", "{\"column\": \"text\"}", "--input", "rows.jsonl"]);
        run.args(more).in_directory(folder.path()).finish()
    };
    let finished = of(&["--schema", "text:string, n:int64", "--only", "schema,deterministic"]).code(0);
    assert!(finished.stdout.contains("3 rows in 1 batches of 1 outputs"), "{}", finished.stdout);
    let line = of(&[]).one_error(2);
    assert_eq!(line, "--input rows.jsonl: its lines do not say which types their columns have: --schema does, or --pipeline");
    let line = of(&["--schema", "text:int64, n:int64"]).one_error(2);
    assert!(line.starts_with("--input rows.jsonl: row 1: "), "{line}");
    folder.write("rows.txt", "");
    let run = check(plugin("transforms_examples"), &["--name", "split-words", "--config", "{\"column\": \"text\"}", "--input", "rows.txt"]);
    let line = run.in_directory(folder.path()).finish().one_error(2);
    assert_eq!(line, "--input rows.txt: expected a file that ends with .parquet, .jsonl or .csv");
}

/// The finding of one check of the fixture's sink, which does something terrible.
fn fixture(how: &str, at: &str, only: &str) -> Value {
    let config = json!({"at": at, "how": how}).to_string();
    let arguments = ["--kind", "sink", "--config", &config, "--only", only, "--deadline", "1s", "--batches", "64", "--format", "json"];
    let finished = check(fixture_plugin(), &arguments).finish().code(1);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    report["reports"][0]["findings"].clone()
}

#[test]
fn a_plugin_that_ends_its_process_is_a_finding_and_the_others_go_on() {
    let found = fixture("abort", "flush", "lifecycle,batches,nonsense");
    for (at, verdict) in [(0, "failed"), (1, "failed"), (2, "passed")] {
        assert_eq!(found[at]["verdict"], verdict, "{found:#}");
    }
    assert_eq!(found[0]["message"], "the process ended by the signal 6 (SIGABRT)");
    let found = fixture("exit", "write", "batches,nonsense");
    assert_eq!(found[0]["message"], "the process ended with the exit code 7: a plugin must not end its host");
    assert_eq!(found[1]["verdict"], "passed");
    let found = fixture("abort", "validate", "batches");
    assert_eq!(
        found[0]["message"],
        "while the plugin was loaded and asked about its configuration the process ended by the signal 6 (SIGABRT)"
    );
}

#[test]
fn a_plugin_that_hangs_is_a_finding() {
    let found = fixture("block", "flush", "batches,nonsense");
    assert_eq!(found[0]["message"], "a call has not come back within 16 s", "{found:#}");
    assert_eq!(found[1]["verdict"], "passed", "{found:#}");
}

#[test]
fn a_panic_is_a_finding_with_its_place() {
    let found = fixture("panic", "write", "batches");
    let message = found[0]["message"].as_str().unwrap();
    let expected =
        "a batch without rows: write: sinks.node: plugin \"bad\" panicked in write: as asked, in write at tests/fixtures/plugin.rs:";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn what_cannot_be_tried_is_one_line() {
    let folder = Folder::new();
    let line = |arguments: &[&str], file: PathBuf| check(file, arguments).in_directory(folder.path()).finish().one_error(2);
    let keys = line(&["--kind", "source"], plugin("connector_file"));
    assert!(keys.starts_with("source file: it needs a configuration: \"path\" must be given (--config has"), "{keys}");
    let refused = line(&["--kind", "source", "--config", "{\"path\": \"a\", \"metdata\": true}"], plugin("connector_file"));
    assert!(refused.contains("the configuration is refused: metdata: is not known, did you mean \"metadata\"?"), "{refused}");
    assert!(line(&["--config", "{\"path\""], plugin("connector_file")).starts_with("--config: no JSON: "));
    assert!(line(&["--config", "7"], plugin("connector_file")).starts_with("--config: expected a JSON object"));
    assert!(
        line(&["--config", "{}"], plugin("connector_file"))
            .starts_with("--config is for one kind: name it by --kind and --name; there are: ")
    );
    assert!(line(&["--name", "fil"], plugin("connector_file")).contains("there is no such kind in it, only: "));
    assert!(line(&["--only", "position"], plugin("connector_file")).starts_with("--only position: no kind of this file has such a check"));
    assert!(line(&["--schema", "a:strng"], plugin("connector_print")).contains("did you mean \"string\"?"));
    let missing = folder.at("nowhere.so");
    assert!(line(&[], missing.clone()).starts_with(&format!("{}: cannot be read: ", missing.display())));
    let none = check(plugin("connector_file"), &["--config", "@nowhere.json", "--kind", "sink"]).finish().one_error(3);
    assert!(none.starts_with("--config @nowhere.json: "), "{none}");
}

#[test]
fn the_report_is_a_table_and_the_list_has_every_check() {
    let finished = check(plugin("connector_print"), &["--batches", "64", "--only", "lifecycle,transactions"]).finish().code(0);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[0], "sink print");
    assert!(lines[1].starts_with("  \u{2713} lifecycle     made, opened, closed"), "{}", finished.stdout);
    assert_eq!(lines[2], "  \u{2013} transactions  the sink does not declare `transactional`");
    assert_eq!(lines[3], "  1 passed, 0 failed, 1 skipped");
    let listed = standpipe(["plugin", "check", "--list"]).finish().code(0).stdout;
    for kind in ["source", "transform", "sink", "scalar", "aggregate", "deployment"] {
        assert!(listed.lines().any(|line| line == kind), "{listed}");
    }
    let page = std::fs::read_to_string(repository().join("docs/plugin-guide.md")).unwrap();
    for check in listed.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()) {
        assert!(page.contains(&format!("`{check}`")), "docs/plugin-guide.md does not name the check {check}");
    }
    assert!(listed.contains("  positions          reading from a position gives exactly the rest (`replayable`)"), "{listed}");
}
