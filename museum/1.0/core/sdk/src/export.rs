//! What a plugin's library exports: the manifest in plain C, abi_stable's header, and the tables behind both.
#![allow(unsafe_code, reason = "hands out pointers to the tables")]

use crate::{
    AggregateFunction, Config, Deployment, ScalarFunction, Sink, Source, Transform,
    glue::{AggregateGlue, DeploymentGlue, ScalarGlue, SinkGlue, SourceGlue, TransformGlue, install_panic_hook},
    wire::{Description, KindDescription},
};
use standpipe_abi::{
    Manifest, Slice,
    abi_stable::{
        library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
        prefix_type::PrefixTypeTrait,
    },
    manifest,
    root::{InterfaceFn, Plugin, PluginRef},
};
use std::{
    ffi::{CString, c_char, c_void},
    sync::OnceLock,
};

/// The major version of the arrow crates that this SDK is built with.
const ARROW_MAJOR: &str = "59";

/// A kind of a plugin: its name, its tables, its description.
pub struct Kind {
    name: &'static str,
    tables: [Option<Table>; 2],
    describe: fn() -> KindDescription,
}

/// A table's name and version, and where it is.
struct Table(&'static str, *const c_void);

// SAFETY: the pointers are to constants.
unsafe impl Sync for Kind {}

impl Kind {
    /// The tables of a source and its enumerator.
    #[must_use]
    pub const fn source<S: Source>() -> Self {
        let reader = Table("source/1", (&raw const *const { &SourceGlue::<S>::READER }).cast());
        let enumerator = Table("enumerator/1", (&raw const *const { &SourceGlue::<S>::ENUMERATOR }).cast());
        Self { name: S::NAME, tables: [Some(reader), Some(enumerator)], describe: || describe::<S::Config>("source", S::NAME) }
    }

    /// The table of a transform.
    #[must_use]
    pub const fn transform<T: Transform>() -> Self {
        let table = Table("transform/1", (&raw const *const { &TransformGlue::<T>::TABLE }).cast());
        Self { name: T::NAME, tables: [Some(table), None], describe: || describe::<T::Config>("transform", T::NAME) }
    }

    /// The table of a sink.
    #[must_use]
    pub const fn sink<S: Sink>() -> Self {
        let table = Table("sink/1", (&raw const *const { &SinkGlue::<S>::TABLE }).cast());
        Self { name: S::NAME, tables: [Some(table), None], describe: || describe::<S::Config>("sink", S::NAME) }
    }

    /// The table of a scalar function.
    #[must_use]
    pub const fn scalar<F: ScalarFunction>() -> Self {
        let table = Table("scalar/1", (&raw const *const { &ScalarGlue::<F>::TABLE }).cast());
        Self { name: F::NAME, tables: [Some(table), None], describe: || describe::<F::Config>("scalar", F::NAME) }
    }

    /// The table of an aggregate function.
    #[must_use]
    pub const fn aggregate<F: AggregateFunction>() -> Self {
        let table = Table("aggregate/1", (&raw const *const { &AggregateGlue::<F>::TABLE }).cast());
        Self { name: F::NAME, tables: [Some(table), None], describe: || describe::<F::Config>("aggregate", F::NAME) }
    }

    /// The table of a deployment mode.
    #[must_use]
    pub const fn deployment<D: Deployment>() -> Self {
        let table = Table("deployment/1", (&raw const *const { &DeploymentGlue::<D>::TABLE }).cast());
        Self { name: D::NAME, tables: [Some(table), None], describe: || describe::<D::Config>("deployment", D::NAME) }
    }

    /// What a manifest says about it.
    #[must_use]
    pub fn description(&self) -> KindDescription {
        (self.describe)()
    }
}

fn describe<C: Config>(kind: &str, name: &str) -> KindDescription {
    let config_schema = schemars::schema_for!(C).to_value();
    let text = config_schema.get("description").and_then(serde_json::Value::as_str).unwrap_or_default();
    let summary = text.lines().next().unwrap_or_default().to_owned();
    KindDescription { kind: kind.to_owned(), name: name.to_owned(), summary, config_schema }
}

/// The table of a kind, or null ([`InterfaceFn`]).
#[must_use]
pub fn interface(kinds: &[Kind], kind: Slice, id: Slice) -> *const c_void {
    // SAFETY: the host's slices are alive for the call.
    let (Some(kind), Some(id)) = (unsafe { kind.as_str() }, unsafe { id.as_str() }) else { return std::ptr::null() };
    table(kinds, kind, id)
}

/// As [`interface`].
#[must_use]
pub fn table(kinds: &[Kind], kind: &str, id: &str) -> *const c_void {
    let mut tables = kinds.iter().filter(|known| known.name == kind).flat_map(|known| known.tables.iter().flatten());
    tables.find(|table| table.0 == id).map_or(std::ptr::null(), |table| table.1)
}

/// The manifest, made once. Null if its making panicked.
pub fn manifest(made: &OnceLock<Manifest>, kinds: &[Kind], name: &'static str, version: &'static str, profile: &str) -> *const Manifest {
    let make = || Manifest {
        magic: manifest::MAGIC,
        struct_size: size_of::<Manifest>() as u32,
        flavour: manifest::FLAVOUR_RUST,
        abi_major: standpipe_abi::ABI_MAJOR,
        abi_minor: standpipe_abi::ABI_MINOR,
        abi_candidate: standpipe_abi::ABI_CANDIDATE,
        reserved: 0,
        name: leak(name),
        version: leak(version),
        describe_json: leak(&serde_json::to_string(&description(kinds, profile)).unwrap_or_default()),
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| &raw const *made.get_or_init(make))).unwrap_or(std::ptr::null())
}

