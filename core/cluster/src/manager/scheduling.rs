//! When a job begins, and where: jobs wait for slots, and what another manager may have begun, whose data are lost, is given the time to end.

use super::{Action, Job, JobId, Killed, Manager, Member, Millis, Past, Stage, TaskManagerId};
use crate::protocol::{Beat, Phase};
use std::{cmp::Reverse, collections::BTreeSet};

impl Manager {
    /// By then whatever a former manager has begun has ended by its lease: it has answered nobody since this one began.
    pub(super) const fn alone_from(&self) -> Millis {
        self.begun.saturating_add(self.settings.lease)
    }

    /// A task manager has followed another manager, whose data are lost: a job that came here anew may be running.
    pub(super) fn resume_unknown(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let (until, own) = (self.alone_from(), self.version.generation);
        // Of one that was kept it is known what it has begun.
        let is_unknown = |job: &Job| job.past == Past::Unknown && job.term == own;
        let waits = |job: &&mut Job| is_unknown(job) && job.next_attempt == 0 && job.stage == Stage::Waiting;
        for job in self.jobs.values_mut().filter(waits) {
            job.resume(until, now);
            actions.push(Action::Save(job.id.clone()));
        }
    }

    /// Jobs of which a task manager runs what another manager has begun.
    pub(super) fn of_others(&self, beat: &Beat) -> BTreeSet<JobId> {
        let alive = beat.workers.iter().filter(|worker| !matches!(worker.phase, Phase::Ended(_))).map(|worker| &worker.attempt);
        alive
            .filter(|attempt| self.jobs.get(&attempt.job).is_some_and(|job| job.term != attempt.term))
            .map(|attempt| attempt.job.clone())
            .collect()
    }

    /// A job was begun while nobody knew that it runs, on a task manager that comes only now: it begins anew when that has ended. One without checkpoints goes on, and what the other
    /// manager has begun ends.
    pub(super) fn end_what_runs_twice(&mut self, id: &str, of_others: &BTreeSet<JobId>, actions: &mut Vec<Action>) {
        for job in self.jobs.values_mut().filter(|job| of_others.contains(&job.id) && job.planned.checkpoints) {
            if let Stage::Deployed { members, killed: killed @ None, .. } = &mut job.stage {
                *killed = Some(Killed::Anew(format!("task manager {id} still ran what another job manager has begun")));
                self.version.number += 1;
                members.iter_mut().for_each(|member| member.ordered = self.version);
                actions.push(Action::Save(job.id.clone()));
            }
        }
    }

    /// Gives waiting jobs their slots, first come first served; one that fits is not kept waiting by one that does not.
    pub(super) fn schedule(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut waiting: Vec<(Millis, JobId, u32)> = Vec::new();
        let may_run = |job: &Job| self.task_managers.values().any(|one| one.of_others.contains(&job.id));
        for job in self.jobs.values().filter(|job| job.stage == Stage::Waiting && !may_run(job)) {
            waiting.push((job.submitted, job.id.clone(), job.planned.slots));
        }
        waiting.sort();
        for (_, id, needed) in waiting {
            let Some(places) = self.places(needed) else { continue };
            self.version.number += 1;
            let version = self.version;
            let member = |(task_manager, slots): (TaskManagerId, u32)| {
                let host = self.task_managers.get(&task_manager).map(|one| one.host.clone()).unwrap_or_default();
                Member { task_manager, host, slots, gone: None, ready: None, running: false, ordered: version }
            };
            let members = places.into_iter().map(member).collect();
            if let Some(job) = self.jobs.get_mut(&id) {
                job.begin_attempt(members, now);
                actions.push(Action::Save(id));
            }
        }
    }

    /// Where so many slots are, on as few task managers as may be: the one that they fill best, or else the emptiest ones; of equal ones those that came first, so
    /// that what was added last is what is idle when a job takes less. None: there are not enough.
    fn places(&self, needed: u32) -> Option<Vec<(TaskManagerId, u32)>> {
        let mut free: Vec<(u32, Millis, &TaskManagerId)> =
            self.task_managers.iter().map(|(id, one)| (self.free(id), one.since, id)).filter(|(free, ..)| *free > 0).collect();
        if let Some((.., best)) = free.iter().filter(|(free, ..)| *free >= needed).min() {
            return Some(vec![((*best).clone(), needed)]);
        }
        free.sort_by_key(|(free, since, id)| (Reverse(*free), *since, *id));
        let (mut left, mut places) = (needed, Vec::new());
        for (free, _, id) in free {
            let taken = free.min(left);
            places.push((id.clone(), taken));
            left -= taken;
            if left == 0 {
                return Some(places);
            }
        }
        None
    }
}
