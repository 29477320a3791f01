//! Why there is no kind for what a pipeline names: one line that says what was wanted, what there is and where, and what was probably meant.

use crate::{LoadError, lock::NotLocked, reference::NoReference};
use std::{fmt, path::PathBuf};

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKind {
    /// The text names none.
    Reference(NoReference),
    /// Nothing has that name.
    Unknown(UnknownKind),
    /// It is there in other versions.
    Version(NoVersion),
    /// Two files have it, and nothing says which is meant.
    Twins(Box<Twins>),
    /// The file that is named cannot be loaded.
    File(LoadError),
    /// The file that is named does not have it.
    NotInFile(Box<NotInFile>),
    /// It may not be used.
    Locked(Box<NotLocked>),
}

impl NoKind {
    /// Whether there may be one of that name and another kind.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::NotInFile(_))
    }
}

impl fmt::Display for NoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(problem) => problem.fmt(f),
            Self::Unknown(problem) => problem.fmt(f),
            Self::Version(problem) => problem.fmt(f),
            Self::Twins(problem) => problem.fmt(f),
            Self::File(problem) => problem.fmt(f),
            Self::NotInFile(problem) => problem.fmt(f),
            Self::Locked(problem) => problem.fmt(f),
        }
    }
}

impl std::error::Error for NoKind {}

/// No plugin has this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind {
    /// `source`, `transform`, `sink`, `function` or `deployment`.
    pub kind: &'static str,
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub found: Vec<String>,
    /// Where was searched.
    pub searched: Box<[PathBuf]>,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// Files that could not be loaded: it may be in one of them.
    pub failures: Box<[String]>,
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} {:?}", self.kind, self.name)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, ", did you mean {suggestion:?}?")?;
        } else {
            f.write_str(".")?;
        }
        let list = |items: &[String]| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
        let searched: Vec<String> = self.searched.iter().map(|path| path.display().to_string()).collect();
        write!(f, " Found: {}. Searched: {}", list(&self.found), list(&searched))?;
        if !self.failures.is_empty() {
            write!(f, ". Not loaded: {}", self.failures.join("; "))?;
        }
        Ok(())
    }
}

/// A kind is there, and none of the wanted version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoVersion {
    /// `source`, `sink`, ...
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What was asked for: `1.2`.
    pub wanted: String,
    /// The versions that there are, with the files that have them; the first one is what a name without a version stands for.
    pub found: Vec<(String, PathBuf)>,
}

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, wanted, found } = self;
        write!(f, "there is no {kind} {name:?} of version {wanted}")?;
        if let Some((version, _)) = found.iter().rev().max_by_key(|(version, _)| alike(version, wanted)) {
            write!(f, ", did you mean {:?}?", format!("{name}@{version}"))?;
        }
        let found: Vec<String> = found.iter().map(|(version, path)| format!("{version} in {}", path.display())).collect();
        write!(f, " Found: {}", found.join(", "))
    }
}

/// How many of their first parts two versions have in common.
fn alike(one: &str, other: &str) -> usize {
    one.split('.').zip(other.split('.')).take_while(|(one, other)| one == other).count()
}

/// Two files of one place have one version of a kind, and other contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    /// `source`, `sink`, ...
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Of the plugins.
    pub version: String,
    /// The files.
    pub files: [PathBuf; 2],
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, version, files: [one, other] } = self;
        let (one, other) = (one.display(), other.display());
        write!(
            f,
            "two files have the {kind} {name:?} in version {version} and differ, {one} and {other}: remove one of them, or name one by its path, {one}#{name}"
        )
    }
}

/// A file that was named has no such kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInFile {
    /// The file as it was named.
    pub file: PathBuf,
    /// `source`, `sink`, ...
    pub kind: &'static str,
    /// What was asked for.
    pub name: String,
    /// What it has: `source kafka`.
    pub found: Vec<String>,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for NotInFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no {} {:?}", self.file.display(), self.kind, self.name)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, ", did you mean {suggestion:?}?")?,
            None => f.write_str(".")?,
        }
        let found = if self.found.is_empty() { "nothing".to_owned() } else { self.found.join(", ") };
        write!(f, " It has: {found}")
    }
}
