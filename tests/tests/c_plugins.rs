//! `examples/plugins/c`: a source, a keyed transform and a sink in C, built by the machine's compiler against `standpipe_plugin.h`; also with AddressSanitizer, which sees
//! what the plugin reads, writes, frees and leaks, in pipelines and in the conformance suite.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, Signal, read_rows, repository, standpipe};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const SOURCES: [&str; 4] = ["plugin.c", "numbers.c", "running_total.c", "lines.c"];

fn sources() -> PathBuf {
    repository().join("examples/plugins/c")
}

/// The plugin, built with further arguments.
fn built(folder: &Folder, name: &str, arguments: &[&str]) -> PathBuf {
    let library = folder.at(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_GNU_SOURCE", "-fPIC", "-shared"]).args(arguments);
    cc.arg("-I").arg(repository().join("core/abi/include")).arg("-o").arg(&library).args(SOURCES).current_dir(sources());
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// A run of `pipeline.yaml` of the folder, in which the plugin is that library.
fn run(folder: &Folder, library: &Path, pipeline: &str) -> Run {
    folder.write("pipeline.yaml", pipeline.replace("plugins: [libc_example.so]\n", ""));
    standpipe(["run", "pipeline.yaml", "--log-level", "info"]).in_directory(folder.path()).plugin_path(library)
}

fn example() -> String {
    fs::read_to_string(sources().join("pipeline.yaml")).unwrap()
}

/// Each row has the sum of all numbers of its parity up to its own.
fn assert_totals(folder: &Folder, file: &str, rows: i64) {
    let found = read_rows(folder.at(file));
    assert_eq!(found.len() as i64, rows);
    for (row, n) in found.iter().zip(0..) {
        let sum: i64 = (n % 2..=n).step_by(2).sum();
        assert_eq!((row["n"].as_i64(), row["total"].as_i64()), (Some(n), Some(sum)), "{row:?}");
    }
}

#[test]
fn the_example_runs_as_its_makefile_builds_it() {
    let folder = Folder::new();
    let made =
        Command::new("make").arg("-C").arg(sources()).arg(format!("OUT={}", folder.at("libc_example.so").display())).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    run(&folder, &folder.at("libc_example.so"), &example()).finish().success();
    assert_totals(&folder, "totals.jsonl", 10);
}

#[test]
fn its_state_and_position_survive_a_kill() {
    let folder = Folder::new();
    let library = built(&folder, "libc_example.so", &["-O2"]);
    let checkpoints = "checkpoint: {interval: 50ms, dir: ckpt}\nengine: {batch_rows: 200}\n";
    // The host's own sink delivers exactly once, so that each row can be looked at.
    let pipeline = example()
        .replace("name: c-example\n", &format!("name: c-example\n{checkpoints}"))
        .replace("count: 10", "count: 1200000")
        .replace("c-lines", "file");
    let mut first = run(&folder, &library, &pipeline).start();
    first.wait_until("checkpoints", Duration::from_secs(60), |run| run.stderr().matches("is durable after").count() >= 2);
    first.signal(Signal::KILL);
    _ = first.wait();
    run(&folder, &library, &pipeline).args(["--restore=latest", "--parallelism=2"]).timeout(Duration::from_secs(120)).finish().success();
    let mut rows = read_rows(folder.at("totals.jsonl"));
    rows.sort_by_key(|row| row["n"].as_i64());
    assert_eq!(rows.len(), 1_200_000);
    let mut sums = [0; 2];
    for (row, n) in rows.iter().zip(0..) {
        sums[n as usize % 2] += n;
        assert_eq!((row["n"].as_i64(), row["total"].as_i64()), (Some(n), Some(sums[n as usize % 2])), "{row:?}");
    }
}

/// The path of a library of the compiler's, which must be loaded before all others.
fn sanitizer(name: &str) -> String {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().unwrap();
    let path = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(Path::new(&path).is_absolute(), "the compiler has no {name}");
    path
}

const SANITIZED: [&str; 4] = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];

fn sanitizers() -> String {
    format!("{} {}", sanitizer("libasan.so"), sanitizer("libubsan.so"))
}

/// Whether the sanitizers have said something of the plugin. The host's own threads leave something behind when the process ends; what the plugin has allocated names its file.
fn complaint(said: &str) -> bool {
    ["runtime error", "ERROR: AddressSanitizer", "libsanitized.so+", ".c:"].iter().any(|sign| said.contains(sign))
}

#[test]
fn it_is_clean_under_address_sanitizer() {
    let folder = Folder::new();
    let library = built(&folder, "libsanitized.so", &SANITIZED);
    let sanitized = |pipeline: &str| run(&folder, &library, pipeline).env("LD_PRELOAD", sanitizers()).finish();
    let well = sanitized(&example().replace("count: 10", "count: 100000"));
    assert!(!complaint(&well.stderr), "{}", well.stderr);
    assert_totals(&folder, "totals.jsonl", 100_000);
    for (from, to, said) in [
        ("count: 10", "count: -1", "expected 0 or more"),
        ("path: totals.jsonl", "path: /nowhere/totals.jsonl", "/nowhere/totals.jsonl: No such file or directory"),
        ("path: totals.jsonl", "path: \"${env:NOT_SET_ANYWHERE}\"", "NOT_SET_ANYWHERE"),
        ("n: \"n\"", "n: \"cast(n as double)\"", "needs an input with the column n of type int64"),
        ("key_by: [odd], ", "", "key_by"),
    ] {
        let badly = sanitized(&example().replace(from, to));
        assert!(badly.stderr.contains(said) && !complaint(&badly.stderr), "{to}: {}", badly.stderr);
    }
}

/// The sanitizer sees: the same plugin with a mistake.
#[test]
fn what_address_sanitizer_would_say() {
    let folder = Folder::new();
    let mistake =
        "#include <stdlib.h>\n__attribute__((constructor)) void mistake(void) { volatile char *four = malloc(4); four[4] = 1; }\n";
    let mistake = folder.write("mistake.c", mistake).display().to_string();
    let library = built(&folder, "libsanitized.so", &["-g", "-fsanitize=address", &mistake]);
    let run = run(&folder, &library, &example()).env("LD_PRELOAD", sanitizer("libasan.so")).finish();
    assert!(run.stderr.contains("ERROR: AddressSanitizer: heap-buffer-overflow"), "{}", run.stderr);
}

/// The report of `plugin check` on one kind under the sanitizers, and all that these have said: each process that was started has a file.
fn checked(folder: &Folder, library: &Path, name: &str, config: &Value, more: &[&str]) -> (Value, String) {
    let said = folder.at(name);
    fs::create_dir(&said).unwrap();
    // Leaks of the host do not end it; freed memory is not kept for long, or it would look like a leak to the suite.
    let options = format!("log_path={}:exitcode=0:abort_on_error=1:detect_leaks=1:quarantine_size_mb=1", said.join("said").display());
    let config = config.to_string();
    let arguments =
        ["plugin", "check", library.to_str().unwrap(), "--name", name, "--config", &config, "--batches", "1000", "--format", "json"];
    let run = standpipe(arguments).args(more).in_directory(folder.path()).timeout(Duration::from_secs(300));
    let run = run.env("LD_PRELOAD", sanitizers()).env("ASAN_OPTIONS", &options).env("UBSAN_OPTIONS", &options);
    let finished = run.finish();
    let report = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}{}", finished.stdout, finished.stderr));
    let files = fs::read_dir(&said).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    (report, files.collect::<Vec<_>>().join("\n"))
}

