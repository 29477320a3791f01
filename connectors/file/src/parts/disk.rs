//! Parts on a disk: a file is written under its working name (`NAME.inprogress`, see [`crate::target`]) and gets its own when a checkpoint has it.
//!
//! Whole files that wait for it are not open, as there may be many. So that no other start takes them away, each subtask has a file that it keeps locked
//! (`.JOB.NODE-RUN-SUBTASK.lock`).

use super::{
    depot::{Depot, Draft, Found, Sealed, State, gone},
    name::Names,
};
use crate::target::{PENDING, Target, WORTH_WRITING, create_directories, directory, is_locked, on_disk, pending_name, sync_directories};
use standpipe_sdk::{Error, Result};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes of a name, and of a path.
pub(super) const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;

/// A folder.
pub(crate) struct Disk {
    root: PathBuf,
    names: Names,
    own: (u64, u32),
    /// Directories with new names in them, which are to be synced before a checkpoint refers to these.
    changed: BTreeSet<PathBuf>,
    /// `None`: the file system has no locks.
    lock: Option<Lock>,
}

impl Disk {
    /// Makes the folder, if it is missing; what it is in must be there, or be asked for.
    pub(super) fn open(root: &str, names: Names, own: (u64, u32), create_dirs: bool) -> Result<Self> {
        let root = PathBuf::from(if root.is_empty() { "./" } else { root });
        let parent = directory(&root);
        if !create_dirs && fs::metadata(parent).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let (shown, parent) = (root.display(), parent.display());
            return Err(Error::external(format!("cannot write to {shown}: there is no directory {parent} (create_dirs: true makes it)")));
        }
        let mut changed = BTreeSet::new();
        create_directories(&root, &mut changed).map_err(|error| on_disk("create the folder", &root, error))?;
        let mut disk = Self { root, names, own, changed, lock: None };
        disk.sweep_locks()?;
        disk.lock = Lock::take(&disk.lock_path(own))?;
        Ok(disk)
    }

    fn lock_path(&self, (run, subtask): (u64, u32)) -> PathBuf {
        self.root.join(format!(".{}{run}-{subtask}{LOCK}", self.names.prefix()))
    }

    /// Takes away what killed runs have left of their locks.
    fn sweep_locks(&self) -> Result<()> {
        let failed = |error: io::Error| on_disk("read the folder", &self.root, error);
        let (prefix, own) = (format!(".{}", self.names.prefix()), format!("{}-", self.own.0));
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
            let Some(number) = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(LOCK)) else { continue };
            let is_ours = number.split('-').all(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
            if is_ours && !number.starts_with(&own) {
                // One that is held is let alone; the others go with the lock that is taken here.
                let _ = Lock::take(&self.root.join(&name));
            }
        }
        Ok(())
    }

    fn walk(&self, folder: &Path, below: &str, found: &mut Vec<Found>) -> Result<()> {
        let failed = |error: io::Error| on_disk("read the folder", folder, error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Names that are no UTF-8 are not ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.file_type().map_err(failed)?.is_dir() {
                self.walk(&entry.path(), &format!("{below}{name}/"), found)?;
            } else if let Some(part) = self.names.parse(&name) {
                let state = if name.ends_with(PENDING) { State::Pending } else { State::Visible };
                found.push(Found { part, state, path: format!("{below}{name}") });
            }
        }
        Ok(())
    }

    /// Gives a part its name, unless it has it.
    fn rename(&mut self, name: &str, length: u64, is_sealed: bool) -> Result<()> {
        let path = self.root.join(name);
        let pending = pending_name(&path);
        let (waits, seen) = (fs::metadata(&pending).ok(), fs::metadata(&path).ok());
        match (waits, seen) {
            (None, None) => return Err(gone(&path.display().to_string(), "it was removed, or finished")),
            (None, Some(seen)) if seen.len() == length => {}
            (Some(waits), _) if is_sealed && waits.len() == length => {
                fs::rename(&pending, &path).map_err(|error| on_disk("finish", &path, error))?;
            }
            // It is cut, unless somebody is at it still; one that is too short is said.
            _ => {
                Target::resume(&path, Some(length))?.sync()?;
                fs::rename(&pending, &path).map_err(|error| on_disk("finish", &path, error))?;
            }
        }
        self.changed.insert(directory(&path).to_owned());
        Ok(())
    }
}

impl Depot for Disk {
    type Draft = File;

