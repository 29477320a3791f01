//! Rows of any node of a running job, as they pass: `job collect --node` on this machine, in one process or several, and on a session cluster with several task managers, by the
//! command line, by handle and by REST.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;

use cluster_support::{COUNTS, Cluster};
use serde_json::Value;
use standpipe_tests::{Finished, Folder, Run, Running, Signal, read_rows, standpipe};
use std::{collections::BTreeSet, fs, time::Duration};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// Splits count apart: the hundreds of a number tell nothing, its remainder by the splits does.
const COUNTS_FOR_EVER: &str = "
name: counts
parallelism: 2
sources:
  ticks:
    connector: generator
    with: {rate: 4000, splits: 4, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 0s}
transforms:
  even: {input: ticks, filter: \"n % 2 = 0\"}
  doubled: {input: even, select: {k: k, twice: \"n * 2\", name: \"concat('number ', cast(n as string))\"}}
  stats: {input: ticks, key_by: [k], window: {tumbling: 200ms}, aggregate: {n: \"count(*)\"}}
  totals: {input: ticks, key_by: [k], aggregate: {n: \"count(*)\"}, emit: changes}
sinks:
  all: {input: doubled, connector: file, with: {path: \"DIR/all-{subtask}.jsonl\"}, format: json}
  windows: {input: stats, connector: file, with: {path: \"DIR/windows-{subtask}.jsonl\"}, format: json}
  latest: {input: totals, connector: collect, parallelism: 1}
";

/// Sockets of one test are not seen by others.
fn of(folder: &Folder, run: Run) -> Run {
    run.in_directory(folder.path()).env("STANDPIPE_RUN_DIR", folder.at("run")).timeout(PATIENCE)
}

fn start(folder: &Folder, more: &str, arguments: &[&str]) -> Running {
    // What a sink `collect` does without a cluster is its own: it prints.
    let text = COUNTS_FOR_EVER
        .replace("DIR", folder.path().to_str().unwrap())
        .replace("connector: collect", "connector: file, with: {path: latest.jsonl}, format: json");
    folder.write("counts.yaml", format!("{text}{more}"));
    let mut run = of(folder, standpipe(["run", "counts.yaml", "--log-level", "info"]).args(arguments)).timeout(3 * PATIENCE).start();
    run.wait_until("rows", PATIENCE, |_| has_rows(folder));
    run
}

/// Whether the job runs and has read something.
fn has_rows(folder: &Folder) -> bool {
    let shown = of(folder, standpipe(["job", "show", "counts", "--format", "json"])).finish();
    let status: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
    status["totals"]["rows_in"].as_u64() > Some(0)
}

fn collect(folder: &Folder, arguments: &[&str]) -> Finished {
    of(folder, standpipe(["job", "collect", "counts"]).args(arguments)).finish()
}

fn rows(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(row: &Value, column: &str) -> i64 {
    row[column].as_i64().unwrap_or_else(|| panic!("{row}"))
}

#[test]
fn every_node_of_a_job_here_is_seen() {
    let folder = Folder::new();
    let mut run = start(&folder, "", &["--quiet"]);
    let shown = |node: &str, limit: usize| {
        let found = rows(&collect(&folder, &["--node", node, "--limit", &limit.to_string(), "--format", "json"]).code(0));
        assert_eq!(found.len(), limit, "{node}");
        found
    };
    for node in ["ticks", "sources.ticks"] {
        let seen: BTreeSet<i64> = shown(node, 3_000).iter().map(|row| number(row, "n") % 2).collect();
        assert_eq!(seen.len(), 2, "{node}: before the filter");
    }
    assert!(shown("even", 500).iter().all(|row| number(row, "n") % 2 == 0));
    for node in ["doubled", "all", "sinks.all"] {
        assert!(
            shown(node, 500).iter().all(|row| number(row, "twice") % 4 == 0 && row["name"].as_str().unwrap().starts_with("number ")),
            "{node}"
        );
    }
    assert!(shown("stats", 20).iter().all(|row| number(row, "n") > 0 && row["window_end"].is_string()));
    let kinds: BTreeSet<String> = shown("totals", 50).iter().map(|row| row["op"].as_str().unwrap().to_owned()).collect();
    assert!(kinds.iter().all(|kind| ["+I", "+U"].contains(&kind.as_str())), "{kinds:?}");
    assert!(shown("sinks.all.encode", 1)[0]["value"].as_str().unwrap().contains("twice"));

    let table = collect(&folder, &["--node", "even", "--limit", "3"]).code(0).stdout;
    assert_eq!(
        (table.lines().count(), table.lines().next().map(|line| line.split_whitespace().collect::<Vec<_>>())),
        (4, Some(vec!["k", "n", "t"])),
        "{table}"
    );
    _ = collect(&folder, &["--node", "even", "--timeout", "300ms", "--format", "parquet", "--output", "even.parquet"]).code(0);
    assert!(fs::read(folder.at("even.parquet")).unwrap().starts_with(b"PAR1"));
    let unknown = collect(&folder, &["--node", "other", "--limit", "1"]).one_error(1);
    assert!(unknown.contains("the job has no node \"other\": it has sources.ticks, "), "{unknown}");
    let endless = collect(&folder, &["--node", "even"]).one_error(2);
    assert!(endless.contains("does not end by itself"), "{endless}");
    let nothing = collect(&folder, &["--limit", "1"]).one_error(2);
    assert!(nothing.contains("--node NAME: counts has sources.ticks"), "{nothing}");
    run.signal(Signal::INT);
    _ = run.wait().code(0);
}

#[test]
fn rows_of_all_processes_are_seen_and_of_one_that_is_started_again() {
    let restart = "restart: {strategy: fixed-delay, attempts: 9, delay: 100ms}\n";
    for (more, arguments) in [("", vec!["--processes", "2"]), (restart, vec![])] {
        let folder = Folder::new();
        let mut run = start(&folder, more, &arguments);
        // Numbers of a split have its remainder: with both processes all four splits are there.
        let found = collect(&folder, &["--node", "ticks", "--timeout", "1500ms", "--format", "json"]).code(0);
        let times: BTreeSet<i64> = rows(&found).iter().map(|row| number(row, "n") % 4).collect();
        assert_eq!(times.len(), 4, "{more}{arguments:?}");
        run.signal(Signal::INT);
        let ended = run.wait().code(0);
        assert!(!ended.stderr.contains("warning: `standpipe job`"), "{}", ended.stderr);
        let left: Vec<_> = fs::read_dir(folder.at("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn looks_that_have_what_they_wanted_leave_their_place_to_others() {
    let folder = Folder::new();
    let mut run = start(&folder, "", &["--quiet"]);
    // More than there are places, of which none would be free within ten seconds.
    std::thread::scope(|scope| {
        let looks = || (0..14).for_each(|_| drop(collect(&folder, &["--node", "ticks", "--limit", "1", "--format", "json"]).code(0)));
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(looks)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    run.signal(Signal::INT);
    _ = run.wait().code(0);
}

#[test]
fn who_looks_at_a_job_that_fails_hears_why() {
    for restart in ["", "restart: {strategy: fixed-delay, attempts: 1, delay: 100ms}\n"] {
        let folder = Folder::new();
        let text = "name: counts\nsources:\n  ticks: {connector: generator, with: {rate: 2000, count: 40000, fields: {n: {kind: sequence}}}}\ntransforms:\n  broken: {input: ticks, select: {x: \"1000 / (n - 6000)\"}}\nsinks:\n  all: {input: broken, connector: file, with: {path: all-0.jsonl}, format: json}\n";
        folder.write("counts.yaml", format!("{text}{restart}"));
        let mut run = of(&folder, standpipe(["run", "counts.yaml"])).start();
        run.wait_until("rows", PATIENCE, |_| has_rows(&folder));
        let look = collect(&folder, &["--node", "ticks", "--format", "csv", "--output", "ticks.csv"]).code(1).stderr;
        assert!(look.contains("error: the job failed behind these rows: "), "{restart}: {look}");
        assert_eq!(look.contains("rows are missing in between"), !restart.is_empty(), "{restart}: {look}");
        assert!(!folder.at("ticks.csv").exists(), "a file that looks whole");
        _ = run.wait().code(1);
    }
}

#[test]
fn who_looks_sees_the_last_rows_of_a_job_that_ends() {
    let folder = Folder::new();
    let text = "name: counts\nsources:\n  ticks: {connector: generator, with: {rate: 4000, count: 8000, fields: {n: {kind: sequence}}}}\nsinks:\n  all: {input: ticks, connector: file, with: {path: all-0.jsonl}, format: json}\n";
    folder.write("counts.yaml", text);
    let mut run = of(&folder, standpipe(["run", "counts.yaml"])).start();
    run.wait_until("rows", PATIENCE, |_| has_rows(&folder));
    // It ends by itself: neither a limit nor a time is needed.
    let seen: Vec<i64> =
        rows(&collect(&folder, &["--node", "ticks", "--format", "json"]).code(0)).iter().map(|row| number(row, "n")).collect();
    assert_eq!(seen.last(), Some(&7_999), "{} rows from {:?}", seen.len(), seen.first());
    assert_eq!(seen, (seen[0]..8_000).collect::<Vec<_>>());
    assert_eq!(read_rows(folder.at("all-0.jsonl")).len(), 8_000, "and the job has not waited for who looked");
    _ = run.wait().code(0);
}

#[test]
fn a_cluster_shows_rows_of_all_task_managers() {
    let cluster = Cluster::start();
    let (_one, _two) = (cluster.task_manager("one", 1), cluster.task_manager("two", 1));
    let id = cluster.submit(&cluster.bundle(COUNTS_FOR_EVER, 2));
    cluster.state(&id, "RUNNING");
    let url = format!("http://127.0.0.1:{}", cluster.port);
    let collect =
        |arguments: &[&str]| standpipe(["job", "collect", "counts", "--jobmanager", &url]).args(arguments).timeout(PATIENCE).finish();
    let splits = |found: &[Value]| found.iter().map(|row| number(row, "n") % 4).collect::<BTreeSet<i64>>();
    let found = rows(&collect(&["--node", "ticks", "--timeout", "2s", "--format", "json"]).code(0));
    assert_eq!(splits(&found).len(), 4, "{} rows", found.len());
    let limited = rows(&collect(&["--node", "even", "--limit", "700", "--format", "json"]).code(0));
    assert!(limited.len() == 700 && limited.iter().all(|row| number(row, "n") % 2 == 0));
    // A sink `collect` has all its rows, from the first, as ever.
    let kept = rows(&collect(&["--limit", "10", "--format", "json"]).code(0));
    assert!(kept.len() == 10 && number(&kept[0], "n") < 1_000, "{kept:?}");
    cluster.folder.write(
        "handle.json",
        format!(
            "{{\"deployment_mode\": \"session\", \"jobid\": \"{id}\", \"rest.address\": \"127.0.0.1\", \"rest.port\": {}}}",
            cluster.port
        ),
    );
    let by_handle = standpipe(["deployment", "collect", "--node", "stats", "--limit", "5", "--format", "csv", "--handle", "handle.json"]);
    let by_handle = by_handle.in_directory(cluster.folder.path()).timeout(PATIENCE).finish().code(0).stdout;
    assert!(by_handle.lines().count() == 6 && by_handle.starts_with("k,window_start,window_end,n\n"), "{by_handle}");
    let endless = collect(&["--node", "even"]).one_error(2);
    assert!(endless.contains("does not end by itself"), "{endless}");

    let path = |query: &str| format!("/v1/jobs/{id}/collect?{query}");
    let table = cluster.get(&path("node=doubled&limit=3&format=table"));
    let names: Vec<&str> = table["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!((names, table["rows"].as_array().unwrap().len()), (vec!["k", "twice", "name"], 3), "{table}");
    // By one name looks go on where the last one has ended, with the newest rows.
    let tap = "0123456789abcdef0123456789abcdef";
    let newest = |_| cluster.get(&path(&format!("node=ticks&limit=5&timeout=2000&newest=true&tap={tap}&format=table")));
    let looks: Vec<Value> = (0..3).map(newest).collect();
    let last =
        |look: &Value| look["rows"].as_array().unwrap().iter().map(|row| row[1].as_str().unwrap().parse::<i64>().unwrap()).max().unwrap();
    assert!(last(&looks[0]) < last(&looks[2]), "{looks:?}");
    assert!(looks.iter().any(|look| look["dropped"].as_u64() > Some(0)), "4,000 rows a second are more than five a look: {looks:?}");
    // Each process has its part of an answer, also where less is wanted than passes: none is thrown away for another's.
    let part = |_| cluster.get(&path("node=ticks&limit=400&timeout=5000&tap=ffffffffffffffffffffffffffffffff&format=table"));
    let parts: Vec<Value> = (0..4).map(part).collect();
    let seen =
        parts.iter().flat_map(|part| part["rows"].as_array().unwrap()).map(|row| row[1].as_str().unwrap().parse::<i64>().unwrap() % 4);
    assert_eq!(seen.collect::<BTreeSet<i64>>().len(), 4, "both task managers");
    let opened: Vec<bool> = parts.iter().map(|part| part["opened"].as_bool().unwrap()).collect();
    assert!(opened[0] && !opened[3], "{opened:?}");
    // At once: a tap that nobody asks for ten seconds is gone, and its name is free.
    for (query, status, why) in [
        ("node=even&limit=1&tap=ffffffffffffffffffffffffffffffff", 400, "this tap looks at \\\"ticks\\\""),
        ("node=ticks&limit=1&newest=true&tap=ffffffffffffffffffffffffffffffff", 400, "this tap looks at newest rows or at all"),
        ("node=other&limit=1", 404, "no node \\\"other\\\": it has sources.ticks"),
        ("node=even", 400, "does not end by itself"),
        ("node=even&limit=0", 400, "expected 1 to 100000"),
        ("node=even&limit=1&tap=x", 400, "32 hexadecimal digits"),
        ("node=even&limit=1&format=xml", 400, "xml"),
        ("node=even.late&limit=1", 400, "no node"),
        ("limit=1", 400, "node"),
    ] {
        let (found, said) = cluster.http("GET", &path(query), b"");
        assert_eq!(found, status, "{query}: {said}");
        assert!(said.to_string().contains(why), "{query}: {said}");
    }
    // Those who have what they wanted leave their places to others.
    (0..40).for_each(|_| assert_eq!(cluster.get(&path("node=ticks&limit=1&format=table"))["rows"].as_array().unwrap().len(), 1));
    assert_eq!(cluster.http("PATCH", &format!("/jobs/{id}?mode=cancel"), b"{}").0, 202);
    cluster.state(&id, "CANCELED");
    let (gone, said) = cluster.http("GET", &path("node=even&limit=1"), b"");
    assert!(gone == 410 && said.to_string().contains("it is CANCELED"), "{said}");
    let over =
        standpipe(["job", "collect", &id, "--jobmanager", &url, "--node", "even", "--limit", "1"]).timeout(PATIENCE).finish().one_error(1);
    assert!(over.contains("before it has given rows"), "{over}");
}

#[test]
fn a_look_goes_on_when_the_job_is_started_elsewhere() {
    let cluster = Cluster::start();
    let mut one = cluster.task_manager("one", 1);
    let restart = "restart: {strategy: fixed-delay, attempts: 9, delay: 100ms}\ncheckpoint: {interval: 100ms, dir: DIR/ckpt}\n";
    let id = cluster.submit(&cluster.bundle(&format!("{}{restart}", COUNTS.replace("count: 40000", "count: 100000000")), 1));
    cluster.state(&id, "RUNNING");
    let url = format!("http://127.0.0.1:{}", cluster.port);
    let look = standpipe(["job", "collect", "counts", "--jobmanager", &url, "--node", "ticks", "--limit", "30000", "--format", "json"]);
    let mut look = look.timeout(2 * PATIENCE).start();
    look.wait_until("rows", PATIENCE, |run| run.stdout().lines().count() > 100);
    one.signal(Signal::KILL);
    let _two = cluster.task_manager("two", 1);
    let looked = look.wait().code(0);
    assert_eq!(looked.stdout.lines().count(), 30_000);
    assert!(looked.stderr.contains("rows are missing in between"), "{}", looked.stderr);
}
