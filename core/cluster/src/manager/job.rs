//! A job as the manager knows it, and as it is kept for the manager that comes after a crash.

use crate::{
    bundle::Bundle,
    ends::{self, Ended},
    protocol::{Attempt, Go, JobId, Ready, TaskManagerId, Version},
    restarts::Restarts,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use standpipe_pipeline::RestartStrategy;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Milliseconds since 1970, by a clock that does not jump while the manager runs.
pub type Millis = u64;

/// Attempts that are remembered.
const MOST_ATTEMPTS: usize = 100;
/// Checkpoints that are remembered.
const MOST_CHECKPOINTS: usize = 50;
/// Before a job begins again that another process has taken over: two managers that both live would take it from each other without a pause.
const TAKEN_OVER: Millis = 5_000;

/// What is known of a pipeline before it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Slots that it needs.
    pub slots: u32,
    /// When it is started again.
    pub restart: RestartStrategy,
    /// Whether it takes checkpoints.
    pub checkpoints: bool,
    /// All its sources end.
    #[serde(default)]
    pub bounded: bool,
    /// In topological order.
    pub nodes: Vec<PlannedNode>,
    /// What the engine runs it with, for people.
    #[serde(default)]
    pub settings: Vec<Setting>,
}

/// A setting of the job as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As a pipeline file has it: `engine.batch_rows`.
    pub key: String,
    /// As it is written; no secret is in it.
    pub value: String,
    /// Who has said so: `deployment`, `pipeline`, `default`.
    pub origin: String,
}

/// A node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedNode {
    /// `transforms.stats`.
    pub path: String,
    /// `source`, `transform`, `sink`.
    pub role: String,
    /// Subtasks.
    pub parallelism: u32,
    /// Paths of the nodes before it, with how rows come from there: `forward`, `rebalance`, `hash`.
    pub inputs: Vec<(String, String)>,
    /// A sink whose rows users collect.
    #[serde(default)]
    pub collects: bool,
    /// Of a node that runs the code of one.
    #[serde(default)]
    pub plugin: Option<PlannedPlugin>,
}

/// The plugin of a node of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPlugin {
    /// The kind with its version: `kafka@1.2.3`.
    pub kind: String,
    /// The plugin's name.
    pub plugin: String,
    /// The SHA-256 of its file's content, 64 hexadecimal digits.
    pub sha256: String,
}

/// What a job is to become when it has stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    /// The request that it was asked to stop by.
    pub trigger: String,
    /// As `run --parallelism`.
    pub parallelism: u32,
    /// With that parallelism.
    pub planned: Planned,
}

/// How a job is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its sources have ended, or it was stopped.
    Finished,
    /// Somebody has ended it.
    Canceled,
    /// It has failed and is not started again.
    Failed,
}

/// A process of the attempt that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Who has it.
    pub task_manager: TaskManagerId,
    /// Of that one, for people.
    pub host: String,
    /// Its slots.
    pub slots: u32,
    /// How it has ended; none: it may be running.
    pub gone: Option<Ended>,
    /// It has said so.
    #[serde(skip)]
    pub ready: Option<Ready>,
    /// It was heard to run.
    #[serde(skip)]
    pub running: bool,
    /// The first orders of this manager in which it was, or was not any more.
    #[serde(skip)]
    pub ordered: Version,
}

/// Why no process of an attempt is to run any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Killed {
    /// One of them has ended, and the others had their time.
    Grace,
    /// Somebody wanted it.
    Cancelled,
    /// By no fault of the job's: it is begun anew.
    Anew(String),
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// For slots.
    Waiting,
    /// Before it is started again.
    Pausing {
        /// Until then.
        until: Millis,
    },
    /// Processes of it may be running.
    Deployed {
        /// By process.
        members: Vec<Member>,
        /// All have begun, and have heard where the others are.
        running: bool,
        /// One has ended: the others are killed when this time has come.
        deadline: Option<Millis>,
        /// No process is to run any more: why.
        killed: Option<Killed>,
        /// What they are told once all are ready. It is not kept: it has secrets in it, and an attempt that has not got it all is begun anew.
        #[serde(skip)]
        go: Vec<Go>,
    },
    /// For ever.
    Over(Outcome),
}

/// One start of a job, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// From 0.
    pub number: u32,
    /// When its processes were ordered.
    pub begun: Millis,
    /// When the last of them was gone.
    pub ended: Option<Millis>,
    /// Where: host and task manager of every process.
    pub placed: Vec<(String, TaskManagerId)>,
    /// Why it is no more, if it did not end well.
    pub why: Option<String>,
}

