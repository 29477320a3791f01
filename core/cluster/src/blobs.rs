//! The files of bundles by the hash of their content, in a folder: what is there under a hash has that content. A file is written beside its place, checked, made
//! durable and renamed, so one that is cut short by a crash is never taken for a whole one.

use crate::bundle::{Bundle, Hash, Hasher, MOST_BYTES};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

/// Where files are while they are written.
const WRITING: &str = "writing";
/// What a disk keeps free for whoever else needs it, the manager's database above all.
const SPARE: u64 = 128 << 20;
/// Bytes of a blob between two looks at what the disk has left.
const SPARE_LOOK: u64 = 16 << 20;

/// Why a blob is not taken, or not given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// What came is something else.
    #[error("what was sent as {wanted} is {found}: it was changed on its way, or the hash is of another file")]
    Hash {
        /// Its name.
        wanted: Hash,
        /// Its content.
        found: Hash,
    },
    /// More than may be.
    #[error("{hash} is larger than {most} bytes")]
    Large {
        /// Its name.
        hash: Hash,
        /// The limit.
        most: u64,
    },
    /// Not as long as the bundle says.
    #[error("{hash} has {found} bytes, and the bundle says {wanted}")]
    Length {
        /// Its name.
        hash: Hash,
        /// Of the bundle.
        wanted: u64,
        /// Its length.
        found: u64,
    },
    /// The disk is as good as full.
    #[error("{path}: its disk has {free} bytes left, of which {spare} stay free")]
    Full {
        /// The folder.
        path: PathBuf,
        /// What is left.
        free: u64,
        /// What stays.
        spare: u64,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    move |source| BlobError::System { path: path.to_owned(), source }
}

/// A folder of blobs. One process at a time has it.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
    most: u64,
    spare: u64,
    next: Arc<AtomicU64>,
}

