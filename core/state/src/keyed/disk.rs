//! Keyed state larger than memory: what a subtask has in memory is then a cache of what it has on disk ([`Scratch`]). Calls work on memory alone, at its speed; the keys
//! of a call that are not there are read before it, and when there is too much, the keys that were not used for the longest time leave: what has changed of them is
//! written. Timers, and the keys that have one, stay in memory.
//!
//! Entries are by slot and encoded key: when it was last written (8 bytes, for the time to live), then what the store gives. A second keyspace has the keys that have left
//! with a change since the last whole snapshot, each with the number of the cut since which it is one: what [`Changes`](crate::changes::Changes) is in memory.
//!
//! A snapshot writes nothing back: it says what memory knows better, and of the disk only the rest. So with a cache that holds what is used it costs what it costs in memory.

use super::lazy::{Common, LazyTables, Left, Part};
use super::{KeyedStates, NEVER, Slot, Store};
use crate::changes::{Base, Cut, Marks, Said};
use crate::keys::KeyIndex;
use crate::scratch::{Scratch, ScratchError};
use crate::snapshot::SnapshotError;
use crate::value::renumber;
use fjall::Keyspace;
use std::sync::Arc;

/// What is on disk, and what of it is in memory.
pub(super) struct Disk {
    states: Keyspace,
    /// Bytes that may be in memory, and at how many there is made room next: what must stay may be more.
    budget: usize,
    full_at: usize,
    /// By id: whether its state is in memory; the call in which it was last used.
    resident: Vec<bool>,
    used: Vec<u32>,
    calls: u32,
    slots: Vec<DiskSlot>,
    /// Behind its keyspaces, so that these are closed before it.
    scratch: Arc<Scratch>,
}

/// What is known of a state.
struct DiskSlot {
    changed: Keyspace,
    /// By id: whether the disk has an entry.
    stored: Vec<bool>,
    /// Entries on disk.
    entries: usize,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("scratch", &self.scratch).field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// What the keys of a state's entries begin with.
pub(super) fn entry_prefix(slot: usize) -> [u8; 4] {
    (slot as u32).to_be_bytes()
}

/// The bytes that stand for a key's entry: the state's slot, then the encoded key.
fn entry_key(slot: usize, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&entry_prefix(slot));
    into.extend_from_slice(key);
}

fn set<T: Copy + Default>(values: &mut Vec<T>, id: u32, value: T) {
    let at = id as usize;
    if at >= values.len() {
        values.resize(at + 1, T::default());
    }
    values[at] = value;
}

fn get<T: Copy + Default>(values: &[T], id: u32) -> T {
    values.get(id as usize).copied().unwrap_or_default()
}

impl Disk {
    /// `name` is the subtask's, unique in the process.
    pub(super) fn new(scratch: Arc<Scratch>, name: &str, slots: usize, budget: usize) -> Result<Self, ScratchError> {
        let slot = |at| -> Result<DiskSlot, ScratchError> {
            let changed = scratch.keyspace(&format!("{name}.{at}.changed"), CHANGED_MEMTABLE)?;
            Ok(DiskSlot { changed, stored: Vec::new(), entries: 0 })
        };
        let slots = (0..slots).map(slot).collect::<Result<_, _>>()?;
        let states = scratch.keyspace(name, STATES_MEMTABLE)?;
        let (resident, used) = (Vec::new(), Vec::new());
        Ok(Self { states, budget, full_at: budget, resident, used, calls: 0, slots, scratch })
    }
}

