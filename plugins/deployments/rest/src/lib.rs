//! A job manager as its clients see it: the REST interface, and what a deployment mode does by it. A part of the modes that submit to a job manager, not a plugin of its own:
//! how a manager is found, and what a handle has, is the mode's.
#![forbid(unsafe_code)]

mod client;
mod collect;
mod jobs;

pub use client::{Answer, Client, Peer, Roots, is_unknown};
pub use jobs::{JobId, Jobs};
