//! A sink on an engine worker: batches go to the sink's thread (`runtime::sink`) in order, numbered from 1. The rights of a batch are kept until the plugin has
//! acknowledged it, so the feedback edge of every source sees what is not delivered; rows that the plugin refuses go to the node's `errors` output by the same rights.

use super::{
    align::{Aligner, Right},
    batch_bytes,
    chunk::{Item, Mark, Origin, Rows},
    guard::{Frontiers, Logic, earliest},
    input::{Inputs, Puller, Received},
    output::{Outputs, Rights},
};
use crate::{
    operator::OperatorError,
    runtime::{host::Deliveries, job::Job, sink::SinkCommand},
};
use arrow::{
    array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, new_null_array},
    compute::{cast, take},
    datatypes::SchemaRef,
    error::ArrowError,
};
use crossbeam_channel::Sender;
use standpipe_loader::Rejected;
use standpipe_pipeline::plan::NodeId;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// A batch that is not acknowledged.
struct Held {
    batch: RecordBatch,
    bytes: u64,
    origin: Option<Arc<Origin>>,
    rights: Rights,
}

/// What is not acknowledged, by sequence number.
#[derive(Default)]
pub(crate) struct Unacknowledged {
    batches: VecDeque<Held>,
    /// The sequence number of the first of them, less one.
    acknowledged: u64,
    /// Watermarks for the `errors` output, behind the batch of that number.
    marks: VecDeque<(u64, Mark, Rights)>,
}

/// See the module's documentation.
pub(crate) struct SinkHead {
    pub(crate) job: Arc<Job>,
    pub(crate) node: NodeId,
    pub(crate) subtask: u32,
    pub(crate) aligner: Aligner,
    /// `None` once `Finish` is sent.
    pub(crate) queue: Option<Sender<SinkCommand>>,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) finished: Arc<AtomicBool>,
    /// Set by the thread when it wakes this, cleared here before it looks.
    pub(crate) notified: Arc<AtomicBool>,
    pub(crate) pullers: Vec<Puller>,
    pub(crate) inputs: Inputs,
    pub(crate) unacknowledged: Unacknowledged,
    /// The `errors` output.
    pub(crate) errors: Outputs,
    /// The columns of `errors`, where something reads it.
    pub(crate) errors_schema: Option<SchemaRef>,
    pub(crate) ports: usize,
}

