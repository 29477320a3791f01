//! A session cluster: a job manager that decides where jobs run, task managers that run them in worker processes of their own, and the REST interface by which users
//! and task managers talk with the manager.
//!
//! - [`bundle`]: what a job is made of, and its checks.
//! - [`blobs`]: its files on a disk, by the hash of their content.
#![forbid(unsafe_code)]

pub mod blobs;
pub mod bundle;
