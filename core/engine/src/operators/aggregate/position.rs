//! Accumulators that keep one row's value as it is, null included: the first or the last of each key, of any type.

use super::accumulator::{Accumulator, Result, typed};
use arrow::{
    array::{ArrayRef, BooleanArray, UInt32Array},
    compute::take,
    datatypes::DataType,
};
use standpipe_state::value::ValueStore;
use std::sync::Arc;

/// The first value in arrival order.
pub(super) struct First {
    data_type: DataType,
    values: ValueStore,
    seen: Vec<bool>,
}

impl First {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        Ok(Self { data_type: data_type.clone(), values: ValueStore::new(data_type)?, seen: Vec::new() })
    }
}

/// Sets the values of `rows` for `ids`.
fn set(store: &mut ValueStore, ids: &[u32], rows: Vec<u32>, values: &ArrayRef) -> Result<()> {
    store.set(ids, &take(values, &UInt32Array::from(rows), None)?)?;
    store.commit();
    Ok(())
}

impl Accumulator for First {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        let values = typed(values, &self.data_type)?;
        self.seen.resize(groups, false);
        let (mut new, mut rows) = (Vec::new(), Vec::new());
        for (row, id) in ids.iter().enumerate() {
            if !std::mem::replace(&mut self.seen[*id as usize], true) {
                new.push(*id);
                rows.push(row as u32);
            }
        }
        if new.is_empty() { Ok(()) } else { set(&mut self.values, &new, rows, &values) }
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        self.update(ids, groups, values)?;
        self.read(ids)
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        Ok(self.values.get(ids)?)
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        let seen: BooleanArray = ids.iter().map(|id| self.seen.get(*id as usize).copied()).collect();
        Ok(vec![self.read(ids)?, Arc::new(seen)])
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.data_type.clone(), DataType::Boolean]
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.update(ids, groups, state)
    }

    fn clear(&mut self) -> Result<()> {
        self.values.renumber(&[]);
        self.seen.clear();
        Ok(())
    }
}

/// The last value in arrival order.
pub(super) struct Last {
    data_type: DataType,
    values: ValueStore,
    /// By key: the batch in which it was met, for walks from the last row back.
    met: Vec<u64>,
    batch: u64,
}

impl Last {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        Ok(Self { data_type: data_type.clone(), values: ValueStore::new(data_type)?, met: Vec::new(), batch: 0 })
    }
}

impl Accumulator for Last {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        let values = typed(values, &self.data_type)?;
        self.met.resize(groups, 0);
        self.batch += 1;
        let (mut keys, mut rows) = (Vec::new(), Vec::new());
        for (row, id) in ids.iter().enumerate().rev() {
            if std::mem::replace(&mut self.met[*id as usize], self.batch) != self.batch {
                keys.push(*id);
                rows.push(row as u32);
            }
        }
        set(&mut self.values, &keys, rows, &values)
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        self.update(ids, groups, values)?;
        typed(values, &self.data_type)
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        Ok(self.values.get(ids)?)
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.read(ids)?])
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.data_type.clone()]
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.update(ids, groups, state)
    }

    fn clear(&mut self) -> Result<()> {
        self.values.renumber(&[]);
        self.met.clear();
        Ok(())
    }
}