impl SinkHead {
    fn take(&mut self, edge: usize, right: &Right<'_>, items: Vec<Item>) -> Result<(), OperatorError> {
        let metrics = self.job.node_metrics(self.node);
        for item in items {
            match self.inputs.receive(edge, item)? {
                Received::Rows { rows, .. } if rows.batch.num_rows() > 0 => {
                    let bytes = batch_bytes(&rows.batch);
                    metrics.rows_in.add(self.subtask, rows.batch.num_rows() as u64);
                    metrics.bytes_in.add(self.subtask, bytes);
                    metrics.in_flight_bytes.fetch_add(bytes as i64, SeqCst);
                    if let Some(queue) = &self.queue {
                        // The thread is gone only when the job has failed.
                        drop(queue.send(SinkCommand::Write(rows.batch.clone())));
                    }
                    let rights = right.retain(self.ports);
                    self.unacknowledged.batches.push_back(Held { batch: rows.batch, bytes, origin: rows.origin, rights });
                }
                Received::Rows { .. } | Received::Mark { all: None, .. } => {}
                Received::Mark { all: Some(mark), .. } => {
                    metrics.set_event_time(self.subtask, mark.time, mark.idle, mark.holder.clone());
                    if self.errors_schema.is_some() {
                        let behind = self.unacknowledged.acknowledged + self.unacknowledged.batches.len() as u64;
                        self.unacknowledged.marks.push_back((behind, mark, right.retain(self.ports)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells the thread of every cut that is due, behind what is before it, and takes what is behind it.
    fn cut(&mut self, frontiers: Frontiers<'_>) -> Result<(), OperatorError> {
        while let Some(cut) = self.aligner.next_cut(frontiers) {
            if let Some(queue) = &self.queue {
                drop(queue.send(SinkCommand::Checkpoint(cut)));
            }
            while let Some((edge, items, rights)) = self.aligner.next_held() {
                self.take(edge, &Right::Kept(&rights), items)?;
            }
        }
        Ok(())
    }

    /// Acts on what the plugin has said since the last time.
    fn settle(&mut self) -> Result<(), OperatorError> {
        self.notified.store(false, SeqCst);
        let up_to = self.deliveries.acknowledged();
        let given = self.unacknowledged.acknowledged + self.unacknowledged.batches.len() as u64;
        if up_to > given {
            let message = format!("the sink acknowledged batch {up_to}, but {given} were given to it");
            return Err(OperatorError::Data { node: self.job.node(self.node).path.clone(), message });
        }
        for (seq, rejected) in self.deliveries.take_rejected() {
            self.reject(seq, &rejected)?;
        }
        let metrics = self.job.node_metrics(self.node);
        let state = &mut self.unacknowledged;
        while state.acknowledged < up_to
            && let Some(held) = state.batches.pop_front()
        {
            state.acknowledged += 1;
            metrics.rows_out.add(self.subtask, held.batch.num_rows() as u64);
            metrics.bytes_out.add(self.subtask, held.bytes);
            metrics.in_flight_bytes.fetch_sub(held.bytes as i64, SeqCst);
        }
        while let Some((_, mark, rights)) = state.marks.pop_front_if(|(behind, ..)| *behind <= state.acknowledged) {
            self.errors.mark(&mark);
            self.errors.flush(&rights);
        }
        Ok(())
    }

    /// Sends refused rows to the `errors` output.
    fn reject(&mut self, seq: u64, rejected: &[Rejected]) -> Result<(), OperatorError> {
        let metrics = self.job.node_metrics(self.node);
        metrics.broken_records.add(self.subtask, rejected.len() as u64);
        let index = seq.checked_sub(self.unacknowledged.acknowledged + 1).and_then(|i| usize::try_from(i).ok());
        let path = &self.job.node(self.node).path;
        let Some(held) = index.and_then(|i| self.unacknowledged.batches.get(i)) else {
            let message = format!("the sink refused rows of batch {seq}, which it has acknowledged or never got");
            return Err(OperatorError::Data { node: path.clone(), message });
        };
        let Some(schema) = &self.errors_schema else {
            metrics.unread_rows.add(self.subtask, rejected.len() as u64);
            return Ok(());
        };
        let batch = refused_rows(schema, &held.batch, rejected).map_err(|source| OperatorError::Arrow { node: path.clone(), source })?;
        self.errors.rows(self.node, 0, Rows { batch, origin: held.origin.clone() }, metrics)?;
        self.errors.flush(&held.rights);
        Ok(())
    }
}

/// The columns of `schema`: `reason` and `details` from the rejections, the others from the rows.
fn refused_rows(schema: &SchemaRef, batch: &RecordBatch, rejected: &[Rejected]) -> Result<RecordBatch, ArrowError> {
    let rows: UInt32Array = rejected.iter().map(|r| r.row).collect();
    if let Some(row) = rejected.iter().map(|r| r.row).find(|row| *row as usize >= batch.num_rows()) {
        return Err(ArrowError::InvalidArgumentError(format!("the sink refused row {row} of a batch of {}", batch.num_rows())));
    }
    let text = |of: fn(&Rejected) -> &str| Arc::new(rejected.iter().map(|r| Some(of(r))).collect::<StringArray>()) as ArrayRef;
    let column = |field: &arrow::datatypes::FieldRef| {
        let column = match (field.name().as_str(), batch.column_by_name(field.name())) {
            (_, Some(column)) => take(column, &rows, None)?,
            ("reason", None) => text(|r| &r.reason),
            ("details", None) => text(|r| &r.details),
            (_, None) => new_null_array(field.data_type(), rejected.len()),
        };
        if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

impl Logic for SinkHead {
    fn run(&mut self, frontiers: Frontiers<'_>) -> Result<bool, OperatorError> {
        let mut pullers = std::mem::take(&mut self.pullers);
        let mut result = Ok(());
        for (edge, pull) in pullers.iter_mut().enumerate() {
            pull(&mut |right, chunk| {
                if result.is_ok() && !self.aligner.hold(edge, &right, &mut chunk.0, self.ports) {
                    result = self.take(edge, &Right::Lent(&right), std::mem::take(&mut chunk.0));
                }
            });
        }
        self.pullers = pullers;
        result?;
        self.cut(frontiers)?;
        self.settle()?;
        if earliest(frontiers).is_none()
            && let Some(queue) = self.queue.take()
        {
            drop(queue.send(SinkCommand::Finish));
        }
        Ok(!self.finished.load(SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{AsArray, Int64Array},
        datatypes::{DataType, Field, Int64Type, Schema},
    };

    #[test]
    fn refused_rows_keep_their_columns_and_say_why() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![10, 11, 12])) as ArrayRef)]).unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("reason", DataType::Utf8, false),
            Field::new("details", DataType::Utf8, true),
            Field::new("unknown", DataType::Float64, true),
        ]));
        let refused = |row| Rejected { row, reason: format!("no {row}"), details: "{}".to_owned() };
        let errors = refused_rows(&schema, &batch, &[refused(2), refused(0)]).unwrap();
        assert_eq!(errors.column(0).as_primitive::<Int64Type>().values(), &[12, 10]);
        assert_eq!(errors.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["no 2", "no 0"]);
        assert_eq!(errors.column(3).null_count(), 2);
        assert!(refused_rows(&schema, &batch, &[refused(3)]).unwrap_err().to_string().contains("row 3 of a batch of 3"));
    }
}
