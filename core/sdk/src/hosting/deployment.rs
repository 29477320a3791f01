//! Instances of a deployment mode.

use super::{HostServices, Origin, PluginError, instance::Instance};
use crate::{
    Error,
    deployment::{Collect, DRAIN, Handle},
    wire::{JobStatus, LogLines, Savepoint},
};
use arrow_array::{
    RecordBatchReader,
    ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream},
};
use serde_json::Value;
use standpipe_abi::{ArrowArrayStream, Slice, arrow_c, deployment::DeploymentTable};
use std::{path::Path, sync::Arc, time::Duration};

/// A mode with its configuration: one per client, on the thread that made it.
pub struct DeploymentInstance {
    instance: Instance,
    table: DeploymentTable,
}

impl DeploymentInstance {
    pub(super) fn create(
        origin: Arc<Origin>,
        table: DeploymentTable,
        config: &Value,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let config = config.to_string();
        // SAFETY, for every call below: the plugin's function, called as its contract says; what it borrows is alive for the call.
        let instance = Instance::make(origin, "", table.destroy, Vec::new(), host, |host, pointer, error| unsafe {
            (table.create)(Slice::new(config.as_bytes()), host, pointer, error)
        })?;
        Ok(Self { instance, table })
    }

    /// Submits the bundle in that folder and gives its handle.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn submit(&mut self, bundle: &Path) -> Result<Handle, PluginError> {
        let bundle = bundle.to_string_lossy();
        let submit = self.table.submit;
        let handle = self.instance.bytes(|this, out, error| unsafe { submit(this, Slice::new(bundle.as_bytes()), out, error) })?;
        serde_json::from_slice(&handle)
            .map_err(|error| self.instance.broken(&format!("answers submit with a handle that is no JSON object: {error}")))
    }

    /// The job's state.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn status(&mut self, handle: &Handle) -> Result<JobStatus, PluginError> {
        let (handle, status) = (text(handle), self.table.status);
        let status = self.instance.json(|this, out, error| unsafe { status(this, Slice::new(handle.as_bytes()), out, error) })?;
        self.told(status)
    }

    /// The job's state once it is terminal, or after the timeout; none: no limit.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn wait(&mut self, handle: &Handle, timeout: Option<Duration>) -> Result<JobStatus, PluginError> {
        let (handle, wait) = (text(handle), self.table.wait);
        let timeout = microseconds(timeout);
        let status = self.instance.json(|this, out, error| unsafe { wait(this, Slice::new(handle.as_bytes()), timeout, out, error) })?;
        self.told(status)
    }

    /// Ends the job without a savepoint.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn cancel(&mut self, handle: &Handle) -> Result<(), PluginError> {
        let (handle, cancel) = (text(handle), self.table.cancel);
        self.instance.done(|this, error| unsafe { cancel(this, Slice::new(handle.as_bytes()), error) })
    }

    /// Ends the job with a savepoint in that place; empty: where the job keeps its checkpoints. With `drain` its open windows fire.
    ///
    /// # Errors
    /// As the plugin says, and with `drain` for one that was built for plugin ABI 1.0, which does not have this.
    pub fn stop(&mut self, handle: &Handle, savepoint: &str, drain: bool) -> Result<Savepoint, PluginError> {
        let mut handle = handle.clone();
        if drain {
            if self.table.rescale.is_none() {
                let old = "it was built for plugin ABI 1.0, in which no mode fires the open windows of a job that it stops";
                return Err(self.instance.failure(Error::unsupported(old)));
            }
            handle.insert(DRAIN.to_owned(), true.into());
        }
        let (handle, stop) = (text(&handle), self.table.stop);
        let stop = |this, out, error| unsafe { stop(this, Slice::new(handle.as_bytes()), Slice::new(savepoint.as_bytes()), out, error) };
        let savepoint: Savepoint = self.instance.json(stop)?;
        if savepoint.location.is_empty() { Err(self.instance.broken("does not say where the savepoint is")) } else { Ok(savepoint) }
    }

    /// Log lines from a cursor on; empty: from the first.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn logs(&mut self, handle: &Handle, cursor: &str) -> Result<LogLines, PluginError> {
        let (handle, logs) = (text(handle), self.table.logs);
        let logs = |this, out, error| unsafe { logs(this, Slice::new(handle.as_bytes()), Slice::new(cursor.as_bytes()), out, error) };
        self.instance.json(logs)
    }

    /// Rows of a node. As every call on an instance, those on the reader are on its thread, and before the instance is gone.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn collect(&mut self, handle: &Handle, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + '_>, PluginError> {
        let (handle, collect) = (text(handle), self.table.collect);
        let node = wanted.node.as_bytes();
        let limit = wanted.limit.unwrap_or(0);
        let timeout = microseconds(wanted.timeout);
        let mut stream = ArrowArrayStream::empty();
        let out = &raw mut stream;
        self.instance
            .done(|this, error| unsafe { collect(this, Slice::new(handle.as_bytes()), Slice::new(node), limit, timeout, out, error) })?;
        if stream.is_released() {
            return Err(self.instance.broken("answers collect without rows"));
        }
        // SAFETY: both are the C struct ArrowArrayStream; the plugin keeps the rules of the Arrow C stream interface.
        let stream: FFI_ArrowArrayStream = unsafe { arrow_c::convert(stream) };
        let reader = self.instance.read(|| Ok(ArrowArrayStreamReader::try_new(stream)?))?;
        Ok(Box::new(reader))
    }

    /// Lets the job go on with so many subtasks of every node that does not say otherwise, from a savepoint that is taken for it.
    ///
    /// # Errors
    /// As the plugin says, and for one that was built for plugin ABI 1.0, which does not have this.
    pub fn rescale(&mut self, handle: &Handle, parallelism: u32) -> Result<(), PluginError> {
        let Some(rescale) = self.table.rescale else {
            let old = "it was built for plugin ABI 1.0, in which no mode changes a job's parallelism: stop the job with a savepoint, and deploy it from there";
            return Err(self.instance.failure(Error::unsupported(old)));
        };
        let handle = text(handle);
        self.instance.done(|this, error| unsafe { rescale(this, Slice::new(handle.as_bytes()), parallelism, error) })
    }

    /// What `submit` would do with the bundle in that folder; it changes nothing.
    ///
    /// # Errors
    /// As the plugin says, and for one that was built for plugin ABI 1.0, which does not have this.
    pub fn preview(&mut self, bundle: &Path) -> Result<String, PluginError> {
        let Some(preview) = self.table.preview else {
            let old = "it was built for plugin ABI 1.0, in which no mode says beforehand what it would do";
            return Err(self.instance.failure(Error::unsupported(old)));
        };
        let bundle = bundle.to_string_lossy();
        let text = self.instance.bytes(|this, out, error| unsafe { preview(this, Slice::new(bundle.as_bytes()), out, error) })?;
        String::from_utf8(text).map_err(|_| self.instance.broken("answers preview with what is no text"))
    }

    /// Removes everything that the job left behind.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn cleanup(&mut self, handle: &Handle) -> Result<(), PluginError> {
        let (handle, cleanup) = (text(handle), self.table.cleanup);
        self.instance.done(|this, error| unsafe { cleanup(this, Slice::new(handle.as_bytes()), error) })
    }

    fn told(&self, status: JobStatus) -> Result<JobStatus, PluginError> {
        if status.state.is_empty() { Err(self.instance.broken("tells of a job without a state")) } else { Ok(status) }
    }
}

/// As the table has it: negative is no limit.
fn microseconds(timeout: Option<Duration>) -> i64 {
    timeout.map_or(-1, |timeout| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX))
}

fn text(handle: &Handle) -> String {
    serde_json::to_string(handle).unwrap_or_default()
}
