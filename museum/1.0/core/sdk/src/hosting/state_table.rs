//! The C table before a [`KeyedState`], for one call: checks slots, kinds and ordinals, converts arrays, and keeps the columns that are lent in step with the
//! functions that read and write the same state.

use super::{KeyedState, LentColumn, StateError, services::report, shield};
use crate::{Error, ErrorCode, Result, TimeDomain, convert, wire};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, FieldRef};
use standpipe_abi::{
    self as abi, ArrowArray, Status,
    growing::{self, Frozen},
    state::{LentValues, StateTable},
};
use std::ffi::c_void;

/// A fixed-width state's columns, kept between calls for their memory.
#[derive(Default)]
pub(super) struct LentSlot {
    column: LentColumn,
    lent: bool,
}

/// The state of one call. It has one place in memory while the plugin runs: its table points to it.
pub(super) struct StateCall<'a> {
    state: &'a mut dyn KeyedState,
    declared: &'a [(wire::StateDetails, FieldRef)],
    slots: &'a mut [LentSlot],
    n_keys: usize,
}

impl<'a> StateCall<'a> {
    /// `slots` has one place per declared state.
    pub(super) fn new(
        state: &'a mut dyn KeyedState,
        declared: &'a [(wire::StateDetails, FieldRef)],
        slots: &'a mut [LentSlot],
        n_keys: usize,
    ) -> Self {
        for slot in &mut *slots {
            slot.lent = false;
        }
        Self { state, declared, slots, n_keys }
    }

    /// The table; valid while `self` is borrowed.
    pub(super) fn table(&mut self) -> StateTable {
        StateTable {
            size: size_of::<StateTable>() as u32,
            reserved: 0,
            ctx: (&raw mut *self).cast(),
            value_lend,
            value_get,
            value_set,
            list_get,
            list_append,
            list_clear,
            map_get,
            map_put,
            map_remove,
            map_scan,
            timer_set,
            timer_delete,
        }
    }

    /// The call has ended: what is dirty goes back, then all of it holds, or none.
    pub(super) fn settle(&mut self, succeeded: bool) -> Result<()> {
        let settled = if succeeded { (0..self.slots.len() as u32).try_for_each(|slot| self.sync(slot)) } else { Ok(()) };
        if succeeded && settled.is_ok() {
            self.state.commit();
        } else {
            self.state.rollback();
        }
        settled
    }

    /// Takes back what the plugin changed in a lent column.
    fn sync(&mut self, slot: u32) -> Result<()> {
        let lent = &mut self.slots[slot as usize];
        if lent.lent && lent.column.dirty.iter().any(|dirty| *dirty != 0) {
            self.state.scatter(slot, &lent.column).map_err(failed)?;
            lent.column.dirty.fill(0);
        }
        Ok(())
    }

    fn field(&self, slot: u32, kinds: &[wire::StateKind]) -> Result<&FieldRef> {
        match self.declared.get(slot as usize) {
            Some((details, field)) if kinds.contains(&details.kind) => Ok(field),
            Some((details, _)) => Err(out_of_range(format!("state {:?} is of another kind", details.name))),
            None => Err(out_of_range(format!("there is no state {slot}, only {}", self.declared.len()))),
        }
    }

    fn entry(&self, slot: u32) -> Result<(DataType, DataType)> {
        match self.field(slot, &[wire::StateKind::Map])?.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => Ok((fields[0].data_type().clone(), fields[1].data_type().clone())),
            _ => Err(out_of_range(format!("state {slot} is declared as a map, but not as a struct of key and value"))),
        }
    }

    /// The ordinals that the plugin passed.
    ///
    /// # Safety
    /// `ordinals` must be null or point to `count` values.
    unsafe fn ordinals<'b>(&self, ordinals: *const u32, count: usize) -> Result<&'b [u32]> {
        // SAFETY: by the caller's word.
        let ordinals = unsafe { items(ordinals, count) }?;
        match ordinals.iter().max() {
            Some(ordinal) if *ordinal as usize >= self.n_keys => {
                Err(out_of_range(format!("ordinal {ordinal} is not below {}, the number of keys in this call", self.n_keys)))
            }
            _ => Ok(ordinals),
        }
    }

    fn lend(&mut self, slot: u32) -> Result<LentValues> {
        let kinds = [wire::StateKind::Value, wire::StateKind::Reducing];
        let data_type = self.field(slot, &kinds)?.data_type();
        let width =
            width(data_type).ok_or_else(|| out_of_range(format!("state {slot} of type {data_type} has no fixed width: use value_get")))?;
        let n = self.n_keys;
        let lent = &mut self.slots[slot as usize];
        if !lent.lent {
            lent.column.reset(width, n);
            self.state.gather(slot, &mut lent.column).map_err(failed)?;
            if (lent.column.width, lent.column.n(), lent.column.dirty.len()) != (width, n, n) {
                return Err(Error::new(ErrorCode::OTHER, "the host's state gave columns of another size"));
            }
            lent.lent = true;
        }
        let column = &mut lent.column;
        Ok(LentValues {
            size: size_of::<LentValues>() as u32,
            width: width as u32,
            values: column.bytes_mut().as_mut_ptr(),
            validity: column.validity.as_mut_ptr(),
            dirty: column.dirty.as_mut_ptr(),
            n,
        })
    }

    fn value_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrowArray> {
        let data_type = self.field(slot, &[wire::StateKind::Value, wire::StateKind::Reducing])?.data_type().clone();
        self.sync(slot)?;
        given(&self.state.value_get(slot, ordinals).map_err(failed)?, &data_type, Some(ordinals.len()))
    }

    fn value_set(&mut self, slot: u32, ordinals: &[u32], values: ArrowArray) -> Result<()> {
        let data_type = self.field(slot, &[wire::StateKind::Value, wire::StateKind::Reducing])?.data_type().clone();
        let values = taken(values, &data_type, ordinals.len())?;
        self.sync(slot)?;
        self.state.value_set(slot, ordinals, values).map_err(failed)?;
        let lent = &mut self.slots[slot as usize];
        if lent.lent {
            // The plugin has pointers into it: the same size keeps the same memory.
            let (width, n) = (lent.column.width, lent.column.n());
            lent.column.reset(width, n);
            self.state.gather(slot, &mut lent.column).map_err(failed)?;
        }
        Ok(())
    }
}

