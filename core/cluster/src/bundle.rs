//! A bundle: what a job is made of, as a document that names files by the hash of their content. Whoever submits it writes it, the job manager and the task managers
//! read it; both check it by [`Bundle::check`] before anything of it touches a disk. Its files are blobs (`blobs`), sent apart from it and only where they are missing.

use serde::{Deserialize, Serialize};
use standpipe_trace::{Context, NoContext};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Read},
    path::{Component, Path},
    str::FromStr,
};

/// Of one file of a bundle, in bytes: plugins with debug information are large.
pub const MOST_BYTES: u64 = 1 << 30;
/// Of all files of a bundle.
pub const MOST_BYTES_IN_ALL: u64 = 4 << 30;
/// Files of a bundle.
pub const MOST_FILES: usize = 1000;
/// Of a path in a bundle, in bytes.
pub const LONGEST_PATH: usize = 255;
/// Of the bundle's document.
pub const LONGEST_DOCUMENT: usize = 4 << 20;
/// Of a job's name, in bytes.
const LONGEST_NAME: usize = 255;
/// As the command line has it.
const MOST_SUBTASKS: u32 = 4096;
const PREFIX: &str = "sha256:";

/// The SHA-256 of a file's content; as text `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

/// A text that is no [`struct@Hash`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hash: expected sha256: and 64 hexadecimal digits in lower case")]
pub struct NoHash(String);

