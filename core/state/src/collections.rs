//! List and map state: any number of values per key, as bytes of their own ([`crate::rows`]). Maps are in the order of their keys.
//!
//! As in [`crate::value`], writes apply at once and `rollback` takes them back.

use crate::rows::{RowBytes, RowCodec};
use crate::value::renumber;
use arrow::array::{Array, ArrayRef, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::error::ArrowError;
use arrow_schema::{DataType, FieldRef, Fields};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an item of a list, or half of an entry of a map, takes besides its bytes.
const ITEM: usize = 32;

fn list_bytes(list: &[RowBytes]) -> usize {
    list.iter().map(|item| ITEM + item.len()).sum()
}

fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
    2 * ITEM + key.len() + value.len()
}

fn map_bytes(map: &BTreeMap<RowBytes, RowBytes>) -> usize {
    map.iter().map(|(key, value)| entry_bytes(key, value)).sum()
}

/// Bytes behind their length.
fn put_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    into.extend_from_slice(bytes);
}

/// The next of those; `None` at the end.
fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *from = rest;
    Some(bytes)
}

/// A list per key.
#[derive(Debug)]
pub struct ListStore {
    item: FieldRef,
    codec: RowCodec,
    lists: Vec<Vec<RowBytes>>,
    /// Of all items, about.
    bytes: usize,
    undo: Vec<ListUndo>,
}

#[derive(Debug)]
enum ListUndo {
    /// The last item of that list was appended.
    Appended(u32),
    /// The list had these items.
    Cleared(u32, Vec<RowBytes>),
}

impl ListStore {
    /// No lists yet, of items of this field.
    ///
    /// # Errors
    /// When values of the type cannot be stored.
    pub fn new(item: FieldRef) -> Result<Self, ArrowError> {
        Ok(Self { codec: RowCodec::new(item.data_type().clone())?, item, lists: Vec::new(), bytes: 0, undo: Vec::new() })
    }

    /// The lists of some keys, null where there is none.
    ///
    /// # Errors
    /// When Arrow cannot build the array.
    pub fn get(&self, ids: &[u32]) -> Result<ArrayRef, ArrowError> {
        let lists = || ids.iter().map(|id| self.lists.get(*id as usize).map(Vec::as_slice).unwrap_or_default());
        let items = self.codec.decode(lists().flatten().map(|item| Some(&**item)))?;
        let nulls: NullBuffer = lists().map(|list| !list.is_empty()).collect();
        let offsets = OffsetBuffer::from_lengths(lists().map(<[RowBytes]>::len));
        Ok(Arc::new(ListArray::try_new(self.item.clone(), offsets, items, Some(nulls))?))
    }

    /// Appends `values[i]` to the list of `ids[i]`, in order.
    ///
    /// # Errors
    /// When the values are of another type.
    pub fn append(&mut self, ids: &[u32], values: &ArrayRef) -> Result<(), ArrowError> {
        let rows = self.codec.encode(values)?;
        for (id, row) in ids.iter().zip(&rows) {
            let at = *id as usize;
            if at >= self.lists.len() {
                self.lists.resize_with(at + 1, Vec::new);
            }
            self.bytes += ITEM + row.data().len();
            self.lists[at].push(row.data().into());
            self.undo.push(ListUndo::Appended(*id));
        }
        Ok(())
    }

    /// Empties a list.
    pub fn clear(&mut self, id: u32) {
        if let Some(list) = self.lists.get_mut(id as usize) {
            self.bytes -= list_bytes(list);
            self.undo.push(ListUndo::Cleared(id, std::mem::take(list)));
        }
    }

    /// Appends the bytes of a key's list, as only [`Self::import`] of the same process knows them.
    pub(crate) fn export(&self, id: u32, into: &mut Vec<u8>) {
        self.lists.get(id as usize).into_iter().flatten().for_each(|item| put_bytes(item, into));
    }

    /// Sets a key's list; it counts as committed.
    pub(crate) fn import(&mut self, id: u32, mut bytes: &[u8]) {
        let at = id as usize;
        if at >= self.lists.len() {
            self.lists.resize_with(at + 1, Vec::new);
        }
        let list = std::iter::from_fn(|| take_bytes(&mut bytes)).map(Into::into).collect();
        let old = std::mem::replace(&mut self.lists[at], list);
        self.bytes = self.bytes + list_bytes(&self.lists[at]) - list_bytes(&old);
    }