impl KeyedStates {
    /// Reads the state of some keys that are not in memory.
    pub(super) fn load(&mut self, ids: &[u32]) -> Result<(), ScratchError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        disk.calls = disk.calls.wrapping_add(1);
        ids.iter().for_each(|id| set(&mut disk.used, *id, disk.calls));
        let mut missing: Vec<u32> = ids.iter().copied().filter(|id| !get(&disk.resident, *id)).collect();
        // Neighbours on disk are in one block.
        self.keys.sort(&mut missing);
        missing.dedup();
        let mut key = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            for id in &missing {
                entry_key(at, self.keys.key(*id), &mut key);
                let entry = disk.states.get(&key).map_err(|error| disk.scratch.failed("read", &error))?;
                set(&mut disk.slots[at].stored, *id, entry.is_some());
                if let Some(entry) = entry {
                    slot.import(*id, &entry);
                }
            }
        }
        missing.iter().for_each(|id| set(&mut disk.resident, *id, true));
        Ok(())
    }

    /// Writes what has changed of the keys that leave memory.
    fn write_back(&mut self, leaves: &[bool]) -> Result<(), ScratchError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let leaves = |id: u32| get(leaves, id);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let known = &mut disk.slots[at];
            let mut dirty = slot.dirty.as_mut().map(|dirty| dirty.take_those(leaves)).unwrap_or_default();
            self.keys.sort(&mut dirty);
            for ids in dirty.chunks(WRITTEN_AT_ONCE) {
                let mut batch = disk.scratch.database().batch();
                for id in ids {
                    entry_key(at, self.keys.key(*id), &mut key);
                    let was_stored = get(&known.stored, *id);
                    if slot.contains(*id) {
                        slot.export(*id, &mut value);
                        batch.insert(&disk.states, key.as_slice(), value.as_slice());
                        known.entries += usize::from(!was_stored);
                    } else if was_stored {
                        batch.remove(&disk.states, key.as_slice());
                        known.entries -= 1;
                    }
                    set(&mut known.stored, *id, slot.contains(*id));
                }
                batch.commit().map_err(|error| disk.scratch.failed("write", &error))?;
            }
            for changes in slot.changes.leave(leaves).chunks(WRITTEN_AT_ONCE) {
                let mut batch = disk.scratch.database().batch();
                for (id, since) in changes {
                    entry_key(at, self.keys.key(*id), &mut key);
                    batch.insert(&known.changed, key.as_slice(), since.to_be_bytes().as_slice());
                }
                batch.commit().map_err(|error| disk.scratch.failed("write", &error))?;
            }
        }
        Ok(())
    }

    /// Where state is on disk: forgets the keys that were not used for the longest time, if there is too much in memory. If so it gives each old id its new one.
    ///
    /// # Errors
    /// When what has changed cannot be written.
    pub fn make_room(&mut self) -> Result<Option<Vec<Option<u32>>>, ScratchError> {
        if self.disk.as_ref().is_none_or(|disk| self.size() <= disk.full_at) {
            return Ok(None);
        }
        let leaves = self.leaving();
        self.write_back(&leaves)?;
        self.note_timers();
        let mut needed = vec![false; self.keys.len()];
        self.timer_changes.needs(&mut needed);
        let Self { keys, slots, event_timers, processing_timers, disk: Some(disk), .. } = self else { return Ok(None) };
        for id in 0..keys.len() as u32 {
            if get(&leaves, id) {
                slots.iter_mut().for_each(|slot| slot.drop_from_memory(id));
                set(&mut disk.resident, id, false);
            }
            needed[id as usize] |= get(&disk.resident, id) || event_timers.contains(id) || processing_timers.contains(id);
        }
        let moved = keys.compact(|id| needed[id as usize]);
        slots.iter_mut().for_each(|slot| slot.renumber(&moved));
        event_timers.renumber(&moved);
        processing_timers.renumber(&moved);
        self.timer_changes.renumber(&moved);
        renumber(&mut disk.resident, &moved);
        renumber(&mut disk.used, &moved);
        disk.slots.iter_mut().for_each(|slot| renumber(&mut slot.stored, &moved));
        let size = self.size();
        if let Some(disk) = &mut self.disk {
            disk.full_at = disk.budget.max(size + disk.budget / 2);
        }
        Ok(Some(moved))
    }

    /// About what it has in memory, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.keys.size() + self.slots.iter().map(Slot::size).sum::<usize>()
    }

    /// By id: whether it is among those in memory that were not used for the longest time, half of them.
    fn leaving(&self) -> Vec<bool> {
        let Some(disk) = &self.disk else { return Vec::new() };
        let oldest = disk.oldest(&self.keys);
        let leaves = |id| get(&disk.resident, id) && get(&disk.used, id).wrapping_sub(oldest) as i32 <= 0;
        (0..self.keys.len() as u32).map(leaves).collect()
    }

    /// Where state is on disk: the tables of the states at a cut. What is on disk alone is to be read by another thread, whatever happens here meanwhile.
    pub(super) fn tables_on_disk(&mut self, cut: Cut, now: i64) -> Result<Option<LazyTables>, SnapshotError> {
        let Self { keys, slots, disk: Some(disk), .. } = self else { return Ok(None) };
        let said = slots.iter_mut().zip(&disk.slots).map(|(slot, known)| {
            let only_here = (0..keys.len() as u32).filter(|id| !get(&known.stored, *id)).count();
            slot.changes.cut(cut, known.entries + only_here)
        });
        let said: Vec<Said> = said.collect();
        let Some(disk) = &self.disk else { return Ok(None) };
        let snapshot = disk.scratch.database().snapshot();
        let mut parts = Vec::with_capacity(said.len());
        for (at, (slot, said)) in self.slots.iter().zip(&said).enumerate() {
            let known = &disk.slots[at];
            let (is_wanted, since, ids) = match said {
                Said::Whole => (known.entries > 0, None, slot.dirty.as_ref().map(Marks::sorted).unwrap_or_default()),
                Said::Since(since, ids) => (slot.changes.has_left(cut.id), Some(*since), ids.clone()),
            };
            if *said == Said::Whole && cut.base != Base::Alone {
                known.changed.clear().map_err(|error| disk.scratch.failed("clear a part of it", &error))?;
            }
            let mut here = Vec::new();
            self.tables_of_keys(slot, said, &ids, now, &mut here)?;
            // Else one without rows says that there is nothing.
            here.retain(|(_, table)| !is_wanted || table.num_rows() > 0);
            let left = is_wanted.then(|| Left {
                slot: at,
                declared: (slot.details.clone(), slot.field.clone()),
                since,
                newer: self.keys.subset(&ids),
                states: disk.states.clone(),
                changed: known.changed.clone(),
            });
            parts.push(Part { left, here });
        }
        let common = Common {
            snapshot,
            now,
            key_schema: self.key_schema.clone(),
            max_parallelism: self.max_parallelism,
            scratch: Arc::clone(&disk.scratch),
        };
        Ok(Some(LazyTables::new(parts, common)))
    }
}

