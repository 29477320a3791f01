//! Two versions of one kind in one job, kinds by the path of their file, and `plugins.lock`: by the C plugin of the loader's tests, whose transform multiplies by another
//! number in each version.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, Signal, binary, free_port, read_rows, repository, standpipe};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// Compiles the plugin, in that version and with that factor, to a file of the folder.
fn compile(folder: &Folder, file: &str, version: &str, factor: i64) {
    let (target, core) = (folder.at(file), repository().join("core"));
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c99", "-fPIC", "-shared", "-O1", &format!("-DVERSION=\"{version}\""), &format!("-DFACTOR={factor}"), "-I"]);
    let output = compiler.arg(core.join("abi/include")).arg(core.join("loader/tests/c/plugin.c")).arg("-o").arg(&target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// A cluster of this machine, which ends with the test.
struct Cluster(PathBuf);

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(&self.0).output());
    }
}

/// Numbers from 0, through the transforms that are named, each into a file of its name.
fn pipeline(name: &str, generator: &str, transforms: &[(&str, &str)]) -> String {
    let verbs: String = transforms.iter().map(|(name, kind)| format!("  {name}:\n    input: ticks\n    transform: {kind}\n")).collect();
    let sinks: String = transforms
        .iter()
        .map(|(name, _)| format!("  {name}-out: {{input: {name}, connector: file, with: {{path: DIR/{name}.jsonl}}, format: json}}\n"))
        .collect();
    let ticks = format!("  ticks: {{connector: generator, with: {{{generator}, fields: {{number: {{kind: sequence}}}}}}}}\n");
    format!("name: {name}\nsources:\n{ticks}transforms:\n{verbs}sinks:\n{sinks}")
}

/// The folder with a pipeline in it; `DIR` is its path.
fn write(folder: &Folder, text: &str) {
    folder.write("p.yaml", text.replace("DIR", folder.path().to_str().unwrap()));
}

fn command(folder: &Folder, arguments: &[&str]) -> Run {
    standpipe(arguments).in_directory(folder.path())
}

/// What came out of a transform.
fn numbers(folder: &Folder, name: &str) -> Vec<i64> {
    read_rows(folder.at(&format!("{name}.jsonl"))).iter().map(|row| row["number"].as_i64().unwrap()).collect()
}

fn multiples(of: i64, count: i64) -> Vec<i64> {
    (0..count).map(|n| n * of).collect()
}

/// A folder `lib` with three versions of the plugin, and one beside it that nothing finds.
fn versions() -> Folder {
    let folder = Folder::new();
    compile(&folder, "lib/liba.so", "1.2.3", 3);
    compile(&folder, "lib/libb.so", "1.2.10", 10);
    compile(&folder, "lib/libc.so", "2.0.0", 20);
    compile(&folder, "own/libown.so", "9.0.0", 90);
    folder
}

const ALL: [(&str, &str); 5] = [
    ("exact", "c_negate@1.2.3"),
    ("newest", "c_negate@1.2"),
    ("major", "c_negate@1"),
    ("plain", "c_negate"),
    ("own", "./own/libown.so#c_negate"),
];
const FACTORS: [(&str, i64); 5] = [("exact", 3), ("newest", 10), ("major", 10), ("plain", 20), ("own", 90)];

#[test]
fn versions_of_one_kind_run_in_one_job() {
    let folder = versions();
    write(&folder, &pipeline("versions", "count: 100", &ALL));
    let run = command(&folder, &["run", "p.yaml", "--plugin-path", "lib", "--log-level", "info"]).finish().success();
    for (name, factor) in FACTORS {
        assert_eq!(numbers(&folder, name), multiples(factor, 100), "{name}");
    }
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    // What a plugin logs says of which version it is.
    for plugin in ["c_negate@1.2.3", "c_negate@1.2.10", "c_negate@2.0.0", "c_negate@9.0.0"] {
        assert!(run.stderr.lines().any(|line| line.contains("created") && line.contains(plugin)), "{plugin}: {}", run.stderr);
    }
    let again = command(&folder, &["run", "p.yaml", "--plugin-path", "lib", "--processes", "2", "-p", "2"]).finish().success();
    let mut rows = numbers(&folder, "exact");
    rows.sort_unstable();
    assert_eq!(rows, multiples(3, 100), "{}", again.stderr);
}

