//! Transforms: batches in, batches out through `emit`. One task thread per (node, subtask) calls them; batches, watermarks, timers and cuts reach
//! them by one queue, in order. Keyed transforms get a [`KeyContext`] with each batch.
//!
//! # Calls that are answered later
//! A transform that waits for something outside declares `async` in `validate` (`ValidationDetails`); where the node is not keyed, `process` then comes with a `token`, unique
//! in the instance and not 0, and may answer [`Status::PENDING`]. The host goes on with further batches, watermarks among them, up to a bound of calls that the pipeline sets.
//! - By the token the plugin emits, and then completes the call, both from any thread, also before `process` has returned. What it emits is taken if the call completes with OK,
//!   behind what `process` itself emitted with token 0. A call that completes with an error fails the node.
//! - Results go on in the order of their batches, or of their completion, as the pipeline says; a watermark, a cut and the end of an input are behind all calls before them.
//! - `on_watermark` may come while calls are pending; what it emits goes on behind them. Before `snapshot` and `finish` the host calls `drain` and waits: then nothing is pending.
//! - A call ends once. A token that the host did not give, or whose call has ended, is refused: after `complete`, after `process` answered anything but PENDING, and after
//!   `destroy`. One that was used in a `process` that then answers OK breaks the contract.
//! - A call that is pending for too long fails the node. Cancelled, the host waits for no call: `close` and `destroy` come with calls pending.

use crate::{
    arrow_c::Batch,
    error::{Error, Status},
    host::{Context, HostTable},
    state::KeyContext,
    validate::ValidateFn,
    value::{Buffer, Slice},
};
use std::ffi::c_void;

/// Due timers: `times[i]` and `slots[i]` belong to `key_of_row[i]` of the call's [`KeyContext`]. In time order per key.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct DueTimers {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// `TIMER_EVENT_TIME` or `TIMER_PROCESSING_TIME` of [`crate::state`].
    pub domain: u32,
    /// The transform's own numbers.
    pub slots: *const u32,
    /// Microseconds since the epoch.
    pub times: *const i64,
    /// Timers.
    pub count: usize,
}

/// `transform/1`.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct TransformTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`ValidateFn`].
    pub validate: ValidateFn,
    /// Makes an instance; no I/O yet. The host table lives until `destroy`.
    pub create: unsafe extern "C" fn(
        config: Slice,
        context: *const Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut Error,
    ) -> Status,
    /// Gets ready, with the inputs as they were validated (the same pointer layout as in `validate`).
    pub open: unsafe extern "C" fn(instance: *mut c_void, input: *const crate::validate::ValidationInput, error: *mut Error) -> Status,
    /// Takes a batch of an input; it is moved. `keys` is null where the node is not keyed. [`Status::PENDING`]: `complete(token)` will follow; not where `token` is 0, that
    /// is in a keyed node, and of a transform that has not declared `async`.
    pub process: unsafe extern "C" fn(
        instance: *mut c_void,
        input: u32,
        batch: *mut Batch,
        keys: *const KeyContext,
        token: u64,
        error: *mut Error,
    ) -> Status,
    /// Timers that are due, after all rows that precede the watermark and after `on_watermark`, so that the transform knows the time.
    pub on_timer:
        unsafe extern "C" fn(instance: *mut c_void, timers: *const DueTimers, keys: *const KeyContext, error: *mut Error) -> Status,
    /// The watermark of an input has advanced to `time`, microseconds since the epoch; `i64::MAX` at the end. Calls before it may be pending.
    pub on_watermark: unsafe extern "C" fn(instance: *mut c_void, input: u32, time: i64, error: *mut Error) -> Status,
    /// The host is about to wait for all pending calls, before the cut of that checkpoint, or before an input's `finish` (0): what the plugin has put off is to be begun
    /// now. It need not wait itself, and may not emit with token 0. Of a transform that has declared `async`.
    pub drain: unsafe extern "C" fn(instance: *mut c_void, checkpoint: u64, error: *mut Error) -> Status,
    /// What an unkeyed transform must remember; nothing is pending.
    pub snapshot: unsafe extern "C" fn(instance: *mut c_void, out: *mut Buffer, error: *mut Error) -> Status,
    /// Goes on from the snapshots of one or more former subtasks; before the first batch.
    pub restore: unsafe extern "C" fn(instance: *mut c_void, parts: *const Slice, count: usize, error: *mut Error) -> Status,
    /// That input has ended; nothing is pending.
    pub finish: unsafe extern "C" fn(instance: *mut c_void, input: u32, error: *mut Error) -> Status,
    /// Ends it; `reason` is one of the `CLOSE_` constants of [`crate::host`]. Calls may be pending, if the job was cancelled or has failed: their results are not wanted.
    pub close: unsafe extern "C" fn(instance: *mut c_void, reason: u32, error: *mut Error) -> Status,
    /// Frees the instance, called once and last, also after a panic: the SDK then leaks the author's value, which may be in any state.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}
