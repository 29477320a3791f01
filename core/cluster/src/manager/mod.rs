//! Where jobs run: decisions alone. What task managers and users say comes in, what is to be kept and told goes out; the clock, the disk and the network are elsewhere,
//! so that a test can go through every order of events.
//!
//! Nothing runs twice: an attempt of a job is begun only when every process of the one before is gone. A process is gone when its task manager has said so, or has followed
//! orders without it and does not have it, or has not been heard of for a lease, after which it has ended its processes itself: it counts the lease from when it sent what was
//! answered last, so it is always the first to know.
//!
//! Nothing is lost: what is decided is kept ([`Action::Save`]) before anybody is told. A manager that was started again orders what it finds to be running as it was, and
//! waits for a lease for the task managers that have it.

mod job;
mod scheduling;

pub use job::{AttemptRecord, Job, Killed, Member, Millis, Outcome, Past, Planned, PlannedNode, PlannedPlugin, Rescale, Setting, Stage};

use crate::{
    ends::Ended,
    protocol::{Attempt, Beat, Go, JobId, Order, Orders, Phase, TaskManagerId, Version, Worker},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Of what a process has said of its errors, in characters: it is kept for every attempt.
const LONGEST_SAID: usize = 16 << 10;

/// What a task manager has said before its farewell may come after it, for so long.
const LATE_BEATS: Millis = 600_000;

/// How long, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A task manager that is not heard of for so long is lost.
    pub lease: Millis,
    /// Processes of a job have so long to end when another one of them has.
    pub grace: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lease: 15_000, grace: 2_000 }
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep the job as it is now.
    Save(JobId),
    /// All processes are ready: make a secret for them, and say [`Manager::introduce`].
    Introduce {
        /// Of what.
        attempt: Attempt,
        /// Where they listen, by process.
        addresses: Vec<SocketAddr>,
        /// Of the first one.
        taken_over: Option<Value>,
    },
}

/// A task manager that is heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskManager {
    /// As it says.
    pub slots: u32,
    /// As it says.
    pub host: String,
    /// As it says.
    pub pid: u32,
    /// When it came.
    pub since: Millis,
    /// When it was heard of last.
    pub heard: Millis,
    /// It has been heard of since this manager was started.
    pub known: bool,
    /// It came with orders of another start of the manager, or of another manager.
    pub has_followed_another: bool,
    /// Jobs of which it still runs what another manager has begun.
    pub of_others: BTreeSet<JobId>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Manager {
    settings: Settings,
    begun: Millis,
    version: Version,
    task_managers: BTreeMap<TaskManagerId, TaskManager>,
    /// Those that have said farewell, and when: whoever comes back has another id.
    left: BTreeMap<TaskManagerId, Millis>,
    jobs: BTreeMap<JobId, Job>,
}

impl Manager {
    /// A manager that was never started before with that generation, and the jobs that were kept.
    #[must_use]
    pub fn new(settings: Settings, generation: u64, jobs: impl IntoIterator<Item = Job>, now: Millis) -> (Self, Vec<Action>) {
        let version = Version { generation, number: 1 };
        let jobs = jobs.into_iter().map(|job| (job.id.clone(), job)).collect();
        let mut manager = Self { settings, begun: now, version, task_managers: BTreeMap::new(), left: BTreeMap::new(), jobs };
        let mut actions = Vec::new();
        for job in manager.jobs.values_mut() {
            job.status = job.last_status.clone();
            // The clock may have been put back meanwhile: nobody waits for longer than was meant.
            match &mut job.stage {
                Stage::Pausing { until } => *until = (*until).min(now.saturating_add(until.saturating_sub(job.changed))),
                Stage::Deployed { deadline: Some(deadline), .. } => *deadline = (*deadline).min(now.saturating_add(settings.grace)),
                _ => {}
            }
            let Stage::Deployed { members, running, killed, .. } = &mut job.stage else { continue };
            for member in members.iter_mut() {
                member.ordered = version;
                let unheard = TaskManager {
                    slots: 0,
                    host: member.host.clone(),
                    pid: 0,
                    since: now,
                    heard: now,
                    known: false,
                    has_followed_another: false,
                    of_others: BTreeSet::new(),
                };
                manager.task_managers.entry(member.task_manager.clone()).or_insert(unheard);
            }
            if !*running && killed.is_none() && members.len() > 1 {
                // Some of its processes may have heard of each other, and some not.
                *killed = Some(Killed::Anew("the job manager was started again while the job was starting".to_owned()));
                actions.push(Action::Save(job.id.clone()));
            }
        }
        (manager, actions)
    }