/// The manifest's JSON.
#[must_use]
pub fn description(kinds: &[Kind], profile: &str) -> Description {
    let build = [
        ("sdk", env!("CARGO_PKG_VERSION").to_owned()),
        ("arrow", ARROW_MAJOR.to_owned()),
        ("rustc", env!("STANDPIPE_RUSTC").to_owned()),
        ("target", env!("STANDPIPE_TARGET").to_owned()),
        ("profile", profile.to_owned()),
    ];
    let build = build.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    Description { kinds: kinds.iter().map(Kind::description).collect(), build }
}

/// Static text with a terminator; what follows a NUL is cut.
fn leak(text: &str) -> *const c_char {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).map_or(std::ptr::null(), |text| text.into_raw().cast_const())
}

/// The root module.
#[must_use]
pub fn module(interface: InterfaceFn) -> PluginRef {
    install_panic_hook();
    Plugin { interface }.leak_into_prefix()
}

/// The root module, as abi_stable asks for it.
#[must_use]
pub fn root(module: fn() -> PluginRef) -> RootModuleResult {
    __call_root_module_loader(module)
}

/// abi_stable's header.
#[must_use]
pub const fn header(root: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: `root` gives a `PluginRef`: it is made by `export_plugin!` around the functions above.
    unsafe { LibHeader::from_constructor::<PluginRef>(root, CheckTypeLayout::Yes) }
}

/// Whether `symbol` is the one that abi_stable looks for. (Its own attribute macro would make every plugin depend on abi_stable by that name.)
#[must_use]
pub const fn is_root_symbol(symbol: &str) -> bool {
    let (a, b) = (standpipe_abi::abi_stable::library::ROOT_MODULE_LOADER_NAME.as_bytes(), symbol.as_bytes());
    let mut same = a.len() == b.len();
    let mut index = 0;
    while same && index < a.len() {
        same = a[index] == b[index];
        index += 1;
    }
    same
}

/// Exports a plugin: `export_plugin! { sources: [Kafka], sinks: [KafkaSink], transforms: [Flag], scalars: [Double], aggregates: [Median], deployments: [Session] }`, each list optional, once per library.
#[macro_export]
macro_rules! export_plugin {
    ($($list:ident : [$($kind:ty),* $(,)?]),* $(,)?) => {
        #[cfg(not(panic = "unwind"))]
        compile_error!("a Standpipe plugin needs panic = \"unwind\": its panics become errors of the job");

        #[doc(hidden)]
        mod __standpipe_export {
            #[allow(unused_imports)]
            use super::*;
            use $crate::abi::{Manifest, Slice, abi_stable::library::{LibHeader, RootModuleResult}};

            static KINDS: &[$crate::export::Kind] = &[$($($crate::export_plugin!(@kind $list $kind)),*),*];

            unsafe extern "C" fn interface(kind: Slice, id: Slice) -> *const ::core::ffi::c_void {
                $crate::export::interface(KINDS, kind, id)
            }

            extern "C" fn root() -> RootModuleResult {
                $crate::export::root(|| $crate::export::module(interface))
            }

            const _: () = assert!($crate::export::is_root_symbol("_1as_0lib_1header_0root_bmodule_bloader"));

            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static STANDPIPE_ROOT: LibHeader = $crate::export::header(root);

            #[unsafe(no_mangle)]
            pub extern "C" fn standpipe_plugin_manifest_v1() -> *const Manifest {
                static MANIFEST: ::std::sync::OnceLock<Manifest> = ::std::sync::OnceLock::new();
                let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
                $crate::export::manifest(&MANIFEST, KINDS, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), profile)
            }
        }
    };
    (@kind sources $kind:ty) => { $crate::export::Kind::source::<$kind>() };
    (@kind transforms $kind:ty) => { $crate::export::Kind::transform::<$kind>() };
    (@kind sinks $kind:ty) => { $crate::export::Kind::sink::<$kind>() };
    (@kind scalars $kind:ty) => { $crate::export::Kind::scalar::<$kind>() };
    (@kind aggregates $kind:ty) => { $crate::export::Kind::aggregate::<$kind>() };
    (@kind deployments $kind:ty) => { $crate::export::Kind::deployment::<$kind>() };
    (@kind $other:ident $kind:ty) => { compile_error!(concat!("export_plugin! knows sources, transforms, sinks, scalars, aggregates and deployments, not ", stringify!($other))) };
}
