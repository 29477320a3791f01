//! A cluster, of a session or of one job alone: a job manager that decides where jobs run, task managers that run them in worker processes of their own, and the REST interface by which users
//! and task managers talk with the manager.
//!
//! - [`bundle`]: what a job is made of, and its checks.
//! - [`blobs`]: its files on a disk, by the hash of their content.
//! - [`protocol`]: what the manager and its task managers say to each other.
//! - [`manager`]: where jobs run; decisions alone. [`agent`]: the same for a task manager.
//! - [`triggers`]: savepoints and the like that users have asked for.
//! - [`status`]: how a job does. [`exposition`]: the same for Prometheus.
//! - [`tls`]: encryption of what is said with the manager.
//! - [`store`]: what the manager keeps.
//! - [`application`]: a manager that has one job alone, and ends with it.
//! - [`server`]: the manager as a process, with its REST interface.
//! - [`taskmanager`]: a task manager as a process, with its workers.
//! - [`restarts`], [`ends`]: when a job that failed is started again, and what is a failure. `standpipe run` asks them too.
#![forbid(unsafe_code)]

pub mod agent;
pub mod application;
pub mod blobs;
pub mod bundle;
pub mod ends;
pub mod exposition;
pub mod manager;
pub mod protocol;
pub mod restarts;
pub mod server;
pub mod status;
pub mod store;
pub mod taskmanager;
pub mod tls;
pub mod triggers;
