//! Where plugins are looked for, in order.

use std::path::{Path, PathBuf};

const VARIABLE: &str = "STANDPIPE_PLUGIN_PATH";
pub(crate) const BESIDE: &str = "plugins/ beside the binary";
pub(crate) const BINARY: &str = "the binary's directory";

/// A place to look in: a plugin file, or a directory of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchEntry {
    /// The file or directory.
    pub path: PathBuf,
    /// Who named it: `--plugin-path`, `STANDPIPE_PLUGIN_PATH`, the place in a pipeline file, ...
    pub origin: String,
}

/// All places, the first one first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchPath {
    /// In search order.
    pub entries: Vec<SearchEntry>,
}

impl SearchPath {
    /// The places that the pipeline file and the command line name, then those of the environment, then `plugins/` beside the binary and the binary's own directory.
    #[must_use]
    pub fn new(pipeline: &[SearchEntry], command_line: &[PathBuf]) -> Self {
        let mut path = Self::named(pipeline, command_line);
        if let Some(directory) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
            path.add_distribution(directory);
        }
        path
    }

    /// As [`SearchPath::new`], but with the distribution in that directory instead of the running one.
    #[must_use]
    pub fn of_distribution(directory: &Path, pipeline: &[SearchEntry], command_line: &[PathBuf]) -> Self {
        let mut path = Self::named(pipeline, command_line);
        path.add_distribution(directory);
        path
    }

    /// The places that somebody names.
    fn named(pipeline: &[SearchEntry], command_line: &[PathBuf]) -> Self {
        let mut path = Self::default();
        path.entries.extend_from_slice(pipeline);
        path.add(command_line, "--plugin-path");
        let variable = std::env::var_os(VARIABLE).unwrap_or_default();
        path.add(&std::env::split_paths(&variable).filter(|entry| !entry.as_os_str().is_empty()).collect::<Vec<_>>(), VARIABLE);
        path
    }

    fn add_distribution(&mut self, directory: &Path) {
        self.add(&[directory.join("plugins")], BESIDE);
        self.add(&[directory.to_owned()], BINARY);
    }

    fn add(&mut self, paths: &[PathBuf], origin: &str) {
        self.entries.extend(paths.iter().map(|path| SearchEntry { path: path.clone(), origin: origin.to_owned() }));
    }
}

impl SearchEntry {
    /// Whether somebody asked for it, so that it must be there.
    #[must_use]
    pub fn asked_for(&self) -> bool {
        self.origin != BESIDE && self.origin != BINARY
    }
}
