//! What a pipeline calls a kind: its name, `kafka`; which versions of it, `kafka@1.2`; and the file that it is to be of, `./libmine.so#kafka`.

use semver::Version;
use std::{fmt, path::PathBuf};

/// A kind as a pipeline names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The file that it is of; none: it is searched.
    pub file: Option<PathBuf>,
    /// Its name.
    pub name: String,
    /// The versions of its plugin that will do; none: all.
    pub version: Option<VersionWanted>,
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoReference {
    /// A file alone.
    File(String),
    /// No name where one should be.
    Name(String),
    /// What is no version.
    Version(String),
}

impl Reference {
    /// Reads `[FILE#]NAME[@VERSION]`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NoReference> {
        let (file, kind) = match text.rsplit_once('#') {
            Some((file, kind)) => (Some(file), kind),
            None if text.contains('/') || text.ends_with(".so") => return Err(NoReference::File(text.to_owned())),
            None => (None, text),
        };
        let (name, version) = match kind.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (kind, None),
        };
        if name.is_empty() || file.is_some_and(str::is_empty) {
            return Err(NoReference::Name(text.to_owned()));
        }
        let version = version.map(|version| VersionWanted::parse(version).ok_or_else(|| NoReference::Version(version.to_owned())));
        Ok(Self { file: file.map(PathBuf::from), name: name.to_owned(), version: version.transpose()? })
    }
}

impl fmt::Display for NoReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{file:?} is a file: say which of its kinds is meant, {file}#NAME"),
            Self::Name(text) => write!(f, "{text:?} has no name: expected NAME, NAME@VERSION or FILE#NAME"),
            Self::Version(version) => {
                write!(f, "{version:?} is no version: expected 1, 1.2 or 1.2.3 (of the parts that are left out any will do), or 1.2.3-rc.1")
            }
        }
    }
}

impl std::error::Error for NoReference {}

/// Versions that will do: those whose first parts are the given ones. A pre-release is meant only where it is named in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionWanted {
    text: String,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Parts(Vec<u64>),
    Exactly(Version),
}

impl VersionWanted {
    fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| part.parse::<u64>().ok().filter(|number| number.to_string() == part);
        let parts: Option<Vec<u64>> = text.split('.').map(number).collect();
        let wanted = match parts {
            Some(parts) if parts.len() <= 3 => Wanted::Parts(parts),
            _ => Wanted::Exactly(Version::parse(text).ok()?),
        };
        Some(Self { text: text.to_owned(), wanted })
    }

    /// Whether that version of a plugin will do.
    #[must_use]
    pub fn takes(&self, version: &str) -> bool {
        let Ok(found) = Version::parse(version) else { return version == self.text };
        match &self.wanted {
            Wanted::Parts(parts) => found.pre.is_empty() && [found.major, found.minor, found.patch].starts_with(parts),
            Wanted::Exactly(version) => *version == found,
        }
    }
}

impl fmt::Display for VersionWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How new a version is: releases before pre-releases, these before what is no semantic version.
pub(crate) fn newness(version: &str) -> Option<(bool, Version)> {
    Version::parse(version).ok().map(|version| (version.pre.is_empty(), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_given_by_its_first_parts() {
        let takes = |wanted: &str, version: &str| VersionWanted::parse(wanted).map(|wanted| wanted.takes(version));
        for (wanted, version, expected) in [
            ("1", "1.9.0", true),
            ("1", "2.0.0", false),
            ("1", "10.0.0", false),
            ("0", "0.7.1", true),
            ("1.2", "1.2.0", true),
            ("1.2", "1.20.0", false),
            ("1.2", "1.3.0", false),
            ("1.2.3", "1.2.3", true),
            ("1.2.3", "1.2.4", false),
            ("1.2.3", "1.2.3+linux", true),
            ("1.2", "1.2.9-rc.1", false),
            ("1.2.9", "1.2.9-rc.1", false),
            ("1.2.9-rc.1", "1.2.9-rc.1", true),
            ("1.2.9-rc.1", "1.2.9", false),
            // What a plugin calls its version need not be a semantic one.
            ("1.2", "1.2", true),
        ] {
            assert_eq!(takes(wanted, version), Some(expected), "{wanted} {version}");
        }
        for text in ["", "v1", "1.", "1.x", "01", "^1.2", ">=1", "1.2.3.4", "latest", "1.2-rc.1", " 1"] {
            assert_eq!(VersionWanted::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_kind_is_named_with_its_version_and_its_file() {
        let parse = |text: &str| {
            let Reference { file, name, version } = Reference::parse(text).map_err(|problem| problem.to_string())?;
            Ok::<_, String>((file, name, version.map(|version| version.to_string())))
        };
        let named = |file: Option<&str>, name: &str, version: Option<&str>| {
            Ok((file.map(PathBuf::from), name.to_owned(), version.map(str::to_owned)))
        };
        assert_eq!(parse("kafka"), named(None, "kafka", None));
        assert_eq!(parse("kafka@1.2"), named(None, "kafka", Some("1.2")));
        assert_eq!(parse("./a#b/lib@x.so#kafka"), named(Some("./a#b/lib@x.so"), "kafka", None));
        assert_eq!(parse("lib.so#kafka@1.2.3"), named(Some("lib.so"), "kafka", Some("1.2.3")));
        for (text, message) in [
            ("./lib.so", "\"./lib.so\" is a file: say which of its kinds is meant, ./lib.so#NAME"),
            ("lib.so", "\"lib.so\" is a file: say which of its kinds is meant, lib.so#NAME"),
            ("@1.2", "\"@1.2\" has no name: expected NAME, NAME@VERSION or FILE#NAME"),
            ("./lib.so#", "\"./lib.so#\" has no name: expected NAME, NAME@VERSION or FILE#NAME"),
            ("#kafka", "\"#kafka\" has no name: expected NAME, NAME@VERSION or FILE#NAME"),
            ("kafka@1.x", "\"1.x\" is no version: expected 1, 1.2 or 1.2.3 (of the parts that are left out any will do), or 1.2.3-rc.1"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn releases_are_preferred_and_of_these_the_newest() {
        let mut versions = ["1.2.9", "1.10.0", "2.0.0-rc.1", "2.0.0-rc.2", "nightly", "0.9.0"];
        versions.sort_by_key(|version| std::cmp::Reverse(newness(version)));
        assert_eq!(versions, ["1.10.0", "1.2.9", "0.9.0", "2.0.0-rc.2", "2.0.0-rc.1", "nightly"]);
    }
}
