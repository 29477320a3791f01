//! One window's rows, aggregated by key: a key index of its own, whose ids are the groups of DataFusion's accumulators.

use super::{extreme, sum};
use crate::{
    operator::OperatorError,
    operators::{arrow_error, data_error, expression_error},
};
use arrow::{array::ArrayRef, datatypes::Fields, error::ArrowError};
use datafusion_common::DataFusionError;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::{GroupsAccumulatorAdapter, aggregate::AggregateFunctionExpr};
use standpipe_state::{EncodedKeys, KeyError, KeyIndex, snapshot::SnapshotError};
use std::{ops::Range, sync::Arc};

/// An aggregate function and which of the evaluated arguments are its own.
pub(super) struct WindowFunction {
    pub(super) name: String,
    pub(super) function: Arc<AggregateFunctionExpr>,
    pub(super) arguments: Range<usize>,
    /// Of a plugin's function: the names of its state's columns. Looking at its state consumes nothing.
    pub(super) state: Option<Vec<String>>,
}

/// What went wrong; the operator adds its name.
#[derive(Debug)]
pub(super) enum Failure {
    Expression(DataFusionError),
    Arrow(ArrowError),
    Data(String),
}

impl Failure {
    pub(super) fn at(self, node: &str) -> OperatorError {
        match self {
            Self::Expression(source) => expression_error(node, source),
            Self::Arrow(source) => arrow_error(node, source),
            Self::Data(message) => data_error(node, message),
        }
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        match error {
            // What we say ourselves from behind DataFusion's interface.
            DataFusionError::External(message) => Self::Data(message.to_string()),
            error => Self::Expression(error),
        }
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::Data(error.to_string())
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Self::Data(error.to_string())
    }
}

/// A window that is open.
pub(super) struct Pane {
    index: KeyIndex,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    ids: Vec<u32>,
    groups: Vec<usize>,
}

/// What a pane gives when it fires, a row per key. Columns of keys are made for a slice at a time: those of all keys may be more than an array can hold.
pub(super) struct Fired {
    index: KeyIndex,
    aggregates: Vec<ArrayRef>,
}

impl Fired {
    pub(super) fn rows(&self) -> usize {
        self.index.len()
    }

    /// The columns of the keys, and of the aggregates.
    pub(super) fn slice(&self, rows: Range<usize>) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), KeyError> {
        let aggregates = self.aggregates.iter().map(|column| column.slice(rows.start, rows.len())).collect();
        Ok((self.index.columns_of(rows)?, aggregates))
    }
}

impl Pane {
    /// An empty pane with room for `keys` keys.
    pub(super) fn new(key_fields: &Fields, functions: &[WindowFunction], keys: usize) -> Result<Self, Failure> {
        let index = KeyIndex::with_capacity(key_fields.iter().map(|field| field.data_type().clone()).collect(), keys)?;
        Ok(Self { index, accumulators: accumulators(functions)?, ids: Vec::new(), groups: Vec::new() })
    }

    /// Distinct keys.
    pub(super) fn keys(&self) -> usize {
        self.index.len()
    }

    /// The index of its keys; ids are in order of first arrival.
    pub(super) fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Adds rows: `rows` of the encoded keys or all of them, with the arguments of just these.
    pub(super) fn add(
        &mut self,
        functions: &[WindowFunction],
        encoded: &EncodedKeys,
        rows: Option<&[u32]>,
        arguments: &[ArrayRef],
    ) -> Result<(), Failure> {
        self.find_groups(encoded, rows)?;
        for (accumulator, function) in self.accumulators.iter_mut().zip(functions) {
            accumulator.update_batch(&arguments[function.arguments.clone()], &self.groups, None, self.index.len())?;
        }
        Ok(())
    }

    fn find_groups(&mut self, encoded: &EncodedKeys, rows: Option<&[u32]>) -> Result<(), KeyError> {
        match rows {
            None => self.index.intern(encoded, &mut self.ids)?,
            Some(rows) => self.index.intern_rows(encoded, rows, &mut self.ids)?,
        }
        self.groups.clear();
        self.groups.extend(self.ids.iter().map(|id| *id as usize));
        Ok(())
    }

    /// The results.
    pub(super) fn finish(mut self) -> Result<Fired, Failure> {
        let aggregates = self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All)).collect::<Result<_, _>>()?;
        Ok(Fired { index: self.index, aggregates })
    }

    /// The state columns of each function, a row per key. Accumulators that are emptied by it are filled again.
    pub(super) fn state(&mut self, functions: &[WindowFunction]) -> Result<Vec<Vec<ArrayRef>>, Failure> {
        let states: Vec<Vec<ArrayRef>> =
            self.accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All)).collect::<Result<_, _>>()?;
        let groups: Vec<usize> = (0..self.index.len()).collect();
        for ((kept, function), state) in
            self.accumulators.iter_mut().zip(functions).zip(&states).filter(|((_, function), _)| function.state.is_none())
        {
            *kept = accumulator(function)?;
            kept.merge_batch(state, &groups, self.index.len())?;
        }
        Ok(states)
    }

    /// Adds state columns as [`Self::state`] gave them: those of `rows` of the encoded keys.
    pub(super) fn merge(&mut self, encoded: &EncodedKeys, rows: &[u32], states: &[Vec<ArrayRef>]) -> Result<(), Failure> {
        self.find_groups(encoded, Some(rows))?;
        let groups = std::mem::take(&mut self.groups);
        let merged = self.merge_states(states, &groups);
        self.groups = groups;
        merged
    }

    fn merge_states(&mut self, states: &[Vec<ArrayRef>], groups: &[usize]) -> Result<(), Failure> {
        for (accumulator, state) in self.accumulators.iter_mut().zip(states) {
            accumulator.merge_batch(state, groups, self.index.len())?;
        }
        Ok(())
    }
}

fn accumulators(functions: &[WindowFunction]) -> Result<Vec<Box<dyn GroupsAccumulator>>, DataFusionError> {
    functions.iter().map(accumulator).collect()
}

fn accumulator(function: &WindowFunction) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
    if let Some(own) = sum::checked(function)?.or_else(|| extreme::of_floats(function)) {
        return Ok(own);
    }
    let function = Arc::clone(&function.function);
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}
