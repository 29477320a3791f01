//! A failure of a plugin as the host sees it.

use crate::{Error, ErrorCode};
use serde_json::{Map, Value};
use standpipe_abi as abi;
use std::{fmt, sync::Arc};

/// Which kind of which plugin a failure is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The plugin and its file: `kafka (libstandpipe_kafka.so 0.1.0)`.
    pub plugin: String,
    /// The part of a pipeline file that such nodes are in: `sources`, `transforms`, `sinks`.
    pub section: &'static str,
    /// The kind's name.
    pub kind: String,
}

/// A plugin failed, or broke the contract.
///
/// Displayed as one line: `sinks.out: elasticsearch: MESSAGE`; a panic as `transforms.flag: plugin "flag" panicked in process: MESSAGE at src/lib.rs:12:5`.
#[derive(Debug, Clone)]
pub struct PluginError {
    /// The plugin and its file: `kafka (libstandpipe_kafka.so 0.1.0)`.
    pub plugin: String,
    /// The section and name of the node.
    pub node: String,
    /// The kind and its plugin.
    pub origin: Arc<Origin>,
    /// What kind of failure.
    pub code: ErrorCode,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// One line for people.
    pub message: String,
    /// `path`, `suggestion`, `location`, `backtrace`, ...
    pub details: Map<String, Value>,
}

impl PluginError {
    /// A failure of that kind in that node.
    pub fn new(origin: &Arc<Origin>, node: &str, error: Error) -> Self {
        let section = origin.section;
        let node = match node {
            "" => String::new(),
            node if node.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')) => node.to_owned(),
            node => format!("{section}.{node}"),
        };
        Self {
            plugin: origin.plugin.clone(),
            node,
            origin: origin.clone(),
            code: error.code,
            retryable: error.retryable,
            message: error.message,
            details: error.details,
        }
    }

    /// What a function of the plugin's wrote.
    pub(super) fn read(origin: &Arc<Origin>, node: &str, error: &abi::Error) -> Self {
        Self::new(origin, node, Error::from_abi(error))
    }

    /// Where the plugin panicked: `src/lib.rs:12:5`.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.details.get("location").and_then(Value::as_str)
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.node.is_empty() {
            write!(f, "{}: ", self.node)?;
        }
        if self.code == ErrorCode::PANIC {
            return write!(f, "plugin {:?} {}", self.origin.kind, self.message);
        }
        write!(f, "{}: ", self.origin.kind)?;
        if let Some(path) = self.details.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()) {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        match self.details.get("suggestion").and_then(Value::as_str) {
            Some(suggestion) => write!(f, ", did you mean {suggestion:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PluginError {}
