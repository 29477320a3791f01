//! Plugin files that are none, and plugins that panic: one clear line with the right exit code, and the other plugins stay usable.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, bundled_plugins, fixture_plugin, plugin, repository, standpipe};
use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

/// `e_machine` of an ELF header, and a machine that nobody has: Elbrus.
const MACHINE_AT: usize = 18;
const ELBRUS: u8 = 175;

/// Files that are no usable plugins, with what is said of each.
fn bad_files(folder: &Folder) -> Vec<(PathBuf, &'static str)> {
    let whole = fs::read(plugin("connector_print")).unwrap();
    let length = whole.len();
    let mut files = Vec::new();
    for (name, cut) in [("head", 64), ("start", 1000), ("half", length / 2), ("tail", length - 1)] {
        files.push((folder.write(&format!("cut_{name}.so"), &whole[..cut]), "is truncated: it has "));
    }
    files.push((folder.write("cut_magic.so", &whole[..10]), "is truncated: it has 10 bytes"));
    let mut other_machine = whole.clone();
    other_machine[MACHINE_AT] = ELBRUS;
    files.push((folder.write("other_machine.so", other_machine), "is built for processor 175, this host runs on "));
    files.push((other_major(folder), "speaks plugin ABI 2.1, this host speaks 1.1: rebuild the plugin with standpipe-sdk 1.1"));
    files.push((folder.write("empty.so", ""), "is empty"));
    files.push((folder.write("text.so", "GROUP ( libc.so.6 )\n"), "is a text file, not a shared library"));
    files
}

/// A plugin in C that speaks the next major version of the ABI: the manifest alone, of the loader's own tests.
fn other_major(folder: &Folder) -> PathBuf {
    let (file, core) = (folder.at("other_major.so"), repository().join("core"));
    let mut compiler = Command::new("cc");
    compiler.args(["-fPIC", "-shared", "-DMAJOR=2", "-DCANDIDATE=0", "-I"]).arg(core.join("abi/include"));
    let output = compiler.arg(core.join("loader/tests/c/manifest.c")).arg("-o").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// A shared library that is no plugin: the C library that this test uses.
fn foreign_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5)).find(|path| path.contains("/libc.so"));
    fs::canonicalize(path.unwrap()).unwrap()
}

const PRINT: &str = "name: print
sources: {rows: {connector: generator, with: {count: 3, fields: {n: {kind: sequence}}}}}
sinks: {out: {input: rows, connector: print, format: json}}
";

#[test]
fn a_file_that_is_no_plugin_is_refused_with_one_line() {
    let folder = Folder::new();
    let mut files = bad_files(&folder);
    let foreign = folder.at("foreign.so");
    fs::copy(foreign_library(), &foreign).unwrap();
    files.push((foreign, "is no Standpipe plugin: it has no symbol standpipe_plugin_manifest_v1"));
    files.push((folder.at("nowhere.so"), "cannot be read: No such file or directory"));
    let program = folder.at("program.so");
    symlink(std::env::current_exe().unwrap(), &program).unwrap();
    files.push((program, "is an executable, not a shared library for Linux"));
    fs::create_dir(folder.at("directory.so")).unwrap();
    files.push((folder.at("directory.so"), "is a directory, not a plugin file"));
    // Opened, it would be waited for.
    assert!(Command::new("mkfifo").arg(folder.at("pipe.so")).status().unwrap().success());
    files.push((folder.at("pipe.so"), "it is no file but a pipe, a socket or a device"));
    for (file, expected) in files {
        let line = standpipe(["plugin", "inspect"]).args([&file]).finish().one_error(2);
        assert!(line.starts_with(&format!("{}: ", file.display())) && line.contains(expected), "{line}");
    }
}

/// Whether something of it is needed or not: it was asked for, and another kind of the same name might run instead.
#[test]
fn a_plugin_that_was_asked_for_must_be_one() {
    let folder = Folder::new();
    folder.write("pipeline.yaml", PRINT);
    let mut files = bad_files(&folder);
    files.push((folder.at("nowhere.so"), "cannot be read: No such file or directory"));
    for (file, expected) in files {
        let run = |command: &str| standpipe([command, "pipeline.yaml"]).in_directory(folder.path());
        let of_pipeline = format!("[{:?}]", file.display().to_string());
        for (run, place, origin) in [
            (run("run").plugin_path(&file), "", " (--plugin-path)"),
            (run("check").env("STANDPIPE_PLUGIN_PATH", &file), "", " (STANDPIPE_PLUGIN_PATH)"),
            (run("explain").set("plugins", &of_pipeline), &*format!("--set plugins={of_pipeline}: plugins: "), ""),
            (standpipe(["plugin", "list"]).plugin_path(&file), "", " (--plugin-path)"),
        ] {
            let finished = run.finish();
            assert!(finished.stdout.is_empty(), "{}", finished.stdout);
            let line = finished.one_error(2);
            let begin = format!("{place}{}: ", file.display());
            assert!(line.starts_with(&begin) && line.contains(expected) && line.ends_with(origin), "{line}");
        }
    }
}

