//! A plugin's transform, keyed or not, on its task thread. The host holds the keyed state ([`KeyedStates`]): with each batch the plugin gets the ordinal of each row's
//! key and access to the state of just these keys; what a call writes and emits holds only if it succeeds.
//!
//! A watermark is told first, then the event time timers at or before it fire: at most one per key and call, the earliest, so that a key sees its timers in time order,
//! also those that its own timers set. At the end (`END`) a key's event time goes on to the latest timer that it has then: what its timers set beyond that is void,
//! for a timer that sets its successor would never end. So are timers of processing time. Then the input is finished.
//!
//! A batch of one without keys may be answered later: then its task thread has the call ([`Transform::begin`]), and waits before a cut and before an input is finished.
//!
//! Snapshot: keyed: a table `state.NAME` per declared state and `timers`, or what has changed of them; and `plugin`, the bytes of the plugin's own snapshot, of every former subtask.

use super::{arrow_error, data_error};
use crate::operator::{END, Emitter, Micros, Operator, OperatorError, Snapshot};
use arrow::{
    array::{AsArray, BinaryArray, RecordBatch},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
};
use hashbrown::HashMap;
use standpipe_isolation::Transform as TransformInstance;
use standpipe_loader::{Begun, CloseReason, Emitted, Ended, Error, HostServices, KeyedCall, TimeDomain, Timer};
use standpipe_state::{
    Cut, EncodedKeys, KeyGroupRange, KeyedStates, Ordinals, Tables,
    scratch::Scratch,
    snapshot::{SnapshotError, typed_column},
    timers::DueTimer,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

#[cfg(test)]
mod tests;

const PLUGIN: &str = "plugin";

/// See the module's documentation.
pub(crate) struct Transform {
    node: String,
    instance: TransformInstance,
    keyed: Option<Keyed>,
    host: Arc<dyn HostServices>,
    /// Its input has ended: timers of processing time are void.
    ended: bool,
}

/// That keyed state is kept on disk.
pub(crate) struct OnDisk {
    pub(crate) scratch: Arc<Scratch>,
    /// The subtask's, unique in the process.
    pub(crate) name: String,
    /// Bytes that stay in memory.
    pub(crate) cache: usize,
}

/// What a keyed transform has besides.
struct Keyed {
    columns: Vec<usize>,
    states: KeyedStates,
    encoded: EncodedKeys,
    ids: Vec<u32>,
    ordinals: Ordinals,
    timers: Vec<Timer>,
}

impl Transform {
    /// Around an open instance; with the input's schema it is keyed by the columns `keys`.
    ///
    /// # Errors
    /// When a key or a declared state cannot be held.
    pub(crate) fn new(
        node: &str,
        instance: TransformInstance,
        input: Option<SchemaRef>,
        keys: &[usize],
        host: Arc<dyn HostServices>,
        max_parallelism: u32,
        on_disk: Option<OnDisk>,
    ) -> Result<Self, OperatorError> {
        let keyed = match input {
            None => None,
            Some(schema) => {
                let fields: Fields = keys.iter().map(|key| schema.fields()[*key].clone()).collect();
                let mut states = KeyedStates::new(fields, instance.states(), max_parallelism).map_err(|error| data_error(node, error))?;
                if let Some(OnDisk { scratch, name, cache }) = on_disk {
                    states = states.on_disk(scratch, &name, cache).map_err(|error| data_error(node, error))?;
                }
                Some(Keyed {
                    columns: keys.to_vec(),
                    states,
                    encoded: EncodedKeys::new(),
                    ids: Vec::new(),
                    ordinals: Ordinals::default(),
                    timers: Vec::new(),
                })
            }
        };
        Ok(Self { node: node.to_owned(), instance, keyed, host, ended: false })
    }

    /// Gives a batch to one without keys; the call may end later.
    ///
    /// # Errors
    /// As the plugin says.
    pub(crate) fn begin(&mut self, input: u32, batch: &RecordBatch) -> Result<Begun, OperatorError> {
        if batch.num_rows() == 0 { Ok(Begun::Done(Vec::new())) } else { Ok(self.instance.begin(input, batch)?) }
    }

    /// The calls that have ended since the last time.
    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.instance.ended()
    }

    /// All calls are about to be waited for, before a checkpoint or before an input is finished.
    ///
    /// # Errors
    /// As the plugin says.
    pub(crate) fn drain(&mut self, checkpoint: Option<u64>) -> Result<(), OperatorError> {
        Ok(self.instance.drain(checkpoint)?)
    }

    /// A call has been pending for so long, which is too long.
    pub(crate) fn overdue(&self, age: Duration, timeout: Duration) -> OperatorError {
        let message =
            format!("a call has been pending for {:.1} s, longer than async.timeout, {:.1} s", age.as_secs_f64(), timeout.as_secs_f64());
        self.instance.failure(Error::external(message).retryable()).into()
    }

    /// A watermark without what follows from an input's end.
    ///
    /// # Errors
    /// As the plugin says.
    pub(crate) fn advance(&mut self, input: u32, watermark: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        emit(self.instance.on_watermark(input, watermark)?, out);
        let now = self.host.now();
        self.fire(TimeDomain::EventTime, watermark, now, out)
    }

    /// An input has ended.
    ///
    /// # Errors
    /// As the plugin says.
    pub(crate) fn finish(&mut self, input: u32, out: &mut Emitter) -> Result<(), OperatorError> {
        self.ended = true;
        emit(self.instance.finish(input)?, out);
        Ok(())
    }

    fn process(&mut self, input: u32, batch: &RecordBatch) -> Result<Vec<Emitted>, OperatorError> {
        let Some(keyed) = &mut self.keyed else { return Ok(self.instance.process(input, batch, None)?) };
        let now = self.host.now();
        keyed.states.compact(now).map_err(|error| data_error(&self.node, error))?;
        let columns: Vec<_> = keyed.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
        let interned = keyed.encoded.encode(&columns, batch.num_rows()).and_then(|()| keyed.states.intern(&keyed.encoded, &mut keyed.ids));
        interned.map_err(|error| data_error(&self.node, error))?;
        keyed.ordinals.assign(&keyed.ids, keyed.states.keys().len());
        let keys = keyed.states.key_batch(keyed.ordinals.ids()).map_err(|error| data_error(&self.node, error))?;
        let mut state = keyed.states.call(keyed.ordinals.ids(), now).map_err(|error| data_error(&self.node, error))?;
        let call = KeyedCall { key_of_row: keyed.ordinals.of_row(), keys: &keys, state: &mut state };
        Ok(self.instance.process(input, batch, Some(call))?)
    }

    /// Fires the timers of a domain that are due at `until`.
    fn fire(&mut self, domain: TimeDomain, until: Micros, now: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        let Some(keyed) = &mut self.keyed else { return Ok(()) };
        let mut limits: Option<HashMap<u32, Micros>> = (until == END).then(|| keyed.states.timers(domain).last_times().collect());
        loop {
            let mut round = keyed.states.timers(domain).next_round(until);
            if round.is_empty() {
                return Ok(());
            }
            if let Some(limits) = &limits {
                round.retain(|timer| limits.get(&timer.id).is_some_and(|limit| timer.time <= *limit));
            }
            if !round.is_empty() {
                emit(keyed.fire_round(&self.node, &mut self.instance, domain, &round, now)?, out);
            }
            // Keys that have a timer keep an id, if not the same.
            let moved = keyed.states.make_room().map_err(|error| data_error(&self.node, error))?;
            if let (Some(limits), Some(moved)) = (&mut limits, moved) {
                let new = |(id, limit): (u32, Micros)| Some((moved.get(id as usize).copied().flatten()?, limit));
                *limits = std::mem::take(limits).into_iter().filter_map(new).collect();
            }
        }
    }

    fn plugin_table(&mut self) -> Result<RecordBatch, OperatorError> {
        let bytes = self.instance.snapshot()?;
        let schema = Schema::new(vec![Field::new(PLUGIN, DataType::Binary, false)]);
        let table = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(BinaryArray::from_vec(vec![&bytes]))]);
        table.map_err(|source| arrow_error(&self.node, source))
    }
}

