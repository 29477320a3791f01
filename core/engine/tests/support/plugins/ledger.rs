//! A sink whose rows count when they are committed, in a ledger that outlives the job.

use super::Probe;
use arrow::array::RecordBatch;
use standpipe_sdk::{
    Committable, Context, Error, Host, Recovered, Result, Sink, SinkDeclaration, SinkInput, Written, sink::Encoding, wire::Capabilities,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What is outside of the job.
#[derive(Default)]
pub struct Book {
    prepared: BTreeMap<String, Vec<RecordBatch>>,
    committed: BTreeSet<String>,
    pub rows: BTreeMap<String, Vec<RecordBatch>>,
    /// The checkpoints whose committables were given up.
    pub aborted: Vec<u64>,
}

impl Book {
    /// Whether a sink has prepared something that is not committed yet.
    pub fn has_prepared(&self, node: &str) -> bool {
        self.prepared.keys().any(|id| id.strip_prefix(node).is_some_and(|rest| rest.starts_with('-')))
    }

    fn commit(&mut self, node: &str, id: &str) -> Result<()> {
        if self.committed.contains(id) {
            return Ok(());
        }
        let batches = self.prepared.remove(id).ok_or_else(|| Error::data(format!("there is no transaction {id}")))?;
        self.committed.insert(id.to_owned());
        self.rows.entry(node.to_owned()).or_default().extend(batches);
        Ok(())
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct LedgerConfig {
    pub probe: String,
}

pub struct Ledger {
    probe: Arc<Probe>,
    context: (String, u32, u64),
    host: Host,
    pending: Vec<RecordBatch>,
}

impl Sink for Ledger {
    const NAME: &'static str = "ledger";
    type Config = LedgerConfig;

    fn declare(_: &LedgerConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        let capabilities = Capabilities { transactional: true, ..Capabilities::default() };
        Ok(SinkDeclaration { encoding: Encoding::Rows, capabilities, ..Default::default() })
    }

    fn open(config: LedgerConfig, _: &SinkInput, context: Context) -> Result<Self> {
        let place = (context.node, context.subtask, context.generation);
        Ok(Self { probe: Probe::of(&config.probe), context: place, host: context.host, pending: Vec::new() })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.pending.push(batch.clone());
        self.host.ack(seq);
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        let (node, subtask, generation) = &self.context;
        let id = format!("{node}-{subtask}-{generation}-{checkpoint}");
        self.probe.book.lock().unwrap().prepared.insert(id.clone(), std::mem::take(&mut self.pending));
        Ok(id.into_bytes())
    }

    fn commit(&mut self, _: u64, prepared: &[Committable]) -> Result<()> {
        let mut book = self.probe.book.lock().unwrap();
        prepared.iter().try_for_each(|committable| book.commit(&self.context.0, &String::from_utf8_lossy(&committable.bytes)))
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        let book = self.probe.book.lock().unwrap();
        let fate = |committable: &Committable| {
            let id = String::from_utf8_lossy(&committable.bytes);
            match (book.committed.contains(&*id), book.prepared.contains_key(&*id)) {
                (true, _) => Recovered::Committed,
                (false, true) => Recovered::Commit,
                (false, false) => Recovered::Lost,
            }
        };
        Ok(prepared.iter().map(fate).collect())
    }
    fn abort(&mut self, prepared: &[Committable]) -> Result<()> {
        self.probe.book.lock().unwrap().aborted.extend(prepared.iter().map(|committable| committable.checkpoint));
        Ok(())
    }
}