    fn refuses(&self, name: &str) -> Option<String> {
        let pending = format!("{name}{PENDING}");
        let is_long = pending.split('/').any(|name| name.len() > MAX_NAME);
        (is_long || self.root.as_os_str().len() + 1 + pending.len() > MAX_PATH)
            .then(|| format!("its folder has too long a name: {MAX_NAME} bytes are possible, {MAX_PATH} with those that it is in"))
    }

    fn begin(&mut self, name: &str) -> File {
        File { name: name.to_owned(), path: self.root.join(name), target: None, buffer: Vec::new() }
    }

    fn settle(&mut self, drafts: Vec<&mut File>) -> Result<()> {
        drafts.into_iter().try_for_each(|draft| draft.settle(WORTH_WRITING, &mut self.changed))
    }

    fn sync(&mut self, drafts: Vec<&mut File>) -> Result<()> {
        drafts.into_iter().try_for_each(|draft| draft.sync(&mut self.changed))?;
        sync_directories(&mut self.changed)
    }

    /// One after the other: only one of them is open then.
    fn seal(&mut self, drafts: &mut Vec<File>, sealed: &mut Vec<Sealed>) -> Result<()> {
        while let Some(draft) = drafts.last_mut() {
            draft.sync(&mut self.changed)?;
            sealed.push(Sealed { name: draft.name.clone(), length: draft.length(), upload: None });
            drafts.pop();
        }
        Ok(())
    }

    fn can_cut(&self) -> bool {
        true
    }

    fn publish(&mut self, sealed: &[Sealed]) -> Result<()> {
        sealed.iter().try_for_each(|sealed| self.rename(&sealed.name, sealed.length, true))?;
        sync_directories(&mut self.changed)
    }

    fn publish_cut(&mut self, name: &str, length: u64) -> Result<()> {
        self.rename(name, length, false)?;
        sync_directories(&mut self.changed)
    }

    fn find(&mut self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        self.walk(&self.root, "", &mut found)?;
        Ok(found)
    }

    fn remove(&mut self, found: &Found) -> Result<()> {
        let path = self.root.join(&found.path);
        let its = (found.part.run, found.part.subtask);
        if is_locked(&path) || its != self.own && is_locked(&self.lock_path(its)) {
            return Err(written_by_another(&path));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(on_disk("remove", &path, error)),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    fn let_go(&mut self) {
        self.lock = None;
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

/// A file that is being written.
pub(crate) struct File {
    name: String,
    path: PathBuf,
    /// `None`: nothing is on the disk yet.
    target: Option<Target>,
    buffer: Vec<u8>,
}

impl File {
    /// Writes the buffer out, if it has so many bytes.
    fn settle(&mut self, worth: usize, changed: &mut BTreeSet<PathBuf>) -> Result<()> {
        let target = match &mut self.target {
            Some(target) => target,
            none => {
                let folder = directory(&self.path);
                create_directories(folder, changed).map_err(|error| on_disk("create the folder", folder, error))?;
                let mut target = Target::create(&self.path)?;
                target.leave_directory();
                changed.insert(folder.to_owned());
                none.insert(target)
            }
        };
        if !self.buffer.is_empty() && self.buffer.len() >= worth { target.drain(&mut self.buffer) } else { Ok(()) }
    }

    fn sync(&mut self, changed: &mut BTreeSet<PathBuf>) -> Result<()> {
        self.settle(0, changed)?;
        self.target.as_mut().map_or(Ok(()), Target::sync)
    }
}

impl Draft for File {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn length(&self) -> u64 {
        self.target.as_ref().map_or(0, Target::length) + self.buffer.len() as u64
    }

    fn held(&self) -> usize {
        self.buffer.len()
    }

    fn discard(self) {
        if let Some(target) = self.target {
            target.discard();
        }
    }
}

const LOCK: &str = ".lock";

/// A file that says that somebody is writing here, as long as it is locked. It goes with its owner, or, if that is killed, with the next start.
struct Lock {
    path: PathBuf,
    _file: fs::File,
}

impl Lock {
    fn take(path: &Path) -> Result<Option<Self>> {
        let failed = |error| on_disk("write", path, error);
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(written_by_another(path)),
                // Not every file system has locks.
                Err(TryLockError::Error(_)) => {
                    fs::remove_file(path).map_err(failed)?;
                    return Ok(None);
                }
            }
            // Its last owner may have taken it away meanwhile.
            let locked = file.metadata().map_err(failed)?;
            if fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (locked.dev(), locked.ino())) {
                return Ok(Some(Self { path: path.to_owned(), _file: file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It is still locked. If it stays, the next start takes it away.
        let _ = fs::remove_file(&self.path);
    }
}

fn written_by_another(path: &Path) -> Error {
    Error::external(format!("{} is being written by someone else", path.display()))
}
