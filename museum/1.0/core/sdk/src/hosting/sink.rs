//! Instances of a sink.

use super::{HostServices, InstanceContext, Origin, PluginError, instance::Instance, kind::Question};
use crate::{CloseReason, Committable, Error, Recovered, Written, call::check_columns, convert};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde_json::Value;
use standpipe_abi::{
    Slice, Status,
    sink::{self as abi, SinkTable},
};
use std::sync::Arc;

/// A sink: one per subtask, on the thread that made it, which it has for itself.
pub struct SinkInstance {
    instance: Instance,
    table: SinkTable,
    question: Question,
    schema: SchemaRef,
}

impl SinkInstance {
    pub(super) fn create(
        origin: Arc<Origin>,
        table: SinkTable,
        question: Question,
        schema: SchemaRef,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let instance = Instance::create(origin, &question.node, (table.create, table.destroy), Vec::new(), config, context, host)?;
        Ok(Self { instance, table, question, schema })
    }

    // SAFETY, for every call below: the plugin's function, called as its contract says; what it borrows is alive for the call.

    /// What the host says against this instance.
    #[must_use]
    pub fn failure(&self, error: Error) -> PluginError {
        self.instance.failure(error)
    }

    /// Connects.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.question.lend(|input| self.instance.done(|this, error| unsafe { (self.table.open)(this, input, error) }))
    }

    /// Gives a batch; sequence numbers count from 1 without gaps. [`Written::Busy`]: again, after a wake.
    ///
    /// # Errors
    /// As the plugin says, and when the batch is not of the input's columns.
    pub fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written, PluginError> {
        check_columns(&"the host", &self.schema, batch).map_err(|error| self.instance.failure(error))?;
        let mut sent = convert::export_batch(batch.clone());
        match self.instance.call(|this, error| unsafe { (self.table.write)(this, seq, &raw mut sent, error) })? {
            Status::OK => Ok(Written::Taken),
            Status::BUSY => Ok(Written::Busy),
            Status(other) => Err(self.instance.broken(&format!("answers write with the status {other}"))),
        }
    }

    /// Returns when all that was written is delivered and acknowledged; `checkpoint` is 0 outside a checkpoint.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn flush(&mut self, checkpoint: u64) -> Result<(), PluginError> {
        self.instance.done(|this, error| unsafe { (self.table.flush)(this, checkpoint, error) })
    }

    /// Makes what was written since the last `prepare` ready to be committed.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>, PluginError> {
        self.instance.bytes(|this, out, error| unsafe { (self.table.prepare)(this, checkpoint, out, error) })
    }

    /// Commits all that was prepared up to that checkpoint.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn commit(&mut self, up_to: u64, prepared: &[Committable]) -> Result<(), PluginError> {
        let lent = lent(prepared);
        self.instance.done(|this, error| unsafe { (self.table.commit)(this, up_to, lent.as_ptr(), lent.len(), error) })
    }

    /// What became of these, in order?
    ///
    /// # Errors
    /// As the plugin says.
    pub fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>, PluginError> {
        let lent = lent(prepared);
        let mut decisions = vec![u32::MAX; prepared.len()];
        let out = decisions.as_mut_ptr();
        self.instance.done(|this, error| unsafe { (self.table.recover)(this, lent.as_ptr(), lent.len(), out, error) })?;
        let recovered = |decision: u32| match decision {
            abi::RECOVER_COMMITTED => Ok(Recovered::Committed),
            abi::RECOVER_COMMIT => Ok(Recovered::Commit),
            abi::RECOVER_LOST => Ok(Recovered::Lost),
            other => Err(self.instance.broken(&format!("answers recover with the decision {other}"))),
        };
        decisions.into_iter().map(recovered).collect()
    }

    /// Gives up what was prepared for checkpoints that the job does not go on from.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn abort(&mut self, prepared: &[Committable]) -> Result<(), PluginError> {
        let lent = lent(prepared);
        self.instance.done(|this, error| unsafe { (self.table.abort)(this, lent.as_ptr(), lent.len(), error) })
    }

    /// All inputs have ended: delivers everything and ends cleanly.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn finish(&mut self) -> Result<(), PluginError> {
        self.instance.done(|this, error| unsafe { (self.table.finish)(this, error) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the plugin says; to be logged.
    pub fn close(&mut self, reason: CloseReason) -> Result<(), PluginError> {
        self.instance.close(|this, error| unsafe { (self.table.close)(this, reason.to_abi(), error) })
    }
}

fn lent(prepared: &[Committable]) -> Vec<abi::Committable> {
    let lent =
        |p: &Committable| abi::Committable { checkpoint: p.checkpoint, subtask: p.subtask, reserved: 0, bytes: Slice::new(&p.bytes) };
    prepared.iter().map(lent).collect()
}
