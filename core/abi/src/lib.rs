//! The plugin contract: what crosses between the host and a plugin, and nothing else.
//!
//! Everything here is a C type: `#[repr(C)]` structs, function tables, the Arrow C data interface. No arrow-rs, tokio or Rust `std` type crosses,
//! so that a plugin built with another compiler, another Arrow or in another language loads all the same. `abi_stable` carries only the header
//! and the root module of the Rust flavour ([`root`]); a C plugin exports the tables alone. `include/standpipe_plugin.h` is generated from this crate.
//!
//! Rules that every item keeps (see `docs/abi.md`):
//! - A struct begins with its `size` in bytes and grows at its end, and is read and written as far as both sides know it; or it has no size, and is frozen ([`growing`]).
//! - A function returns a [`Status`]; what went wrong is in the [`Error`] that the caller passed. Nothing unwinds across.
//! - Calls on one instance, from `create` to `destroy`, are serial and on one thread. An Arrow `release` may be called on any thread at any time.
//! - Who allocates releases: memory that changes hands carries its own release function ([`Buffer`], the Arrow structs).
//!
//! This crate has no logic but these two: how structs are read and written, and abi_stable's check ([`root::checked_module`]). The SDK puts Rust traits before these tables for authors; the loader puts safe traits before them for the host.
#![allow(unsafe_code, reason = "function tables over C types; each unsafe item states what its caller must keep")]
#![allow(non_local_definitions, reason = "abi_stable 0.11's derives trip it once per type")]
#![deny(missing_docs)]

pub use abi_stable;

pub mod arrow_c;
pub mod deployment;
pub mod error;
pub mod function;
pub mod growing;
pub mod host;
pub mod manifest;
pub mod root;
pub mod sink;
pub mod source;
pub mod state;
pub mod transform;
pub mod validate;
pub mod value;

pub use arrow_c::{ArrowArray, ArrowArrayStream, ArrowDeviceArray, ArrowSchema, Batch};
pub use error::{Error, ErrorCode, Status};
pub use host::{Context, HostTable};
pub use manifest::Manifest;
pub use validate::{Validation, ValidationInput};
pub use value::{Buffer, Slice};

/// The contract's major version: only equal majors work together.
pub const ABI_MAJOR: u32 = 1;
/// The contract's minor version: within a major it only grows, and any two minors work together.
pub const ABI_MINOR: u32 = 1;
/// Zero since 1.0, and for ever. Before it there were candidates, `1.0.0-rc.N`, that work with their equals only.
pub const ABI_CANDIDATE: u32 = 0;

/// A version of the contract for people: `1.0`.
#[must_use]
pub fn version_text(major: u32, minor: u32, candidate: u32) -> String {
    match candidate {
        0 => format!("{major}.{minor}"),
        n => format!("{major}.{minor}.0-rc.{n}"),
    }
}
