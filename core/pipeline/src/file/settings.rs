//! What the configuration of a deployment says of the engine: keys of the file's `engine:`, and `parallelism`, `checkpoint.KEY`, `restart.KEY`. The file is stronger: where it
//! says something itself, the setting is overridden, which the caller tells the user.

use super::LoadOptions;
use crate::{
    diagnostic::Report,
    yaml::{self, Node},
};

/// A setting of the engine from outside of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSetting {
    /// `batch_rows`, `parallelism`, `checkpoint.interval`.
    pub key: String,
    /// YAML.
    pub value: String,
    /// How messages name it: `-D engine.batch_rows=100`.
    pub origin: String,
}

/// A setting that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// Its key.
    pub key: String,
    /// What is stronger: `--parallelism`, or a key of the file with its place.
    pub winner: String,
}

/// Keys of the job, not of its `engine:`.
const OF_THE_JOB: [&str; 3] = ["parallelism", "checkpoint", "restart"];

/// Puts the settings where the file says nothing; gives those that have no effect. `first` is the source of the first one in the report.
pub(super) fn apply(root: &mut Node, options: &LoadOptions, first: u16, report: &Report) -> Vec<Overridden> {
    // Settings are no winners over each other.
    let written = root.clone();
    let mut overridden = Vec::new();
    for (source, setting) in (first..).zip(&options.settings) {
        let block = setting.key.split('.').next().unwrap_or_default();
        let path = if OF_THE_JOB.contains(&block) { setting.key.clone() } else { format!("engine.{}", setting.key) };
        // The keys of `restart` depend on its strategy: it is one whole.
        let winner = if block == "restart" { place(&written, block, report) } else { place(&written, &path, report) };
        let winner = if path == "parallelism" && options.parallelism.is_some() { Some("--parallelism".to_owned()) } else { winner };
        match winner {
            Some(winner) => overridden.push(Overridden { key: setting.key.clone(), winner }),
            None => yaml::set(root, &path, &setting.value, source, report),
        }
    }
    overridden
}

/// The key as the file has it, and where; `None` if it says nothing of it.
fn place(root: &Node, path: &str, report: &Report) -> Option<String> {
    let mut node = root;
    let mut span = root.span;
    for key in path.split('.') {
        // What is no map is an error of the file, which the reader finds.
        let entry = node.get(key)?;
        (node, span) = (&entry.value, entry.key_span);
    }
    Some(format!("{path} at {}", report.place(span)))
}
