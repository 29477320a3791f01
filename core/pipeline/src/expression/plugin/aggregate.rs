//! Aggregate functions: in a window behind DataFusion's interface of groups; without one the engine takes what is bound itself.

use super::{Callable, refused, signature, untold};
use arrow_array::{ArrayRef, BooleanArray};
use arrow_schema::{DataType, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
    function::{AccumulatorArgs, StateFieldsArgs},
};
use serde_json::Value;
use standpipe_loader::{AggregateFunction, AggregateGroups, AggregateKind, PluginError};
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

/// A function by the name that it has in the pipeline.
#[derive(Debug, Clone)]
pub(in crate::expression) struct PluginAggregate {
    name: String,
    kind: AggregateKind,
    config: Arc<Value>,
    bound: Option<AggregateFunction>,
    signature: Signature,
}

impl PluginAggregate {
    pub(in crate::expression) fn new(name: &str, kind: &AggregateKind, config: &Value) -> Self {
        let signature = signature(Volatility::Immutable);
        Self { name: name.to_owned(), kind: kind.clone(), config: Arc::new(config.clone()), bound: None, signature }
    }

    fn bind(&self, arguments: &[FieldRef]) -> Result<AggregateFunction> {
        match &self.bound {
            Some(bound) => Ok(bound.clone()),
            None => self.kind.bind(&self.config, arguments).map_err(|error| refused(&self.name, error)),
        }
    }

    /// The function for arguments of these types.
    pub(super) fn bound(&self, arguments: &[FieldRef]) -> Result<Self> {
        Ok(Self { bound: Some(self.bind(arguments)?), ..self.clone() })
    }

    /// What the engine folds with.
    pub(in crate::expression) fn function(&self) -> Option<AggregateFunction> {
        self.bound.clone()
    }

    fn groups(&self, arguments: &AccumulatorArgs<'_>) -> Result<AggregateGroups> {
        if arguments.is_distinct || arguments.ignore_nulls {
            return plan_err!("{}() knows neither DISTINCT nor IGNORE NULLS", self.name);
        }
        self.bind(arguments.expr_fields)?.groups().map_err(failed)
    }
}

impl Callable for PluginAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn wanted(&self) -> Vec<DataType> {
        self.bound.iter().flat_map(AggregateFunction::arguments).cloned().collect()
    }
}

fn failed(error: PluginError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl PartialEq for PluginAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.config == other.config && self.bound.is_some() == other.bound.is_some()
    }
}

impl Eq for PluginAggregate {}

impl Hash for PluginAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for PluginAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(self.bind(&untold(types))?.arguments().cloned().collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.bind(&untold(types))?.result().data_type().clone())
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(self.bind(arguments)?.result().clone()))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(self.bind(arguments.input_fields)?.state().fields().iter().cloned().collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Mutex::new(self.groups(&arguments)?))))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(ManyGroups { groups: self.groups(&arguments)?, ids: Vec::new(), count: 0 }))
    }
}

/// All groups of a window.
struct ManyGroups {
    groups: AggregateGroups,
    ids: Vec<u32>,
    count: usize,
}

impl ManyGroups {
    fn told(&mut self, groups: &[usize], filter: Option<&BooleanArray>, count: usize) -> Result<()> {
        if filter.is_some() {
            return internal_err!("a window's aggregate has no filter");
        }
        self.ids.clear();
        self.ids.extend(groups.iter().map(|group| *group as u32));
        self.count = count;
        Ok(())
    }

    fn all(&self, emit_to: EmitTo) -> Result<Vec<u32>> {
        if emit_to != EmitTo::All {
            return internal_err!("a window gives all of its groups at once");
        }
        Ok((0..self.count as u32).collect())
    }
}

impl GroupsAccumulator for ManyGroups {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, count: usize) -> Result<()> {
        self.told(groups, filter, count)?;
        self.groups.update(&self.ids, values).map_err(failed)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let all = self.all(emit_to)?;
        let results = self.groups.evaluate(&all).map_err(failed)?;
        self.groups.forget(&all).map_err(failed)?;
        self.count = 0;
        Ok(results)
    }

    /// Nothing is consumed: who asks goes on with it ([`WindowAggregate::state`](crate::plan::WindowAggregate::state)).
    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let all = self.all(emit_to)?;
        self.groups.state(&all).map_err(failed)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.told(groups, None, count)?;
        self.groups.merge(&self.ids, values).map_err(failed)
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        internal_err!("a window aggregates all rows itself")
    }

    /// What a plugin has allocated it does not tell.
    fn size(&self) -> usize {
        size_of_val(self) + self.ids.capacity() * size_of::<u32>()
    }
}

/// One group, for where DataFusion has no others.
struct OneGroup(Mutex<AggregateGroups>);

impl fmt::Debug for OneGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneGroup")
    }
}

impl OneGroup {
    fn with<T>(&mut self, call: impl FnOnce(&mut AggregateGroups) -> Result<T, PluginError>) -> Result<T> {
        call(self.0.get_mut().unwrap_or_else(PoisonError::into_inner)).map_err(failed)
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |values| values.len());
        self.with(|groups| groups.update(&vec![0; rows], values))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.with(|groups| groups.evaluate(&[0]))?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.with(|groups| groups.state(&[0]))?;
        state.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |states| states.len());
        self.with(|groups| groups.merge(&vec![0; rows], states))
    }
}
