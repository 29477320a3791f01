//! A plugin file as the host knows it.

use ring::digest::{Context, SHA256};
use standpipe_sdk::{abi, wire::Description};
use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// A version of the plugin contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbiVersion {
    /// Only equal majors work together.
    pub major: u32,
    /// Any two minors work together.
    pub minor: u32,
    /// Positive in the candidates of 1.0, which work with their equals only.
    pub candidate: u32,
}

impl AbiVersion {
    /// What this host speaks.
    pub const HOST: Self = Self { major: abi::ABI_MAJOR, minor: abi::ABI_MINOR, candidate: abi::ABI_CANDIDATE };

    /// Whether a plugin of this version works with that host.
    #[must_use]
    pub fn works_with(self, host: Self) -> bool {
        self.major == host.major && self.candidate == host.candidate && (self.candidate == 0 || self.minor == host.minor)
    }
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&abi::version_text(self.major, self.minor, self.candidate))
    }
}

/// How a plugin gives its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Through abi_stable's root module.
    Rust,
    /// Through a C function.
    C,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::C => "C",
        })
    }
}

/// A plugin: where it is and what it says of itself.
#[derive(Debug)]
pub struct PluginFile {
    /// Canonical.
    pub path: PathBuf,
    /// Usually its crate's name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it speaks.
    pub abi: AbiVersion,
    /// How it gives its tables.
    pub flavour: Flavour,
    /// Its kinds and how it was built.
    pub description: Description,
    /// Kept open: the content that was loaded, whatever becomes of the path.
    pub(crate) content: Option<File>,
    pub(crate) hash: OnceLock<String>,
}

impl PluginFile {
    /// The content's SHA-256 in 64 hexadecimal digits, computed at the first call: a file that is loaded already, by its place, length and times, is not read again.
    /// Empty if the content cannot be read any more, and for a plugin that is no file.
    #[must_use]
    pub fn hash(&self) -> String {
        let compute = || self.content.as_ref().and_then(|content| hash(content).ok()).unwrap_or_default();
        self.hash.get_or_init(compute).clone()
    }

    /// Whether the content is that of another one; a content that cannot be read is like no other. Cheaper than hashes.
    #[must_use]
    pub fn has_content_of(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.content.as_ref().zip(other.content.as_ref()).is_some_and(|(one, other)| is_same(one, other).unwrap_or(false))
    }

    /// A kind of it with its version, `kafka@0.1.0`; of a plugin that is no file the name alone.
    #[must_use]
    pub fn versioned(&self, kind: &str) -> String {
        if self.content.is_some() { format!("{kind}@{}", self.version) } else { kind.to_owned() }
    }

    /// `kafka (libstandpipe_kafka.so 0.1.0)`, for messages.
    #[must_use]
    pub fn label(&self) -> String {
        match self.path.file_name() {
            Some(file) => format!("{} ({} {})", self.name, file.to_string_lossy(), self.version),
            None => format!("{} {}", self.name, self.version),
        }
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let length = one.metadata()?.len();
    if other.metadata()?.len() != length {
        return Ok(false);
    }
    let (mut ours, mut theirs, mut at) = (vec![0; 1 << 17], vec![0; 1 << 17], 0);
    while at < length {
        let part = usize::try_from(length - at).unwrap_or(usize::MAX).min(ours.len());
        one.read_exact_at(&mut ours[..part], at)?;
        other.read_exact_at(&mut theirs[..part], at)?;
        if ours[..part] != theirs[..part] {
            return Ok(false);
        }
        at += part as u64;
    }
    Ok(true)
}

/// The content's hash.
pub(crate) fn hash(content: &File) -> io::Result<String> {
    let (mut hasher, mut buffer, mut at) = (Context::new(&SHA256), vec![0; 1 << 17], 0);
    loop {
        match content.read_at(&mut buffer, at)? {
            0 => return Ok(hasher.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => {
                hasher.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
}

/// What tells whether a path still holds the content that was loaded from it, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    place: (u64, u64),
    length: u64,
    changed: [(i64, i64); 2],
}

/// Opens a file for reading. A pipe or a device is none: it could be waited for for ever.
pub(crate) fn open(path: &Path) -> io::Result<(File, std::fs::Metadata)> {
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file but a pipe, a socket or a device"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

impl Identity {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            changed: [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_work_with_their_equals_only() {
        let version = |major, minor, candidate| AbiVersion { major, minor, candidate };
        assert!(version(1, 0, 1).works_with(version(1, 0, 1)));
        assert!(!version(1, 0, 1).works_with(version(1, 0, 2)) && !version(1, 0, 0).works_with(version(1, 0, 1)));
        assert!(version(1, 3, 0).works_with(version(1, 0, 0)) && version(1, 0, 0).works_with(version(1, 3, 0)));
        assert!(!version(2, 0, 0).works_with(version(1, 0, 0)));
        assert_eq!((version(1, 2, 0).to_string(), version(1, 0, 4).to_string()), ("1.2".to_owned(), "1.0.0-rc.4".to_owned()));
    }
}
