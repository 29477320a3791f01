//! What a reader and a sink do when a call of their plugin fails in a way that may pass: the node is degraded, the same call is made again a little later, and nothing
//! is lost meanwhile. Any other error ends the job.

use super::job::Job;
use standpipe_loader::PluginError;
use standpipe_pipeline::plan::NodeId;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// See the module's documentation. One per thread.
pub(crate) struct Retry {
    job: Arc<Job>,
    node: NodeId,
    wait: Duration,
    /// The last call failed.
    failing: bool,
    /// Since when a call has been failing although the job is to stop.
    in_the_way: Option<Instant>,
}

impl Retry {
    pub(crate) fn new(job: &Arc<Job>, node: NodeId) -> Self {
        Self { job: Arc::clone(job), node, wait: FIRST_WAIT, failing: false, in_the_way: None }
    }

    /// A call has failed: how long to wait before it is made again.
    ///
    /// # Errors
    /// The error itself, if it is not to be made again: it cannot pass, the job is given up, or it has been in the way of a stop for too long. A drain waits for it.
    pub(crate) fn failed(&mut self, error: PluginError) -> Result<Duration, PluginError> {
        if !error.retryable || self.job.cancelled() {
            return Err(error);
        }
        if self.job.stopping() && !self.job.draining() {
            let since = *self.in_the_way.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.job.options.stop_patience {
                return Err(error);
            }
        }
        let operator = &self.job.node(self.node).path;
        tracing::warn!(job = %self.job.options.job_id, %operator, "{error}; trying again");
        self.job.node_metrics(self.node).set_degraded(Some(error.to_string()));
        self.failing = true;
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        Ok(wait)
    }

    /// A call has succeeded.
    pub(crate) fn succeeded(&mut self) {
        if std::mem::take(&mut self.failing) {
            self.job.node_metrics(self.node).set_degraded(None);
            (self.wait, self.in_the_way) = (FIRST_WAIT, None);
        }
    }
}
