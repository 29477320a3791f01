//! `museum/`: what was built for a released minor version of the plugin ABI loads and runs in the host of today, and a host of that version loads and runs the plugins of
//! today. Nothing in a room of the museum changes: these tests are what the promise is kept by.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, Signal, binary, bundled_plugins, plugin, read_rows, repository, standpipe};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Rows of the source.
const ROWS: i64 = 400_000;

fn room(version: &str) -> PathBuf {
    repository().join("museum").join(version)
}

/// The binaries that are kept, of this processor.
fn binaries(version: &str) -> Vec<PathBuf> {
    let folder = room(version).join(format!("binaries/{}-linux", env::consts::ARCH));
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Builds something of a room, with its own lock file, as it was released.
fn cargo(version: &str, arguments: &[&str]) -> PathBuf {
    let target = binary().parent().unwrap().parent().unwrap().join(format!("museum-{version}"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        command.env_remove(name);
    }
    command.args(arguments).args(["--locked", "--profile", "ci"]).current_dir(room(version)).env("CARGO_TARGET_DIR", &target);
    let output = command.env_remove("RUSTFLAGS").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("ci")
}

fn run(folder: &Folder, library: &Path) -> Run {
    let pipeline = room("1.0").join("pipelines/everything.yaml");
    standpipe(["run"])
        .args([pipeline])
        .args(["--log-level", "info"])
        .in_directory(folder.path())
        .plugin_path(library)
        .env("EXHIBIT_TOKEN", "secret")
}

fn parts(folder: &Folder, name: &str) -> Vec<i64> {
    let files = fs::read_dir(folder.at(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut rows: Vec<_> = files.flat_map(read_rows).collect();
    for row in &rows {
        let n = row["n"].as_i64().unwrap();
        assert_eq!((row["twice"].as_i64(), row["thrice"].as_i64()), (Some(2 * n), Some(3 * n)), "{row:?}");
    }
    if name == "odd" {
        rows.sort_by_key(|row| row["serial"].as_i64());
        assert!(rows.iter().zip(0..).all(|(row, serial)| row["serial"] == serial), "serials without a gap");
    }
    let mut numbers: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// What the pipeline gives, whatever happened on the way.
fn assert_everything(folder: &Folder, what: &Path) {
    let every_second = |first: i64| (first..ROWS).step_by(2).collect::<Vec<_>>();
    assert!(parts(folder, "odd") == every_second(1) && parts(folder, "even") == every_second(0), "{}: rows", what.display());
    let summary = json!({"split": "split-0", "count": ROWS, "sum": ROWS * (ROWS - 1) / 2, "listed": ROWS, "digits": 10});
    assert_eq!(read_rows(folder.at("summary.jsonl")), [summary.as_object().unwrap().clone()], "{}", what.display());
    let windows = read_rows(folder.at("ranges.jsonl"));
    assert_eq!(windows.len() as i64, ROWS / 1000, "{}", what.display());
    assert!(windows.iter().all(|row| row["range"] == 999 && row["rows"] == 1000), "{}: {windows:?}", what.display());
}

/// Runs the pipeline with that library, killed in the middle: snapshots, restores and commits of the exhibits are wanted as well.
fn assert_runs(library: &Path) {
    let folder = Folder::new();
    let mut killed = run(&folder, library).start();
    killed.wait_until("checkpoints", Duration::from_secs(60), |run| run.stderr().matches("is durable after").count() >= 2);
    killed.signal(Signal::KILL);
    _ = killed.wait();
    run(&folder, library).args(["--restore=latest"]).finish().success();
    assert_everything(&folder, library);
}

/// As they were built: by the compiler of the day and the oldest that the SDK takes, with the Arrow of the day and another.
#[test]
fn exhibits_of_1_0_load_and_run_in_this_host() {
    let exhibits: Vec<_> = binaries("1.0").into_iter().filter(|file| !file.ends_with("c_example.so")).collect();
    assert_eq!(exhibits.len(), 3, "{exhibits:?}");
    exhibits.iter().for_each(|library| assert_runs(library));
}

#[test]
fn a_deployment_mode_of_1_0_deploys_from_this_host() {
    for library in binaries("1.0").iter().filter(|file| !file.ends_with("c_example.so")) {
        let folder = Folder::new();
        let pipeline = folder.write("one.yaml", "name: one\nsources:\n  a: {connector: generator, with: {count: 1, fields: {n: {kind: sequence}}}}\nsinks:\n  b: {input: a, connector: print}\n");
        let keys = ["deployment_mode=exhibit-shelf".to_owned(), format!("exhibit-shelf.folder={}", folder.at("shelf").display())];
        let deploy = standpipe(["deploy"]).args([&pipeline]).args(keys.iter().flat_map(|key| ["-D", key]));
        deploy.args(["--handle", "handle.json"]).in_directory(folder.path()).plugin_path(library).finish().success();
        assert!(folder.at("shelf").is_dir());
        let ask = |command: &str| {
            let asked = standpipe(["deployment", command, "--handle", "handle.json", "-D", &keys[1]]);
            asked.in_directory(folder.path()).plugin_path(library).finish().success().stdout
        };
        assert_eq!(ask("status"), "FINISHED\n");
        ask("remove");
        assert!(!folder.at("shelf").exists());
    }
}

#[test]
fn a_c_plugin_of_1_0_runs_in_this_host() {
    let library = binaries("1.0").into_iter().find(|file| file.ends_with("c_example.so")).unwrap();
    let folder = Folder::new();
    let pipeline = fs::read_to_string(room("1.0").join("pipelines/c.yaml")).unwrap();
    folder.write("c.yaml", pipeline);
    standpipe(["run", "c.yaml"]).in_directory(folder.path()).plugin_path(library).finish().success();
    let rows = read_rows(folder.at("totals.jsonl"));
    assert_eq!(rows.iter().map(|row| row["total"].as_i64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 4, 6, 9, 12, 16, 20, 25]);
}

/// The sources of 1.0 build today, and what comes out of them runs in this host.
#[test]
fn exhibits_of_1_0_are_built_anew() {
    let built = cargo("1.0", &["build", "-p", "exhibits"]);
    assert_runs(&built.join("libexhibits.so"));
}

/// What the host of 1.0 says of files, a line each, and of the job.
fn mini_host(folder: &Folder, job: &Value, files: &[PathBuf]) -> Vec<Value> {
    let host = cargo("1.0", &["build", "-p", "mini-host"]).join("mini-host");
    let job = folder.write("job.json", job.to_string());
    let output = Command::new(host).arg(job).args(files).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_host_of_1_0_loads_all_plugins_of_today() {
    let plugins = bundled_plugins();
    let loaded = mini_host(&Folder::new(), &Value::Null, &plugins);
    assert_eq!(loaded.len(), plugins.len());
    assert!(loaded.iter().all(|plugin| !plugin["kinds"].as_array().unwrap().is_empty()), "{loaded:?}");
}

#[test]
fn the_host_of_1_0_runs_plugins_of_today() {
    let folder = Folder::new();
    let fields = json!({"value": {"kind": "string", "length": 5}, "n": {"kind": "sequence"}});
    let job = json!({
        "source": ["generator", {"count": 1000, "splits": 2, "fields": fields}],
        "transforms": [["split-words", {"column": "value", "keep": ["n"]}]],
        "sink": ["file", {"path": folder.at("out.txt")}],
    });
    let plugins = ["connector_generator", "transforms_examples", "connector_file"].map(plugin);
    assert_eq!(mini_host(&folder, &job, &plugins).last(), Some(&json!({"read": 1000, "written": 1000})));
    assert_eq!(folder.read("out.txt").lines().count(), 1000);
    // Both sides are of one version here, so the exhibits of 1.0 are what a plugin of its own time does in that host.
    let job = json!({
        "source": ["exhibit-numbers", {"count": 1000}],
        "transforms": [["exhibit-serial", {"column": "odd"}]],
        "sink": ["exhibit-parts", {"folder": folder.at("parts")}],
    });
    for library in binaries("1.0").iter().filter(|file| !file.ends_with("c_example.so")) {
        assert_eq!(mini_host(&folder, &job, std::slice::from_ref(library)).last(), Some(&json!({"read": 2000, "written": 1000})));
    }
}

/// `rescale` and `preview` of `deployment/1` came with 1.1, and so did `drain` in what `stop` is given.
#[test]
fn a_member_of_1_1_is_absent_on_either_side() {
    // The newer host, the older plugin: what it lacks is said to be absent, and nothing has happened.
    for library in binaries("1.0").iter().filter(|file| !file.ends_with("c_example.so")) {
        let folder = Folder::new();
        let handle = json!({"deployment_mode": "exhibit-shelf", "folder": folder.at("shelf"), "exhibit-shelf.folder": folder.at("shelf")});
        folder.write("handle.json", handle.to_string());
        let rescale = standpipe(["deployment", "rescale", "--handle", "handle.json", "3"]).in_directory(folder.path()).plugin_path(library);
        let expected = "exhibit-shelf: it was built for plugin ABI 1.0, in which no mode changes a job's parallelism: stop the job with a savepoint, and deploy it from there";
        assert_eq!(rescale.finish().one_error(2), expected);
        let drain =
            standpipe(["deployment", "stop", "--handle", "handle.json", "--drain"]).in_directory(folder.path()).plugin_path(library);
        let expected = "exhibit-shelf: it was built for plugin ABI 1.0, in which no mode fires the open windows of a job that it stops";
        assert_eq!(drain.finish().one_error(2), expected);
        let pipeline = "name: n\nsources:\n  n: {connector: generator, with: {count: 1, fields: {n: {kind: sequence}}}}\nsinks:\n  out: {input: n, connector: print, format: json}\n";
        folder.write("n.yaml", pipeline);
        let preview = ["deploy", "n.yaml", "--dry-run", "-D", "deployment_mode=exhibit-shelf", "-D", "exhibit-shelf.folder=shelf"];
        let expected = "exhibit-shelf: it was built for plugin ABI 1.0, in which no mode says beforehand what it would do";
        assert_eq!(standpipe(preview).in_directory(folder.path()).plugin_path(library).finish().one_error(2), expected);
    }
    // The older host, the newer plugin, whose table is longer than that host knows: its functions are where they were.
    let job = json!({"deployment": ["session", {"rest.address": "127.0.0.1", "rest.port": 9}], "handle": {"jobid": "no id"}});
    let said = mini_host(&Folder::new(), &job, &[plugin("deployment_session")]);
    let refused = said.last().and_then(|said| said["refused"].as_str()).unwrap_or_default();
    assert_eq!(refused, "session: jobid: the handle has no id of 32 hexadecimal digits");
}
