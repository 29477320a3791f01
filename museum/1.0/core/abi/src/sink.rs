//! Sinks: batches with sequence numbers in, acknowledgements out, and the steps of a checkpoint. A sink runs on a thread of its own and may block, watching
//! `cancelled`.

use crate::{
    arrow_c::Batch,
    error::{Error, Status},
    host::{Context, HostTable},
    validate::{ValidateFn, ValidationInput},
    value::{Buffer, Slice},
};
use std::ffi::c_void;

/// What a sink prepared for a checkpoint. Frozen: it is passed in arrays.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Committable {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The subtask that prepared it.
    pub subtask: u32,
    /// Zero.
    pub reserved: u32,
    /// Opaque to the host.
    pub bytes: Slice,
}

/// `recover`'s answer: it was committed before the failure.
pub const RECOVER_COMMITTED: u32 = 0;
/// `recover`'s answer: it must be committed now.
pub const RECOVER_COMMIT: u32 = 1;
/// `recover`'s answer: it is gone, and was not committed. The host ends the start and says that an earlier checkpoint must be restored.
pub const RECOVER_LOST: u32 = 2;

/// `sink/1`.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct SinkTable {
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
    /// Connects, with the input as it was validated.
    pub open: unsafe extern "C" fn(instance: *mut c_void, input: *const ValidationInput, error: *mut Error) -> Status,
    /// Takes a batch; sequence numbers count from 1 without gaps. It is moved, unless the answer is [`Status::BUSY`]: then the host tries the same batch again
    /// after `wake`.
    pub write: unsafe extern "C" fn(instance: *mut c_void, seq: u64, batch: *mut Batch, error: *mut Error) -> Status,
    /// Returns when all that was written is delivered and acknowledged (at least once); `checkpoint` is 0 outside a checkpoint.
    pub flush: unsafe extern "C" fn(instance: *mut c_void, checkpoint: u64, error: *mut Error) -> Status,
    /// Makes all that was written since the last `prepare` ready to be committed, and says what `commit` needs for it.
    pub prepare: unsafe extern "C" fn(instance: *mut c_void, checkpoint: u64, out: *mut Buffer, error: *mut Error) -> Status,
    /// The checkpoint is durable: commits all that was prepared up to it. Idempotent.
    pub commit: unsafe extern "C" fn(
        instance: *mut c_void,
        up_to: u64,
        committables: *const Committable,
        count: usize,
        error: *mut Error,
    ) -> Status,
    /// After a restart: what became of these? `decisions` has room for `count` answers.
    pub recover: unsafe extern "C" fn(
        instance: *mut c_void,
        committables: *const Committable,
        count: usize,
        decisions: *mut u32,
        error: *mut Error,
    ) -> Status,
    /// Gives up what was prepared for checkpoints that the job does not go on from; behind `recover`, and only if there is something. It may have been committed.
    pub abort: unsafe extern "C" fn(instance: *mut c_void, committables: *const Committable, count: usize, error: *mut Error) -> Status,
    /// All inputs have ended: delivers everything and ends cleanly (a file gets its final name).
    pub finish: unsafe extern "C" fn(instance: *mut c_void, error: *mut Error) -> Status,
    /// Ends it; `reason` is one of the `CLOSE_` constants of [`crate::host`].
    pub close: unsafe extern "C" fn(instance: *mut c_void, reason: u32, error: *mut Error) -> Status,
    /// Frees the instance, called once and last, also after a panic: the SDK then leaks the author's value, which may be in any state.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}
