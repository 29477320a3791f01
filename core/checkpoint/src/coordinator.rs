//! When checkpoints are taken, and when what they cover may be committed: decisions alone. Events come in, actions come out; who does them, and the clock, are
//! elsewhere, so that a test can go through every order of events.
//!
//! The order of one checkpoint:
//!
//! ```text
//! Ask enumerators -> Trigger sources -> parts of all subtasks -> Write the manifest -> CommitSinks -> CommitUpstream
//! ```
//!
//! One checkpoint is collected at a time. One that fails or takes too long is given up and nothing is undone for it: what its sinks have prepared is covered by the
//! next one. Commits of checkpoint n may still run while n + 1 is collected; a commit covers all former ones.

use std::collections::BTreeSet;

/// A time, or a length of time, in microseconds.
pub type Micros = i64;

/// Somebody whose state belongs to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// What finds the splits of a source node. Asked before the sources: what it has given to a reader by then is in its part, so no split can be between them.
    Enumerator(u32),
    /// A subtask of a node: its positions, its state, or what its sink has prepared.
    Subtask(u32, u32),
}

/// How often, how long, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From one trigger to the next; `None`: only on request and at the end.
    pub interval: Option<Micros>,
    /// From the end of one to the next trigger at least.
    pub min_pause: Micros,
    /// From the end of one that was given up to the next trigger at least.
    pub retry_pause: Micros,
    /// What one may take from its trigger until it is durable.
    pub timeout: Micros,
    /// So many in a row may fail; one more ends the job.
    pub tolerated_failures: u32,
}

/// Why a checkpoint is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The interval is over.
    Interval,
    /// Somebody wants a savepoint.
    Savepoint,
    /// Sources have stopped or ended: it is the last one; a savepoint, if somebody wants one by then.
    Last,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants a savepoint.
    Requested,
    /// All sources have ended, or the job is to stop: after one more checkpoint it is over.
    Ending,
    /// The sources are being drained: until they have ended, none is taken but on request.
    Draining,
    /// A part's state is written.
    Part(u64, Part),
    /// A part's state cannot be taken or written.
    PartFailed(u64, String),
    /// The manifest is there.
    Written(u64),
    /// The manifest cannot be written.
    WriteFailed(u64, String),
    /// A sink's subtask has committed everything up to that checkpoint.
    Committed(u64, Part),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Enumerators give their state.
    Ask(u64, Reason),
    /// Sources enter this checkpoint: they give their positions, and what they emit from now on belongs to the next one. After the last they emit nothing.
    Trigger(u64, Reason),
    /// All parts are in: create the manifest.
    Write(u64, Reason),
    /// The checkpoint is durable: sinks commit what they have prepared up to it.
    CommitSinks(u64),
    /// All sinks have committed: sources commit their positions upstream.
    CommitUpstream(u64),
    /// The checkpoint is given up. Parts that still come for it are dropped.
    GiveUp(u64, String),
    /// Too many in a row were given up.
    Fail(String),
    /// The last one is committed: the job ends.
    End,
}

/// The checkpoint that is being collected or written.
#[derive(Debug, Clone)]
struct Running {
    id: u64,
    reason: Reason,
    begun: Micros,
    /// Enumerators first, then subtasks.
    asking: bool,
    missing: BTreeSet<Part>,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Coordinator {
    settings: Settings,
    enumerators: BTreeSet<Part>,
    subtasks: BTreeSet<Part>,
    sinks: BTreeSet<Part>,
    next_id: u64,
    running: Option<Running>,
    /// The newest durable checkpoint, and the sinks that have not committed it.
    committing: Option<(u64, BTreeSet<Part>)>,
    /// When the interval was last begun and when a checkpoint last ended.
    last_begun: Micros,
    last_ended: Micros,
    failures: u32,
    requested: bool,
    ending: bool,
    /// The last one, when it is durable.
    last: Option<u64>,
    over: bool,
}

impl Coordinator {
    /// A job begins: these take part, of them these are sinks; the first checkpoint has the number `first`.
    #[must_use]
    pub fn new(
        settings: Settings,
        parts: impl IntoIterator<Item = Part>,
        sinks: impl IntoIterator<Item = Part>,
        first: u64,
        now: Micros,
    ) -> Self {
        let (enumerators, subtasks) = parts.into_iter().partition(|part| matches!(part, Part::Enumerator(_)));
        Self {
            settings,
            enumerators,
            subtasks,
            sinks: sinks.into_iter().collect(),
            next_id: first,
            running: None,
            committing: None,
            last_begun: now,
            last_ended: now,
            failures: 0,
            requested: false,
            ending: false,
            last: None,
            over: false,
        }
    }

