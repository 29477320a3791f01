//! Keyed state as a transform sees it: declared in `validate`, held by the host by key group, addressed by the ordinal of a key of the batch at hand.
//! A plugin names keys by ordinal only, valid for the call: another key is out of its reach. What a call writes takes effect when it returns OK.

use crate::{
    arrow_c::{ArrowArray, Batch},
    error::{Error, Status},
};
use std::ffi::c_void;

/// The keys of a batch (or of due timers), and the state behind them. Valid for the call.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct KeyContext {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// Distinct keys.
    pub n_keys: u32,
    /// Rows of the batch.
    pub rows: usize,
    /// For each row the ordinal of its key, below `n_keys`.
    pub key_of_row: *const u32,
    /// One row per distinct key: the columns of `key_by`. A plugin may move it out (and must, to keep it); otherwise the host releases it after the call.
    pub keys: *mut Batch,
    /// The state of these keys.
    pub state: *const StateTable,
}

/// Columns of a fixed-width value state that the host lends for the call: `n` values, one per ordinal.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct LentValues {
    /// Bytes of this struct that the plugin knows.
    pub size: u32,
    /// Bytes of one value: that of the Arrow type; booleans are one byte.
    pub width: u32,
    /// `n` values of `width` bytes, aligned to 16. What stands where `validity` is 0 is zero.
    pub values: *mut u8,
    /// One byte per ordinal: 1 if the key has a value. The plugin sets it, or clears it to remove the value.
    pub validity: *mut u8,
    /// One byte per ordinal: the plugin sets 1 where it changed `values` or `validity`.
    pub dirty: *mut u8,
    /// Ordinals.
    pub n: usize,
}

/// Timers on event time: due when the watermark passes.
pub const TIMER_EVENT_TIME: u32 = 0;
/// Timers on processing time.
pub const TIMER_PROCESSING_TIME: u32 = 1;

/// State access. `slot` is the index of the state in `validate`'s declaration. `ordinals` are of the current [`KeyContext`]; one that is not below `n_keys`
/// gives [`crate::ErrorCode::OUT_OF_RANGE`]. Arrays are moved in and out. Times are microseconds since the epoch.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct StateTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Passed to every function.
    pub ctx: *mut c_void,
    /// Lends a fixed-width value state for the call: the fast path. The same slot twice in a call gives the same memory.
    pub value_lend: unsafe extern "C" fn(ctx: *mut c_void, slot: u32, out: *mut LentValues, error: *mut Error) -> Status,
    /// Values of some keys, null where there is none.
    pub value_get: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        out: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Sets values of some keys; null removes. The last of a repeated ordinal holds.
    pub value_set: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        values: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// The lists of some keys: an array of type list of the declared field, null where there is none.
    pub list_get: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        out: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Appends `values[i]` to the list of `ordinals[i]`, in order.
    pub list_append: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        values: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Empties the lists of some keys.
    pub list_clear: unsafe extern "C" fn(ctx: *mut c_void, slot: u32, ordinals: *const u32, count: usize, error: *mut Error) -> Status,
    /// The values behind `keys[i]` in the map of `ordinals[i]`, null where there is none.
    pub map_get: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        keys: *mut ArrowArray,
        out: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Sets `keys[i]` to `values[i]` in the map of `ordinals[i]`.
    pub map_put: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        keys: *mut ArrowArray,
        values: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Removes `keys[i]` from the map of `ordinals[i]`.
    pub map_remove: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinals: *const u32,
        count: usize,
        keys: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// At most `limit` entries of one key's map from the key `from` on (released: from the first), in the order of keys: a struct array of `key` and `value`.
    pub map_scan: unsafe extern "C" fn(
        ctx: *mut c_void,
        slot: u32,
        ordinal: u32,
        from: *mut ArrowArray,
        limit: usize,
        out: *mut ArrowArray,
        error: *mut Error,
    ) -> Status,
    /// Sets a timer for `ordinals[i]` at `times[i]`; a timer is one per key, slot, domain and time. `slot` is the transform's own number for its purpose.
    pub timer_set: unsafe extern "C" fn(
        ctx: *mut c_void,
        domain: u32,
        slot: u32,
        ordinals: *const u32,
        times: *const i64,
        count: usize,
        error: *mut Error,
    ) -> Status,
    /// Removes timers.
    pub timer_delete: unsafe extern "C" fn(
        ctx: *mut c_void,
        domain: u32,
        slot: u32,
        ordinals: *const u32,
        times: *const i64,
        count: usize,
        error: *mut Error,
    ) -> Status,
}
