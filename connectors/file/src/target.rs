//! A file that appears under its name only when it is whole: it is written as `NAME.inprogress` beside it and renamed at the end. What already exists and is no
//! regular file (a named pipe, a device), and standard output, are written directly.
//!
//! A checkpoint remembers the length; a restart cuts the file to it ([`Target::resume`]). Called by [`crate::sink`].

use crate::outside;
use standpipe_sdk::{Error, Result};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// With fewer bytes than this at the end of a batch, a file waits for the next batch.
pub(crate) const WORTH_WRITING: usize = 64 << 10;

enum Place {
    /// Written directly.
    Direct(Box<dyn Write + Send>),
    /// Written under another name until it is whole.
    Pending { file: File, pending: PathBuf },
}

/// An output that is being written.
pub(crate) struct Target {
    path: PathBuf,
    place: Place,
    buffer: Vec<u8>,
    /// Bytes of the file, those in `buffer` included.
    length: u64,
    /// The disk has all that the operating system has.
    is_synced: bool,
    /// Its directory knows it after a power failure too, or somebody else sees to that.
    is_entered: bool,
}

/// What a working name ends with.
pub(crate) const PENDING: &str = ".inprogress";

/// `NAME.inprogress`
pub(crate) fn pending_name(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(PENDING);
    name.into()
}

/// Gives a file its name, so that it has it after a power failure too.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to)
}

/// Makes what is in a file's directory survive a power failure.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// Makes what is in directories survive a power failure, each once, however many files were made or renamed there.
pub(crate) fn sync_directories(directories: &mut BTreeSet<PathBuf>) -> Result<()> {
    while let Some(directory) = directories.first() {
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(|error| outside("write", directory.display(), error))?;
        directories.pop_first();
    }
    Ok(())
}

/// Makes a directory, and those that it is in. Those in `changed` have new ones, which a power failure takes away before they are synced.
pub(crate) fn create_directories(path: &Path, changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        return Err(rustix::io::Errno::NOTDIR.into());
    }
    let parent = directory(path);
    create_directories(parent, changed)?;
    match fs::create_dir(path) {
        // Another subtask was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    changed.insert(parent.to_owned());
    Ok(())
}

/// What cannot be done on a disk. One that is full may have room later; what it has refused has not been lost.
pub(crate) fn on_disk(what: &str, path: &Path, error: io::Error) -> Error {
    let may_pass = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let error = outside(what, path.display(), error);
    if may_pass { error.retryable() } else { error }
}

