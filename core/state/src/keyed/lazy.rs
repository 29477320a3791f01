//! The tables of keyed state on disk: what memory knows is there at once, and the rest is read piece by piece by the thread that writes them, from a view that does not
//! change. Pieces are of bounded size, so that a checkpoint of state larger than memory needs little of it.

use super::KeyedStates;
use super::disk::entry_prefix;
use crate::changes::Said;
use crate::keys::KeyIndex;
use crate::scratch::Scratch;
use crate::snapshot::SnapshotError;
use arrow::array::RecordBatch;
use arrow_schema::{FieldRef, SchemaRef};
use fjall::{Keyspace, Readable, Snapshot, UserValue};
use standpipe_sdk::wire::StateDetails;
use std::sync::{Arc, Mutex, PoisonError};
use std::vec::IntoIter;

/// A piece has at most about so many bytes of entries, and so many keys.
const PIECE_BYTES: usize = 8 << 20;
const PIECE_KEYS: usize = 65_536;

/// What there is to say of a state.
pub(super) struct Part {
    /// Of keys that have left memory.
    pub(super) left: Option<Left>,
    /// By memory.
    pub(super) here: Vec<(String, RecordBatch)>,
}

/// What is to be read of a state.
pub(super) struct Left {
    pub(super) slot: usize,
    pub(super) declared: (StateDetails, FieldRef),
    /// `None`: all; else what has changed since that cut.
    pub(super) since: Option<u64>,
    /// Of these keys memory says it.
    pub(super) newer: KeyIndex,
    pub(super) states: Keyspace,
    pub(super) changed: Keyspace,
}

/// What holds for all of them.
pub(super) struct Common {
    pub(super) snapshot: Snapshot,
    /// The processing time of the cut.
    pub(super) now: i64,
    pub(super) key_schema: SchemaRef,
    pub(super) max_parallelism: u32,
    /// Behind its keyspaces, so that these are closed before it.
    pub(super) scratch: Arc<Scratch>,
}

/// A key's bytes, and its entry if it has one.
type Entry = Result<(Vec<u8>, Option<UserValue>), fjall::Error>;

/// A state that is being read. Only its owner reads on: the lock is there so that others may hold it.
struct Reading {
    left: Left,
    /// Whether there was a table of it.
    has_said: bool,
    rest: Mutex<Box<dyn Iterator<Item = Entry> + Send>>,
}

/// See the module's documentation. Of a state of which changes are wanted at least one table comes, which may be without rows.
pub struct LazyTables {
    parts: IntoIter<Part>,
    reading: Option<Box<Reading>>,
    here: IntoIter<(String, RecordBatch)>,
    common: Box<Common>,
}

impl std::fmt::Debug for LazyTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyTables").field("scratch", &self.common.scratch).field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

impl Left {
    /// The entries that there are to say.
    fn entries(&self, snapshot: &Snapshot) -> Box<dyn Iterator<Item = Entry> + Send> {
        let prefix = entry_prefix(self.slot);
        let Some(since) = self.since else {
            let all = snapshot.prefix(&self.states, prefix);
            return Box::new(all.map(|entry| entry.into_inner().map(|(key, value)| (key.to_vec(), Some(value)))));
        };
        let changed = snapshot.prefix(&self.changed, prefix);
        let (snapshot, states) = (snapshot.clone(), self.states.clone());
        let entry = move |(key, cut): (fjall::UserKey, UserValue)| {
            let cut = cut.first_chunk::<8>().map_or(0, |cut| u64::from_be_bytes(*cut));
            (cut >= since).then(|| snapshot.get(&states, &key).map(|value| (key.to_vec(), value))).transpose()
        };
        Box::new(changed.filter_map(move |changed| changed.into_inner().and_then(&entry).transpose()))
    }
}

impl Reading {
    /// The next table, and whether it is the last one.
    fn piece(&mut self, common: &Common) -> Result<(Vec<(String, RecordBatch)>, bool), SnapshotError> {
        let declared = std::slice::from_ref(&self.left.declared);
        let made = KeyedStates::new(common.key_schema.fields().clone(), declared, common.max_parallelism);
        let mut states = made.map_err(|error| SnapshotError::Misfit(error.message))?;
        let rest = self.rest.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (mut bytes, prefix) = (0, entry_prefix(self.left.slot).len());
        let is_last = loop {
            if bytes >= PIECE_BYTES || states.keys.len() >= PIECE_KEYS {
                break false;
            }
            let Some(entry) = rest.next() else { break true };
            let (key, entry) = entry.map_err(|error| common.scratch.failed("read", &error))?;
            if self.left.newer.has(&key[prefix..]) {
                continue;
            }
            let id = states.keys.intern_encoded(&key[prefix..])?;
            bytes += key.len();
            if let Some(entry) = entry {
                bytes += entry.len();
                states.slots[0].import(id, &entry);
            }
        };
        let ids: Vec<u32> = (0..states.keys.len() as u32).collect();
        let said = self.left.since.map_or(Said::Whole, |cut| Said::Since(cut, ids.clone()));
        let mut tables = Vec::new();
        states.tables_of_keys(&states.slots[0], &said, &ids, common.now, &mut tables)?;
        // One without rows says that there is nothing, if no other says anything.
        tables.retain(|(_, table)| table.num_rows() > 0 || (is_last && !self.has_said));
        self.has_said |= !tables.is_empty();
        Ok((tables, is_last))
    }
}

impl LazyTables {
    pub(super) fn new(parts: Vec<Part>, common: Common) -> Self {
        Self { parts: parts.into_iter(), reading: None, here: Vec::new().into_iter(), common: Box::new(common) }
    }

    fn read(&mut self) -> Result<Option<(String, RecordBatch)>, SnapshotError> {
        loop {
            if let Some(table) = self.here.next() {
                return Ok(Some(table));
            }
            if let Some(reading) = &mut self.reading {
                let (tables, is_last) = reading.piece(&self.common)?;
                self.here = tables.into_iter();
                if is_last {
                    self.reading = None;
                }
                continue;
            }
            let Some(part) = self.parts.next() else { return Ok(None) };
            let has_said = !part.here.is_empty();
            self.reading =
                part.left.map(|left| Box::new(Reading { rest: Mutex::new(left.entries(&self.common.snapshot)), left, has_said }));
            self.here = part.here.into_iter();
        }
    }
}

impl Iterator for LazyTables {
    type Item = Result<(String, RecordBatch), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            (self.parts, self.reading) = (Vec::new().into_iter(), None);
        }
        read.transpose()
    }
}
