//! Instances of a source: readers and enumerators.

use super::{
    HostServices, InstanceContext, Origin, PluginError,
    instance::{Instance, slices},
};
use crate::{CloseReason, Error, convert, wire};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde_json::Value;
use standpipe_abi::{
    Batch, Slice, Status,
    source::{self as abi, EnumeratorTable, NO_WATERMARK, SourceTable},
};
use std::{sync::Arc, time::Duration};

/// A split and where to start in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitPosition {
    /// The split's id.
    pub split: String,
    /// What the enumerator said besides.
    pub details: String,
    /// The position after the last row taken; `None`: the beginning as the configuration says.
    pub position: Option<Vec<u8>>,
}

/// What a `poll` found.
#[derive(Debug)]
pub enum Polled {
    /// Rows of one split.
    Batch {
        /// The split.
        split: String,
        /// Its rows. None: the split has been read up to where it ends now.
        batch: RecordBatch,
        /// The position after them.
        position: Vec<u8>,
        /// A lower bound for the event times of what follows in the split, microseconds since the epoch.
        watermark: Option<i64>,
    },
    /// Nothing now, in any of the splits.
    Idle,
    /// That split has been read to its end.
    EndOfSplit(String),
}

/// A reader: one per subtask, on the thread that made it, which it has for itself.
pub struct SourceReader {
    instance: Instance,
    table: SourceTable,
    schema: SchemaRef,
}

impl SourceReader {
    pub(super) fn create(
        origin: Arc<Origin>,
        table: SourceTable,
        schema: SchemaRef,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let instance = Instance::create(origin, &context.node, (table.create, table.destroy), Vec::new(), config, context, host)?;
        Ok(Self { instance, table, schema })
    }

    /// The columns of its batches.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    // SAFETY, for every call below: the plugin's function, called as its contract says; what it borrows is alive for the call.

