//! Checkpoints of whole jobs: whatever is killed whenever, and whatever the parallelism is afterwards, every row counts once; what cannot go on says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod cuts;
mod refusals;
mod savepoints;
#[path = "../support/mod.rs"]
mod support;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use serde_json::json;
use standpipe_checkpoint::{Kind, Location, Manifest, Start, Store};
use standpipe_engine::{CheckpointOptions, JobError, JobHandle, JobState, Outcome, RunOptions, SavepointError, run};
use standpipe_pipeline::plan::{Alignment, AsyncCalls, DiskState, Plan, ResultOrder, StateBackend};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{
    PATIENCE, ended,
    over::{Over, start_over},
    plan::{Builder, config},
    plugins::{Probe, number},
    until,
};

const INTERVAL: Duration = Duration::from_millis(5);

fn store(folder: &Path) -> Store {
    Store::open(Location::open(&folder.display().to_string(), &[]).unwrap(), "job").unwrap()
}

fn options(folder: &Path, start: Start, interval: Duration) -> RunOptions {
    let store = store(folder);
    let taken_over = store.take_over("test", &start).unwrap();
    let checkpoints = CheckpointOptions {
        store: Arc::new(store),
        interval,
        min_pause: Duration::ZERO,
        timeout: PATIENCE,
        tolerated_failures: None,
        keep: 2,
        allow_non_restored_state: false,
        taken_over,
    };
    RunOptions { slots: vec![3], generation: checkpoints.taken_over.generation, checkpoints: Some(checkpoints), ..RunOptions::new() }
}

fn start(plan: Plan, folder: &Path) -> JobHandle {
    run(Arc::new(plan), options(folder, Start::Latest, INTERVAL)).unwrap()
}

fn refused(plan: Plan, folder: &Path) -> String {
    let error: JobError = ended(&start(plan, folder)).unwrap_err();
    assert_eq!(error.class().exit_code(), 2, "{error}");
    error.to_string()
}

fn completed(job: &JobHandle) -> u64 {
    job.metrics().checkpoints().completed
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn column(batches: &[RecordBatch], name: &str) -> Vec<i64> {
    let values = |batch: &RecordBatch| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    let mut all: Vec<i64> = batches.iter().flat_map(values).collect();
    all.sort_unstable();
    all
}

/// Rows of windows by key and start: count and sum.
fn windows(batches: &[RecordBatch]) -> BTreeMap<(String, i64), (i64, i64)> {
    let mut windows = BTreeMap::new();
    for batch in batches {
        let start = batch.column_by_name("window_start").unwrap().as_primitive::<TimestampMicrosecondType>();
        let value = |name: &str, row: usize| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            let key = (batch.column(0).as_string::<i32>().value(row).to_owned(), start.value(row));
            assert_eq!(windows.insert(key, (value("count", row), value("sum", row))), None, "a window came twice");
        }
    }
    windows
}

fn tallied(batches: &[RecordBatch]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for batch in batches {
        let count = batch.column_by_name("count").unwrap().as_primitive::<Int64Type>();
        for (key, count) in batch.column(0).as_string::<i32>().iter().flatten().zip(count.values()) {
            *counts.entry(key.to_owned()).or_default() += count;
        }
    }
    counts
}

const LONG: (u64, u64) = (4, 6_000);
const SHORT: (u64, u64) = (2, 1_500);
const KEYS: u64 = 13;