impl Hash {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Of all that can be read, and how many bytes that is.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read(mut from: impl Read) -> io::Result<(Self, u64)> {
        let (mut hasher, mut bytes, mut buffer) = (Hasher::default(), 0, vec![0; 1 << 16]);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok((hasher.finish(), bytes)),
                Ok(read) => {
                    hasher.update(buffer.get(..read).unwrap_or_default());
                    bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The 64 digits alone: the name of its file.
    #[must_use]
    pub fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Makes a [`struct@Hash`] of what comes in pieces.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// More of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all that came.
    #[must_use]
    pub fn finish(self) -> Hash {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(self.0.finish().as_ref()) {
            *to = *from;
        }
        Hash(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.digits())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let no_hash = || NoHash(text.chars().take(LONGEST_PATH).collect());
        let digits = text.strip_prefix(PREFIX).ok_or_else(no_hash)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(no_hash());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = digits.get(2 * i..2 * i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(no_hash)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where the job finds it, relative to the job's folder; parts are separated by `/`.
    pub path: String,
    /// Of its content.
    pub hash: Hash,
    /// Its length.
    pub bytes: u64,
}

/// How the job is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// As `run --parallelism`.
    pub parallelism: Option<u32>,
    /// As `run --restore`.
    pub restore: Option<String>,
    /// As `run --allow-non-restored-state`.
    pub allow_non_restored_state: bool,
    /// The span that the job's trace goes on from, as W3C's Trace Context has it; it changes nothing of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// A job's bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The release that wrote it: `0.1.0`.
    pub standpipe: String,
    /// The pipeline's name.
    pub name: String,
    /// The pipeline file.
    pub pipeline: File,
    /// Plugin files; they are found in a folder of their own.
    #[serde(default)]
    pub plugins: Vec<File>,
    /// What the pipeline reads by a relative path.
    #[serde(default)]
    pub resources: Vec<File>,
    /// Flat keys, `engine.parallelism`, as they were given on submission.
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    /// See there.
    #[serde(default)]
    pub options: Options,
}

/// A bundle that several have, in documents as if one alone had it. (serde's own `rc` would be on for the whole tree.)
pub(crate) mod shared {
    use super::Bundle;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(crate) fn serialize<S: Serializer>(bundle: &Arc<Bundle>, serializer: S) -> Result<S::Ok, S::Error> {
        bundle.as_ref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Bundle>, D::Error> {
        Bundle::deserialize(deserializer).map(Arc::new)
    }
}

/// The folder of a bundle's plugins beside its pipeline.
pub const PLUGINS: &str = "plugins";

/// What is wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not the document that is expected.
    #[error("the bundle is not understood: {0}")]
    Document(String),
    /// Written by another release than can be run.
    #[error("the bundle was written by standpipe {0:?}, which this release ({own}) cannot run", own = env!("CARGO_PKG_VERSION"))]
    Release(String),
    /// What is no span.
    #[error("options.traceparent: {0:?} is {NoContext}")]
    Traceparent(String),
    /// A name that is no name.
    #[error("the bundle's name {0:?} must have 1 to {LONGEST_NAME} bytes and no control characters")]
    Name(String),
    /// A path that leads out of the job's folder, or into the dark.
    #[error("{0:?} is no path within the job's folder: {1}")]
    Path(String, &'static str),
    /// Two files of one path.
    #[error("{0:?} is in the bundle twice")]
    Twice(String),
    /// A file where another one needs a folder.
    #[error("{0:?} is in the bundle, and {1:?} needs a folder of that name")]
    Folder(String, String),
    /// A file that is too large.
    #[error("{0:?} has {1} bytes; a file of a bundle may have {MOST_BYTES}")]
    Large(String, u64),
    /// Together they are.
    #[error("the files of the bundle have {0} bytes; together they may have {MOST_BYTES_IN_ALL}")]
    LargeInAll(u64),
    /// Too many.
    #[error("the bundle has {0} files; it may have {MOST_FILES}")]
    Many(usize),
    /// No such parallelism.
    #[error("options.parallelism: {0} is not between 1 and {MOST_SUBTASKS}")]
    Parallelism(u32),
    /// It needs the other one.
    #[error("options.allow_non_restored_state needs options.restore")]
    NothingRestored,
    /// A key or value that could be taken for something else.
    #[error("configuration: {0:?} is no key: expected parts of letters, digits, _ and - with . between them")]
    Key(String),
}

impl Bundle {
    /// Reads a document and checks it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(document: &[u8]) -> Result<Self, Vec<BundleError>> {
        if document.len() > LONGEST_DOCUMENT {
            return Err(vec![BundleError::Document(format!("it is longer than {LONGEST_DOCUMENT} bytes"))]);
        }
        let bundle: Self = serde_json::from_slice(document).map_err(|error| vec![BundleError::Document(shortened(&error.to_string()))])?;
        let problems = bundle.check();
        if problems.is_empty() { Ok(bundle) } else { Err(problems) }
    }

    /// Its files: pipeline, plugins, resources.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        [&self.pipeline].into_iter().chain(&self.plugins).chain(&self.resources)
    }

    /// All that is wrong with it. None of its files is looked at.
    #[must_use]
    pub fn check(&self) -> Vec<BundleError> {
        let mut problems = Vec::new();
        if !is_ours(&self.standpipe) {
            problems.push(BundleError::Release(shortened(&self.standpipe)));
        }
        if self.name.is_empty() || self.name.len() > LONGEST_NAME || self.name.chars().any(char::is_control) {
            problems.push(BundleError::Name(shortened(&self.name)));
        }
        let files = 1 + self.plugins.len() + self.resources.len();
        if files > MOST_FILES {
            problems.push(BundleError::Many(files));
        }
        let mut paths = BTreeSet::new();
        let placed = |folder: &str, file: &File| if folder.is_empty() { file.path.clone() } else { format!("{folder}/{}", file.path) };
        let beside = [&self.pipeline].into_iter().chain(&self.resources).map(|file| (file, placed("", file)));
        for (file, path) in beside.chain(self.plugins.iter().map(|file| (file, placed(PLUGINS, file)))) {
            problems.extend(check_path(&file.path));
            if file.bytes > MOST_BYTES {
                problems.push(BundleError::Large(shortened(&file.path), file.bytes));
            }
            if !paths.insert(path) {
                problems.push(BundleError::Twice(shortened(&file.path)));
            }
        }
        let is_file = |folder: &&str| paths.contains(*folder);
        let of_plugins = Some(PLUGINS).filter(is_file).map(|folder| BundleError::Folder(folder.to_owned(), format!("{folder}/")));
        problems.extend(of_plugins);
        for path in &paths {
            let mut folders = path.match_indices('/').filter_map(|(end, _)| path.get(..end)).filter(|folder| *folder != PLUGINS);
            if let Some(folder) = folders.find(is_file) {
                problems.push(BundleError::Folder(shortened(folder), shortened(path)));
            }
        }
        let bytes = self.files().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        if bytes > MOST_BYTES_IN_ALL {
            problems.push(BundleError::LargeInAll(bytes));
        }
        if let Some(parallelism) = self.options.parallelism.filter(|parallelism| !(1..=MOST_SUBTASKS).contains(parallelism)) {
            problems.push(BundleError::Parallelism(parallelism));
        }
        if self.options.allow_non_restored_state && self.options.restore.is_none() {
            problems.push(BundleError::NothingRestored);
        }
        if let Some(text) = self.options.traceparent.as_ref().filter(|text| text.parse::<Context>().is_err()) {
            problems.push(BundleError::Traceparent(shortened(text)));
        }
        problems.extend(self.configuration.keys().filter(|key| !is_key(key)).map(|key| BundleError::Key(shortened(key))));
        problems
    }
}

/// For a message: nobody reads a megabyte.
fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_PATH).collect()
}

