//! Sources: one enumerator per job finds splits (files, partitions); readers, one per subtask, read those they are assigned.
//! Both run on threads of their own and may block up to the deadline that they are given.

use crate::{
    arrow_c::Batch,
    error::{Error, Status},
    host::{Context, HostTable},
    validate::ValidateFn,
    value::{Buffer, Slice},
};
use std::ffi::c_void;

/// No watermark hint.
pub const NO_WATERMARK: i64 = i64::MIN;

/// A split and where to start in it. Frozen: it is passed in arrays; what a later version has to say goes to `details`.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct SplitPosition {
    /// The split's id, unique in the source and the same in every run: `data/a.jsonl`, `topic-3`.
    pub split: Slice,
    /// What the enumerator said about it besides, JSON; may be empty.
    pub details: Slice,
    /// The position after the last row taken; empty: the beginning as the configuration says. Opaque to the host, best as text: checkpoints show it.
    pub position: Slice,
}

/// What `poll` found. The slices stay valid until the next call on the instance.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Polled {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// The split that the rows are of, or that has ended.
    pub split: Slice,
    /// The host's place for the rows, all of this split: the plugin fills it. No rows: the split has been read up to where it ends now, and has nothing more at present.
    pub batch: *mut Batch,
    /// The position after these rows.
    pub position: Slice,
    /// A lower bound for the event times of what follows in this split, microseconds since the epoch, or [`NO_WATERMARK`].
    pub watermark: i64,
}

impl Polled {
    /// An empty one, as the host passes it, with the place for the rows.
    #[must_use]
    pub const fn empty(batch: *mut Batch) -> Self {
        Self { size: size_of::<Self>() as u32, reserved: 0, split: Slice::EMPTY, batch, position: Slice::EMPTY, watermark: NO_WATERMARK }
    }
}

/// `source/1`: validation and the reader.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct SourceTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`ValidateFn`].
    pub validate: ValidateFn,
    /// Makes a reader; no I/O yet. The host table lives until `destroy`.
    pub create: unsafe extern "C" fn(
        config: Slice,
        context: *const Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut Error,
    ) -> Status,
    /// Connects.
    pub open: unsafe extern "C" fn(instance: *mut c_void, error: *mut Error) -> Status,
    /// Adds splits to those that are read.
    pub assign: unsafe extern "C" fn(instance: *mut c_void, splits: *const SplitPosition, count: usize, error: *mut Error) -> Status,
    /// Gives splits back. `positions` is a JSON array of `{"split": ..., "position": ...}`, in the order of `ids`, the positions in base64.
    pub unassign:
        unsafe extern "C" fn(instance: *mut c_void, ids: *const Slice, count: usize, positions: *mut Buffer, error: *mut Error) -> Status,
    /// Reads at most `max_rows` rows and about `max_bytes` bytes of one split; waits for data until `deadline` (as `now`) at the longest.
    /// OK: a batch. One without rows says that the named split has been read up to where it ends now and has nothing more at present, so that it holds up no
    /// watermark until it has rows again; [`Status::IDLE`] says so of all assigned splits.
    /// [`Status::END_OF_SPLIT`]: the named split has been read to its end for good, and `poll` will not name it again.
    pub poll: unsafe extern "C" fn(
        instance: *mut c_void,
        max_rows: u32,
        max_bytes: u64,
        deadline: i64,
        out: *mut Polled,
        error: *mut Error,
    ) -> Status,
    /// Reads no more of these splits until `resume`: they are too far ahead of others in event time, maybe before anything was read of them. The others are read on, and
    /// none of them may wait for one that is paused; [`Status::IDLE`] speaks of those that are not. While all are paused `poll` is not called. [`crate::ErrorCode::UNSUPPORTED`]: it can
    /// read its splits only as they come; then the host holds back a reader with one split, and ends the job where a reader has others.
    pub pause: unsafe extern "C" fn(instance: *mut c_void, ids: *const Slice, count: usize, error: *mut Error) -> Status,
    /// Ends a pause. A split that is given back is no longer paused.
    pub resume: unsafe extern "C" fn(instance: *mut c_void, ids: *const Slice, count: usize, error: *mut Error) -> Status,
    /// Checkpoint `checkpoint` is durable with these positions: they may be committed upstream.
    pub checkpoint_committed: unsafe extern "C" fn(
        instance: *mut c_void,
        checkpoint: u64,
        positions: *const SplitPosition,
        count: usize,
        error: *mut Error,
    ) -> Status,
    /// How far behind the reader is: a JSON array of `{"split": ..., "records": n, "millis": n}`; unknown members are left out.
    pub lag: unsafe extern "C" fn(instance: *mut c_void, out: *mut Buffer, error: *mut Error) -> Status,
    /// Ends reading; `reason` is one of the `CLOSE_` constants of [`crate::host`].
    pub close: unsafe extern "C" fn(instance: *mut c_void, reason: u32, error: *mut Error) -> Status,
    /// Frees the instance, called once and last, also after a panic: the SDK then leaks the author's value, which may be in any state.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

/// `enumerator/1`: finds the splits of a source. One instance per job.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct EnumeratorTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// As that of [`SourceTable`].
    pub create: unsafe extern "C" fn(
        config: Slice,
        context: *const Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut Error,
    ) -> Status,
    /// Connects.
    pub open: unsafe extern "C" fn(instance: *mut c_void, error: *mut Error) -> Status,
    /// What has changed since the last call, by `deadline` (as `now`) at the latest: a JSON object
    /// `{"added": [{"split": ..., "details": ...}], "removed": [...], "exhausted": true}`; `exhausted`: no split will ever be added.
    /// The first answer should hold all splits that there are: rows of one that is told later count as late behind the watermark that the others have brought about.
    pub discover: unsafe extern "C" fn(instance: *mut c_void, deadline: i64, out: *mut Buffer, error: *mut Error) -> Status,
    /// What it must remember across a restart.
    pub snapshot: unsafe extern "C" fn(instance: *mut c_void, out: *mut Buffer, error: *mut Error) -> Status,
    /// Goes on from a snapshot; before the first `discover`.
    pub restore: unsafe extern "C" fn(instance: *mut c_void, snapshot: Slice, error: *mut Error) -> Status,
    /// Ends it.
    pub close: unsafe extern "C" fn(instance: *mut c_void, reason: u32, error: *mut Error) -> Status,
    /// Frees the instance.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}
