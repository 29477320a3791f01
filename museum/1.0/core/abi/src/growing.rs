//! How the contract grows. A struct that begins with its size ([`Growing`]) gets new members at its end; whoever reads or writes one of the other side does it by
//! [`fn@read`] and [`fn@write`], as far as both sides know it. What has no size ([`Frozen`]) never changes: it is a value in other structs or an element of an array.
//!
//! Host and SDK use these functions for every struct that crosses; nothing else looks at `size`.

use crate::{
    arrow_c::{ArrowArray, ArrowArrayStream, ArrowDeviceArray, ArrowSchema, Batch, Rejection},
    deployment::DeploymentTable,
    error::Error,
    function::{AggregateTable, Binding, ScalarTable},
    host::{Context, HostTable},
    manifest::Manifest,
    sink::{Committable, SinkTable},
    source::{EnumeratorTable, Polled, SourceTable, SplitPosition},
    state::{KeyContext, LentValues, StateTable},
    transform::{DueTimers, TransformTable},
    validate::{Validation, ValidationInput},
    value::{Buffer, Slice},
};
use std::{
    fmt,
    mem::{MaybeUninit, offset_of},
    ptr,
};

/// A struct that begins with its size in bytes, set by who makes it, and grows at its end.
///
/// # Safety
/// `#[repr(C)]`; the first member is `size: u32`; there is no padding behind the last member; a member behind the first [`Growing::REQUIRED`] bytes may be all zero,
/// which means that it is absent.
pub unsafe trait Growing: Sized {
    /// Bytes of the struct as of 1.0, for ever: the end of the last member that it had then.
    const REQUIRED: usize;
}

/// What never changes: it has no size, and stands by value in other structs or in arrays.
///
/// # Safety
/// The type must be in the list of docs/abi.md, "What is frozen".
pub unsafe trait Frozen {}

/// A struct of the other side that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// The pointer is null.
    Missing,
    /// It ends before a member that 1.0 has.
    Short {
        /// Its bytes.
        size: usize,
        /// The bytes of 1.0.
        needed: usize,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Short { size, needed } => write!(f, "is too short: {size} bytes, {needed} needed"),
        }
    }
}

/// How many bytes of a struct both sides know.
///
/// # Errors
/// When it is null, or has less than 1.0.
///
/// # Safety
/// `of` must be null or aligned and point to as many bytes as its first member says.
pub unsafe fn shared<T: Growing>(of: *const T) -> Result<usize, Unusable> {
    if of.is_null() {
        return Err(Unusable::Missing);
    }
    // SAFETY: not null; it begins with its size.
    let size = unsafe { of.cast::<u32>().read() } as usize;
    match size {
        size if size < T::REQUIRED => Err(Unusable::Short { size, needed: T::REQUIRED }),
        size => Ok(size.min(size_of::<T>())),
    }
}

/// Copies a struct of the other side. Members that it lacks are zero, those that this side does not know are left out.
///
/// # Errors
/// As [`shared`].
///
/// # Safety
/// As [`shared`], and what is there must be valid.
pub unsafe fn read<T: Growing + Copy>(from: *const T) -> Result<T, Unusable> {
    // SAFETY: passed on to the caller.
    let known = unsafe { shared(from) }?;
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are there on both sides, all of 1.0 among them; the rest is zero, which is valid for later members.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<MaybeUninit<u8>>(), copy.as_mut_ptr().cast(), known);
        Ok(copy.assume_init())
    }
}

/// Moves a value into a struct of the other side, all but the size, which stays that of its maker. What it held is dropped; members of `value` that it lacks are, too.
///
/// # Errors
/// As [`shared`]; nothing is written then.
///
/// # Safety
/// As [`read`], and nobody else uses it.
pub unsafe fn write<T: Growing>(out: *mut T, value: T) -> Result<(), Unusable> {
    // SAFETY: passed on to the caller.
    unsafe { replace(out, value) }.map(drop)
}

/// As [`fn@write`], and gives what was there: of members that it lacks, those of `value`.
///
/// # Errors
/// As [`fn@write`].
///
/// # Safety
/// As [`fn@write`].
pub unsafe fn replace<T: Growing>(out: *mut T, mut value: T) -> Result<T, Unusable> {
    // SAFETY: passed on to the caller.
    let known = unsafe { shared(out) }?;
    let (head, own) = (size_of::<u32>(), (&raw mut value).cast::<MaybeUninit<u8>>());
    // SAFETY: `known` bytes are there on both sides and end with a member. `value` then holds the old members, and its own where `out` has none: all are valid.
    unsafe { ptr::swap_nonoverlapping(out.cast::<MaybeUninit<u8>>().add(head), own.add(head), known - head) }
    Ok(value)
}

/// Copies a manifest, whose size is its second member.
///
/// # Errors
/// When it has less than 1.0.
///
/// # Safety
/// `from` must be aligned and point to a manifest: the magic, then as many bytes as `struct_size` says.
pub unsafe fn read_manifest(from: *const Manifest) -> Result<Manifest, Unusable> {
    const REQUIRED: usize = offset_of!(Manifest, describe_json) + member(|manifest: &Manifest| &manifest.describe_json);
    // SAFETY: magic and size are there.
    let size = unsafe { (&raw const (*from).struct_size).read() } as usize;
    if size < REQUIRED {
        return Err(Unusable::Short { size, needed: REQUIRED });
    }
    let mut copy = MaybeUninit::<Manifest>::zeroed();
    // SAFETY: as in `read`.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<MaybeUninit<u8>>(), copy.as_mut_ptr().cast(), size.min(size_of::<Manifest>()));
        Ok(copy.assume_init())
    }
}

/// Bytes of a member.
const fn member<S, M>(_: fn(&S) -> &M) -> usize {
    size_of::<M>()
}

/// The last member that each struct had in 1.0. A new member comes behind it and changes nothing here; it must be an `Option` of a function or pointer, a pointer that may
/// be null, or a number whose 0 means "absent".
macro_rules! growing {
    ($($Struct:ident: $last:ident),* $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]`, and the size comes first (checked here); the rest is by the rule above, and by `tests/growth.rs`.
            unsafe impl Growing for $Struct {
                const REQUIRED: usize = offset_of!($Struct, $last) + member(|this: &$Struct| &this.$last);
            }
            const _: () = assert!(offset_of!($Struct, size) == 0 && member(|this: &$Struct| &this.size) == size_of::<u32>());
        )*
    };
}

growing! {
    Error: details,
    Batch: data,
    ValidationInput: details,
    Validation: details,
    Context: node,
    HostTable: now,
    Polled: watermark,
    KeyContext: state,
    LentValues: n,
    StateTable: timer_delete,
    DueTimers: count,
    SourceTable: destroy,
    EnumeratorTable: destroy,
    TransformTable: destroy,
    SinkTable: destroy,
    Binding: reserved,
    ScalarTable: unbind,
    AggregateTable: destroy,
    DeploymentTable: destroy,
}

macro_rules! frozen {
    ($($Type:ty),* $(,)?) => {
        // SAFETY: in the list of docs/abi.md.
        $(unsafe impl Frozen for $Type {})*
    };
}

frozen!(Slice, Buffer, SplitPosition, Rejection, Committable, u32, u64, i64);
frozen!(ArrowSchema, ArrowArray, ArrowArrayStream, ArrowDeviceArray);
// SAFETY: a pointer.
unsafe impl<T> Frozen for *const T {}
// SAFETY: a pointer.
unsafe impl<T> Frozen for *mut T {}
