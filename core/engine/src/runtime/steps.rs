//! The named steps of a checkpoint, at which a test ends the process: what was done by then must be enough to go on from.

use super::job::Job;
use std::str::FromStr;

/// A moment between two arrows of: sink prepared -> checkpoint durable -> sink committed -> upstream committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A sink is about to deliver, or prepare, what belongs to the checkpoint.
    Prepare,
    /// It has done so.
    Prepared,
    /// The manifest is about to be created.
    Write,
    /// It is there.
    Durable,
    /// A sink is about to commit.
    Commit,
    /// It has done so.
    Committed,
    /// A source is about to commit its positions upstream.
    Upstream,
    /// It has done so.
    Done,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Self; 8] =
        [Self::Prepare, Self::Prepared, Self::Write, Self::Durable, Self::Commit, Self::Committed, Self::Upstream, Self::Done];

    /// `prepared`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Prepared => "prepared",
            Self::Write => "write",
            Self::Durable => "durable",
            Self::Commit => "commit",
            Self::Committed => "committed",
            Self::Upstream => "upstream",
            Self::Done => "done",
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|step| step.name() == text).ok_or_else(|| format!("{text:?} is none of {}", names.join(", ")))
    }
}

impl Job {
    /// Ends the process, without any cleaning up, if the options say so.
    pub(crate) fn reached(&self, step: Step, checkpoint: u64) {
        if self.options.crash_at == Some((step, checkpoint)) {
            tracing::error!(job = %self.options.job_id, "checkpoint {checkpoint}: at {:?} the process ends, as it was told to", step.name());
            std::process::abort();
        }
    }
}