    /// Changes with everything that a task manager is to know.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// All jobs, by id.
    #[must_use]
    pub const fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    /// Those that are heard of, or still may be.
    #[must_use]
    pub const fn task_managers(&self) -> &BTreeMap<TaskManagerId, TaskManager> {
        &self.task_managers
    }

    /// Slots that nothing runs in: of one task manager.
    #[must_use]
    pub fn free(&self, task_manager: &str) -> u32 {
        let members = self.jobs.values().flat_map(Job::members);
        let used: u32 =
            members.filter(|member| member.task_manager == task_manager && member.gone.is_none()).map(|member| member.slots).sum();
        self.task_managers.get(task_manager).map_or(0, |task_manager| task_manager.slots.saturating_sub(used))
    }

    /// Why a job does not run yet, if it waits for slots.
    #[must_use]
    pub fn waits(&self, job: &Job) -> Option<String> {
        if job.stage != Stage::Waiting {
            return None;
        }
        let free = self.task_managers.keys().map(|id| self.free(id)).fold(0, u32::saturating_add);
        Some(format!("needs {}, has {free}", job.planned.slots))
    }

    /// What a task manager is to run. A manager that has not kept its actions must not tell.
    #[must_use]
    pub fn orders(&self, task_manager: &str) -> Orders {
        let mut workers = Vec::new();
        for job in self.jobs.values() {
            let Stage::Deployed { members, killed: None, go, .. } = &job.stage else { continue };
            let slots: Vec<u32> = members.iter().map(|member| member.slots).collect();
            let of_it = |member: &Member| member.task_manager == task_manager && member.gone.is_none();
            for (process, _) in (0_u32..).zip(members).filter(|(_, member)| of_it(member)) {
                let go = go.get(process as usize).cloned();
                let (attempt, bundle) = (job.attempt(), job.bundle.clone());
                workers.push(Order {
                    attempt,
                    restarts: job.restarts,
                    resumes: job.past != Past::None,
                    process,
                    slots: slots.clone(),
                    bundle,
                    go,
                });
            }
        }
        Orders { version: self.version, lease_millis: self.settings.lease, workers, requests: Vec::new() }
    }