    /// About the bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.lists.len() * size_of::<Vec<RowBytes>>()
    }

    /// Whether the key's list has items.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.lists.get(id as usize).is_some_and(|list| !list.is_empty())
    }

    /// Tells the keys that were written since the last commit, each as often as it was.
    pub fn each_written(&self, tell: impl FnMut(u32)) {
        let id = |undo: &ListUndo| match undo {
            ListUndo::Appended(id) | ListUndo::Cleared(id, _) => *id,
        };
        self.undo.iter().map(id).for_each(tell);
    }

    /// What was written holds.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// What was written since the last commit has never been.
    pub fn rollback(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                ListUndo::Appended(id) => {
                    let item = self.lists[id as usize].pop();
                    self.bytes -= item.map_or(0, |item| ITEM + item.len());
                }
                ListUndo::Cleared(id, items) => {
                    self.bytes += list_bytes(&items);
                    self.lists[id as usize] = items;
                }
            }
        }
    }

    /// Ids have moved, in the same order.
    pub fn renumber(&mut self, moved: &[Option<u32>]) {
        self.commit();
        renumber(&mut self.lists, moved);
        self.bytes = self.lists.iter().map(|list| list_bytes(list)).sum();
    }
}

/// A map per key.
#[derive(Debug)]
pub struct MapStore {
    entry: Fields,
    keys: RowCodec,
    values: RowCodec,
    maps: Vec<BTreeMap<RowBytes, RowBytes>>,
    /// Of all entries, about.
    bytes: usize,
    /// What stood behind the key of that map.
    undo: Vec<(u32, RowBytes, Option<RowBytes>)>,
}

impl MapStore {
    /// No maps yet; `entry` is a struct of key and value.
    ///
    /// # Errors
    /// When it is something else, or values of a type cannot be stored.
    pub fn new(entry: &DataType) -> Result<Self, ArrowError> {
        let DataType::Struct(fields) = entry else {
            return Err(ArrowError::SchemaError(format!("the entries of a map are a struct of key and value, not {entry}")));
        };
        let [key, value] = &fields[..] else {
            return Err(ArrowError::SchemaError(format!("the entries of a map have a key and a value, not {} fields", fields.len())));
        };
        let (keys, values) = (RowCodec::new(key.data_type().clone())?, RowCodec::new(value.data_type().clone())?);
        Ok(Self { entry: fields.clone(), keys, values, maps: Vec::new(), bytes: 0, undo: Vec::new() })
    }

    /// The fields of an entry.
    #[must_use]
    pub fn entry(&self) -> &Fields {
        &self.entry
    }

    /// The values behind `keys[i]` in the map of `ids[i]`, null where there is none.
    ///
    /// # Errors
    /// When the keys are of another type.
    pub fn get(&self, ids: &[u32], keys: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let rows = self.keys.encode(keys)?;
        let found = ids.iter().zip(&rows).map(|(id, row)| self.maps.get(*id as usize)?.get(row.data()).map(|value| &**value));
        self.values.decode(found)
    }

    /// Sets `keys[i]` to `values[i]` in the map of `ids[i]`.
    ///
    /// # Errors
    /// When keys or values are of another type.
    pub fn put(&mut self, ids: &[u32], keys: &ArrayRef, values: &ArrayRef) -> Result<(), ArrowError> {
        let (keys, values) = (self.keys.encode(keys)?, self.values.encode(values)?);
        for ((id, key), value) in ids.iter().zip(&keys).zip(&values) {
            let at = *id as usize;
            if at >= self.maps.len() {
                self.maps.resize_with(at + 1, BTreeMap::new);
            }
            let key: RowBytes = key.data().into();
            self.bytes += entry_bytes(&key, value.data());
            let old = self.maps[at].insert(key.clone(), value.data().into());
            self.bytes -= old.as_ref().map_or(0, |old| entry_bytes(&key, old));
            self.undo.push((*id, key, old));
        }
        Ok(())
    }

    /// Removes `keys[i]` from the map of `ids[i]`.
    ///
    /// # Errors
    /// When the keys are of another type.
    pub fn remove(&mut self, ids: &[u32], keys: &ArrayRef) -> Result<(), ArrowError> {
        let rows = self.keys.encode(keys)?;
        for (id, row) in ids.iter().zip(&rows) {
            let Some((key, value)) = self.maps.get_mut(*id as usize).and_then(|map| map.remove_entry(row.data())) else { continue };
            self.bytes -= entry_bytes(&key, &value);
            self.undo.push((*id, key, Some(value)));
        }
        Ok(())
    }

