//! What passes an operator while a checkpoint's cut goes through it.

use super::*;
use std::sync::atomic::Ordering::SeqCst;

/// One source has entered the cut and ended behind it, the other one is before it still: how far the first one is then must not be told with what the second one sends. Its rows wait for the
/// cut at the window, and would be late there.
#[test]
fn a_watermark_from_behind_a_cut_does_not_go_on_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ahead, behind) = (Probe::of("cut-ahead"), Probe::of("cut-behind"));
    let mut plan = Builder::new();
    plan.idle_timeout = Duration::from_secs(3_600);
    let rows = json!({"rows": 2_000, "batch": 100, "quiet_from": 0, "quiet_after": 100});
    let first = plan.numbers("first", 1, config("cut-ahead", rows));
    let second = plan.numbers("second", 2, config("cut-behind", json!({"splits": 2, "rows": 2_000, "batch": 1_000})));
    // The second worker stands still there, with its source before the cut.
    let second = plan.pass("gate", 2, second, config("cut-behind", json!({"wait_at": 2})), false);
    plan.ledger("seen", 1, first, config("cut-ahead", json!({})));
    plan.collect("passed", 1, first, config("cut-ahead", json!({})));
    let both = plan.union("both", 1, &[first, second]);
    let stats = plan.window("stats", 1, both, Duration::from_millis(50));
    plan.collect("windows", 1, stats, config("cut-ahead", json!({})));
    plan.collect("late", 1, (stats.0, 1), config("cut-ahead", json!({})));
    let job = run(Arc::new(plan.build()), RunOptions { slots: vec![2], ..options(folder.path(), Start::Latest, PATIENCE) }).unwrap();
    until("the second worker stands still", || behind.waiting.load(SeqCst) > 0);
    until("the first source is quiet", || ahead.row_count("passed") == 100);
    let saved = job.control().savepoint().unwrap();
    until("the first source has entered the cut", || ahead.book.lock().unwrap().has_prepared("seen"));
    ahead.awake.store(true, SeqCst);
    until("the first source has ended", || ahead.row_count("passed") == 2_000);
    behind.awake.store(true, SeqCst);
    saved.wait().unwrap();
    assert_eq!(ended(&job).unwrap().end, Outcome::Finished);
    assert_eq!(ahead.row_count("late"), 0);
    let counted: i64 = windows(&ahead.rows("windows")).values().map(|(count, _)| count).sum();
    assert_eq!(counted, 6_000);
}
