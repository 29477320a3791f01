//! Exit codes (SEMANTICS.md, "Exit codes") and how an error reaches the user: one `error:` line per problem on stderr.

use crate::{output::say, secrets};
use std::process::ExitCode;

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Finished, or stopped on request.
    Success = 0,
    /// The job failed.
    Failed = 1,
    /// Usage, pipeline file, configuration, plugin file.
    Usage = 2,
    /// Something outside: a missing file or topic, an unreachable address, no permission.
    Outside = 3,
    /// Of the manager of one job alone: the job has failed. Others than 1 to 3, since those say that the manager could not do its work.
    JobFailed = 20,
    /// The same: the job was cancelled.
    JobCanceled = 21,
    /// Of a supervised child: another process has taken over its job. Nobody else sees it: `supervise` ends with 1.
    Superseded = 76,
    /// Ended at once by a second signal.
    Interrupted = 130,
    /// Of the manager of one job alone: it was told to end, and the job has not ended.
    Terminated = 143,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error with the exit code that it means. Its message may have several lines, one per problem.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    /// An error of that class.
    pub(crate) fn error(code: Code, message: impl ToString) -> anyhow::Error {
        anyhow::Error::new(Self { code, message: message.to_string() })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error: its own where it has one, else 1; a file that cannot be opened is outside.
pub(crate) fn code(error: &anyhow::Error) -> Code {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    if error.downcast_ref::<std::io::Error>().is_some() { Code::Outside } else { Code::Failed }
}

/// Prints an error.
pub(crate) fn report(error: &anyhow::Error) {
    for line in secrets::hidden(&format!("{error:#}")).lines() {
        say!("error: {line}");
    }
}
