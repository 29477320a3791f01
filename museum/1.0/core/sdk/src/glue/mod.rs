//! The plugin's half of the tables: turns an author's types into `standpipe-abi`'s function tables. [`crate::export_plugin!`] exports them; the host's half is
//! [`crate::hosting`].
//!
//! Every function of a table runs in `guard`: a panic becomes an error with its message and place, and nothing unwinds into the host. An instance that panicked is
//! poisoned: each later call fails with the same story, and its value is leaked, for it may be in any state.
#![allow(unsafe_code, reason = "implements the tables of the ABI")]

mod answer;
mod deployment;
mod function;
mod instance;
mod panic;
mod sink;
mod source;
mod transform;

pub use deployment::DeploymentGlue;
pub use function::{AggregateGlue, ScalarGlue};
pub use panic::install_panic_hook;
pub use sink::SinkGlue;
pub use source::SourceGlue;
pub use transform::TransformGlue;

use crate::{Error, Result};
use standpipe_abi::{
    self as abi, Buffer, ErrorCode, Slice, Status,
    growing::{self, Frozen, Growing},
};

/// Runs a function of a table: a failure or a panic goes to `error`. Gives the report of a panic back, for whom to poison.
fn guard(function: &'static str, error: *mut abi::Error, call: impl FnOnce() -> Result<Status>) -> (Status, Option<panic::Report>) {
    match panic::catch(call) {
        Ok(Ok(status)) => (status, None),
        Ok(Err(failure)) => (fail(error, failure), None),
        Err(report) => (fail(error, report.error(function)), Some(report)),
    }
}

/// Runs an author's work on a thread of its own; a panic is an error.
pub(crate) fn caught(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    panic::catch(work).unwrap_or_else(|report| Err(report.error(what)))
}

/// The panic that unwinds this thread of an author's, as an error.
pub(crate) fn panic_under_way() -> Option<Error> {
    panic::under_way().map(|report| report.error("a thread of its own, before a call had ended"))
}

/// Writes a failure to the caller's error, if there is one: a caller that passes none, or less than 1.0 has, does not want to know.
fn fail(error: *mut abi::Error, failure: Error) -> Status {
    // SAFETY: the caller passes null or an error that it owns, for the call.
    let _ = unsafe { growing::write(error, failure.into_abi()) };
    Status::ERROR
}

/// Writes a struct to an out parameter, as far as the host knows it.
///
/// # Safety
/// `out` must be null or point to a struct of as many bytes as it says, valid for writing.
unsafe fn fill<T: Growing>(out: *mut T, value: T) -> Result<Status> {
    // SAFETY: passed on to the caller.
    unsafe { growing::write(out, value) }.map_err(Error::unusable("the host's place for the result"))?;
    Ok(Status::OK)
}

/// Writes a value that never grows to an out parameter.
///
/// # Safety
/// `out` must be null or valid for writing and hold a value.
unsafe fn put<T: Frozen>(out: *mut T, value: T) -> Result<Status> {
    // SAFETY: by the caller's word.
    match unsafe { out.as_mut() } {
        Some(out) => *out = value,
        None => return Err(out_of_range("the host passed no place for the result")),
    }
    Ok(Status::OK)
}

/// Writes bytes to an out parameter.
///
/// # Safety
/// As [`put`].
unsafe fn put_bytes(out: *mut Buffer, bytes: Vec<u8>) -> Result<Status> {
    // SAFETY: passed on to the caller.
    unsafe { put(out, Buffer::from_vec(bytes)) }
}

/// An array that the host passed: its items never grow.
///
/// # Safety
/// `items` must be null or point to `count` values that are alive for `'a`.
unsafe fn items<'a, T: Frozen>(items: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(out_of_range("the host passed an array that is null"));
    }
    // SAFETY: not null, and valid by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// Text that the host passed.
///
/// # Safety
/// The slice must be alive for the call.
unsafe fn text(slice: Slice) -> Result<String> {
    // SAFETY: passed on to the caller.
    unsafe { slice.as_str() }.map(str::to_owned).ok_or_else(|| out_of_range("the host passed text that is not UTF-8"))
}

/// Texts that the host passed.
///
/// # Safety
/// As [`items`] and [`text`].
unsafe fn texts(slices: *const Slice, count: usize) -> Result<Vec<String>> {
    // SAFETY: passed on to the caller.
    unsafe { items(slices, count)?.iter().map(|slice| text(*slice)).collect() }
}

fn out_of_range(message: &str) -> Error {
    Error::new(ErrorCode::OUT_OF_RANGE, message)
}
