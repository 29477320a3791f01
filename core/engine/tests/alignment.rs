//! Aligned sources (`max_drift`): how far a split gets ahead of the others in whole jobs, over subtasks, processes and sources; that a job ends, stops and goes on while
//! splits are paused; and what becomes of a plugin that cannot pause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use serde_json::{Value, json};
use standpipe_engine::{JobHandle, Outcome, RunOptions, Totals};
use standpipe_pipeline::plan::{Alignment, Plan};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use support::{
    ended,
    over::start_over,
    plan::{Builder, config},
    plugins::{Probe, event_times},
    start, until,
};

const MAX_DRIFT: Duration = Duration::from_millis(200);
/// Event times of a batch span 50 ms, run ahead by 5 ms at most, and the watermark stays 5 ms behind.
const BATCH: i64 = 60_000;
const DRIFT: i64 = 200_000;

fn aligned(group: Option<&str>) -> Option<Alignment> {
    Some(Alignment { max_drift: MAX_DRIFT, group: group.map(str::to_owned) })
}

/// The highest event time that a sink got.
fn highest(probe: &Probe, sink: &str) -> i64 {
    probe.rows(sink).iter().flat_map(event_times).max().unwrap_or(0)
}

fn paused(job: &JobHandle) -> u64 {
    job.metrics().nodes().iter().flat_map(|node| node.drift().into_values()).map(|drift| drift.paused).sum()
}

/// The rows of several splits, of which all but the first are silent after a few rows until the probe awakens them.
fn behind(name: &str, subtasks: u32, splits: u64, rows: Option<u64>) -> Builder {
    let mut plan = Builder::new();
    (plan.alignment, plan.idle_timeout) = (aligned(None), Duration::from_secs(600));
    let numbers = json!({"splits": splits, "rows": rows, "quiet_from": 1, "quiet_after": 10, "says_quiet": true, "pauses": true});
    let source = plan.numbers("numbers", subtasks, config(name, numbers));
    plan.collect("out", 1, source, config(name, json!({})));
    plan
}

/// The split that is ahead has come as far as it may, and comes no further.
fn stands(probe: &Probe, sink: &str, job: &JobHandle) {
    until("a split is ahead by all that it may", || highest(probe, sink) > DRIFT);
    until("it is paused", || paused(job) > 0);
    let read = probe.read.load(SeqCst);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(probe.read.load(SeqCst), read, "it is read on though it is paused");
    assert!(highest(probe, sink) <= DRIFT + BATCH, "{} is too far ahead", highest(probe, sink));
}

fn goes_on(probe: &Probe, job: &JobHandle, rows: usize) {
    probe.awake.store(true, SeqCst);
    let report = ended(job).unwrap();
    assert_eq!((report.end, probe.row_count("out")), (Outcome::Finished, rows));
    assert_eq!(paused(job), 0, "nothing is paused when all has been read");
}

#[test]
fn a_split_is_ahead_of_its_reader_s_others_by_the_drift_and_one_batch() {
    for (subtasks, splits) in [(1, 2), (1, 5), (2, 2), (2, 7), (3, 4)] {
        let name = format!("aligned-{subtasks}-{splits}");
        let probe = Probe::of(&name);
        let job = start(behind(&name, subtasks, splits, Some(20_000)).build(), subtasks);
        stands(&probe, "out", &job);
        let drift: i64 = job.metrics().nodes()[0].drift().values().map(|drift| drift.ahead).max().unwrap();
        assert!((DRIFT..=DRIFT + BATCH).contains(&drift), "{drift}");
        goes_on(&probe, &job, splits as usize * 20_000);
    }
}

#[test]
fn a_split_is_ahead_of_those_of_other_processes_by_no_more() {
    for slots in [vec![1, 1], vec![1, 2, 1], vec![2, 1]] {
        let name = format!("aligned-over-{slots:?}");
        let probe = Probe::of(&name);
        // The first split is in the first process; where there is a slot more, that of the last one is far ahead, too.
        let subtasks = slots.iter().sum();
        let plan = behind(&name, subtasks, u64::from(subtasks), Some(20_000)).build();
        let job = start_over(plan, &slots, RunOptions::new());
        stands(&probe, "out", job.first());
        probe.awake.store(true, SeqCst);
        assert_eq!(job.ended().unwrap().totals.rows_in, u64::from(subtasks) * 20_000);
    }
}

