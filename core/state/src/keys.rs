//! A subtask's keys, numbered: [`KeyIndex`] gives each distinct key a dense id, by which state is addressed, and turns ids back into key columns.
//! Operators intern the keys of a batch (encoded and hashed by [`crate::key`]) once and then work on ids alone; [`Ordinals`] makes them dense within one batch.

use crate::key::{EncodedKeys, KeyError, check_type};
use crate::key_group::{KeyGroup, key_group};
use arrow::array::ArrayRef;
use arrow_schema::DataType;
use hashbrown::HashTable;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

mod decode;

/// Key to id and back. Ids are dense, in order of first arrival.
#[derive(Debug)]
pub struct KeyIndex {
    types: Vec<DataType>,
    table: HashTable<Slot>,
    /// The keys' bytes, one behind the other; `offsets[id]..offsets[id + 1]`.
    arena: Vec<u8>,
    offsets: Vec<usize>,
    hashes: Vec<u64>,
}

/// A part of the hash is beside the id so that a probe reads the key's bytes only where it will most likely be equal. The table has 32 bits of it, not all, to stay small
/// in the cache.
#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    id: u32,
}

/// The middle of the hash: the table itself goes by its ends.
const fn tag(hash: u64) -> u32 {
    (hash >> 20) as u32
}

impl KeyIndex {
    /// An empty index over key columns of these types.
    ///
    /// # Errors
    /// When one of them cannot be a key.
    pub fn new(types: Vec<DataType>) -> Result<Self, KeyError> {
        Self::with_capacity(types, 0)
    }

    /// An empty index with room for `keys` keys.
    ///
    /// # Errors
    /// When a type cannot be a key.
    pub fn with_capacity(types: Vec<DataType>, keys: usize) -> Result<Self, KeyError> {
        types.iter().try_for_each(check_type)?;
        let mut offsets = Vec::with_capacity(keys + 1);
        offsets.push(0);
        Ok(Self { types, table: HashTable::with_capacity(keys), arena: Vec::new(), offsets, hashes: Vec::with_capacity(keys) })
    }

    /// Distinct keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The types of the key columns.
    #[must_use]
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The ids of all rows' keys, replacing what `ids` held. New keys get the next ids, in the order of the rows.
    ///
    /// # Errors
    /// When there are more keys than ids.
    pub fn intern(&mut self, keys: &EncodedKeys, ids: &mut Vec<u32>) -> Result<(), KeyError> {
        ids.clear();
        ids.reserve(keys.len());
        for (row, hash) in keys.hashes().iter().enumerate() {
            ids.push(self.intern_one(keys.key(row), *hash)?);
        }
        Ok(())
    }

    /// The same for some of the rows.
    ///
    /// # Errors
    /// When there are more keys than ids.
    pub fn intern_rows(&mut self, keys: &EncodedKeys, rows: &[u32], ids: &mut Vec<u32>) -> Result<(), KeyError> {
        ids.clear();
        ids.reserve(rows.len());
        for row in rows {
            let row = *row as usize;
            ids.push(self.intern_one(keys.key(row), keys.hashes()[row])?);
        }
        Ok(())
    }

    /// The id of a key of which the encoding is at hand.
    ///
    /// # Errors
    /// When there are more keys than ids.
    pub fn intern_encoded(&mut self, key: &[u8]) -> Result<u32, KeyError> {
        self.intern_one(key, xxh3_64(key))
    }

    #[inline]
    fn intern_one(&mut self, key: &[u8], hash: u64) -> Result<u32, KeyError> {
        let Self { table, arena, offsets, hashes, .. } = self;
        let tag = tag(hash);
        let equal = |slot: &Slot| slot.tag == tag && same(&arena[offsets[slot.id as usize]..offsets[slot.id as usize + 1]], key);
        if let Some(slot) = table.find(hash, equal) {
            return Ok(slot.id);
        }
        let id = u32::try_from(hashes.len()).map_err(|_| KeyError::TooMany)?;
        table.insert_unique(hash, Slot { tag, id }, |slot| hashes[slot.id as usize]);
        arena.extend_from_slice(key);
        offsets.push(arena.len());
        hashes.push(hash);
        Ok(id)
    }

