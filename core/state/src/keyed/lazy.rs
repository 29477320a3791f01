//! The tables of keyed state on disk, read piece by piece by the thread that writes them, from a view that does not change. Pieces are of bounded size, so that a
//! checkpoint of state larger than memory needs little of it.

use super::KeyedStates;
use super::disk::entry_prefix;
use super::tables::STATE;
use crate::changes::Said;
use crate::scratch::Scratch;
use crate::snapshot::SnapshotError;
use arrow::array::RecordBatch;
use arrow_schema::{FieldRef, SchemaRef};
use fjall::{Keyspace, Readable, Snapshot, UserValue};
use standpipe_sdk::wire::StateDetails;
use std::sync::{Arc, Mutex, PoisonError};

/// A piece has at most about so many bytes of entries, and so many keys.
const PIECE_BYTES: usize = 8 << 20;
const PIECE_KEYS: usize = 65_536;

/// What is to be read, and where.
pub(super) struct Wanted {
    pub(super) snapshot: Snapshot,
    pub(super) states: Keyspace,
    /// By state.
    pub(super) changed: Vec<Keyspace>,
    /// By state: `None`: all; else what has changed since that cut.
    pub(super) said: Vec<Option<u64>>,
    /// The processing time of the cut.
    pub(super) now: i64,
    pub(super) declared: Vec<(StateDetails, FieldRef)>,
    pub(super) key_schema: SchemaRef,
    pub(super) max_parallelism: u32,
    /// Behind its keyspaces, so that these are closed before it.
    pub(super) scratch: Arc<Scratch>,
}

/// A key's bytes, and its entry if it has one.
type Entry = Result<(Vec<u8>, Option<UserValue>), fjall::Error>;

/// What is left of a state. Only its owner reads on: the lock is there so that others may hold it.
type Rest = Box<dyn Iterator<Item = Entry> + Send>;

/// See the module's documentation. Of a state of which changes are wanted at least one piece comes, which may be without rows.
pub struct LazyTables {
    /// The state that is read, and what is left of it.
    at: usize,
    rest: Mutex<Option<Rest>>,
    wanted: Box<Wanted>,
}

impl std::fmt::Debug for LazyTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyTables").field("scratch", &self.wanted.scratch).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Wanted {
    /// The entries of a state that there are to say.
    fn entries(&self, at: usize) -> Rest {
        let prefix = entry_prefix(at);
        let Some(since) = self.said[at] else {
            let all = self.snapshot.prefix(&self.states, prefix);
            return Box::new(all.map(|entry| entry.into_inner().map(|(key, value)| (key.to_vec(), Some(value)))));
        };
        let (snapshot, states) = (self.snapshot.clone(), self.states.clone());
        let entry = move |(key, cut): (fjall::UserKey, UserValue)| {
            let cut = cut.first_chunk::<8>().map_or(0, |cut| u64::from_be_bytes(*cut));
            (cut >= since).then(|| snapshot.get(&states, &key).map(|value| (key.to_vec(), value))).transpose()
        };
        let changed = self.snapshot.prefix(&self.changed[at], prefix);
        Box::new(changed.filter_map(move |changed| changed.into_inner().and_then(&entry).transpose()))
    }
}

impl LazyTables {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted: Box::new(wanted), at: 0, rest: Mutex::default() }
    }

    /// The next piece of the state at hand.
    fn piece(&mut self) -> Result<(String, RecordBatch), SnapshotError> {
        let Wanted { declared, key_schema, max_parallelism, said, now, scratch, .. } = &*self.wanted;
        let declared = &declared[self.at];
        let made = KeyedStates::new(key_schema.fields().clone(), std::slice::from_ref(declared), *max_parallelism);
        let mut states = made.map_err(|error| SnapshotError::Misfit(error.message))?;
        let rest = self.rest.get_mut().unwrap_or_else(PoisonError::into_inner);
        let rest = rest.get_or_insert_with(|| self.wanted.entries(self.at));
        let mut bytes = 0;
        let is_whole = loop {
            if bytes >= PIECE_BYTES || states.keys.len() >= PIECE_KEYS {
                break false;
            }
            let Some(entry) = rest.next() else { break true };
            let (key, entry) = entry.map_err(|error| scratch.failed("read", &error))?;
            let id = states.keys.intern_encoded(&key[entry_prefix(self.at).len()..])?;
            bytes += key.len();
            if let Some(entry) = entry {
                bytes += entry.len();
                states.slots[0].import(id, &entry);
            }
        };
        let said = match said[self.at] {
            None => Said::Whole,
            Some(cut) => Said::Since(cut, (0..states.keys.len() as u32).collect()),
        };
        let table = states.state_table(&states.slots[0], &said, *now)?;
        if is_whole {
            self.at += 1;
            self.rest = Mutex::default();
        }
        Ok((format!("{STATE}{}", declared.0.name), table))
    }
}

impl Iterator for LazyTables {
    type Item = Result<(String, RecordBatch), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.wanted.declared.len() {
            return None;
        }
        let piece = self.piece();
        if piece.is_err() {
            self.at = self.wanted.declared.len();
        }
        Some(piece)
    }
}
