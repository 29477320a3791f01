//! What has become of a job's checkpoints: how many, how large, how long they took, and the last ones one by one.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Checkpoints that are remembered.
const MOST_HISTORY: usize = 20;

/// What has become of a job's checkpoints since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointTotals {
    /// That are durable.
    pub completed: u64,
    /// That were given up.
    pub failed: u64,
    /// How long those took that are durable, together.
    pub took: Duration,
    /// The newest that is durable.
    pub last: Option<LastCheckpoint>,
    /// Why the last one was given up, until another is durable.
    pub trouble: Option<String>,
    /// The last ones, oldest first.
    pub history: VecDeque<PastCheckpoint>,
}

/// The newest durable checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCheckpoint {
    /// Its number.
    pub id: u64,
    /// When it was durable.
    pub at: Instant,
    /// How long it took from its trigger on.
    pub took: Duration,
    /// Bytes that belong to it, the manifest aside.
    pub bytes: u64,
}

/// A checkpoint that is durable, or was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastCheckpoint {
    /// Its number.
    pub id: u64,
    /// It stays until it is removed on request.
    pub is_savepoint: bool,
    /// When it was triggered, microseconds since the epoch.
    pub triggered_micros: i64,
    /// How long it took from its trigger on.
    pub took: Duration,
    /// Of all of its files, the manifest aside.
    pub bytes: u64,
    /// Of those that were written for it.
    pub written: u64,
    /// Why it was given up; none: it is durable.
    pub trouble: Option<String>,
}

impl CheckpointTotals {
    fn remember(&mut self, past: PastCheckpoint) {
        self.history.push_back(past);
        if self.history.len() > MOST_HISTORY {
            self.history.pop_front();
        }
    }

    pub(super) fn completed(&mut self, past: PastCheckpoint) {
        self.completed += 1;
        self.took += past.took;
        self.last = Some(LastCheckpoint { id: past.id, at: Instant::now(), took: past.took, bytes: past.bytes });
        self.trouble = None;
        self.remember(past);
    }

    pub(super) fn failed(&mut self, reason: &str, past: Option<PastCheckpoint>) {
        self.failed += 1;
        self.trouble = Some(reason.to_owned());
        past.into_iter().for_each(|past| self.remember(past));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_with_what_became_of_them() {
        let past = |id, trouble: Option<&str>| {
            let took = Duration::from_millis(2);
            PastCheckpoint {
                id,
                is_savepoint: false,
                triggered_micros: 7,
                took,
                bytes: 100,
                written: 10,
                trouble: trouble.map(str::to_owned),
            }
        };
        let mut totals = CheckpointTotals::default();
        (1..=29).for_each(|id| totals.completed(past(id, None)));
        totals.failed("no room", Some(past(30, Some("no room"))));
        // Before it had begun.
        totals.failed("too late", None);
        assert_eq!((totals.completed, totals.failed, totals.took), (29, 2, Duration::from_millis(58)));
        assert_eq!((totals.history.len(), totals.trouble.as_deref()), (MOST_HISTORY, Some("too late")));
        assert_eq!(totals.history.back(), Some(&past(30, Some("no room"))));
        totals.completed(past(31, None));
        assert_eq!((totals.trouble, totals.last.map(|last| last.id)), (None, Some(31)));
    }
}
