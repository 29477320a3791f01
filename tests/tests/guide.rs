//! docs/plugin-guide.md: what it shows of a crate is what `plugin new` writes, and its sink delivers exactly once when its process is killed.
//! (`docs.rs` runs its commands, `scaffold.rs` builds and runs what `plugin new` writes.)
#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Run, Signal, example_plugin, read_rows, repository, standpipe};
use std::{fs, time::Duration};

/// The sink of the guide with its tests.
#[allow(unreachable_pub, reason = "public in a crate of its own")]
#[path = "../../examples/plugins/handover/src/lib.rs"]
mod handover;

const ROWS: i64 = 120_000;

const PIPELINE: &str = "
name: numbers
checkpoint: {interval: 50ms, dir: ckpt}
sources:
  numbers: {connector: generator, with: {rate: 20000, count: 120000, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: handover, with: {folder: out}, format: json}
";

fn run(folder: &Folder) -> Run {
    standpipe(["run", "numbers.yaml", "--log-level", "info"]).in_directory(folder.path()).plugin_path(example_plugin("handover"))
}

/// Names in the folder that nobody may take.
fn hidden(folder: &Folder) -> usize {
    fs::read_dir(folder.at("out")).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.')).count()
}

#[test]
fn every_row_is_in_one_file_whenever_the_process_is_killed() {
    let folder = Folder::new();
    folder.write("numbers.yaml", PIPELINE);
    for restore in [None, Some("latest"), Some("latest")] {
        let mut running = run(&folder).args(restore.map(|from| format!("--restore={from}"))).start();
        running.wait_until("checkpoints", Duration::from_secs(30), |run| run.stderr().matches("is durable after").count() >= 3);
        running.signal(Signal::KILL);
        _ = running.wait();
    }
    run(&folder).args(["--restore=latest"]).finish().success();
    let files = fs::read_dir(folder.at("out")).unwrap().map(|entry| entry.unwrap().path());
    let mut numbers: Vec<i64> = files.flat_map(read_rows).map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..ROWS), "{} rows", numbers.len());
    assert_eq!(hidden(&folder), 0);
}

#[test]
fn a_job_that_begins_anew_overwrites_nothing() {
    let folder = Folder::new();
    folder.write("numbers.yaml", PIPELINE.replace("checkpoint: {interval: 50ms, dir: ckpt}\n", "").replace("120000", "10"));
    for runs in 1..=2 {
        run(&folder).finish().success();
        assert_eq!(fs::read_dir(folder.at("out")).unwrap().count(), runs);
    }
}

/// A block ```` ```rust ```` whose first line is `// plugin new NAME --kind KIND` is a part of the `src/lib.rs` that the command writes.
#[test]
fn what_is_shown_of_a_new_crate_is_what_is_written() {
    let page = fs::read_to_string(repository().join("docs/plugin-guide.md")).unwrap();
    let blocks = page.split("```rust\n// plugin new ").skip(1).map(|block| block.split_once("\n```").unwrap().0);
    let mut shown = 0;
    for (arguments, text) in blocks.map(|block| block.split_once('\n').unwrap()) {
        let folder = Folder::new();
        let arguments = arguments.split(' ').chain(["--path", "crate"]);
        standpipe(["plugin", "new"]).args(arguments.clone()).in_directory(folder.path()).finish().success();
        let written = folder.read("crate/src/lib.rs");
        assert!(written.contains(text.trim_end()), "not in what {:?} writes:\n{text}", arguments.collect::<Vec<_>>());
        shown += 1;
    }
    assert!(shown >= 8, "{shown}");
}

/// A block whose first line is `// in examples/...` is a part of that file.
#[test]
fn what_is_shown_of_a_file_is_in_it() {
    let page = fs::read_to_string(repository().join("docs/plugin-guide.md")).unwrap();
    let blocks = page.split("\n// in ").skip(1).map(|block| block.split_once("\n```").unwrap().0);
    let mut shown = 0;
    for (name, text) in blocks.map(|block| block.split_once('\n').unwrap()) {
        assert!(fs::read_to_string(repository().join(name)).unwrap().contains(text.trim_end()), "not in {name}:\n{text}");
        shown += 1;
    }
    assert!(shown >= 3, "{shown}");
}
