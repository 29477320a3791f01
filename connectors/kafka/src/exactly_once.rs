//! Delivery exactly once. Nothing is sent before its checkpoint is durable: records wait in an [`epoch::Log`](crate::epoch::Log), which `prepare` gives to the host for the
//! checkpoint. `commit` then sends them in one transaction, with a marker that says so ([`crate::transaction`]). After a restart `recover` reads the markers: what was
//! prepared is there as a whole, or is sent now from what the checkpoint holds. No transaction is open between checkpoints, so none keeps readers waiting.
//!
//! What a broker would refuse is refused when it is written: when it is sent it is too late to pass it to the `errors` stream.

use crate::{
    config::SinkConfig,
    epoch::{Address, Epoch, Log, Rows},
    records::{Columns, Record, Records},
    transaction::{Session, Stance, Wiring},
};
use arrow_array::RecordBatch;
use arrow_schema::DataType;
use standpipe_sdk::{Committable, Context, Error, Host, Recovered, Rejection, Result, Written};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

/// What all epochs of a subtask that are not committed may take: a checkpoint holds them in one column, and the host has them in memory.
const LARGEST: usize = 1 << 30;
/// The age at which the marker of a sink that gets nothing is written again: brokers forget a group's offset some days after it was written (offsets.retention.minutes).
const MARKER_AGE: Duration = Duration::from_secs(3_600);

/// What the topic takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The largest record.
    pub(crate) bytes: usize,
    pub(crate) partitions: i32,
    /// Compaction needs keys.
    pub(crate) needs_keys: bool,
}

/// A sink that delivers exactly once.
pub(crate) struct Epochs {
    columns: Columns,
    limits: Limits,
    address: Address,
    log: Log,
    /// Bytes that are prepared and not committed, by checkpoint.
    prepared: BTreeMap<u64, usize>,
    /// See [`SinkConfig::max_pending`].
    max_pending: usize,
    /// The last batch taken.
    taken: u64,
    wiring: Wiring,
    sessions: BTreeMap<String, Session>,
    /// Ids that were claimed once.
    claimed: BTreeSet<String>,
    /// Asks how many partitions there are now.
    count: Box<dyn Fn() -> Result<i32> + Send>,
    host: Host,
}

impl Epochs {
    /// Claims the transactional id, unless `recover` will.
    pub(crate) fn open(
        config: &SinkConfig,
        columns: Columns,
        headers: Option<&DataType>,
        limits: Limits,
        wiring: Wiring,
        count: Box<dyn Fn() -> Result<i32> + Send>,
        context: &Context,
    ) -> Result<Self> {
        let prefix = config.transactional_id_prefix.clone().unwrap_or_else(|| format!("{}-{}", context.job_name, context.node));
        let transactional_id = format!("{prefix}-{}-{}", config.topic, context.subtask);
        let address = Address { transactional_id, run: wiring.run.clone(), topic: config.topic.clone() };
        let log = Log::new(&address, headers);
        let (host, max_pending) = (context.host.clone(), config.max_pending.0);
        let (prepared, sessions, claimed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut epochs = Self { columns, limits, address, log, prepared, max_pending, taken: 0, wiring, sessions, claimed, count, host };
        if !context.restored {
            let own = epochs.address.clone();
            epochs.session(&own, Stance::New)?;
        }
        Ok(epochs)
    }

    pub(crate) fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        let records = Records::of(batch, &self.columns)?;
        let (mut rows, mut refused) = (Rows::default(), Vec::new());
        let mut has_asked = false;
        for (index, row) in (0..).zip(0..batch.num_rows()) {
            let Some(record) = records.get(row) else { continue };
            match self.fault(&record, &mut has_asked)? {
                None => rows.push(index, &record),
                Some(reason) => refused.push(Rejection { row: index, reason, details: String::new() }),
            }
        }
        self.log.append(rows, batch, self.columns.headers.as_deref())?;
        if self.pending() > LARGEST {
            return Err(Error::external(format!(
                "{} MiB of records wait for a checkpoint that becomes durable, more than can be held: make checkpoint.interval shorter, or see why checkpoints fail",
                self.pending() >> 20
            )));
        }
        if !refused.is_empty() {
            self.host.reject(seq, &refused)?;
        }
        self.taken = seq;
        self.acknowledge();
        Ok(Written::Taken)
    }