fn merge(into: &mut serde_json::Value, more: serde_json::Value) {
    if let (Some(into), serde_json::Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// Two sources, of which one ends early and one never, though it falls silent; their union, its windows, late rows; counts of one of them by timers of both kinds; a transform whose calls end later; sinks that commit and one that does not.
fn everything(name: &str, random: &mut Random) -> Plan {
    let mut plan = Builder::new();
    // Now and then the two wait for each other, by less than a batch.
    plan.alignment = (random.below(2) == 0).then(|| Alignment { max_drift: Duration::from_millis(5), group: Some("both".to_owned()) });
    let random_order = random.below(2) == 0;
    let mut parallelism = || 1 + random.below(3) as u32;
    let numbers = |more| {
        let mut numbers = json!({"keys": KEYS, "rate": 15_000, "batch": 97, "pauses": true});
        merge(&mut numbers, more);
        config(name, numbers)
    };
    let long = plan.numbers("long", parallelism(), numbers(json!({"splits": LONG.0, "quiet_from": 0, "quiet_after": LONG.1})));
    let short = plan.numbers("short", parallelism(), numbers(json!({"splits": SHORT.0, "rows": SHORT.1})));
    let both = plan.union("both", parallelism(), &[long, short]);
    plan.ledger("all", parallelism(), both, config(name, json!({})));
    let stats = plan.window("stats", parallelism(), both, Duration::from_millis(50));
    plan.ledger("windows", parallelism(), stats, config(name, json!({})));
    plan.ledger("late", 1, (stats.0, 1), config(name, json!({})));
    let by_time = plan.tally("by-time", parallelism(), long, json!({}));
    plan.ledger("tallies", parallelism(), by_time, config(name, json!({})));
    let by_clock = plan.tally("by-clock", parallelism(), long, json!({"clock": true}));
    plan.ledger("ticks", parallelism(), by_clock, config(name, json!({})));
    let order = if random_order { ResultOrder::Any } else { ResultOrder::Input };
    let calls = AsyncCalls { capacity: 5, order, timeout: PATIENCE };
    let later = plan.later("later", parallelism(), both, config(name, json!({"within_ms": 8})), calls);
    plan.ledger("answers", parallelism(), later, config(name, json!({})));
    let by_answers = plan.window("by-answers", parallelism(), later, Duration::from_millis(50));
    plan.ledger("answer-windows", parallelism(), by_answers, config(name, json!({})));
    let some = plan.filter("some", long, 1_000);
    plan.collect("seen", parallelism(), some, config(name, json!({"acknowledge": "flush"})));
    plan.build()
}

fn rows_of((splits, rows): (u64, u64)) -> impl Iterator<Item = (String, i64, i64)> {
    (0..splits).flat_map(move |split| (0..rows).map(move |i| number(split, i, KEYS)))
}

/// The job in this process, or over up to three.
fn start_somewhere(plan: Plan, folder: &Path, several: bool, random: &mut Random) -> Over {
    if !several {
        return Over(vec![start(plan, folder)]);
    }
    let slots = [vec![2, 1], vec![1, 2], vec![1, 1, 1]][random.below(3) as usize].clone();
    start_over(plan, &slots, options(folder, Start::Latest, INTERVAL))
}

fn killed_again_and_again(seed: u64, several: bool) {
    let folder = tempfile::tempdir().unwrap();
    // State in memory and on disk by turns, nearly all of it: what one has written the other goes on from.
    let scratch = folder.path().join("scratch").display().to_string();
    let everything = |name: &str, random: &mut Random| {
        let mut plan = everything(name, random);
        if random.below(2) == 0 {
            plan.state = StateBackend::Disk(DiskState::new(&scratch, 1 << 10));
        }
        plan
    };
    let name = format!("killed-{seed}");
    let mut random = Random(seed);
    let runs = 12;
    for _ in 0..runs {
        let over = start_somewhere(everything(&name, &mut random), folder.path(), several, &mut random);
        let job = over.first();
        // Between two checkpoints, while one is taken, or at its start.
        let (checkpoints, micros) = (random.below(4), random.below(200_000));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_micros(micros) && (checkpoints == 0 || completed(job) < checkpoints) {
            std::thread::sleep(Duration::from_micros(100));
        }
        // A stop is a cut, too.
        if random.below(4) == 0 {
            job.control().stop(false);
        } else if several && random.below(2) == 0 {
            // One of the others goes, and does not say so.
            over.0[1].control().cancel();
            _ = over.ended();
            continue;
        } else {
            job.control().cancel();
        }
        over.ended().unwrap();
    }
    let over = start_somewhere(everything(&name, &mut random), folder.path(), several, &mut random);
    let job = over.first();
    let probe = Probe::of(&name);
    let counted = || tallied(&probe.committed_rows("ticks")).values().sum::<i64>() as u64 == LONG.0 * LONG.1;
    until("timers of the clock have counted every row", || completed(job) > 0 && counted());
    job.control().stop(true);
    assert_eq!(over.ended().unwrap().end, Outcome::Stopped);
    check_everything(&name, runs);
    assert_eq!(fs::read_dir(&scratch).map_or(0, Iterator::count), 0, "state on disk is removed with its run");
}

fn check_everything(name: &str, runs: usize) {
    let probe = Probe::of(name);
    let committed = |sink: &str| probe.committed_rows(sink);
    let mut all: Vec<i64> = rows_of(LONG).chain(rows_of(SHORT)).map(|row| row.2).collect();
    all.sort_unstable();
    assert!(
        column(&committed("all"), "n") == all,
        "{name}: rows after {runs} runs: {} of {}",
        column(&committed("all"), "n").len(),
        all.len()
    );

    let answers = column(&committed("answers"), "n");
    assert!(answers == all, "{name}: answers after {runs} runs: {} of {}", answers.len(), all.len());

    let mut totals: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
    for (key, ts, n) in rows_of(LONG).chain(rows_of(SHORT)) {
        let total = totals.entry((key, ts - ts.rem_euclid(50_000))).or_default();
        *total = (total.0 + 1, total.1 + n);
    }
    assert_eq!(committed("late").iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    let found = windows(&committed("windows"));
    let different: Vec<_> =
        totals.iter().filter(|(key, total)| found.get(key) != Some(total)).map(|(key, total)| (key, total, found.get(key))).collect();
    assert!(
        found.len() == totals.len() && different.is_empty(),
        "{name}: windows after {runs} runs: {} of {}, {different:?}",
        found.len(),
        totals.len()
    );

    assert!(windows(&committed("answer-windows")) == totals, "{name}: windows of answers after {runs} runs");

    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    rows_of(LONG).for_each(|row| *counts.entry(row.0).or_default() += 1);
    for sink in ["tallies", "ticks"] {
        assert_eq!(tallied(&committed(sink)), counts, "{name}: {sink} after {runs} runs");
    }
    let mut seen = probe.values("seen", "n");
    seen.dedup();
    let expected: Vec<i64> = rows_of(LONG).map(|row| row.2).filter(|n| *n >= 1_000).collect::<BTreeSet<_>>().into_iter().collect();
    assert!(seen == expected, "{name}: at least once after {runs} runs");
}

#[test]
fn every_row_counts_once_whenever_the_job_is_killed() {
    (1..=6).for_each(|seed| killed_again_and_again(seed, false));
}

#[test]
fn every_row_counts_once_whichever_of_several_processes_is_killed() {
    (101..=104).for_each(|seed| killed_again_and_again(seed, true));
}

#[test]
fn a_stop_over_several_processes_takes_a_savepoint_that_any_number_of_them_goes_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |source| {
        let mut plan = Builder::new();
        let source = plan.numbers("numbers", 3, config("over-savepoint", source));
        let tally = plan.tally("tally", 3, source, json!({}));
        plan.ledger("tallies", 2, tally, config("over-savepoint", json!({})));
        plan.ledger("out", 3, source, config("over-savepoint", json!({})));
        plan.build()
    };
    let probe = Probe::of("over-savepoint");
    for (slots, is_last) in [(vec![1, 2], false), (vec![1, 1, 1], false), (vec![3], true)] {
        let (options, source) = (options(folder.path(), Start::Latest, PATIENCE), json!({"splits": 3, "rows": 40_000, "rate": 20_000}));
        let over = if slots.len() == 1 {
            Over(vec![run(Arc::new(plan(source)), RunOptions { slots: slots.clone(), ..options }).unwrap()])
        } else {
            start_over(plan(source), &slots, options)
        };
        if is_last {
            assert_eq!(over.ended().unwrap().end, Outcome::Finished);
            break;
        }
        until("rows are read in all processes", || over.0.iter().all(|process| process.metrics().nodes()[0].rows_in.get() > 1_000));
        let savepoint = over.first().control().stop_with_savepoint(false).unwrap();
        assert_eq!(savepoint.wait().unwrap(), newest(folder.path()).id);
        assert_eq!(over.ended().unwrap().end, Outcome::Stopped);
        assert_eq!(newest(folder.path()).kind, Kind::Savepoint);
        // Positions are those of every process.
        let committed: i64 = probe.committed.lock().unwrap().values().map(|p| String::from_utf8_lossy(p).parse::<i64>().unwrap()).sum();
        assert_eq!(committed as usize, column(&probe.committed_rows("out"), "n").len());
    }
    let mut all: Vec<i64> = (0..3).flat_map(|split| (0..40_000).map(move |i| number(split, i, 1).2)).collect();
    all.sort_unstable();
    assert!(column(&probe.committed_rows("out"), "n") == all);
    assert_eq!(tallied(&probe.committed_rows("tallies")).values().sum::<i64>(), 120_000);
}

/// A long job that does nothing but read and write.
fn simple(name: &str, source: serde_json::Value) -> Plan {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config(name, source));
    plan.ledger("out", 1, source, config(name, json!({})));
    plan.build()
}

fn newest(folder: &Path) -> Manifest {
    store(folder).latest().unwrap().expect("there are checkpoints")
}

/// Many keys that have come once, and one that comes again and again; their timers never fire, as the many hold event time.
fn one_of_many(name: &str) -> Plan {
    let mut plan = Builder::new();
    let many = plan.numbers("many", 1, config(name, json!({"keys": MANY * 4, "quiet_from": 0, "quiet_after": MANY})));
    let one = plan.numbers("one", 1, config(name, json!({"keys": 1, "rate": 50, "batch": 1})));
    let both = plan.union("both", 1, &[many, one]);
    let counts = plan.tally("counts", 2, both, json!({}));
    plan.ledger("out", 1, counts, config(name, json!({})));
    plan.build()
}

const MANY: u64 = 100_000;

#[test]
fn what_did_not_change_is_referenced_and_stays() {
    only_what_changes_is_written("one-of-many", &[3]);
}

#[test]
fn what_did_not_change_in_any_process_is_referenced_and_stays() {
    only_what_changes_is_written("one-of-many-over", &[1, 1]);
}

fn only_what_changes_is_written(name: &str, slots: &[u32]) {
    let folder = tempfile::tempdir().unwrap();
    let options = || options(folder.path(), Start::Latest, Duration::from_millis(50));
    let begin = || match slots {
        [_] => Over(vec![run(Arc::new(one_of_many(name)), options()).unwrap()]),
        slots => start_over(one_of_many(name), slots, options()),
    };
    // Of the tables of the transform: bytes in all, and of those that were written for this checkpoint.
    let sizes = || {
        let manifest = store(folder.path()).latest().unwrap()?;
        let files: Vec<_> = manifest.nodes.get("transforms.counts")?.tables.values().flatten().collect();
        let all: u64 = files.iter().map(|file| file.bytes).sum();
        let own: u64 = files.iter().filter(|file| file.checkpoint == manifest.id).map(|file| file.bytes).sum();
        Some((all, own))
    };
    let over = begin();
    let job = over.first();
    until("a large state is checkpointed, and of the next one only what has changed", || {
        sizes().is_some_and(|(all, own)| all > 500_000 && own > 0 && own * 20 < all)
    });
    // Old checkpoints are removed meanwhile: what newer ones refer to must stay.
    let passed = completed(job) + 20;
    until("many more are taken", || completed(job) >= passed);
    job.control().cancel();
    over.ended().unwrap();
    let before = newest(folder.path());
    assert!(before.files().all(|file| folder.path().join("job").join(&file.path).exists()));
    assert!(before.files().any(|file| file.checkpoint < before.id));

    // The first one of the next run refers to nothing that the run before has written, and it goes on with every count.
    let over = begin();
    let job = over.first();
    until("the next run has checkpoints", || newest(folder.path()).generation > before.generation);
    job.control().stop(true);
    over.ended().unwrap();
    let counts = tallied(&Probe::of(name).committed_rows("out"));
    let mut truth: BTreeMap<String, i64> = BTreeMap::new();
    (0..MANY).for_each(|i| *truth.entry(number(0, i, MANY * 4).0).or_default() += 1);
    let ones = counts["key-0"] - truth.get("key-0").copied().unwrap_or_default();
    assert!(ones > 0);
    truth.insert("key-0".to_owned(), counts["key-0"]);
    assert!(counts == truth, "{} keys of {}", counts.len(), truth.len());
}

#[test]
fn upstream_hears_of_what_is_durable_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let job = start(simple("upstream", json!({"rate": 50_000})), folder.path());
    let probe = Probe::of("upstream");
    until("positions are committed", || probe.committed.lock().unwrap().contains_key("split-0") && completed(&job) > 5);
    job.control().cancel();
    ended(&job).unwrap();
    let position: i64 = String::from_utf8(probe.committed.lock().unwrap()["split-0"].clone()).unwrap().parse().unwrap();
    let covered = column(&probe.committed_rows("out"), "n");
    assert!(covered.len() as i64 >= position, "position {position}, but {} rows are committed", covered.len());
    assert_eq!(covered, (0..covered.len() as i64).collect::<Vec<_>>());
}

