//! Aggregates without a window: an accumulator per key that is kept and read again and again, never consumed (`accumulator`).
//!
//! | emit | gives |
//! |---|---|
//! | `each` | one row per input row, in order: the values right after it |
//! | `changes` | after each batch the keys that it touched, in the order of their first row in it; `op` is `+I` the first time, then `+U` |
//! | `final` | when the input has ended each key once, in batches of the plan's size, in the order of first arrival (after a restore: of the former subtasks as they are given) |
//!
//! What `each` and `final` give depends on the order of the rows of each key alone, not on batches; `changes` is coalesced per batch. Without key columns all rows are
//! of one key. State stays for every key that ever came.
//!
//! Snapshot: the table `keys`, a row per key, or per key that has changed: `key_group`, `key`, then each aggregate's state columns, named `AGGREGATE.n`, of a plugin's function `AGGREGATE.NAME`.

use super::{arrow_error, data_error, stateless::evaluate};
use crate::operator::{END, Emitter, Micros, Operator, OperatorError, Snapshot};
use accumulator::{Accumulator, AccumulatorError};
use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray},
    compute::{cast, filter_record_batch},
    datatypes::{Field, Fields, SchemaRef},
};
use datafusion_physical_expr::PhysicalExpr;
use standpipe_pipeline::plan::{AggregateNode, Emit, Folding, JobSettings};
use standpipe_sdk::wire::{ROLE, ROLE_ROW_KIND};
use standpipe_state::{
    Changes, Cut, EncodedKeys, KeyGroupRange, KeyIndex, Ordinals, Said,
    snapshot::{KEYS_OF_A_TABLE, SINCE, SnapshotError, column, keyed_table, owned_rows},
};
use std::{collections::HashMap, sync::Arc};

pub(super) mod accumulator;
pub(super) mod fold;
mod plugin;
#[cfg(test)]
mod plugin_tests;
mod position;
#[cfg(test)]
mod tests;

const KEYS: &str = "keys";

/// See the module's documentation.
pub struct Aggregate {
    node: String,
    max_parallelism: u32,
    /// Rows of a batch that `final` gives.
    batch_rows: usize,
    emit: Emit,
    keys: Vec<usize>,
    key_fields: Fields,
    index: KeyIndex,
    functions: Vec<Function>,
    changes: Changes,
    output: SchemaRef,
    encoded: EncodedKeys,
    ids: Vec<u32>,
    ordinals: Ordinals,
}

struct Function {
    name: String,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    accumulator: Box<dyn Accumulator>,
}

impl Function {
    /// The columns of its arguments.
    fn evaluated(&self, node: &str, batch: &RecordBatch) -> Result<Vec<ArrayRef>, OperatorError> {
        self.arguments.iter().map(|argument| evaluate(node, argument, batch)).collect()
    }
}

impl Aggregate {
    /// `input` is the schema of what it reads, `output` of what it gives.
    ///
    /// # Errors
    /// When a column or an aggregate cannot be used.
    pub fn new(
        path: &str,
        node: &AggregateNode,
        input: &SchemaRef,
        output: SchemaRef,
        settings: &JobSettings,
    ) -> Result<Self, OperatorError> {
        let key_fields: Fields = node.keys.iter().map(|key| input.fields()[*key].clone()).collect();
        let index =
            KeyIndex::new(key_fields.iter().map(|field| field.data_type().clone()).collect()).map_err(|error| data_error(path, error))?;
        let mut functions = Vec::with_capacity(node.aggregates.len());
        for aggregate in &node.aggregates {
            let accumulator = match &aggregate.function {
                Folding::BuiltIn(function) => accumulator::new(*function, &aggregate.data_type, !aggregate.arguments.is_empty()),
                Folding::Plugin(function) => plugin::new(function),
            };
            let accumulator = accumulator.map_err(|error| data_error(path, format!("{}: {error}", aggregate.name)))?;
            functions.push(Function { name: aggregate.name.clone(), arguments: aggregate.arguments.clone(), accumulator });
        }
        let is_row_kind = |field: &Arc<Field>| field.metadata().get(ROLE).is_some_and(|role| role == ROLE_ROW_KIND);
        if node.emit == Emit::Changes && output.fields().iter().position(is_row_kind) != Some(key_fields.len() + functions.len()) {
            return Err(data_error(path, "the row kind is not the last column of a stream of changes"));
        }
        Ok(Self {
            node: path.to_owned(),
            max_parallelism: settings.max_parallelism,
            batch_rows: settings.batch_rows.max(1) as usize,
            emit: node.emit,
            keys: node.keys.clone(),
            key_fields,
            index,
            functions,
            changes: Changes::default(),
            output,
            encoded: EncodedKeys::new(),
            ids: Vec::new(),
            ordinals: Ordinals::default(),
        })
    }

