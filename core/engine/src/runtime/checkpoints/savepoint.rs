//! Savepoints: who wants one, and how they hear of it.

use super::{Checkpoints, Message};
use crossbeam_channel::{Receiver, Sender, bounded};

/// Why there is no savepoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavepointError {
    /// The job has no place for them.
    #[error("the pipeline takes no checkpoints: add checkpoint: {{interval: 10s}}")]
    NoCheckpoints,
    /// It could not be taken. The job goes on.
    #[error("the savepoint is given up: {0}")]
    GivenUp(String),
    /// The job ended before it was taken.
    #[error("the job has ended before a savepoint was taken")]
    JobEnded,
}

/// When one is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At once.
    Now,
    /// At once; an ordinary checkpoint will do.
    Checkpoint,
    /// As the last one of a job that stops.
    Stopped,
}

/// Hears of it.
#[derive(Debug)]
pub(crate) struct Reply(Sender<Result<u64, SavepointError>>);

impl Reply {
    pub(crate) fn send(&self, result: Result<u64, SavepointError>) {
        // Whoever asked may have gone.
        _ = self.0.try_send(result);
    }
}

/// A savepoint that was asked for.
#[derive(Debug)]
pub struct PendingSavepoint(Receiver<Result<u64, SavepointError>>);

impl PendingSavepoint {
    /// Waits until it is durable, and gives its number.
    ///
    /// # Errors
    /// When it is given up, or the job ends before.
    pub fn wait(self) -> Result<u64, SavepointError> {
        self.0.recv().unwrap_or(Err(SavepointError::JobEnded))
    }
}

impl Checkpoints {
    /// Asks for a savepoint.
    pub(crate) fn want(&self, when: When) -> PendingSavepoint {
        let (sender, receiver) = bounded(1);
        self.tell(Message::Wanted(Reply(sender), when));
        PendingSavepoint(receiver)
    }
}
