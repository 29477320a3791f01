//! Savepoints: they stay, jobs go on from them, and one that cannot be taken is told.

use super::*;

#[test]
fn a_savepoint_stays_and_a_job_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let kept = |id| store(folder.path()).list().unwrap().contains(&id);
    let job = start(simple("saved", json!({"rate": 20_000})), folder.path());
    let probe = Probe::of("saved");
    until("a checkpoint", || completed(&job) > 0);
    let saved = job.control().savepoint().unwrap().wait().unwrap();
    until("newer checkpoints", || completed(&job) > saved + 5);
    let stopped = job.control().stop_with_savepoint(false).unwrap().wait().unwrap();
    assert_eq!(ended(&job).unwrap().end, Outcome::Stopped);
    assert_eq!((kept(saved), newest(folder.path()).id), (true, stopped));
    assert_eq!(store(folder.path()).read(stopped).unwrap().kind, Kind::Savepoint);
    let before = column(&probe.committed_rows("out"), "n").len();
    assert!(probe.book.lock().unwrap().aborted.is_empty());
    let newer: Vec<u64> = store(folder.path()).list().unwrap().into_iter().filter(|id| *id > saved).collect();

    // From the older one: what came after it is read and delivered again.
    let plan = Arc::new(simple("saved", json!({"rate": 20_000})));
    let job = run(plan, options(folder.path(), Start::At(saved), INTERVAL)).unwrap();
    until("it is farther than before", || job.metrics().totals().rows_in > before as u64 && completed(&job) > 0);
    job.control().stop(false);
    ended(&job).unwrap();
    assert_eq!(probe.book.lock().unwrap().aborted, newer, "sinks hear what is passed over");
    let mut rows = column(&probe.committed_rows("out"), "n");
    let delivered = rows.len();
    rows.dedup();
    assert!(delivered > rows.len() && rows.len() > before, "{delivered} with those twice, {} once, {before} before", rows.len());
    assert_eq!(rows, (0..rows.len() as i64).collect::<Vec<_>>());
    // The one that was passed over stays and can be named, but is not the newest any more.
    assert!(kept(saved) && kept(stopped) && newest(folder.path()).id > stopped);
    assert_eq!(newest(folder.path()).kind, Kind::Checkpoint);
}

#[test]
fn a_savepoint_that_cannot_be_taken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let job = run(Arc::new(simple("unsaved", json!({"rate": 20_000}))), options(folder.path(), Start::Latest, PATIENCE)).unwrap();
    // Asked before anything is open, it comes all the same.
    job.control().savepoint().unwrap().wait().unwrap();
    let data = folder.path().join("job/data");
    fs::rename(&data, folder.path().join("aside")).unwrap();
    fs::write(&data, "").unwrap();
    let error = job.control().savepoint().unwrap().wait().unwrap_err().to_string();
    assert!(error.starts_with("the savepoint is given up: cannot write job/data/"), "{error}");
    assert_eq!(job.control().state(), JobState::Running);
    job.control().cancel();
    ended(&job).unwrap();
    assert_eq!(job.control().savepoint().unwrap().wait(), Err(SavepointError::JobEnded));

    let without = support::start(simple("nowhere", json!({"rate": 20_000})), 1);
    assert_eq!(without.control().savepoint().unwrap_err(), SavepointError::NoCheckpoints);
    assert_eq!(without.control().stop_with_savepoint(false).unwrap_err(), SavepointError::NoCheckpoints);
    without.control().cancel();
    ended(&without).unwrap();
}
