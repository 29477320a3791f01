//! Where an instance runs, and why it ends. The host tells it once, in `create`; the glue hands it to an author's `open`.

use crate::{Error, Host, Result};
use standpipe_abi as abi;
use std::collections::BTreeMap;

/// Where an instance runs.
#[derive(Debug, Clone)]
pub struct Context {
    /// 32 hexadecimal digits.
    pub job_id: String,
    /// The pipeline's `name`.
    pub job_name: String,
    /// The node's name in the pipeline.
    pub node: String,
    /// This subtask, from 0.
    pub subtask: u32,
    /// Subtasks of the node.
    pub parallelism: u32,
    /// Key groups of the job.
    pub max_parallelism: u32,
    /// How often the job has been started, from 1: fences what an earlier start left behind.
    pub generation: u64,
    /// Whether the job starts from a checkpoint.
    pub restored: bool,
    /// The texts of the configuration that hold references, as written, by their path (`password`, `hosts[0]`): what [`Host::secret`] takes, to follow a rotation.
    pub references: BTreeMap<String, String>,
    /// The host's services.
    pub host: Host,
}

impl Context {
    /// Copies what the host passed to `create`.
    ///
    /// # Safety
    /// `context` must be null or point to a [`abi::Context`] whose slices are alive.
    #[allow(unsafe_code, reason = "reads the host's struct")]
    pub(crate) unsafe fn from_abi(context: *const abi::Context, host: Host) -> Result<Self> {
        // SAFETY: null or valid, by the caller's word.
        let context = unsafe { abi::growing::read(context) }.map_err(Error::unusable("the host's context"))?;
        // SAFETY: slices that are alive for this call, by the caller's word.
        let text = |slice: abi::Slice| unsafe { slice.as_str() }.unwrap_or_default().to_owned();
        Ok(Self {
            job_id: text(context.job_id),
            job_name: text(context.job_name),
            node: text(context.node),
            subtask: context.subtask,
            parallelism: context.parallelism,
            max_parallelism: context.max_parallelism,
            generation: context.generation,
            restored: context.restored != 0,
            references: BTreeMap::new(),
            host,
        })
    }
}

/// Why an instance is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// All input has been read, all output delivered.
    Finished,
    /// The user cancelled or stopped the job.
    Stopped,
    /// The job failed; what is unfinished is not wanted.
    Failed,
}

impl CloseReason {
    /// The `CLOSE_` constant.
    #[must_use]
    pub const fn to_abi(self) -> u32 {
        match self {
            Self::Finished => abi::host::CLOSE_FINISHED,
            Self::Stopped => abi::host::CLOSE_STOPPED,
            Self::Failed => abi::host::CLOSE_FAILED,
        }
    }

    /// An unknown reason counts as a failure: nothing is delivered that may be unwanted.
    #[must_use]
    pub const fn from_abi(reason: u32) -> Self {
        match reason {
            abi::host::CLOSE_FINISHED => Self::Finished,
            abi::host::CLOSE_STOPPED => Self::Stopped,
            _ => Self::Failed,
        }
    }
}
