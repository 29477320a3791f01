//! `standpipe plugin new`: for every kind the crate that it writes builds, passes its own tests and runs in its own pipeline, outside of this workspace, with nothing but
//! what the binary gave it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::json;
use standpipe_tests::{Folder, binary, read_rows, rows, standpipe, wait_until};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Where all of them are built: they have their dependencies in common. It is kept, as all builds are.
fn target() -> PathBuf {
    binary().parent().unwrap().parent().unwrap().join("scaffold")
}

/// Runs Cargo in the crate and gives what it printed.
fn cargo(crate_folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // As a user would: nothing of the build that this test is part of.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        command.env_remove(name);
    }
    let output =
        command.args(arguments).current_dir(crate_folder).env("CARGO_TARGET_DIR", target()).env_remove("RUSTFLAGS").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}:\n{text}");
    text
}

/// A new crate, tested and built; the folder around it, and the library.
fn made(kind: &str, name: &str) -> (Folder, PathBuf) {
    let folder = Folder::new();
    let said = standpipe(["plugin", "new", name, "--kind", kind]).in_directory(folder.path()).finish().success().stdout;
    assert!(said.contains("cargo test"), "{said}");
    let crate_folder = folder.at(name);
    let tested = cargo(&crate_folder, &["test"]);
    assert!(tested.contains("test result: ok.") && !tested.contains("warning"), "{tested}");
    cargo(&crate_folder, &["build"]);
    let library = target().join("debug").join(format!("lib{}.so", name.replace('-', "_")));
    (folder, library)
}

/// Runs the conformance suite on it as its README does, and passes.
fn checked(folder: &Path, library: &Path) {
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let line = readme.lines().find_map(|line| line.strip_prefix("$ standpipe plugin check ")).unwrap();
    let (_, told) = line.split_once(' ').unwrap_or_default();
    // As a shell takes it: what is between quotes is one argument.
    let (before, quoted) = told.split_once(" '").unwrap_or((told, ""));
    let arguments = before.split_whitespace().chain(Some(quoted.trim_end_matches('\'')).filter(|quoted| !quoted.is_empty()));
    let run = standpipe(["plugin", "check"]).args([library]).args(arguments).args(["--batches", "1000"]).in_directory(folder);
    let finished = run.timeout(Duration::from_secs(200)).finish();
    assert!(finished.stdout.contains(" 0 failed, "), "{}{}", finished.stdout, finished.stderr);
    finished.success();
}

/// What its pipeline prints.
fn run(kind: &str, name: &str) -> String {
    let (folder, library) = made(kind, name);
    checked(&folder.at(name), &library);
    standpipe(["run", "pipeline.yaml"]).in_directory(folder.at(name)).plugin_path(&library).finish().success().stdout
}

/// One after another: each is a build. Some have names that are those of something in the template.
#[test]
fn every_kind_builds_tests_and_runs() {
    let printed = rows(&run("source", "source"));
    assert_eq!(printed.iter().map(|row| row["number"].clone()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let printed = rows(&run("transform", "string"));
    assert!(printed.len() == 5 && printed.iter().all(|row| row["word"].as_str().unwrap().len() as u64 == row["length"].as_u64().unwrap()));
    let printed = rows(&run("keyed-transform", "schema"));
    assert_eq!(printed.iter().map(|row| row["rows"].as_u64().unwrap()).sum::<u64>(), 20, "{printed:?}");
    let printed = rows(&run("function", "scalar"));
    let percents: Vec<_> = printed.iter().filter_map(|row| row.get("percent").cloned()).collect();
    assert_eq!(percents, [0.0, 0.0, 50.0, 100.0, 100.0]);
    assert_eq!(printed.iter().find_map(|row| row.get("span")), Some(&json!(100.0)));

    let (folder, library) = made("sink", "file");
    let inside = folder.at("file");
    checked(&inside, &library);
    standpipe(["run", "pipeline.yaml"]).in_directory(&inside).plugin_path(&library).finish().success();
    assert_eq!(read_rows(inside.join("out.jsonl")).len(), 5);

    let (folder, library) = made("deployment", "backstage");
    let inside = folder.at("backstage");
    fs::create_dir(inside.join("jobs")).unwrap();
    checked(&inside, &library);
    let home = format!("standpipe_home={}", binary().parent().unwrap().display());
    standpipe(["deploy", "pipeline.yaml", "-D", &home]).in_directory(&inside).plugin_path(&library).finish().success();
    let out = || fs::read_dir(inside.join("jobs")).unwrap().find_map(|job| fs::read_to_string(job.unwrap().path().join("out.jsonl")).ok());
    wait_until("the job has written its rows", Duration::from_secs(60), || out().is_some_and(|text| text.lines().count() == 5));
}

#[test]
fn a_name_that_cannot_be_is_refused_and_nothing_is_written() {
    for (name, why) in [
        ("My", "expected lower-case letters"),
        ("9lives", "beginning with a letter"),
        ("../up", "expected lower-case letters"),
        ("", "expected lower-case letters"),
        ("fn", "is the name of something else already"),
        ("serde", "is the name of something else already"),
        ("standpipe-sdk", "is the name of something else already"),
    ] {
        let folder = Folder::new();
        let line = standpipe(["plugin", "new", name, "--kind", "sink"]).in_directory(folder.path()).finish().one_error(2);
        assert!(line.contains(why), "{line}");
        assert!(folder.names().is_empty());
    }
    let folder = Folder::new();
    folder.write("mine", "kept");
    let line = standpipe(["plugin", "new", "mine", "--kind", "sink"]).in_directory(folder.path()).finish().one_error(2);
    assert_eq!(line, "mine is there already; nothing was written");
    let line =
        standpipe(["plugin", "new", "other", "--kind", "sink", "--sdk", "nowhere"]).in_directory(folder.path()).finish().one_error(2);
    assert!(line.starts_with("--sdk nowhere/core/sdk: "), "{line}");
    assert_eq!(folder.names(), ["mine"], "a refusal leaves nothing behind");
}
