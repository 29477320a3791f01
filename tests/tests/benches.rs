//! The benchmark driver, `cargo xtask bench`, at a scale at which it takes seconds: every subject runs, finds its output right and prints its table. No figure is looked at.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, binary, kafka, opensearch, repository};
use std::{
    fs::{Permissions, set_permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

fn bench(standpipe: &Path, folder: &Folder, arguments: &[&str]) -> Output {
    let driver = binary().with_file_name("standpipe-bench");
    let mut command = Command::new(&driver);
    command.arg("--standpipe").arg(standpipe).arg("--root").arg(repository()).arg("--data").arg(folder.path());
    command.args(["--rounds", "1"]).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", driver.display()))
}

/// Each subject by a line that its output has.
fn assert_runs(arguments: &[&str], lines: &[&str]) {
    let output = bench(&binary(), &Folder::new(), arguments);
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{log}", output.status);
    for line in lines {
        assert!(text.lines().any(|found| found.starts_with(line)), "no line begins with {line:?}:\n{text}\n{log}");
    }
}

#[test]
fn the_workloads_run_and_their_output_is_right() {
    for only in ["w1", "w2", "w3", "w4"] {
        assert_runs(&["--scale", "0.002", "--only", only], &[&format!("| standpipe/{only}/p1 |"), &format!("| standpipe/{only}/p2 |")]);
    }
}

const KEEPERS: [&str; 3] =
    ["| plugin's state, in memory | ", "| plugin's state, on disk, cache of 64 MiB | ", "| aggregate without a window | "];

#[test]
fn recovery_is_measured_and_every_row_after_it_is_looked_at() {
    assert_runs(&["--costs", "--scale", "0.01", "--only", "recovery-disk"], &[KEEPERS[1]]);
}

#[test]
fn memory_per_key_is_measured_for_each_kind_of_state() {
    assert_runs(&["--costs", "--scale", "0.01", "--only", "memory-per-key"], &KEEPERS);
}

#[test]
fn snapshots_and_restores_are_measured_for_each_kind_of_state() {
    assert_runs(&["--costs", "--scale", "0.01", "--only", "snapshots"], &KEEPERS);
}

#[test]
fn checkpoints_are_measured_against_none() {
    assert_runs(&["--costs", "--scale", "0.01", "--only", "checkpoints-aggregate"], &KEEPERS[2..]);
}

#[test]
fn calls_of_a_plugin_are_measured_and_what_it_gives_is_right() {
    let lines = [
        "| 1 | 1 | ",
        "| 20 | 8192 | ",
        "| a number, a column lent | 1000 | ",
        "| a text, read and written | 8192 | ",
        "| 5 | 4000 | ",
        "| libcalls.so | ",
    ];
    assert_runs(&["--costs", "--scale", "0.002", "--only", "plugin-calls"], &lines);
}

#[test]
fn two_processes_give_what_one_gives() {
    assert_runs(
        &["--costs", "--scale", "0.002", "--only", "processes"],
        &["| standpipe/w1/p2 |", "| standpipe/w2/p2x2 |", "| standpipe/w4/p2x2 |"],
    );
}

#[test]
fn a_session_cluster_is_measured_and_its_output_is_right() {
    for (only, lines) in [
        ("cluster-submit", &["| REST | ", "| `standpipe deploy` | "][..]),
        ("cluster-idle", &["| manager | 0 | ", "| task manager | 2 | ", "| workers | 2 | "]),
        ("cluster-workloads", &["| W1 p1 | ", "| W2 p2 | ", "| W4 p2 | "]),
        ("cluster-recovery", &["| the worker, SIGKILL | ", "| the task manager, SIGTERM | ", "| the task manager, SIGKILL | 3s | "]),
    ] {
        assert_runs(&["--costs", "--scale", "0.002", "--only", only], lines);
    }
}

#[test]
fn services_are_measured_and_what_is_missing_is_said() {
    assert_runs(&["--costs", "--scale", "0.002", "--only", "kafka"], &["kafka: skipped, there is no Kafka"]);
    let (Some(kafka), Some(opensearch)) = (kafka(), opensearch()) else { return };
    let services = ["--costs", "--scale", "0.002", "--kafka", kafka.as_str(), "--elasticsearch", opensearch.as_str(), "--only"];
    assert_runs(
        &[&services[..], &["kafka"]].concat(),
        &["| at least once, no checkpoints | ", "| exactly once, checkpoints every second | "],
    );
    assert_runs(&[&services[..], &["elasticsearch"]].concat(), &["| 2 | ", "| 4 | "]);
}

/// The output of another program, whose exit code is 0, is not right.
#[test]
fn a_wrong_output_fails_the_benchmark() {
    let folder = Folder::new();
    let liar = folder.write("liar", "#!/bin/sh\nexit 0\n");
    set_permissions(&liar, Permissions::from_mode(0o755)).unwrap();
    for (arguments, error) in [
        (["--only", "w4", "--scale", "0.001"].as_slice(), "wrong output: standpipe/w4/p1"),
        (&["--costs", "--only", "recovery-memory"], "waiting was for all keys"),
    ] {
        let output = bench(&liar, &folder, arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains(error), "{}: {log}", output.status);
    }
}