/// What is known of what happened to a job before it came to this manager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Past {
    /// Nothing has: whoever submits it has just made its id.
    #[default]
    None,
    /// Another manager, whose data are lost, may have run it.
    Unknown,
    /// It has run.
    Begun,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// 32 hexadecimal digits.
    pub id: JobId,
    /// The generation of the manager that took it.
    #[serde(default)]
    pub term: u64,
    /// What is known of a manager that may have run it before, and whose data are lost.
    #[serde(default)]
    pub past: Past,
    /// What it is made of.
    #[serde(with = "crate::bundle::shared")]
    pub bundle: Arc<Bundle>,
    /// See there.
    pub planned: Planned,
    /// When it came.
    pub submitted: Millis,
    /// When its stage changed last.
    pub changed: Millis,
    /// See there.
    pub stage: Stage,
    /// The number of the next attempt.
    pub next_attempt: u32,
    /// The last ones, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// Its `restart:`.
    pub strategy: Restarts,
    /// Somebody wants its end at once.
    pub cancelled: bool,
    /// Somebody wants another parallelism, and its processes are being asked to stop for it.
    #[serde(default)]
    pub rescale: Option<Rescale>,
    /// The last of its checkpoints, by number, as the status of its processes has told of them.
    #[serde(default)]
    pub checkpoints: BTreeMap<u64, Value>,
    /// Of former attempts: durable ones, and those that were given up.
    #[serde(default)]
    pub former_checkpoints: (u64, u64),
    /// Of the first process, as it was heard last. Not kept: the next one is heard soon.
    #[serde(skip)]
    pub status: Option<Value>,
    /// The same of a job that is over, of which nothing is heard any more.
    #[serde(default)]
    pub last_status: Option<Value>,
}

impl Job {
    /// One that has just come.
    #[must_use]
    pub fn new(id: JobId, bundle: Bundle, planned: Planned, now: Millis) -> Self {
        let strategy = Restarts::new(planned.restart.clone());
        Self {
            id,
            term: 0,
            past: Past::None,
            bundle: Arc::new(bundle),
            planned,
            submitted: now,
            changed: now,
            stage: Stage::Waiting,
            next_attempt: 0,
            attempts: Vec::new(),
            restarts: 0,
            strategy,
            cancelled: false,
            rescale: None,
            checkpoints: BTreeMap::new(),
            former_checkpoints: (0, 0),
            status: None,
            last_status: None,
        }
    }

    /// It has run under another manager: what may still run of that has ended by itself at `until`, and it goes on from there.
    pub(super) fn resume(&mut self, until: Millis, now: Millis) {
        // The next attempt is not its first one.
        (self.past, self.next_attempt) = (Past::Begun, self.next_attempt.max(1));
        (self.stage, self.changed) = (Stage::Pausing { until }, now);
    }

