//! What the engine's tests share: plugins, plans made by hand, and helpers to wait.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

pub mod over;
pub mod plan;
pub mod plugins;
pub mod proxy;

use standpipe_engine::{JobError, JobHandle, JobReport, RunOptions, run};
use standpipe_pipeline::plan::Plan;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longer than any of these jobs takes on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn try_start(plan: Plan, slots: u32) -> Result<JobHandle, JobError> {
    run(Arc::new(plan), RunOptions { slots: vec![slots], ..RunOptions::new() })
}

pub fn start(plan: Plan, slots: u32) -> JobHandle {
    try_start(plan, slots).unwrap()
}

/// The job's result; the test fails if it hangs.
pub fn ended(job: &JobHandle) -> Result<JobReport, JobError> {
    job.wait_for(PATIENCE).expect("the job hangs")
}

pub fn run_to_end(plan: Plan, slots: u32) -> Result<JobReport, JobError> {
    ended(&start(plan, slots))
}

/// Waits until something is so.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