/// What its keyspaces hold back before they write a file, bytes.
const STATES_MEMTABLE: u64 = 4 << 20;
const CHANGED_MEMTABLE: u64 = 1 << 20;
/// Entries of a batch.
const WRITTEN_AT_ONCE: usize = 4096;

impl Disk {
    /// Of the keys in memory that call since which half of them were used.
    fn oldest(&self, keys: &KeyIndex) -> u32 {
        let in_memory = (0..keys.len() as u32).filter(|id| get(&self.resident, *id));
        // How many calls ago: counters may have begun anew.
        let mut ages: Vec<u32> = in_memory.map(|id| self.calls.wrapping_sub(get(&self.used, id))).collect();
        if ages.is_empty() {
            return self.calls;
        }
        let middle = ages.len() / 2;
        let (_, age, _) = ages.select_nth_unstable(middle);
        self.calls.wrapping_sub(*age)
    }
}

impl Slot {
    /// What the disk has of a key.
    fn export(&self, id: u32, into: &mut Vec<u8>) {
        into.clear();
        let written = self.expiry.as_ref().and_then(|expiry| expiry.written.get(id as usize).copied());
        into.extend_from_slice(&written.unwrap_or(NEVER).to_le_bytes());
        match &self.store {
            Store::Value(store) => store.export(id, into),
            Store::List(store) => store.export(id, into),
            Store::Map(store) => store.export(id, into),
        }
    }

    /// The inverse; nothing of it counts as a change.
    pub(super) fn import(&mut self, id: u32, entry: &[u8]) {
        let Some((written, rest)) = entry.split_first_chunk::<8>() else { return };
        if let Some(expiry) = &mut self.expiry {
            set_written(&mut expiry.written, id, i64::from_le_bytes(*written));
        }
        match &mut self.store {
            Store::Value(store) => store.import(id, rest),
            Store::List(store) => store.import(id, rest),
            Store::Map(store) => store.import(id, rest),
        }
    }

    fn drop_from_memory(&mut self, id: u32) {
        self.remove(id);
        match &mut self.store {
            Store::Value(store) => store.commit(),
            Store::List(store) => store.commit(),
            Store::Map(store) => store.commit(),
        }
        if let Some(expiry) = &mut self.expiry {
            if let Some(written) = expiry.written.get_mut(id as usize) {
                *written = NEVER;
            }
            expiry.undo.clear();
        }
    }

    fn size(&self) -> usize {
        let written = self.expiry.as_ref().map_or(0, |expiry| expiry.written.len() * size_of::<i64>());
        written
            + match &self.store {
                Store::Value(store) => store.size(),
                Store::List(store) => store.size(),
                Store::Map(store) => store.size(),
            }
    }
}

fn set_written(written: &mut Vec<i64>, id: u32, at: i64) {
    let place = id as usize;
    if place >= written.len() {
        written.resize(place + 1, NEVER);
    }
    written[place] = at;
}
