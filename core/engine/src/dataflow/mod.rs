//! The plan as a timely dataflow: one operator per chain and worker, built at run time in the same order on every worker (`build`). A chain's head is a source, an
//! operator that runs on the worker, a plugin's task or a sink (`source`, `operator`, `task`, `sink`); behind it are fused steps and edges (`tail`, `output`), before
//! it the edges that it reads (`input`); `align` holds back what is behind a checkpoint's cut, `progress` is what sources report to it, `follower` stands where
//! a source has no subtask. What travels is in `chunk`, when in `time`, how much at once in `budget`.
//!
//! Only this module and `runtime::worker` name timely. Nothing here blocks: what may block is on a thread of `runtime`.

mod alarm;
mod align;
mod aligned;
pub(crate) mod budget;
pub(crate) mod build;
pub(crate) mod chunk;
mod follower;
mod guard;
mod input;
mod operator;
mod output;
mod progress;
mod sink;
mod source;
mod tail;
mod task;
pub(crate) mod time;
mod wire;

use arrow::array::{Array, RecordBatch};

/// Bytes of a batch's rows; buffers that it shares with other slices count with its own part.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> u64 {
    let bytes =
        |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    batch.columns().iter().map(|column| bytes(column) as u64).sum()
}
