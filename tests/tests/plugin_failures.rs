//! Every way in which a plugin fails that the prototype of the contract has met, and the whole line that a user sees. docs/abi.md has the lines too (`FILE`, `PROCESSOR`, `HOST`, `N` and `SIGNAL`
//! stand for what differs); this test reads them there.
//!
//! | failure | the test |
//! |---|---|
//! | truncated (SIGBUS without the check), another processor ("no such file"), no ELF, empty, an executable, an object | here; every command: `bad_plugins`; every cut and damage: `core/loader/src/elf.rs` |
//! | another major version of the contract, another release candidate | here; `core/loader/tests/stages.rs` |
//! | an older or newer minor version, in both directions | works: `core/abi/tests/growth.rs`, `core/sdk/tests/growth.rs` |
//! | no manifest symbol; a manifest that is damaged | here; each member of it: `core/loader/tests/stages.rs`; any JSON: `core/loader/src/manifest.rs` |
//! | abi_stable's layout check, 171 lines and more | one line: here |
//! | another Arrow version, another compiler, C | works: `core/loader/tests/c_plugin.rs`, `c_plugins` |
//! | a panic in a method, also of a value that is no text; the next call | here; each call: `bad_plugins`; poisoned: `core/loader/tests/rust_plugin.rs`; of a callback: `core/sdk/tests/hostile.rs` |
//! | `panic = "abort"` | refused by the compiler: here |
//! | a new file under the path of one that is loaded (dlopen gives the old one) | the new plugin: `core/loader/tests/catalogue.rs` |
//! | two plugins with the same symbols in one process | both work: `plugin_versions` |
//! | two plugins linked into one library | refused by the linker: here |
//! | a symbol or a library that is missing (RTLD_NOW) | here |
//! | an allocator that wants static thread-local storage (jemalloc) | here |
//! | unloading while threads of it run | never: a library stays loaded |
//! | a crash, `exit()`, a stack overflow while it is asked for its manifest | here; in `plugin check`: `conformance` |
//! | the same while a job runs | takes the process with it, which a `restart` strategy starts again: here |
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_sdk::abi;
use standpipe_tests::{Folder, binary, fixture_plugin, plugin, repository, standpipe};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The loader's plugin in C with something wrong in it, and further files.
fn compiled(folder: &Folder, name: &str, arguments: &[&str], sources: &[&str]) -> PathBuf {
    let (file, core) = (folder.at(name), repository().join("core"));
    let mut compiler = Command::new("cc");
    compiler.args(["-fPIC", "-shared", "-O0", "-I"]).arg(core.join("abi/include")).args(arguments);
    for (number, source) in sources.iter().enumerate() {
        compiler.arg(folder.write(&format!("{name}.{number}.c"), source));
    }
    let output = compiler.arg(core.join("loader/tests/c/manifest.c")).arg("-o").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

fn host() -> String {
    abi::version_text(abi::ABI_MAJOR, abi::ABI_MINOR, abi::ABI_CANDIDATE)
}

/// The line without what differs from file to file and from machine to machine.
fn general(line: &str, file: &Path) -> String {
    let line = line.replace(&file.display().to_string(), "FILE");
    let general = |word: &str| {
        let plain = word.trim_end_matches([',', ':']);
        let end = &word[plain.len()..];
        match plain {
            plain if plain == host() => format!("HOST{end}"),
            std::env::consts::ARCH => format!("PROCESSOR{end}"),
            "(signal" => "(SIGNAL)".to_owned(),
            plain if plain.parse::<u64>().is_ok() => format!("N{end}"),
            _ => word.to_owned(),
        }
    };
    let words: Vec<String> = line.split(' ').map(general).collect();
    words.join(" ").replace("(SIGNAL) 6)", "(SIGNAL)").replace("(SIGNAL) 11)", "(SIGNAL)")
}

/// What `plugin inspect` says of a file, the whole line.
fn said(file: &Path) -> String {
    general(&standpipe(["plugin", "inspect"]).args([file]).finish().one_error(2), file)
}

/// The lines that docs/abi.md has.
fn documented() -> Vec<String> {
    let page = fs::read_to_string(repository().join("docs/abi.md")).unwrap();
    page.lines().filter_map(|line| line.strip_prefix("| `FILE: ")?.split_once("` |").map(|(line, _)| format!("FILE: {line}"))).collect()
}

fn assert_said(cases: impl IntoIterator<Item = (PathBuf, &'static str)>) {
    let documented = documented();
    for (file, expected) in cases {
        assert_eq!(said(&file), general(expected, &file));
        assert!(documented.iter().any(|line| line == expected), "docs/abi.md has no line `{expected}`: {documented:#?}");
    }
}

/// With bytes of it changed.
fn patched(folder: &Folder, name: &str, of: &Path, patches: &[(usize, u8)]) -> PathBuf {
    let mut bytes = fs::read(of).unwrap();
    for (place, byte) in patches {
        bytes[*place] = *byte;
    }
    folder.write(name, bytes)
}

#[test]
fn files_that_are_no_library_for_this_host() {
    let folder = Folder::new();
    let whole = plugin("connector_print");
    let bytes = fs::read(&whole).unwrap();
    assert_said([
        (folder.write("half.so", &bytes[..bytes.len() / 2]), "FILE: is truncated: it has N bytes, its headers speak of N"),
        (folder.write("empty.so", ""), "FILE: is empty"),
        (folder.write("text.so", "GROUP ( libc.so.6 )\n"), "FILE: is a text file, not a shared library for Linux"),
        (folder.write("windows.so", b"MZ\x90\0\x03"), "FILE: is built for Windows, not a shared library for Linux"),
        (patched(&folder, "machine.so", &whole, &[(18, 175), (19, 0)]), "FILE: is built for processor N, this host runs on PROCESSOR"),
        (patched(&folder, "program.so", &whole, &[(16, 2)]), "FILE: is an executable, not a shared library for Linux"),
        (folder.at("nowhere.so"), "FILE: cannot be read: No such file or directory (os error 2)"),
    ]);
}

#[test]
fn libraries_that_the_system_refuses() {
    let folder = Folder::new();
    let tls = "__thread char much[8 << 20] __attribute__((tls_model(\"initial-exec\")));\nchar *touch(void) { return much; }\n";
    let gone = compiled(&folder, "libgone.so", &["-DNO_MANIFEST"], &[]);
    let directory = format!("-L{}", folder.path().display());
    let needs = compiled(&folder, "needs.so", &["-DTABLE_SIZE=0", "-Wl,--no-as-needed", &directory, "-lgone"], &[]);
    fs::remove_file(gone).unwrap();
    assert_said([
        (
            compiled(&folder, "calls.so", &["-DCALLS", "-DTABLE_SIZE=0"], &[]),
            "FILE: the system's loader refuses it: undefined symbol: nowhere",
        ),
        (needs, "FILE: the system's loader refuses it: it needs the library libgone.so, which is not installed"),
        (
            compiled(&folder, "tls.so", &["-DTABLE_SIZE=0"], &[tls]),
            "FILE: the system's loader refuses it: cannot allocate memory in static TLS block: jemalloc and the like are for programs, mimalloc loads",
        ),
    ]);
}

#[test]
fn libraries_that_are_no_plugin_for_this_host() {
    let folder = Folder::new();
    let mismatch = binary().parent().unwrap().join("examples/libloader_mismatch.so");
    let cases = [
        (
            compiled(&folder, "none.so", &["-DNO_MANIFEST"], &[]),
            "FILE: is no Standpipe plugin: it has no symbol standpipe_plugin_manifest_v1 (export_plugin! makes it)",
        ),
        (
            compiled(&folder, "major.so", &["-DMAJOR=2", "-DMINOR=0", "-DCANDIDATE=0"], &[]),
            "FILE: plugin broken 0.1.0 speaks plugin ABI 2.0, this host speaks HOST: rebuild the plugin with standpipe-sdk HOST",
        ),
        (
            compiled(&folder, "candidate.so", &["-DMINOR=0", "-DCANDIDATE=77"], &[]),
            "FILE: plugin broken 0.1.0 speaks plugin ABI 1.0.0-rc.77, this host speaks HOST: rebuild the plugin with standpipe-sdk HOST",
        ),
        (compiled(&folder, "magic.so", &["-DMAGIC=7"], &[]), "FILE: its plugin manifest is damaged: it does not begin with STNDPIPE"),
        (
            compiled(&folder, "name.so", &["-DNAME=\"a\\nb\""], &[]),
            "FILE: its plugin manifest is damaged: its name or version is no line of 1 to 255 bytes",
        ),
        (
            compiled(&folder, "json.so", &["-DDESCRIPTION=\"{\""], &[]),
            "FILE: its plugin manifest is damaged: its description is no JSON that this host knows: EOF while parsing an object at line N column N",
        ),
    ];
    assert_said(cases);
    // `inspect` ends with the manifest; what follows is found where the kinds are needed.
    for (file, expected) in [
        (
            mismatch,
            "FILE: plugin loader-mismatch 0.0.1 has another layout than its plugin ABI version says: mismatched package: the host has standpipe-abi, the plugin standpipe-loader",
        ),
        (
            compiled(&folder, "interface.so", &[], &[]),
            "FILE: plugin broken 0.1.0 does not export what its manifest promises: the function standpipe_plugin_interface_v1",
        ),
        (
            compiled(&folder, "table.so", &["-DTABLE_SIZE=16"], &[]),
            "FILE: plugin broken 0.1.0 does not export what its manifest promises: sink \"hole\": the table sink/1 is too short: N bytes, N needed",
        ),
    ] {
        let line = standpipe(["plugin", "list"]).plugin_path(&file).finish().one_error(2);
        assert_eq!(general(&line, &file), format!("{expected} (--plugin-path)"));
        assert!(documented().iter().any(|line| line == expected), "docs/abi.md has no line `{expected}`");
    }
}

/// What no host survives in its own process, it survives where it asks for a manifest.
#[test]
fn manifest_functions_that_end_the_process() {
    let folder = Folder::new();
    let begins =
        |code: &str| format!("#include <stdio.h>\n#include <stdlib.h>\n__attribute__((constructor)) void begin(void) {{ {code} }}\n");
    let deep =
        "static int deeper(volatile int level) { volatile char room[4096]; room[level % 4096] = 1; return deeper(level + 1) + room[0]; }\n";
    let overflow = format!("{deep}{}", begins("deeper(0);"));
    let sources = [
        (begins("*(volatile int *)0 = 1;"), "FILE: its manifest function crashed (SIGNAL)"),
        (overflow, "FILE: its manifest function crashed (SIGNAL)"),
        (begins("abort();"), "FILE: its manifest function crashed (SIGNAL)"),
        (
            begins("exit(0);"),
            "FILE: its manifest function printed something or ended the process: EOF while parsing a value at line N column N",
        ),
        (begins("exit(3);"), "FILE: its manifest function ended the process, with the exit code N"),
        (
            begins("puts(\"hello\"); fflush(stdout);"),
            "FILE: its manifest function printed something or ended the process: expected value at line N column N",
        ),
    ];
    let built =
        |(number, (source, line)): (usize, (String, &'static str))| (compiled(&folder, &format!("{number}.so"), &[], &[&source]), line);
    assert_said(sources.into_iter().enumerate().map(built));
}

const JOB: &str = "name: job
sources: {numbers: {connector: bad, with: {pause: 1}}}
sinks: {out: {input: numbers, connector: bad, with: {}}}
";

#[test]
fn a_plugin_that_panics_fails_the_job_in_one_line() {
    let folder = Folder::new();
    folder.write("job.yaml", JOB);
    let run = standpipe(["run", "job.yaml"])
        .in_directory(folder.path())
        .plugin_path(fixture_plugin())
        .set("sinks.out.with", "{at: write, how: panic}");
    let line = run.finish().one_error(1);
    let place = line.rsplit_once(" at ").unwrap().1;
    assert_eq!(line, format!("sinks.out: plugin \"bad\" panicked in write: as asked, in write at {place}"));
    let numbers = place.strip_prefix("tests/fixtures/plugin.rs:").unwrap();
    assert!(numbers.split(':').all(|number| number.parse::<u32>().is_ok()) && numbers.split(':').count() == 2, "{line}");
}

/// It takes the process with it; where the job has a `restart` strategy, another one goes on.
#[test]
fn a_plugin_that_ends_the_process_ends_an_attempt() {
    for (how, ended) in [("abort", "was killed by signal 6"), ("exit", "has ended with 7, which is none of ours: a plugin has ended it")] {
        let folder = Folder::new();
        folder.write("job.yaml", format!("{JOB}restart: {{strategy: fixed-delay, attempts: 1, delay: 10ms}}\n"));
        let run = standpipe(["run", "job.yaml"]).in_directory(folder.path()).plugin_path(fixture_plugin());
        let finished = run.set("sinks.out.with", format!("{{at: write, how: {how}}}")).timeout(Duration::from_secs(120)).finish();
        let lines: Vec<&str> = finished.stderr.lines().collect();
        assert!(
            lines.iter().any(|line| *line == format!("job: its process {ended}; it is started again in 0.0 s, for the 1st time")),
            "{}",
            finished.stderr
        );
        assert_ne!(finished.code, Some(0));
    }
}

#[test]
fn what_the_linker_refuses() {
    let folder = Folder::new();
    let (core, file) = (repository().join("core"), folder.at("two.so"));
    let manifest = core.join("loader/tests/c/manifest.c");
    let twice = folder.write("again.c", fs::read(&manifest).unwrap());
    let mut compiler = Command::new("cc");
    let output =
        compiler.args(["-fPIC", "-shared", "-I"]).arg(core.join("abi/include")).arg(manifest).arg(twice).arg("-o").arg(&file).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("multiple definition of `standpipe_plugin_manifest_v1'"), "{text}");
}

/// A panic must be able to become an error.
#[test]
fn what_the_compiler_refuses() {
    let folder = Folder::new();
    let dependencies = binary().parent().unwrap().join("deps");
    let entries = fs::read_dir(&dependencies).unwrap().map(|entry| entry.unwrap().path());
    let is_sdk = |path: &PathBuf| {
        path.file_name().unwrap().to_str().unwrap().starts_with("libstandpipe_sdk-") && path.extension().is_some_and(|end| end == "rlib")
    };
    let sdk = entries.filter(is_sdk).max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    let source = folder.write("plugin.rs", "standpipe_sdk::export_plugin! {}\n");
    let compile = |panic: &str| {
        let mut rustc = Command::new("rustc");
        rustc
            .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "-C", &format!("panic={panic}"), "--out-dir"])
            .arg(folder.path());
        rustc
            .arg("-L")
            .arg(format!("dependency={}", dependencies.display()))
            .arg("--extern")
            .arg(format!("standpipe_sdk={}", sdk.display()))
            .envs([("CARGO_PKG_NAME", "plugin"), ("CARGO_PKG_VERSION", "0.1.0")]);
        let output = rustc.arg(&source).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().find(|line| line.starts_with("error")).unwrap_or_default().to_owned()
    };
    assert_eq!(compile("abort"), "error: a Standpipe plugin needs panic = \"unwind\": its panics become errors of the job");
    assert_eq!(compile("unwind"), "");
}
