//! Keyed state in memory: plain, for tests. A key is the text of its columns; the state of a call is a copy that replaces the old one at `commit`.

use crate::{
    ErrorCode, TimeDomain,
    hosting::{KeyedState, LentColumn, StateError},
    wire::StateDetails,
};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, make_array, new_null_array};
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use std::collections::{BTreeMap, BTreeSet};

/// Keyed state of a test: `state.value("counts", &key)` is what is behind a key.
#[derive(Default)]
pub struct MemoryState {
    declared: Vec<(StateDetails, FieldRef)>,
    held: Held,
    /// The call under way: its keys, and its copy of what is held.
    call: Option<(Vec<Key>, Held)>,
}

/// The text of a key's columns.
type Key = String;

/// A timer: domain, time, key, slot.
type Due = (u32, i64, Key, u32);

#[derive(Default, Clone)]
struct Held {
    values: BTreeMap<(u32, Key), ArrayRef>,
    lists: BTreeMap<(u32, Key), ArrayRef>,
    maps: BTreeMap<(u32, Key), BTreeMap<Order, (ArrayRef, ArrayRef)>>,
    timers: BTreeSet<Due>,
    /// The key's columns, for timers.
    keys: BTreeMap<Key, RecordBatch>,
}

/// The order of map keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Number(i128),
    Bytes(Vec<u8>),
    Text(String),
}

/// The rows of a batch by key, as the host finds them.
#[derive(Debug)]
pub struct Grouped {
    /// For each row the ordinal of its key.
    pub key_of_row: Vec<u32>,
    /// One row per distinct key.
    pub keys: RecordBatch,
}

impl MemoryState {
    /// Nothing yet, for these declared states.
    #[must_use]
    pub fn new(declared: Vec<(StateDetails, FieldRef)>) -> Self {
        Self { declared, ..Self::default() }
    }

    /// The value of the key in the first row of `key`, an array of one; `None` if there is none.
    #[must_use]
    pub fn value(&self, state: &str, key: &RecordBatch) -> Option<ArrayRef> {
        self.held.values.get(&(self.slot(state)?, name(key, 0))).cloned()
    }

    /// The list of a key.
    #[must_use]
    pub fn list(&self, state: &str, key: &RecordBatch) -> Option<ArrayRef> {
        self.held.lists.get(&(self.slot(state)?, name(key, 0))).cloned()
    }

    /// Entries in a key's map.
    #[must_use]
    pub fn map_len(&self, state: &str, key: &RecordBatch) -> usize {
        self.slot(state).and_then(|slot| self.held.maps.get(&(slot, name(key, 0)))).map_or(0, BTreeMap::len)
    }

    /// Keys that have a value in that state.
    #[must_use]
    pub fn values_len(&self, state: &str) -> usize {
        self.slot(state).map_or(0, |slot| self.held.values.keys().filter(|key| key.0 == slot).count())
    }

    /// Timers that are set: domain, slot, time; in time order.
    #[must_use]
    pub fn timers(&self) -> Vec<(TimeDomain, u32, i64)> {
        let timer = |due: &Due| TimeDomain::from_abi(due.0).map(|domain| (domain, due.3, due.1));
        self.held.timers.iter().filter_map(timer).collect()
    }

    fn slot(&self, state: &str) -> Option<u32> {
        self.declared.iter().position(|(details, _)| details.name == state).map(|slot| slot as u32)
    }

    /// Begins a call for the keys of these columns, one row per row of the batch.
    pub fn begin(&mut self, columns: &RecordBatch) -> Grouped {
        let mut ordinals = BTreeMap::new();
        let mut rows = Vec::new();
        let mut key_of_row = Vec::with_capacity(columns.num_rows());
        for row in 0..columns.num_rows() {
            let key = name(columns, row);
            let next = ordinals.len() as u32;
            let ordinal = *ordinals.entry(key).or_insert(next);
            if ordinal == next {
                rows.push(row);
            }
            key_of_row.push(ordinal);
        }
        let keys = pick(columns, &rows);
        let names: Vec<Key> = (0..keys.num_rows()).map(|row| name(&keys, row)).collect();
        let mut held = self.held.clone();
        for (row, key) in names.iter().enumerate() {
            held.keys.insert(key.clone(), keys.slice(row, 1));
        }
        self.call = Some((names, held));
        Grouped { key_of_row, keys }
    }