    /// When [`Self::wake`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let leases = self.task_managers.values().map(|task_manager| task_manager.heard.saturating_add(self.settings.lease));
        let jobs = self.jobs.values().filter_map(|job| match &job.stage {
            Stage::Pausing { until } => Some(*until),
            Stage::Deployed { deadline, killed: None, .. } => *deadline,
            _ => None,
        });
        leases.chain(jobs).min()
    }

    /// A job has come; its files are here.
    pub fn submit(&mut self, mut job: Job, now: Millis) -> Vec<Action> {
        let mut actions = vec![Action::Save(job.id.clone())];
        job.term = self.version.generation;
        let was_followed = |task_manager: &TaskManager| task_manager.has_followed_another;
        if job.past == Past::Begun || (job.past == Past::Unknown && self.task_managers.values().any(was_followed)) {
            job.resume(self.alone_from(), now);
        }
        self.jobs.insert(job.id.clone(), job);
        self.schedule(now, &mut actions);
        actions
    }

    /// Somebody wants the end of a job at once.
    pub fn cancel(&mut self, id: &str, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(job) = self.jobs.get_mut(id).filter(|job| !job.is_over() && !job.cancelled) else { return actions };
        job.cancelled = true;
        match &mut job.stage {
            Stage::Deployed { killed, members, .. } => {
                *killed = Some(Killed::Cancelled);
                self.version.number += 1;
                members.iter_mut().for_each(|member| member.ordered = self.version);
            }
            _ => (job.stage, job.changed) = (Stage::Over(Outcome::Canceled), now),
        }
        actions.push(Action::Save(id.to_owned()));
        self.schedule(now, &mut actions);
        actions
    }

    /// Somebody wants a job that runs to have another parallelism: it is being asked to stop with a savepoint, and is begun anew from there when it has.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn rescale(&mut self, id: &str, rescale: Rescale) -> Result<Vec<Action>, String> {
        let Some(job) = self.jobs.get(id) else { return Err("there is no such job".to_owned()) };
        if job.state() != "RUNNING" {
            return Err(format!("the job is {}; only a job that is RUNNING can be rescaled", job.state()));
        }
        if !matches!(&job.stage, Stage::Deployed { deadline: None, killed: None, .. }) {
            return Err("the job is about to end".to_owned());
        }
        if !job.planned.checkpoints {
            return Err("the pipeline takes no checkpoints, so it could not go on: add checkpoint: {interval: 10s}".to_owned());
        }
        if let Some(other) = &job.rescale {
            return Err(format!("the job is being rescaled to a parallelism of {} already", other.parallelism));
        }
        let own: u32 = job.members().iter().map(|member| member.slots).sum();
        let has = self.task_managers.keys().map(|id| self.free(id)).fold(own, u32::saturating_add);
        if rescale.planned.slots > has {
            return Err(format!("needs {}, has {has} with its own: it would not run until there are more", rescale.planned.slots));
        }
        if let Some(job) = self.jobs.get_mut(id) {
            job.rescale = Some(rescale);
        }
        Ok(vec![Action::Save(id.to_owned())])
    }

    /// A job that was to be rescaled has not stopped: it stays as it is.
    pub fn give_up_rescale(&mut self, id: &str, trigger: &str) -> Vec<Action> {
        let is_it = |job: &Job| job.rescale.as_ref().is_some_and(|rescale| rescale.trigger == trigger);
        if self.jobs.get(id).is_some_and(is_it) { self.end_rescale(id) } else { Vec::new() }
    }

    /// A job that was to be rescaled is to be stopped instead: it is not begun again.
    pub fn end_rescale(&mut self, id: &str) -> Vec<Action> {
        let wanted = self.jobs.get_mut(id).and_then(|job| job.rescale.take());
        wanted.map(|_| Action::Save(id.to_owned())).into_iter().collect()
    }

    /// A job that is over is forgotten.
    pub fn forget(&mut self, id: &str) -> Option<Job> {
        self.jobs.get(id).filter(|job| job.is_over())?;
        self.jobs.remove(id)
    }

    /// The processes of an attempt may hear where the others are: one for each.
    pub fn introduce(&mut self, attempt: &Attempt, all: Vec<Go>) {
        let Some(job) = self.jobs.get_mut(&attempt.job).filter(|job| job.attempt() == *attempt) else { return };
        if let Stage::Deployed { go, killed: None, .. } = &mut job.stage {
            *go = all;
            self.version.number += 1;
        }
    }

    /// The clock says `now`; `random` is from 0 to 1.
    pub fn wake(&mut self, now: Millis, random: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        let lease = self.settings.lease;
        let is_lost = |task_manager: &TaskManager| now >= task_manager.heard.saturating_add(lease);
        let lost: Vec<TaskManagerId> = self.task_managers.iter().filter(|(_, one)| is_lost(one)).map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.lose(&id, &mut actions);
        }
        for job in self.jobs.values_mut() {
            match &mut job.stage {
                Stage::Pausing { until } if now >= *until => {
                    (job.stage, job.changed) = (Stage::Waiting, now);
                    actions.push(Action::Save(job.id.clone()));
                }
                _ => {}
            }
        }
        self.settle(now, random, &mut actions);
        self.schedule(now, &mut actions);
        actions
    }

    /// A task manager is not heard of any more: by now it has ended all that it ran.
    fn lose(&mut self, id: &str, actions: &mut Vec<Action>) {
        let host = self.task_managers.remove(id).map(|task_manager| task_manager.host).unwrap_or_default();
        for job in self.jobs.values_mut() {
            let Stage::Deployed { members, killed, .. } = &mut job.stage else { continue };
            // Where others were given their time since they have failed, it is what they have failed of.
            let is_ours = matches!(killed, Some(Killed::Cancelled | Killed::Anew(_)));
            for (process, member) in (0_u32..).zip(members).filter(|(_, member)| member.task_manager == id && member.gone.is_none()) {
                let seconds = self.settings.lease as f64 / 1000.0;
                let said = format!("task manager {id} on {host} has not been heard of for {seconds} s");
                member.gone = Some(Ended::lost(process, is_ours, said));
                self.version.number += 1;
                actions.push(Action::Save(job.id.clone()));
            }
        }
    }

    /// A task manager was stopped, and has ended all that it ran. That is no failure of a job that goes on from its last checkpoint.
    fn leave(&mut self, id: &str, now: Millis, actions: &mut Vec<Action>) {
        self.left.retain(|_, since| now < since.saturating_add(LATE_BEATS));
        if self.task_managers.remove(id).is_some() {
            self.left.insert(id.to_owned(), now);
        }
        self.version.number += 1;
        for job in self.jobs.values_mut() {
            let Stage::Deployed { members, killed, .. } = &mut job.stage else { continue };
            let mut is_hit = false;
            for (process, member) in
                (0_u32..).zip(members.iter_mut()).filter(|(_, member)| member.task_manager == id && member.gone.is_none())
            {
                member.gone = Some(Ended::lost(process, killed.is_some(), format!("task manager {id} was stopped")));
                is_hit = true;
            }
            if is_hit && killed.is_none() {
                *killed = Some(Killed::Anew(format!("task manager {id} was stopped")));
                members.iter_mut().for_each(|member| member.ordered = self.version);
            }
            if is_hit {
                actions.push(Action::Save(job.id.clone()));
            }
        }
    }

    /// A task manager says how it does; `random` is from 0 to 1.
    pub fn beat(&mut self, id: &str, beat: &Beat, now: Millis, random: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        if beat.leaving {
            self.leave(id, now, &mut actions);
            self.settle(now, random, &mut actions);
            self.schedule(now, &mut actions);
            return actions;
        }
        if self.left.contains_key(id) {
            // It was overtaken, or its client had given it up: nobody is there any more.
            return actions;
        }
        let known = self.task_managers.get(id);
        let since = known.map_or(now, |known| known.since);
        let has_followed_another = match known {
            Some(known) => known.has_followed_another,
            // Of the data of this one the generations only grow, and each is known from its start.
            None => beat.seen != Version::default() && beat.seen.generation != self.version.generation,
        };
        let (host, of_others) = (beat.host.clone(), self.of_others(beat));
        self.end_what_runs_twice(id, &of_others, &mut actions);
        let heard = TaskManager { slots: beat.slots, host, pid: beat.pid, since, heard: now, known: true, has_followed_another, of_others };
        self.task_managers.insert(id.to_owned(), heard);
        if has_followed_another {
            self.resume_unknown(now, &mut actions);
        }
        for job in self.jobs.values_mut() {
            let attempt = job.attempt();
            let Stage::Deployed { members, running, killed, .. } = &mut job.stage else { continue };
            let (mut changed, mut status) = (false, None);
            for (process, member) in
                (0_u32..).zip(members.iter_mut()).filter(|(_, member)| member.task_manager == id && member.gone.is_none())
            {
                let worker = beat.workers.iter().find(|worker| worker.attempt == attempt && worker.process == process);
                if process == 0 {
                    status = worker.and_then(|worker| worker.status.clone());
                }
                hear(member, process, worker, beat.seen, killed.is_some());
                changed |= member.gone.is_some();
            }
            if !*running && members.iter().all(|member| member.running && member.gone.is_none()) {
                *running = true;
                changed = true;
            }
            if changed {
                self.version.number += 1;
                actions.push(Action::Save(job.id.clone()));
            }
            status.into_iter().for_each(|status| job.hear_status(status));
            introduce_if_ready(job, &mut actions);
        }
        self.settle(now, random, &mut actions);
        self.schedule(now, &mut actions);
        actions
    }

    /// What follows from the end of processes: the others are given their time, then killed; with the last of them the attempt is over.
    fn settle(&mut self, now: Millis, random: f64, actions: &mut Vec<Action>) {
        for job in self.jobs.values_mut() {
            let Stage::Deployed { members, deadline, killed, .. } = &mut job.stage else { continue };
            if members.iter().all(|member| member.gone.is_some()) {
                job.end_attempt(now, random);
                self.version.number += 1;
                actions.push(Action::Save(job.id.clone()));
                continue;
            }
            let is_end =
                |(process, member): (usize, &Member)| member.gone.as_ref().is_some_and(|ended| process == 0 || !ended.is_success());
            if deadline.is_none() && members.iter().enumerate().any(is_end) {
                *deadline = Some(now.saturating_add(self.settings.grace));
                actions.push(Action::Save(job.id.clone()));
            }
            if killed.is_none() && deadline.is_some_and(|deadline| now >= deadline) {
                for member in members.iter_mut().filter(|member| member.gone.is_none()) {
                    member.ordered = Version { number: self.version.number + 1, ..self.version };
                }
                *killed = Some(Killed::Grace);
                self.version.number += 1;
                actions.push(Action::Save(job.id.clone()));
            }
        }
    }
}

