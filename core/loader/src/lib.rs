//! Finds and loads plugins: files become a [`Catalogue`] of kinds, kinds become instances with safe methods.
//!
//! A file is taken in stages, each with one clear line when it fails: its ELF headers (no code of it runs), `dlopen`, the manifest, the layout check of abi_stable or
//! the C interface, the tables ([`LoadError`]). A library is never unloaded. The safe half of the tables, kinds' `validate` and all that follows, is the
//! SDK's `hosting` module, re-exported here, so that an author's tests drive a plugin the way the host does.
//!
//! Of one kind there may be several versions, in one process too: each file is a library of its own, and none sees the symbols of another. A pipeline says by name,
//! version or path which one it means ([`Reference`]), a [`Lock`] which files may be used at all.
//!
//! The planner and the engine call this crate; it never looks at a pipeline.
#![allow(unsafe_code, reason = "opens libraries and calls the functions that they export")]
#![deny(missing_docs)]

mod catalogue;
mod elf;
mod error;
mod file;
mod kinds;
mod library;
mod lock;
mod manifest;
mod missing;
mod reference;
mod search;

pub use catalogue::Catalogue;
pub use error::{LoadError, LoadProblem};
pub use file::{AbiVersion, Flavour, PluginFile};
pub use kinds::{AggregateKind, DeploymentKind, FileKinds, ScalarKind, SinkKind, SourceKind, TransformKind};
pub use library::inspect;
pub use lock::{Lock, LockedPlugin, NotLocked, platform};
pub use missing::{NoKind, NoVersion, NotInFile, Twins, UnknownKind};
pub use reference::{NoReference, Reference, VersionWanted};
pub use search::{SearchEntry, SearchPath};

pub use standpipe_sdk::abi::function::LITERAL;
pub use standpipe_sdk::{
    CloseReason, Committable, Error, ErrorCode, LogLevel, MetricKind, Recovered, Rejection as Rejected, TimeDomain, Timer, Volatility,
    Written, bundle,
    config::closest,
    deployment::{Collect, Handle},
    hosting::{
        AggregateFunction, AggregateGroups, Begun, DeploymentInstance, Emitted, Ended, HostServices, InstanceContext, KeyedCall,
        KeyedState, LentColumn, NodeInput, Origin, PluginError, Polled, ScalarFunction, SinkInstance, SinkValidation, SourceEnumerator,
        SourceReader, SourceValidation, SplitPosition, StateError, TransformInstance, TransformValidation,
    },
    wire::{self, Discovery, KindDescription, SplitDescription, SplitLag},
};
