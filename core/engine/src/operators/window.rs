//! Keyed tumbling windows on event time: rows gather in panes (one per window), a pane fires once and is gone.
//!
//! - A pane fires when the watermark reaches its end plus the allowed lateness: output stays append, and a row that comes within the lateness is in it. Lateness
//!   therefore delays results, and the watermark behind this operator by as much ([`Operator::watermark_delay`]), so that a window behind it loses nothing.
//! - A row whose pane has fired is late: it goes to output 1 with its columns, in arrival order. So does a row without event time, or with one so far out that no
//!   window can hold it. Windows and late rows together are every input row.
//! - Output: keys, `window_start`, `window_end`, aggregates, in batches of the plan's size. Order: by window, in a window by the first arrival of the key (after a restore: by the order in which
//!   the former subtasks are given, then as it was).
//!
//! A pane (`pane`) has DataFusion's `GroupsAccumulator`s over its own key index: both are dropped when it fires, so nothing of a key that no longer comes stays.
//!
//! Snapshot: the table `panes` (one row per pane and key: `key_group`, `key`, `window_start`, then each aggregate's state columns, named `AGGREGATE.n`), and
//! `watermark`. The accumulators give their state only by being emptied, so a snapshot merges it back into new ones: it costs about as much as adding that many rows.

use super::{arrow_error, data_error, stateless::evaluate};
use crate::operator::{END, Emitter, Micros, NO_WATERMARK, Operator, OperatorError, Snapshot};
use arrow::{
    array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array},
    compute::{cast, take, take_record_batch},
    datatypes::{Fields, SchemaRef},
};
use datafusion_physical_expr::PhysicalExpr;
use pane::{Pane, WindowFunction};
use routes::Routes;
use standpipe_pipeline::plan::{JobSettings, WindowAssigner, WindowNode};
use standpipe_state::{Cut, EncodedKeys, KeyGroupRange};
use std::{collections::BTreeMap, sync::Arc};
use time::{Tumbling, event_times};

mod extreme;
#[cfg(test)]
mod extreme_tests;
#[cfg(test)]
mod one_key;
mod pane;
mod routes;
mod snapshot;
mod sum;
#[cfg(test)]
mod sum_tests;
#[cfg(test)]
mod tests;
mod time;

const LATE: u32 = 1;
/// Keys that a new pane reserves room for at most.
const MOST_RESERVED: usize = 64 << 10;

/// See the module's documentation.
pub struct Window {
    node: String,
    max_parallelism: u32,
    /// Rows of a batch that a pane gives.
    batch_rows: usize,
    keys: Vec<usize>,
    key_fields: Fields,
    time: usize,
    windows: Tumbling,
    lateness: Micros,
    functions: Vec<WindowFunction>,
    /// The arguments of all functions, one behind the other.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    output: SchemaRef,
    /// By start, in the unit of the event time column.
    panes: BTreeMap<i64, Pane>,
    watermark: Micros,
    encoded: EncodedKeys,
    routes: Routes,
}

impl Window {
    /// `input` is the schema of what it reads, `output` of its main output.
    ///
    /// # Errors
    /// When a column or an aggregate cannot be used.
    pub fn new(path: &str, node: &WindowNode, input: &SchemaRef, output: SchemaRef, settings: &JobSettings) -> Result<Self, OperatorError> {
        let refused = |message: String| data_error(path, message);
        let key_fields: Fields = node.keys.iter().map(|key| input.fields()[*key].clone()).collect();
        let WindowAssigner::Tumbling { size, offset } = &node.assigner;
        let windows = Tumbling::new(*size, *offset, input.field(node.time).data_type()).map_err(refused)?;
        let mut arguments = Vec::new();
        let mut functions = Vec::with_capacity(node.aggregates.len());
        for aggregate in &node.aggregates {
            let expressions = aggregate.function.expressions();
            let range = arguments.len()..arguments.len() + expressions.len();
            arguments.extend(expressions);
            functions.push(WindowFunction {
                name: aggregate.name.clone(),
                function: Arc::clone(&aggregate.function),
                arguments: range,
                state: aggregate.state.clone(),
            });
        }
        let window = Self {
            node: path.to_owned(),
            max_parallelism: settings.max_parallelism,
            batch_rows: settings.batch_rows.max(1) as usize,
            keys: node.keys.clone(),
            key_fields,
            time: node.time,
            windows,
            lateness: Micros::try_from(node.allowed_lateness.as_micros()).unwrap_or(Micros::MAX),
            functions,
            arguments,
            output,
            panes: BTreeMap::new(),
            watermark: NO_WATERMARK,
            encoded: EncodedKeys::new(),
            routes: Routes::default(),
        };
        // What cannot work fails now, not at the first row.
        window.pane(0)?;
        Ok(window)
    }

    fn pane(&self, keys: usize) -> Result<Pane, OperatorError> {
        Pane::new(&self.key_fields, &self.functions, keys).map_err(|error| error.at(&self.node))
    }

    /// Whether the window that begins at `start` has fired.
    fn has_fired(&self, start: i64) -> bool {
        self.watermark == END || self.windows.end_micros(start).saturating_add(self.lateness) <= self.watermark
    }

    /// Sorts the rows of a batch into panes and late ones.
    fn route(&mut self, times: &[i64], valid: impl Fn(usize) -> bool) {
        let mut routes = std::mem::take(&mut self.routes);
        routes.clear();
        // The window of the row before, which is most often that of the next.
        let mut current: Option<(i64, i64, Option<usize>)> = None;
        for (row, time) in times.iter().enumerate() {
            let place = match current {
                Some((start, end, place)) if valid(row) && (start..end).contains(time) => place,
                _ => match self.windows.of(*time).filter(|_| valid(row)) {
                    None => None,
                    Some((start, end)) => {
                        let place = (!self.has_fired(start)).then(|| routes.place(start));
                        current = Some((start, end, place));
                        place
                    }
                },
            };
            match place {
                Some(place) => routes.rows(place).push(row as u32),
                None => routes.late.push(row as u32),
            }
        }
        self.routes = routes;
    }

