//! The engine: runs a plan. [`run`] starts a job in this process and gives a [`JobHandle`]; everything else is how.
//!
//! ```text
//! runtime/     the threads of a job: engine workers, readers, sinks, tasks, the ticker; how it stops and why it failed; its metrics
//! cluster/     the processes of a job: how they find each other, what they say to each other
//! dataflow/    the plan as a timely dataflow on each worker: edges, watermarks, byte budgets, the right to send
//! operators/   what the nodes do with batches and time ([`operator::Operator`]): no threads, no clocks, no timely
//! watermark, exchange    the two ends of event time, and routing by key
//! alignment    how far aligned sources have come together
//! ```
//!
//! Data moves one way: reader thread -> source operator (decode, watermarks, fused steps) -> exchange -> operators and task threads -> sink operator -> sink thread.
//! What a sink acknowledges moves back as progress, and lets the sources go on. The host calls; plans come from `standpipe-pipeline`, plugins from `standpipe-loader`.
#![forbid(unsafe_code)]

mod alignment;
mod cluster;
mod dataflow;
pub mod exchange;
pub mod operator;
pub mod operators;
mod runtime;
mod watermark;

pub use cluster::{Cluster, ClusterError, Identity, Membership, Secret};
pub use runtime::{
    Cause, CheckpointOptions, CheckpointTotals, Counter, Drift, ErrorClass, JobControl, JobError, JobHandle, JobReport, JobState, Keep,
    LastCheckpoint, Metrics, NodeMetrics, Outcome, PastCheckpoint, PendingSavepoint, Position, Role, RunOptions, Sample, SavepointError,
    Secrets, SplitLag, Step, Tap, TapError, Tapped, Totals, Value, check_restore, other_plugins, run,
};