    /// The attempt that runs, or ran last.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt { job: self.id.clone(), term: self.term, number: self.next_attempt.saturating_sub(1) }
    }

    /// It does not change any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_))
    }

    /// The processes that may be running.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match &self.stage {
            Stage::Deployed { members, .. } => members,
            _ => &[],
        }
    }

    /// In the words of Flink.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let again = self.next_attempt > 1;
        let is_done = |members: &[Member]| members.first().and_then(|first| first.gone.as_ref()).is_some_and(Ended::is_success);
        match &self.stage {
            Stage::Over(Outcome::Finished) => "FINISHED",
            Stage::Over(Outcome::Canceled) => "CANCELED",
            Stage::Over(Outcome::Failed) => "FAILED",
            _ if self.cancelled => "CANCELLING",
            Stage::Pausing { .. } => "RESTARTING",
            Stage::Waiting if self.next_attempt > 0 => "RESTARTING",
            Stage::Waiting => "CREATED",
            // The others are about to end too.
            Stage::Deployed { members, deadline: Some(_), .. } if is_done(members) => "RUNNING",
            Stage::Deployed { deadline: Some(_), .. } => "FAILING",
            Stage::Deployed { running: true, killed: None, .. } => "RUNNING",
            Stage::Deployed { .. } if again => "RESTARTING",
            Stage::Deployed { .. } => "INITIALIZING",
        }
    }

    /// Why it has failed, or why it is not running, if it is not: of the last attempt.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.attempts.last().and_then(|attempt| attempt.why.as_deref())
    }

    /// The time at which it was over.
    #[must_use]
    pub const fn ended(&self) -> Option<Millis> {
        if self.is_over() { Some(self.changed) } else { None }
    }

    /// How its first process does.
    pub(crate) fn hear_status(&mut self, mut status: Value) {
        // It is kept here, longer than any process lives.
        let history = status.pointer_mut("/checkpoints/history").map(Value::take);
        for past in history.as_ref().and_then(Value::as_array).into_iter().flatten() {
            if let Some(id) = past.get("id").and_then(Value::as_u64) {
                self.checkpoints.insert(id, past.clone());
            }
        }
        while self.checkpoints.len() > MOST_CHECKPOINTS {
            self.checkpoints.pop_first();
        }
        self.status = Some(status);
    }

    fn counted(&self, key: &str) -> u64 {
        let checkpoints = self.status.as_ref().and_then(|status| status.get("checkpoints"));
        checkpoints.and_then(|checkpoints| checkpoints.get(key)).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Durable ones, of all attempts.
    #[must_use]
    pub fn completed_checkpoints(&self) -> u64 {
        self.former_checkpoints.0.saturating_add(self.counted("completed"))
    }

    /// Those that were given up, of all attempts.
    #[must_use]
    pub fn failed_checkpoints(&self) -> u64 {
        self.former_checkpoints.1.saturating_add(self.counted("failed"))
    }

    #[cfg(test)]
    pub(crate) fn begin_for_tests(&mut self) {
        self.begin_attempt(Vec::new(), 0);
    }

    pub(super) fn begin_attempt(&mut self, members: Vec<Member>, now: Millis) {
        let placed = members.iter().map(|member| (member.host.clone(), member.task_manager.clone())).collect();
        self.attempts.push(AttemptRecord { number: self.next_attempt, begun: now, ended: None, placed, why: None });
        if self.attempts.len() > MOST_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.next_attempt += 1;
        self.changed = now;
        self.former_checkpoints = (self.completed_checkpoints(), self.failed_checkpoints());
        self.status = None;
        self.stage = Stage::Deployed { members, running: false, deadline: None, killed: None, go: Vec::new() };
    }

    /// All processes of the attempt are gone: what becomes of the job. `random` is from 0 to 1.
    pub(super) fn end_attempt(&mut self, now: Millis, random: f64) {
        let Stage::Deployed { members, killed, .. } = &self.stage else { return };
        let processes = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let ends: Vec<Ended> = members.iter().filter_map(|member| member.gone.clone()).collect();
        let mut decisive = ends::decisive(&ends).cloned();
        let killed = killed.clone();
        if let (Some(Killed::Anew(why)), Some(ended), false) = (&killed, &mut decisive, self.planned.checkpoints)
            && !ended.is_success()
        {
            // It would begin with nothing again: that is a failure, as if its processes had been lost.
            *ended = Ended::lost(ended.process, true, why.clone());
        }
        let rescale = self.rescale.take();
        let (stage, why) = match (decisive, killed) {
            (Some(ended), _) if ended.is_success() && !ended.killed => match rescale.filter(|_| !self.cancelled) {
                Some(rescale) => {
                    self.become_rescaled(rescale);
                    (Stage::Waiting, None)
                }
                None => (Stage::Over(Outcome::Finished), None),
            },
            _ if self.cancelled => (Stage::Over(Outcome::Canceled), None),
            (_, Some(Killed::Anew(why))) if self.planned.checkpoints => (Stage::Waiting, Some(why)),
            (None, _) => (Stage::Waiting, None),
            (Some(ended), _) if self.is_taken_over(&ended) => {
                (Stage::Pausing { until: now.saturating_add(TAKEN_OVER) }, Some("another process of the job has taken it over".to_owned()))
            }
            (Some(ended), _) => {
                let (stage, why) = self.after_failure(&ended, processes, now, random);
                (stage, why.map(|why| with_what_was_said(why, &ended, &ends)))
            }
        };
        if let Some(attempt) = self.attempts.last_mut() {
            (attempt.ended, attempt.why) = (Some(now), why);
        }
        if matches!(stage, Stage::Over(_)) {
            self.last_status = self.status.clone();
        }
        (self.stage, self.changed) = (stage, now);
    }

    /// Whether another process has taken the job over that may be one of its own, under a manager that was given up and still lives. The next start finds out: one that finds another
    /// job there is refused for that.
    fn is_taken_over(&self, ended: &Ended) -> bool {
        self.past != Past::None && !ended.killed && !ended.lost && ended.status().code() == Some(ends::SUPERSEDED)
    }

    /// An attempt has not ended well: whether there is another one, and why.
    fn after_failure(&mut self, ended: &Ended, processes: u32, now: Millis, random: f64) -> (Stage, Option<String>) {
        let Some(why) = ended.failure(processes, self.attempt().number) else {
            let how = || format!("its process has ended: {}", ended.status());
            return (Stage::Over(Outcome::Failed), Some(ended.said.clone().filter(|said| !said.is_empty()).unwrap_or_else(how)));
        };
        let begun = self.attempts.last().map_or(now, |attempt| attempt.begun);
        let ran = Duration::from_millis(now.saturating_sub(begun));
        let Some(wait) = self.strategy.failed(Duration::from_millis(now), ran, random) else {
            return (Stage::Over(Outcome::Failed), Some(why));
        };
        self.restarts += 1;
        (Stage::Pausing { until: now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)) }, Some(why))
    }

    /// It has stopped: what it goes on as.
    fn become_rescaled(&mut self, rescale: Rescale) {
        let mut bundle = Bundle::clone(&self.bundle);
        bundle.options.parallelism = Some(rescale.parallelism);
        (self.bundle, self.planned) = (Arc::new(bundle), rescale.planned);
    }
}

/// A loss is taken to be what the others have failed of. What one of them has said of its own end is kept beside it: it may have been the cause.
fn with_what_was_said(why: String, decisive: &Ended, ends: &[Ended]) -> String {
    let of_itself = |other: &&Ended| decisive.lost && !other.lost && !other.killed && !other.is_success();
    match ends.iter().find(of_itself).and_then(|other| Some((other.process, other.said.as_deref()?))) {
        Some((process, said)) => format!("{why}\nprocess {process} had ended before: {said}"),
        None => why,
    }
}
