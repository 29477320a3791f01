//! How processes of a job end, and what that means for the job: of several, which end is the job's, and whether another start may help.

use serde::{Deserialize, Serialize};
use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

/// Exit codes of our own: the job failed.
pub const FAILED: i32 = 1;
/// Usage, pipeline file, configuration, plugin file.
pub const USAGE: i32 = 2;
/// Something outside.
pub const OUTSIDE: i32 = 3;
/// Another process has taken over the job.
pub const SUPERSEDED: i32 = 76;
/// Ended at once by a second signal.
pub const INTERRUPTED: i32 = 130;
/// As if the process were killed: it is, or counts as, gone.
const KILLED: i32 = 9;

/// How a process of the job has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which of them, from 0.
    pub process: u32,
    /// As `wait` gives it.
    pub status: i32,
    /// By whoever supervises the job, after it had been given its time.
    pub killed: bool,
    /// Nobody has seen its end: it is gone with what had it.
    pub lost: bool,
    /// What it has said last of its errors, or what is known of its end otherwise.
    pub said: Option<String>,
}

impl Ended {
    /// With that status.
    #[must_use]
    pub fn new(process: u32, status: ExitStatus, killed: bool) -> Self {
        Self { process, status: status.into_raw(), killed, lost: false, said: None }
    }

    /// One that is gone with the machine or the process that had it.
    #[must_use]
    pub fn lost(process: u32, killed: bool, said: String) -> Self {
        Self { process, status: KILLED, killed, lost: true, said: Some(said) }
    }

    /// One that could not be started.
    #[must_use]
    pub fn failed(process: u32, said: String) -> Self {
        Self { process, status: FAILED << 8, killed: false, lost: false, said: Some(said) }
    }

    /// As the system has it.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        ExitStatus::from_raw(self.status)
    }

    /// It has ended cleanly.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status().success()
    }

    /// Why the job failed, if it is a failure that another start may help: not a wrong configuration, and what is missing outside only if it was there once.
    #[must_use]
    pub fn failure(&self, processes: u32, attempt: u32) -> Option<String> {
        let process = if processes > 1 { format!("process {} of its {processes}", self.process) } else { "its process".to_owned() };
        let said = self.said.as_deref().filter(|said| !said.is_empty());
        if self.lost {
            return Some(said.map_or_else(|| format!("{process} is gone"), str::to_owned));
        }
        let why = self.reason(&process, attempt)?;
        Some(said.map_or_else(|| why.clone(), |said| format!("{why}: {said}")))
    }

    fn reason(&self, process: &str, attempt: u32) -> Option<String> {
        match (self.status().code(), self.status().signal()) {
            (Some(FAILED), _) => Some("it has failed".to_owned()),
            (Some(OUTSIDE), _) if attempt > 0 => Some("it could not be started again".to_owned()),
            (Some(code), _) if ![0, USAGE, OUTSIDE, INTERRUPTED, SUPERSEDED].contains(&code) => {
                Some(format!("{process} has ended with {code}, which is none of ours: a plugin has ended it"))
            }
            (None, Some(signal)) => Some(format!("{process} was killed by signal {signal}")),
            _ => None,
        }
    }
}

/// The end that is that of the job: a clean one of the first process, or that of the process that was killed or has crashed, or how the first one says that the job
/// has failed. What came after it came of it.
#[must_use]
pub fn decisive(all: &[Ended]) -> Option<&Ended> {
    let of_itself = || all.iter().filter(|ended| !ended.killed);
    let first = of_itself().find(|ended| ended.process == 0);
    let crashed = of_itself().find(|ended| ended.status().signal().is_some());
    let failed = of_itself().find(|ended| !ended.is_success());
    first.filter(|first| first.is_success()).or(crashed).or(first).or(failed).or(all.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn ended(process: u32, status: ExitStatus) -> Ended {
        Ended::new(process, status, false)
    }

    #[test]
    fn of_several_ends_that_of_the_job_is_the_one_that_the_others_came_of() {
        let killed = ExitStatus::from_raw(9);
        let ours = |process| Ended::new(process, killed, true);
        let chosen = |all: &[Ended]| decisive(all).map(|ended| (ended.process, ended.status().code()));
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[ended(1, exited(0)), ended(0, exited(0))]), Some((0, Some(0))));
        assert_eq!(chosen(&[ended(0, exited(0)), ours(1)]), Some((0, Some(0))));
        // The first one says only that another one has gone.
        assert_eq!(chosen(&[ended(0, exited(1)), ended(1, killed)]), Some((1, None)));
        assert_eq!(chosen(&[ended(1, exited(1)), ended(0, exited(2))]), Some((0, Some(2))));
        // The first one was stopped and did not come back: another one has said so.
        assert_eq!(chosen(&[ended(1, exited(1)), ours(0)]), Some((1, Some(1))));
        assert!(ended(1, killed).failure(3, 0).unwrap().contains("process 1 of its 3 was killed by signal 9"));
    }

    #[test]
    fn what_another_start_may_help_is_a_failure() {
        let is_failure = |status, attempt| ended(0, status).failure(1, attempt).is_some();
        for code in [0, USAGE, INTERRUPTED, SUPERSEDED] {
            assert!(!is_failure(exited(code), 0) && !is_failure(exited(code), 1), "{code}");
        }
        assert!(is_failure(exited(1), 0) && is_failure(exited(77), 0) && is_failure(ExitStatus::from_raw(9), 0));
        assert!(!is_failure(exited(3), 0), "what was never there is not waited for");
        assert!(is_failure(exited(3), 1));
        assert!(Ended::lost(0, false, String::new()).failure(1, 0).is_some() && Ended::failed(0, String::new()).failure(1, 0).is_some());
    }
}
