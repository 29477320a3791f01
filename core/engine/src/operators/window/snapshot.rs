//! The window's tables: `panes` and `watermark`.

use super::{
    Window,
    pane::{Failure, WindowFunction},
};
use crate::operator::Snapshot;
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array},
    compute::{concat_batches, take},
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, UInt64Type},
};
use standpipe_state::{
    KeyGroupRange,
    snapshot::{KEYS_OF_A_TABLE, SnapshotError, column, keyed_table, owned_rows, typed_column},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

const PANES: &str = "panes";
const START: &str = "window_start";
const WATERMARK: &str = "watermark";

/// A state column of an aggregate: `n.0`, `n.1`; of a plugin's function as it calls it, `mean.weights`.
fn state_column(function: &WindowFunction, at: usize) -> String {
    match function.state.as_ref().and_then(|names| names.get(at)) {
        Some(name) => format!("{}.{name}", function.name),
        None => format!("{}.{at}", function.name),
    }
}

impl Window {
    pub(super) fn take_snapshot(&mut self) -> Result<Snapshot, Failure> {
        let mut tables = Vec::with_capacity(self.panes.len());
        for (start, pane) in &mut self.panes {
            let states = pane.state(&self.functions)?;
            let ids: Vec<u32> = (0..pane.keys() as u32).collect();
            let starts: ArrayRef = Arc::new(Int64Array::from(vec![*start; ids.len()]));
            let mut columns: Vec<(FieldRef, ArrayRef)> = vec![(Arc::new(Field::new(START, DataType::Int64, false)), starts)];
            for (function, state) in self.functions.iter().zip(states) {
                let field = |at, array: &ArrayRef| Arc::new(Field::new(state_column(function, at), array.data_type().clone(), true));
                columns.extend(state.into_iter().enumerate().map(|(at, array)| (field(at, &array), array)));
            }
            for (part, ids) in ids.chunks(KEYS_OF_A_TABLE).enumerate() {
                let slice = |(field, array): &(FieldRef, ArrayRef)| (Arc::clone(field), array.slice(part * KEYS_OF_A_TABLE, ids.len()));
                let columns = columns.iter().map(slice).collect();
                tables.push(keyed_table(pane.index(), &self.key_fields, ids, self.max_parallelism, columns, HashMap::new())?);
            }
        }
        let mut snapshot = Snapshot::from(vec![(WATERMARK.to_owned(), watermark_table(self.watermark)?)]);
        // Many panes of few keys are one table.
        while let Some(first) = tables.first() {
            let schema = first.schema();
            let mut rows = 0;
            let fits = |table: &&RecordBatch| {
                rows += table.num_rows();
                rows <= KEYS_OF_A_TABLE
            };
            let count = tables.iter().take_while(fits).count();
            let rest = tables.split_off(count.max(1));
            snapshot.tables.push((PANES.to_owned(), concat_batches(&schema, &std::mem::replace(&mut tables, rest))?));
        }
        Ok(snapshot)
    }

    /// Goes on from the snapshot of one former subtask. All former subtasks have seen the same watermarks; if not, the highest holds: no window fires twice.
    pub(super) fn restore_part(&mut self, part: &Snapshot, owned: KeyGroupRange) -> Result<(), Failure> {
        for (name, table) in &part.tables {
            match name.as_str() {
                WATERMARK => {
                    let watermarks = typed_column(table, WATERMARK, &DataType::Int64)?.as_primitive::<Int64Type>();
                    self.watermark = watermarks.values().iter().copied().fold(self.watermark, i64::max);
                }
                PANES => self.restore_panes(table, owned)?,
                other => return Err(SnapshotError::Misfit(format!("a window has no table {other:?}")).into()),
            }
        }
        Ok(())
    }

    fn restore_panes(&mut self, table: &RecordBatch, owned: KeyGroupRange) -> Result<(), Failure> {
        let (rows, encoded) = owned_rows(table, &self.key_fields, self.max_parallelism, owned)?;
        let starts = typed_column(&rows, START, &DataType::Int64)?.as_primitive::<Int64Type>();
        let mut rows_of_pane: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, start) in starts.values().iter().enumerate() {
            rows_of_pane.entry(*start).or_default().push(row as u32);
        }
        let mut states = Vec::with_capacity(self.functions.len());
        for function in &self.functions {
            let fields = function.function.state_fields()?;
            let of_function = fields.iter().enumerate().map(|(at, field)| state(&rows, &state_column(function, at), field.data_type()));
            let of_function = of_function.collect::<Result<Vec<_>, _>>()?;
            check_counts(function, &of_function)?;
            states.push(of_function);
        }
        for (start, rows) in rows_of_pane {
            let indices = UInt32Array::from(rows);
            let of_pane = |state: &Vec<ArrayRef>| state.iter().map(|column| take(column, &indices, None)).collect::<Result<Vec<_>, _>>();
            let states = states.iter().map(of_pane).collect::<Result<Vec<_>, _>>()?;
            if !self.panes.contains_key(&start) {
                let pane = super::Pane::new(&self.key_fields, &self.functions, indices.len())?;
                self.panes.insert(start, pane);
            }
            if let Some(pane) = self.panes.get_mut(&start) {
                pane.merge(&encoded, indices.values(), &states)?;
            }
        }
        Ok(())
    }
}

/// More rows of a key than any job has.
const MOST_ROWS: u64 = 1 << 48;

/// DataFusion adds to counts without a look, and asserts that none is null: a table that says what no job has counted is damaged.
fn check_counts(function: &WindowFunction, state: &[ArrayRef]) -> Result<(), SnapshotError> {
    if !["count", "avg"].contains(&function.function.fun().name()) {
        return Ok(());
    }
    for column in state {
        let most = match column.data_type() {
            DataType::Int64 => {
                let counts = column.as_primitive::<Int64Type>().values().iter();
                counts.map(|count| u64::try_from(*count).unwrap_or(u64::MAX)).max()
            }
            DataType::UInt64 => column.as_primitive::<UInt64Type>().values().iter().copied().max(),
            _ => continue,
        };
        let is_whole = function.function.fun().name() != "count" || column.null_count() == 0;
        if !is_whole || most.is_some_and(|most| most > MOST_ROWS) {
            return Err(SnapshotError::Misfit(format!("no job has counted what {:?} has", function.name)));
        }
    }
    Ok(())
}

/// A state column; accumulators take any type, and panic later. Names inside of a type may differ.
fn state(rows: &RecordBatch, name: &str, data_type: &DataType) -> Result<ArrayRef, SnapshotError> {
    let found = column(rows, name)?;
    if !found.data_type().equals_datatype(data_type) {
        return Err(SnapshotError::Misfit(format!("its column {name:?} is {}, not {data_type}", found.data_type())));
    }
    Ok(Arc::clone(found))
}

fn watermark_table(watermark: i64) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = Schema::new(vec![Field::new(WATERMARK, DataType::Int64, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![watermark]))])
}
