//! Savepoints, stops and the like that users have asked for: requests to the first process of a job, which its task manager passes on, and what became of them. They are
//! kept with the jobs: a manager that was started again knows whom it has asked, and what was answered.

use crate::{
    manager::{Job, Manager, Millis},
    protocol::{Answered, Attempt, COLLECT, LOG, Request, TAP, TaskManagerId},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Of those that are answered, so many are remembered.
const MOST_ANSWERED: usize = 1_000;
/// Of a job, so many may be open.
const MOST_OPEN: usize = 20;
/// What a process has answered last comes with its end or a little later.
const LATE: Millis = 5_000;

/// Something that was asked of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Of whom.
    attempt: Attempt,
    /// A task manager that is asked itself; none: whichever has the job's first process.
    of: Option<TaskManagerId>,
    asked: Millis,
    ask: Value,
    answer: Option<Result<Vec<Value>, String>>,
    /// When it was found that nobody is there to answer.
    gone: Option<Millis>,
}

impl Trigger {
    /// For the first process of an attempt, in the words of its control socket.
    #[must_use]
    pub const fn new(attempt: Attempt, ask: Value, asked: Millis) -> Self {
        Self { attempt, of: None, asked, ask, answer: None, gone: None }
    }

    /// For a task manager: what the workers of a job have written.
    #[must_use]
    pub fn of_log(attempt: Attempt, of: TaskManagerId, asked: Millis) -> Self {
        Self { of: Some(of), ..Self::new(attempt, json!({"do": LOG}), asked) }
    }

    /// For a task manager: rows of a sink, from a number on, once there are some or after so many milliseconds.
    #[must_use]
    pub fn of_rows(attempt: Attempt, of: TaskManagerId, (node, from, wait): (&str, u64, u64), asked: Millis) -> Self {
        let ask = json!({"do": COLLECT, "node": node, "from": from, "wait": wait});
        Self { of: Some(of), ..Self::new(attempt, ask, asked) }
    }

    /// For a task manager: rows that pass in its process of a job, in the words of that one's control socket.
    #[must_use]
    pub fn of_tap(attempt: Attempt, of: TaskManagerId, look: &Value, asked: Millis) -> Self {
        let mut ask = look.clone();
        if let Some(ask) = ask.as_object_mut() {
            ask.insert("do".to_owned(), TAP.into());
        }
        Self { of: Some(of), ..Self::new(attempt, ask, asked) }
    }

    /// Somebody waits for it, and asks again if nothing comes: it is not kept.
    const fn is_passing(&self) -> bool {
        self.of.is_some()
    }

    /// What was asked for, if it has been had; or why not. None: it is still to come.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Savepoint, String>> {
        self.answer.as_ref().map(savepoint)
    }
}

/// A savepoint or checkpoint that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Savepoint {
    /// Its number.
    pub number: u64,
    /// A path or URL that `run --restore` takes.
    pub place: String,
}

/// Why something is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// Of another job.
    #[error("a request of that id was made of another job")]
    Taken,
    /// There are enough.
    #[error("{MOST_OPEN} requests of this job are not answered yet")]
    Many,
}

/// By their ids.
#[derive(Default)]
pub struct Triggers {
    all: BTreeMap<String, Trigger>,
    changed: BTreeSet<String>,
}

impl Triggers {
    /// Those that were kept.
    #[must_use]
    pub fn new(kept: impl IntoIterator<Item = (String, Trigger)>) -> Self {
        Self { all: kept.into_iter().collect(), changed: BTreeSet::new() }
    }

