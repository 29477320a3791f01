//! `standpipe deploy`, by the rows of the founding checklist (A1, A2, ...): the built binary with its modes `cli` and `session` and the mode of `examples/plugins/background`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod deploy_settings;

use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, Signal, binary, example_plugin, free_port, standpipe};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const PIPELINE: &str = "name: words
sources:
  lines:
    connector: file
    with: {path: data/in.jsonl}
    format: json
    schema: {word: string}
sinks:
  out:
    input: lines
    connector: file
    with: {path: out.jsonl}
    format: json
";

/// A folder with the pipeline, what is added to it, and its input.
fn folder(more: &str) -> Folder {
    let folder = Folder::new();
    folder.write("words.yaml", format!("{PIPELINE}{more}"));
    fs::create_dir(folder.at("data")).unwrap();
    folder.write("data/in.jsonl", "{\"word\":\"a\"}\n{\"word\":\"b\"}\n");
    folder
}

/// `standpipe deploy words.yaml` with those settings.
fn deploy(folder: &Folder, settings: &[&str]) -> Run {
    defined(standpipe(["deploy", "words.yaml", "--resource", "data"]).in_directory(folder.path()), settings)
}

fn defined(run: Run, settings: &[&str]) -> Run {
    settings.iter().fold(run, |run, setting| run.args(["-D", setting]))
}