#[test]
fn a_stop_takes_a_last_checkpoint_and_nothing_is_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    // No interval passes: the only checkpoint is that of the stop.
    let begin = |source| run(Arc::new(simple("stops", source)), options(folder.path(), Start::Latest, PATIENCE)).unwrap();
    let probe = Probe::of("stops");
    let job = begin(json!({"rows": 40_000, "rate": 20_000}));
    until("rows are read", || job.metrics().totals().rows_in > 1_000);
    job.control().stop(false);
    assert_eq!(ended(&job).unwrap().end, Outcome::Stopped);
    assert_eq!(newest(folder.path()).id, 1);
    let first = column(&probe.committed_rows("out"), "n").len();
    assert!((1_000..40_000).contains(&first));
    assert_eq!(ended(&begin(json!({"rows": 40_000}))).unwrap().end, Outcome::Finished);
    assert_eq!(column(&probe.committed_rows("out"), "n"), (0..40_000).collect::<Vec<_>>());
    // There is nothing left to do.
    let again = ended(&begin(json!({"rows": 40_000}))).unwrap();
    assert_eq!((again.end, again.totals.rows_in), (Outcome::Finished, 0));
}

#[test]
fn a_store_that_fails_for_a_while_costs_checkpoints_and_no_rows() {
    // Nothing can be written; what sinks have prepared does not become a checkpoint.
    ["data", "checkpoints"].into_iter().for_each(outage);
}