    /// Takes the next timers of one time that are due: the time, their slots, the columns of their keys.
    pub fn due(&mut self, domain: TimeDomain, until: i64) -> Option<(i64, Vec<u32>, RecordBatch)> {
        let domain = domain.to_abi();
        let time = self.held.timers.iter().find(|due| due.0 == domain && due.1 <= until)?.1;
        let now: Vec<Due> = self.held.timers.iter().filter(|due| due.0 == domain && due.1 == time).cloned().collect();
        let schema = self.held.keys.values().next()?.schema();
        let keys: Vec<&RecordBatch> = now.iter().filter_map(|due| self.held.keys.get(&due.2)).collect();
        let columns = stack(&schema, &keys);
        for due in &now {
            self.held.timers.remove(due);
        }
        Some((time, now.iter().map(|due| due.3).collect(), columns))
    }

    fn working(&mut self) -> Result<(&[Key], &mut Held), StateError> {
        match &mut self.call {
            Some((keys, held)) => Ok((keys, held)),
            None => Err(StateError::new(ErrorCode::OUT_OF_RANGE, "there is no call")),
        }
    }
}

impl KeyedState for MemoryState {
    fn field(&self, slot: u32) -> Result<FieldRef, StateError> {
        let none = || StateError::new(ErrorCode::OUT_OF_RANGE, format!("there is no state {slot}"));
        self.declared.get(slot as usize).map(|(_, field)| field.clone()).ok_or_else(none)
    }

