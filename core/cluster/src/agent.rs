//! What a task manager does about its workers: decisions alone, as those of [`crate::manager`]. Orders and ends come in; starts and kills go out.
//!
//! It ends what it runs when it was not answered for four fifths of a lease, counted from when it sent what was answered last: the manager, which counts a whole one from
//! when it has heard it, gives the work to nobody else before. It begins no attempt twice, whatever it is told.

use crate::{
    ends::Ended,
    protocol::{Attempt, Go, JobId, Order, Orders, Phase, Ready, Version, Worker},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Do {
    /// Begin a process.
    Start(Order),
    /// End a process; it may not have begun.
    Kill(Attempt),
    /// Tell a process that is ready.
    Introduce(Attempt, Go),
}

#[derive(Debug)]
struct Held {
    process: u32,
    phase: Phase,
    status: Option<Value>,
    /// Orders do not have it any more.
    dropped: bool,
    /// It was ended, or has ended itself, because the manager was silent.
    fenced: bool,
    /// The manager has heard that it has ended.
    known: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Agent {
    seen: Version,
    /// The manager was not heard of for a lease, and all that ran has been ended: whichever answers next is followed.
    is_alone: bool,
    held: BTreeMap<Attempt, Held>,
    /// The lowest number of an attempt that has not been here.
    next: BTreeMap<(JobId, u64), u32>,
    /// When the lease ends.
    until: Option<u64>,
}

impl Agent {
    /// The newest orders that were followed.
    #[must_use]
    pub const fn seen(&self) -> Version {
        self.seen
    }

    /// When the workers are ended if nothing is heard, in milliseconds of the caller's clock.
    #[must_use]
    pub const fn lease_ends(&self) -> Option<u64> {
        self.until
    }

    /// All that runs here.
    #[must_use]
    pub fn report(&self) -> Vec<Worker> {
        let worker = |(attempt, held): (&Attempt, &Held)| Worker {
            attempt: attempt.clone(),
            process: held.process,
            phase: held.phase.clone(),
            status: held.status.clone(),
        };
        self.held.iter().map(worker).collect()
    }

    /// Whether something has run here of which the manager has not heard that it has ended.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.held.values().any(|held| !held.known)
    }

    /// The manager has heard what was sent at `sent`, which is all that is held now, and has answered it with orders.
    pub fn answered(&mut self, orders: &Orders, sent: u64) {
        for held in self.held.values_mut() {
            held.known = matches!(held.phase, Phase::Ended(_));
        }
        let until = sent.saturating_add(orders.lease_millis / 5 * 4);
        if self.is_alone && orders.version.generation < self.seen.generation {
            // Of a manager whose data are new and whose clock is behind.
            self.seen = Version { generation: orders.version.generation, number: 0 };
        }
        if orders.version.generation >= self.seen.generation {
            self.is_alone = false;
            self.until = Some(self.until.map_or(until, |before| before.max(until)));
        }
    }

    /// Follows orders that came at `now` and were asked for at `sent`.
    pub fn orders(&mut self, orders: &Orders, sent: u64, now: u64) -> Vec<Do> {
        let mut all = Vec::new();
        let until = sent.saturating_add(orders.lease_millis / 5 * 4);
        // Of a manager that is no more, or overtaken by newer ones, or so late that what they order may be running elsewhere.
        if orders.version < self.seen || until <= now {
            return all;
        }
        self.seen = orders.version;
        let wanted: BTreeMap<&Attempt, &Order> = orders.workers.iter().map(|order| (&order.attempt, order)).collect();
        self.held.retain(|attempt, held| {
            if !wanted.contains_key(attempt) {
                held.dropped = true;
                match held.phase {
                    Phase::Ended(_) => return false,
                    Phase::Ending => {}
                    _ => {
                        held.phase = Phase::Ending;
                        all.push(Do::Kill(attempt.clone()));
                    }
                }
            }
            true
        });
        for (attempt, order) in wanted {
            match self.held.get_mut(attempt) {
                Some(held) => {
                    if let (Phase::Ready(_), Some(go)) = (&held.phase, &order.go) {
                        held.phase = Phase::Running;
                        all.push(Do::Introduce(attempt.clone(), go.clone()));
                    }
                }
                None => {
                    let next = self.next.entry((attempt.job.clone(), attempt.term)).or_default();
                    if attempt.number >= *next {
                        *next = attempt.number + 1;
                        let held = Held {
                            process: order.process,
                            phase: Phase::Starting,
                            status: None,
                            dropped: false,
                            fenced: false,
                            known: false,
                        };
                        self.held.insert(attempt.clone(), held);
                        all.push(Do::Start(order.clone()));
                    }
                }
            }
        }
        all
    }

    /// A process that is alone in its job has begun.
    pub fn running(&mut self, attempt: &Attempt) {
        if let Some(held) = self.held.get_mut(attempt).filter(|held| held.phase == Phase::Starting) {
            held.phase = Phase::Running;
        }
    }

    /// A process of several waits for the others.
    pub fn ready(&mut self, attempt: &Attempt, ready: Ready) {
        if let Some(held) = self.held.get_mut(attempt).filter(|held| held.phase == Phase::Starting) {
            held.phase = Phase::Ready(ready);
        }
    }

    /// How a job does. True: the manager is to hear of it now, not some time.
    pub fn status(&mut self, attempt: &Attempt, status: Value) -> bool {
        let Some(held) = self.held.get_mut(attempt) else { return false };
        let state = |status: &Value| status.get("state").cloned();
        let is_new = held.status.as_ref().and_then(state) != state(&status);
        held.status = Some(status);
        is_new
    }

    /// A process has ended itself because its lease was over, before it was ended for that.
    pub fn fenced(&mut self, attempt: &Attempt) {
        if let Some(held) = self.held.get_mut(attempt) {
            held.fenced = true;
        }
    }

    /// A process is no more.
    pub fn ended(&mut self, attempt: &Attempt, mut ended: Ended) {
        let Some(held) = self.held.get_mut(attempt) else { return };
        if held.dropped {
            self.held.remove(attempt);
            return;
        }
        if held.fenced && !ended.is_success() {
            ended = Ended::lost(
                held.process,
                false,
                "its task manager has not heard of the job manager for too long, and has ended it".to_owned(),
            );
        }
        held.phase = Phase::Ended(ended);
    }

    /// The clock says `now`.
    pub fn wake(&mut self, now: u64) -> Vec<Do> {
        let mut all = Vec::new();
        if self.until.is_none_or(|until| now < until) {
            return all;
        }
        self.is_alone = true;
        for (attempt, held) in &mut self.held {
            if !matches!(held.phase, Phase::Ending | Phase::Ended(_)) {
                (held.phase, held.fenced) = (Phase::Ending, true);
                all.push(Do::Kill(attempt.clone()));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::job_for_tests;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    /// Whoever is quicker: the process that looks at its lease, or the task manager that ends it.
    #[test]
    fn a_process_that_has_ended_itself_with_its_lease_says_that_the_manager_was_silent() {
        for by_itself in [true, false] {
            let job = job_for_tests("j");
            let attempt = Attempt { job: "j".to_owned(), term: 0, number: 0 };
            let order = Order {
                attempt: attempt.clone(),
                restarts: 0,
                resumes: false,
                process: 0,
                slots: vec![1],
                bundle: job.bundle.clone(),
                go: None,
            };
            let version = Version { generation: 1, number: 1 };
            let orders = Orders { version, lease_millis: 1_000, workers: vec![order], requests: Vec::new() };
            let mut agent = Agent::default();
            agent.answered(&orders, 0);
            agent.orders(&orders, 0, 1);
            if by_itself {
                agent.fenced(&attempt);
            } else {
                assert_eq!(agent.wake(800), [Do::Kill(attempt.clone())]);
            }
            agent.ended(&attempt, Ended::new(0, ExitStatus::from_raw(9), !by_itself));
            let Phase::Ended(ended) = agent.report().remove(0).phase else { panic!("it has ended") };
            assert!(ended.lost && !ended.killed && ended.said.unwrap().contains("has not heard of the job manager"));
        }
    }

    fn orders(generation: u64, workers: Vec<Order>) -> Orders {
        Orders { version: Version { generation, number: 3 }, lease_millis: 1_000, workers, requests: Vec::new() }
    }

    fn order(term: u64, number: u32) -> Order {
        let job = job_for_tests("j");
        let attempt = Attempt { job: "j".to_owned(), term, number };
        Order { attempt, restarts: 0, resumes: false, process: 0, slots: vec![1], bundle: job.bundle, go: None }
    }

    #[test]
    fn a_manager_that_has_lost_its_data_is_followed_what_the_former_one_began_is_ended() {
        let mut agent = Agent::default();
        let former = orders(5, vec![order(5, 4)]);
        agent.answered(&former, 0);
        assert_eq!(agent.orders(&former, 0, 1).len(), 1);
        // It counts anew, and what it orders is not taken for what runs.
        let next = orders(6, vec![order(6, 0)]);
        agent.answered(&next, 100);
        let all = agent.orders(&next, 100, 101);
        assert_eq!(all, [Do::Kill(order(5, 4).attempt), Do::Start(order(6, 0))]);
        // What the former one has said is on its way no longer.
        assert!(agent.orders(&former, 100, 102).is_empty());
    }

    #[test]
    fn what_the_manager_has_heard_the_end_of_it_knows() {
        let mut agent = Agent::default();
        assert!(!agent.has_unknown(), "nothing has run");
        let orders = orders(1, vec![order(1, 0)]);
        agent.answered(&orders, 0);
        agent.orders(&orders, 0, 1);
        agent.answered(&orders, 2);
        assert!(agent.has_unknown(), "it runs");
        agent.ended(&order(1, 0).attempt, Ended::new(0, ExitStatus::from_raw(0), false));
        assert!(agent.has_unknown(), "nobody has heard it");
        agent.answered(&orders, 3);
        assert!(!agent.has_unknown());
    }

    #[test]
    fn a_manager_whose_clock_is_behind_is_followed_once_the_former_one_is_silent_for_a_lease() {
        let mut agent = Agent::default();
        let former = orders(5, vec![order(5, 0)]);
        agent.answered(&former, 0);
        agent.orders(&former, 0, 1);
        let next = orders(4, vec![order(4, 0)]);
        agent.answered(&next, 100);
        assert!(agent.orders(&next, 100, 101).is_empty() && agent.lease_ends() == Some(800));
        assert_eq!(agent.wake(800), [Do::Kill(order(5, 0).attempt)]);
        agent.ended(&order(5, 0).attempt, Ended::new(0, ExitStatus::from_raw(9), true));
        agent.answered(&next, 900);
        assert_eq!(agent.orders(&next, 900, 901), [Do::Start(order(4, 0))]);
        assert_eq!((agent.seen(), agent.lease_ends()), (next.version, Some(1_700)));
    }
}