    /// At most `limit` entries of a map in the order of keys, from the key `from[0]` on: a struct array.
    ///
    /// # Errors
    /// When `from` is of another type, or empty.
    pub fn scan(&self, id: u32, from: Option<&ArrayRef>, limit: usize) -> Result<ArrayRef, ArrowError> {
        let from: RowBytes = match from {
            None => Box::default(),
            Some(from) if from.is_empty() => {
                return Err(ArrowError::InvalidArgumentError("a scan begins at one key, not at none".to_owned()));
            }
            Some(from) => self.keys.encode(from)?.row(0).data().into(),
        };
        let entries = || self.maps.get(id as usize).into_iter().flat_map(|map| map.range(from.clone()..)).take(limit);
        self.entries(entries().map(|(key, _)| &**key), entries().map(|(_, value)| &**value))
    }

    /// All entries of some keys, map by map, and how many each has.
    ///
    /// # Errors
    /// When Arrow cannot build the array.
    pub fn all(&self, ids: &[u32]) -> Result<(ArrayRef, Vec<usize>), ArrowError> {
        let maps = || ids.iter().filter_map(|id| self.maps.get(*id as usize));
        let lengths = ids.iter().map(|id| self.maps.get(*id as usize).map_or(0, BTreeMap::len)).collect();
        let entries =
            self.entries(maps().flat_map(|map| map.keys()).map(|key| &**key), maps().flat_map(|map| map.values()).map(|value| &**value))?;
        Ok((entries, lengths))
    }

