//! The manifest of a checkpoint: JSON that says what was cut, when, of which job, and which files hold it. It is all that a restore needs to begin with, and for
//! people and tools the table of contents.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The form of manifests and tables. A reader refuses a later one; a later reader reads all former ones.
pub const FORMAT: u32 = 1;

/// Why it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// By the interval; removed when newer ones make it needless.
    Checkpoint,
    /// On request; kept until it is removed on request.
    Savepoint,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// The release that wrote it.
    pub standpipe: String,
    /// The pipeline's name.
    pub job: String,
    /// The run's id, 32 hexadecimal digits.
    pub job_id: String,
    /// How often the job had been started.
    pub generation: u64,
    /// Its number; a job's checkpoints have ever higher ones, over all generations.
    pub id: u64,
    /// Why it was taken.
    pub kind: Kind,
    /// Its sources had been drained: all windows have fired, early. A job whose sources have more cannot go on from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    /// When it was triggered, microseconds since the epoch.
    pub triggered_micros: i64,
    /// From the trigger to the last file, microseconds.
    pub took_micros: i64,
    /// The plan's hash, hexadecimal.
    pub plan: String,
    /// The job's number of key groups: fixed with its first checkpoint.
    pub max_parallelism: u32,
    /// The plugins that the job ran with, by what used them (`sources.readings`, `functions.names`): a restore with others says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugins: BTreeMap<String, PluginUsed>,
    /// The state of every node that has some, by its path (`transforms.stats`).
    pub nodes: BTreeMap<String, NodeState>,
}

/// A plugin file, as it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUsed {
    /// The kind of it: `kafka`.
    pub kind: String,
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of the file's content, 64 hexadecimal digits.
    pub sha256: String,
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// What it does: `source`, `window`, `aggregate`, `transform`, `sink`. State is not restored into anything else.
    pub operator: String,
    /// How many subtasks it had.
    pub parallelism: u32,
    /// Its files by table, in the order in which they are applied.
    pub tables: BTreeMap<String, Vec<FileRef>>,
}

/// An Arrow IPC file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Relative to the job's folder.
    pub path: String,
    /// The subtask that wrote it.
    pub subtask: u32,
    /// The checkpoint that it was written for.
    pub checkpoint: u64,
    /// Rows in it.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// The first and last key group in it, where rows have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_groups: Option<(u16, u16)>,
    /// xxh3-64 of its content, hexadecimal.
    pub hash: String,
}

impl Manifest {
    /// Every file that it needs.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.nodes.values().flat_map(|node| node.tables.values().flatten())
    }

    /// The files of a table of one subtask, in the order in which they are applied.
    #[must_use]
    pub fn files_of(&self, node: &str, table: &str, subtask: u32) -> Vec<&FileRef> {
        let files = self.nodes.get(node).and_then(|state| state.tables.get(table)).into_iter().flatten();
        files.filter(|file| file.subtask == subtask).collect()
    }

    /// The paths of every file that it needs.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<&str> {
        self.files().map(|file| file.path.as_str()).collect()
    }

    /// The bytes of all of its files, and of those that were written for it.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        let of = |own: bool| self.files().filter(move |file| !own || file.checkpoint == self.id);
        let sum = |own: bool| of(own).fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        (sum(false), sum(true))
    }
}
