//! The root module of the Rust flavour: abi_stable's header and layout check around the one function that gives the tables.

use crate::value::Slice;
use abi_stable::{StableAbi, declare_root_module_statics, library::RootModule, package_version_strings, sabi_types::VersionStrings};
use std::ffi::c_void;

/// Gives the table of a kind (`kafka`) by the table's name and version (`source/1`), or null if there is none. The table is static.
///
/// The names are those of the modules: `source/1`, `enumerator/1`, `transform/1`, `sink/1`, `scalar/1`, `aggregate/1`, `lookup/1`, `deployment/1`.
pub type InterfaceFn = unsafe extern "C" fn(kind: Slice, id: Slice) -> *const c_void;

/// What a Rust plugin's library exports through abi_stable. It can only grow at the end, with optional members.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef, prefix_fields = PluginPrefix)))]
#[sabi(missing_field(option))]
pub struct Plugin {
    /// See [`InterfaceFn`].
    #[sabi(last_prefix_field)]
    pub interface: unsafe extern "C" fn(kind: Slice, id: Slice) -> *const c_void,
}

impl RootModule for PluginRef {
    declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "standpipe_plugin";
    const NAME: &'static str = "standpipe plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
