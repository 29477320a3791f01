//! A process that dies at each named step of a checkpoint, before and after each arrow of: sink prepared -> checkpoint durable -> sink committed -> upstream committed.
//! It is started again by its supervisor, and nothing is lost, nothing twice, and nobody had to help.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod counts_support;

use counts_support::{COUNTS, assert_all_as_if_nothing_had_happened, assert_as_if_nothing_had_happened, counts_of};
use standpipe_tests::{Finished, Folder, standpipe};
use std::time::Duration;

/// Runs the job until its process has died there. On a slow machine a checkpoint may be durable before a sink has heard of the one before it, which it then commits along with
/// the later one: the step of that number is never reached.
fn died_at(step: &str, pipeline: &str, arguments: &[&str]) -> (Folder, Finished) {
    for _ in 0..5 {
        let folder = Folder::new();
        folder.write("counts.yaml", pipeline);
        let run = standpipe(["run", "counts.yaml"]).args(arguments).in_directory(folder.path());
        let run = run.env("STANDPIPE_CRASH_AT", format!("{step}:3")).timeout(Duration::from_secs(120)).finish().code(0);
        if run.stderr.contains("was killed by signal 6") {
            return (folder, run);
        }
        assert!(["commit", "committed", "upstream", "done"].contains(&step), "{step}: {}", run.stderr);
    }
    panic!("{step} of checkpoint 3 was never reached");
}

#[test]
fn at_every_step_of_a_checkpoint() {
    for step in ["prepare", "prepared", "write", "durable", "commit", "committed", "upstream", "done"] {
        let (folder, run) = died_at(step, COUNTS, &[]);
        let died = "counts: its process was killed by signal 6; it is started again in 0.0 s, for the 1st time";
        let goes_on = match step {
            "prepare" | "prepared" | "write" => "counts: goes on from checkpoint 2 in ckpt/counts",
            _ => "counts: goes on from checkpoint 3 in ckpt/counts",
        };
        assert!(run.stderr.contains(died) && run.stderr.contains(goes_on), "{step}: {}", run.stderr);
        assert_as_if_nothing_had_happened(&folder);
    }
}

#[test]
fn at_every_step_in_whichever_of_two_processes_reaches_it() {
    for step in ["prepare", "prepared", "write", "durable", "commit", "committed", "upstream", "done"] {
        let (folder, run) = died_at(step, &counts_of(2), &["--processes", "2"]);
        let died = [0, 1].map(|process| format!("counts: process {process} of its 2 was killed by signal 6; it is started again in 0.0 s"));
        let goes_on = match step {
            "prepare" | "prepared" | "write" => "counts: goes on from checkpoint 2 in ckpt/counts",
            _ => "counts: goes on from checkpoint 3 in ckpt/counts",
        };
        assert!(died.iter().any(|died| run.stderr.contains(died)) && run.stderr.contains(goes_on), "{step}: {}", run.stderr);
        assert_all_as_if_nothing_had_happened(&folder, 2);
    }
}

#[test]
fn a_step_that_does_not_exist_is_named() {
    let folder = Folder::new();
    folder.write("counts.yaml", COUNTS.replace("restart: {strategy: fixed-delay, attempts: 3, delay: 10ms}\n", ""));
    let error =
        |at: &str| standpipe(["run", "counts.yaml"]).in_directory(folder.path()).env("STANDPIPE_CRASH_AT", at).finish().one_error(2);
    assert_eq!(error("durable"), "STANDPIPE_CRASH_AT: \"durable\" is no STEP:CHECKPOINT");
    assert_eq!(error("durable:x"), "STANDPIPE_CRASH_AT: \"x\" is no number");
    let names = "prepare, prepared, write, durable, commit, committed, upstream, done";
    assert_eq!(error("commited:3"), format!("STANDPIPE_CRASH_AT: \"commited\" is none of {names}"));
}
