//! Strings and bytes that cross: borrowed ([`Slice`]) for the length of a call, owned ([`Buffer`]) with their own release function.

use abi_stable::StableAbi;
use std::{ffi::c_void, ptr};

/// Borrowed bytes. Frozen. Valid for the call that passes them (or as long as the table that returns them says). Text is UTF-8, without a terminator.
#[repr(C)]
#[derive(StableAbi, Copy, Clone)]
pub struct Slice {
    /// The first byte; may be null when `len` is 0.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
}

impl Slice {
    /// No bytes.
    pub const EMPTY: Self = Self { ptr: ptr::null(), len: 0 };

    /// Borrows `bytes`. The slice carries no lifetime: it must not outlive them.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes behind it.
    ///
    /// # Safety
    /// The memory must be alive and unchanged for `'a`.
    #[must_use]
    pub const unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: non-null, and the caller vouches for memory and lifetime.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// The text behind it, or `None` if it is not UTF-8.
    ///
    /// # Safety
    /// As [`Slice::as_bytes`].
    #[must_use]
    pub unsafe fn as_str<'a>(self) -> Option<&'a str> {
        // SAFETY: passed on to the caller.
        std::str::from_utf8(unsafe { self.as_bytes() }).ok()
    }
}

// SAFETY: a pointer to immutable bytes; who shares it keeps them alive.
unsafe impl Send for Slice {}
// SAFETY: as above.
unsafe impl Sync for Slice {}

/// Owned bytes. Frozen. Whoever fills a buffer allocates it and sets `release`; whoever receives it calls `release` once, on any thread.
#[repr(C)]
#[derive(StableAbi)]
pub struct Buffer {
    /// The first byte; may be null when `len` is 0.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
    /// Frees the bytes and sets itself to null; null means that there is nothing to free.
    pub release: Option<unsafe extern "C" fn(buffer: *mut Buffer)>,
    /// Belongs to whoever filled the buffer.
    pub private_data: *mut c_void,
}

impl Buffer {
    /// No bytes, nothing to release.
    pub const EMPTY: Self = Self { ptr: ptr::null(), len: 0, release: None, private_data: ptr::null_mut() };

    /// Takes over `bytes` without a copy.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        unsafe extern "C" fn release(buffer: *mut Buffer) {
            // SAFETY: called once with the buffer below; `private_data` is its box.
            unsafe {
                drop(Box::from_raw((*buffer).private_data.cast::<Vec<u8>>()));
                buffer.write(Buffer::EMPTY);
            }
        }
        if bytes.is_empty() {
            return Self::EMPTY;
        }
        let owner = Box::new(bytes);
        let (ptr, len) = (owner.as_ptr(), owner.len());
        Self { ptr, len, release: Some(release), private_data: Box::into_raw(owner).cast() }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the buffer owns them until release.
        unsafe { Slice { ptr: self.ptr, len: self.len }.as_bytes() }
    }

    /// The text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }

    /// Moves the bytes out and leaves an empty buffer.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::EMPTY)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // SAFETY: set by whoever filled the buffer, called once: `take` left null behind. The moved-from copy has no release of its own.
            let mut owned =
                std::mem::ManuallyDrop::new(Self { ptr: self.ptr, len: self.len, release: Some(release), private_data: self.private_data });
            unsafe { release(&raw mut *owned) }
        }
    }
}

// SAFETY: the bytes are immutable, and release may be called on any thread by contract.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_gives_back_what_it_took() {
        let mut buffer = Buffer::from_vec(b"standpipe".to_vec());
        assert_eq!(buffer.as_bytes(), b"standpipe");
        let taken = buffer.take();
        assert!(buffer.as_bytes().is_empty() && buffer.release.is_none());
        assert_eq!(taken.to_text(), "standpipe");
    }

    #[test]
    fn a_null_slice_is_empty() {
        // SAFETY: an empty slice points to nothing.
        assert_eq!(unsafe { Slice::EMPTY.as_str() }, Some(""));
    }
}