    fn gather(&mut self, slot: u32, into: &mut LentColumn) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        let width = into.width;
        for (ordinal, key) in keys.iter().enumerate() {
            let Some(value) = held.values.get(&(slot, key.clone())) else { continue };
            into.validity[ordinal] = 1;
            into.bytes_mut()[ordinal * width..][..width].copy_from_slice(&value_bytes(value, width));
        }
        Ok(())
    }

    fn scatter(&mut self, slot: u32, from: &LentColumn) -> Result<(), StateError> {
        let data_type = self.field(slot)?.data_type().clone();
        let (keys, held) = self.working()?;
        for (ordinal, key) in keys.iter().enumerate().filter(|(ordinal, _)| from.dirty[*ordinal] != 0) {
            let place = (slot, key.clone());
            if from.validity[ordinal] == 0 {
                held.values.remove(&place);
                continue;
            }
            let bytes = &from.bytes()[ordinal * from.width..][..from.width];
            held.values.insert(place, value_of(&data_type, bytes)?);
        }
        Ok(())
    }

    fn value_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef, StateError> {
        let data_type = self.field(slot)?.data_type().clone();
        let (keys, held) = self.working()?;
        let values = ordinals.iter().map(|ordinal| held.values.get(&(slot, keys[*ordinal as usize].clone())).cloned());
        Ok(stack_arrays(&data_type, values))
    }

    fn value_set(&mut self, slot: u32, ordinals: &[u32], values: ArrayRef) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        for (row, ordinal) in ordinals.iter().enumerate() {
            let place = (slot, keys[*ordinal as usize].clone());
            if values.is_null(row) {
                held.values.remove(&place);
            } else {
                held.values.insert(place, values.slice(row, 1));
            }
        }
        Ok(())
    }

    fn list_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef, StateError> {
        let field = self.field(slot)?;
        let (keys, held) = self.working()?;
        let lists: Vec<Option<ArrayRef>> =
            ordinals.iter().map(|ordinal| held.lists.get(&(slot, keys[*ordinal as usize].clone())).cloned()).collect();
        let lengths = arrow_buffer::OffsetBuffer::from_lengths(lists.iter().map(|list| list.as_ref().map_or(0, |items| items.len())));
        let nulls = lists.iter().map(Option::is_some).collect();
        let items = stack_arrays(field.data_type(), lists.into_iter().flatten().map(Some));
        Ok(std::sync::Arc::new(arrow_array::ListArray::new(field, lengths, items, Some(nulls))))
    }

    fn list_append(&mut self, slot: u32, ordinals: &[u32], values: ArrayRef) -> Result<(), StateError> {
        let data_type = values.data_type().clone();
        let (keys, held) = self.working()?;
        for (row, ordinal) in ordinals.iter().enumerate() {
            let place = (slot, keys[*ordinal as usize].clone());
            let before = held.lists.remove(&place);
            held.lists.insert(place, stack_arrays(&data_type, before.into_iter().chain([values.slice(row, 1)]).map(Some)));
        }
        Ok(())
    }

    fn list_clear(&mut self, slot: u32, ordinals: &[u32]) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        for ordinal in ordinals {
            held.lists.remove(&(slot, keys[*ordinal as usize].clone()));
        }
        Ok(())
    }

    fn map_get(&mut self, slot: u32, ordinals: &[u32], map_keys: ArrayRef) -> Result<ArrayRef, StateError> {
        let value = match self.field(slot)?.data_type() {
            DataType::Struct(fields) => fields[1].data_type().clone(),
            other => other.clone(),
        };
        let (keys, held) = self.working()?;
        let values = ordinals.iter().enumerate().map(|(row, ordinal)| {
            let map = held.maps.get(&(slot, keys[*ordinal as usize].clone()))?;
            map.get(&order(&map_keys, row)).map(|entry| entry.1.clone())
        });
        Ok(stack_arrays(&value, values))
    }

    fn map_put(&mut self, slot: u32, ordinals: &[u32], map_keys: ArrayRef, values: ArrayRef) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        for (row, ordinal) in ordinals.iter().enumerate() {
            let map = held.maps.entry((slot, keys[*ordinal as usize].clone())).or_default();
            map.insert(order(&map_keys, row), (map_keys.slice(row, 1), values.slice(row, 1)));
        }
        Ok(())
    }

    fn map_remove(&mut self, slot: u32, ordinals: &[u32], map_keys: ArrayRef) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        for (row, ordinal) in ordinals.iter().enumerate() {
            if let Some(map) = held.maps.get_mut(&(slot, keys[*ordinal as usize].clone())) {
                map.remove(&order(&map_keys, row));
            }
        }
        Ok(())
    }

    fn map_scan(&mut self, slot: u32, ordinal: u32, from: Option<ArrayRef>, limit: usize) -> Result<ArrayRef, StateError> {
        let DataType::Struct(fields) = self.field(slot)?.data_type().clone() else {
            return Err(StateError::new(ErrorCode::OUT_OF_RANGE, "no map"));
        };
        let (keys, held) = self.working()?;
        let map = held.maps.get(&(slot, keys[ordinal as usize].clone())).cloned().unwrap_or_default();
        let from = from.map(|from| order(&from, 0));
        let entries: Vec<_> =
            map.into_iter().filter(|(key, _)| from.as_ref().is_none_or(|from| key >= from)).map(|(_, entry)| entry).take(limit).collect();
        let columns = vec![
            stack_arrays(fields[0].data_type(), entries.iter().map(|entry| Some(entry.0.clone()))),
            stack_arrays(fields[1].data_type(), entries.iter().map(|entry| Some(entry.1.clone()))),
        ];
        Ok(std::sync::Arc::new(arrow_array::StructArray::new(fields, columns, None)))
    }

    fn timer_set(&mut self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        let due = ordinals.iter().zip(times).map(|(ordinal, time)| (domain.to_abi(), *time, keys[*ordinal as usize].clone(), slot));
        held.timers.extend(due);
        Ok(())
    }

    fn timer_delete(&mut self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<(), StateError> {
        let (keys, held) = self.working()?;
        for (ordinal, time) in ordinals.iter().zip(times) {
            held.timers.remove(&(domain.to_abi(), *time, keys[*ordinal as usize].clone(), slot));
        }
        Ok(())
    }

    fn commit(&mut self) {
        if let Some((_, held)) = self.call.take() {
            self.held = held;
        }
    }

    fn rollback(&mut self) {
        self.call = None;
    }
}

