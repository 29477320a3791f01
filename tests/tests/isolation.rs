//! `isolation: process`: a plugin in processes of its own gives what it gives in the job's, and whatever ends its process, or never ends in it, is an error of its node, from which the
//! restart strategy goes on. No process is left behind by anybody.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;
#[path = "../../plugins/transforms/http-enrich/tests/server/mod.rs"]
mod server;

use cluster_support::Cluster;
use serde_json::{Value, json};
use server::Server;
use standpipe_tests::{
    Folder, Run, Running, Seen, Signal, example_plugin, fixture_plugin, has_ended, plugin_processes, processes, read_rows, signal,
    standpipe, wait_until,
};
use std::{
    fs,
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
const APART: &str = "process";
/// How long a question waits for another one.
const ALONE: Duration = Duration::from_millis(100);

const WORDS: &str = "
name: words
engine: {batch_rows: 700}
sources:
  lines: {connector: file, with: {path: \"in-*.txt\"}, format: raw}
transforms:
  words: {input: lines, transform: split-words, with: {column: value}}
sinks:
  out: {input: words, connector: file, with: {path: out.jsonl}, format: json}
";

fn words(folder: &Folder) -> Run {
    folder.write("words.yaml", WORDS);
    for file in 0..2 {
        let line = |n: usize| format!("line {n} of file {file} has its größe, and \u{1f600} {}", "word ".repeat(n % 9));
        folder.write(&format!("in-{file}.txt"), (0..3000).map(line).collect::<Vec<_>>().join("\n"));
    }
    standpipe(["run", "words.yaml", "--quiet"]).in_directory(folder.path())
}

#[test]
fn what_comes_out_is_the_same_wherever_the_plugins_run() {
    let here = Folder::new();
    words(&here).finish().success();
    let expected = fs::read_to_string(here.at("out.jsonl")).unwrap();
    assert!(expected.lines().count() > 50_000, "{} words", expected.lines().count());
    let all = ["sources.lines", "transforms.words", "sinks.out"];
    for apart in [&all[..1], &all[1..2], &all[2..], &all[..]] {
        let folder = Folder::new();
        let run = apart.iter().fold(words(&folder), |run, node| run.set(&format!("{node}.isolation"), APART));
        let finished = run.finish().code(0);
        assert!(finished.stderr.is_empty(), "{apart:?}: {}", finished.stderr);
        // Two files are read in turns.
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert!(sorted(&fs::read_to_string(folder.at("out.jsonl")).unwrap()) == sorted(&expected), "{apart:?}");
    }
}

#[test]
fn standard_input_and_output_are_those_of_the_job() {
    let folder = Folder::new();
    folder.write("copy.yaml", "name: copy\nsources: {in: {connector: file, with: {path: \"-\"}, format: raw, isolation: process}}\nsinks: {out: {input: in, connector: print, format: raw, isolation: process}}\n");
    let run = standpipe(["run", "copy.yaml", "--quiet"]).in_directory(folder.path()).stdin("one\ntwo\n").finish().code(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("one\ntwo\n", ""));
}

fn rooms(server: &Server, job: &str) -> String {
    format!(
        "name: rooms
{job}
sources:
  ticks: {{connector: generator, with: {{count: 20000, fields: {{n: {{kind: sequence}}, k: {{kind: uniform-int, min: 0, max: 9}}}}}}}}
transforms:
  rooms:
    input: ticks
    transform: http-enrich
    with: {{url: \"{}\", keys: [k], columns: {{room: string}}, headers: {{x-token: \"${{TOKEN}}\"}}}}
    async: {{capacity: 8, order: any}}
    isolation: process
sinks:
  out: {{input: rooms, connector: file, with: {{path: out.jsonl}}, format: json}}
",
        server.url
    )
}

fn room(keys: &[Value]) -> server::Answer {
    let rooms = keys.iter().map(|key| json!({"room": format!("room {}", key["k"])}));
    (200, Value::Array(rooms.collect()).to_string())
}

/// Calls that end later, on threads of the plugin, with a secret that is the host's.
#[test]
fn an_asynchronous_transform_has_its_calls_under_way() {
    let folder = Folder::new();
    let open = (Mutex::new(0), Condvar::new());
    let server = Server::start(move |_, keys| {
        // One is answered when there is another one, which so overtakes it; before a checkpoint there may be no other.
        let mut under_way = open.0.lock().unwrap();
        *under_way += 1;
        open.1.notify_all();
        *open.1.wait_timeout_while(under_way, ALONE, |under_way| *under_way < 2).unwrap().0 -= 1;
        room(keys)
    });
    folder.write("rooms.yaml", rooms(&server, "checkpoint: {interval: 50ms, dir: ckpt}\nengine: {batch_rows: 200}"));
    let run = standpipe(["run", "rooms.yaml", "--quiet"]).in_directory(folder.path()).env("TOKEN", "open sesame");
    run.finish().success();
    let mut rows = read_rows(folder.at("out.jsonl"));
    rows.sort_by_key(|row| row["n"].as_i64());
    assert_eq!(rows.len(), 20_000);
    for (n, row) in rows.iter().enumerate() {
        assert_eq!((&row["n"], &row["room"]), (&json!(n), &json!(format!("room {}", row["k"]))), "row {n}");
    }
    assert!(server.seen.most.load(std::sync::atomic::Ordering::SeqCst) > 1, "one at a time");
    let questions = server.seen.questions.lock().unwrap();
    assert!(questions[0].0.to_lowercase().contains("x-token: open sesame"), "{}", questions[0].0);
}

const TROUBLED: &str = "name: troubled
sources: {numbers: {connector: bad, with: {pause: 1}}}
transforms: {passed: {input: numbers, transform: bad, with: {}}}
sinks: {out: {input: passed, connector: bad, with: {}}}
";

/// Three nodes of the fixture plugin, one of which is apart and told to misbehave.
fn troubled(folder: &Folder, node: &str, trouble: &str, isolation: &str) -> Run {
    folder.write("troubled.yaml", TROUBLED);
    let run = standpipe(["run", "troubled.yaml", "--quiet"]).in_directory(folder.path()).plugin_path(fixture_plugin());
    run.set(&format!("{node}.with"), trouble).set(&format!("{node}.isolation"), isolation)
}

fn error(node: &str, call: &str, how: &str, isolation: &str) -> String {
    let folder = Folder::new();
    let trouble = format!("{{at: {call}, how: {how}, after: 2, pause: 1}}");
    let trouble = if ["open", "discover"].contains(&call) { trouble.replace("after: 2, ", "") } else { trouble };
    let finished = troubled(&folder, node, &trouble, isolation).finish().code(1);
    let mut errors = finished.stderr.lines().filter_map(|line| line.strip_prefix("error: "));
    let (first, other) = (errors.next(), errors.next());
    assert!(other.is_none(), "{}", finished.stderr);
    first.unwrap_or_else(|| panic!("no error: {}", finished.stderr)).to_owned()
}

/// The beginning of what is said of a process that is gone.
fn gone(node: &str) -> String {
    format!("{node}: bad: the process of the plugin standpipe-tests (libfixture_plugin.so 0.1.0) ")
}

#[test]
fn whatever_ends_a_process_is_an_error_of_its_node() {
    for (node, call, how, what) in [
        ("sources.numbers", "poll", "segv", "was killed by signal 11 (SIGSEGV)"),
        ("sources.numbers", "discover", "exit", "has ended by itself, with exit code 7"),
        ("transforms.passed", "open", "abort", "was killed by signal 6 (SIGABRT)"),
        ("transforms.passed", "process", "exit", "has ended by itself, with exit code 7"),
        ("transforms.passed", "process", "segv", "was killed by signal 11 (SIGSEGV)"),
        ("transforms.passed", "process", "complain", "was killed by signal 6 (SIGABRT); it has said last: \"as asked, the last words\""),
        ("sinks.out", "write", "abort", "was killed by signal 6 (SIGABRT)"),
        ("sinks.out", "open", "exit", "has ended by itself, with exit code 7"),
    ] {
        let line = error(node, call, how, APART);
        assert_eq!(line, format!("{}{what}", gone(node)), "{node} {call} {how}");
    }
    let line = error("transforms.passed", "process", "overflow", APART);
    assert!(line.starts_with(&format!("{}was killed by signal 6 (SIGABRT); it has said last: ", gone("transforms.passed"))), "{line}");
}

#[test]
fn errors_and_panics_are_told_as_those_of_a_plugin_that_is_here() {
    for (node, call) in [("sources.numbers", "poll"), ("transforms.passed", "process"), ("sinks.out", "write"), ("sinks.out", "open")] {
        for how in ["panic", "fail", "external"] {
            // What is missing at the start has another exit code.
            if (call, how) != ("open", "external") {
                assert_eq!(error(node, call, how, APART), error(node, call, how, "none"));
            }
        }
    }
}

#[test]
fn a_process_has_no_more_memory_than_it_may_have() {
    let begin = Instant::now();
    let line = error("transforms.passed", "process", "swell", "{mode: process, memory: 200MiB}");
    let (begins, ends) =
        (format!("{}had ", gone("transforms.passed")), " MiB of memory, more than the limit of its isolation, 200 MiB, and was killed");
    assert!(line.starts_with(&begins) && line.ends_with(ends), "{line}");
    assert!(begin.elapsed() < PATIENCE);
}

/// Only what is named, and only so: the file that is written is not there yet, so its folder is named.
#[test]
fn a_process_uses_no_other_files_than_it_may() {
    let folder = Folder::new();
    fs::create_dir(folder.at("results")).unwrap();
    let run = |sandbox: &str| {
        let isolation = format!("{{mode: process, sandbox: {sandbox}}}");
        words(&folder).set("sinks.out.with.path", "results/out.jsonl").set("sinks.out.isolation", isolation).finish()
    };
    let (finished, out) = (run("{write: [results]}"), folder.at("results/out.jsonl"));
    if finished.stderr.contains("Landlock") {
        return standpipe_tests::skip("Landlock");
    }
    assert!(read_rows(&out).len() > 50_000 && finished.code == Some(0), "{}", finished.stderr);
    fs::remove_file(&out).unwrap();
    for (sandbox, why) in
        [("{}", "Permission denied"), ("{read: [results]}", "Permission denied"), ("{write: [nowhere]}", "No such file or directory")]
    {
        let line = run(sandbox).one_error(3);
        assert!(line.starts_with("sinks.out: file: ") && line.contains(why), "{sandbox}: {line}");
        assert!(!out.exists());
    }
}

const COPY: &str = "
name: copy
checkpoint: {interval: 50ms, dir: ckpt}
restart: {strategy: fixed-delay, attempts: 20, delay: 20ms}
sources:
  ticks: {connector: generator, with: {rate: 20000, count: 40000, fields: {n: {kind: sequence}}}, isolation: process}
sinks:
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json, isolation: process}
";

fn copy(folder: &Folder, sink: &str) -> Run {
    folder.write("copy.yaml", COPY.replace("connector: file, with: {path: all.jsonl}", sink));
    standpipe(["run", "copy.yaml", "--log-level", "info"]).in_directory(folder.path()).timeout(2 * PATIENCE)
}

/// A plugin's process of a node; there is one at the end of this.
fn process_of(run: &mut Running, node: &str) -> i32 {
    let mut found = Vec::new();
    run.wait_until("a plugin's process", PATIENCE, |run| {
        found = plugin_processes(run.id(), node);
        !found.is_empty()
    });
    found[0]
}

fn checkpoints(run: &Running) -> usize {
    run.stderr().matches("is durable after").count()
}

#[test]
fn rows_are_there_once_though_processes_are_killed_in_the_middle() {
    for (sink, is_handed_over) in
        [("connector: file, with: {path: all.jsonl}", false), ("connector: handover, with: {folder: files}", true)]
    {
        let folder = Folder::new();
        let mut run = copy(&folder, sink).plugin_path(example_plugin("handover")).start();
        for (killed, node) in ["sources.ticks", "sinks.all", "sinks.all", "sources.ticks"].into_iter().enumerate() {
            let before = checkpoints(&run);
            run.wait_until("checkpoints", PATIENCE, |run| checkpoints(run) >= before + 2);
            assert!(signal(process_of(&mut run, node), Signal::KILL));
            run.wait_until("the restart", PATIENCE, |run| run.stderr().matches("copy: goes on from checkpoint ").count() > killed);
        }
        let finished = run.wait().code(0);
        let said = "was killed by signal 9 (SIGKILL): by somebody, or by the kernel for want of memory";
        assert_eq!(
            finished.stderr.lines().filter(|line| line.starts_with("error: ") && line.ends_with(said)).count(),
            4,
            "{}",
            finished.stderr
        );
        let seen = if is_handed_over {
            let files = fs::read_dir(folder.at("files")).unwrap().map(|entry| entry.unwrap().path());
            let seen = files.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
            seen.fold(Seen::none_of(40_000), Seen::and_file)
        } else {
            Seen::none_of(40_000).and_file(folder.at("all.jsonl"))
        };
        seen.assert_once(sink);
    }
}

#[test]
fn a_plugin_that_crashes_again_and_again_is_given_up() {
    let folder = Folder::new();
    let run = troubled(&folder, "transforms.passed", "{at: process, how: segv}", APART);
    let run = run.set("restart", "{strategy: fixed-delay, attempts: 2, delay: 10ms}").finish().code(1);
    assert_eq!(run.stderr.matches("was killed by signal 11 (SIGSEGV)").count(), 3, "{}", run.stderr);
    assert!(run.stderr.contains("troubled: it has failed; it has been started 3 times and is given up"), "{}", run.stderr);
}

/// All processes of plugins below a run; there are as many, soon.
fn all_of(run: &mut Running, count: usize) -> Vec<i32> {
    let mut all = Vec::new();
    run.wait_until("the plugins' processes", PATIENCE, |run| {
        all = plugin_processes(run.id(), "");
        all.len() == count
    });
    all
}

fn assert_gone(all: &[i32]) {
    wait_until("the end of the plugins' processes", PATIENCE, || all.iter().all(|id| has_ended(*id)));
}

#[test]
fn processes_of_plugins_die_with_the_job_however_it_ends() {
    for whom in ["supervisor", "job"] {
        let folder = Folder::new();
        let mut run = copy(&folder, "connector: file, with: {path: all.jsonl}").start();
        // An enumerator, which ends when it has found all; a reader; a sink.
        run.wait_until("a checkpoint", PATIENCE, |run| checkpoints(run) > 0);
        let all = all_of(&mut run, 2);
        if whom == "supervisor" {
            run.signal(Signal::KILL);
            _ = run.wait();
            assert_gone(&all);
        } else {
            assert!(signal(processes(&run)[&0], Signal::KILL));
            assert_gone(&all);
            run.wait_until("the restart", PATIENCE, |run| run.stderr().contains("copy: goes on from checkpoint "));
            run.wait().success();
        }
    }
}

#[test]
fn a_signal_that_comes_to_all_stops_the_job_cleanly() {
    let folder = Folder::new();
    let mut run = copy(&folder, "connector: file, with: {path: all.jsonl}").set("restart", "{strategy: none}").start();
    run.wait_until("a checkpoint", PATIENCE, |run| checkpoints(run) > 0);
    let all = all_of(&mut run, 2);
    // A terminal's Ctrl-C comes to all of its processes; so does what ends a unit of systemd.
    for id in &all {
        assert!(signal(*id, Signal::INT) && signal(*id, Signal::TERM));
    }
    run.signal(Signal::INT);
    let stopped = run.wait().code(0);
    assert!(stopped.stderr.contains("copy: stopped in "), "{}", stopped.stderr);
    assert_gone(&all);
    copy(&folder, "connector: file, with: {path: all.jsonl}").args(["--restore", "latest"]).finish().success();
    Seen::none_of(40_000).and_file(folder.at("all.jsonl")).assert_once("all.jsonl");
}

#[test]
fn a_call_that_never_comes_back_holds_nothing_up_when_the_job_is_over() {
    let folder = Folder::new();
    folder.write("troubled.yaml", TROUBLED.replace("transforms: {", "transforms: {aside: {input: numbers, transform: bad, with: {at: process, how: block, mark: blocked}, isolation: process}, ").replace("sinks: {", "sinks: {drain: {input: aside, connector: bad, with: {}}, "));
    let run = standpipe(["run", "troubled.yaml", "--quiet"]).in_directory(folder.path()).plugin_path(fixture_plugin());
    let mut run = run.set("transforms.passed.with", "{at: process, how: fail, after: 400}").start();
    run.wait_until("the call that never comes back", PATIENCE, |_| folder.at("blocked").exists());
    let all = all_of(&mut run, 1);
    let finished = run.wait().code(1);
    assert!(finished.stderr.contains("error: transforms.passed: bad: as asked, in process"), "{}", finished.stderr);
    assert_gone(&all);
    // And where a user has no patience.
    let mut run = troubled(&folder, "sinks.out", "{at: write, how: block, mark: stuck}", APART).start();
    run.wait_until("the call that never comes back", PATIENCE, |_| folder.at("stuck").exists());
    let all = all_of(&mut run, 1);
    run.signal(Signal::INT);
    run.wait_until("the first signal is understood", PATIENCE, |run| run.stderr().contains("a second signal ends at once"));
    run.signal(Signal::INT);
    _ = run.wait().code(130);
    assert_gone(&all);
}

#[test]
fn a_cluster_runs_plugins_apart_as_well() {
    let cluster = Cluster::start();
    let _one = cluster.task_manager("one", 1);
    let pipeline = COPY.replace("dir: ckpt", "dir: DIR/ckpt").replace("all.jsonl", "DIR/all.jsonl");
    let id = cluster.submit(&cluster.bundle(&pipeline, 1));
    cluster.taken(&id, 2);
    let node = "sinks.all";
    let mut found = Vec::new();
    wait_until("a plugin's process", PATIENCE, || {
        found = plugin_processes(std::process::id(), node);
        !found.is_empty()
    });
    let cluster_folder = cluster.folder.path().to_str().unwrap().to_owned();
    let ours = found
        .into_iter()
        .find(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd.to_str().unwrap().starts_with(&cluster_folder)));
    assert!(signal(ours.unwrap(), Signal::KILL));
    cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1);
    cluster.state(&id, "FINISHED");
    let why = cluster.exceptions(&id).join("\n");
    assert!(why.contains("sinks.all: file: the process of the plugin ") && why.contains("was killed by signal 9 (SIGKILL)"), "{why}");
    Seen::none_of(40_000).and_file(cluster.folder.at("all.jsonl")).assert_once("all.jsonl");
}

#[test]
fn explain_says_what_runs_apart() {
    let folder = Folder::new();
    folder.write("words.yaml", WORDS);
    let explain = |arguments: &[&str]| {
        let run = standpipe(["explain", "words.yaml"]).args(arguments).in_directory(folder.path());
        run.set("transforms.words.isolation", "{mode: process, memory: 512MiB}").set("sinks.out.isolation", APART).finish().code(0).stdout
    };
    let text = explain(&[]);
    assert!(text.contains("\n  in a process of its own, at most 512MiB of memory\n"), "{text}");
    assert_eq!(text.matches("in a process of its own").count(), 2, "{text}");
    let json: Value = serde_json::from_str(&explain(&["--format", "json"])).unwrap();
    let isolation: Vec<&Value> = json["nodes"].as_array().unwrap().iter().map(|node| &node["isolation"]).collect();
    assert!(
        isolation.contains(&&json!({"mode": "process", "memory": 512 << 20, "sandbox": null})) && isolation.contains(&&Value::Null),
        "{isolation:?}"
    );
}

#[test]
fn a_process_of_a_plugin_is_nothing_to_start_by_hand() {
    let line = standpipe(["plugin-process", "--parent", "1", "--of", "x"]).finish().one_error(1);
    assert_eq!(line, "plugin-process is what standpipe starts by itself for a node with `isolation: process`");
}