impl Keyed {
    /// One call: at most one timer per key.
    fn fire_round(
        &mut self,
        node: &str,
        instance: &mut TransformInstance,
        domain: TimeDomain,
        round: &[DueTimer],
        now: Micros,
    ) -> Result<Vec<Emitted>, OperatorError> {
        self.ids.clear();
        self.ids.extend(round.iter().map(|timer| timer.id));
        self.timers.clear();
        self.timers.extend((0..).zip(round).map(|(ordinal, timer)| Timer { ordinal, slot: timer.slot, time: timer.time }));
        self.ordinals.assign(&self.ids, self.states.keys().len());
        let keys = self.states.key_batch(&self.ids).map_err(|error| data_error(node, error))?;
        let mut state = self.states.call(&self.ids, now).map_err(|error| data_error(node, error))?;
        Ok(instance.on_timer(domain, &self.timers, KeyedCall { key_of_row: self.ordinals.of_row(), keys: &keys, state: &mut state })?)
    }
}

pub(crate) fn emit(emitted: Vec<Emitted>, out: &mut Emitter) {
    emitted.into_iter().for_each(|emitted| out.emit(emitted.output, emitted.batch));
}

impl Operator for Transform {
    fn on_batch(&mut self, input: u32, batch: RecordBatch, out: &mut Emitter) -> Result<(), OperatorError> {
        if batch.num_rows() > 0 {
            emit(self.process(input, &batch)?, out);
        }
        Ok(())
    }