/// Two sources, of which one is silent in all its splits after a few rows.
fn two_sources(name: &str, group: Option<&str>) -> Builder {
    let mut plan = Builder::new();
    plan.idle_timeout = Duration::from_secs(600);
    plan.alignment = aligned(group);
    let fast = plan.numbers("fast", 2, config(name, json!({"splits": 2, "rows": 20_000, "pauses": true})));
    let slow = config(name, json!({"splits": 2, "rows": 20_000, "quiet_from": 0, "quiet_after": 10, "says_quiet": true, "pauses": true}));
    let slow = plan.numbers("slow", 2, slow);
    let both = plan.union("both", 2, &[fast, slow]);
    plan.collect("out", 1, both, config(name, json!({})));
    plan
}

#[test]
fn a_source_waits_for_the_others_of_its_group_and_for_no_others() {
    // One after the other, in two subtasks of one process and of two.
    for slots in [vec![2], vec![1, 1]] {
        let name = format!("aligned-group-{slots:?}");
        let probe = Probe::of(&name);
        let job = match slots.as_slice() {
            [alone] => vec![start(two_sources(&name, Some("all")).build(), *alone)],
            slots => start_over(two_sources(&name, Some("all")).build(), slots, RunOptions::new()).0,
        };
        stands(&probe, "out", &job[0]);
        probe.awake.store(true, SeqCst);
        job.iter().skip(1).for_each(|other| drop(ended(other)));
        assert_eq!(ended(&job[0]).unwrap().totals.rows_in, 80_000);
    }
    let job = start(two_sources("aligned-apart", None).build(), 2);
    let probe = Probe::of("aligned-apart");
    until("the fast one has been read to its end", || probe.row_count("out") == 40_020);
    goes_on(&probe, &job, 80_000);
}

#[test]
fn a_split_that_is_idle_or_has_ended_holds_nobody() {
    let name = "aligned-idle";
    let mut plan = behind(name, 2, 4, Some(20_000)).build();
    set_idle(&mut plan, Duration::from_millis(50));
    let job = start(plan, 2);
    let probe = Probe::of(name);
    until("the one that is not idle has been read to its end", || probe.row_count("out") == 20_030);
    goes_on(&probe, &job, 80_000);
    // The others end where this one is still held back.
    let name = "aligned-ended";
    let mut plan = Builder::new();
    (plan.alignment, plan.idle_timeout) = (aligned(None), Duration::from_secs(600));
    let numbers = json!({"splits": 3, "rows": 20_000, "stretch": 10, "pauses": true});
    let source = plan.numbers("numbers", 2, config(name, numbers));
    plan.collect("out", 1, source, config(name, json!({})));
    let job = start(plan.build(), 2);
    goes_on(&Probe::of(name), &job, 60_000);
}

fn set_idle(plan: &mut Plan, timeout: Duration) {
    for node in &mut plan.nodes {
        if let standpipe_pipeline::plan::Operator::Source(source) = &mut node.operator
            && let Some(time) = &mut source.event_time
        {
            time.idle_timeout = timeout;
        }
    }
}

/// How far the splits drift apart at most in the order in which a sink gets their rows, and how long event time is.
fn observed(name: &str, subtasks: u32, alignment: Option<Alignment>) -> i64 {
    let mut plan = Builder::new();
    plan.alignment = alignment;
    // One split is ten times longer in event time: without alignment it is far ahead when the other one is done.
    let numbers = json!({"splits": 2, "rows": 20_000, "stretch": 10, "pauses": true});
    let source = plan.numbers("numbers", subtasks, config(name, numbers));
    plan.collect("out", 1, source, config(name, json!({})));
    let job = start(plan.build(), subtasks);
    goes_on(&Probe::of(name), &job, 40_000);
    let (mut highest, mut left, mut drift) = ([0, 0], [20_000, 20_000], 0);
    for batch in Probe::of(name).rows("out") {
        let times = event_times(&batch);
        let split = usize::from(!times.is_empty() && n_of(&batch) >= 1_000_000_000);
        left[split] -= times.len();
        highest[split] = times.into_iter().chain([highest[split]]).max().unwrap();
        if left.iter().all(|left| *left > 0) {
            drift = drift.max(highest[0] - highest[1]);
        }
    }
    drift
}

