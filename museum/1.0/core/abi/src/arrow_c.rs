//! Mirrors of the Arrow C data, stream and device interfaces: a frozen, vendor-neutral ABI
//! (<https://arrow.apache.org/docs/format/CDataInterface.html>), so it is defined here and not taken from a version of arrow-rs.

use crate::{
    growing::{Unusable, shared},
    value::Slice,
};
use abi_stable::StableAbi;
use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

/// `struct ArrowSchema`.
#[repr(C)]
#[derive(StableAbi)]
#[allow(missing_docs, reason = "the members are those of the Arrow C data interface")]
pub struct ArrowSchema {
    pub format: *const c_char,
    pub name: *const c_char,
    pub metadata: *const c_char,
    pub flags: i64,
    pub n_children: i64,
    pub children: *mut *mut c_void,
    pub dictionary: *mut c_void,
    pub release: Option<unsafe extern "C" fn(*mut c_void)>,
    pub private_data: *mut c_void,
}

/// `struct ArrowArray`.
#[repr(C)]
#[derive(StableAbi)]
#[allow(missing_docs, reason = "the members are those of the Arrow C data interface")]
pub struct ArrowArray {
    pub length: i64,
    pub null_count: i64,
    pub offset: i64,
    pub n_buffers: i64,
    pub n_children: i64,
    pub buffers: *mut *const c_void,
    pub children: *mut *mut c_void,
    pub dictionary: *mut c_void,
    pub release: Option<unsafe extern "C" fn(*mut c_void)>,
    pub private_data: *mut c_void,
}

/// `struct ArrowArrayStream`.
#[repr(C)]
#[derive(StableAbi)]
#[allow(missing_docs, reason = "the members are those of the Arrow C stream interface")]
pub struct ArrowArrayStream {
    pub get_schema: Option<unsafe extern "C" fn(*mut c_void, *mut ArrowSchema) -> c_int>,
    pub get_next: Option<unsafe extern "C" fn(*mut c_void, *mut ArrowArray) -> c_int>,
    pub get_last_error: Option<unsafe extern "C" fn(*mut c_void) -> *const c_char>,
    pub release: Option<unsafe extern "C" fn(*mut c_void)>,
    pub private_data: *mut c_void,
}

macro_rules! released_once {
    ($t:ty, $words:expr, {$($init:tt)*}) => {
        const _: () = assert!(size_of::<$t>() == $words * size_of::<usize>());
        // SAFETY: Arrow's specification allows release on any thread, and the data is immutable.
        unsafe impl Send for $t {}
        impl $t {
            /// A released struct, to be filled by a callee.
            #[must_use]
            pub const fn empty() -> Self { Self { $($init)* } }
            /// Whether there is nothing in it.
            #[must_use]
            pub const fn is_released(&self) -> bool { self.release.is_none() }
            /// Moves the content out and leaves a released struct behind (the move of the specification).
            #[must_use]
            pub fn take(&mut self) -> Self { std::mem::take(self) }
        }
        impl Drop for $t {
            fn drop(&mut self) {
                if let Some(release) = self.release {
                    // SAFETY: not released yet; `release` sets its own member to null.
                    unsafe { release((&raw mut *self).cast()) }
                }
            }
        }
        impl Default for $t {
            fn default() -> Self { Self::empty() }
        }
    };
}

released_once!(ArrowSchema, 9, {
    format: ptr::null(), name: ptr::null(), metadata: ptr::null(), flags: 0, n_children: 0,
    children: ptr::null_mut(), dictionary: ptr::null_mut(), release: None, private_data: ptr::null_mut()
});
released_once!(ArrowArray, 10, {
    length: 0, null_count: 0, offset: 0, n_buffers: 0, n_children: 0, buffers: ptr::null_mut(),
    children: ptr::null_mut(), dictionary: ptr::null_mut(), release: None, private_data: ptr::null_mut()
});
released_once!(ArrowArrayStream, 5, {
    get_schema: None, get_next: None, get_last_error: None, release: None, private_data: ptr::null_mut()
});

/// `ARROW_DEVICE_CPU` of the Arrow C device interface: the only device that this minor version sends.
pub const DEVICE_CPU: i32 = 1;

/// `struct ArrowDeviceArray`: an array and where its memory is.
#[repr(C)]
#[derive(StableAbi)]
pub struct ArrowDeviceArray {
    /// The array.
    pub array: ArrowArray,
    /// Which device of its type; -1 for the CPU.
    pub device_id: i64,
    /// [`DEVICE_CPU`] today.
    pub device_type: i32,
    /// To wait on before reading; null for the CPU.
    pub sync_event: *mut c_void,
    /// Zero.
    pub reserved: [i64; 3],
}

// SAFETY: as ArrowArray.
unsafe impl Send for ArrowDeviceArray {}

/// A record batch as it crosses: a struct array whose children are the columns of the schema that `schema_id` names.
///
/// Schemas cross once, in `validate`; id 0 is the schema agreed there.
#[repr(C)]
#[derive(StableAbi)]
pub struct Batch {
    /// Bytes of this struct that its maker knows.
    pub size: u32,
    /// Which schema; 0 is the one agreed in `validate`.
    pub schema_id: u32,
    /// The columns.
    pub data: ArrowDeviceArray,
}

impl Batch {
    /// A batch without data, to be filled by a callee.
    #[must_use]
    pub const fn empty() -> Self {
        Self::new(ArrowArray::empty())
    }

    /// A batch of an array in main memory, of schema 0.
    #[must_use]
    pub const fn new(array: ArrowArray) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            schema_id: 0,
            data: ArrowDeviceArray { array, device_id: -1, device_type: DEVICE_CPU, sync_event: ptr::null_mut(), reserved: [0; 3] },
        }
    }

    /// Moves the data out.
    #[must_use]
    pub fn take(&mut self) -> ArrowArray {
        self.data.array.take()
    }

    /// Moves the data out of a batch of the other side.
    ///
    /// # Errors
    /// When it is null, or has less than 1.0.
    ///
    /// # Safety
    /// `batch` must be null or point to a batch of as many bytes as it says, that nobody else uses.
    pub unsafe fn take_from(batch: *mut Self) -> Result<ArrowArray, Unusable> {
        // SAFETY: by the caller's word; the array is a member of 1.0.
        unsafe {
            shared(batch)?;
            Ok(ArrowArray::take(&mut (*batch).data.array))
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::empty()
    }
}

/// Converts to or from another `#[repr(C)]` definition of the same C struct (that of arrow-rs of any version, nanoarrow, polars ...).
///
/// # Safety
/// `S` and `T` must be definitions of the same struct of the Arrow C interfaces.
pub const unsafe fn convert<S, T>(value: S) -> T {
    const { assert!(size_of::<S>() == size_of::<T>()) };
    const { assert!(align_of::<S>() == align_of::<T>()) };
    let value = std::mem::ManuallyDrop::new(value);
    // SAFETY: same size and alignment (checked above), same meaning (the caller's word); `value` is not dropped.
    unsafe { std::mem::transmute_copy::<std::mem::ManuallyDrop<S>, T>(&value) }
}

/// A row that a sink refuses for good. Frozen: it is passed in arrays.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Rejection {
    /// The row of the batch, from 0.
    pub row: u32,
    /// Zero.
    pub reserved: u32,
    /// One line for people.
    pub reason: Slice,
    /// A JSON object: `status`, `type`, ...; may be empty.
    pub details: Slice,
}