    /// Asks; `false`: the very same was asked before, and is not asked twice.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn ask(&mut self, id: String, trigger: Trigger) -> Result<bool, TriggerError> {
        if let Some(before) = self.all.get(&id) {
            return if before.attempt.job == trigger.attempt.job { Ok(false) } else { Err(TriggerError::Taken) };
        }
        let open =
            self.all.values().filter(|one| one.answer.is_none() && !one.is_passing() && one.attempt.job == trigger.attempt.job).count();
        if open >= MOST_OPEN && !trigger.is_passing() {
            return Err(TriggerError::Many);
        }
        self.change(&id, &trigger);
        self.all.insert(id, trigger);
        let answered = self.all.iter().filter(|(_, one)| one.answer.is_some());
        if answered.clone().count() > MOST_ANSWERED
            && let Some(oldest) = answered.min_by_key(|(_, one)| one.asked).map(|(id, _)| id.clone())
        {
            self.give_up(&oldest);
        }
        Ok(true)
    }

    /// Whether something was asked of a job's processes that is not answered.
    #[must_use]
    pub fn has_open(&self, job: &str) -> bool {
        self.all.values().any(|one| one.answer.is_none() && !one.is_passing() && one.attempt.job == job)
    }

    /// Where the savepoint is that a job was stopped with. Those that it was begun again from, with another parallelism, are of former attempts.
    #[must_use]
    pub fn stopped_with(&self, job: &Job) -> Option<String> {
        let last = job.attempt();
        let of_last = |one: &&Trigger| one.attempt == last && one.ask.get("do").and_then(Value::as_str) == Some("stop");
        let taken = self.all.values().filter(of_last).filter_map(|one| Some((one.asked, one.outcome()?.ok()?.place)));
        taken.max().map(|(_, place)| place)
    }

    /// Whether the job has been asked to stop, and has not answered.
    #[must_use]
    pub fn is_stopping(&self, job: &str) -> bool {
        let is_stop = |one: &Trigger| one.ask.get("do").and_then(Value::as_str) == Some("stop");
        self.all.values().any(|one| one.answer.is_none() && one.attempt.job == job && is_stop(one))
    }

    fn change(&mut self, id: &str, trigger: &Trigger) {
        if !trigger.is_passing() {
            self.changed.insert(id.to_owned());
        }
    }

    /// What has come, once; none: nothing yet.
    pub fn take(&mut self, id: &str) -> Option<Result<Vec<Value>, String>> {
        self.all.get(id)?.answer.as_ref()?;
        self.all.remove(id)?.answer
    }

    /// Nobody waits for it any more.
    pub fn give_up(&mut self, id: &str) {
        if let Some(trigger) = self.all.remove(id) {
            self.change(id, &trigger);
        }
    }

    /// Those of jobs that are forgotten.
    pub fn forget(&mut self, is_forgotten: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.all.iter().filter(|(_, one)| is_forgotten(&one.attempt.job)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.give_up(id));
    }

    /// One of a job.
    #[must_use]
    pub fn get(&self, job: &str, id: &str) -> Option<&Trigger> {
        self.all.get(id).filter(|trigger| trigger.attempt.job == job)
    }

    /// What is to be kept or forgotten since it was asked last; none: forgotten.
    pub fn changed(&mut self) -> Vec<(String, Option<Trigger>)> {
        std::mem::take(&mut self.changed).into_iter().map(|id| (id.clone(), self.all.get(&id).cloned())).collect()
    }

    /// What is not answered, for a task manager that has the first process.
    #[must_use]
    pub fn requests(&self, manager: &Manager, task_manager: &str) -> Vec<Request> {
        let is_here = |one: &Trigger| match &one.of {
            Some(of) => of == task_manager,
            None => of_first(manager, &one.attempt).is_some_and(|first| first == task_manager),
        };
        let open = self.all.iter().filter(|(_, one)| one.answer.is_none() && is_here(one));
        open.map(|(id, one)| Request { id: id.clone(), attempt: one.attempt.clone(), ask: one.ask.clone() }).collect()
    }

    /// What a job's first process has said, or its task manager.
    pub fn answered(&mut self, answered: &Answered) {
        let Some(trigger) = self.all.get_mut(&answered.id).filter(|trigger| trigger.answer.is_none()) else { return };
        trigger.answer = Some(answered.answers.clone());
        let trigger = trigger.clone();
        self.change(&answered.id, &trigger);
    }

    /// Whoever could have answered is gone: after a while that is the answer. Gives those of which that is so now, and of which an answer is a refusal: id and job.
    pub fn settle(&mut self, manager: &Manager, now: Millis) {
        let mut lost = Vec::new();
        for (id, one) in &mut self.all {
            if one.answer.is_some() || one.is_passing() || of_first(manager, &one.attempt).is_some() {
                continue;
            }
            if now >= one.gone.get_or_insert(now).saturating_add(LATE) {
                one.answer = Some(Err("the process that was asked has ended".to_owned()));
                lost.push(id.clone());
            }
        }
        self.changed.extend(lost);
    }
}

/// The task manager that has the first process of an attempt.
fn of_first<'a>(manager: &'a Manager, attempt: &Attempt) -> Option<&'a TaskManagerId> {
    let job: &Job = manager.jobs().get(&attempt.job).filter(|job| job.attempt() == *attempt)?;
    job.members().first().filter(|first| first.gone.is_none()).map(|first| &first.task_manager)
}

