//! Parts on a disk: a file is written under its working name (`NAME.inprogress`, see [`crate::target`]) and gets its own when a checkpoint has it.

use super::{
    depot::{Depot, Draft, Found, Sealed, State},
    name::{Names, PartId},
};
use crate::{
    outside,
    target::{PENDING, Target, directory, pending_name, rename_durably},
};
use standpipe_sdk::{Error, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A folder.
pub(crate) struct Disk {
    root: PathBuf,
    names: Names,
}

impl Disk {
    /// Makes the folder, if it is missing; what it is in must be there, or be asked for.
    pub(super) fn open(root: &str, names: Names, create_dirs: bool) -> Result<Self> {
        let root = PathBuf::from(if root.is_empty() { "./" } else { root });
        let failed = |error: io::Error| outside("create the folder", root.display(), error);
        if create_dirs {
            fs::create_dir_all(&root).map_err(failed)?;
        } else if !root.is_dir() {
            fs::create_dir(&root).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    let (shown, parent) = (root.display(), directory(&root).display());
                    Error::external(format!("cannot write to {shown}: there is no directory {parent} (create_dirs: true makes it)"))
                }
                _ => failed(error),
            })?;
        }
        Ok(Self { root, names })
    }

    fn walk(&self, folder: &Path, below: &str, found: &mut Vec<Found>) -> Result<()> {
        let failed = |error: io::Error| outside("read the folder", folder.display(), error);
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
}

impl Depot for Disk {
    fn begin(&mut self, _: PartId, name: &str) -> Result<Box<dyn Draft>> {
        let path = self.root.join(name);
        let folder = directory(&path);
        if !folder.is_dir() {
            fs::create_dir_all(folder).map_err(|error| outside("create the folder", folder.display(), error))?;
        }
        Ok(Box::new(File { name: name.to_owned(), target: Some(Target::create(&path)?), buffer: Vec::new(), sealed: None }))
    }

    fn can_cut(&self) -> bool {
        true
    }

    fn publish(&mut self, sealed: &Sealed) -> Result<()> {
        self.publish_cut(&sealed.name, sealed.length)
    }

    fn publish_cut(&mut self, name: &str, length: u64) -> Result<()> {
        let path = self.root.join(name);
        let pending = pending_name(&path);
        let failed = |error: io::Error| outside("finish", path.display(), error);
        if !pending.exists() && fs::metadata(&path).is_ok_and(|found| found.len() == length) {
            return Ok(());
        }
        let mut target = Target::resume(&path, Some(length))?;
        target.sync()?;
        drop(target);
        rename_durably(&pending, &path).map_err(failed)
    }

    fn find(&mut self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        self.walk(&self.root, "", &mut found)?;
        Ok(found)
    }

    fn remove(&mut self, found: &Found) -> Result<()> {
        let path = self.root.join(&found.path);
        if found.state == State::Pending && crate::target::is_locked(&path) {
            return Err(Error::external(format!("{} is being written by someone else", path.display())));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(outside("remove", path.display(), error)),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

/// A file that is being written.
struct File {
    name: String,
    /// `None`: it is sealed.
    target: Option<Target>,
    buffer: Vec<u8>,
    sealed: Option<Sealed>,
}

impl Draft for File {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn length(&self) -> u64 {
        self.target.as_ref().map_or(0, Target::length) + self.buffer.len() as u64
    }

    fn settle(&mut self) -> Result<()> {
        if let Some(target) = &mut self.target {
            target.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.settle()?;
        self.target.as_mut().map_or(Ok(()), Target::sync)
    }

    fn seal(&mut self) -> Result<Option<Sealed>> {
        if self.sealed.is_none() {
            self.sync()?;
            self.sealed = Some(Sealed { name: self.name.clone(), length: self.length(), upload: None });
            // The handle, and with it the lock, goes: there may be many of them until the next checkpoint.
            self.target = None;
        }
        Ok(self.sealed.clone())
    }

    fn discard(self: Box<Self>) {
        if let Some(target) = self.target {
            target.discard();
        }
    }
}
