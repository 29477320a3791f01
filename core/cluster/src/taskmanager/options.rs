//! How a task manager is run, and why it does not.

use super::{Limits, LimitsError};
use crate::{
    blobs::BlobError,
    protocol::{Beat, Order},
    tls,
};
use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// What a worker process is to be.
pub struct WorkerSpec<'a> {
    /// What it runs.
    pub order: &'a Order,
    /// Where the bundle is laid out: its current directory.
    pub folder: &'a Path,
    /// Where its sockets are; nobody else's are there.
    pub sockets: &'a Path,
    /// Until when it may run: see [`super::lease::watch`].
    pub lease: &'a Path,
    /// The name or address that other machines reach this one by.
    pub host: &'a str,
}

/// The command of a worker.
pub type Launcher = Box<dyn Fn(&WorkerSpec<'_>) -> io::Result<Command>>;

/// Hears every beat, and whether the manager has answered the one before it.
pub type Observer = Box<dyn Fn(&Beat, bool) + Send>;

/// How a task manager is run.
pub struct TaskManagerOptions {
    /// Of the manager: `http://127.0.0.1:8081`.
    pub manager: String,
    /// Of the manager, if it wants one.
    pub token: Option<String>,
    /// By whom a manager is known that speaks TLS; none: by those that everybody knows.
    pub authority: Option<PathBuf>,
    /// How many.
    pub slots: u32,
    /// The name or address that other machines reach this one by.
    pub host: String,
    /// Blobs, jobs' folders and logs; none else may use it.
    pub data: PathBuf,
    /// Of its workers, by slot.
    pub limits: Limits,
    /// See there.
    pub launcher: Launcher,
    /// Hears what the manager is told.
    pub observer: Option<Observer>,
}

/// Why a task manager does not run.
#[derive(Debug, thiserror::Error)]
pub enum TaskManagerError {
    /// The manager does not want it.
    #[error("{manager}: {reason}")]
    Refused {
        /// Which.
        manager: String,
        /// What it said.
        reason: String,
    },
    /// Another one has it.
    #[error("{0}: another task manager uses this data; give each one a --data folder of its own")]
    Taken(PathBuf),
    /// Its workers' limits.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Its authority.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Its folder.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The system refused.
    #[error("the task manager cannot run: {0}")]
    System(#[from] io::Error),
}
