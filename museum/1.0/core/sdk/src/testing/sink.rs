//! A sink in a test.

use super::{TestHost, context, input};
use crate::{
    CloseReason, Committable, Written,
    hosting::{InstanceContext, NodeInput, PluginError, SinkInstance, SinkKind, SinkValidation},
    wire::ChangeMode,
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde_json::Value;
use std::sync::Arc;

/// A sink with one subtask. Made and opened at first use.
pub struct SinkHarness {
    /// What it told its host: acknowledgements, rejections, logs, metrics.
    pub host: Arc<TestHost>,
    kind: SinkKind,
    config: Value,
    rows: NodeInput,
    batches: Option<SchemaRef>,
    context: InstanceContext,
    running: Option<SinkInstance>,
    written: u64,
}

impl SinkHarness {
    pub(super) fn new(kind: SinkKind, config: Value, schema: SchemaRef) -> Self {
        Self { host: Arc::default(), kind, config, rows: input(schema), batches: None, context: context(), running: None, written: 0 }
    }

    /// The columns of the batches that it is given, for a sink of encoded records: `value` and those that it asked for.
    #[must_use]
    pub fn with_batches(mut self, schema: SchemaRef) -> Self {
        self.batches = Some(schema);
        self
    }

    /// Where it runs, if that is not a subtask alone at the first start of a job: `|context| context.restored = true`.
    #[must_use]
    pub fn with_context(mut self, change: impl FnOnce(&mut InstanceContext)) -> Self {
        change(&mut self.context);
        self
    }

    /// The change mode and key of its input.
    #[must_use]
    pub fn with_mode(mut self, mode: ChangeMode, key: &[&str]) -> Self {
        self.rows.details.mode = mode;
        self.rows.details.key = key.iter().map(|column| (*column).to_owned()).collect();
        self
    }

    /// The pipeline's `format`, in its long form.
    #[must_use]
    pub fn with_format(mut self, format: Value) -> Self {
        self.rows.details.format = Some(format);
        self
    }

    /// What the sink declares, and everything that is wrong with its configuration.
    ///
    /// # Errors
    /// As the sink says.
    pub fn validate(&self) -> Result<SinkValidation, PluginError> {
        self.kind.validate(&self.config, &self.rows, "node")
    }

    /// Makes and opens the sink. The other methods do so if it has not been done.
    ///
    /// # Errors
    /// As the sink says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.instance().map(|_| ())
    }

    /// The instance itself.
    ///
    /// # Errors
    /// As `open`.
    pub fn instance(&mut self) -> Result<&mut SinkInstance, PluginError> {
        if let Some(ref mut running) = self.running {
            return Ok(running);
        }
        let mut input = self.rows.clone();
        if let Some(schema) = &self.batches {
            input.schema = schema.clone();
        }
        let mut instance = self.kind.instance(&self.config, "node", &input, &self.context, self.host.clone())?;
        instance.open()?;
        Ok(self.running.insert(instance))
    }

    /// Gives a batch with the next sequence number; busy, the number stays.
    ///
    /// # Errors
    /// As the sink says.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<Written, PluginError> {
        let seq = self.written + 1;
        let written = self.instance()?.write(seq, batch)?;
        if written == Written::Taken {
            self.written = seq;
        }
        Ok(written)
    }

    /// Batches taken so far: the last sequence number.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Delivers all that was written.
    ///
    /// # Errors
    /// As the sink says.
    pub fn flush(&mut self) -> Result<(), PluginError> {
        self.instance()?.flush(0)
    }

    /// A whole checkpoint: `prepare`, then `commit` of what it gave.
    ///
    /// # Errors
    /// As the sink says.
    pub fn checkpoint(&mut self, checkpoint: u64) -> Result<(), PluginError> {
        let instance = self.instance()?;
        let bytes = instance.prepare(checkpoint)?;
        instance.commit(checkpoint, &[Committable { checkpoint, subtask: 0, bytes }])
    }

    /// The input has ended: `finish`, then `close`.
    ///
    /// # Errors
    /// As the sink says.
    pub fn finish(&mut self) -> Result<(), PluginError> {
        let instance = self.instance()?;
        instance.finish()?;
        instance.close(CloseReason::Finished)
    }

    /// Drops the sink, as a failure would; the next use makes a new one.
    pub fn restart(&mut self) {
        self.running = None;
    }
}
