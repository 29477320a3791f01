//! The keyed state of one plugin transform's subtask: its keys, its declared states by slot, its timers. A transform operator interns the keys of a batch, opens a
//! [`CallState`] for the distinct ones and passes it to the plugin call; the loader's table is before it (ordinals and slots are checked there).
//!
//! A state with a time to live forgets a key's value, list or map as a whole, `time_to_live` of processing time after the last write to it: from then on nobody sees
//! it, no snapshot has it, and it is removed when the key is next touched or keys are compacted. Keys without any state or timer are forgotten by and by, so that what a plugin clears costs nothing.

use crate::changes::{Changes, Marks};
use crate::collections::{ListStore, MapStore};
use crate::key::{EncodedKeys, KeyError};
use crate::keys::KeyIndex;
use crate::scratch::{Scratch, ScratchError};
use crate::snapshot::SnapshotError;
use crate::timers::{DueTimer, Timers};
use crate::value::{ValueStore, renumber};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use arrow_schema::{FieldRef, Fields, Schema, SchemaRef};
use disk::Disk;
use standpipe_sdk::hosting::{KeyedState, LentColumn, StateError};
use standpipe_sdk::wire::{StateDetails, StateKind};
use standpipe_sdk::{ErrorCode, TimeDomain};
use std::sync::Arc;

mod disk;
mod lazy;
mod tables;

pub use lazy::LazyTables;
pub use tables::{Tables, is_state};

/// Keys, states and timers of a subtask.
#[derive(Debug)]
pub struct KeyedStates {
    key_schema: SchemaRef,
    max_parallelism: u32,
    keys: KeyIndex,
    slots: Vec<Slot>,
    event_timers: Timers,
    processing_timers: Timers,
    timer_changes: Changes,
    /// How many keys there may be before it looks for those that hold nothing.
    compact_at: usize,
    disk: Option<Disk>,
}

/// A declared state.
#[derive(Debug)]
struct Slot {
    details: StateDetails,
    field: FieldRef,
    store: Store,
    expiry: Option<Expiry>,
    changes: Changes,
    /// Where state is on disk: what has changed in memory since it was written there.
    dirty: Option<Marks>,
}

#[derive(Debug)]
enum Store {
    Value(ValueStore),
    List(ListStore),
    Map(MapStore),
}

/// When each key's entry was last written.
#[derive(Debug)]
struct Expiry {
    time_to_live: i64,
    written: Vec<i64>,
    undo: Vec<(u32, i64)>,
}

/// Before any write.
const NEVER: i64 = i64::MIN;
/// Keys below which compaction is not worth it.
const COMPACT_FLOOR: usize = 4096;

impl KeyedStates {
    /// No keys yet: `key_fields` are the columns of `key_by`, `states` what the plugin declared.
    ///
    /// # Errors
    /// When a key column or a state is of a kind or type that cannot be stored.
    pub fn new(key_fields: Fields, states: &[(StateDetails, FieldRef)], max_parallelism: u32) -> Result<Self, StateError> {
        let keys = KeyIndex::new(key_fields.iter().map(|field| field.data_type().clone()).collect())?;
        Ok(Self {
            key_schema: Arc::new(Schema::new(key_fields)),
            max_parallelism,
            keys,
            slots: states.iter().map(Slot::new).collect::<Result<_, _>>()?,
            event_timers: Timers::default(),
            processing_timers: Timers::default(),
            timer_changes: Changes::default(),
            compact_at: COMPACT_FLOOR,
            disk: None,
        })
    }

    /// The same with all but the `budget` bytes that were used last on disk. `name` is the subtask's, unique in the process.
    ///
    /// # Errors
    /// When the disk cannot be used.
    pub fn on_disk(mut self, scratch: Arc<Scratch>, name: &str, budget: usize) -> Result<Self, ScratchError> {
        self.disk = Some(Disk::new(scratch, name, self.slots.len(), budget)?);
        self.slots.iter_mut().for_each(|slot| slot.dirty = Some(Marks::default()));
        Ok(self)
    }

