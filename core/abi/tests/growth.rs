//! The contract's rules of growth: what 1.0 has stays where it is, and host and plugin of different minor versions read and write each other's structs as far as both
//! know them.
#![allow(unsafe_code, reason = "reads and writes structs as the other side would")]
#![allow(clippy::unwrap_used, reason = "tests")]

use standpipe_abi::{
    arrow_c::Rejection,
    deployment::DeploymentTable,
    function::{AggregateTable, Binding, ScalarTable},
    growing::{Growing, Unusable, read, read_manifest, write},
    sink::{Committable, SinkTable},
    source::{EnumeratorTable, Polled, SourceTable, SplitPosition},
    state::{KeyContext, LentValues, StateTable},
    transform::{DueTimers, TransformTable},
    *,
};
use std::{
    mem::{MaybeUninit, offset_of},
    ptr::null_mut,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

macro_rules! required {
    ($($Type:ident)*) => { [$((stringify!($Type), <$Type as Growing>::REQUIRED)),*] };
}

macro_rules! sizes {
    ($($Type:ident)*) => { [$((stringify!($Type), size_of::<$Type>())),*] };
}

/// The bytes of 1.0 on 64-bit machines, which no change may change.
#[test]
#[cfg(target_pointer_width = "64")]
fn what_1_0_has_stays_where_it_is() {
    let values =
        required!(Error Batch ValidationInput Validation Context HostTable Polled KeyContext LentValues StateTable DueTimers Binding);
    let bytes = [80, 136, 32, 184, 80, 104, 56, 40, 40, 112, 32, 232];
    assert_eq!(values.map(|(_, size)| size), bytes, "{values:?}");
    let tables = required!(SourceTable EnumeratorTable TransformTable SinkTable ScalarTable AggregateTable DeploymentTable);
    assert_eq!(tables.map(|(_, size)| size), [104, 64, 104, 104, 32, 88, 96], "{tables:?}");
    let frozen = sizes!(Slice Buffer SplitPosition Rejection Committable ArrowSchema ArrowArray ArrowArrayStream ArrowDeviceArray);
    assert_eq!(frozen.map(|(_, size)| size), [16, 32, 48, 40, 32, 72, 80, 40, 128], "{frozen:?}");
}

/// A member would begin inside of the padding, where an older side writes nothing or anything.
#[test]
fn no_struct_ends_with_padding() {
    let sizes = sizes!(Error Batch ValidationInput Validation Context HostTable Polled KeyContext LentValues StateTable DueTimers Binding);
    let ends =
        required!(Error Batch ValidationInput Validation Context HostTable Polled KeyContext LentValues StateTable DueTimers Binding);
    assert_eq!(sizes, ends);
    let sizes = sizes!(SourceTable EnumeratorTable TransformTable SinkTable ScalarTable AggregateTable);
    let ends = required!(SourceTable EnumeratorTable TransformTable SinkTable ScalarTable AggregateTable);
    assert_eq!(sizes, ends);
    // What has grown ends with its newest member.
    assert_eq!(size_of::<DeploymentTable>(), offset_of!(DeploymentTable, preview) + size_of::<usize>());
}

/// A struct of the next minor version: the one of 1.0 with one member more.
#[repr(C)]
struct Newer<T> {
    old: T,
    more: Option<extern "C" fn() -> u32>,
}

impl<T: Copy> Copy for Newer<T> {}
impl<T: Copy> Clone for Newer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

// SAFETY: the base is; the new member may be zero.
unsafe impl<T: Growing> Growing for Newer<T> {
    const REQUIRED: usize = T::REQUIRED;
}

extern "C" fn seven() -> u32 {
    7
}

/// Memory with a struct of `T`'s first `bytes` bytes, and a mark behind them.
struct Memory {
    words: Vec<u64>,
    mark_at: usize,
}

const MARK: u64 = 0xfeed_5eed_feed_5eed;

impl Memory {
    fn new<T>(value: T, bytes: usize) -> Self {
        let words = bytes / 8;
        let mut this = Self { words: vec![MARK; words + 2], mark_at: words };
        let value = MaybeUninit::new(value);
        // SAFETY: both have as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(value.as_ptr().cast::<u8>(), this.words.as_mut_ptr().cast(), bytes) };
        // SAFETY: the size comes first.
        unsafe { this.words.as_mut_ptr().cast::<u32>().write(bytes as u32) };
        this
    }

    fn pointer<T>(&mut self) -> *mut T {
        self.words.as_mut_ptr().cast()
    }

    fn is_marked(&self) -> bool {
        self.words[self.mark_at..] == [MARK, MARK]
    }
}

/// `T` is read from a side that has one member less, the same, or one more.
fn read_in_both_directions<T: Growing + Copy>(value: T) {
    let newer = Newer { old: value, more: Some(seven) };
    let (short, long) = (size_of::<T>(), size_of::<Newer<T>>());
    let mut old_side = Memory::new(value, short);
    // SAFETY: a struct of as many bytes as it says, here and below.
    let absent = unsafe { read::<Newer<T>>(old_side.pointer()) }.ok().unwrap();
    assert!(absent.more.is_none());
    let mut new_side = Memory::new(newer, long);
    assert!(unsafe { read::<T>(new_side.pointer()) }.is_ok());
    assert_eq!(unsafe { read::<Newer<T>>(new_side.pointer()) }.ok().unwrap().more.map(|more| more()), Some(7));
    let mut shorter = Memory::new(value, T::REQUIRED - 8);
    let refused = Unusable::Short { size: T::REQUIRED - 8, needed: T::REQUIRED };
    assert_eq!(unsafe { read::<T>(shorter.pointer()) }.err(), Some(refused));
    assert_eq!(unsafe { read::<T>(std::ptr::null()) }.err(), Some(Unusable::Missing));
}

/// A result of type `T` goes to a side that has one member less, the same, or one more: never behind its end, and its size stays its own.
fn written_in_both_directions<T: Growing>(make: impl Fn() -> T) {
    let (short, long) = (size_of::<T>(), size_of::<Newer<T>>());
    let size = |memory: &mut Memory| unsafe { memory.pointer::<u32>().read() } as usize;
    let mut old_side = Memory::new(make(), short);
    assert_eq!(unsafe { write(old_side.pointer(), Newer { old: make(), more: Some(seven) }) }, Ok(()));
    assert!(old_side.is_marked() && size(&mut old_side) == short);
    drop(unsafe { old_side.pointer::<T>().read() });
    let mut new_side = Memory::new(Newer { old: make(), more: None }, long);
    assert_eq!(unsafe { write(new_side.pointer(), make()) }, Ok(()));
    assert!(new_side.is_marked() && size(&mut new_side) == long);
    let new_side = unsafe { new_side.pointer::<Newer<T>>().read() };
    assert!(new_side.more.is_none());
    let mut shorter = Memory::new(make(), T::REQUIRED - 8);
    let before = shorter.words.clone();
    assert_eq!(unsafe { write(shorter.pointer(), make()) }, Err(Unusable::Short { size: T::REQUIRED - 8, needed: T::REQUIRED }));
    assert_eq!(shorter.words, before);
    assert_eq!(unsafe { write(null_mut(), make()) }, Err(Unusable::Missing));
}

#[test]
fn structs_are_read_as_far_as_both_sides_know_them() {
    let none = null_mut();
    read_in_both_directions(ValidationInput { size: 0, n_inputs: 1, inputs: std::ptr::null(), details: Slice::EMPTY });
    read_in_both_directions(DueTimers { size: 0, domain: 1, slots: none, times: none.cast(), count: 3 });
    read_in_both_directions(LentValues { size: 0, width: 8, values: none.cast(), validity: none.cast(), dirty: none.cast(), n: 4 });
    read_in_both_directions(Polled::empty(null_mut()));
    let context = KeyContext { size: 0, n_keys: 1, rows: 2, key_of_row: none, keys: null_mut(), state: std::ptr::null() };
    read_in_both_directions(context);
}

static RELEASED: AtomicU32 = AtomicU32::new(0);

#[test]
fn results_are_written_as_far_as_both_sides_know_them() {
    unsafe extern "C" fn release(buffer: *mut Buffer) {
        RELEASED.fetch_add(1, SeqCst);
        // SAFETY: the buffer that is released.
        unsafe { (*buffer).release = None };
    }
    let owned = || Buffer { ptr: std::ptr::null(), len: 0, release: Some(release), private_data: null_mut() };
    written_in_both_directions(|| Error { message: owned(), ..Error::empty() });
    // Six were made and moved or dropped; the two in shortened copies and the marks are nobody's.
    assert_eq!(RELEASED.load(SeqCst), 6);
    written_in_both_directions(Validation::empty);
    written_in_both_directions(|| Polled::empty(null_mut()));
    written_in_both_directions(Batch::empty);
    written_in_both_directions(Binding::empty);
}

#[test]
fn what_is_written_is_there() {
    let mut error = Error::empty();
    assert_eq!(unsafe { write(&raw mut error, Error::new(ErrorCode::DATA, "no")) }, Ok(()));
    assert_eq!((error.code, error.message.to_text().as_str()), (ErrorCode::DATA, "no"));
    let context = KeyContext { size: 40, n_keys: 1, rows: 2, key_of_row: null_mut(), keys: null_mut(), state: std::ptr::null() };
    let copy = unsafe { read(&raw const context) }.ok().unwrap();
    assert_eq!((copy.n_keys, copy.rows), (1, 2));
}

#[test]
fn the_data_of_a_longer_batch_is_taken_and_of_a_shorter_one_not() {
    extern "C" fn nothing(_: *mut std::ffi::c_void) {}
    let batch = || Batch::new(ArrowArray { length: 3, release: Some(nothing), ..ArrowArray::empty() });
    let mut long = Memory::new(Newer { old: batch(), more: None }, size_of::<Newer<Batch>>());
    assert_eq!(unsafe { Batch::take_from(long.pointer()) }.ok().unwrap().length, 3);
    assert!(unsafe { Batch::take_from(long.pointer()) }.ok().unwrap().is_released());
    let mut short = Memory::new(batch(), size_of::<Batch>() - 8);
    assert!(unsafe { Batch::take_from(short.pointer()) }.is_err());
    assert_eq!(unsafe { Batch::take_from(null_mut()) }.err(), Some(Unusable::Missing));
}

#[test]
fn a_manifest_of_another_minor_version() {
    let text = c"x".as_ptr();
    let manifest = Manifest {
        magic: manifest::MAGIC,
        struct_size: size_of::<Manifest>() as u32 + 8,
        flavour: 0,
        abi_major: 1,
        abi_minor: 9,
        abi_candidate: 0,
        reserved: 0,
        name: text,
        version: text,
        describe_json: text,
    };
    assert_eq!(unsafe { read_manifest(&raw const manifest) }.ok().unwrap().abi_minor, 9);
    let short = Manifest { struct_size: 40, ..manifest };
    assert_eq!(unsafe { read_manifest(&raw const short) }.err(), Some(Unusable::Short { size: 40, needed: 56 }));
}