#[test]
fn explain_names_versions_and_contents() {
    let folder = versions();
    write(&folder, &pipeline("versions", "count: 1", &ALL));
    let text = command(&folder, &["explain", "p.yaml", "--plugin-path", "lib"]).finish().success().stdout;
    let (a, own) = (folder.at("lib/liba.so").canonicalize().unwrap(), folder.at("own/libown.so").canonicalize().unwrap());
    for line in [
        "transforms.exact: transform c_negate@1.2.3, parallelism 1, chain".to_owned(),
        "transforms.newest: transform c_negate@1.2.10, parallelism 1, chain".to_owned(),
        format!("  c-fixture 1.2.3, {}\n    sha256:{}\n", a.display(), sha256(&a)),
        format!("  c-fixture 9.0.0, {}\n    sha256:{}\n", own.display(), sha256(&own)),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let json = command(&folder, &["explain", "p.yaml", "--plugin-path", "lib", "--format", "json"]).finish().success().stdout;
    let plan: Value = serde_json::from_str(&json).unwrap();
    let plugins = plan["plugins"].as_array().unwrap();
    let of = |version: &str| plugins.iter().find(|plugin| plugin["plugin"] == "c-fixture" && plugin["version"] == version).unwrap();
    assert_eq!((&of("1.2.3")["sha256"], &of("1.2.3")["used_by"]), (&json!(sha256(&a)), &json!(["transforms.exact"])));
    assert_eq!(of("1.2.10")["used_by"], json!(["transforms.newest", "transforms.major"]));
    let nodes = plan["nodes"].as_array().unwrap();
    let exact = nodes.iter().find(|node| node["node"] == "transforms.exact").unwrap();
    assert_eq!(exact["plugin"], json!({"kind": "c_negate", "plugin": "c-fixture", "version": "1.2.3", "sha256": sha256(&a)}));
    assert_eq!(exact["inputs"], json!([{"node": "sources.ticks", "output": "main", "exchange": "forward", "columns": []}]));
    assert_eq!(exact["outputs"][0]["columns"], json!([{"name": "number", "type": "int64", "nullable": false}]));

    let list = command(&folder, &["plugin", "list", "--plugin-path", "lib"]).finish().success().stdout;
    let line = |file: &str| list.lines().find(|line| line.starts_with("transform") && line.contains(file)).unwrap().to_owned();
    assert!(line("liba.so").ends_with("  (as c_negate@1.2.3)"), "{list}");
    assert!(line("libc.so").ends_with("libc.so"), "{list}");
}

#[test]
fn the_search_order_comes_before_the_version() {
    let folder = versions();
    write(&folder, &pipeline("order", "count: 3", &[("plain", "c_negate"), ("minor", "c_negate@1.2"), ("new", "c_negate@2")]));
    command(&folder, &["run", "p.yaml", "--plugin-path", "lib/liba.so", "--plugin-path", "lib"]).finish().success();
    assert_eq!([numbers(&folder, "plain"), numbers(&folder, "minor"), numbers(&folder, "new")], [3, 3, 20].map(|of| multiples(of, 3)));
}

#[test]
fn what_is_not_there_is_said_with_what_there_is() {
    let folder = versions();
    compile(&folder, "twins/libone.so", "1.0.0", 1);
    compile(&folder, "twins/libtwo.so", "1.0.0", 2);
    folder.write("own/text.so", "no library");
    let lib = |file: &str| folder.at(file).canonicalize().unwrap().display().to_string();
    for (kind, place, message) in [
        (
            "c_negate@1.3",
            "lib",
            format!(
                "there is no transform \"c_negate\" of version 1.3, did you mean \"c_negate@1.2.10\"? Found: 2.0.0 in {}, 1.2.10 in {}, 1.2.3 in {}",
                lib("lib/libc.so"),
                lib("lib/libb.so"),
                lib("lib/liba.so")
            ),
        ),
        ("c_negate@1.x", "lib", "\"1.x\" is no version: expected 1, 1.2 or 1.2.3".to_owned()),
        ("c_negat@1", "lib", "there is no transform \"c_negat\", did you mean \"c_negate\"?".to_owned()),
        (
            "c_negate",
            "twins",
            format!(
                "two files have the transform \"c_negate\" in version 1.0.0 and differ, {one} and {}: remove one of them, or name one by its path, {one}#c_negate",
                lib("twins/libtwo.so"),
                one = lib("twins/libone.so")
            ),
        ),
        ("./own/libown.so", "lib", "\"./own/libown.so\" is a file: say which of its kinds is meant, ./own/libown.so#NAME".to_owned()),
        (
            "./own/libown.so#c_negat",
            "lib",
            "./own/libown.so has no transform \"c_negat\", did you mean \"c_negate\"? It has: source c_numbers, transform c_negate, sink c_sum".to_owned(),
        ),
        ("./own/libown.so#c_negate@1", "lib", "there is no transform \"c_negate\" of version 1, did you mean \"c_negate@9.0.0\"?".to_owned()),
        ("./own/libnone.so#c_negate", "lib", "./own/libnone.so: cannot be read: No such file".to_owned()),
        ("./own/text.so#c_negate", "lib", "./own/text.so: is a text file, not a shared library".to_owned()),
        ("${KIND}", "lib", "\"${KIND}\": a reference cannot be in the path of a plugin".to_owned()),
    ] {
        write(&folder, &pipeline("bad", "count: 1", &[("t", &format!("\"{kind}\""))]));
        let check = command(&folder, &["check", "p.yaml", "--plugin-path", place]).env("KIND", "./own/libown.so#c_negate");
        let error = check.finish().one_error(2);
        assert!(error.starts_with(&format!("p.yaml:7:16: transforms.t.transform: {message}")), "{kind}: {error}");
    }
}

#[test]
fn functions_have_versions_too() {
    let folder = Folder::new();
    let pipeline = "name: teams
functions:
  team: {function: names@VERSION, with: {names: {1: Red}, otherwise: nobody}}
sources:
  payments: {connector: generator, with: {count: 1, fields: {team: {kind: constant, value: 1}}}}
transforms:
  named: {input: payments, select: {team: \"team(team)\"}}
sinks:
  out: {input: named, connector: print, format: json}
";
    folder.write("p.yaml", pipeline.replace("VERSION", "0.1"));
    assert_eq!(command(&folder, &["run", "p.yaml", "--quiet"]).finish().success().stdout, "{\"team\":\"Red\"}\n");
    folder.write("p.yaml", pipeline.replace("VERSION", "0.2"));
    let error = command(&folder, &["check", "p.yaml"]).finish().one_error(2);
    assert!(
        error.starts_with(
            "p.yaml:3:20: functions.team.function: there is no scalar \"names\" of version 0.2, did you mean \"names@0.1.0\"?"
        ),
        "{error}"
    );
}

const SLOW: &str = "rate: 2000, count: 6000";

/// A run that is killed when it has taken some checkpoints.
fn killed(folder: &Folder) {
    let mut run = command(folder, &["run", "p.yaml", "--plugin-path", "lib", "--log-level", "info"]).start();
    run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= 3);
    run.signal(Signal::KILL);
    _ = run.wait();
}

#[test]
fn a_killed_job_goes_on_with_both_versions_and_says_which_has_changed() {
    let folder = versions();
    write(
        &folder,
        &(pipeline("both", SLOW, &[("old", "c_negate@1.2.3"), ("new", "c_negate@2")]) + "checkpoint: {interval: 50ms, dir: DIR/ckpt}\n"),
    );
    killed(&folder);
    let restored = command(&folder, &["run", "p.yaml", "--plugin-path", "lib", "--restore", "latest"]).finish().success();
    assert!(restored.stderr.contains("goes on from checkpoint") && !restored.stderr.contains("warning"), "{}", restored.stderr);
    assert_eq!([numbers(&folder, "old"), numbers(&folder, "new")], [multiples(3, 6000), multiples(20, 6000)]);
    let inspected = command(&folder, &["checkpoint", "inspect", "p.yaml"]).finish().success().stdout;
    let line = format!("transforms.old: c_negate@1.2.3 of plugin c-fixture, sha256:{}", sha256(&folder.at("lib/liba.so")));
    assert!(inspected.contains(&line), "{inspected}");

    fs::remove_dir_all(folder.at("ckpt")).unwrap();
    for name in ["old.jsonl", "new.jsonl"] {
        fs::remove_file(folder.at(name)).unwrap();
    }
    killed(&folder);
    let before = sha256(&folder.at("lib/liba.so"));
    compile(&folder, "lib/libnext.so", "1.2.3", 5);
    fs::rename(folder.at("lib/libnext.so"), folder.at("lib/liba.so")).unwrap();
    let restored = command(&folder, &["run", "p.yaml", "--plugin-path", "lib", "--restore", "latest"]).finish().success();
    let now = sha256(&folder.at("lib/liba.so"));
    let expected = format!(
        "transforms.old was c_negate@1.2.3 of plugin c-fixture (sha256:{before}), and is now c_negate@1.2.3 of plugin c-fixture (sha256:{now})"
    );
    let warnings: Vec<&str> = restored.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warnings.len() == 1 && warnings[0].ends_with(&expected), "{}", restored.stderr);
    let rows = numbers(&folder, "old");
    let changed = rows.iter().zip(0..).position(|(row, n)| *row != n * 3).unwrap();
    assert!(changed > 0 && rows.iter().zip(0..).skip(changed).all(|(row, n)| *row == n * 5), "the new file from where the job goes on");
    assert_eq!(numbers(&folder, "new"), multiples(20, 6000));
}

#[test]
fn a_session_cluster_runs_what_was_found_where_it_was_deployed() {
    let folder = versions();
    let port = free_port().to_string();
    let start = standpipe(["cluster", "start", "--slots", "4", "--port", &port, "--data"]).args([folder.at("cluster")]);
    let cluster = Cluster(folder.at("cluster"));
    let _ = start.timeout(PATIENCE).finish().code(0);
    // In an order in which the names of the files would choose others.
    let all = [&ALL[..], &[("second", "c_negate@1.2.10"), ("third", "c_negate@2")]].concat();
    write(&folder, &(pipeline("versions", "count: 50", &all) + "plugins: [lib/liba.so]\n"));
    let define = format!("rest.port={port}");
    let settings = ["-D", "rest.address=127.0.0.1", "-D", &define];
    let deploy = command(&folder, &["deploy", "p.yaml", "--handle", "job.json", "--plugin-path", "lib"]).args(settings);
    let deployed = deploy.finish().code(0);
    assert!(!deployed.stderr.contains("error"), "{}", deployed.stderr);
    let waited = command(&folder, &["deployment", "wait", "--handle", "job.json"]).args(settings).timeout(PATIENCE).finish();
    let handle: Value = serde_json::from_str(&folder.read("job.json")).unwrap();
    let job = handle["jobid"].as_str().unwrap();
    let plan = ureq::get(format!("http://127.0.0.1:{port}/jobs/{job}/plan")).call().unwrap().body_mut().read_to_string().unwrap();
    drop(cluster);
    assert_eq!(waited.code(0).stdout, "FINISHED\n");
    // The place that was searched first had 1.2.3.
    for (name, factor) in [("exact", 3), ("newest", 3), ("major", 3), ("plain", 3), ("own", 90), ("second", 10), ("third", 20)] {
        assert_eq!(numbers(&folder, name), multiples(factor, 50), "{name}");
    }
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let node = plan["plan"]["nodes"].as_array().unwrap().iter().find(|node| node["description"] == "transforms.own").unwrap();
    let expected = json!({"kind": "c_negate@9.0.0", "plugin": "c-fixture", "sha256": sha256(&folder.at("own/libown.so"))});
    assert_eq!(node["optimizer_properties"], expected, "{plan}");
}

#[test]
fn a_bundle_chooses_as_its_pipeline_did() {
    let folder = versions();
    // Of the same name as one in the bundle's own folder.
    fs::create_dir(folder.at("plugins")).unwrap();
    fs::copy(folder.at("own/libown.so"), folder.at("plugins/liba.so")).unwrap();
    write(&folder, &pipeline("versions", "count: 4", &[&ALL[..], &[("beside", "plugins/liba.so#c_negate")]].concat()).replace("DIR/", ""));
    let deploy =
        |more: &[&str]| command(&folder, &["deploy", "p.yaml", "--plugin-path", "lib", "-D", "deployment_mode=cli"]).args(more).finish();
    let handle: Value = serde_json::from_str(&deploy(&["-D", "deployment_mode=cli@0.1"]).code(0).stdout).unwrap();
    assert_eq!(handle["deployment_mode"], "cli@0.1");
    let bundle = folder.at("versions.bundle");
    for file in ["lib", "own"] {
        fs::rename(folder.at(file), folder.at(&format!("gone-{file}"))).unwrap();
    }
    let run = || standpipe(["run", "p.yaml", "--quiet", "--plugin-path", "plugins"]).in_directory(&bundle).finish();
    run().success();
    for (name, factor) in FACTORS.into_iter().chain([("beside", 90)]) {
        let rows: Vec<i64> = read_rows(bundle.join(format!("{name}.jsonl"))).iter().map(|row| row["number"].as_i64().unwrap()).collect();
        assert_eq!(rows, multiples(factor, 4), "{name}");
    }
    // What comes to lie there later is not taken.
    compile(&folder, "versions.bundle/plugins/libnew.so", "3.0.0", 7);
    run().success();
    let rows = read_rows(bundle.join("plain.jsonl"));
    assert_eq!(rows.last().unwrap()["number"], 60);

    for file in ["lib", "own"] {
        fs::rename(folder.at(&format!("gone-{file}")), folder.at(file)).unwrap();
    }
    let absolute = folder.at("own/libown.so").display().to_string();
    write(&folder, &pipeline("outside", "count: 1", &[("t", &format!("{absolute}#c_negate"))]));
    let error = deploy(&[]).one_error(2);
    let expected = "p.yaml:7:16: transforms.t.transform: ";
    assert!(error.starts_with(expected) && error.contains("expected one below the current directory"), "{error}");
    let error = deploy(&["-D", "deployment_mode=cli@9"]).one_error(2);
    assert!(
        error.starts_with("deployment_mode: there is no deployment \"cli\" of version 9, did you mean \"cli@0.1.0\"? Found: 0.1.0 in "),
        "{error}"
    );
    assert!(error.ends_with(" (-D deployment_mode)"), "{error}");
    // Here it runs.
    command(&folder, &["run", "p.yaml"]).finish().success();
    assert_eq!(numbers(&folder, "t"), [0]);
}

#[test]
fn a_lock_selects_and_refuses() {
    let folder = versions();
    let two = [("old", "c_negate@1.2"), ("new", "c_negate")];
    write(&folder, &pipeline("locked", "count: 3", &two));
    let with = |command_name: &str, more: &[&str]| command(&folder, &[command_name, "p.yaml", "--plugin-path", "lib"]).args(more);
    // Before there are newer ones.
    fs::rename(folder.at("lib/libc.so"), folder.at("libc.so")).unwrap();
    let locked = command(&folder, &["plugin", "lock", "p.yaml", "--plugin-path", "lib"]).finish().success();
    assert_eq!(locked.stderr, "plugins.lock: 3 plugins\n");
    let lock = folder.read("plugins.lock");
    let hash = sha256(&folder.at("lib/libb.so"));
    assert!(lock.contains(&hash) && lock.contains("version: \"1.2.10\"") && lock.contains("kinds: [\"transform c_negate\"]"), "{lock}");
    assert!(lock.contains("kinds: [\"sink file\"]") && lock.contains("file: \"libb.so\""), "{lock}");
    fs::rename(folder.at("libc.so"), folder.at("lib/libc.so")).unwrap();

    // Of what is found now the lock has the former choice.
    with("run", &[]).finish().success();
    assert_eq!([numbers(&folder, "old"), numbers(&folder, "new")], [multiples(10, 3), multiples(10, 3)]);
    fs::rename(folder.at("plugins.lock"), folder.at("other.lock")).unwrap();
    for name in ["old", "new"] {
        fs::remove_file(folder.at(&format!("{name}.jsonl"))).unwrap();
    }
    with("run", &[]).finish().success();
    assert_eq!(numbers(&folder, "new"), multiples(20, 3));
    with("check", &["--plugins-lock", "other.lock"]).finish().success();
    let error = with("check", &["--plugins-lock", "none.lock"]).finish().one_error(3);
    assert_eq!(error, "none.lock: cannot read the file: there is none");
    fs::rename(folder.at("other.lock"), folder.at("plugins.lock")).unwrap();

    // Another content under the same version, wherever a pipeline is planned.
    compile(&folder, "lib/libnext.so", "1.2.10", 11);
    fs::rename(folder.at("lib/libnext.so"), folder.at("lib/libb.so")).unwrap();
    let (found, path) = (sha256(&folder.at("lib/libb.so")), folder.at("lib/libb.so").canonicalize().unwrap());
    let line = 1 + lock.lines().position(|line| line.contains("c-fixture")).unwrap();
    let expected = format!(
        "transforms.old.transform: plugin c-fixture 1.2.10 is another one than in plugins.lock:{line}: expected sha256:{hash}, {} has sha256:{found}; `standpipe plugin lock` writes what is found now",
        path.display()
    );
    for (name, more) in [("run", &[][..]), ("check", &[]), ("explain", &[]), ("deploy", &["-D", "deployment_mode=cli"])] {
        let stderr = with(name, more).finish().code(2).stderr;
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 2 && errors[0].ends_with(&expected), "{name}: {stderr}");
    }
    let _ = command(&folder, &["plugin", "lock", "p.yaml", "--plugin-path", "lib"]).finish().success();
    with("check", &[]).finish().success();

    // A plugin that is not in it, and a version that is not.
    write(&folder, &pipeline("locked", "count: 3", &[("old", "c_negate@1.2.3")]));
    let error = with("check", &[]).finish().one_error(2);
    assert!(error.contains("plugin c-fixture 1.2.3 (") && error.contains(") is not in plugins.lock, which has "), "{error}");
    write(
        &folder,
        &pipeline("locked", "count: 3", &two)
            .replace("connector: file, with: {path: ", "connector: print, with: {stream: ")
            .replace(".jsonl}", "}"),
    );
    let stderr = with("check", &[]).finish().code(2).stderr;
    assert!(
        stderr.contains("sinks.old-out.connector: plugin standpipe-connector-print 0.1.0 (")
            && stderr.contains(") is not in plugins.lock; "),
        "{stderr}"
    );
}

