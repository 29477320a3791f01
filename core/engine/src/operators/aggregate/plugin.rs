//! An aggregate function of a plugin as an accumulator: the ids of keys are its groups.

use super::accumulator::{Accumulator, Result};
use arrow::{
    array::{Array, ArrayRef},
    compute::concat,
    datatypes::DataType,
};
use standpipe_loader::{AggregateFunction, AggregateGroups};

/// See the module's documentation.
struct PluginFold {
    groups: AggregateGroups,
    /// By id: in which run of rows it was met, for [`Accumulator::update_each`].
    met: Vec<u64>,
    run: u64,
}

pub(super) fn new(function: &AggregateFunction) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(PluginFold { groups: function.groups()?, met: Vec::new(), run: 0 }))
}

impl PluginFold {
    /// How many rows from `from` on are of keys that differ.
    fn distinct(&mut self, ids: &[u32]) -> usize {
        self.run += 1;
        let again = ids.iter().position(|id| std::mem::replace(&mut self.met[*id as usize], self.run) == self.run);
        again.unwrap_or(ids.len())
    }
}

impl Accumulator for PluginFold {
    fn update(&mut self, ids: &[u32], _: usize, values: &[ArrayRef]) -> Result<()> {
        Ok(self.groups.update(ids, values)?)
    }

    /// A function gives its value when it is asked, not after each row: so many rows at a time as are of different keys.
    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        self.met.resize(groups, 0);
        let (mut parts, mut from) = (Vec::new(), 0);
        while from < ids.len() || parts.is_empty() {
            let rows = self.distinct(&ids[from..]);
            let part = &ids[from..from + rows];
            let arguments: Vec<ArrayRef> = values.iter().map(|values| values.slice(from, rows)).collect();
            self.groups.update(part, &arguments)?;
            parts.push(self.groups.evaluate(part)?);
            from += rows;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(concat(&parts)?)
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        Ok(self.groups.evaluate(ids)?)
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(self.groups.state(ids)?)
    }

    fn state_types(&self) -> Vec<DataType> {
        self.groups.function().state().fields().iter().map(|field| field.data_type().clone()).collect()
    }

    fn state_names(&self) -> Vec<String> {
        self.groups.function().state_names()
    }

    fn restore(&mut self, ids: &[u32], _: usize, state: &[ArrayRef]) -> Result<()> {
        Ok(self.groups.merge(ids, state)?)
    }

    fn clear(&mut self) -> Result<()> {
        self.groups = self.groups.function().groups()?;
        self.met.clear();
        Ok(())
    }
}