impl Blobs {
    /// Opens a folder, which is made if it is missing; what was being written when its process ended is removed.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let folder = folder.into();
        let writing = folder.join(WRITING);
        match fs::remove_dir_all(&writing) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&writing)(error)),
            _ => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&writing).map_err(at(&writing))?;
        Ok(Self { folder, most: MOST_BYTES, spare: SPARE, next: Arc::default() })
    }

    /// With another limit on a blob's length, in bytes.
    #[must_use]
    pub fn with_limit(self, most: u64) -> Self {
        Self { most, ..self }
    }

    /// Where a blob is, or would be.
    #[must_use]
    pub fn path(&self, hash: Hash) -> PathBuf {
        self.folder.join(hash.digits())
    }

    /// Whether it is there.
    #[must_use]
    pub fn has(&self, hash: Hash) -> bool {
        self.path(hash).is_file()
    }

    /// Those that are not there, each once. Those that are stay for a while: see [`Self::keep_only`].
    #[must_use]
    pub fn missing(&self, hashes: impl IntoIterator<Item = Hash>) -> Vec<Hash> {
        let hashes: BTreeSet<Hash> = hashes.into_iter().collect();
        hashes.into_iter().filter(|hash| !self.touch(*hash)).collect()
    }

    /// Whether it is there; if so, it counts as new from now on.
    fn touch(&self, hash: Hash) -> bool {
        let file = File::options().append(true).open(self.path(hash));
        file.and_then(|file| file.set_modified(SystemTime::now())).is_ok()
    }

    /// Refuses when the disk has nothing to spare.
    fn check_space(&self) -> Result<(), BlobError> {
        let path = &self.folder;
        let found = rustix::fs::statvfs(path).map_err(|error| at(path)(error.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < self.spare { Err(BlobError::Full { path: path.clone(), free, spare: self.spare }) } else { Ok(()) }
    }

    /// Begins to take a blob that comes in pieces.
    ///
    /// # Errors
    /// When the folder takes no file.
    pub fn begin(&self, hash: Hash) -> Result<Incoming, BlobError> {
        self.check_space()?;
        let path = self.folder.join(WRITING).join(format!("{}.{}", hash.digits(), self.next.fetch_add(1, Relaxed)));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(at(&path))?;
        let (place, blobs) = (self.path(hash), self.clone());
        Ok(Incoming { hash, place, blobs, path, file, bytes: 0, looked: 0, hasher: Hasher::default(), kept: false })
    }

    /// Takes a blob from a reader; `false`: it was there already.
    ///
    /// # Errors
    /// Those of [`Incoming`], and of the reader.
    pub fn put(&self, hash: Hash, mut from: impl Read) -> Result<bool, BlobError> {
        if self.touch(hash) {
            return Ok(false);
        }
        let mut incoming = self.begin(hash)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => incoming.write(buffer.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(at(&incoming.path)(error)),
            }
        }
        incoming.finish()?;
        Ok(true)
    }

    /// Blobs of a bundle whose length is not what the bundle says; those that are missing do not count.
    ///
    /// # Errors
    /// At the first of them, or when one cannot be looked at.
    pub fn check_lengths(&self, bundle: &Bundle) -> Result<(), BlobError> {
        for file in bundle.files() {
            let path = self.path(file.hash);
            match fs::metadata(&path) {
                Ok(found) if found.len() != file.bytes => {
                    return Err(BlobError::Length { hash: file.hash, wanted: file.bytes, found: found.len() });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lays a bundle's files out in a folder of their own, plugins in [`crate::bundle::PLUGINS`]. They are copies: a job may write to what it finds in its folder.
    ///
    /// # Errors
    /// When one is missing or cannot be written.
    pub fn lay_out(&self, bundle: &Bundle, folder: &Path) -> Result<(), BlobError> {
        let plugins = folder.join(crate::bundle::PLUGINS);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&plugins).map_err(at(&plugins))?;
        let beside = [&bundle.pipeline].into_iter().chain(&bundle.resources).map(|file| (file, folder));
        for (file, folder) in beside.chain(bundle.plugins.iter().map(|file| (file, plugins.as_path()))) {
            let place = folder.join(&file.path);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(at(parent))?;
            }
            // A plugin's old file may be loaded in a process: never written to, always another one.
            match fs::remove_file(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&place)(error)),
                _ => {}
            }
            let blob = self.path(file.hash);
            fs::copy(&blob, &place).map_err(at(&blob))?;
        }
        Ok(())
    }

    /// Removes from a folder what [`Self::lay_out`] has put there, and folders that are empty then. What the job has written there stays: it is its user's.
    pub fn take_in(bundle: &Bundle, folder: &Path) {
        let plugins = folder.join(crate::bundle::PLUGINS);
        let beside = [&bundle.pipeline].into_iter().chain(&bundle.resources).map(|file| (file, folder));
        for (file, of) in beside.chain(bundle.plugins.iter().map(|file| (file, plugins.as_path()))) {
            let place = of.join(&file.path);
            // It may never have been there.
            drop(fs::remove_file(&place));
            for parent in place.ancestors().skip(1).take_while(|parent| parent.starts_with(folder)) {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        drop(fs::remove_dir(&plugins));
        drop(fs::remove_dir(folder));
    }

    /// Removes what no one needs any more and has been there for that long: whoever was told that a blob is there needs it soon.
    ///
    /// # Errors
    /// When the folder cannot be read, or a file not be removed.
    pub fn keep_only(&self, needed: &BTreeSet<Hash>, for_at_least: Duration) -> Result<(), BlobError> {
        let needed: BTreeSet<String> = needed.iter().map(Hash::digits).collect();
        let is_old = |path: &Path| {
            let modified = fs::metadata(path).and_then(|found| found.modified());
            modified.is_ok_and(|modified| modified.elapsed().unwrap_or_default() >= for_at_least)
        };
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let path = entry.map_err(at(&self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.len() == 64 && !needed.contains(name) && is_old(&path) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// A blob on its way. Dropped before [`Self::finish`], nothing is left of it.
#[derive(Debug)]
pub struct Incoming {
    hash: Hash,
    place: PathBuf,
    blobs: Blobs,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// How many they were when the disk was looked at last.
    looked: u64,
    hasher: Hasher,
    kept: bool,
}

impl Incoming {
    /// A piece of it.
    ///
    /// # Errors
    /// When it becomes too large, or the disk is full.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if self.bytes > self.blobs.most {
            return Err(BlobError::Large { hash: self.hash, most: self.blobs.most });
        }
        if self.bytes - self.looked >= SPARE_LOOK {
            self.looked = self.bytes;
            self.blobs.check_space()?;
        }
        self.hasher.update(piece);
        self.file.write_all(piece).map_err(at(&self.path))
    }

    /// All of it has come: it is there from now on, also after a crash.
    ///
    /// # Errors
    /// When its content has another hash, or the system refuses.
    pub fn finish(mut self) -> Result<(), BlobError> {
        let found = self.hasher.clone().finish();
        if found != self.hash {
            return Err(BlobError::Hash { wanted: self.hash, found });
        }
        self.file.sync_all().map_err(at(&self.path))?;
        fs::rename(&self.path, &self.place).map_err(at(&self.place))?;
        self.kept = true;
        let folder = self.place.parent().unwrap_or(&self.place);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle;
    use std::collections::BTreeMap;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        (folder, blobs)
    }

    fn files(blobs: &Blobs) -> usize {
        let writing = fs::read_dir(blobs.folder.join(WRITING)).unwrap().count();
        fs::read_dir(&blobs.folder).unwrap().count() - 1 + writing
    }

    #[test]
    fn what_is_put_is_there_under_its_hash_also_for_another_process() {
        let (_folder, blobs) = blobs();
        let (hash, other) = (Hash::of(b"abc"), Hash::of(b"abd"));
        assert_eq!(blobs.missing([other, hash, hash]).len(), 2);
        assert!(blobs.put(hash, b"abc".as_slice()).unwrap());
        assert!(!blobs.put(hash, b"never read".as_slice()).unwrap());
        let again = Blobs::open(&blobs.folder).unwrap();
        assert_eq!((again.missing([other, hash]), fs::read(again.path(hash)).unwrap()), (vec![other], b"abc".to_vec()));
    }

    #[test]
    fn what_is_changed_cut_short_or_too_large_leaves_nothing() {
        let (_folder, blobs) = blobs();
        let hash = Hash::of(b"abc");
        for content in [b"abd".as_slice(), b"ab", b"", b"abcd"] {
            assert!(matches!(blobs.put(hash, content), Err(BlobError::Hash { wanted, .. }) if wanted == hash));
        }
        let large = Hash::of(&[7; 100_000]);
        let error = blobs.clone().with_limit(99_999).put(large, [7; 100_000].as_slice()).unwrap_err();
        assert!(matches!(error, BlobError::Large { most: 99_999, .. }), "{error}");
        assert_eq!(files(&blobs), 0);
        blobs.with_limit(100_000).put(large, [7; 100_000].as_slice()).unwrap();
    }

    #[test]
    fn what_was_being_written_when_the_process_ended_is_removed() {
        let (_folder, blobs) = blobs();
        let mut incoming = blobs.begin(Hash::of(b"abc")).unwrap();
        incoming.write(b"ab").unwrap();
        std::mem::forget(incoming);
        assert_eq!((files(&blobs), blobs.has(Hash::of(b"abc"))), (1, false));
        assert_eq!(files(&Blobs::open(&blobs.folder).unwrap()), 0);
    }

    #[test]
    fn a_disk_that_is_full_is_not_filled_to_the_last_byte() {
        let (_folder, blobs) = blobs();
        let full = Blobs { spare: u64::MAX, ..blobs.clone() };
        let error = full.put(Hash::of(b"abc"), b"abc".as_slice()).unwrap_err();
        assert!(matches!(error, BlobError::Full { .. }), "{error}");
        // It becomes full while a blob comes.
        let mut incoming = blobs.begin(Hash::of(b"abc")).unwrap();
        incoming.blobs.spare = u64::MAX;
        let piece = vec![0; SPARE_LOOK as usize / 2];
        incoming.write(&piece).unwrap();
        assert!(matches!(incoming.write(&piece), Err(BlobError::Full { .. })));
        drop(incoming);
        assert_eq!(files(&blobs), 0);
    }

    #[test]
    fn the_same_blob_may_come_twice_at_the_same_time() {
        let (_folder, blobs) = blobs();
        let hash = Hash::of(b"abc");
        let (mut one, mut two) = (blobs.begin(hash).unwrap(), blobs.begin(hash).unwrap());
        one.write(b"abc").unwrap();
        two.write(b"abc").unwrap();
        one.finish().unwrap();
        two.finish().unwrap();
        assert_eq!((files(&blobs), fs::read(blobs.path(hash)).unwrap()), (1, b"abc".to_vec()));
    }

    #[test]
    fn a_bundle_is_laid_out_and_what_nobody_needs_goes() {
        let (folder, blobs) = blobs();
        let file =
            |path: &str, content: &[u8]| bundle::File { path: path.to_owned(), hash: Hash::of(content), bytes: content.len() as u64 };
        let bundle = Bundle {
            standpipe: env!("CARGO_PKG_VERSION").to_owned(),
            name: "a".to_owned(),
            pipeline: file("a.yaml", b"name: a"),
            plugins: vec![file("liba.so", b"so")],
            resources: vec![file("data/x.csv", b"1,2")],
            configuration: BTreeMap::new(),
            options: bundle::Options::default(),
        };
        for content in [b"name: a".as_slice(), b"so", b"1,2", b"other"] {
            blobs.put(Hash::of(content), content).unwrap();
        }
        blobs.check_lengths(&bundle).unwrap();
        let job = folder.path().join("job");
        // Also where it has been before.
        for _ in 0..2 {
            blobs.lay_out(&bundle, &job).unwrap();
        }
        assert_eq!(fs::read(job.join("plugins/liba.so")).unwrap(), b"so");
        assert_eq!(fs::read(job.join("data/x.csv")).unwrap(), b"1,2");
        let needed = bundle.files().map(|file| file.hash).collect();
        blobs.keep_only(&needed, Duration::from_secs(60)).unwrap();
        assert_eq!(files(&blobs), 4, "somebody may be about to need it");
        blobs.keep_only(&needed, Duration::ZERO).unwrap();
        assert_eq!((files(&blobs), blobs.missing(bundle.files().map(|file| file.hash)).len()), (3, 0));
        // What the job has written is its user's.
        fs::write(job.join("data/out.jsonl"), "{}").unwrap();
        Blobs::take_in(&bundle, &job);
        let left: Vec<_> = fs::read_dir(&job).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((left, fs::read_dir(job.join("data")).unwrap().count()), (vec!["data".into()], 1));
        fs::remove_file(job.join("data/out.jsonl")).unwrap();
        blobs.lay_out(&bundle, &job).unwrap();
        Blobs::take_in(&bundle, &job);
        assert!(!job.exists());
        let longer = Bundle { resources: vec![bundle::File { bytes: 4, ..file("x", b"1,2") }], ..bundle };
        assert!(matches!(blobs.check_lengths(&longer), Err(BlobError::Length { wanted: 4, found: 3, .. })));
    }
}