#[test]
fn a_lock_serves_several_platforms_and_says_where_it_is_wrong() {
    let folder = versions();
    write(&folder, &pipeline("locked", "count: 3", &[("t", "c_negate")]));
    let lock = || command(&folder, &["plugin", "lock", "p.yaml", "--plugin-path", "lib", "--lock", "my.lock"]).finish();
    let check = || command(&folder, &["check", "p.yaml", "--plugin-path", "lib", "--plugins-lock", "my.lock"]).finish();
    let _ = lock().success();
    let written = folder.read("my.lock");
    let here = format!("{}-linux", std::env::consts::ARCH);
    folder.write("my.lock", written.replace(&here, "pdp11-linux"));
    let error = check().code(2).stderr;
    let expected = format!("plugin c-fixture 2.0.0 has no hash for {here} in my.lock:");
    assert!(error.contains(&expected) && error.contains(", which has pdp11-linux; `standpipe plugin lock` writes"), "{error}");
    let _ = lock().success();
    check().success();
    let both = folder.read("my.lock");
    assert_eq!((both.matches("pdp11-linux: ").count(), both.matches(&format!("{here}: ")).count()), (3, 3), "{both}");
    // The same again, byte for byte.
    let _ = lock().success();
    assert_eq!(folder.read("my.lock"), both);

    for (from, to, message) in [
        ("version: 1\n", "version: 7\n", "my.lock:2:10: version: expected 1, the form that this release reads, found \"7\""),
        ("    sha256:\n", "    sha265:\n", "unknown key \"sha265\", did you mean \"sha256\"?"),
        ("pdp11-linux: \"", "pdp11-linux: \"xyz", "expected the SHA-256 of a file, 64 hexadecimal digits in lower case"),
        ("plugins:\n", "plugins: [\n", "my.lock:"),
    ] {
        folder.write("my.lock", both.replacen(from, to, 1));
        let stderr = check().code(2).stderr;
        assert!(stderr.contains(message) && stderr.starts_with("error: my.lock:"), "{stderr}");
        // What may be something else is not overwritten.
        assert!(lock().code(2).stderr.contains("my.lock:"));
        assert_eq!(folder.read("my.lock"), both.replacen(from, to, 1));
    }
}
