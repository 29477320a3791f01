//! What the host gives to every instance: its place in the job ([`Context`]) and the host's services ([`HostTable`]).

use crate::{
    arrow_c::{Batch, Rejection},
    error::{Error, Status},
    value::{Buffer, Slice},
};
use std::ffi::c_void;

/// Where an instance runs. Valid for the `create` call only: an instance copies what it keeps.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Context {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// This subtask, from 0.
    pub subtask: u32,
    /// Subtasks of the node.
    pub parallelism: u32,
    /// Key groups of the job.
    pub max_parallelism: u32,
    /// How often the job has been started, from 1: fences what an earlier start left behind.
    pub generation: u64,
    /// 1 if the job starts from a checkpoint.
    pub restored: u32,
    /// Zero.
    pub reserved: u32,
    /// 32 hexadecimal digits.
    pub job_id: Slice,
    /// The pipeline's `name`.
    pub job_name: Slice,
    /// The node's name in the pipeline.
    pub node: Slice,
}

/// `log` levels: as `tracing`'s, from [`LOG_ERROR`] = 1 to [`LOG_TRACE`] = 5.
pub const LOG_ERROR: u32 = 1;
/// Something that an operator should look at.
pub const LOG_WARN: u32 = 2;
/// Something worth knowing once.
pub const LOG_INFO: u32 = 3;
/// For whoever debugs the plugin.
pub const LOG_DEBUG: u32 = 4;
/// Everything.
pub const LOG_TRACE: u32 = 5;

/// `metric_register` types: a counter only grows; `metric_update` adds to it.
pub const METRIC_COUNTER: u32 = 1;
/// A gauge: `metric_update` sets it.
pub const METRIC_GAUGE: u32 = 2;
/// A histogram: `metric_update` records a value.
pub const METRIC_HISTOGRAM: u32 = 3;

/// The host's services for one instance. Every function may be called from any thread of the plugin while the instance lives, unless it says otherwise;
/// none blocks. What a thread of the plugin calls after `destroy` is refused, or does nothing: the table and `ctx` stay valid as long as the process.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct HostTable {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// Minor version of the contract that the host speaks.
    pub abi_minor: u32,
    /// Passed to every function.
    pub ctx: *mut c_void,
    /// Logs a JSON object with at least `message`; other members become fields.
    pub log: unsafe extern "C" fn(ctx: *mut c_void, level: u32, json: Slice),
    /// Registers a metric once and gives its id. `labels` is a JSON object of strings. The same name and labels give the same id.
    pub metric_register: unsafe extern "C" fn(ctx: *mut c_void, name: Slice, metric_type: u32, labels: Slice) -> u64,
    /// Adds to, sets or records, by the metric's type.
    pub metric_update: unsafe extern "C" fn(ctx: *mut c_void, id: u64, value: f64),
    /// 1 once the host wants a call that blocks to return with [`crate::ErrorCode::CANCELLED`].
    pub cancelled: unsafe extern "C" fn(ctx: *mut c_void) -> u32,
    /// Something has changed (data has come, there is room again): the host calls the instance again soon.
    pub wake: unsafe extern "C" fn(ctx: *mut c_void),
    /// The value behind a secret's reference in the configuration and the version of that value, which changes when it rotates.
    pub secret:
        unsafe extern "C" fn(ctx: *mut c_void, reference: Slice, value: *mut Buffer, version: *mut u64, error: *mut Error) -> Status,
    /// A transform gives a batch to the output of that index (0 is the main one). The batch is moved. With `token` 0 only inside a call; it takes effect when the call
    /// returns OK. With the token of a `process` that is pending, or has not returned, from any thread until `complete`; it takes effect when the call completes with OK.
    pub emit: unsafe extern "C" fn(ctx: *mut c_void, output: u32, batch: *mut Batch, token: u64, error: *mut Error) -> Status,
    /// The pending call of that token has ended, with OK or with a failure (`error` is moved out and left empty; null means none). Not OK: it was not waited for, because the
    /// token is unknown, its call has ended, or the instance has.
    pub complete: unsafe extern "C" fn(ctx: *mut c_void, token: u64, status: Status, error: *mut Error) -> Status,
    /// A sink has delivered every batch up to `seq`, that included: at least as safely as its declared guarantee asks without a commit.
    pub ack: unsafe extern "C" fn(ctx: *mut c_void, up_to_seq: u64),
    /// A sink refuses these rows of the batch `seq` for good, before it acknowledges `seq`. They go to the sink's `errors` output.
    pub reject: unsafe extern "C" fn(ctx: *mut c_void, seq: u64, rows: *const Rejection, count: usize, error: *mut Error) -> Status,
    /// Processing time, microseconds since the Unix epoch. A test or a replay may set it.
    pub now: unsafe extern "C" fn(ctx: *mut c_void) -> i64,
}

// SAFETY: by contract every function may be called from any thread.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

/// Why an instance is closed.
pub const CLOSE_FINISHED: u32 = 0;
/// The user cancelled or stopped the job.
pub const CLOSE_STOPPED: u32 = 1;
/// The job failed; what is unfinished is not wanted.
pub const CLOSE_FAILED: u32 = 2;
