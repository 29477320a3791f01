//! What an author of a deployment mode writes: how a job's bundle and a flat configuration become a running job behind a handle.
//!
//! A handle is a JSON object that survives its client: any later process gives it back to the same mode. Its members that are keys of the mode's configuration are given
//! as configuration then, so that a handle is all that a user has to keep.

use crate::{Config, Error, Host, Result};
use arrow_array::RecordBatchReader;
use serde_json::{Map, Value};
use std::{
    path::Path,
    time::{Duration, Instant},
};

pub use crate::wire::{JobStatus, LogLines, Problem, Savepoint};

/// What identifies a submitted job for its mode: `{"jobid": "...", "rest.address": "..."}`. The host adds `deployment_mode`.
pub type Handle = Map<String, Value>;

/// The member of a handle by which a job is stopped with its open windows fired.
pub const DRAIN: &str = "drain";

/// Whether a job that is stopped by that handle is to fire its open windows.
#[must_use]
pub fn drains(handle: &Handle) -> bool {
    handle.get(DRAIN).and_then(Value::as_bool).unwrap_or(false)
}

/// From one look at a job's state to the next, in [`Deployment::wait`] as it is given.
const LOOK: Duration = Duration::from_millis(200);

/// Which rows are to be collected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collect {
    /// The node's name in the pipeline.
    pub node: String,
    /// Rows at most; none: all.
    pub limit: Option<u64>,
    /// Those that have come by then; none: until the job ends.
    pub timeout: Option<Duration>,
}

/// What a mode will do with a configuration.
#[derive(Debug, Clone, Default)]
pub struct DeploymentDeclaration {
    /// Wrong values of the configuration, all at once.
    pub problems: Vec<Problem>,
}

/// A deployment mode: `deployment_mode: NAME`. Calls are serial; they may block, watching [`Host::cancelled`].
pub trait Deployment: Sized + Send + 'static {
    /// The name in configurations.
    const NAME: &'static str;
    /// The keys of the mode, flat: a member that is called `rest.port` is one of `#[serde(rename = "rest.port")]`. Its doc comments become the reference, defaults that it names
    /// the ones that `config show` prints. Keys that begin with `engine.` never get here.
    type Config: Config;

    /// What is wrong with that configuration. No I/O.
    ///
    /// # Errors
    /// When nothing can be said; wrong values go to `problems`.
    fn declare(config: &Self::Config) -> Result<DeploymentDeclaration> {
        let _ = config;
        Ok(DeploymentDeclaration::default())
    }

    /// Makes an instance. No I/O that takes long: an instance is made for every call of a client.
    ///
    /// # Errors
    /// `Error::external` for what is missing or unreachable.
    fn open(config: Self::Config, host: Host) -> Result<Self>;

    /// Submits the bundle in that folder ([`crate::bundle`]) and gives its handle. The folder is gone afterwards.
    ///
    /// # Errors
    /// `Error::config` for what is wrong with the job, `Error::external` for what is unreachable.
    fn submit(&mut self, bundle: &Path) -> Result<Handle>;

    /// What [`Self::submit`] would do with the bundle in that folder, as a text for people and tools: `standpipe deploy --dry-run` prints it. It changes nothing anywhere. A host
    /// that speaks plugin ABI 1.0 never calls it.
    ///
    /// # Errors
    /// As `submit`, as far as it can be known without doing it.
    fn preview(&mut self, bundle: &Path) -> Result<String> {
        let _ = bundle;
        Err(Error::unsupported("this mode does not say beforehand what it would do"))
    }

    /// The job's state.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn status(&mut self, handle: &Handle) -> Result<JobStatus>;

    /// The job's state once it is terminal, or after the timeout; none: no limit.
    ///
    /// # Errors
    /// As `status`, and when the host cancels.
    fn wait(&mut self, handle: &Handle, timeout: Option<Duration>, host: &Host) -> Result<JobStatus> {
        let begun = Instant::now();
        loop {
            let status = self.status(handle)?;
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            if status.is_terminal() || left.is_some_and(|left| left.is_zero()) {
                return Ok(status);
            }
            if host.cancelled() {
                return Err(Error::cancelled());
            }
            std::thread::sleep(left.map_or(LOOK, |left| left.min(LOOK)));
        }
    }

    /// Ends the job without a savepoint. One that has ended is left as it is.
    ///
    /// # Errors
    /// When it cannot be ended.
    fn cancel(&mut self, handle: &Handle) -> Result<()>;

    /// Ends the job with a savepoint in that place; empty: where the job keeps its checkpoints. If the handle [`drains`], open windows and aggregates
    /// give what they have, as if the sources had ended: a mode that takes savepoints and cannot do that refuses. A host asks no mode for it that was built for plugin ABI 1.0.
    ///
    /// # Errors
    /// When no savepoint can be taken: the job runs on.
    fn stop(&mut self, handle: &Handle, savepoint: &str) -> Result<Savepoint> {
        let _ = (handle, savepoint);
        Err(Error::unsupported("this mode takes no savepoints"))
    }

    /// Log lines from a cursor on; empty: from the first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn logs(&mut self, handle: &Handle, cursor: &str) -> Result<LogLines> {
        let _ = (handle, cursor);
        Err(Error::unsupported("this mode keeps no logs"))
    }

    /// Rows of a node. The reader is read on this thread, before anything else is asked of the instance; it may block, watching [`Host::cancelled`].
    ///
    /// # Errors
    /// When there is no such node, its rows cannot be had, or there would be no end of them: a job that does not end by itself needs a limit or a timeout.
    fn collect(&mut self, handle: &Handle, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        let _ = (handle, wanted);
        Err(Error::unsupported("this mode collects no rows"))
    }

    /// Lets the job go on with so many subtasks of every node that does not say otherwise, from a savepoint that is taken for it. Returns when that is durable and the job is
    /// on its way. A host that speaks plugin ABI 1.0 never calls it.
    ///
    /// # Errors
    /// When it cannot: the job runs on as it is.
    fn rescale(&mut self, handle: &Handle, parallelism: u32, host: &Host) -> Result<()> {
        let _ = (handle, parallelism, host);
        Err(Error::unsupported("this mode changes no parallelism"))
    }

    /// Removes everything that the job left behind. A handle with the member `ended` (state, cause, jobid, ended, savepoint) is of a job that has just ended: the manager that
    /// ran it alone asks, from where it runs, and what is still to say how the job has ended may stay.
    ///
    /// # Errors
    /// When something stays.
    fn cleanup(&mut self, handle: &Handle) -> Result<()> {
        let _ = handle;
        Ok(())
    }
}