    /// The pane of all rows, where they have one that has not fired.
    fn only_pane(&self, times: &[i64], nulls: usize) -> Option<i64> {
        if nulls > 0 {
            return None;
        }
        let (lowest, highest) = times.iter().fold((i64::MAX, i64::MIN), |(low, high), time| (low.min(*time), high.max(*time)));
        let (start, end) = self.windows.of(lowest)?;
        (highest < end && !self.has_fired(start)).then_some(start)
    }

    /// How many keys a new pane is likely to have: as many as the one before it, if time just goes on. Panes of stray rows have few.
    fn likely_keys(&self, start: i64) -> usize {
        let newest = self.panes.last_key_value().filter(|(newest, _)| **newest < start);
        newest.map_or(0, |(_, pane)| pane.keys().min(MOST_RESERVED))
    }

    fn add(&mut self, start: i64, rows: Option<&[u32]>, arguments: &[ArrayRef]) -> Result<(), OperatorError> {
        if !self.panes.contains_key(&start) {
            self.panes.insert(start, self.pane(self.likely_keys(start))?);
        }
        let Some(pane) = self.panes.get_mut(&start) else { return Ok(()) };
        pane.add(&self.functions, &self.encoded, rows, arguments).map_err(|error| error.at(&self.node))
    }

    /// Gives a pane's results, never all of them in one batch: there may be more than its columns can hold.
    fn fire(&self, start: i64, pane: Pane, out: &mut Emitter) -> Result<(), OperatorError> {
        let fired = pane.finish().map_err(|error| error.at(&self.node))?;
        for first in (0..fired.rows()).step_by(self.batch_rows) {
            let rows = first..fired.rows().min(first + self.batch_rows);
            let times = [start, self.windows.end(start)].map(|time| Arc::new(Int64Array::from(vec![time; rows.len()])) as ArrayRef);
            let (mut columns, aggregates) = fired.slice(rows).map_err(|error| data_error(&self.node, error))?;
            columns.extend(times.into_iter().chain(aggregates));
            let typed =
                columns.into_iter().zip(self.output.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
                    true => Ok(column),
                    false => cast(&column, field.data_type()),
                });
            let batch = typed.collect::<Result<_, _>>().and_then(|columns| RecordBatch::try_new(Arc::clone(&self.output), columns));
            out.emit(0, batch.map_err(|source| arrow_error(&self.node, source))?);
        }
        Ok(())
    }

    /// Adds the rows of a batch to the panes that they were sorted into, and gives the late ones.
    fn add_routed(&mut self, batch: &RecordBatch, arguments: &[ArrayRef], out: &mut Emitter) -> Result<(), OperatorError> {
        let mut routes = std::mem::take(&mut self.routes);
        for (start, rows) in &mut routes.panes {
            // The list is lent to an array, and comes back.
            let indices = UInt32Array::from(std::mem::take(rows));
            let taken = arguments.iter().map(|argument| take(argument, &indices, None)).collect::<Result<Vec<_>, _>>();
            self.add(*start, Some(&indices.values()[..]), &taken.map_err(|source| arrow_error(&self.node, source))?)?;
            *rows = indices.into_parts().1.into();
        }
        if !routes.late.is_empty() {
            let indices = UInt32Array::from(std::mem::take(&mut routes.late));
            out.emit(LATE, take_record_batch(batch, &indices).map_err(|source| arrow_error(&self.node, source))?);
            routes.late = indices.into_parts().1.into();
        }
        self.routes = routes;
        Ok(())
    }
}

impl Operator for Window {
    fn on_batch(&mut self, _: u32, batch: RecordBatch, out: &mut Emitter) -> Result<(), OperatorError> {
        let column = Arc::clone(batch.column(self.time));
        let times = event_times(&column)
            .ok_or_else(|| data_error(&self.node, format!("the event time is {}, not a timestamp", column.data_type())))?;
        let only = self.only_pane(times, column.null_count());
        if only.is_none() {
            self.route(times, |row| column.is_valid(row));
            if self.routes.panes.is_empty() {
                out.emit(LATE, batch);
                return Ok(());
            }
        }
        let keys: Vec<ArrayRef> = self.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
        self.encoded.encode(&keys, batch.num_rows()).map_err(|error| data_error(&self.node, error))?;
        let arguments: Vec<ArrayRef> =
            self.arguments.iter().map(|argument| evaluate(&self.node, argument, &batch)).collect::<Result<_, _>>()?;
        if let Some(start) = only {
            return self.add(start, None, &arguments);
        }
        self.add_routed(&batch, &arguments, out)
    }

    fn on_watermark(&mut self, _: u32, watermark: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        self.watermark = self.watermark.max(watermark);
        while let Some((start, _)) = self.panes.first_key_value() {
            if !self.has_fired(*start) {
                break;
            }
            if let Some((start, pane)) = self.panes.pop_first() {
                self.fire(start, pane, out)?;
            }
        }
        Ok(())
    }

    fn watermark_delay(&self) -> Micros {
        self.lateness
    }

    fn snapshot(&mut self, _: Cut) -> Result<Snapshot, OperatorError> {
        self.take_snapshot().map_err(|error| error.at(&self.node))
    }

    fn restore(&mut self, parts: &[Snapshot], owned: KeyGroupRange) -> Result<(), OperatorError> {
        parts.iter().try_for_each(|part| self.restore_part(part, owned)).map_err(|error| error.at(&self.node))
    }
}