    fn on_watermark(&mut self, input: u32, watermark: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        self.advance(input, watermark, out)?;
        if watermark == END { self.finish(input, out) } else { Ok(()) }
    }

    fn close(&mut self, reason: CloseReason) {
        if let Err(error) = self.instance.close(reason) {
            tracing::warn!(operator = %self.node, "{error}");
        }
    }

    fn on_processing_time(&mut self, now: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        self.fire(TimeDomain::ProcessingTime, now, now, out)
    }

    fn next_wakeup(&self) -> Option<Micros> {
        self.keyed.as_ref().filter(|_| !self.ended)?.states.next_processing_time()
    }

    fn snapshot(&mut self, cut: Cut) -> Result<Snapshot, OperatorError> {
        let Tables { mut tables, rest } = match &mut self.keyed {
            Some(keyed) => keyed.states.snapshot(cut, self.host.now()).map_err(|error| data_error(&self.node, error))?,
            None => Tables::default(),
        };
        tables.push((PLUGIN.to_owned(), self.plugin_table()?));
        Ok(Snapshot { tables, rest, stored: None })
    }

    fn restore(&mut self, parts: &[Snapshot], owned: KeyGroupRange) -> Result<(), OperatorError> {
        let misfit = |error: SnapshotError| data_error(&self.node, error);
        let mut bytes = Vec::with_capacity(parts.len());
        for part in parts {
            for (_, table) in part.tables.iter().filter(|(name, _)| name == PLUGIN) {
                bytes.extend(typed_column(table, PLUGIN, &DataType::Binary).map_err(misfit)?.as_binary::<i32>().iter().flatten());
            }
            if let Some(keyed) = &mut self.keyed {
                let now = self.host.now();
                let mut dropped: BTreeSet<String> = keyed.states.restore(&part.tables, owned, now).map_err(misfit)?.into_iter().collect();
                if let Some(stored) = &part.stored {
                    let mut take = |name: &str, table| {
                        let left = keyed.states.restore(&[(name.to_owned(), table)], owned, now).map_err(|error| error.to_string())?;
                        dropped.extend(left);
                        Ok(())
                    };
                    stored.read(owned, &mut take).map_err(|message| data_error(&self.node, message))?;
                }
                for state in dropped {
                    tracing::warn!(operator = %self.node, "{}: the plugin no longer declares the state {state:?}: it is left behind", self.node);
                }
            }
        }
        Ok(self.instance.restore(&bytes)?)
    }
}