    fn each(&mut self, batch: &RecordBatch, mut columns: Vec<ArrayRef>, out: &mut Emitter) -> Result<(), OperatorError> {
        let groups = self.index.len();
        for function in &mut self.functions {
            let arguments = function.evaluated(&self.node, batch)?;
            let running = function.accumulator.update_each(&self.ids, groups, &arguments);
            columns.push(running.map_err(|error| error.at(&self.node, &function.name))?);
        }
        self.give(columns, batch.num_rows(), out)
    }

    fn update(&mut self, batch: &RecordBatch) -> Result<(), OperatorError> {
        let groups = self.index.len();
        for function in &mut self.functions {
            let arguments = function.evaluated(&self.node, batch)?;
            function.accumulator.update(&self.ids, groups, &arguments).map_err(|error| error.at(&self.node, &function.name))?;
        }
        Ok(())
    }

    /// Gives the keys of the batch; those from `known` on are new.
    fn changes(&mut self, known: usize, out: &mut Emitter) -> Result<(), OperatorError> {
        self.ordinals.assign(&self.ids, self.index.len());
        let ids = self.ordinals.ids();
        let kinds = StringArray::from_iter_values(ids.iter().map(|id| if *id as usize >= known { "+I" } else { "+U" }));
        let mut columns = self.read(ids)?;
        columns.push(Arc::new(kinds));
        self.give(columns, self.ordinals.ids().len(), out)
    }

    /// Keys and values of some ids.
    fn read(&self, ids: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut columns = self.index.columns(ids).map_err(|error| data_error(&self.node, error))?;
        for function in &self.functions {
            columns.push(function.accumulator.read(ids).map_err(|error| error.at(&self.node, &function.name))?);
        }
        Ok(columns)
    }

