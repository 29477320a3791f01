//! Why a file is no usable plugin: one line, one variant per stage.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A file cannot be used as a plugin. Displayed as one line that begins with the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    path: PathBuf,
    problem: LoadProblem,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadProblem {
    /// It cannot be opened or read: missing, no permission.
    Unreadable(String),
    /// It is a directory where a file is needed.
    Directory,
    /// It has no bytes.
    Empty,
    /// It is no shared library for Linux; what it is instead.
    NotALibrary(String),
    /// It is for another processor.
    Architecture {
        /// What it is for.
        found: String,
        /// What this host runs on.
        host: &'static str,
    },
    /// It ends before its headers say.
    Truncated {
        /// Its bytes.
        found: u64,
        /// The bytes that its headers speak of.
        expected: u64,
    },
    /// The system's loader refused it: a missing symbol or library.
    Refused(String),
    /// It is a library, but no plugin: it has no manifest.
    NoManifest,
    /// Its manifest is damaged.
    BadManifest(String),
    /// It speaks another version of the contract.
    Version {
        /// Its name and version.
        plugin: String,
        /// What it speaks.
        found: String,
        /// What this host speaks.
        host: String,
    },
    /// It says that it speaks this version, but its types differ.
    Layout {
        /// Its name and version.
        plugin: String,
        /// The first difference.
        difference: String,
    },
    /// What its manifest promises is not there.
    Interface {
        /// Its name and version.
        plugin: String,
        /// What is missing.
        missing: String,
    },
}

impl LoadError {
    pub(crate) fn new(path: &Path, problem: LoadProblem) -> Self {
        Self { path: path.to_owned(), problem }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn problem(&self) -> &LoadProblem {
        &self.problem
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Self::Directory => f.write_str("is a directory, not a plugin file"),
            Self::Empty => f.write_str("is empty"),
            Self::NotALibrary(what) => write!(f, "is {what}, not a shared library for Linux"),
            Self::Architecture { found, host } => write!(f, "is built for {found}, this host runs on {host}"),
            Self::Truncated { found, expected } => write!(f, "is truncated: it has {found} bytes, its headers speak of {expected}"),
            Self::Refused(reason) => write!(f, "the system's loader refuses it: {reason}"),
            Self::NoManifest => {
                f.write_str("is no Standpipe plugin: it has no symbol standpipe_plugin_manifest_v1 (export_plugin! makes it)")
            }
            Self::BadManifest(reason) => write!(f, "its plugin manifest is damaged: {reason}"),
            Self::Version { plugin, found, host } => {
                write!(
                    f,
                    "plugin {plugin} speaks plugin ABI {found}, this host speaks {host}: rebuild the plugin with standpipe-sdk {host}"
                )
            }
            Self::Layout { plugin, difference } => {
                write!(f, "plugin {plugin} has another layout than its plugin ABI version says: {difference}")
            }
            Self::Interface { plugin, missing } => write!(f, "plugin {plugin} does not export what its manifest promises: {missing}"),
        }
    }
}
