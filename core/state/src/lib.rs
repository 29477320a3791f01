//! Keyed state of an operator subtask: how a key is encoded, hashed and numbered ([`key`], [`keys`]), which subtask owns it ([`mod@key_group`]), and what is stored
//! behind it ([`value`], [`collections`], [`timers`], together in [`keyed`]).
//!
//! It holds everything in memory, or keyed state of plugins as a cache of what is on disk ([`scratch`]); it knows no clock: the engine's operators own it and pass time
//! in. Snapshots ([`snapshot`]) are Arrow record
//! batches with a `key_group` column, so that a restore works with another parallelism and other tools can read them; the engine writes them.

#![forbid(unsafe_code)]

pub mod changes;
pub mod collections;
mod convert;
pub mod key;
pub mod key_group;
pub mod keyed;
pub mod keys;
pub mod rows;
pub mod scratch;
pub mod snapshot;
pub mod timers;
pub mod value;

pub use changes::{Base, Changes, Cut, Said};
pub use key::{EncodedKeys, KeyError};
pub use key_group::{KeyGroup, KeyGroupRange, key_group, range_of, subtask_of};
pub use keyed::{CallState, KeyedStates, LazyTables, Tables};
pub use keys::{KeyIndex, Ordinals};