    /// Connects.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.instance.done(|this, error| unsafe { (self.table.open)(this, error) })
    }

    /// Adds splits.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn assign(&mut self, splits: &[SplitPosition]) -> Result<(), PluginError> {
        let splits: Vec<_> =
            splits.iter().map(|split| lent(&split.split, &split.details, split.position.as_deref().unwrap_or_default())).collect();
        self.instance.done(|this, error| unsafe { (self.table.assign)(this, splits.as_ptr(), splits.len(), error) })
    }

    /// Gives splits back: their positions, in order.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>, PluginError> {
        let ids = slices(splits);
        let given: Vec<wire::GivenBack> =
            self.instance.json(|this, out, error| unsafe { (self.table.unassign)(this, ids.as_ptr(), ids.len(), out, error) })?;
        if given.len() != splits.len() || given.iter().zip(splits).any(|(given, split)| given.split != *split) {
            return Err(self.instance.broken("gives back other splits than were asked for"));
        }
        self.instance.read(|| given.iter().map(wire::GivenBack::position).collect())
    }

    /// Reads at most `max_rows` rows and about `max_bytes` bytes of one split, waiting for at most `wait`.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn poll(&mut self, max_rows: u32, max_bytes: u64, wait: Duration) -> Result<Polled, PluginError> {
        let deadline = deadline(&self.instance, wait);
        let mut rows = Batch::empty();
        let mut out = abi::Polled::empty(&raw mut rows);
        let status =
            self.instance.call(|this, error| unsafe { (self.table.poll)(this, max_rows, max_bytes, deadline, &raw mut out, error) })?;
        let split = || String::from_utf8_lossy(unsafe { out.split.as_bytes() }).into_owned();
        match status {
            Status::IDLE => Ok(Polled::Idle),
            Status::END_OF_SPLIT => Ok(Polled::EndOfSplit(split())),
            Status::OK => {
                let (split, position) = (split(), unsafe { out.position.as_bytes() }.to_vec());
                let array = rows.take();
                let batch = self.instance.read(|| unsafe { convert::import_batch(array, &self.schema) })?;
                Ok(Polled::Batch { split, batch, position, watermark: (out.watermark != NO_WATERMARK).then_some(out.watermark) })
            }
            Status(other) => Err(self.instance.broken(&format!("answers poll with the status {other}"))),
        }
    }

    /// What is wrong with what the plugin has said or done, as an error of its own would be told.
    #[must_use]
    pub fn error(&self, error: Error) -> PluginError {
        self.instance.failure(error)
    }

    /// Reads no more of these splits until `resume`, and of the others as before.
    ///
    /// # Errors
    /// As the plugin says; `UNSUPPORTED` where it can read its splits only as they come.
    pub fn pause(&mut self, splits: &[String]) -> Result<(), PluginError> {
        let ids = slices(splits);
        self.instance.done(|this, error| unsafe { (self.table.pause)(this, ids.as_ptr(), ids.len(), error) })
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn resume(&mut self, splits: &[String]) -> Result<(), PluginError> {
        let ids = slices(splits);
        self.instance.done(|this, error| unsafe { (self.table.resume)(this, ids.as_ptr(), ids.len(), error) })
    }

    /// The checkpoint is durable with these positions.
    ///
    /// # Errors
    /// As the plugin says; to be logged.
    pub fn checkpoint_committed(&mut self, checkpoint: u64, positions: &[(String, Vec<u8>)]) -> Result<(), PluginError> {
        let positions: Vec<_> = positions.iter().map(|(split, position)| lent(split, "", position)).collect();
        self.instance
            .done(|this, error| unsafe { (self.table.checkpoint_committed)(this, checkpoint, positions.as_ptr(), positions.len(), error) })
    }

    /// How far behind it is; empty if the plugin does not know.
    pub fn lag(&mut self) -> Vec<wire::SplitLag> {
        self.instance.json(|this, out, error| unsafe { (self.table.lag)(this, out, error) }).unwrap_or_default()
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the plugin says; to be logged.
    pub fn close(&mut self, reason: CloseReason) -> Result<(), PluginError> {
        self.instance.close(|this, error| unsafe { (self.table.close)(this, reason.to_abi(), error) })
    }
}

/// An enumerator: one per job, on the thread that made it, which it has for itself.
pub struct SourceEnumerator {
    instance: Instance,
    table: EnumeratorTable,
}

impl SourceEnumerator {
    pub(super) fn create(
        origin: Arc<Origin>,
        table: EnumeratorTable,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let instance = Instance::create(origin, &context.node, (table.create, table.destroy), Vec::new(), config, context, host)?;
        Ok(Self { instance, table })
    }

    // SAFETY, for every call below: as in `SourceReader`.

    /// Connects.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.instance.done(|this, error| unsafe { (self.table.open)(this, error) })
    }

    /// What has changed since the last call, waiting for at most `wait`.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn discover(&mut self, wait: Duration) -> Result<wire::Discovery, PluginError> {
        let deadline = deadline(&self.instance, wait);
        self.instance.json(|this, out, error| unsafe { (self.table.discover)(this, deadline, out, error) })
    }

    /// What to remember across a restart.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn snapshot(&mut self) -> Result<Vec<u8>, PluginError> {
        self.instance.bytes(|this, out, error| unsafe { (self.table.snapshot)(this, out, error) })
    }

    /// Goes on from a snapshot.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), PluginError> {
        self.instance.done(|this, error| unsafe { (self.table.restore)(this, Slice::new(snapshot), error) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the plugin says; to be logged.
    pub fn close(&mut self, reason: CloseReason) -> Result<(), PluginError> {
        self.instance.close(|this, error| unsafe { (self.table.close)(this, reason.to_abi(), error) })
    }
}

fn lent(split: &str, details: &str, position: &[u8]) -> abi::SplitPosition {
    abi::SplitPosition { split: Slice::new(split.as_bytes()), details: Slice::new(details.as_bytes()), position: Slice::new(position) }
}

/// The end of a wait by the host's clock.
fn deadline(instance: &Instance, wait: Duration) -> i64 {
    instance.served.now().saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}