    fn entries<'a>(&'a self, keys: impl Iterator<Item = &'a [u8]>, values: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef, ArrowError> {
        let columns = vec![self.keys.decode(keys.map(Some))?, self.values.decode(values.map(Some))?];
        Ok(Arc::new(StructArray::try_new(self.entry.clone(), columns, None)?))
    }

    /// Empties a map.
    pub fn clear(&mut self, id: u32) {
        if let Some(map) = self.maps.get_mut(id as usize) {
            self.bytes -= map_bytes(map);
            self.undo.extend(std::mem::take(map).into_iter().map(|(key, value)| (id, key, Some(value))));
        }
    }

    /// Appends the bytes of a key's map, as only [`Self::import`] of the same process knows them.
    pub(crate) fn export(&self, id: u32, into: &mut Vec<u8>) {
        for (key, value) in self.maps.get(id as usize).into_iter().flatten() {
            put_bytes(key, into);
            put_bytes(value, into);
        }
    }

    /// Sets a key's map; it counts as committed.
    pub(crate) fn import(&mut self, id: u32, mut bytes: &[u8]) {
        let at = id as usize;
        if at >= self.maps.len() {
            self.maps.resize_with(at + 1, BTreeMap::new);
        }
        let entry = || Some((take_bytes(&mut bytes)?.into(), take_bytes(&mut bytes)?.into()));
        let old = std::mem::replace(&mut self.maps[at], std::iter::from_fn(entry).collect());
        self.bytes = self.bytes + map_bytes(&self.maps[at]) - map_bytes(&old);
    }

    /// About the bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.maps.len() * size_of::<BTreeMap<RowBytes, RowBytes>>()
    }

    /// Whether the key's map has entries.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.maps.get(id as usize).is_some_and(|map| !map.is_empty())
    }

    /// Tells the keys that were written since the last commit, each as often as it was.
    pub fn each_written(&self, tell: impl FnMut(u32)) {
        self.undo.iter().map(|(id, _, _)| *id).for_each(tell);
    }

    /// What was written holds.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// What was written since the last commit has never been.
    pub fn rollback(&mut self) {
        while let Some((id, key, old)) = self.undo.pop() {
            let map = &mut self.maps[id as usize];
            self.bytes += old.as_ref().map_or(0, |old| entry_bytes(&key, old));
            let undone = match old {
                Some(old) => map.insert(key.clone(), old),
                None => map.remove(&key),
            };
            self.bytes -= undone.map_or(0, |value| entry_bytes(&key, &value));
        }
    }

    /// Ids have moved, in the same order.
    pub fn renumber(&mut self, moved: &[Option<u32>]) {
        self.commit();
        renumber(&mut self.maps, moved);
        self.bytes = self.maps.iter().map(map_bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::Int64Type;
    use arrow_schema::Field;

    fn strings(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn integers(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn lists(store: &ListStore, ids: &[u32]) -> Vec<Option<Vec<String>>> {
        let lists = store.get(ids).unwrap();
        let text = |items: ArrayRef| items.as_string::<i32>().iter().map(|item| item.unwrap().to_owned()).collect();
        lists.as_list::<i32>().iter().map(|list| list.map(text)).collect()
    }

    fn list(items: &[&str]) -> Option<Vec<String>> {
        Some(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn lists_grow_in_order_and_roll_back() {
        let mut store = ListStore::new(Arc::new(Field::new("item", DataType::Utf8, true))).unwrap();
        store.append(&[2, 0, 2], &strings(&["a", "b", "c"])).unwrap();
        store.commit();
        assert_eq!(lists(&store, &[0, 1, 2, 9]), [list(&["b"]), None, list(&["a", "c"]), None]);

        store.append(&[2, 1], &strings(&["d", "e"])).unwrap();
        store.clear(2);
        store.append(&[2], &strings(&["f"])).unwrap();
        assert_eq!(lists(&store, &[0, 1, 2]), [list(&["b"]), list(&["e"]), list(&["f"])]);
        store.rollback();
        assert_eq!(lists(&store, &[0, 1, 2]), [list(&["b"]), None, list(&["a", "c"])]);

        store.renumber(&[Some(0), None, Some(1)]);
        assert_eq!(lists(&store, &[1, 0]), [list(&["a", "c"]), list(&["b"])]);
    }

    fn map() -> MapStore {
        let fields = vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, true)];
        MapStore::new(&DataType::Struct(fields.into())).unwrap()
    }

    fn scan(store: &MapStore, id: u32, from: Option<i64>, limit: usize) -> Vec<(i64, String)> {
        let entries = store.scan(id, from.map(|from| integers(&[from])).as_ref(), limit).unwrap();
        let entries = entries.as_struct();
        let (keys, values) = (entries.column(0).as_primitive::<Int64Type>(), entries.column(1).as_string::<i32>());
        keys.values().iter().zip(values).map(|(key, value)| (*key, value.unwrap().to_owned())).collect()
    }

    #[test]
    fn maps_scan_in_the_order_of_keys() {
        let mut store = map();
        store.put(&[1, 1, 1, 0], &integers(&[10, -5, 300, 7]), &strings(&["ten", "minus", "many", "seven"])).unwrap();
        store.commit();
        let all = [(-5, "minus".to_owned()), (10, "ten".to_owned()), (300, "many".to_owned())];
        assert_eq!(scan(&store, 1, None, 9), all);
        assert_eq!(scan(&store, 1, Some(0), 1), all[1..2]);
        assert_eq!(scan(&store, 1, Some(10), 9), all[1..]);
        assert_eq!(scan(&store, 5, None, 9), []);
        assert!(store.scan(1, Some(&integers(&[])), 9).is_err());
        let (entries, lengths) = store.all(&[0, 7, 1]).unwrap();
        assert_eq!((entries.len(), lengths), (4, vec![1, 0, 3]));
    }

    #[test]
    fn maps_roll_back() {
        let mut store = map();
        store.put(&[1, 1], &integers(&[1, 2]), &strings(&["a", "b"])).unwrap();
        store.commit();
        store.put(&[1, 1, 3], &integers(&[1, 3, 1]), &strings(&["A", "c", "x"])).unwrap();
        store.remove(&[1, 1, 2], &integers(&[2, 9, 1])).unwrap();
        assert_eq!(scan(&store, 1, None, 9), [(1, "A".to_owned()), (3, "c".to_owned())]);
        let found = store.get(&[1, 1, 0], &integers(&[1, 2, 1])).unwrap();
        assert_eq!(found.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("A"), None, None]);
        store.clear(1);
        assert!(!store.contains(1));
        store.rollback();
        assert_eq!(scan(&store, 1, None, 9), [(1, "a".to_owned()), (2, "b".to_owned())]);
        assert_eq!(scan(&store, 3, None, 9), []);
        store.renumber(&[None, Some(0)]);
        assert!(store.contains(0) && !store.contains(1));
    }

    #[test]
    fn a_map_is_declared_as_a_struct_of_key_and_value() {
        assert!(MapStore::new(&DataType::Int64).is_err());
        assert!(MapStore::new(&DataType::Struct(vec![Field::new("key", DataType::Int64, false)].into())).is_err());
    }
}