fn n_of(batch: &arrow::array::RecordBatch) -> i64 {
    use arrow::array::AsArray;
    batch.column_by_name("n").unwrap().as_primitive::<arrow::datatypes::Int64Type>().value(0)
}

#[test]
fn windows_of_old_and_new_data_stay_together() {
    let [apart, together] = [("drift-apart", None), ("drift-together", aligned(None))].map(|(name, how)| observed(name, 1, how));
    assert!(apart > 10_000_000, "without it they drift apart: {apart}");
    // A batch of the long one is half a second.
    assert!((DRIFT / 2..DRIFT + 10 * BATCH).contains(&together), "{together}");
    let over_two = observed("drift-subtasks", 2, aligned(None));
    // What two workers give has no order between them but that of the queues between: some batches.
    assert!(over_two < DRIFT + 60 * BATCH, "{over_two}");
}

#[test]
fn splits_found_later_join() {
    let name = "aligned-later";
    let mut plan = Builder::new();
    (plan.alignment, plan.idle_timeout) = (aligned(None), Duration::from_secs(600));
    let numbers = json!({"splits": 6, "rows": 10_000, "one_by_one": true, "pauses": true});
    let source = plan.numbers("numbers", 2, config(name, numbers));
    let stats = plan.window("stats", 2, source, Duration::from_millis(100));
    plan.collect("windows", 1, stats, config(name, json!({})));
    plan.collect("out", 1, source, config(name, json!({})));
    let job = start(plan.build(), 2);
    goes_on(&Probe::of(name), &job, 60_000);
}

#[test]
fn a_job_ends_by_any_way_while_splits_are_paused() {
    for (drain, over) in [(false, false), (true, false), (false, true), (true, true)] {
        let name = format!("aligned-stop-{drain}-{over}");
        let probe = Probe::of(&name);
        let plan = behind(&name, 2, 2, None).build();
        let jobs = if over { start_over(plan, &[1, 1], RunOptions::new()).0 } else { vec![start(plan, 2)] };
        stands(&probe, "out", &jobs[0]);
        jobs[0].control().stop(drain);
        jobs.iter().skip(1).for_each(|other| drop(ended(other)));
        let report = ended(&jobs[0]).unwrap();
        let Totals { rows_in, rows_out, .. } = report.totals;
        assert_eq!((report.end, rows_in), (Outcome::Stopped, rows_out));
        // What was read ahead has gone on: its positions are committed upstream, and would be lost.
        let committed = probe.committed.lock().unwrap();
        let committed: u64 = committed.values().map(|position| String::from_utf8_lossy(position).parse::<u64>().unwrap()).sum();
        assert_eq!((committed, probe.row_count("out") as u64), (rows_out, rows_out));
        assert_eq!(probe.read.load(SeqCst), rows_out);
    }
    let job = start(behind("aligned-cancel", 2, 2, None).build(), 2);
    stands(&Probe::of("aligned-cancel"), "out", &job);
    job.control().cancel();
    assert_eq!(ended(&job).unwrap().end, Outcome::Cancelled);
}

/// Of a plugin that cannot pause splits.
fn unpausable(name: &str, subtasks: u32) -> JobHandle {
    let mut plan = Builder::new();
    (plan.alignment, plan.idle_timeout) = (aligned(None), Duration::from_secs(600));
    let numbers: Value = json!({"splits": 2, "rows": 20_000, "quiet_from": 1, "quiet_after": 10, "says_quiet": true});
    let source = plan.numbers("numbers", subtasks, config(name, numbers));
    plan.collect("out", 1, source, config(name, json!({})));
    start(plan.build(), subtasks)
}

#[test]
fn a_plugin_that_cannot_pause_is_held_back_as_a_whole_or_ends_the_job() {
    let job = unpausable("aligned-whole", 2);
    let probe: Arc<Probe> = Probe::of("aligned-whole");
    stands(&probe, "out", &job);
    goes_on(&probe, &job, 40_000);
    let error = ended(&unpausable("aligned-never", 1)).unwrap_err();
    let said = "sources.numbers: numbers: cannot pause a split (sources.numbers.event_time.max_drift) while a subtask reads several splits of it: \
                write as much parallelism as it has splits, or no max_drift";
    assert_eq!(error.to_string(), said);
}