/// What is kept of what a process has said.
fn shortened(said: &str) -> String {
    said.chars().take(LONGEST_SAID).collect()
}

/// What its task manager says of a process, or that it says nothing.
fn hear(member: &mut Member, process: u32, worker: Option<&Worker>, seen: Version, killed: bool) {
    match worker.map(|worker| &worker.phase) {
        Some(Phase::Ended(ended)) => member.gone = Some(Ended { said: ended.said.as_deref().map(shortened), ..ended.clone() }),
        Some(Phase::Ready(ready)) => member.ready = Some(ready.clone()),
        Some(Phase::Running) => member.running = true,
        Some(Phase::Starting | Phase::Ending) => {}
        // It has heard of it, and does not have it; or it has heard that it is not to have it.
        None if seen >= member.ordered => {
            member.gone = Some(Ended::lost(process, killed, "its task manager does not have it".to_owned()));
        }
        None => {}
    }
}

fn introduce_if_ready(job: &Job, actions: &mut Vec<Action>) {
    let Stage::Deployed { members, running: false, killed: None, deadline: None, go } = &job.stage else { return };
    if !go.is_empty() || members.len() < 2 {
        return;
    }
    let ready: Vec<_> = members.iter().filter_map(|member| member.ready.as_ref()).collect();
    if ready.len() == members.len() {
        let taken_over = ready.first().and_then(|first| first.taken_over.clone());
        actions.push(Action::Introduce {
            attempt: job.attempt(),
            addresses: ready.iter().map(|ready| ready.address).collect(),
            taken_over,
        });
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) fn job_for_tests(id: &str) -> Job {
    tests::job(id, 1, standpipe_pipeline::RestartStrategy::None, 7)
}
