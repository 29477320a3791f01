//! Which program a plugin's process is, and what it may use.

use crate::Sandbox;
use std::{ffi::OsString, path::PathBuf};

/// How to start a process that does what [`crate::run`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Launcher {
    /// A program with arguments; behind them come `--parent ID`, this process, and `--of NAME`, which is for people who look at processes.
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// This program, also if its file has been replaced since it was started.
    pub fn this_program(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self::new("/proc/self/exe", arguments)
    }
}

/// What a plugin's process may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of its own; files that are mapped and batches in shared memory do not count.
    pub memory: Option<u64>,
    /// Which files; `None`: those that this process may use.
    pub sandbox: Option<Sandbox>,
}