fn outage(broken: &str) {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("outage-{broken}");
    let job = start(simple(&name, json!({"rate": 20_000})), folder.path());
    until("a checkpoint", || completed(&job) > 0);
    let (place, aside) = (folder.path().join("job").join(broken), folder.path().join("aside"));
    let data = folder.path().join("job/data");
    // A folder that cannot be written, whoever one is.
    fs::rename(&place, &aside).unwrap();
    fs::write(&place, "").unwrap();
    until("checkpoints fail", || job.metrics().checkpoints().failed > 2);
    let (before, rows) = (completed(&job), job.metrics().totals().rows_in);
    assert!(job.metrics().checkpoints().trouble.is_some());
    until("rows go on", || job.metrics().totals().rows_in > rows + 2_000);
    fs::remove_file(&place).unwrap();
    fs::rename(&aside, &place).unwrap();
    until("checkpoints are taken again", || completed(&job) > before + 1);
    assert_eq!(job.metrics().checkpoints().trouble, None);
    job.control().stop(false);
    let report = ended(&job).unwrap();
    let rows = column(&Probe::of(&name).committed_rows("out"), "n");
    assert_eq!(rows, (0..report.totals.rows_in as i64).collect::<Vec<_>>());
    // What was written for checkpoints that were given up is gone.
    let store = store(folder.path());
    let manifests: Vec<Manifest> = store.list().unwrap().iter().map(|id| store.read(*id).unwrap()).collect();
    let needed: BTreeSet<String> = manifests.iter().flat_map(Manifest::paths).map(str::to_owned).collect();
    let there = fs::read_dir(&data).unwrap().map(|file| format!("data/{}", file.unwrap().file_name().to_str().unwrap()));
    assert_eq!(there.collect::<BTreeSet<_>>(), needed);
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_store_that_takes_nothing() {
    // Before the sources have ended, and after.
    ["without-end", "ended"].into_iter().for_each(stuck);
}

fn stuck(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let rows = (name == "ended").then_some(20_000);
    let plan = Arc::new(simple(name, json!({"rate": 20_000, "rows": rows})));
    let options = RunOptions { stop_patience: Duration::from_millis(100), ..options(folder.path(), Start::Latest, INTERVAL) };
    let job = run(plan, options).unwrap();
    until("a checkpoint", || completed(&job) > 0);
    let data = folder.path().join("job/data");
    fs::rename(&data, folder.path().join("aside")).unwrap();
    fs::write(&data, "").unwrap();
    if let Some(rows) = rows {
        until("the source has ended", || job.metrics().totals().rows_in == rows);
    }
    job.control().stop(false);
    let error = ended(&job).unwrap_err().to_string();
    assert!(error.starts_with("stopped without a last checkpoint: cannot write job/data/"), "{error}");
}

#[test]
fn of_two_processes_that_run_a_job_the_former_ends() {
    let folder = tempfile::tempdir().unwrap();
    let former = start(simple("two", json!({"rate": 20_000})), folder.path());
    until("a checkpoint", || completed(&former) > 1);
    let latter = start(simple("two", json!({"rate": 20_000})), folder.path());
    let error = ended(&former).unwrap_err().to_string();
    let place = folder.path().display();
    assert_eq!(error, format!("another process runs this job in {place}/job: it is of generation 2, this one of 1"));
    until("the latter goes on", || completed(&latter) > 1);
    latter.control().stop(false);
    ended(&latter).unwrap();
    let rows = column(&Probe::of("two").committed_rows("out"), "n");
    assert_eq!(rows, (0..rows.len() as i64).collect::<Vec<_>>(), "no row is missing or there twice");
}
