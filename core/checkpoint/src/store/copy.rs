//! A savepoint in another place, by itself: it needs no file of another checkpoint, so its files and its manifest are all there is to it.

use super::{CHECKPOINTS, DATA, Store, hash, names::Name};
use crate::{CheckpointError, Location, manifest::Manifest};
use bytes::Bytes;
use std::path;

/// Digits of a job's id in the name of a savepoint's folder.
const DIGITS: usize = 6;

/// The root of a path or URL; a path is relative to the current folder.
fn absolute(place: &str) -> Result<String, CheckpointError> {
    let refused = |reason: String| CheckpointError::Location { url: place.to_owned(), reason };
    if place.contains("://") {
        return Ok(place.trim_end_matches('/').to_owned());
    }
    // Flink writes a path as a URL of an empty authority.
    let text = place.strip_prefix("file:").unwrap_or(place);
    let absolute = path::absolute(text).map_err(|error| refused(error.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| refused("it is no text".to_owned()))
}

impl Store {
    /// Tries whether savepoints can be copied to a place, a folder or a URL.
    ///
    /// # Errors
    /// When it is no such place, or does not answer.
    pub fn check_target(&self, place: &str) -> Result<(), CheckpointError> {
        let target = Self::open(Location::open(&absolute(place)?, &[])?, &self.job)?;
        target.list().map(drop)
    }

    /// Copies a savepoint into a folder of its own below that place, and gives where its manifest is then: what [`super::Start::From`] takes. It stays where it was, too.
    ///
    /// # Errors
    /// When it cannot be read or written; then the copy is no savepoint.
    pub fn copy(&self, manifest: &Manifest, place: &str) -> Result<String, CheckpointError> {
        let digits: String = manifest.job_id.chars().take(DIGITS).collect();
        let folder = format!("{}/savepoint-{digits}-{:06}-{}", absolute(place)?.trim_end_matches('/'), manifest.generation, manifest.id);
        let target = Self::open(Location::open(&folder, &[])?, &self.job)?;
        for file in manifest.files() {
            let content = self.wait(self.get(&self.below(&file.path)))?;
            if hash(&content) != file.hash {
                let reason = "its content is not what was written".to_owned();
                return Err(CheckpointError::Damaged { object: file.path.clone(), reason });
            }
            target.wait(target.put(&target.below(&file.path), content))?;
        }
        target.wait(target.sync(DATA))?;
        let path = target.path(CHECKPOINTS, &Name::of(manifest).to_string());
        let damaged = |reason: String| CheckpointError::Damaged { object: path.to_string(), reason };
        let content = Bytes::from(serde_json::to_vec_pretty(manifest).map_err(|error| damaged(error.to_string()))?);
        match target.wait(target.create(&path, content))? {
            true => Ok(target.manifest_place(manifest)),
            false => Err(damaged("it is there already".to_owned())),
        }
    }
}
