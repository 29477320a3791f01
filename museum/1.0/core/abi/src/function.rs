//! Functions: scalar functions are pure and run where the expression runs; aggregates are told which group each row belongs to.
//!
//! A function is bound to the types of its arguments; what is bound never changes, and may be used on any thread, on several at once. An
//! accumulator's calls come one after another, but not all on one thread.

use crate::{
    arrow_c::{ArrowSchema, Batch},
    error::{Error, Status},
    value::Slice,
};
use std::ffi::c_void;

/// May differ from call to call; of an aggregate function, with the order of rows. Who says nothing promises nothing.
pub const VOLATILITY_VOLATILE: u32 = 0;
/// The same arguments give the same result within one run of the job.
pub const VOLATILITY_STABLE: u32 = 1;
/// The same arguments always give the same result; of an aggregate function, the same rows in any order.
pub const VOLATILITY_IMMUTABLE: u32 = 2;

/// The key in the metadata of an argument that is a literal: its value as JSON (`null`, `true`, `7`, `0.5`, `"text"`). For texts, numbers that JSON has, and booleans.
pub const LITERAL: &str = "standpipe.literal";

/// What a function is for arguments of certain types. The schemas are moved to the host.
#[repr(C)]
pub struct Binding {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// One of the `VOLATILITY_` constants.
    pub volatility: u32,
    /// A struct type with one child per argument: the types that the function wants, to which the host casts where that loses nothing. Released, as it comes: those that
    /// they have. Any of them may be null, whatever is said here.
    pub arguments: ArrowSchema,
    /// A struct type with one child: the result. Only if it says that it may be null, it may.
    pub result: ArrowSchema,
    /// A struct type with the columns of `state`, one at least, by whose names a checkpoint keeps them; of an aggregate function. Any of them may be null.
    pub state: ArrowSchema,
    /// Grows when the meaning of the state changes: that of another version is not taken back. Of an aggregate function, from 1; 0 counts as 1.
    pub state_version: u32,
    /// Zero.
    pub reserved: u32,
}

impl Binding {
    /// An empty one, as the host passes it.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            volatility: VOLATILITY_VOLATILE,
            arguments: ArrowSchema::empty(),
            result: ArrowSchema::empty(),
            state: ArrowSchema::empty(),
            state_version: 1,
            reserved: 0,
        }
    }
}

impl Default for Binding {
    fn default() -> Self {
        Self::empty()
    }
}

/// Type-checks a call. `config` is a JSON object, `arguments` a struct type with one child per argument, of which there may be none or too many; their metadata may say more
/// ([`LITERAL`]). `function` gets what is bound. No I/O: `standpipe check` makes this call. It may be made several times for one call in a pipeline, in every process of the
/// job, with the types that were wanted too: the same question has the same answer.
pub type BindFn = unsafe extern "C" fn(
    config: Slice,
    arguments: *const ArrowSchema,
    out: *mut Binding,
    function: *mut *mut c_void,
    error: *mut Error,
) -> Status;

/// `scalar/1`.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ScalarTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`BindFn`].
    pub bind: BindFn,
    /// Computes `rows` results into `result`, a batch with one column. `arguments` is moved: a batch with one column per argument, of the types that were wanted.
    pub invoke:
        unsafe extern "C" fn(function: *const c_void, arguments: *mut Batch, rows: usize, result: *mut Batch, error: *mut Error) -> Status,
    /// Frees what was bound.
    pub unbind: unsafe extern "C" fn(function: *mut c_void),
}

/// `aggregate/1`. Groups are dense numbers from 0; an accumulator holds the state of all of them, and has none of a group that it was not told of.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct AggregateTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`BindFn`].
    pub bind: BindFn,
    /// Frees what was bound, after all accumulators of it.
    pub unbind: unsafe extern "C" fn(function: *mut c_void),
    /// Makes an accumulator without groups.
    pub create: unsafe extern "C" fn(function: *const c_void, accumulator: *mut *mut c_void, error: *mut Error) -> Status,
    /// Adds rows; `groups` has one number per row. `arguments` is moved.
    pub update:
        unsafe extern "C" fn(accumulator: *mut c_void, arguments: *mut Batch, groups: *const u32, rows: usize, error: *mut Error) -> Status,
    /// Takes rows back; [`crate::ErrorCode::UNSUPPORTED`] if it cannot.
    pub retract:
        unsafe extern "C" fn(accumulator: *mut c_void, arguments: *mut Batch, groups: *const u32, rows: usize, error: *mut Error) -> Status,
    /// Adds states that `state` gave, of this process or of another one. `states` is moved.
    pub merge:
        unsafe extern "C" fn(accumulator: *mut c_void, states: *mut Batch, groups: *const u32, rows: usize, error: *mut Error) -> Status,
    /// The states of some groups, without consuming them.
    pub state:
        unsafe extern "C" fn(accumulator: *mut c_void, groups: *const u32, count: usize, out: *mut Batch, error: *mut Error) -> Status,
    /// The results of some groups, a batch with one column, without consuming them.
    pub evaluate:
        unsafe extern "C" fn(accumulator: *mut c_void, groups: *const u32, count: usize, out: *mut Batch, error: *mut Error) -> Status,
    /// Forgets groups; their numbers may be used again.
    pub forget: unsafe extern "C" fn(accumulator: *mut c_void, groups: *const u32, count: usize, error: *mut Error) -> Status,
    /// Frees the accumulator.
    pub destroy: unsafe extern "C" fn(accumulator: *mut c_void),
}
