//! `state query`: what a checkpoint holds, in SQL, is what the job had computed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Finished, Folder, Row, Signal, read_rows, rows, standpipe};
use std::{collections::BTreeMap, fs, time::Duration};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

const JOB: &str = "
name: counts
checkpoint: {interval: 50ms, dir: ckpt}
sources:
  ticks:
    connector: generator
    with: {rate: 20000, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t}
transforms:
  windows: {input: ticks, key_by: [k], window: {tumbling: 1h}, aggregate: {c: \"count(*)\", m: \"avg(n)\"}}
  totals: {input: ticks, key_by: [k], aggregate: {s: \"sum(n)\"}, emit: each}
  changing: {input: ticks, select: {value: \"k\", odd: \"n % 3 > 0\"}}
  runs: {input: changing, key_by: [value], transform: run-length, with: {column: odd}}
sinks:
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json}
  the-windows: {input: windows, connector: file, with: {path: windows.jsonl}, format: json}
  sums: {input: totals, connector: file, with: {path: sums.jsonl}, format: json}
  lengths: {input: runs, connector: file, with: {path: runs.jsonl}, format: json}
";

/// A job that was stopped on three subtasks: its last checkpoint covers what is in its files, and its windows are open.
fn stopped() -> Folder {
    let folder = Folder::new();
    folder.write("counts.yaml", JOB);
    let mut run = standpipe(["run", "counts.yaml", "-p", "3", "--log-level", "info"]).in_directory(folder.path()).start();
    run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= 5);
    run.signal(Signal::INT);
    run.wait().success();
    folder
}

fn query(folder: &Folder, arguments: &[&str]) -> Finished {
    standpipe(["state", "query"]).args(arguments).in_directory(folder.path()).finish()
}

fn answer(folder: &Folder, sql: &str) -> Vec<Row> {
    rows(&query(folder, &["ckpt/counts", sql, "--format", "json"]).code(0).stdout)
}

fn by_key(rows: &[Row], key: &str, value: &str) -> BTreeMap<i64, i64> {
    rows.iter().map(|row| (row[key].as_i64().unwrap(), row[value].as_i64().unwrap())).collect()
}

#[test]
fn what_the_job_had_computed_is_in_the_tables() {
    let folder = stopped();
    let all = read_rows(folder.at("all.jsonl"));
    let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &all {
        *sums.entry(row["k"].as_i64().unwrap()).or_default() += row["n"].as_i64().unwrap();
        *counts.entry(row["k"].as_i64().unwrap()).or_default() += 1;
    }
    assert_eq!(by_key(&answer(&folder, "select k, \"s.0\" as s from totals.keys"), "k", "s"), sums);
    // A window may begin in the job's middle: its panes together.
    let windows = answer(&folder, "select k, sum(\"c.0\") as c from windows.panes group by k");
    assert_eq!(by_key(&windows, "k", "c"), counts);
    let joined = "select t.k as k, cast(sum(w.\"c.0\") as bigint) as c from totals.keys t join windows.panes w on t.k = w.k where t.\"s.0\" > 0 group by t.k having count(*) > 0 order by 1";
    assert_eq!(by_key(&answer(&folder, joined), "k", "c"), counts);
    // Every key is in its group, and in one.
    let groups = answer(
        &folder,
        "select count(*) as keys, count(distinct k) as k, min(key_group) >= 0 and max(key_group) < 128 as good from totals.keys",
    );
    assert_eq!(groups, rows("{\"keys\":10,\"k\":10,\"good\":true}"));
    // Positions: bytes, which are shown as the text that they are.
    let splits = answer(&folder, "select split, position, ended from ticks.splits");
    let read: i64 = splits.iter().map(|row| row["position"].as_str().unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!((read, splits[0]["ended"].as_bool()), (all.len() as i64, Some(false)));
    let read = answer(&folder, "select sum(cast(arrow_cast(position, 'Utf8') as bigint)) as read from splits");
    assert_eq!(read[0]["read"].as_i64().unwrap(), all.len() as i64);
    // A plugin's state; its key has the name of a column that is there already.
    let mut lengths: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &all {
        let length = lengths.entry(row["k"].as_i64().unwrap()).or_default();
        *length = if row["n"].as_i64().unwrap() % 3 > 0 { *length + 1 } else { 0 };
    }
    lengths.retain(|_, length| *length > 0);
    let state = answer(&folder, "select \"key.value\" as k, value as length from runs.length");
    assert_eq!(by_key(&state, "k", "length"), lengths);
}

#[test]
fn tables_are_listed_and_rows_printed_in_every_form() {
    let folder = stopped();
    for arguments in [&["ckpt/counts"][..], &["counts.yaml"], &["ckpt/counts/", "show tables;"]] {
        let list = query(&folder, arguments).code(0).stdout;
        let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["TABLE", "ROWS", "BYTES", "COLUMNS"]);
        let line = |table: &str| lines.iter().find(|line| line[0] == table).unwrap_or_else(|| panic!("no {table}: {list}"));
        assert_eq!(line("totals.keys")[1], "10");
        assert_eq!(line("totals.keys")[3..], ["key_group", "uint16,", "k", "int64,", "s.0", "int64"]);
        line("\"the-windows\".committables");
    }
    let listed = rows(&query(&folder, &["ckpt/counts", "--format", "json"]).code(0).stdout);
    let totals = listed.iter().find(|row| row["table"] == "totals.keys").unwrap();
    assert_eq!((&totals["rows"], &totals["columns"][1]["name"]), (&10.into(), &"k".into()));
    let sql =
        "select k, case when k > 0 then 'a, \"b\"' end as t, arrow_cast(X'00ff', 'Binary') as b from totals.keys where k < 2 order by k";
    assert_eq!(query(&folder, &["ckpt/counts", sql]).code(0).stdout, "k  t       b\n0          0x00ff\n1  a, \"b\"  0x00ff\n");
    assert_eq!(query(&folder, &["ckpt/counts", sql, "--format", "csv"]).code(0).stdout, "k,t,b\n0,,0x00ff\n1,\"a, \"\"b\"\"\",0x00ff\n");
    assert_eq!(
        query(&folder, &["ckpt/counts", sql, "--format", "json"]).code(0).stdout,
        "{\"k\":0,\"t\":null,\"b\":\"0x00ff\"}\n{\"k\":1,\"t\":\"a, \\\"b\\\"\",\"b\":\"0x00ff\"}\n"
    );
    let none = "select k from totals.keys where k > 99";
    assert_eq!(query(&folder, &["ckpt/counts", none]).code(0).stdout, "k\n");
    assert_eq!(query(&folder, &["ckpt/counts", none, "--format", "csv"]).code(0).stdout, "k\n");
    assert_eq!(query(&folder, &["ckpt/counts", none, "--format", "json"]).code(0).stdout, "");
}

#[test]
fn a_checkpoint_is_named_in_several_ways() {
    let folder = stopped();
    let sql = "select count(*) as n from totals.keys";
    let mut manifests: Vec<_> = fs::read_dir(folder.at("ckpt/counts/checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.sort();
    let oldest = manifests[0].strip_prefix(folder.path()).unwrap().to_str().unwrap();
    let number = oldest.rsplit_once('/').unwrap().1.split('-').next().unwrap().trim_start_matches('0');
    let url = format!("file://{}", folder.at("ckpt/counts").display());
    let set = ["counts.yaml", sql, "--set", "checkpoint.dir=ckpt"];
    for arguments in
        [&["ckpt/counts", sql][..], &["counts.yaml", sql], &[oldest, sql], &[&url, sql], &["ckpt/counts", sql, "--number", number], &set]
    {
        assert_eq!(query(&folder, arguments).code(0).stdout, "n\n10\n", "{arguments:?}");
    }
    // The sum of an older checkpoint is of fewer rows.
    let sum = |arguments: &[&str]| query(&folder, arguments).code(0).stdout.lines().nth(1).unwrap().parse::<i64>().unwrap();
    let sql = "select sum(\"s.0\") from totals.keys";
    assert!(sum(&[oldest, sql]) < sum(&["ckpt/counts", sql]));
    assert_eq!(sum(&[oldest, sql]), sum(&["ckpt/counts", sql, "-n", number]));
}

#[test]
fn what_cannot_be_asked() {
    let folder = stopped();
    let refused = |code: i32, arguments: &[&str]| query(&folder, arguments).one_error(code);
    let error = refused(2, &["ckpt/counts", "select * from total.keys"]);
    assert!(error.contains("there is no table total.keys in checkpoint ") && error.contains("there are "), "{error}");
    assert!(error.contains("ticks.splits, totals.keys, windows.panes, windows.watermark"), "{error}");
    let error = refused(2, &["ckpt/counts", "select * from committables"]);
    assert!(error.contains("committables may be all.committables, lengths.committables, ") && error.ends_with("write which"), "{error}");
    let error = refused(2, &["ckpt/counts", "select K from totals.keys"]);
    assert!(error.starts_with("the query: ") && error.contains('K'), "{error}");
    let error = refused(2, &["ckpt/counts", "selekt 1"]);
    assert!(error.starts_with("the query: ") && error.contains("selekt"), "{error}");
    let error = refused(1, &["ckpt/counts", "select 1 / (k - k) from totals.keys"]);
    assert!(error.contains("Divide by zero"), "{error}");
    // Reading is all that can be done.
    for sql in [
        "create table x as select 1",
        "copy (select 1) to 'out.csv'",
        "create external table x stored as csv location 'counts.yaml'",
        "set datafusion.execution.batch_size = 1",
        "drop table totals.keys",
        "insert into totals.keys values (1)",
        "select * from 'counts.yaml'",
    ] {
        refused(2, &["ckpt/counts", sql]);
    }
    assert!(!folder.at("out.csv").exists());
    let error = refused(2, &["ckpt", "select 1"]);
    assert!(error.contains("there is no checkpoint: expected its manifest, like DIR/JOB/checkpoints/00000041-000003.json, or the folder of a job, DIR/JOB; there are "), "{error}");
    let error = refused(3, &["nowhere/counts", "select 1"]);
    assert!(error.contains("nowhere/counts: there is no such pipeline file") && !folder.at("nowhere").exists(), "{error}");
    let error = refused(2, &["ckpt/counts", "select 1", "--number", "99999"]);
    assert!(error.contains("there is no checkpoint 99999 in "), "{error}");
    let error = refused(2, &["s3://bucket", "select 1"]);
    assert!(error.contains("at \"s3://bucket\" there is no checkpoint: expected its manifest"), "{error}");
}

#[test]
fn a_damaged_file_is_named_and_nothing_is_changed() {
    let folder = stopped();
    let content = || {
        let entries = ["checkpoints", "data", "generations"].map(|name| fs::read_dir(folder.at("ckpt/counts").join(name)).unwrap());
        entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    // Of the newest checkpoint, which may have it from a former one.
    let listed =
        rows(&standpipe(["checkpoint", "list", "counts.yaml", "--format", "json"]).in_directory(folder.path()).finish().code(0).stdout);
    let files = listed.last().unwrap()["nodes"]["transforms.totals"]["tables"]["keys"].as_array().unwrap().clone();
    let damaged = folder.at("ckpt/counts").join(files.last().unwrap()["path"].as_str().unwrap());
    fs::write(&damaged, "nothing of ours").unwrap();
    let before = content();
    let error = query(&folder, &["ckpt/counts", "select * from totals.keys"]).one_error(1);
    assert!(
        error.contains(damaged.file_name().unwrap().to_str().unwrap()) && error.ends_with("its content is not what was written"),
        "{error}"
    );
    // What is not asked for is not read.
    query(&folder, &["ckpt/counts", "select * from windows.panes"]).success();
    assert!(content() == before);
}
