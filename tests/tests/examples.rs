//! The pipelines in `examples/`: each one is accepted, those that need no service give their golden outputs at every parallelism.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::json;
use standpipe_tests::{Folder, Row, assert_same_rows, last_rows, read_rows, repository, standpipe};
use std::fs;

const OUTPUTS: [&str; 4] = ["signal-windows", "flag-runs", "current-flag", "late-signals"];

/// Columns that are float32: the golden outputs, made by Python, write them as float64.
fn with_float32(mut rows: Vec<Row>, columns: &[&str]) -> Vec<Row> {
    for row in &mut rows {
        for column in columns {
            if let Some(value) = row.get_mut(*column) {
                *value = json!(value.as_f64().unwrap() as f32);
            }
        }
    }
    rows
}

fn golden(name: &str) -> Vec<Row> {
    with_float32(read_rows(repository().join(format!("examples/golden/{name}.jsonl"))), &["min", "max"])
}

#[test]
fn every_example_is_accepted() {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let finished = standpipe(["check"]).args([&path]).finish().code(0);
            assert!(finished.stdout.is_empty() && finished.stderr.contains(" is valid: "), "{finished:?}");
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    for name in
        ["design.yaml", "payments.yaml", "signal-quality-file.yaml", "signal-quality.yaml", "word-count-changes.yaml", "word-count.yaml"]
    {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
}

#[test]
fn signal_quality_gives_its_golden_outputs_at_every_parallelism() {
    assert_eq!(OUTPUTS.map(|name| golden(name).len()), [100, 144, 5, 0]);
    for parallelism in ["1", "2", "4"] {
        let folder = Folder::new();
        let mut run = standpipe(["run", "examples/signal-quality-file.yaml", "--parallelism", parallelism]);
        for name in OUTPUTS {
            run = run.set(&format!("sinks.{name}.with.path"), folder.at(name));
        }
        let finished = run.finish().code(0);
        assert!(finished.stdout.is_empty() && finished.stderr.contains(" 600 rows in, "), "{finished:?}");
        for name in OUTPUTS {
            let mut found = with_float32(read_rows(folder.at(name)), &["min", "max"]);
            if name == "current-flag" {
                found = last_rows(&found, &["baseline_id"]);
            }
            assert_same_rows(&format!("{name} at parallelism {parallelism}"), &found, &golden(name));
        }
    }
}

#[test]
fn every_signal_is_in_a_window() {
    let folder = Folder::new();
    let windows = folder.at("windows");
    let mut run = standpipe(["run", "examples/signal-quality-file.yaml", "-p", "4"]).set("sinks.signal-windows.with.path", &windows);
    for name in &OUTPUTS[1..] {
        run = run.set(&format!("sinks.{name}.with.path"), folder.at(name));
    }
    run.finish().success();
    let signals = read_rows(repository().join("examples/data/signals.jsonl"));
    for baseline in [42, 22, 5, 11, 3] {
        let sent = signals.iter().filter(|signal| signal["baselineId"] == baseline).count() as u64;
        let of_baseline = read_rows(&windows).into_iter().filter(|row| row["baseline_id"] == baseline);
        let counted: u64 = of_baseline.map(|row| row["n"].as_u64().unwrap_or_else(|| panic!("{row:?}"))).sum();
        assert_eq!((counted, sent > 0), (sent, true), "baseline {baseline}");
    }
}

#[test]
fn payments_give_their_golden_outputs_at_every_parallelism() {
    let outputs = ["team-totals", "platform-pairs"];
    assert_eq!(outputs.map(|name| golden(name).len()), [200, 99]);
    for (parallelism, backend) in [("1", "memory"), ("3", "memory"), ("2", "disk")] {
        let folder = Folder::new();
        let mut run = standpipe(["run", "examples/payments.yaml", "--parallelism", parallelism]).set("engine.state.backend", backend);
        if backend == "disk" {
            run = run.set("engine.state.dir", folder.at("state"));
        }
        for name in outputs {
            run = run.set(&format!("sinks.{name}.with.path"), folder.at(name));
        }
        run.finish().success();
        assert_eq!(fs::read_dir(folder.at("state")).map_or(0, Iterator::count), 0, "state on disk is scratch");
        for name in outputs {
            assert_same_rows(&format!("{name} at parallelism {parallelism}"), &read_rows(folder.at(name)), &golden(name));
        }
    }
}
