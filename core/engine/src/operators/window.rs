//! Keyed tumbling windows on event time: rows gather in panes (one per window), a pane fires once and is gone.
//!
//! - A pane fires when the watermark reaches its end plus the allowed lateness: output stays append, and a row that comes within the lateness is in it. Lateness
//!   therefore delays results, and the watermark behind this operator by as much ([`Operator::watermark_delay`]), so that a window behind it loses nothing.
//! - A row whose pane has fired is late: it goes to output 1 with its columns, in arrival order. So does a row without event time, or with one so far out that no
//!   window can hold it. Windows and late rows together are every input row.
//! - Output: keys, `window_start`, `window_end`, aggregates. Order: by window, in a window by the first arrival of the key (after a restore: by the order in which
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
use standpipe_pipeline::plan::{WindowAssigner, WindowNode};
use standpipe_state::{EncodedKeys, KeyGroupRange};
use std::{collections::BTreeMap, sync::Arc};
use time::{Tumbling, event_times};

mod pane;
mod snapshot;
mod sum;
#[cfg(test)]
mod sum_tests;
#[cfg(test)]
mod tests;
mod time;

const LATE: u32 = 1;

/// See the module's documentation.
pub struct Window {
    node: String,
    max_parallelism: u32,
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

/// Which rows of a batch go where. Its memory is kept.
#[derive(Default)]
struct Routes {
    /// Starts of the panes that take rows, with their rows.
    panes: Vec<(i64, Vec<u32>)>,
    late: Vec<u32>,
    spare: Vec<Vec<u32>>,
}

impl Routes {
    fn clear(&mut self) {
        self.late.clear();
        self.spare.extend(self.panes.drain(..).map(|(_, mut rows)| {
            rows.clear();
            rows
        }));
    }

    /// The place of a pane's list; the batch's last pane is the likely one.
    fn place(&mut self, start: i64) -> usize {
        if let Some(at) = self.panes.iter().rposition(|(known, _)| *known == start) {
            return at;
        }
        self.panes.push((start, self.spare.pop().unwrap_or_default()));
        self.panes.len() - 1
    }
}

impl Window {
    /// `input` is the schema of what it reads, `output` of its main output.
    ///
    /// # Errors
    /// When a column or an aggregate cannot be used.
    pub fn new(path: &str, node: &WindowNode, input: &SchemaRef, output: SchemaRef, max_parallelism: u32) -> Result<Self, OperatorError> {
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
            functions.push(WindowFunction { name: aggregate.name.clone(), function: Arc::clone(&aggregate.function), arguments: range });
        }
        let window = Self {
            node: path.to_owned(),
            max_parallelism,
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
                Some(place) => routes.panes[place].1.push(row as u32),
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

    fn add(&mut self, start: i64, rows: Option<&[u32]>, arguments: &[ArrayRef]) -> Result<(), OperatorError> {
        if !self.panes.contains_key(&start) {
            let keys = self.panes.values().next_back().map_or(0, Pane::keys);
            self.panes.insert(start, self.pane(keys)?);
        }
        let Some(pane) = self.panes.get_mut(&start) else { return Ok(()) };
        pane.add(&self.functions, &self.encoded, rows, arguments).map_err(|error| error.at(&self.node))
    }

    fn fire(&mut self, start: i64, mut pane: Pane, out: &mut Emitter) -> Result<(), OperatorError> {
        let fired = pane.finish().map_err(|error| error.at(&self.node))?;
        let rows = fired.rows;
        let mut columns = fired.keys;
        columns.push(Arc::new(Int64Array::from(vec![start; rows])));
        columns.push(Arc::new(Int64Array::from(vec![self.windows.end(start); rows])));
        columns.extend(fired.aggregates);
        let typed = columns.iter().zip(self.output.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        });
        let batch = typed.collect::<Result<_, _>>().and_then(|columns| RecordBatch::try_new(Arc::clone(&self.output), columns));
        out.emit(0, batch.map_err(|source| arrow_error(&self.node, source))?);
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
        let routes = std::mem::take(&mut self.routes);
        for (start, rows) in &routes.panes {
            let indices = UInt32Array::from(rows.clone());
            let taken = arguments.iter().map(|argument| take(argument, &indices, None)).collect::<Result<Vec<_>, _>>();
            self.add(*start, Some(rows), &taken.map_err(|source| arrow_error(&self.node, source))?)?;
        }
        if !routes.late.is_empty() {
            let late = take_record_batch(&batch, &UInt32Array::from(routes.late.clone()));
            out.emit(LATE, late.map_err(|source| arrow_error(&self.node, source))?);
        }
        self.routes = routes;
        Ok(())
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

    fn snapshot(&mut self) -> Result<Snapshot, OperatorError> {
        self.take_snapshot().map_err(|error| error.at(&self.node))
    }

    fn restore(&mut self, parts: &[Snapshot], owned: KeyGroupRange) -> Result<(), OperatorError> {
        parts.iter().try_for_each(|part| self.restore_part(part, owned)).map_err(|error| error.at(&self.node))
    }
}
