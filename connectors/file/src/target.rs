//! A file that appears under its name only when it is whole: it is written as `NAME.inprogress` beside it and renamed at the end. What already exists and is no
//! regular file (a named pipe, a device), and standard output, are written directly.
//!
//! A checkpoint remembers the length; a restart cuts the file to it ([`Target::resume`]). Called by [`crate::sink`].

use crate::outside;
use standpipe_sdk::Result;
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes collected before they are written.
const BUFFER: usize = 256 << 10;
/// With fewer bytes than this at the end of a batch, a file waits for the next batch.
const WORTH_WRITING: usize = 64 << 10;

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
    File::open(directory(to))?.sync_all()
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
        let failed = |error| outside("write", path.display(), error);
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
        let failed = |error| outside("go on writing", path.display(), error);
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
        Self { path, place, buffer: Vec::with_capacity(BUFFER + BUFFER / 4), length }
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

    /// Adds bytes; the operating system has them after `flush`.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        if self.buffer.len() >= BUFFER { self.write_out() } else { Ok(()) }
    }

    /// A batch ends here; whether all of it is with the operating system now. Who reads a pipe does not want to wait for the next batch.
    pub(crate) fn end_batch(&mut self) -> Result<bool> {
        let is_pending = matches!(self.place, Place::Pending { .. });
        if is_pending && self.buffer.len() < WORTH_WRITING {
            return Ok(self.buffer.is_empty());
        }
        self.flush().map(|()| true)
    }

    fn write_out(&mut self) -> Result<()> {
        let written = match &mut self.place {
            Place::Direct(out) => out.write_all(&self.buffer),
            Place::Pending { file, .. } => file.write_all(&self.buffer),
        };
        self.buffer.clear();
        written.map_err(|error| outside("write", self.path.display(), error))
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.write_out()?;
        }
        match &mut self.place {
            Place::Direct(out) => out.flush().map_err(|error| outside("write", self.path.display(), error)),
            Place::Pending { .. } => Ok(()),
        }
    }

    /// Hands everything to the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        match &self.place {
            Place::Direct(_) => Ok(()),
            Place::Pending { file, .. } => file.sync_data().map_err(|error| outside("write", self.path.display(), error)),
        }
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