    /// The ids of all rows' keys. Ids hold until the next call of [`Self::compact`].
    ///
    /// # Errors
    /// When there are too many keys.
    pub fn intern(&mut self, keys: &EncodedKeys, ids: &mut Vec<u32>) -> Result<(), KeyError> {
        self.keys.intern(keys, ids)
    }

    /// The key index.
    #[must_use]
    pub fn keys(&self) -> &KeyIndex {
        &self.keys
    }

    /// The key columns of some keys, as a plugin call gets them.
    ///
    /// # Errors
    /// When Arrow cannot build them.
    pub fn key_batch(&self, ids: &[u32]) -> Result<RecordBatch, KeyError> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(ids.len()));
        Ok(RecordBatch::try_new_with_options(self.key_schema.clone(), self.keys.columns(ids)?, &options)?)
    }

    /// Opens the state of one call for the keys `ids`, by ordinal; `now` is the processing time.
    ///
    /// # Errors
    /// When state that is on disk cannot be read.
    pub fn call<'a>(&'a mut self, ids: &'a [u32], now: i64) -> Result<CallState<'a>, ScratchError> {
        self.load(ids)?;
        for slot in &mut self.slots {
            slot.forget_expired(ids.iter().copied(), now);
        }
        Ok(CallState { states: self, ids, now })
    }

    /// The timers of a domain.
    pub fn timers(&mut self, domain: TimeDomain) -> &mut Timers {
        match domain {
            TimeDomain::EventTime => &mut self.event_timers,
            TimeDomain::ProcessingTime => &mut self.processing_timers,
        }
    }

    /// When the first processing time timer is due.
    #[must_use]
    pub fn next_processing_time(&self) -> Option<i64> {
        self.processing_timers.first_time()
    }

    /// Forgets the keys that hold nothing, if there are so many keys that it is worth looking: ids change. Call it between batches; its cost is spread over the
    /// keys that came since it last did something. Where state is on disk, it makes room in memory.
    ///
    /// # Errors
    /// When state cannot be written to disk.
    pub fn compact(&mut self, now: i64) -> Result<(), ScratchError> {
        if self.disk.is_some() {
            return self.make_room().map(|_| ());
        }
        if self.keys.len() >= self.compact_at {
            self.forget_empty_keys(now);
            self.compact_at = (self.keys.len() * 2).max(COMPACT_FLOOR);
        }
        Ok(())
    }

    fn forget_empty_keys(&mut self, now: i64) {
        let all = self.keys.len() as u32;
        for slot in &mut self.slots {
            slot.forget_expired(0..all, now);
        }
        self.note_timers();
        // A snapshot must still say of some keys that they are no more.
        let mut needed = vec![false; self.keys.len()];
        self.slots.iter().map(|slot| &slot.changes).chain([&self.timer_changes]).for_each(|changes| changes.needs(&mut needed));
        let Self { keys, slots, event_timers, processing_timers, .. } = self;
        let moved = keys.compact(|id| {
            needed[id as usize] || slots.iter().any(|slot| slot.contains(id)) || event_timers.contains(id) || processing_timers.contains(id)
        });
        for slot in slots {
            slot.renumber(&moved);
        }
        event_timers.renumber(&moved);
        processing_timers.renumber(&moved);
        self.timer_changes.renumber(&moved);
    }

    /// Notes the keys whose timers have changed.
    fn note_timers(&mut self) {
        let wanted = self.timer_changes.wanted();
        for timers in [&mut self.event_timers, &mut self.processing_timers] {
            timers.take_touched(wanted).into_iter().for_each(|id| self.timer_changes.note(id));
        }
    }
}