/// By the place where it stands. What is no file of plugins may be there on another machine.
#[test]
fn what_the_pipeline_file_itself_names_is_told_by_its_place() {
    let folder = Folder::new();
    let with = |plugins: &str| {
        folder.write("pipeline.yaml", format!("{PRINT}plugins:\n  - {plugins}\n"));
        standpipe(["check", "pipeline.yaml"]).in_directory(folder.path()).finish()
    };
    let line = format!("pipeline.yaml:{}:5: plugins: ", PRINT.lines().count() + 2);
    let missing = "nowhere.so: cannot be read: No such file or directory (os error 2)";
    assert_eq!(with("nowhere.so").one_error(2), format!("{line}{missing}"));
    let elsewhere = with("nowhere").code(0).stderr;
    assert!(elsewhere.contains(&format!("warning: {line}nowhere: cannot be read: No such file or directory")), "{elsewhere}");
}

#[test]
fn a_pipeline_that_needs_a_plugin_that_cannot_be_loaded_says_why() {
    let folder = Folder::new();
    folder.write("pipeline.yaml", PRINT.replace("connector: print", "connector: prnt"));
    let bad = bad_files(&folder);
    let finished = standpipe(["run", "pipeline.yaml"]).in_directory(folder.path()).plugin_path(folder.path()).finish().code(2);
    let line = finished.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(line.contains("there is no sink \"prnt\", did you mean \"print\"?"), "{line}");
    for (file, expected) in bad {
        assert!(line.contains(&format!("{}: ", file.display())) && line.contains(expected), "{line}");
    }
}

#[test]
fn a_kind_that_hides_another_is_worth_a_warning() {
    let folder = Folder::new();
    folder.write("pipeline.yaml", PRINT);
    for name in ["one", "two"] {
        fs::create_dir(folder.at(name)).unwrap();
    }
    let (first, copy, other) = (folder.at("one/a.so"), folder.at("one/b.so"), folder.at("two/c.so"));
    fs::copy(plugin("connector_print"), &first).unwrap();
    fs::copy(&first, &copy).unwrap();
    let mut changed = fs::read(&first).unwrap();
    changed.push(0);
    fs::write(&other, changed).unwrap();
    let check = standpipe(["check", "pipeline.yaml", "--plugin-path", "one", "--plugin-path", "two"]);
    let finished = check.in_directory(folder.path()).finish().code(0);
    let warnings: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    let [first, other] = [first, other].map(|path| fs::canonicalize(path).unwrap());
    assert_eq!(
        warnings,
        [format!("warning: the sink \"print\" is that of {}, which hides the one of {}", first.display(), other.display())],
        "the bundled one and the copy are the same file content"
    );
}

#[test]
fn bad_files_in_a_directory_do_not_keep_the_others_from_working() {
    let folder = Folder::new();
    let bad = bad_files(&folder);
    folder.write("readme.txt", "no plugin");
    fs::copy(fixture_plugin(), folder.at("good.so")).unwrap();
    let finished = standpipe(["plugin", "list"]).plugin_path(folder.path()).finish().code(0);
    let listed: Vec<_> = finished.stdout.lines().filter(|line| line.contains("good.so")).collect();
    assert_eq!(listed.len(), 4, "a source, a transform, a sink and a deployment mode: {}", finished.stdout);
    for name in ["kafka", "elasticsearch", "split-words"] {
        assert!(finished.stdout.contains(name), "{name}: {}", finished.stdout);
    }
    let warnings: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(warnings.len(), bad.len(), "{}", finished.stderr);
    for (file, expected) in bad {
        let begin = format!("warning: {}: ", file.display());
        assert!(warnings.iter().any(|line| line.starts_with(&begin) && line.contains(expected)), "{begin}{expected}: {}", finished.stderr);
    }
    folder.write("pipeline.yaml", PRINT.replace("connector: print, format: json", "connector: bad"));
    let run = standpipe(["run", "pipeline.yaml"]).in_directory(folder.path()).plugin_path(folder.path());
    let finished = run.finish().code(0);
    assert!(finished.stderr.contains(" 3 rows in, 3 rows out"), "{}", finished.stderr);
}

#[test]
fn bundled_plugins_can_be_inspected() {
    for file in bundled_plugins() {
        let text = standpipe(["plugin", "inspect"]).args([&file]).finish().code(0);
        let json = standpipe(["plugin", "inspect", "--json"]).args([&file]).finish().code(0);
        assert!(text.stderr.is_empty() && json.stderr.is_empty(), "{}{}", text.stderr, json.stderr);
        let manifest: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        let kinds = manifest["description"]["kinds"].as_array().unwrap();
        assert!(!kinds.is_empty() && manifest["path"] == file.to_str().unwrap(), "{manifest}");
        for kind in kinds {
            let (name, kind, summary) = (kind["name"].as_str().unwrap(), kind["kind"].as_str().unwrap(), kind["summary"].as_str().unwrap());
            assert!(text.stdout.contains(&format!("{kind} {name}: {summary}")), "{}", text.stdout);
            assert!(!summary.is_empty(), "{name} has no summary");
        }
        let build = &manifest["description"]["build"];
        assert!(manifest["hash"].as_str().unwrap().starts_with("sha256:") && build["rustc"].is_string(), "{manifest}");
        let declared = manifest["declares"].as_object().unwrap();
        assert_eq!(declared.len(), kinds.len(), "{declared:?}");
        for member in ["name", "version", "abi", "hash"] {
            let value = manifest[member].as_str().unwrap();
            assert!(!value.is_empty() && text.stdout.contains(value), "{member} {value}: {}", text.stdout);
        }
    }
}

