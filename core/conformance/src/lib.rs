//! The conformance suite for plugins: what a host relies on, tried on a plugin's own tables, one check after another. Each check has a [`Finding`]: passed, failed with what the
//! plugin did, or skipped with the reason.
//!
//! `standpipe plugin check FILE` runs it on a plugin file, each kind in a process of its own; an author's tests run it on their own type, through the same tables:
//! [`Suite`] has an example. It tries what is declared: a source that is `replayable` must give the same rows again, one that is not is not asked to. It cannot see behind a sink: that
//! what was committed is there, and there once, is for an author's own test.
//!
//! Nothing here knows of the engine: the suite plays the host, by the contract alone (`docs/abi.md`).
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod aggregate;
mod check;
mod configuration;
mod data;
mod deployment;
mod functions;
mod process;
mod report;
mod rows;
mod scalar;
mod sink;
mod source;
mod suite;
mod transform;
mod watch;

pub use report::{Finding, Report, Verdict};
pub use suite::{Listed, Ready, Subject, Suite, Unusable, checks};

use std::time::Duration;

/// The check that takes as long as it is told.
const LEAKS: &str = "leaks";
/// The check in which a call is told to come back.
const CANCELLATION: &str = "cancellation";
/// How long a call runs before it is told.
const UNTIL_CANCELLED: Duration = Duration::from_millis(200);
/// Instances of which each might leave a thread behind.
const LIVES: usize = 4;
