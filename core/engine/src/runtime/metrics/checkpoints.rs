//! What has become of a job's checkpoints: how many, how large, how long they took, and the last ones one by one.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Checkpoints that are remembered one by one.
const MOST: usize = 50;

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
    /// The last ones, oldest first; the newest may not have ended.
    pub history: VecDeque<CheckpointRecord>,
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

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Its number.
    pub id: u64,
    /// Somebody has asked for it, and it stays.
    pub savepoint: bool,
    /// When it was triggered, microseconds since 1970.
    pub triggered: i64,
    /// How it stands.
    pub state: CheckpointState,
}

/// How a checkpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointState {
    /// It is being collected, since then.
    Collecting(Instant),
    /// It is durable.
    Completed {
        /// How long it took from its trigger on.
        took: Duration,
        /// Bytes that belong to it, the manifest aside.
        bytes: u64,
        /// Those of them that were written for it; the others are of former checkpoints.
        written: u64,
    },
    /// It was given up.
    Failed {
        /// After so long.
        took: Duration,
        /// Why.
        reason: String,
    },
}

impl CheckpointTotals {
    pub(super) fn begun(&mut self, id: u64, savepoint: bool, triggered: i64) {
        self.history.push_back(CheckpointRecord { id, savepoint, triggered, state: CheckpointState::Collecting(Instant::now()) });
        while self.history.len() > MOST {
            self.history.pop_front();
        }
    }

    fn ended(&mut self, id: u64, state: CheckpointState) {
        if let Some(record) = self.history.iter_mut().rev().find(|record| record.id == id) {
            record.state = state;
        }
    }

    pub(super) fn completed(&mut self, id: u64, took: Duration, bytes: u64, written: u64) {
        self.completed += 1;
        self.took += took;
        self.last = Some(LastCheckpoint { id, at: Instant::now(), took, bytes });
        self.trouble = None;
        self.ended(id, CheckpointState::Completed { took, bytes, written });
    }

    pub(super) fn failed(&mut self, id: u64, reason: &str) {
        self.failed += 1;
        self.trouble = Some(reason.to_owned());
        let begun = self.history.iter().rev().find(|record| record.id == id).map(|record| &record.state);
        let took = if let Some(CheckpointState::Collecting(since)) = begun { since.elapsed() } else { Duration::ZERO };
        self.ended(id, CheckpointState::Failed { took, reason: reason.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_with_what_became_of_them() {
        let mut totals = CheckpointTotals::default();
        for id in 1..=60 {
            totals.begun(id, id == 59, 7);
            match id {
                58 => totals.failed(id, "no room"),
                60 => {}
                id => totals.completed(id, Duration::from_millis(2), 100, 10),
            }
        }
        assert_eq!((totals.completed, totals.failed, totals.took), (58, 1, Duration::from_millis(116)));
        assert_eq!((totals.history.len(), totals.trouble.as_deref()), (MOST, None));
        let last: Vec<_> = totals.history.iter().skip(MOST - 3).collect();
        assert!(matches!(&last[0].state, CheckpointState::Failed { reason, .. } if reason == "no room"));
        assert_eq!(last[1].state, CheckpointState::Completed { took: Duration::from_millis(2), bytes: 100, written: 10 });
        assert!(last[1].savepoint && matches!(last[2].state, CheckpointState::Collecting(_)));
    }
}
