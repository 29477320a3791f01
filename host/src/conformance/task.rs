//! What the child of `plugin check` is told, on its standard input, and what it notes, a line of JSON each.

use super::configuration;
use crate::cli::CheckArguments;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use standpipe_conformance::Finding;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// See the module's documentation.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub(crate) struct Task {
    pub(crate) file: PathBuf,
    /// Empty with a pipeline: its node says which.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) pipeline: Option<Node>,
    pub(crate) schema: Option<String>,
    pub(crate) input: Option<PathBuf>,
    pub(crate) key: Vec<String>,
    pub(crate) arguments: Option<String>,
    pub(crate) seed: u64,
    pub(crate) batches: Option<u64>,
    pub(crate) deadline: Duration,
    pub(crate) only: Vec<String>,
    /// Where it notes what it does.
    pub(crate) events: PathBuf,
}

/// A node of a pipeline.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub(crate) struct Node {
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    pub(crate) set: Vec<(String, String)>,
    pub(crate) plugin_path: Vec<PathBuf>,
}

/// What a child does.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// It tries this, by these checks.
    Subject { kind: String, name: String, checks: Vec<String> },
    /// It cannot be tried: one line.
    Unusable(String),
    /// A check has begun.
    Began(String),
    /// It has ended.
    Found(Finding),
}

impl Task {
    /// What all kinds of the file are tried with.
    pub(super) fn new(arguments: &CheckArguments, file: &Path) -> anyhow::Result<Self> {
        let node = |(file, name): (&PathBuf, &String)| Node {
            file: file.clone(),
            name: name.clone(),
            set: arguments.set.clone(),
            plugin_path: arguments.plugins.plugin_path.clone(),
        };
        Ok(Self {
            file: file.to_owned(),
            kind: String::new(),
            name: String::new(),
            config: configuration(arguments.config.as_deref())?,
            pipeline: arguments.pipeline.as_ref().zip(arguments.node.as_ref()).map(node),
            schema: arguments.schema.clone(),
            input: arguments.input.clone(),
            key: arguments.key.clone(),
            arguments: arguments.arguments.clone(),
            seed: arguments.seed,
            batches: if arguments.thorough { Some(super::THOROUGH) } else { arguments.batches },
            deadline: arguments.deadline,
            only: arguments.only.clone(),
            events: PathBuf::new(),
        })
    }
}