/// Bytes of a fixed-width value; booleans have one.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

/// An array for the plugin.
fn given(array: &ArrayRef, data_type: &DataType, rows: Option<usize>) -> Result<ArrowArray> {
    if array.data_type() != data_type || rows.is_some_and(|rows| rows != array.len()) {
        let message = format!("the host's state gave {} values of type {} for {data_type}", array.len(), array.data_type());
        return Err(Error::new(ErrorCode::OTHER, message));
    }
    Ok(convert::export_array(array))
}

/// An array from the plugin.
fn taken(array: ArrowArray, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    // SAFETY: by contract an array of the declared type.
    let array = unsafe { convert::import_array(array, data_type) }?;
    if array.len() != rows {
        return Err(out_of_range(format!("{rows} ordinals, but {} values", array.len())));
    }
    Ok(array)
}

/// What a plugin passed.
///
/// # Safety
/// `items` must be null or point to `count` values that are alive for `'a`.
unsafe fn items<'a, T: Frozen>(items: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(out_of_range("an array is null".to_owned()));
    }
    // SAFETY: by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

fn out_of_range(message: String) -> Error {
    Error::new(ErrorCode::OUT_OF_RANGE, message)
}

fn failed(error: StateError) -> Error {
    Error::new(error.code, error.message)
}

/// Runs a callback.
///
/// # Safety
/// `ctx` must be the table's, in its call, on its thread; `error` must be null or valid.
unsafe fn answer(ctx: *mut c_void, error: *mut abi::Error, call: impl FnOnce(&mut StateCall<'_>) -> Result<()>) -> Status {
    // SAFETY: by the caller's word: nobody else uses it while the plugin runs.
    let result = match unsafe { ctx.cast::<StateCall<'_>>().as_mut() } {
        Some(state) => shield(Err(Error::new(ErrorCode::OTHER, "the host's state failed inside of a callback")), || call(state)),
        None => Err(out_of_range("the context of the state table is missing".to_owned())),
    };
    // SAFETY: as above.
    unsafe { report(result, error) }
}

/// Moves an array of the plugin's in.
///
/// # Safety
/// `array` must be null or valid.
unsafe fn moved(array: *mut ArrowArray) -> ArrowArray {
    // SAFETY: by the caller's word.
    unsafe { array.as_mut() }.map(ArrowArray::take).unwrap_or_default()
}

/// Writes a result that never grows.
///
/// # Safety
/// `out` must be null or valid.
unsafe fn put<T: Frozen>(out: *mut T, value: T) -> Result<()> {
    // SAFETY: by the caller's word.
    match unsafe { out.as_mut() } {
        Some(out) => *out = value,
        None => return Err(out_of_range("there is no place for the result".to_owned())),
    }
    Ok(())
}

// SAFETY, for every callback below: the plugin keeps the contract of `StateTable`: `ctx` is the table's, pointers are valid for the call.

unsafe extern "C" fn value_lend(ctx: *mut c_void, slot: u32, out: *mut LentValues, error: *mut abi::Error) -> Status {
    let lend = |state: &mut StateCall<'_>| {
        let lent = state.lend(slot)?;
        unsafe { growing::write(out, lent) }.map_err(Error::unusable("the place for the lent values"))
    };
    unsafe { answer(ctx, error, lend) }
}

unsafe extern "C" fn value_get(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    out: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    unsafe { answer(ctx, error, |state| put(out, state.value_get(slot, state.ordinals(ordinals, count)?)?)) }
}

unsafe extern "C" fn value_set(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    values: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let values = unsafe { moved(values) };
    unsafe { answer(ctx, error, |state| state.value_set(slot, state.ordinals(ordinals, count)?, values)) }
}