impl Slot {
    fn new((details, field): &(StateDetails, FieldRef)) -> Result<Self, StateError> {
        let refuse = |why: String| StateError::new(ErrorCode::UNSUPPORTED, format!("state {:?}: {why}", details.name));
        let store = match details.kind {
            // How values are reduced is the plugin's: what is kept is one value.
            StateKind::Value | StateKind::Reducing => ValueStore::new(field.data_type()).map(Store::Value),
            StateKind::List => ListStore::new(field.clone()).map(Store::List),
            StateKind::Map => MapStore::new(field.data_type()).map(Store::Map),
        };
        let expiry = match details.time_to_live_ms {
            None => None,
            Some(millis) => {
                let micros = i64::try_from(millis).ok().and_then(|millis| millis.checked_mul(1000));
                let time_to_live = micros.ok_or_else(|| refuse(format!("a time to live of {millis} ms is too long")))?;
                Some(Expiry { time_to_live, written: Vec::new(), undo: Vec::new() })
            }
        };
        Ok(Self {
            details: details.clone(),
            field: field.clone(),
            store: store.map_err(|error| refuse(error.to_string()))?,
            expiry,
            changes: Changes::default(),
            dirty: None,
        })
    }

    fn contains(&self, id: u32) -> bool {
        match &self.store {
            Store::Value(store) => store.contains(id),
            Store::List(store) => store.contains(id),
            Store::Map(store) => store.contains(id),
        }
    }

    fn remove(&mut self, id: u32) {
        match &mut self.store {
            Store::Value(store) => store.remove(id),
            Store::List(store) => store.clear(id),
            Store::Map(store) => store.clear(id),
        }
    }

    fn forget_expired(&mut self, ids: impl Iterator<Item = u32>, now: i64) {
        let Some(expiry) = &self.expiry else { return };
        let expired: Vec<u32> = ids.filter(|id| expiry.expired(*id, now)).collect();
        for id in expired {
            self.remove(id);
            if let Some(expiry) = &mut self.expiry {
                expiry.written[id as usize] = NEVER;
            }
        }
        self.commit();
    }

    fn written(&mut self, ids: impl Iterator<Item = u32>, now: i64) {
        if let Some(expiry) = &mut self.expiry {
            ids.for_each(|id| expiry.write(id, now));
        }
    }

    fn commit(&mut self) {
        let Self { store, changes, dirty, .. } = self;
        if let Some(dirty) = dirty {
            store.each_written(|id| dirty.add(id));
        }
        if changes.wanted() {
            store.each_written(|id| changes.note(id));
        }
        match &mut self.store {
            Store::Value(store) => store.commit(),
            Store::List(store) => store.commit(),
            Store::Map(store) => store.commit(),
        }
        if let Some(expiry) = &mut self.expiry {
            expiry.undo.clear();
        }
    }

    fn rollback(&mut self) {
        match &mut self.store {
            Store::Value(store) => store.rollback(),
            Store::List(store) => store.rollback(),
            Store::Map(store) => store.rollback(),
        }
        if let Some(expiry) = &mut self.expiry {
            while let Some((id, old)) = expiry.undo.pop() {
                expiry.written[id as usize] = old;
            }
        }
    }

    fn renumber(&mut self, moved: &[Option<u32>]) {
        match &mut self.store {
            Store::Value(store) => store.renumber(moved),
            Store::List(store) => store.renumber(moved),
            Store::Map(store) => store.renumber(moved),
        }
        if let Some(expiry) = &mut self.expiry {
            renumber(&mut expiry.written, moved);
        }
        self.changes.renumber(moved);
        if let Some(dirty) = &mut self.dirty {
            dirty.renumber(moved);
        }
    }
}

impl Store {
    fn each_written(&self, tell: impl FnMut(u32)) {
        match self {
            Self::Value(store) => store.each_written(tell),
            Self::List(store) => store.each_written(tell),
            Self::Map(store) => store.each_written(tell),
        }
    }
}

impl Expiry {
    fn expired(&self, id: u32, now: i64) -> bool {
        self.written.get(id as usize).is_some_and(|written| *written != NEVER && now.saturating_sub(*written) >= self.time_to_live)
    }

