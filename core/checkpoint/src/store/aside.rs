//! What a job manager that runs one job alone keeps beside that job's checkpoints, for the manager that takes its place with nothing of its own: the files of the
//! job that were sent to it, and how the job has ended. Whoever restores checkpoints never looks there.
//!
//! ```text
//! DIR/JOB/runs/ID/NAME        of the run of that id
//! ```

use super::{Store, on_disk};
use crate::CheckpointError;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{Error, ObjectStoreExt, WriteMultipart, path::Path};
use std::io::Read;

const RUNS: &str = "runs";
/// Of a file at a time, in bytes.
const PIECE: usize = 1 << 20;
/// Parts of a file that are on their way at a time.
const PARTS: usize = 4;

impl Store {
    fn aside(&self, job_id: &str, name: &str) -> Path {
        self.root.clone().join(RUNS).join(job_id).join(name)
    }

    /// Keeps a file of a run under a name; one that is there is replaced.
    ///
    /// # Errors
    /// When it cannot be read, or the store does not answer or may not be written.
    pub fn keep(&self, job_id: &str, name: &str, mut file: impl Read) -> Result<(), CheckpointError> {
        let path = self.aside(job_id, name);
        let failed = |error| CheckpointError::store("write", &path, error);
        let upload = self.wait(self.location.store.put_multipart(&path)).map_err(failed)?;
        let mut upload = WriteMultipart::new(upload);
        let mut piece = vec![0; PIECE];
        loop {
            let read = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    // What has come of it is of no use; a store that does not hear of it removes it some day.
                    drop(self.wait(upload.abort()));
                    return Err(failed(Error::Generic { store: "the file", source: Box::new(source) }));
                }
            };
            self.wait(async {
                upload.wait_for_capacity(PARTS).await?;
                upload.write(piece.get(..read).unwrap_or_default());
                Ok(())
            })
            .map_err(failed)?;
        }
        self.wait(upload.finish()).map(drop).map_err(failed)
    }

    /// Gives the content of what is kept under a name, a piece at a time; false: there is no such thing. It is not checked here.
    ///
    /// # Errors
    /// When the store does not answer; what `take` has to say.
    pub fn kept<E>(&self, job_id: &str, name: &str, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<bool, E>
    where
        E: From<CheckpointError>,
    {
        let path = self.aside(job_id, name);
        let failed = |error| E::from(CheckpointError::store("read", &path, error));
        let mut pieces = match self.wait(self.location.store.get(&path)) {
            Ok(found) => found.into_stream(),
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        while let Some(piece) = self.wait(pieces.next()) {
            take(&piece.map_err(failed)?)?;
        }
        Ok(true)
    }

    /// Notes something of a run, once: what was noted first stays.
    ///
    /// # Errors
    /// When the store does not answer or may not be written.
    pub fn note(&self, job_id: &str, name: &str, text: &str) -> Result<(), CheckpointError> {
        let path = self.aside(job_id, name);
        self.wait(self.create(&path, Bytes::from(text.to_owned()))).map(drop)
    }

    /// What was noted.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn noted(&self, job_id: &str, name: &str) -> Result<Option<String>, CheckpointError> {
        let mut text = Vec::new();
        let found = self.kept(job_id, name, |piece| -> Result<(), CheckpointError> {
            text.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(found.then(|| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Removes what was kept of a run, but for what is to stay.
    ///
    /// # Errors
    /// When the store does not answer, or something cannot be removed.
    pub fn forget_kept(&self, job_id: &str, stays: &[&str]) -> Result<(), CheckpointError> {
        let folder = self.root.clone().join(RUNS).join(job_id);
        let list = async {
            let found = self.location.store.list_with_delimiter(Some(&folder)).await;
            let found = found.map_err(|error| CheckpointError::store("list", &folder, error))?;
            let is_over = |path: &Path| path.filename().is_some_and(|name| !stays.contains(&name));
            let over = found.objects.into_iter().map(|object| object.location).filter(is_over).collect();
            self.remove(over).await
        };
        self.wait(list)?;
        let Some(root) = self.location.folder.clone() else { return Ok(()) };
        let at = root.join(folder.as_ref());
        self.wait(on_disk("remove", &folder, move || {
            // One that is not empty stays, and so does the one that it is in.
            if std::fs::remove_dir(&at).is_ok() {
                at.parent().map(std::fs::remove_dir);
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Location;
    use std::io;

    fn open() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::open(folder.path().to_str().unwrap(), &[]).unwrap();
        let store = Store::open(location, "counts").unwrap();
        (folder, store)
    }

    fn read(store: &Store, run: &str, name: &str) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let found = store.kept(run, name, |piece| -> Result<(), CheckpointError> {
            all.extend_from_slice(piece);
            Ok(())
        });
        found.unwrap().then_some(all)
    }

    #[test]
    fn files_of_a_run_are_there_again_and_go_with_it() {
        let (folder, store) = open();
        let large: Vec<u8> = (0..3 * PIECE + 7).map(|i| (i % 251) as u8).collect();
        store.keep("a", "large", large.as_slice()).unwrap();
        store.keep("a", "empty", io::empty()).unwrap();
        store.keep("b", "other", b"x".as_slice()).unwrap();
        assert_eq!((read(&store, "a", "large"), read(&store, "a", "empty")), (Some(large), Some(Vec::new())));
        assert_eq!((read(&store, "b", "large"), read(&store, "a", "other")), (None, None));
        // Whoever restores does not see them.
        assert_eq!((store.list().unwrap(), store.has_begun("a").unwrap()), (Vec::new(), false));
        store.note("a", "ended", "first").unwrap();
        store.note("a", "ended", "second").unwrap();
        store.forget_kept("a", &["ended"]).unwrap();
        assert_eq!((store.noted("a", "ended").unwrap().as_deref(), read(&store, "a", "large")), (Some("first"), None));
        store.forget_kept("a", &[]).unwrap();
        store.forget_kept("b", &[]).unwrap();
        store.forget_kept("never", &[]).unwrap();
        assert!(!folder.path().join("counts/runs").exists(), "empty folders stay");
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("as asked"))
            }
        }
        let (_folder, store) = open();
        assert!(store.keep("a", "x", Broken).unwrap_err().to_string().contains("as asked"));
        assert_eq!(read(&store, "a", "x"), None);
    }

    #[test]
    fn whoever_takes_pieces_may_refuse_them() {
        let (_folder, store) = open();
        store.keep("a", "x", b"1".as_slice()).unwrap();
        #[derive(Debug)]
        enum Own {
            Refused,
            Store,
        }
        impl From<CheckpointError> for Own {
            fn from(_: CheckpointError) -> Self {
                Self::Store
            }
        }
        let refused = store.kept("a", "x", |_| Err(Own::Refused)).unwrap_err();
        assert!(matches!(refused, Own::Refused) && !matches!(refused, Own::Store));
    }
}
