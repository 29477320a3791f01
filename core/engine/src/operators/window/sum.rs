//! `sum` in a window, with an error where DataFusion's would wrap around: the running sum of the aggregates (`operators::aggregate`) behind DataFusion's interface, so
//! that a total means the same with and without a window. Called by the panes (`pane`); everything but sums of integers, decimals and durations stays DataFusion's.
//!
//! A total must fit its type after each row, as a running total must. `sum(DISTINCT ...)` has no order: there the total itself must fit.

use super::pane::WindowFunction;
use crate::operators::aggregate::accumulator::{self, Accumulator, AccumulatorError};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray},
    datatypes::{DataType, Int64Type, UInt64Type},
};
use datafusion_common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion_expr::{Accumulator as DistinctAccumulator, EmitTo, GroupsAccumulator};
use datafusion_physical_expr::GroupsAccumulatorAdapter;
use standpipe_pipeline::plan::RunningFunction;
use std::sync::Arc;

/// The accumulator of a sum that could wrap around; `None` for every other function.
pub(super) fn checked(function: &WindowFunction) -> Result<Option<Box<dyn GroupsAccumulator>>> {
    let call = &function.function;
    let field = call.field();
    let data_type = field.data_type();
    if call.fun().name() != "sum" {
        return Ok(None);
    }
    match data_type {
        DataType::Int64 | DataType::UInt64 if call.is_distinct() => {
            let (call, name, data_type) = (Arc::clone(call), function.name.clone(), data_type.clone());
            let make = move || {
                let distinct = DistinctSum { name: name.clone(), data_type: data_type.clone(), values: call.create_accumulator()? };
                Ok(Box::new(distinct) as Box<dyn DistinctAccumulator>)
            };
            Ok(Some(Box::new(GroupsAccumulatorAdapter::new(make))))
        }
        DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Duration(_)
            if !call.is_distinct() =>
        {
            let name = function.name.clone();
            let running = accumulator::new(RunningFunction::Sum, data_type, true).map_err(|error| failed(&name, &error))?;
            Ok(Some(Box::new(CheckedSum { name, running, ids: Vec::new(), groups: 0 })))
        }
        _ => Ok(None),
    }
}

fn failed(name: &str, error: &AccumulatorError) -> DataFusionError {
    DataFusionError::External(format!("{name}: {error}").into())
}

/// A sum per group.
struct CheckedSum {
    name: String,
    running: Box<dyn Accumulator>,
    ids: Vec<u32>,
    groups: usize,
}

impl CheckedSum {
    fn take(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        if emit_to != EmitTo::All {
            return internal_err!("a window gives all of its groups at once");
        }
        let ids: Vec<u32> = (0..self.groups as u32).collect();
        let totals = self.running.read(&ids).map_err(|error| failed(&self.name, &error))?;
        self.running.clear().map_err(|error| failed(&self.name, &error))?;
        self.groups = 0;
        Ok(totals)
    }
}

impl GroupsAccumulator for CheckedSum {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total_groups: usize) -> Result<()> {
        if filter.is_some() {
            return internal_err!("a window's aggregate has no filter");
        }
        self.ids.clear();
        self.ids.extend(groups.iter().map(|group| *group as u32));
        self.groups = total_groups;
        self.running.update(&self.ids, total_groups, values).map_err(|error| failed(&self.name, &error))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.take(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.take(emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        internal_err!("a window aggregates all rows itself")
    }

    fn size(&self) -> usize {
        // Eight bytes and a flag; a decimal may have more.
        self.groups * 9 + self.ids.capacity() * size_of::<u32>()
    }
}

/// The sum of the distinct values that DataFusion's accumulator keeps.
#[derive(Debug)]
struct DistinctSum {
    name: String,
    data_type: DataType,
    values: Box<dyn DistinctAccumulator>,
}

impl DistinctAccumulator for DistinctSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let lists = self.values.state()?.into_iter().next().map(|state| state.to_array()).transpose()?;
        let values = lists.as_ref().and_then(|lists| lists.as_list_opt::<i32>()).map(|lists| lists.values());
        // 64 bits fit 2^64 times into 128.
        let total: i128 = match values {
            Some(values) if *values.data_type() == DataType::Int64 => {
                values.as_primitive::<Int64Type>().iter().flatten().map(i128::from).sum()
            }
            Some(values) if *values.data_type() == DataType::UInt64 => {
                values.as_primitive::<UInt64Type>().iter().flatten().map(i128::from).sum()
            }
            _ => return internal_err!("the state of a distinct sum is no list of its values"),
        };
        let empty = values.is_none_or(|values| values.null_count() == values.len());
        let overflow = || failed(&self.name, &AccumulatorError::Overflow(self.data_type.clone()));
        Ok(match (&self.data_type, empty) {
            (DataType::UInt64, true) => ScalarValue::UInt64(None),
            (DataType::UInt64, false) => ScalarValue::UInt64(Some(u64::try_from(total).map_err(|_| overflow())?)),
            (_, true) => ScalarValue::Int64(None),
            (_, false) => ScalarValue::Int64(Some(i64::try_from(total).map_err(|_| overflow())?)),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }
}