/// Every file below a folder with its content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Runs a command as a user pastes it.
fn shell(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a1_the_mode_is_one_key_and_another_value_fails_before_anything_is_done() {
    // The same file, with the keys of another mode in it, in cli and (to the refusal of its connection) in session.
    let port = free_port();
    let more = format!("deployment: {{rest.address: 127.0.0.1, rest.port: {port}}}\n");
    let inside = folder(&more);
    let handle: Value = serde_json::from_str(&deploy(&inside, &["deployment_mode=cli"]).finish().code(0).stdout).unwrap();
    assert_eq!(handle["deployment_mode"], "cli");
    let by_default = deploy(&folder(&more), &[]).finish().one_error(3);
    assert!(by_default.contains(&format!("session: no job manager can be reached at 127.0.0.1:{port}")), "{by_default}");

    let before = files(inside.path());
    let wrong = deploy(&inside, &["deployment_mode=sesion"]).finish().one_error(2);
    let expected = "deployment_mode: there is no mode \"sesion\", did you mean \"session\"? (-D deployment_mode); modes: cli, kubernetes-application, session";
    assert_eq!(wrong, expected);
    assert_eq!(files(inside.path()), before, "nothing has been written");
    let beside = folder("deployment_mode: cli\n");
    let wrong = deploy(&beside, &[]).finish().one_error(2);
    assert_eq!(wrong, "words.yaml:14:1: \"deployment_mode\" is a key of deployment: write deployment: {deployment_mode: ...}");
}

#[test]
fn a_preview_says_what_would_be_done_and_does_nothing() {
    let inside = folder("");
    let before = files(inside.path());
    let cli = deploy(&inside, &["deployment_mode=cli"]).args(["--dry-run"]).finish().code(0).stdout;
    assert!(cli.contains("words.bundle\n  words.yaml (") && cli.contains("standpipe run words.yaml --plugin-path plugins"), "{cli}");
    let kubernetes = ["deployment_mode=kubernetes-application", "kubernetes.cluster.id=words", "kubernetes.config.file=no-such-file"];
    let text = deploy(&inside, &kubernetes).args(["--dry-run"]).finish().code(0).stdout;
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    let expected = ["Job", "ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "Service", "Service", "StatefulSet"];
    assert_eq!(kinds, expected, "{text}");
    assert_eq!(files(inside.path()), before, "nothing has been written, and no cluster asked");
    let port = free_port();
    let session = [format!("rest.port={port}"), "rest.address=127.0.0.1".to_owned()];
    let unreachable = deploy(&inside, &session.each_ref().map(String::as_str)).args(["--dry-run"]).finish().one_error(3);
    assert!(unreachable.contains("no job manager can be reached"), "{unreachable}");
    let handle = deploy(&inside, &["deployment_mode=cli"]).args(["--dry-run", "--handle", "x.json"]).finish().code(2);
    assert!(handle.stderr.contains("cannot be used with"), "{}", handle.stderr);
    let other = deploy(&inside, &["deployment_mode=background", "background.folder=jobs"]).plugin_path(example_plugin("background"));
    let refused = other.args(["--dry-run"]).finish().one_error(2);
    assert_eq!(refused, "background: this mode does not say beforehand what it would do");
}

#[test]
fn a2_a_mode_of_somebody_else_is_found_by_its_name() {
    let folder = folder("");
    let missing = deploy(&folder, &["deployment_mode=background"]).finish().one_error(2);
    assert!(
        missing.contains("there is no mode \"background\"") && missing.ends_with("modes: cli, kubernetes-application, session"),
        "{missing}"
    );
    let place = format!("background.folder={}", folder.path().display());
    let plugin = example_plugin("background");
    let run = deploy(&folder, &["deployment_mode=background", &place]).plugin_path(&plugin).args(["--handle", "job.json"]);
    let finished = run.finish().code(0);
    assert!(finished.stdout.is_empty(), "{finished:?}");
    let handle: Value = serde_json::from_str(&folder.read("job.json")).unwrap();
    assert_eq!(handle["deployment_mode"], "background");
    let waited = standpipe(["deployment", "wait", "--handle", "job.json"]).in_directory(folder.path()).plugin_path(&plugin).finish();
    assert_eq!(waited.code(0).stdout, "FINISHED\n");
    let job = Path::new(handle["job"].as_str().unwrap());
    assert_eq!(fs::read_to_string(job.join("out.jsonl")).unwrap(), "{\"word\":\"a\"}\n{\"word\":\"b\"}\n");
    let list = standpipe(["plugin", "list"]).plugin_path(&plugin).finish().code(0).stdout;
    for mode in ["cli", "session", "background"] {
        assert!(list.lines().any(|line| line.starts_with("deployment") && line.contains(mode)), "{list}");
    }
    let inspected = standpipe(["plugin", "inspect"]).args([&plugin]).finish().code(0).stdout;
    assert!(
        inspected.contains("deployment background: Runs the job in the background") && inspected.contains("background.folder"),
        "{inspected}"
    );
}

#[test]
fn a3_cli_writes_the_bundle_connects_to_nothing_and_gives_the_command_that_runs_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = folder("parallelism: 1\n");
    let settings = [
        "deployment_mode=cli",
        "rest.address=127.0.0.1",
        &format!("rest.port={port}"),
        "engine.batch_rows=77",
        "engine.checkpoint.interval=10s",
    ];
    let finished = deploy(&folder, &settings).finish().code(0);
    assert!(listener.accept().is_err(), "a connection was opened");
    let handle: Value = serde_json::from_str(&finished.stdout).unwrap();
    let command = handle["command"].as_str().unwrap();
    assert!(finished.stderr.contains(command), "{}", finished.stderr);

    let bundle = folder.at("words.bundle");
    let written = files(&bundle);
    let names: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(names, ["bundle.json", "data/in.jsonl", "plugins.lock", "plugins/libstandpipe_connector_file.so", "words.yaml"]);
    let description: Value = serde_json::from_slice(&written["bundle.json"]).unwrap();
    assert_eq!(description["configuration"], json!({"engine.batch_rows": "77", "engine.checkpoint.interval": "10s"}));
    for (file, path) in [(&description["pipeline"], "words.yaml"), (&description["resources"][0], "data/in.jsonl")] {
        let sum = Command::new("sha256sum").arg(bundle.join(path)).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        assert_eq!(file["hash"].as_str(), sum.split(' ').next().map(|sum| format!("sha256:{sum}")).as_deref(), "{path}");
    }
    // Once more: the same bytes.
    let _ = deploy(&folder, &settings).finish().code(0);
    assert_eq!(files(&bundle), written);

    let (is_good, stderr) = shell(command);
    assert!(is_good, "{command}\n{stderr}");
    assert_eq!(fs::read_to_string(bundle.join("out.jsonl")).unwrap(), "{\"word\":\"a\"}\n{\"word\":\"b\"}\n");
    assert!(bundle.join("checkpoints").is_dir(), "the setting checkpoint.interval has had its effect");
    // What the job has written is not removed.
    let before = files(&bundle);
    let line = deploy(&folder, &settings).finish().one_error(3);
    assert!(line.contains("words.bundle: ") && line.contains(" is no part of the bundle: move the folder"), "{line}");
    let line = deploy(&folder, &settings).args(["--dry-run"]).finish().one_error(3);
    assert!(line.contains(" is no part of the bundle: move the folder"), "{line}");
    assert_eq!(files(&bundle), before);
    folder.write("words.json", handle.to_string());
    let removed = standpipe(["deployment", "remove", "--handle", "words.json"]).in_directory(folder.path()).finish().code(0);
    assert!(
        removed.stderr.contains("words.bundle stays: ") && removed.stderr.contains(" were not laid out by `deploy`, such as "),
        "{removed:?}"
    );
    assert!(bundle.join("out.jsonl").exists() && bundle.join("checkpoints").is_dir() && !bundle.join("bundle.json").exists());
    let again = standpipe(["deployment", "remove", "--handle", "words.json"]).in_directory(folder.path()).finish().code(0);
    assert!(again.stderr.is_empty(), "{again:?}");
}

#[test]
fn where_a_job_goes_on_from_is_checked_before_anything_is_done() {
    let plain = folder("");
    for wrong in ["", "99999999999999999999999", "newest"] {
        let refused = deploy(&plain, &["deployment_mode=cli"]).args(["--dry-run", "--restore", wrong]).finish().code(2);
        assert!(refused.stderr.contains("expected latest, the number of a checkpoint, or the path of its manifest"), "{refused:?}");
    }
    let line = deploy(&plain, &["deployment_mode=cli"]).args(["--restore", "latest"]).finish().one_error(2);
    assert_eq!(line, "--restore needs checkpoints, and the pipeline takes none: add checkpoint: {interval: 10s}");
    assert_eq!(plain.names(), ["data", "words.yaml"]);
    let with = ["deployment_mode=cli", "engine.checkpoint.interval=10s"];
    let _ = deploy(&plain, &with).args(["--restore", "latest", "--dry-run"]).finish().code(0);
}

#[test]
fn a3_what_is_no_bundle_is_not_replaced_and_what_cannot_go_along_is_named() {
    let inside = folder("");
    fs::create_dir(inside.at("words.bundle")).unwrap();
    inside.write("words.bundle/mine", "precious");
    let line = deploy(&inside, &["deployment_mode=cli"]).finish().one_error(3);
    assert!(line.contains("words.bundle: is there and is no bundle"), "{line}");
    assert_eq!(inside.read("words.bundle/mine"), "precious");
    assert_eq!(inside.names(), ["data", "words.bundle", "words.yaml"]);
    let whole = folder("");
    let _ = deploy(&whole, &["deployment_mode=cli"]).args(["--resource", "."]).finish().code(0);
    let names: Vec<String> = files(&whole.at("words.bundle")).into_keys().collect();
    assert_eq!(names, ["bundle.json", "data/in.jsonl", "plugins.lock", "plugins/libstandpipe_connector_file.so", "words.yaml"]);
    for (path, code, expected) in [
        ("../x", 2, "--resource ../x: expected a path below the current directory"),
        ("/etc/hostname", 2, "--resource /etc/hostname: expected a path below"),
        ("nothing", 3, "--resource nothing: No such file"),
        ("large", 2, "the files of the bundle have 53"),
        ("data", 3, "--resource data/broken: No such file"),
    ] {
        let folder = folder("");
        match path {
            "large" => fs::File::create(folder.at("large")).unwrap().set_len(5 << 30).unwrap(),
            "data" => std::os::unix::fs::symlink("nowhere", folder.at("data/broken")).unwrap(),
            _ => {}
        }
        let deploy = standpipe(["deploy", "words.yaml", "-D", "deployment_mode=cli", "--resource", path]);
        let line = deploy.in_directory(folder.path()).finish().one_error(code);
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn a24_a_handle_that_nobody_reads_is_said_all_the_same() {
    let folder = folder("");
    let mut run = deploy(&folder, &["deployment_mode=cli"]).stdout_unread().start();
    run.close_stdout();
    let finished = run.wait().code(3);
    assert!(finished.stderr.contains("error: nobody reads standard output; the handle: {\"bundle\""), "{finished:?}");
}

#[test]
fn a5_an_unreachable_manager_is_named_with_host_and_port_within_the_timeout() {
    let folder = folder("");
    let port = free_port();
    let settings = ["rest.address=127.0.0.1".to_owned(), format!("rest.port={port}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let line = deploy(&folder, &settings).args(["--handle", "job.json"]).finish().one_error(3);
    assert!(line.contains(&format!("127.0.0.1:{port}")) && line.contains("refused"), "{line}");
    assert!(!folder.at("job.json").exists(), "there is no job, so there is no handle");
    let line = deploy(&folder, &["rest.address=no-such-host.invalid", "rest.port=8081"]).finish().one_error(3);
    assert!(line.contains("no-such-host.invalid:8081"), "{line}");
}

#[test]
fn a5_a_manager_behind_a_wall_is_given_up_after_the_connect_timeout() {
    // A listener whose queue is full takes no connection and refuses none.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the queue has no end");
    }
    let start = Instant::now();
    let line = deploy(&folder(""), &["rest.address=127.0.0.1", &format!("rest.port={}", address.port())]).finish().one_error(3);
    assert!(line.contains(&address.to_string()) && line.contains("timeout"), "{line}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// A server that answers every request with the same bytes.
fn answers(with: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(with.as_bytes());
        }
    });
    port
}

#[test]
fn a5_what_is_no_job_manager_is_named_as_such() {
    for (answer, code, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", 3, "is no job manager of this version"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", 3, "does not say which files it lacks"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 3, "does not know the files of the job: "),
        ("SSH-2.0-OpenSSH_9.9\r\n", 3, "no job manager can be reached at 127.0.0.1:"),
        ("", 3, "no job manager can be reached at 127.0.0.1:"),
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 26\r\nconnection: close\r\n\r\n{\"errors\": [\"no, thanks\"]}",
            2,
            "session: no, thanks",
        ),
    ] {
        let port = answers(answer);
        let line = deploy(&folder(""), &["rest.address=127.0.0.1", &format!("rest.port={port}")]).finish().one_error(code);
        assert!(line.contains(expected), "{answer:?}: {line}");
    }
}

/// A job of the mode `background`, by its handle.
fn background(pipeline: &str, settings: &[&str]) -> Folder {
    let folder = folder("");
    folder.write("words.yaml", pipeline);
    let place = format!("background.folder={}", folder.path().display());
    let run = deploy(&folder, &["deployment_mode=background", &place]).plugin_path(example_plugin("background"));
    let _ = defined(run, settings).args(["--handle", "job.json"]).finish().code(0);
    folder
}

fn job(command: &str, folder: &Folder) -> Run {
    let run = standpipe(["deployment", command, "--handle", "job.json"]).in_directory(folder.path());
    run.plugin_path(example_plugin("background"))
}

#[test]
fn a24_a_handle_outlives_its_client_and_tells_the_end_with_its_cause() {
    let broken = PIPELINE.replace("data/in.jsonl", "data/missing.jsonl");
    let failed = background(&broken, &["engine.checkpoint.interval=10s"]);
    let waited = job("wait", &failed).finish().code(1);
    assert!(waited.stdout.starts_with("FAILED: ") && waited.stdout.contains("missing.jsonl"), "{waited:?}");
    assert!(waited.stderr.starts_with("error: the job failed: "), "{waited:?}");
    let status: Value = serde_json::from_str(&job("status", &failed).args(["--format", "json"]).finish().code(0).stdout).unwrap();
    assert_eq!(status["state"], "FAILED");
    assert!(status["cause"].as_str().unwrap().contains("missing.jsonl"), "{status}");
    assert!(job("logs", &failed).finish().code(0).stdout.contains("missing.jsonl"));
    assert!(job("stop", &failed).finish().one_error(2).contains("background: this mode takes no savepoints"));
    let handle: Value = serde_json::from_str(&failed.read("job.json")).unwrap();
    let folder = Path::new(handle["job"].as_str().unwrap());
    assert!(folder.join("checkpoints").is_dir(), "the engine's setting has come through");
    let _ = job("remove", &failed).finish().code(0);
    assert!(job("status", &failed).finish().one_error(2).contains("the handle has no folder of a job"));
}

#[test]
fn a24_a_job_is_cancelled_by_its_handle() {
    let endless = "name: endless
sources:
  numbers: {connector: generator, with: {rate: 10, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: file, with: {path: out.jsonl}, format: json}
";
    let folder = background(endless, &[]);
    assert_eq!(job("status", &folder).finish().code(0).stdout, "RUNNING\n");
    let late = job("wait", &folder).args(["--timeout", "100ms"]).finish().code(1);
    assert_eq!((late.stdout.as_str(), late.stderr.as_str()), ("RUNNING\n", "error: the job has not ended: it is RUNNING\n"));
    let handle: Value = serde_json::from_str(&folder.read("job.json")).unwrap();
    let written = Path::new(handle["job"].as_str().unwrap()).join("out.jsonl.inprogress");
    standpipe_tests::wait_until("the job writes", Duration::from_secs(30), || written.metadata().is_ok_and(|file| file.len() > 0));
    assert_eq!(job("cancel", &folder).finish().code(0).stdout, "CANCELED\n");
    assert_eq!(job("wait", &folder).finish().code(0).stdout, "CANCELED\n");
    assert_eq!(job("cancel", &folder).finish().code(0).stdout, "CANCELED\n", "once more changes nothing");
}

#[test]
fn a24_what_is_no_handle_is_named() {
    let folder = Folder::new();
    folder.write("no.json", "[]");
    folder.write("nameless.json", "{}");
    folder.write("other.json", "{\"deployment_mode\": \"moon\"}");
    folder.write(
        "session.json",
        "{\"deployment_mode\": \"session\", \"jobid\": \"../x\", \"rest.address\": \"127.0.0.1\", \"rest.port\": 1}",
    );
    folder.write("cli.json", "{\"deployment_mode\": \"cli\", \"command\": \"cd x && standpipe run y\"}");
    for (handle, code, expected) in [
        ("gone.json", 3, "--handle gone.json: No such file"),
        ("no.json", 2, "--handle no.json: no JSON object: "),
        ("nameless.json", 2, "nameless.json: no handle: it does not name its deployment_mode"),
        ("other.json", 2, "deployment_mode: there is no mode \"moon\" (other.json); modes: cli, kubernetes-application, session"),
        ("session.json", 2, "session: jobid: the handle has no id of 32 hexadecimal digits"),
        ("cli.json", 2, "cli: nothing was submitted, so nothing is known of the job"),
    ] {
        let line = standpipe(["deployment", "status", "--handle", handle]).in_directory(folder.path()).finish().one_error(code);
        assert!(line.starts_with(expected), "{line}");
    }
    let lost = standpipe(["deployment", "status", "--handle", "-"]).in_directory(folder.path());
    let port = free_port();
    let handle = json!({"deployment_mode": "session", "jobid": "0".repeat(32), "rest.address": "127.0.0.1", "rest.port": port});
    let line = lost.stdin(handle.to_string()).finish().one_error(3);
    assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
}

#[test]
fn a24_a_second_ctrl_c_leaves_no_empty_handle() {
    let folder = folder("");
    // It takes connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("rest.port={}", listener.local_addr().unwrap().port());
    let mut run = deploy(&folder, &["deployment_mode=session", "rest.address=127.0.0.1", &port]).args(["--handle", "words.json"]).start();
    let (_asks, _) = listener.accept().unwrap();
    assert_eq!(folder.read("words.json"), "");
    run.signal(Signal::INT);
    run.wait_until("that it has heard", Duration::from_secs(60), |run| run.stderr().contains("a second signal ends at once"));
    run.signal(Signal::INT);
    _ = run.wait().code(130);
    assert!(!folder.at("words.json").exists());
}

#[test]
fn a24_a_handle_is_never_overwritten() {
    let folder = folder("");
    folder.write("job.json", "{\"deployment_mode\": \"session\"}");
    let line = deploy(&folder, &["deployment_mode=cli"]).args(["--handle", "job.json"]).finish().one_error(2);
    assert!(line.starts_with("--handle job.json: it is there already"), "{line}");
    assert!(!folder.at("words.bundle").exists(), "nothing was submitted");
    assert_eq!(folder.read("job.json"), "{\"deployment_mode\": \"session\"}");
}