/// What is known without a configuration, and what a key is: its type, its default, or that it must be given.
#[test]
fn what_a_plugin_can_do_and_its_keys_are_shown() {
    let shown = |name: &str| standpipe(["plugin", "inspect"]).args([plugin(name)]).finish().code(0).stdout;
    let print = shown("connector_print");
    assert!(print.contains("  can: ordered, takes upsert, takes retract\n"), "{print}");
    assert!(print.contains("  key     type    default\n  prefix  string  \"\"       What each line begins with.\n"), "{print}");
    let file = shown("connector_file");
    assert!(file.contains("source file: ") && file.contains("  can: by configuration\n"), "{file}");
    assert!(file.lines().any(|line| line.split_whitespace().take(3).eq(["path", "string", "required"])), "{file}");
    let examples = shown("transforms_examples");
    assert!(examples.contains("aggregate weighted_avg: ") && examples.contains("  can: immutable\n"), "{examples}");
    let json = standpipe(["plugin", "inspect", "--format", "json"]).args([plugin("connector_print")]).finish().code(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["declares"]["sink print"], serde_json::json!(["ordered", "takes upsert", "takes retract"]));
    assert_eq!(json["description"]["kinds"][0]["config_schema"]["properties"]["prefix"]["type"], "string");
}

const TROUBLED: &str = "name: troubled
sources: {numbers: {connector: bad, with: {pause: 1}}}
transforms: {passed: {input: numbers, transform: bad, with: {}}}
sinks: {out: {input: passed, connector: bad, with: {}}}
";

/// Runs three nodes of the fixture plugin, one of which is told to fail in the call; gives the one line of the error.
fn error(node: &str, call: &str, how: &str, after: u32, code: i32) -> String {
    let folder = Folder::new();
    folder.write("pipeline.yaml", TROUBLED);
    let trouble = format!("{{at: {call}, how: {how}, after: {after}, pause: 1}}");
    let run = standpipe(["run", "pipeline.yaml"]).in_directory(folder.path()).plugin_path(fixture_plugin());
    run.set(&format!("{node}.with"), trouble).finish().one_error(code)
}

#[test]
fn a_panic_in_a_plugin_is_one_line_with_its_place() {
    for (node, call, code) in [
        ("sources.numbers", "validate", 2),
        ("transforms.passed", "validate", 2),
        ("sinks.out", "validate", 2),
        ("sources.numbers", "discover", 1),
        ("sources.numbers", "open", 1),
        ("transforms.passed", "open", 1),
        ("sinks.out", "open", 1),
        ("sources.numbers", "poll", 1),
        ("transforms.passed", "process", 1),
        ("sinks.out", "write", 1),
    ] {
        for (how, message) in [("panic", format!("as asked, in {call}")), ("panic-odd", "a value that is no text".to_owned())] {
            let line = error(node, call, how, 0, code);
            let expected = format!("{node}: plugin \"bad\" panicked in {call}: {message} at tests/fixtures/plugin.rs:");
            assert!(line.contains(&expected), "{line}\nis not\n{expected}");
        }
    }
}

#[test]
fn a_panic_at_the_end_of_a_job_is_not_lost() {
    let folder = Folder::new();
    folder.write("pipeline.yaml", PRINT.replace("connector: print, format: json", "connector: bad, with: {at: finish}"));
    let run = standpipe(["run", "pipeline.yaml"]).in_directory(folder.path()).plugin_path(fixture_plugin());
    let line = run.finish().one_error(1);
    assert!(line.starts_with("sinks.out: plugin \"bad\" panicked in finish: as asked, in finish at "), "{line}");
}

#[test]
fn an_error_of_a_plugin_has_the_exit_code_of_its_kind() {
    for (node, call, how, after, code) in [
        ("sources.numbers", "validate", "fail", 0, 2),
        ("sources.numbers", "open", "fail", 0, 1),
        ("sources.numbers", "open", "external", 0, 3),
        ("sources.numbers", "discover", "external", 0, 3),
        ("transforms.passed", "open", "external", 0, 3),
        ("sinks.out", "open", "external", 0, 3),
        // Outside, but later: the job had started.
        ("sources.numbers", "poll", "external", 3, 1),
        ("transforms.passed", "process", "external", 3, 1),
        ("sinks.out", "write", "external", 3, 1),
        ("sinks.out", "write", "fail", 3, 1),
    ] {
        let line = error(node, call, how, after, code);
        assert!(line.ends_with(&format!("{node}: bad: as asked, in {call}")), "{line}");
    }
}