unsafe extern "C" fn list_get(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    out: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let get = |state: &mut StateCall<'_>| {
        let list = DataType::List(state.field(slot, &[wire::StateKind::List])?.clone());
        let ordinals = unsafe { state.ordinals(ordinals, count) }?;
        let array = given(&state.state.list_get(slot, ordinals).map_err(failed)?, &list, Some(count))?;
        unsafe { put(out, array) }
    };
    unsafe { answer(ctx, error, get) }
}

unsafe extern "C" fn list_append(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    values: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let values = unsafe { moved(values) };
    let append = |state: &mut StateCall<'_>| {
        let item = state.field(slot, &[wire::StateKind::List])?.data_type().clone();
        let ordinals = unsafe { state.ordinals(ordinals, count) }?;
        state.state.list_append(slot, ordinals, taken(values, &item, count)?).map_err(failed)
    };
    unsafe { answer(ctx, error, append) }
}

unsafe extern "C" fn list_clear(ctx: *mut c_void, slot: u32, ordinals: *const u32, count: usize, error: *mut abi::Error) -> Status {
    let clear = |state: &mut StateCall<'_>| {
        state.field(slot, &[wire::StateKind::List])?;
        let ordinals = unsafe { state.ordinals(ordinals, count) }?;
        state.state.list_clear(slot, ordinals).map_err(failed)
    };
    unsafe { answer(ctx, error, clear) }
}

unsafe extern "C" fn map_get(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    keys: *mut ArrowArray,
    out: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let keys = unsafe { moved(keys) };
    let get = |state: &mut StateCall<'_>| {
        let (key, value) = state.entry(slot)?;
        let ordinals = unsafe { state.ordinals(ordinals, count) }?;
        let values = state.state.map_get(slot, ordinals, taken(keys, &key, count)?).map_err(failed)?;
        unsafe { put(out, given(&values, &value, Some(count))?) }
    };
    unsafe { answer(ctx, error, get) }
}

unsafe extern "C" fn map_put(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    keys: *mut ArrowArray,
    values: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let (keys, values) = unsafe { (moved(keys), moved(values)) };
    let put = |state: &mut StateCall<'_>| {
        let (key, value) = state.entry(slot)?;
        let ordinals = unsafe { state.ordinals(ordinals, count) }?;
        state.state.map_put(slot, ordinals, taken(keys, &key, count)?, taken(values, &value, count)?).map_err(failed)
    };
    unsafe { answer(ctx, error, put) }
}

unsafe extern "C" fn map_remove(
    ctx: *mut c_void,
    slot: u32,
    ordinals: *const u32,
    count: usize,
    keys: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let keys = unsafe { moved(keys) };
    let remove = |state: &mut StateCall<'_>| {
        let (key, _) = state.entry(slot)?;
        let ordinals = unsafe { state.ordinals(ordinals, count) }?;
        state.state.map_remove(slot, ordinals, taken(keys, &key, count)?).map_err(failed)
    };
    unsafe { answer(ctx, error, remove) }
}

unsafe extern "C" fn map_scan(
    ctx: *mut c_void,
    slot: u32,
    ordinal: u32,
    from: *mut ArrowArray,
    limit: usize,
    out: *mut ArrowArray,
    error: *mut abi::Error,
) -> Status {
    let from = unsafe { moved(from) };
    let scan = |state: &mut StateCall<'_>| {
        let (key, _) = state.entry(slot)?;
        unsafe { state.ordinals(&raw const ordinal, 1) }?;
        let from = if from.is_released() { None } else { Some(taken(from, &key, 1)?) };
        let entry = state.field(slot, &[wire::StateKind::Map])?.data_type().clone();
        let entries = state.state.map_scan(slot, ordinal, from, limit).map_err(failed)?;
        unsafe { put(out, given(&entries, &entry, None)?) }
    };
    unsafe { answer(ctx, error, scan) }
}

unsafe extern "C" fn timer_set(
    ctx: *mut c_void,
    domain: u32,
    slot: u32,
    ordinals: *const u32,
    times: *const i64,
    count: usize,
    error: *mut abi::Error,
) -> Status {
    let set = |state: &mut StateCall<'_>| {
        let (ordinals, times) = unsafe { (state.ordinals(ordinals, count)?, items(times, count)?) };
        state.state.timer_set(known(domain)?, slot, ordinals, times).map_err(failed)
    };
    unsafe { answer(ctx, error, set) }
}

unsafe extern "C" fn timer_delete(
    ctx: *mut c_void,
    domain: u32,
    slot: u32,
    ordinals: *const u32,
    times: *const i64,
    count: usize,
    error: *mut abi::Error,
) -> Status {
    let delete = |state: &mut StateCall<'_>| {
        let (ordinals, times) = unsafe { (state.ordinals(ordinals, count)?, items(times, count)?) };
        state.state.timer_delete(known(domain)?, slot, ordinals, times).map_err(failed)
    };
    unsafe { answer(ctx, error, delete) }
}

fn known(domain: u32) -> Result<TimeDomain> {
    TimeDomain::from_abi(domain).ok_or_else(|| out_of_range(format!("there is no time domain {domain}")))
}
