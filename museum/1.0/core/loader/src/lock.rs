//! A lock: the plugin files that a pipeline may run with, by the hash of their content. It is read and written elsewhere; here it says which of the files that were
//! found may be used, and in what order they are tried.

use crate::PluginFile;
use std::{
    collections::BTreeMap,
    env::consts::{ARCH, OS},
    fmt,
    path::PathBuf,
};

/// The platform of this host as locks name it: `x86_64-linux`.
#[must_use]
pub fn platform() -> String {
    format!("{ARCH}-{OS}")
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// The file that it was read from.
    pub path: PathBuf,
    /// In the order in which they are tried.
    pub plugins: Vec<LockedPlugin>,
}

/// A plugin that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedPlugin {
    /// Where it stands in the lock's file.
    pub line: u32,
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The file's name, for people.
    pub file: String,
    /// The kinds of it that the pipeline uses, for people: `source kafka`.
    pub kinds: Vec<String>,
    /// The SHA-256 of the file's content by platform, 64 hexadecimal digits.
    pub sha256: BTreeMap<String, String>,
}

impl LockedPlugin {
    fn is(&self, file: &PluginFile) -> bool {
        self.plugin == file.name && self.version == file.version
    }
}

impl Lock {
    /// Where in the order a file stands; none: it must not be used. Its content is read only if its name and version are there.
    #[must_use]
    pub fn place(&self, file: &PluginFile) -> Option<usize> {
        let platform = platform();
        let has = |locked: &LockedPlugin| locked.is(file) && locked.sha256.get(&platform).is_some_and(|hash| *hash == file.hash());
        self.plugins.iter().position(has)
    }

    /// Why none of these files may be used; the first one is what would be used without a lock.
    pub(crate) fn refusal<'a>(&self, files: impl Iterator<Item = &'a PluginFile> + Clone) -> Option<NotLocked> {
        let first = files.clone().next()?;
        let known = files.into_iter().find_map(|file| Some((file, self.plugins.iter().find(|locked| locked.is(file))?)));
        let (file, reason) = match known {
            Some((file, locked)) => (file, Self::refusal_of(locked, file)),
            None => {
                let others: Vec<&LockedPlugin> = self.plugins.iter().filter(|locked| locked.plugin == first.name).collect();
                (first, others.first().map_or(Refusal::Missing, |locked| Refusal::Version(locked.line, versions(&others))))
            }
        };
        let plugin = format!("{} {}", file.name, file.version);
        Some(NotLocked { lock: self.path.clone(), plugin, file: file.path.clone(), reason })
    }

    fn refusal_of(locked: &LockedPlugin, file: &PluginFile) -> Refusal {
        match locked.sha256.get(&platform()) {
            Some(expected) => Refusal::Content { line: locked.line, expected: expected.clone(), found: file.hash() },
            None => Refusal::Platform(locked.line, locked.sha256.keys().cloned().collect()),
        }
    }
}

fn versions(locked: &[&LockedPlugin]) -> String {
    locked.iter().map(|locked| locked.version.as_str()).collect::<Vec<_>>().join(", ")
}

/// A plugin file that a lock does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLocked {
    lock: PathBuf,
    plugin: String,
    file: PathBuf,
    reason: Refusal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    Missing,
    Version(u32, String),
    Content { line: u32, expected: String, found: String },
    Platform(u32, Vec<String>),
}

impl fmt::Display for NotLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, plugin, file, reason } = self;
        let (lock, file) = (lock.display(), file.display());
        match reason {
            Refusal::Missing => write!(f, "plugin {plugin} ({file}) is not in {lock}")?,
            Refusal::Version(line, versions) => write!(f, "plugin {plugin} ({file}) is not in {lock}, which has {versions} (line {line})")?,
            Refusal::Content { found, .. } if found.is_empty() => write!(f, "plugin {plugin}: {file} cannot be read any more")?,
            Refusal::Content { line, expected, found } => {
                write!(f, "plugin {plugin} is another one than in {lock}:{line}: expected sha256:{expected}, {file} has sha256:{found}")?
            }
            Refusal::Platform(line, platforms) => {
                let platforms = if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") };
                write!(f, "plugin {plugin} has no hash for {} in {lock}:{line}, which has {platforms}", platform())?;
            }
        }
        f.write_str("; `standpipe plugin lock` writes what is found now")
    }
}
