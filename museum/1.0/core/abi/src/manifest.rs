//! The manifest: plain C, read before anything else of a plugin runs. Any language can read and write it.

use std::ffi::c_char;

/// The C symbol of the manifest function, with its terminator.
pub const MANIFEST_SYMBOL: &[u8] = b"standpipe_plugin_manifest_v1\0";
/// The C symbol of the interface function of a plugin of the C flavour, with its terminator.
pub const INTERFACE_SYMBOL: &[u8] = b"standpipe_plugin_interface_v1\0";
/// What [`Manifest::magic`] must be: the bytes `STNDPIPE`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STNDPIPE");

/// The plugin was built with the Rust SDK: its tables are reached through abi_stable's root module.
pub const FLAVOUR_RUST: u32 = 0;
/// The plugin exports [`INTERFACE_SYMBOL`].
pub const FLAVOUR_C: u32 = 1;

/// What a plugin file is. All strings are static, NUL-terminated UTF-8 and live as long as the library. It only grows at its end ([`crate::growing::read_manifest`]).
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Manifest {
    /// [`MAGIC`].
    pub magic: u64,
    /// Bytes of this struct that the plugin knows.
    pub struct_size: u32,
    /// [`FLAVOUR_RUST`] or [`FLAVOUR_C`].
    pub flavour: u32,
    /// [`crate::ABI_MAJOR`] of the plugin.
    pub abi_major: u32,
    /// [`crate::ABI_MINOR`] of the plugin.
    pub abi_minor: u32,
    /// [`crate::ABI_CANDIDATE`] of the plugin.
    pub abi_candidate: u32,
    /// Zero.
    pub reserved: u32,
    /// The plugin's name, usually its crate's.
    pub name: *const c_char,
    /// The plugin's own version.
    pub version: *const c_char,
    /// A JSON object: `{"kinds": [{"kind": "source", "name": "kafka", "summary": "...", "config_schema": {...}}], "build": {...}}`.
    pub describe_json: *const c_char,
}

// SAFETY: points to static strings only.
unsafe impl Sync for Manifest {}
// SAFETY: as above.
unsafe impl Send for Manifest {}

/// The type of the function behind [`MANIFEST_SYMBOL`]. Never null on success.
pub type ManifestFn = unsafe extern "C" fn() -> *const Manifest;
