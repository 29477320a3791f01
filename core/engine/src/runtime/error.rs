//! How a job ends, and why. The host prints [`JobError`] and exits with [`ErrorClass::exit_code`]; `job` is where failures are collected.

use crate::operator::OperatorError;
use serde::{Deserialize, Serialize};
use standpipe_loader::{ErrorCode, PluginError};
use standpipe_pipeline::placement::TooFewSlots;
use standpipe_state::scratch::ScratchError;

/// Whose failure it was; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorClass {
    /// The job failed while it ran.
    Job,
    /// The configuration is wrong.
    Configuration,
    /// Something outside was missing or unreachable when the job started.
    Outside,
}

impl ErrorClass {
    /// 1, 2 or 3 (SEMANTICS.md, "Exit codes").
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Job => 1,
            Self::Configuration => 2,
            Self::Outside => 3,
        }
    }
}

/// What made a job fail.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// An operator or plugin said so.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// There is not enough room to run.
    #[error(transparent)]
    Slots(#[from] TooFewSlots),
    /// A bug: the message of the panic.
    #[error("{node}: internal error, panicked: {message}")]
    Panic {
        /// `transforms.stats`
        node: String,
        /// What the panic said.
        message: String,
    },
    /// State that the job cannot go on from.
    #[error("checkpoint {checkpoint}: {message}")]
    Restore {
        /// Its number.
        checkpoint: u64,
        /// One line.
        message: String,
    },
    /// The disk cannot hold state.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Another process runs the job now.
    #[error("{0}")]
    Superseded(String),
    /// Checkpoints cannot be taken any more.
    #[error("{0}")]
    Checkpoint(String),
    /// Another process of the job is gone, or what it says of its own failure.
    #[error("{0}")]
    Peer(String),
    /// The operating system or the engine itself refused.
    #[error("{0}")]
    Engine(String),
}

impl From<PluginError> for Cause {
    fn from(error: PluginError) -> Self {
        Self::Operator(error.into())
    }
}

/// A job that failed: the first failure; what follows from it is only logged.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct JobError {
    /// The node that failed, as a path: `sinks.out`; empty where no node is to blame.
    pub node: String,
    class: ErrorClass,
    /// What happened; its text names the node.
    #[source]
    pub cause: Box<Cause>,
}

/// Where in a job's life something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Until a reader's first poll or a discovery has succeeded, or a sink has taken its first batch (at most `RunOptions::start_period` may pass before that comes).
    Start,
    /// Later.
    Running,
}

impl JobError {
    /// Whose failure it was.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    pub(crate) fn new(node: &str, phase: Phase, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        let class = match &cause {
            Cause::Operator(OperatorError::Plugin(error)) if error.code == ErrorCode::CONFIG => ErrorClass::Configuration,
            Cause::Operator(OperatorError::Plugin(error)) if error.code == ErrorCode::EXTERNAL && phase == Phase::Start => {
                ErrorClass::Outside
            }
            Cause::Scratch(_) | Cause::Checkpoint(_) if phase == Phase::Start => ErrorClass::Outside,
            Cause::Slots(_) | Cause::Restore { .. } => ErrorClass::Configuration,
            _ => ErrorClass::Job,
        };
        Self { node: node.to_owned(), class, cause: Box::new(cause) }
    }

    /// A failure in another process of the job.
    pub(crate) fn elsewhere(node: String, class: ErrorClass, cause: Cause) -> Self {
        Self { node, class, cause: Box::new(cause) }
    }
}