    fn write(&mut self, id: u32, now: i64) {
        let at = id as usize;
        if at >= self.written.len() {
            self.written.resize(at + 1, NEVER);
        }
        self.undo.push((id, self.written[at]));
        self.written[at] = now;
    }
}

/// The state of the keys of one call, by ordinal.
#[derive(Debug)]
pub struct CallState<'a> {
    states: &'a mut KeyedStates,
    ids: &'a [u32],
    now: i64,
}

impl CallState<'_> {
    fn ids(&self, ordinals: &[u32]) -> Result<Vec<u32>, StateError> {
        let id = |ordinal: &u32| self.ids.get(*ordinal as usize).copied();
        ordinals.iter().map(id).collect::<Option<_>>().ok_or_else(|| out_of_range("an ordinal is not of this call"))
    }

    fn slot(&mut self, slot: u32) -> Result<&mut Slot, StateError> {
        self.states.slots.get_mut(slot as usize).ok_or_else(|| out_of_range("there is no such state"))
    }

    fn value(&mut self, slot: u32) -> Result<&mut ValueStore, StateError> {
        match &mut self.slot(slot)?.store {
            Store::Value(store) => Ok(store),
            _ => Err(out_of_range("it is not a value state")),
        }
    }

    fn list(&mut self, slot: u32) -> Result<&mut ListStore, StateError> {
        match &mut self.slot(slot)?.store {
            Store::List(store) => Ok(store),
            _ => Err(out_of_range("it is not a list state")),
        }
    }

    fn map(&mut self, slot: u32) -> Result<&mut MapStore, StateError> {
        match &mut self.slot(slot)?.store {
            Store::Map(store) => Ok(store),
            _ => Err(out_of_range("it is not a map state")),
        }
    }

    fn written(&mut self, slot: u32, ids: &[u32]) -> Result<(), StateError> {
        let now = self.now;
        self.slot(slot)?.written(ids.iter().copied(), now);
        Ok(())
    }

    fn each_timer(
        &mut self,
        domain: TimeDomain,
        slot: u32,
        ordinals: &[u32],
        times: &[i64],
        apply: fn(&mut Timers, DueTimer),
    ) -> Result<(), StateError> {
        if ordinals.len() != times.len() {
            return Err(out_of_range("as many times as ordinals are needed"));
        }
        let ids = self.ids(ordinals)?;
        let timers = self.states.timers(domain);
        ids.into_iter().zip(times).for_each(|(id, time)| apply(timers, DueTimer { time: *time, id, slot }));
        Ok(())
    }
}