    /// When [`Self::wake`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        if self.over || self.last.is_some() {
            return None;
        }
        match &self.running {
            Some(running) => Some(running.begun.saturating_add(self.settings.timeout)),
            // At once, unless the one before has failed.
            None if self.ending || self.requested => Some(if self.failures == 0 { self.last_ended } else { self.pause_ends() }),
            None => self.settings.interval.map(|interval| self.last_begun.saturating_add(interval).max(self.pause_ends())),
        }
    }

    fn pause_ends(&self) -> Micros {
        let pause = if self.failures == 0 { 0 } else { self.settings.retry_pause };
        self.last_ended.saturating_add(self.settings.min_pause.max(pause))
    }

    /// The clock says `now`.
    pub fn wake(&mut self, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(running) = &self.running
            && now >= running.begun.saturating_add(self.settings.timeout)
        {
            let (id, missing) = (running.id, running.missing.len());
            let reason = match missing {
                0 => "its manifest was not written in time".to_owned(),
                _ => format!("{missing} of {} parts did not come in time", self.enumerators.len() + self.subtasks.len()),
            };
            self.give_up(id, reason, now, &mut actions);
        }
        self.begin_if_due(now, &mut actions);
        actions
    }

    /// Something has happened at `now`.
    pub fn on(&mut self, now: Micros, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Requested => self.requested = true,
            Event::Ending => self.ending = true,
            Event::Draining => self.settings.interval = None,
            Event::Part(id, part) => self.part(id, part, &mut actions),
            Event::PartFailed(id, reason) | Event::WriteFailed(id, reason) => self.give_up(id, reason, now, &mut actions),
            Event::Written(id) => self.written(id, now, &mut actions),
            Event::Committed(id, part) => self.committed(id, part, &mut actions),
        }
        self.begin_if_due(now, &mut actions);
        actions
    }

    fn begin_if_due(&mut self, now: Micros, actions: &mut Vec<Action>) {
        if self.running.is_some() || self.last.is_some() || self.over {
            return;
        }
        let reason = if self.ending {
            Reason::Last
        } else if self.requested {
            Reason::Savepoint
        } else {
            Reason::Interval
        };
        if self.deadline().is_none_or(|due| now < due) {
            return;
        }
        self.requested &= reason != Reason::Savepoint;
        let id = self.next_id;
        self.next_id += 1;
        self.last_begun = now;
        self.running = Some(Running { id, reason, begun: now, asking: true, missing: self.enumerators.clone() });
        actions.push(Action::Ask(id, reason));
        self.asked(actions);
    }

    /// Goes on to the sources when all enumerators have answered, and to the manifest when all subtasks have.
    fn asked(&mut self, actions: &mut Vec<Action>) {
        let Some(running) = self.running.as_mut().filter(|running| running.missing.is_empty()) else { return };
        if running.asking {
            running.asking = false;
            running.missing.clone_from(&self.subtasks);
            actions.push(Action::Trigger(running.id, running.reason));
        }
        if running.missing.is_empty() {
            actions.push(Action::Write(running.id, running.reason));
        }
    }

    fn part(&mut self, id: u64, part: Part, actions: &mut Vec<Action>) {
        if let Some(running) = self.running.as_mut().filter(|running| running.id == id)
            && running.missing.remove(&part)
        {
            self.asked(actions);
        }
    }

    fn give_up(&mut self, id: u64, reason: String, now: Micros, actions: &mut Vec<Action>) {
        if self.running.take_if(|running| running.id == id).is_none() {
            return;
        }
        self.last_ended = now;
        self.failures += 1;
        // Whoever wanted a savepoint is told, and may ask again.
        if self.failures > self.settings.tolerated_failures {
            self.over = true;
            actions.push(Action::GiveUp(id, reason.clone()));
            actions.push(Action::Fail(format!("checkpoint {id}: {reason}")));
        } else {
            actions.push(Action::GiveUp(id, reason));
        }
    }

    fn written(&mut self, id: u64, now: Micros, actions: &mut Vec<Action>) {
        // One that was given up meanwhile and is there all the same: it covers what it covers.
        let reason = self.running.take_if(|running| running.id == id).map(|running| running.reason);
        self.last_ended = now;
        if self.committing.as_ref().is_some_and(|(newer, _)| *newer >= id) {
            return;
        }
        self.failures = 0;
        if reason == Some(Reason::Last) {
            self.last = Some(id);
        }
        self.committing = Some((id, self.sinks.clone()));
        actions.push(Action::CommitSinks(id));
        self.finish_commit(actions);
    }

    fn committed(&mut self, id: u64, part: Part, actions: &mut Vec<Action>) {
        if let Some((newest, missing)) = &mut self.committing
            && *newest == id
            && missing.remove(&part)
        {
            self.finish_commit(actions);
        }
    }

    fn finish_commit(&mut self, actions: &mut Vec<Action>) {
        if let Some((id, _)) = self.committing.as_ref().filter(|(_, missing)| missing.is_empty()) {
            let id = *id;
            // Kept with nothing missing, so that an older one cannot come after it.
            actions.push(Action::CommitUpstream(id));
            if self.last == Some(id) {
                self.over = true;
                actions.push(Action::End);
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