/// Writes a buffer out; what could not be written stays in it. Gives the bytes written.
fn drain(out: &mut impl Write, buffer: &mut Vec<u8>) -> (usize, io::Result<()>) {
    let mut written = 0;
    let result = loop {
        // More than there is nobody has written.
        let rest = buffer.get(written..).unwrap_or_default();
        if rest.is_empty() {
            break Ok(());
        }
        match out.write(rest) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buffer.drain(..written);
    (written, result)
}

/// Whether somebody is writing a file of a working name.
pub(crate) fn is_locked(pending: &Path) -> bool {
    OpenOptions::new().write(true).open(pending).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

impl Target {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(PathBuf::from("standard output"), Place::Direct(Box::new(io::stdout())), 0)
    }

    /// A new, empty file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if is_device(path) {
            let device = OpenOptions::new().write(true).open(path).map_err(|error| outside("write", path.display(), error))?;
            return Ok(Self::new(path.to_owned(), Place::Direct(Box::new(device)), 0));
        }
        let pending = pending_name(path);
        let failed = |error| on_disk("write", path, error);
        let file = open_alone(&pending, true).map_err(failed)?;
        file.set_len(0).map_err(failed)?;
        Ok(Self::new(path.to_owned(), Place::Pending { file, pending }, 0))
    }

    /// The file as it was at a checkpoint, or, without a length, as an earlier start has left it. If it has got its name since, it loses it again until it is whole.
    pub(crate) fn resume(path: &Path, length: Option<u64>) -> Result<Self> {
        Self::resume_from(path, &[pending_name(path), path.to_owned()], length)
    }

    /// As [`Self::resume`], for a file that may have had another name or working name: it is the first of these that is there.
    pub(crate) fn resume_from(path: &Path, places: &[PathBuf], length: Option<u64>) -> Result<Self> {
        let pending = pending_name(path);
        let failed = |error| on_disk("go on writing", path, error);
        let place = places.iter().find(|place| place.is_file()).unwrap_or(&pending);
        let may_be_new = length.is_none_or(|length| length == 0);
        let mut file = open_alone(place, may_be_new).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        let length = length.unwrap_or(found);
        if found < length {
            return Err(failed(io::Error::other(format!("{} has {found} bytes, the checkpoint has {length}", place.display()))));
        }
        if *place != pending {
            // What is in the way has been begun behind the checkpoint; not by somebody who is still at it.
            if pending.exists() {
                open_alone(&pending, false).map_err(failed)?;
            }
            rename_durably(place, &pending).map_err(failed)?;
        }
        file.set_len(length).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self::new(path.to_owned(), Place::Pending { file, pending }, length))
    }

    fn new(path: PathBuf, place: Place, length: u64) -> Self {
        Self { path, place, buffer: Vec::new(), length, is_synced: false, is_entered: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, all that was written included.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// What tells the file from others whatever it is called; 0: nothing does.
    pub(crate) fn inode(&self) -> u64 {
        match &self.place {
            Place::Direct(_) => 0,
            Place::Pending { file, .. } => file.metadata().map_or(0, |metadata| metadata.ino()),
        }
    }

    /// Whether a restart can go on from a length.
    pub(crate) const fn is_resumable(&self) -> bool {
        matches!(self.place, Place::Pending { .. })
    }

    /// Adds what is appended to the buffer. The operating system has it after `flush`.
    pub(crate) fn fill(&mut self, append: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let before = self.buffer.len();
        append(&mut self.buffer)?;
        self.length += (self.buffer.len() - before) as u64;
        Ok(())
    }

    /// Writes what a full disk has refused at the end of a batch. May be tried again.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.buffer.len() >= WORTH_WRITING { self.write_out() } else { Ok(()) }
    }

    /// A batch ends here; whether all of it is with the operating system now. Who reads a pipe does not want to wait for the next batch. What a full disk refuses
    /// waits, as the batch has been taken.
    pub(crate) fn end_batch(&mut self) -> Result<bool> {
        let result = match self.place {
            Place::Direct(_) => self.flush(),
            Place::Pending { .. } => self.settle(),
        };
        match result {
            Err(error) if !error.retryable => Err(error),
            _ => Ok(self.buffer.is_empty()),
        }
    }

    /// Somebody else syncs its directory.
    pub(crate) const fn leave_directory(&mut self) {
        self.is_entered = true;
    }

    /// Writes a buffer of somebody else's, behind all that was written before; what could not be written stays in it.
    pub(crate) fn drain(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        self.flush()?;
        std::mem::swap(&mut self.buffer, buffer);
        let given = self.buffer.len();
        let result = self.write_out();
        std::mem::swap(&mut self.buffer, buffer);
        self.length += (given - buffer.len()) as u64;
        result
    }

    fn write_out(&mut self) -> Result<()> {
        self.is_synced = false;
        match &mut self.place {
            // There is no telling what has gone through.
            Place::Direct(out) => drain(out, &mut self.buffer).1.map_err(|error| outside("write", self.path.display(), error)),
            Place::Pending { file, .. } => drain(file, &mut self.buffer).1.map_err(|error| on_disk("write", &self.path, error)),
        }
    }

    /// Hands everything to the operating system. May be tried again when a disk was full.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.write_out()?;
        }
        match &mut self.place {
            Place::Direct(out) => out.flush().map_err(|error| outside("write", self.path.display(), error)),
            Place::Pending { .. } => Ok(()),
        }
    }

    /// Hands everything to the disk. A disk that fails at that may have lost what it was given: once more would prove nothing.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        let Place::Pending { file, pending } = &self.place else { return Ok(()) };
        let failed = |error| outside("write", self.path.display(), error);
        if !self.is_synced {
            file.sync_data().map_err(failed)?;
            self.is_synced = true;
        }
        if !self.is_entered {
            sync_directory(pending).map_err(failed)?;
            self.is_entered = true;
        }
        Ok(())
    }

    /// Everything has been written: the file gets its name and replaces another one of that name.
    pub(crate) fn publish(mut self) -> Result<()> {
        self.flush()?;
        let Place::Pending { file, pending } = &self.place else { return Ok(()) };
        let publish = || {
            file.sync_all()?;
            rename_durably(pending, &self.path)
        };
        publish().map_err(|error| outside("finish", self.path.display(), error))
    }

    /// What was written is not wanted.
    pub(crate) fn discard(self) {
        if let Place::Pending { pending, .. } = &self.place {
            // It may be gone already; there is nobody to tell, and nothing depends on it.
            let _ = fs::remove_file(pending);
        }
    }
}

/// Opens a file for writing, unless another sink or job is writing it. The lock ends with the file's last handle, whatever becomes of the process.
fn open_alone(pending: &Path, may_be_new: bool) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(may_be_new).truncate(false).open(pending)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::other(format!("{} is being written by someone else", pending.display()))),
        // Not every file system has locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Whether it is there and no regular file: a named pipe, a terminal. There is no way back in it.
pub(crate) fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes, which takes them three at a time.
    struct Small(Vec<u8>, usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(3).min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_refuses_is_kept_and_nothing_else() {
        let (mut disk, mut buffer) = (Small(Vec::new(), 4), b"0123456789".to_vec());
        let (written, result) = drain(&mut disk, &mut buffer);
        assert_eq!((written, result.unwrap_err().kind(), buffer.as_slice()), (4, io::ErrorKind::StorageFull, &b"456789"[..]));
        disk.1 = 100;
        assert!(drain(&mut disk, &mut buffer).1.is_ok() && buffer.is_empty());
        assert_eq!(disk.0, b"0123456789");
        let error = |kind: io::ErrorKind| on_disk("write", Path::new("x"), kind.into()).retryable;
        assert!(error(io::ErrorKind::StorageFull) && error(io::ErrorKind::QuotaExceeded) && !error(io::ErrorKind::PermissionDenied));
    }
}