/// Before 1.0 every minor release is another one.
fn is_ours(release: &str) -> bool {
    fn minor(release: &str) -> Option<(u64, u64)> {
        let mut parts = release.splitn(3, '.').map(|part| part.parse().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        parts.next().map(|_| (major, minor))
    }
    minor(release).is_some() && minor(release) == minor(env!("CARGO_PKG_VERSION"))
}

fn is_key(key: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    key.len() <= LONGEST_PATH && key.split('.').all(is_part)
}

/// What is wrong with a path, if anything is.
fn check_path(path: &str) -> Option<BundleError> {
    let why = if path.is_empty() || path.len() > LONGEST_PATH {
        "it must have 1 to 255 bytes"
    } else if path.chars().any(char::is_control) || path.contains('\\') {
        "it must have no control characters and no backslash"
    } else if path.starts_with('-') {
        "it must not begin with a dash"
    } else if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        "it must be relative, without . and .."
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        "it has an empty part"
    } else {
        return None;
    };
    Some(BundleError::Path(shortened(path), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(path: &str) -> File {
        File { path: path.to_owned(), hash: Hash::of(path.as_bytes()), bytes: 7 }
    }

    fn bundle() -> Bundle {
        Bundle {
            standpipe: env!("CARGO_PKG_VERSION").to_owned(),
            name: "counts".to_owned(),
            pipeline: file("counts.yaml"),
            plugins: vec![file("libfoo.so")],
            resources: vec![file("data/x.csv")],
            configuration: [("engine.parallelism".to_owned(), "2".to_owned())].into(),
            options: Options::default(),
        }
    }

    #[test]
    fn a_hash_is_that_of_the_standard_and_reads_as_it_is_written() {
        let abc = Hash::of(b"abc");
        assert_eq!(abc.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(abc.to_string().parse(), Ok(abc));
        assert_eq!(Hash::read(b"abc".as_slice()).unwrap(), (abc, 3));
        let digits = abc.digits();
        for text in
            ["", "sha256:", &digits, &format!("sha256:{}", &digits[1..]), &format!("SHA256:{digits}"), &abc.to_string().to_uppercase()]
        {
            assert!(text.parse::<Hash>().is_err(), "{text}");
        }
        assert!(format!("sha256:{}", "ä".repeat(32)).parse::<Hash>().is_err());
    }

    #[test]
    fn a_bundle_is_read_as_it_is_written() {
        let written = serde_json::to_vec(&bundle()).unwrap();
        assert_eq!(Bundle::parse(&written), Ok(bundle()));
        let least = json!({"standpipe": env!("CARGO_PKG_VERSION"), "name": "a", "pipeline": file("a.yaml")});
        assert!(Bundle::parse(least.to_string().as_bytes()).unwrap().plugins.is_empty());
        let strange = json!({"standpipe": env!("CARGO_PKG_VERSION"), "name": "a", "pipeline": file("a.yaml"), "pluggins": []});
        let problems = Bundle::parse(strange.to_string().as_bytes()).unwrap_err();
        assert!(problems[0].to_string().contains("pluggins"), "{problems:?}");
        assert!(Bundle::parse(b"{").is_err() && Bundle::parse(b"").is_err());
        assert!(Bundle::parse(&vec![b' '; LONGEST_DOCUMENT + 1]).unwrap_err()[0].to_string().contains("longer"));
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for path in
            ["", "/etc/passwd", "..", "../x", "a/../../x", "./x", "a/./x", "a//x", "x/", "a\\b", "a\0b", "a\nb", "--set", &"x".repeat(256)]
        {
            let problems = Bundle { resources: vec![file(path)], ..bundle() }.check();
            assert!(matches!(problems.as_slice(), [BundleError::Path(..)]), "{path:?}: {problems:?}");
        }
        for path in ["x", "a/b.csv", "a b", "..a", "ä/ö", ".hidden"] {
            assert_eq!(Bundle { resources: vec![file(path)], ..bundle() }.check(), [], "{path:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = Bundle {
            standpipe: "9.9.9".to_owned(),
            name: String::new(),
            resources: vec![file("counts.yaml"), file("plugins/libfoo.so"), File { bytes: MOST_BYTES + 1, ..file("large") }],
            configuration: [("engine..x".to_owned(), String::new())].into(),
            options: Options {
                parallelism: Some(0),
                allow_non_restored_state: true,
                traceparent: Some("00-1".to_owned()),
                ..Options::default()
            },
            ..bundle()
        };
        let problems = wrong.check();
        let is_there = |wanted: &BundleError| problems.contains(wanted);
        assert!(is_there(&BundleError::Release("9.9.9".to_owned())) && is_there(&BundleError::Name(String::new())));
        assert!(is_there(&BundleError::Twice("counts.yaml".to_owned())) && is_there(&BundleError::Twice("libfoo.so".to_owned())));
        assert!(is_there(&BundleError::Large("large".to_owned(), MOST_BYTES + 1)) && is_there(&BundleError::Parallelism(0)));
        assert!(is_there(&BundleError::NothingRestored) && is_there(&BundleError::Key("engine..x".to_owned())));
        assert!(is_there(&BundleError::Traceparent("00-1".to_owned())));
        assert_eq!(problems.len(), 9, "{problems:?}");
    }

    #[test]
    fn a_file_is_no_folder() {
        let wrong = Bundle { resources: vec![file("plugins"), file("a"), file("a/b/c"), file("a-b")], ..bundle() };
        let folder = |folder: &str, of: &str| BundleError::Folder(folder.to_owned(), of.to_owned());
        assert_eq!(wrong.check(), [folder("plugins", "plugins/"), folder("a", "a/b/c")]);
    }

    #[test]
    fn a_bundle_is_of_this_minor_release() {
        let own = env!("CARGO_PKG_VERSION");
        assert!(is_ours(own) && !is_ours("") && !is_ours("0") && !is_ours("x.y.z") && !is_ours("0.999.0"));
    }

    #[test]
    fn sizes_and_numbers_have_limits() {
        let many = Bundle { resources: (0..MOST_FILES).map(|i| file(&i.to_string())).collect(), ..bundle() };
        assert_eq!(many.check(), [BundleError::Many(MOST_FILES + 2)]);
        let large = Bundle { resources: (0..5).map(|i| File { bytes: MOST_BYTES, ..file(&i.to_string()) }).collect(), ..bundle() };
        assert_eq!(large.check(), [BundleError::LargeInAll(5 * MOST_BYTES + 14)]);
    }
}