/// The text of a row's columns.
fn name(columns: &RecordBatch, row: usize) -> Key {
    columns.columns().iter().map(|column| format!("{:?}\n", column.slice(row, 1))).collect()
}

fn order(keys: &ArrayRef, row: usize) -> Order {
    use arrow_array::cast::AsArray;
    let one = keys.slice(row, 1);
    let data = one.to_data();
    let bytes = || value_bytes(&one, data.data_type().primitive_width().unwrap_or_default());
    match data.data_type() {
        DataType::Utf8 => Order::Bytes(one.as_string::<i32>().value(0).as_bytes().to_vec()),
        DataType::LargeUtf8 => Order::Bytes(one.as_string::<i64>().value(0).as_bytes().to_vec()),
        DataType::Binary => Order::Bytes(one.as_binary::<i32>().value(0).to_vec()),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            let mut wide = [0; 16];
            wide[..bytes().len()].copy_from_slice(&bytes());
            Order::Number(i128::from_le_bytes(wide))
        }
        other if other.is_integer() || other.is_temporal() => {
            let negative = bytes().last().is_some_and(|byte| byte & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 16];
            wide[..bytes().len()].copy_from_slice(&bytes());
            Order::Number(i128::from_le_bytes(wide))
        }
        _ => Order::Text(format!("{one:?}")),
    }
}

/// The bytes of a fixed-width value, an array of one.
fn value_bytes(value: &ArrayRef, width: usize) -> Vec<u8> {
    use arrow_array::cast::AsArray;
    if let Some(boolean) = value.as_boolean_opt() {
        return vec![u8::from(boolean.value(0))];
    }
    let data = value.to_data();
    data.buffers()[0].as_slice()[data.offset() * width..][..width].to_vec()
}

/// The value of these bytes, an array of one.
fn value_of(data_type: &DataType, bytes: &[u8]) -> Result<ArrayRef, StateError> {
    if data_type == &DataType::Boolean {
        return Ok(std::sync::Arc::new(arrow_array::BooleanArray::from(vec![bytes[0] != 0])));
    }
    let data = ArrayData::builder(data_type.clone()).len(1).add_buffer(arrow_buffer::Buffer::from_slice_ref(bytes)).align_buffers(true);
    data.build().map(make_array).map_err(|error| StateError::new(ErrorCode::OTHER, error.to_string()))
}

/// Some rows of a batch.
fn pick(columns: &RecordBatch, rows: &[usize]) -> RecordBatch {
    let rows: Vec<RecordBatch> = rows.iter().map(|row| columns.slice(*row, 1)).collect();
    stack(&columns.schema(), &rows.iter().collect::<Vec<_>>())
}

/// Batches below each other.
#[allow(clippy::expect_used, reason = "columns of one schema have its types and one length")]
fn stack(schema: &SchemaRef, batches: &[&RecordBatch]) -> RecordBatch {
    let rows = batches.iter().map(|batch| batch.num_rows()).sum();
    let column =
        |(index, field): (usize, &FieldRef)| stack_arrays(field.data_type(), batches.iter().map(|batch| Some(batch.column(index).clone())));
    let columns = schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
        .expect("columns of one schema")
}

/// Arrays below each other; `None` is a null.
#[allow(clippy::expect_used, reason = "what a test holds does not overflow offsets")]
fn stack_arrays(data_type: &DataType, arrays: impl Iterator<Item = Option<ArrayRef>>) -> ArrayRef {
    let arrays: Vec<ArrayData> = arrays.map(|array| array.unwrap_or_else(|| new_null_array(data_type, 1)).to_data()).collect();
    if arrays.is_empty() {
        return arrow_array::new_empty_array(data_type);
    }
    let rows = arrays.iter().map(ArrayData::len).sum();
    let mut stacked = MutableArrayData::new(arrays.iter().collect(), true, rows);
    for (index, array) in arrays.iter().enumerate() {
        stacked.try_extend(index, 0, array.len()).expect("fits");
    }
    make_array(stacked.freeze())
}