impl KeyedState for CallState<'_> {
    fn field(&self, slot: u32) -> Result<FieldRef, StateError> {
        self.states.slots.get(slot as usize).map(|slot| slot.field.clone()).ok_or_else(|| out_of_range("there is no such state"))
    }

    fn gather(&mut self, slot: u32, into: &mut LentColumn) -> Result<(), StateError> {
        let ids = self.ids;
        match self.value(slot)? {
            ValueStore::Fixed(store) if store.width() == into.width && into.n() == ids.len() => {
                store.gather_validity(ids, &mut into.validity);
                store.gather(ids, into.bytes_mut());
                Ok(())
            }
            ValueStore::Fixed(_) => Err(out_of_range("the column to fill has another size than the call's")),
            ValueStore::Rows(_) => Err(out_of_range("the state has no fixed width")),
        }
    }

    fn scatter(&mut self, slot: u32, from: &LentColumn) -> Result<(), StateError> {
        let ids = self.ids;
        if from.n() != ids.len() || from.dirty.len() != ids.len() {
            return Err(out_of_range("the column to take has another length than the call has keys"));
        }
        match self.value(slot)? {
            ValueStore::Fixed(store) if store.width() == from.width => store.scatter(ids, from.bytes(), &from.validity, &from.dirty),
            _ => return Err(out_of_range("the column to take has another width than the state")),
        }
        let now = self.now;
        self.slot(slot)?.written(ids.iter().zip(&from.dirty).filter(|(_, dirty)| **dirty != 0).map(|(id, _)| *id), now);
        Ok(())
    }

    fn value_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef, StateError> {
        let ids = self.ids(ordinals)?;
        self.value(slot)?.get(&ids).map_err(arrow_failed)
    }

    fn value_set(&mut self, slot: u32, ordinals: &[u32], values: ArrayRef) -> Result<(), StateError> {
        let ids = self.ids(ordinals)?;
        self.value(slot)?.set(&ids, &values).map_err(arrow_failed)?;
        self.written(slot, &ids)
    }

    fn list_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef, StateError> {
        let ids = self.ids(ordinals)?;
        self.list(slot)?.get(&ids).map_err(arrow_failed)
    }

    fn list_append(&mut self, slot: u32, ordinals: &[u32], values: ArrayRef) -> Result<(), StateError> {
        let ids = self.ids(ordinals)?;
        self.list(slot)?.append(&ids, &values).map_err(arrow_failed)?;
        self.written(slot, &ids)
    }

    fn list_clear(&mut self, slot: u32, ordinals: &[u32]) -> Result<(), StateError> {
        let ids = self.ids(ordinals)?;
        let list = self.list(slot)?;
        ids.iter().for_each(|id| list.clear(*id));
        Ok(())
    }

    fn map_get(&mut self, slot: u32, ordinals: &[u32], keys: ArrayRef) -> Result<ArrayRef, StateError> {
        let ids = self.ids(ordinals)?;
        self.map(slot)?.get(&ids, &keys).map_err(arrow_failed)
    }

    fn map_put(&mut self, slot: u32, ordinals: &[u32], keys: ArrayRef, values: ArrayRef) -> Result<(), StateError> {
        let ids = self.ids(ordinals)?;
        self.map(slot)?.put(&ids, &keys, &values).map_err(arrow_failed)?;
        self.written(slot, &ids)
    }

    fn map_remove(&mut self, slot: u32, ordinals: &[u32], keys: ArrayRef) -> Result<(), StateError> {
        let ids = self.ids(ordinals)?;
        self.map(slot)?.remove(&ids, &keys).map_err(arrow_failed)
    }

    fn map_scan(&mut self, slot: u32, ordinal: u32, from: Option<ArrayRef>, limit: usize) -> Result<ArrayRef, StateError> {
        let ids = self.ids(&[ordinal])?;
        self.map(slot)?.scan(ids[0], from.as_ref(), limit).map_err(arrow_failed)
    }

    fn timer_set(&mut self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<(), StateError> {
        self.each_timer(domain, slot, ordinals, times, Timers::set)
    }

    fn timer_delete(&mut self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<(), StateError> {
        self.each_timer(domain, slot, ordinals, times, Timers::delete)
    }

    fn commit(&mut self) {
        self.states.slots.iter_mut().for_each(Slot::commit);
        self.states.event_timers.commit();
        self.states.processing_timers.commit();
    }

    fn rollback(&mut self) {
        self.states.slots.iter_mut().for_each(Slot::rollback);
        self.states.event_timers.rollback();
        self.states.processing_timers.rollback();
    }
}

fn out_of_range(message: &str) -> StateError {
    StateError::new(ErrorCode::OUT_OF_RANGE, message)
}

fn arrow_failed(error: ArrowError) -> StateError {
    StateError::new(ErrorCode::OTHER, error.to_string())
}

impl From<KeyError> for StateError {
    fn from(error: KeyError) -> Self {
        let code = if matches!(error, KeyError::Type(_)) { ErrorCode::UNSUPPORTED } else { ErrorCode::OTHER };
        Self::new(code, error.to_string())
    }
}

impl From<ScratchError> for StateError {
    fn from(error: ScratchError) -> Self {
        Self::new(ErrorCode::EXTERNAL, error.to_string())
    }
}

impl From<SnapshotError> for StateError {
    fn from(error: SnapshotError) -> Self {
        Self::new(ErrorCode::DATA, error.to_string())
    }
}

#[cfg(test)]
mod tests;
