//! A sink that remembers what it gets, and goes wrong when told to.

use super::Probe;
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use standpipe_sdk::{CloseReason, Context, Counter, Error, Host, Result, Sink, SinkDeclaration, SinkInput, Written, sink::Encoding};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

/// Remembers what it gets.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct CollectConfig {
    pub probe: String,
    /// When it acknowledges: `write` (default), `flush`.
    #[serde(default)]
    pub acknowledge: String,
    /// Fails at that batch.
    pub fail_at: Option<u64>,
    /// At that batch, what it writes to is not there.
    pub missing_at: Option<u64>,
    /// Panics at that batch.
    pub panic_at: Option<u64>,
    /// Blocks for ever at that batch, whatever the host wants.
    pub hang_at: Option<u64>,
    /// Refuses rows whose `n` is a multiple.
    pub refuse: Option<i64>,
    /// Is busy so many times before it takes a batch.
    #[serde(default)]
    pub busy: u32,
    /// Acknowledges that many batches more than it got.
    #[serde(default)]
    pub boast: u64,
    /// Comes resolved.
    pub secret: Option<String>,
    /// Does not remember rows, only counts them.
    #[serde(default)]
    pub forget: bool,
}

pub struct Collect {
    config: CollectConfig,
    probe: Arc<Probe>,
    node: String,
    subtask: u32,
    host: Host,
    rows: Counter,
    written: u64,
    busy: u32,
}

impl Sink for Collect {
    const NAME: &'static str = "collect";
    type Config = CollectConfig;

    fn declare(_: &CollectConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration { encoding: Encoding::Rows, ..Default::default() })
    }

    fn open(config: CollectConfig, _: &SinkInput, context: Context) -> Result<Self> {
        let probe = Probe::of(&config.probe);
        let rows = context.host.counter("collected_rows", &[("kind", "test")]);
        if let Some(secret) = &config.secret {
            probe.secret.lock().unwrap().clone_from(secret);
        }
        Ok(Self { config, probe, node: context.node, subtask: context.subtask, host: context.host, rows, written: 0, busy: 0 })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        if self.busy < self.config.busy {
            self.busy += 1;
            let host = self.host.clone();
            std::thread::spawn(move || host.wake());
            return Ok(Written::Busy);
        }
        self.busy = 0;
        assert_eq!(seq, self.written + 1, "sequence numbers have no gaps");
        self.probe.reach("write")?;
        if [self.config.fail_at, self.config.panic_at, self.config.missing_at].contains(&Some(seq)) || self.config.boast > 0 {
            self.probe.fails();
        }
        if self.config.fail_at == Some(seq) {
            return Err(Error::new(standpipe_sdk::ErrorCode::OTHER, "the disk is full"));
        }
        if self.config.missing_at == Some(seq) {
            return Err(Error::external("there is no index"));
        }
        assert!(self.config.panic_at != Some(seq), "the sink is broken");
        while self.config.hang_at == Some(seq) {
            std::thread::park();
        }
        self.written = seq;
        self.rows.add(batch.num_rows() as u64);
        if let Some(refuse) = self.config.refuse {
            let n = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
            let refused = |(row, n): (usize, &i64)| {
                (n % refuse == 0).then(|| standpipe_sdk::Rejection {
                    row: row as u32,
                    reason: format!("{n} is refused"),
                    details: String::new(),
                })
            };
            let refused: Vec<_> = n.values().iter().enumerate().filter_map(refused).collect();
            if !refused.is_empty() {
                self.host.reject(seq, &refused)?;
            }
        }
        if !self.config.forget {
            let mut written = self.probe.written.lock().unwrap();
            written.entry((self.node.clone(), self.subtask)).or_default().push(batch.clone());
        }
        if self.config.acknowledge != "flush" && !self.probe.stuck.load(SeqCst) {
            self.host.ack(seq + self.config.boast);
        }
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        self.probe.reach("flush")?;
        while self.probe.stuck.load(SeqCst) {
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.host.ack(self.written);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.probe.reach("finish")?;
        self.flush(0)?;
        self.probe.finished.fetch_add(1, SeqCst);
        Ok(())
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        self.probe.closed.lock().unwrap().push((self.node.clone(), self.subtask, reason));
        Ok(())
    }
}