/// The savepoint that a job's process has said, or why there is none.
fn savepoint(answers: &Result<Vec<Value>, String>) -> Result<Savepoint, String> {
    let answers = answers.as_ref().map_err(Clone::clone)?;
    let text = |answer: &Value, key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    let taken = answers.iter().find_map(|answer| Savepoint::deserialize(answer.get("savepoint")?).ok());
    let refused = answers.iter().find_map(|answer| text(answer, "refused").or_else(|| text(answer, "failed")));
    taken.ok_or_else(|| refused.unwrap_or_else(|| "the job has ended without an answer".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manager::{Settings, job_for_tests},
        protocol::{Beat, Version},
    };

    fn attempt(number: u32) -> Attempt {
        Attempt { job: "j".to_owned(), term: 1, number }
    }

    /// With a job that runs on `tm`.
    fn manager() -> Manager {
        let mut manager = Manager::new(Settings::default(), 1, [], 0).0;
        let beat = Beat {
            slots: 1,
            host: String::new(),
            pid: 1,
            seen: Version::default(),
            workers: Vec::new(),
            leaving: false,
            answers: Vec::new(),
        };
        manager.beat("tm", &beat, 0, 0.5);
        manager.submit(job_for_tests("j"), 0);
        manager
    }

    #[test]
    fn a_request_is_passed_on_until_it_is_answered_and_is_not_asked_twice() {
        let (manager, mut triggers) = (manager(), Triggers::default());
        let ask = || Trigger::new(attempt(0), json!({"do": "savepoint"}), 1);
        assert_eq!(triggers.ask("a".to_owned(), ask()), Ok(true));
        assert_eq!(triggers.ask("a".to_owned(), ask()), Ok(false));
        let other = Trigger { attempt: Attempt { job: "other".to_owned(), term: 1, number: 0 }, ..ask() };
        assert_eq!(triggers.ask("a".to_owned(), other), Err(TriggerError::Taken));
        assert_eq!((triggers.requests(&manager, "tm").len(), triggers.requests(&manager, "another").len()), (1, 0));
        assert_eq!(triggers.changed().len(), 1);
        let answers = Ok(vec![json!({"savepoint": {"number": 4, "place": "/x"}})]);
        triggers.answered(&Answered { id: "a".to_owned(), answers });
        // The first answer holds.
        triggers.answered(&Answered { id: "a".to_owned(), answers: Err("late".to_owned()) });
        let expected = Savepoint { number: 4, place: "/x".to_owned() };
        assert_eq!(triggers.get("j", "a").unwrap().outcome(), Some(Ok(expected)));
        assert!(triggers.requests(&manager, "tm").is_empty() && triggers.get("other", "a").is_none());
        let kept = triggers.changed();
        assert_eq!((kept.len(), triggers.changed().len()), (1, 0));
        triggers.forget(|job| job == "j");
        assert_eq!(triggers.changed(), [("a".to_owned(), None)]);
    }

    #[test]
    fn a_process_that_is_gone_has_a_moment_to_have_answered() {
        let (mut manager, mut triggers) = (manager(), Triggers::default());
        triggers.ask("a".to_owned(), Trigger::new(attempt(0), json!({"do": "savepoint"}), 1)).unwrap();
        triggers.settle(&manager, 1_000_000);
        manager.cancel("j", 2);
        let (now, random) = (60_000, 0.5);
        manager.wake(now, random);
        triggers.settle(&manager, now);
        triggers.settle(&manager, now + LATE - 1);
        assert_eq!(triggers.get("j", "a").unwrap().outcome(), None);
        triggers.settle(&manager, now + LATE);
        assert_eq!(triggers.get("j", "a").unwrap().outcome(), Some(Err("the process that was asked has ended".to_owned())));
    }

    #[test]
    fn a_savepoint_of_a_former_attempt_is_not_what_the_job_was_stopped_with() {
        let mut triggers = Triggers::default();
        let mut job = job_for_tests("j");
        let stop = |triggers: &mut Triggers, job: &Job, id: &str, place: &str| {
            triggers.ask(id.to_owned(), Trigger::new(job.attempt(), json!({"do": "stop", "savepoint": true}), 1)).unwrap();
            let answers = Ok(vec![json!({"savepoint": {"number": 4, "place": place}})]);
            triggers.answered(&Answered { id: id.to_owned(), answers });
        };
        job.begin_for_tests();
        stop(&mut triggers, &job, "rescale", "/former");
        assert_eq!(triggers.stopped_with(&job).as_deref(), Some("/former"));
        job.begin_for_tests();
        assert_eq!(triggers.stopped_with(&job), None);
        stop(&mut triggers, &job, "stop", "/last");
        assert_eq!(triggers.stopped_with(&job).as_deref(), Some("/last"));
    }

    #[test]
    fn requests_have_a_limit() {
        let mut triggers = Triggers::default();
        let ask = || Trigger::new(attempt(0), json!({"do": "savepoint"}), 1);
        for i in 0..MOST_OPEN {
            triggers.ask(i.to_string(), ask()).unwrap();
        }
        assert_eq!(triggers.ask("x".to_owned(), ask()), Err(TriggerError::Many));
        for i in 0..2 * MOST_ANSWERED {
            let id = format!("log{i}");
            triggers.ask(id.clone(), Trigger::of_log(attempt(0), "tm".to_owned(), 2)).unwrap();
            triggers.answered(&Answered { id, answers: Ok(Vec::new()) });
        }
        assert!(triggers.all.len() <= MOST_ANSWERED + MOST_OPEN + 1);
    }
}
