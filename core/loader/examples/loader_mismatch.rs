//! A plugin for the loader's tests that claims the host's version of the contract, while its root module is another.
#![allow(unsafe_code, missing_docs, reason = "exports by hand what export_plugin! would")]
#![allow(non_local_definitions, reason = "abi_stable 0.11's derives trip it")]

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    prefix_type::PrefixTypeTrait,
    sabi_types::VersionStrings,
};
use standpipe_sdk::abi::{self, Manifest, manifest};

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef, prefix_fields = PluginPrefix)))]
#[sabi(missing_field(option))]
pub struct Plugin {
    #[sabi(last_prefix_field)]
    pub interface: extern "C" fn(kind: u32) -> u64,
}

impl RootModule for PluginRef {
    declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "standpipe_plugin";
    const NAME: &'static str = "standpipe plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

extern "C" fn interface(kind: u32) -> u64 {
    u64::from(kind)
}

extern "C" fn root() -> RootModuleResult {
    __call_root_module_loader(|| Plugin { interface }.leak_into_prefix())
}

#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static ROOT: LibHeader = unsafe { LibHeader::from_constructor::<PluginRef>(root, CheckTypeLayout::Yes) };

#[unsafe(no_mangle)]
pub extern "C" fn standpipe_plugin_manifest_v1() -> *const Manifest {
    static MANIFEST: Manifest = Manifest {
        magic: manifest::MAGIC,
        struct_size: size_of::<Manifest>() as u32,
        flavour: manifest::FLAVOUR_RUST,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        abi_candidate: abi::ABI_CANDIDATE,
        reserved: 0,
        name: c"loader-mismatch".as_ptr(),
        version: c"0.0.1".as_ptr(),
        describe_json: c"{}".as_ptr(),
    };
    &raw const MANIFEST
}