    /// Whether it has a key of which the encoding is at hand.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        let hash = xxh3_64(key);
        let tag = tag(hash);
        self.table.find(hash, |slot| slot.tag == tag && same(self.key(slot.id), key)).is_some()
    }

    /// An index of some of its keys, each given once: they have new ids, in their order.
    #[must_use]
    pub fn subset(&self, ids: &[u32]) -> Self {
        let mut subset = Self {
            types: self.types.clone(),
            table: HashTable::with_capacity(ids.len()),
            arena: Vec::new(),
            offsets: Vec::with_capacity(ids.len() + 1),
            hashes: Vec::with_capacity(ids.len()),
        };
        subset.offsets.push(0);
        ids.iter().for_each(|id| subset.take_over(self, *id));
        subset
    }

    /// A key of another index, which this one does not have.
    fn take_over(&mut self, other: &Self, id: u32) {
        let (hash, new) = (other.hashes[id as usize], self.hashes.len() as u32);
        self.table.insert_unique(hash, Slot { tag: tag(hash), id: new }, |slot| self.hashes[slot.id as usize]);
        self.arena.extend_from_slice(other.key(id));
        self.offsets.push(self.arena.len());
        self.hashes.push(hash);
    }

    /// The key group of a key.
    #[must_use]
    pub fn group(&self, id: u32, max_parallelism: u32) -> KeyGroup {
        key_group(self.hashes[id as usize], max_parallelism)
    }

    /// The encoded key.
    #[must_use]
    pub fn key(&self, id: u32) -> &[u8] {
        &self.arena[self.offsets[id as usize]..self.offsets[id as usize + 1]]
    }

    /// Sorts ids by their encoded keys.
    pub fn sort(&self, ids: &mut [u32]) {
        ids.sort_unstable_by(|one, other| self.key(*one).cmp(self.key(*other)));
    }

    /// The key columns of some keys, in the types that the index was made with. Floats come back as the key has them: -0.0 as 0.0, every NaN as the one.
    ///
    /// # Errors
    /// When Arrow cannot build a column (a dictionary that is too small for its values).
    pub fn columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>, KeyError> {
        decode::columns(&self.types, ids.iter().map(|id| self.key(*id)).collect())
    }

    /// The key columns of a range of ids, which must be below [`Self::len`].
    ///
    /// # Errors
    /// As [`Self::columns`].
    pub fn columns_of(&self, ids: Range<usize>) -> Result<Vec<ArrayRef>, KeyError> {
        let ends = self.offsets[ids.start..=ids.end].windows(2);
        decode::columns(&self.types, ends.map(|ends| &self.arena[ends[0]..ends[1]]).collect())
    }

    /// Forgets the keys for which `keep` is false, and renumbers the others without changing their order: gives each old id its new one, or `None`.
    pub fn compact(&mut self, mut keep: impl FnMut(u32) -> bool) -> Vec<Option<u32>> {
        let types = std::mem::take(&mut self.types);
        let empty = Self { types, table: HashTable::new(), arena: Vec::new(), offsets: vec![0], hashes: Vec::new() };
        let old = std::mem::replace(self, empty);
        let mut moved = Vec::with_capacity(old.len());
        for id in 0..old.hashes.len() as u32 {
            if !keep(id) {
                moved.push(None);
                continue;
            }
            moved.push(Some(self.hashes.len() as u32));
            self.take_over(&old, id);
        }
        moved
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.arena.capacity() + self.table.allocation_size() + (self.offsets.capacity() + self.hashes.capacity()) * size_of::<u64>()
    }
}

/// Whether two keys are equal: most are so short that two loads of each tell it, without a call.
#[inline]
fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    if left.len() > 16 {
        return left == right;
    }
    match (left.first_chunk::<8>(), right.first_chunk::<8>()) {
        (Some(first), Some(other)) => first == other && left.last_chunk::<8>() == right.last_chunk::<8>(),
        _ => match (left.first_chunk::<4>(), right.first_chunk::<4>()) {
            (Some(first), Some(other)) => first == other && left.last_chunk::<4>() == right.last_chunk::<4>(),
            _ => left.iter().eq(right),
        },
    }
}

/// Ids made dense within one batch: the ordinals by which a plugin names keys. Its memory is kept from batch to batch.
#[derive(Debug, Default)]
pub struct Ordinals {
    /// `u32::MAX` where the id is not in the batch.
    of_id: Vec<u32>,
    of_row: Vec<u32>,
    ids: Vec<u32>,
}

impl Ordinals {
    /// Numbers the ids of a batch's rows in order of first arrival; `keys` is the index's length.
    pub fn assign(&mut self, ids_of_rows: &[u32], keys: usize) {
        for id in self.ids.drain(..) {
            if let Some(ordinal) = self.of_id.get_mut(id as usize) {
                *ordinal = u32::MAX;
            }
        }
        self.of_id.resize(keys, u32::MAX);
        self.of_row.clear();
        self.of_row.reserve(ids_of_rows.len());
        for id in ids_of_rows {
            let ordinal = &mut self.of_id[*id as usize];
            if *ordinal == u32::MAX {
                *ordinal = self.ids.len() as u32;
                self.ids.push(*id);
            }
            self.of_row.push(*ordinal);
        }
    }

    /// The ordinal of each row's key.
    #[must_use]
    pub fn of_row(&self) -> &[u32] {
        &self.of_row
    }

    /// The id of each ordinal.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

#[cfg(test)]
mod tests;
