//! Savepoints and stops that users have asked for: requests to the first process of a job, which its task manager passes on, and what became of them.

mod collected;

pub(crate) use collected::Collected;

use crate::{
    manager::{Manager, Millis},
    protocol::{Answered, Attempt, LOG, Request, TaskManagerId},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Of those that are answered, so many are remembered.
const MOST: usize = 1_000;

struct Trigger {
    attempt: Attempt,
    /// A task manager that is asked itself; none: whichever has the job's first process.
    of: Option<TaskManagerId>,
    asked: Millis,
    ask: Value,
    answer: Option<Result<Vec<Value>, String>>,
}

/// By their ids; rows that have come apart from their answers.
#[derive(Default)]
pub(super) struct Triggers(BTreeMap<String, Trigger>, BTreeMap<String, Collected>);

impl Triggers {
    /// Asks the first process of an attempt that runs.
    pub(super) fn ask(&mut self, id: String, attempt: Attempt, ask: Value, now: Millis) {
        self.insert(id, Trigger { attempt, of: None, asked: now, ask, answer: None });
    }

    /// Asks a task manager for what the workers of a job have written.
    pub(super) fn ask_for_log(&mut self, id: String, attempt: Attempt, of: TaskManagerId, now: Millis) {
        self.insert(id, Trigger { attempt, of: Some(of), asked: now, ask: json!({"do": LOG}), answer: None });
    }

    /// What has come, once; none: nothing yet.
    pub(super) fn take(&mut self, id: &str) -> Option<Result<Vec<Value>, String>> {
        self.0.get(id)?.answer.as_ref()?;
        self.0.remove(id)?.answer
    }

    /// Nobody waits for it any more.
    pub(super) fn give_up(&mut self, id: &str) {
        self.0.remove(id);
    }

    fn insert(&mut self, id: String, trigger: Trigger) {
        self.0.insert(id, trigger);
        if self.0.len() > MOST {
            let oldest = self.0.iter().filter(|(_, one)| one.answer.is_some()).min_by_key(|(_, one)| one.asked).map(|(id, _)| id.clone());
            oldest.map(|id| self.0.remove(&id));
        }
    }

    /// What is not answered, for a task manager that has the first process.
    pub(super) fn requests(&self, manager: &Manager, task_manager: &str) -> Vec<Request> {
        let is_here = |one: &Trigger| {
            if let Some(of) = &one.of {
                return of == task_manager;
            }
            let attempt = &one.attempt;
            let job = manager.jobs().get(&attempt.job).filter(|job| job.attempt() == *attempt);
            job.and_then(|job| job.members().first()).is_some_and(|first| first.task_manager == task_manager)
        };
        let open = self.0.iter().filter(|(_, one)| one.answer.is_none() && is_here(one));
        open.map(|(id, one)| Request { id: id.clone(), attempt: one.attempt.clone(), ask: one.ask.clone() }).collect()
    }

    /// What a job's first process has said.
    pub(super) fn answered(&mut self, answered: &Answered) {
        let Some(trigger) = self.0.get_mut(&answered.id) else { return };
        trigger.answer = Some(answered.answers.clone());
    }

    /// As Flink shows it; none: there is no such request of that job.
    pub(super) fn show(&self, job: &str, id: &str, manager: &Manager) -> Option<Value> {
        let trigger = self.0.get(id).filter(|trigger| trigger.attempt.job == job)?;
        let failed = |why: &str| {
            json!({"status": {"id": "COMPLETED"},
                "operation": {"failure-cause": {"class": "standpipe", "stack-trace": why, "serialized-throwable": ""}}})
        };
        Some(match trigger.answer.as_ref().map(savepoint) {
            Some(Ok(number)) => json!({"status": {"id": "COMPLETED"}, "operation": {"location": number.to_string()}}),
            Some(Err(why)) => failed(&why),
            // Its process is gone, and whoever had been asked with it.
            None if manager.jobs().get(job).is_none_or(|job| job.attempt() != trigger.attempt || job.is_over()) => {
                failed("the process that was asked has ended")
            }
            None => json!({"status": {"id": "IN_PROGRESS"}, "operation": null}),
        })
    }
}

/// The number of the savepoint that a job's process has said, or why there is none.
fn savepoint(answers: &Result<Vec<Value>, String>) -> Result<u64, String> {
    let answers = answers.as_ref().map_err(Clone::clone)?;
    let text = |answer: &Value, key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = answers.iter().find_map(|answer| answer.get("savepoint").and_then(Value::as_u64));
    let refused = answers.iter().find_map(|answer| text(answer, "refused").or_else(|| text(answer, "failed")));
    number.ok_or_else(|| refused.unwrap_or_else(|| "the job has ended without an answer".to_owned()))
}
