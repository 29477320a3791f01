//! Functions and lookups: scalar functions are pure and run where the expression runs; aggregates are told which group each row belongs to; lookups join a stream
//! with something outside.

use crate::{
    arrow_c::{ArrowArray, ArrowSchema, Batch},
    error::{Error, Status},
    host::{Context, HostTable},
    validate::ValidateFn,
    value::Slice,
};
use std::ffi::c_void;

/// The same arguments always give the same result.
pub const VOLATILITY_IMMUTABLE: u32 = 0;
/// The same within one run of the job.
pub const VOLATILITY_STABLE: u32 = 1;
/// May differ from call to call.
pub const VOLATILITY_VOLATILE: u32 = 2;

/// `scalar/1`.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ScalarTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Type-checks a call: `arguments` is a struct type with one child per argument; `result` gets the field, `volatility` one of the constants.
    /// `instance` keeps what the call needs.
    pub bind: unsafe extern "C" fn(
        config: Slice,
        arguments: *const ArrowSchema,
        result: *mut ArrowSchema,
        volatility: *mut u32,
        instance: *mut *mut c_void,
        error: *mut Error,
    ) -> Status,
    /// Computes `rows` results. `arguments` is moved: a batch with one column per argument.
    pub invoke: unsafe extern "C" fn(
        instance: *const c_void,
        arguments: *mut Batch,
        rows: usize,
        result: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Frees the instance.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

/// `aggregate/1`. Groups are dense numbers from 0; an instance holds the state of all of them.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct AggregateTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// As that of [`ScalarTable`]; `state` gets a struct type: the columns of `state`.
    pub bind: unsafe extern "C" fn(
        config: Slice,
        arguments: *const ArrowSchema,
        result: *mut ArrowSchema,
        state: *mut ArrowSchema,
        instance: *mut *mut c_void,
        error: *mut Error,
    ) -> Status,
    /// Adds rows; `groups` has one number per row.
    pub update:
        unsafe extern "C" fn(instance: *mut c_void, arguments: *mut Batch, groups: *const u32, rows: usize, error: *mut Error) -> Status,
    /// Takes rows back.
    pub retract:
        unsafe extern "C" fn(instance: *mut c_void, arguments: *mut Batch, groups: *const u32, rows: usize, error: *mut Error) -> Status,
    /// Adds states that `state` gave.
    pub merge:
        unsafe extern "C" fn(instance: *mut c_void, states: *mut Batch, groups: *const u32, rows: usize, error: *mut Error) -> Status,
    /// The states of some groups, without consuming them.
    pub state:
        unsafe extern "C" fn(instance: *const c_void, groups: *const u32, count: usize, out: *mut Batch, error: *mut Error) -> Status,
    /// The results of some groups, without consuming them.
    pub evaluate:
        unsafe extern "C" fn(instance: *const c_void, groups: *const u32, count: usize, out: *mut ArrowArray, error: *mut Error) -> Status,
    /// Forgets groups; their numbers may be used again.
    pub forget: unsafe extern "C" fn(instance: *mut c_void, groups: *const u32, count: usize, error: *mut Error) -> Status,
    /// Frees the instance.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

/// `lookup/1`.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct LookupTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`ValidateFn`]; its one input is the keys.
    pub validate: ValidateFn,
    /// Makes an instance.
    pub create: unsafe extern "C" fn(
        config: Slice,
        context: *const Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut Error,
    ) -> Status,
    /// Connects.
    pub open: unsafe extern "C" fn(instance: *mut c_void, error: *mut Error) -> Status,
    /// Looks keys up; the result, one row per key and null where there is none, comes by `emit(0, batch, token)` and `complete(token)`.
    pub lookup: unsafe extern "C" fn(instance: *mut c_void, keys: *mut Batch, token: u64, error: *mut Error) -> Status,
    /// Ends it.
    pub close: unsafe extern "C" fn(instance: *mut c_void, reason: u32, error: *mut Error) -> Status,
    /// Frees the instance.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}