    /// Why the brokers would not take that record. They are asked once for a batch how many partitions there are.
    fn fault(&mut self, record: &Record<'_>, has_asked: &mut bool) -> Result<Option<String>> {
        if record.largest() > self.limits.bytes {
            let (found, limit) = (record.bytes(), self.limits.bytes);
            return Ok(Some(format!(
                "the record of {found} bytes is too large: topic and producer take {limit} bytes with all that goes with it"
            )));
        }
        if self.limits.needs_keys && record.key.is_none() {
            return Ok(Some("the topic is compacted, and the record has no key".to_owned()));
        }
        if record.timestamp.is_some_and(i64::is_negative) {
            return Ok(Some("the record's timestamp is before 1970".to_owned()));
        }
        let Some(partition) = record.partition else { return Ok(None) };
        if partition >= i64::from(self.limits.partitions) && !std::mem::replace(has_asked, true) {
            // There may be more by now.
            self.limits.partitions = (self.count)()?;
        }
        let exists = (0..i64::from(self.limits.partitions)).contains(&partition);
        Ok((!exists).then(|| record.no_partition()))
    }

    /// Bytes that are held, in the checkpoint to come and in those that are not committed.
    fn pending(&self) -> usize {
        self.log.bytes() + self.prepared.values().sum::<usize>()
    }

    /// What is acknowledged makes room for more: beyond `max_pending` it waits for the next checkpoint, after which the host takes it as acknowledged.
    fn acknowledge(&self) {
        if self.taken > 0 && self.pending() <= self.max_pending {
            self.host.ack(self.taken);
        }
    }

    pub(crate) fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        let bytes = self.log.take()?;
        self.prepared.insert(checkpoint, bytes.len());
        Ok(bytes)
    }

    pub(crate) fn commit(&mut self, up_to: u64, prepared: &[Committable]) -> Result<()> {
        let mut prepared: Vec<&Committable> = prepared.iter().collect();
        // A marker speaks for all before it.
        prepared.sort_by_key(|committable| committable.checkpoint);
        for committable in prepared {
            let Some(epoch) = Epoch::open(&committable.bytes)? else { continue };
            let (address, checkpoint) = (epoch.address.clone(), committable.checkpoint);
            let session = self.session(&address, Stance::New)?;
            if session.marker().covers(&address.run, checkpoint) {
                continue;
            }
            if let Err(error) = session.commit(checkpoint, epoch) {
                self.sessions.remove(&address.transactional_id);
                return Err(error);
            }
        }
        self.prepared = self.prepared.split_off(&(up_to + 1));
        self.acknowledge();
        // Those of former subtasks have nothing left.
        self.sessions.retain(|id, _| *id == self.address.transactional_id);
        self.keep_marker()
    }

    fn keep_marker(&mut self) -> Result<()> {
        let own = self.address.clone();
        let session = self.session(&own, Stance::New)?;
        if session.written.elapsed() < MARKER_AGE {
            return Ok(());
        }
        let refreshed = session.refresh();
        if refreshed.is_err() {
            self.sessions.remove(&own.transactional_id);
        }
        refreshed
    }

    pub(crate) fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        let mut decisions = Vec::with_capacity(prepared.len());
        for committable in prepared {
            let Some(epoch) = Epoch::open(&committable.bytes)? else {
                decisions.push(Recovered::Committed);
                continue;
            };
            let session = self.session(&epoch.address, Stance::Recover)?;
            let is_there = session.marker().covers(&epoch.address.run, committable.checkpoint);
            if !is_there {
                *self.prepared.entry(committable.checkpoint).or_default() += committable.bytes.len();
            }
            decisions.push(if is_there { Recovered::Committed } else { Recovered::Commit });
        }
        let own = self.address.clone();
        self.session(&own, Stance::New)?;
        Ok(decisions)
    }

    pub(crate) fn finish(&self) -> Result<()> {
        if self.log.bytes() > 0 || !self.prepared.is_empty() {
            return Err(Error::external("records were written that no checkpoint covers"));
        }
        Ok(())
    }

    /// The session of an id; it is claimed, as `first` says, or, if it was before, claimed again.
    fn session(&mut self, address: &Address, first: Stance) -> Result<&mut Session> {
        let id = &address.transactional_id;
        let stance = if self.claimed.contains(id) { Stance::Again } else { first };
        match self.sessions.entry(id.clone()) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let session = Session::claim(&self.wiring, id, &address.topic, stance)?;
                self.claimed.insert(id.clone());
                Ok(place.insert(session))
            }
        }
    }
}