/// What the suite tries is more than a pipeline does: batches of all shapes, calls that make no sense, state that is taken and given back, threads, all of it again and again.
#[test]
fn the_conformance_suite_passes_under_address_sanitizer() {
    let folder = Folder::new();
    let library = built(&folder, "libsanitized.so", &SANITIZED);
    let transform = ["--schema", "n:int64, k:string", "--key", "k"];
    for (name, config, more, needed) in [
        ("c-numbers", json!({"count": 400}), &[][..], &["positions", "end", "nonsense", "leaks"][..]),
        ("c-running-total", json!({}), &transform, &["batches", "snapshot", "nonsense", "release", "leaks"]),
        ("c-lines", json!({"path": "out.txt"}), &[], &["acknowledgements", "batches", "nonsense", "release", "leaks"]),
    ] {
        let (report, said) = checked(&folder, &library, name, &config, more);
        assert!(!complaint(&said), "{name}: {said}");
        let findings = report["reports"][0]["findings"].as_array().unwrap_or_else(|| panic!("{report:#}"));
        let verdict = |check: &str| findings.iter().find(|found| found["check"] == check).map(|found| found["verdict"].clone());
        assert!(findings.iter().all(|found| found["verdict"] != "failed"), "{name}: {report:#}");
        for check in needed {
            assert_eq!(verdict(check), Some(json!("passed")), "{name}: {check}: {report:#}");
        }
    }
}

/// The sanitizer hears the suite's processes, too: the same plugin, which loses what it has allocated.
#[test]
fn what_address_sanitizer_would_say_of_a_leak() {
    let folder = Folder::new();
    let leak =
        "#include <stdlib.h>\nvoid *volatile lost;\n__attribute__((constructor)) void lose(void) { lost = malloc(4321); lost = 0; }\n";
    let leak = folder.write("leak.c", leak).display().to_string();
    let library = built(&folder, "libsanitized.so", &[&SANITIZED[..], &[leak.as_str()]].concat());
    let (_, said) = checked(&folder, &library, "c-numbers", &json!({"count": 400}), &["--only", "lifecycle"]);
    assert!(said.contains("Direct leak of 4321 byte(s)") && complaint(&said), "{said}");
}

/// By itself, in each language and standard that an author may use, with all that a careful one lets the compiler say.
#[test]
fn the_header_is_clean_in_c_and_in_cpp() {
    let folder = Folder::new();
    let alone = folder.write("alone.h", "#include \"standpipe_plugin.h\"\n#include \"standpipe_plugin.h\"\n");
    for (compiler, language, standards) in [("cc", "c", &["c99", "c11", "c17"][..]), ("c++", "c++", &["c++11", "c++17", "c++20"])] {
        for standard in standards {
            let mut compile = Command::new(compiler);
            compile.args(["-x", language, &format!("-std={standard}"), "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wundef", "-Werror"]);
            let output = compile.arg("-fsyntax-only").arg("-I").arg(repository().join("core/abi/include")).arg(&alone).output().unwrap();
            assert!(output.status.success(), "{standard}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
