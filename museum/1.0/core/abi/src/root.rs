//! The root module of the Rust flavour: abi_stable's header and layout check around the one function that gives the tables.

use crate::value::Slice;
use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::check_layout_compatibility,
    declare_root_module_statics,
    library::{AbiHeaderRef, LibraryError, RootModule},
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::RBoxError,
};
use std::ffi::c_void;

/// Gives the table of a kind (`kafka`) by the table's name and version (`source/1`), or null if there is none. The table is static.
///
/// The names are those of the modules: `source/1`, `enumerator/1`, `transform/1`, `sink/1`, `scalar/1`, `aggregate/1`, `deployment/1`.
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

/// The root module behind a header, if its layout fits; for hosts. `theirs` and `ours` are the minor versions of plugin and host.
///
/// abi_stable's check is one-way: the host's fields must all be in the plugin. For a plugin of an older minor version the question is turned round: is the plugin's
/// module a prefix of the host's? The accessors of the fields that it lacks then give `None`.
///
/// # Errors
/// When the major versions or the layouts differ.
pub fn checked_module<M: RootModule>(header: AbiHeaderRef, theirs: u32, ours: u32) -> Result<M, LibraryError> {
    let header = header.upgrade()?;
    if theirs >= ours {
        return header.init_root_module::<M>();
    }
    if let Some(layout) = header.layout() {
        let check = check_layout_compatibility(layout, <M as StableAbi>::LAYOUT);
        check.map_err(|errors| LibraryError::AbiInstability(RBoxError::from_fmt(&errors)))?;
    }
    // SAFETY: the layout has been checked, in the direction that an older plugin needs; the major version is checked within.
    unsafe { header.init_root_module_with_unchecked_layout::<M>() }
}

#[cfg(test)]
#[allow(missing_docs, reason = "types of tests")]
mod tests {
    use super::*;
    use abi_stable::{
        library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
        prefix_type::PrefixTypeTrait,
    };

    /// The root module of a later minor version.
    #[allow(unreachable_pub, dead_code, reason = "as abi_stable's derive writes its accessors")]
    mod newer {
        use super::*;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = PluginRef, prefix_fields = PluginPrefix)))]
        #[sabi(missing_field(option))]
        pub struct Plugin {
            #[sabi(last_prefix_field)]
            pub interface: unsafe extern "C" fn(kind: Slice, id: Slice) -> *const c_void,
            pub more: extern "C" fn() -> u32,
        }

        impl RootModule for PluginRef {
            declare_root_module_statics! {PluginRef}
            const BASE_NAME: &'static str = "standpipe_plugin";
            const NAME: &'static str = "standpipe plugin";
            const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.1.0");
        }
    }

    unsafe extern "C" fn interface(_: Slice, _: Slice) -> *const c_void {
        std::ptr::dangling()
    }

    extern "C" fn more() -> u32 {
        7
    }

    extern "C" fn old_root() -> RootModuleResult {
        __call_root_module_loader(|| Plugin { interface }.leak_into_prefix())
    }

    extern "C" fn new_root() -> RootModuleResult {
        __call_root_module_loader(|| newer::Plugin { interface, more }.leak_into_prefix())
    }

    // SAFETY: the functions give modules of these types.
    static OLD: LibHeader = unsafe { LibHeader::from_constructor::<PluginRef>(old_root, CheckTypeLayout::Yes) };
    static NEW: LibHeader = unsafe { LibHeader::from_constructor::<newer::PluginRef>(new_root, CheckTypeLayout::Yes) };

    fn header(header: &'static LibHeader) -> AbiHeaderRef {
        // SAFETY: it is a pointer to the header, as dlsym gives it.
        unsafe { std::mem::transmute(header) }
    }

    fn module<M: RootModule>(of: &'static LibHeader, theirs: u32, ours: u32) -> M {
        checked_module(header(of), theirs, ours).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_older_host_takes_a_newer_plugin() {
        let root: PluginRef = module(&NEW, 1, 0);
        // SAFETY: a function without conditions.
        assert!(!unsafe { root.interface()(Slice::EMPTY, Slice::EMPTY) }.is_null());
    }

    #[test]
    fn a_newer_host_takes_an_older_plugin() {
        assert!(module::<newer::PluginRef>(&OLD, 0, 1).more().is_none());
        assert_eq!(module::<newer::PluginRef>(&NEW, 1, 1).more().map(|more| more()), Some(7));
    }

    #[test]
    fn the_check_of_abi_stable_alone_is_one_way() {
        // What `checked_module` is for: without the turn a newer host refuses an older plugin.
        assert!(checked_module::<newer::PluginRef>(header(&OLD), 1, 1).is_err());
    }
}