    fn give(&self, columns: Vec<ArrayRef>, rows: usize, out: &mut Emitter) -> Result<(), OperatorError> {
        let typed = columns.into_iter().zip(self.output.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(column),
            false => cast(&column, field.data_type()),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = typed.collect::<Result<_, _>>();
        let batch = columns.and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options));
        out.emit(0, batch.map_err(|source| arrow_error(&self.node, source))?);
        Ok(())
    }

    fn all_ids(&self) -> Vec<u32> {
        (0..self.index.len() as u32).collect()
    }

    fn tables(&self, said: Said) -> Result<Vec<(String, RecordBatch)>, OperatorError> {
        let named = |table: RecordBatch| (KEYS.to_owned(), table);
        match said {
            Said::Since(cut, ids) => {
                let metadata = HashMap::from([(SINCE.to_owned(), cut.to_string())]);
                Ok(vec![named(self.table(&ids, metadata)?)])
            }
            Said::Whole if self.index.is_empty() => Ok(vec![named(self.table(&[], HashMap::new())?)]),
            Said::Whole => {
                let all = self.all_ids();
                all.chunks(KEYS_OF_A_TABLE).map(|ids| self.table(ids, HashMap::new()).map(named)).collect()
            }
        }
    }

    fn table(&self, ids: &[u32], metadata: HashMap<String, String>) -> Result<RecordBatch, OperatorError> {
        let mut columns = Vec::new();
        for function in &self.functions {
            let states = function.accumulator.state(ids).map_err(|error| error.at(&self.node, &function.name))?;
            for (at, state) in function.accumulator.state_names().iter().zip(states) {
                columns.push((Arc::new(Field::new(format!("{}.{at}", function.name), state.data_type().clone(), true)), state));
            }
        }
        let table = keyed_table(&self.index, &self.key_fields, ids, self.max_parallelism, columns, metadata);
        table.map_err(|error| data_error(&self.node, error))
    }

    /// Takes the rows of keys that are new: of a key the last table holds, so the last comes first.
    fn restore_table(&mut self, table: &RecordBatch, owned: KeyGroupRange) -> Result<(), SnapshotError> {
        let (mut rows, encoded) = owned_rows(table, &self.key_fields, self.max_parallelism, owned)?;
        let known = self.index.len() as u32;
        self.index.intern(&encoded, &mut self.ids)?;
        if self.ids.iter().any(|id| *id < known) {
            let new: BooleanArray = self.ids.iter().map(|id| Some(*id >= known)).collect();
            rows = filter_record_batch(&rows, &new)?;
            self.ids.retain(|id| *id >= known);
        }
        for function in &mut self.functions {
            let types = function.accumulator.state_types();
            let names = function.accumulator.state_names();
            let state = names.iter().zip(&types).map(|(at, data_type)| {
                let name = format!("{}.{at}", function.name);
                let state = column(&rows, &name)?;
                let fits = state.data_type() == data_type;
                fits.then(|| Arc::clone(state))
                    .ok_or_else(|| SnapshotError::Misfit(format!("{name:?} is {}, not {data_type}", state.data_type())))
            });
            let state: Vec<ArrayRef> = state.collect::<Result<_, _>>()?;
            let restored = function.accumulator.restore(&self.ids, self.index.len(), &state);
            restored.map_err(|error| SnapshotError::Misfit(format!("{}: {error}", function.name)))?;
        }
        Ok(())
    }
}

impl Operator for Aggregate {
    fn on_batch(&mut self, _: u32, batch: RecordBatch, out: &mut Emitter) -> Result<(), OperatorError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let keys: Vec<ArrayRef> = self.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
        let known = self.index.len();
        let encoded = self.encoded.encode(&keys, batch.num_rows());
        encoded.and_then(|()| self.index.intern(&self.encoded, &mut self.ids)).map_err(|error| data_error(&self.node, error))?;
        if self.changes.wanted() {
            self.ids.iter().for_each(|id| self.changes.note(*id));
        }
        match self.emit {
            Emit::Each => self.each(&batch, keys, out),
            Emit::Final => self.update(&batch),
            Emit::Changes => {
                self.update(&batch)?;
                self.changes(known, out)
            }
        }
    }

    fn on_watermark(&mut self, _: u32, watermark: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        if watermark != END || self.emit != Emit::Final || self.index.is_empty() {
            return Ok(());
        }
        // Never all keys in one batch: there may be more than its columns can hold.
        for ids in self.all_ids().chunks(self.batch_rows) {
            let columns = self.read(ids)?;
            self.give(columns, ids.len(), out)?;
        }
        // Given once: a snapshot from here on has nothing left to give.
        self.index.compact(|_| false);
        self.changes.forget();
        for function in &mut self.functions {
            function.accumulator.clear().map_err(|error| error.at(&self.node, &function.name))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, cut: Cut) -> Result<Snapshot, OperatorError> {
        let said = self.changes.cut(cut, self.index.len());
        Ok(self.tables(said)?.into())
    }

    fn restore(&mut self, parts: &[Snapshot], owned: KeyGroupRange) -> Result<(), OperatorError> {
        for (name, table) in parts.iter().flat_map(|part| part.tables.iter().rev()) {
            let restored = if name == KEYS {
                self.restore_table(table, owned)
            } else {
                Err(SnapshotError::Misfit(format!("an aggregate has no table {name:?}")))
            };
            restored.map_err(|error| data_error(&self.node, error))?;
        }
        Ok(())
    }
}

impl AccumulatorError {
    fn at(self, node: &str, aggregate: &str) -> OperatorError {
        data_error(node, format!("{aggregate}: {self}"))
    }
}
