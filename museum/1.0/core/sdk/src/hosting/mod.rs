//! The host's half of the tables: safe kinds and instances over the function tables of any plugin, Rust or C. The loader hands them the tables of files, an
//! author's tests ([`crate::testing`]) those of a type. The plugin's half is [`crate::glue`].
//!
//! A caller gives two things: [`HostServices`] for what an instance may ask at any time, and for a keyed transform a [`KeyedState`] with each call. No raw
//! pointer leaves this module. What a plugin returns is checked before it is used; a plugin that breaks the contract gets an error that names it.
//!
//! Kinds may be used on any thread. Instances are not `Send`: all calls on one, its making and its end among them, are on the thread that made it, as plugins are promised.
//! Functions are: one that is bound never changes, and the calls on an accumulator come one after another, wherever from.
#![allow(unsafe_code, reason = "calls the tables of the ABI")]

mod deployment;
mod error;
mod function;
mod instance;
mod kind;
mod pending;
mod services;
mod sink;
mod source;
mod state;
mod state_table;
mod table;
mod transform;

pub use deployment::DeploymentInstance;
pub use error::{Origin, PluginError};
pub use function::{AggregateFunction, AggregateGroups, AggregateKind, FunctionKind, ScalarFunction, ScalarKind};
pub use kind::{DeploymentKind, NodeInput, SinkKind, SinkValidation, SourceKind, SourceValidation, TransformKind, TransformValidation};
pub use services::{HostServices, InstanceContext};
pub use sink::SinkInstance;
pub use source::{Polled, SourceEnumerator, SourceReader, SplitPosition};
pub use state::{KeyedCall, KeyedState, LentColumn, StateError};
pub use table::{TableError, Tables};
pub use transform::{Begun, Emitted, Ended, TransformInstance};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the host's own code inside of a callback: a panic of the host must not unwind into the plugin.
fn shield<R>(fallback: R, call: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(fallback)
}
