//! Pipeline files with the plugins of `fixture`: what is said about those that are wrong, and the plans of those that are right. One binary, because linking
//! DataFusion takes longer than all of the tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod errors;
mod explain;
mod fixture;
mod guarantees;
mod hash;
mod hostile;
mod mutations;
mod placement;
mod plans;
mod stand_ins;
