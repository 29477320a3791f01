//! What a job manager that runs one job alone keeps beside that job's checkpoints, for the manager that takes its place with nothing of its own: the files of the
//! job that were sent to it, and how the job has ended. Whoever restores checkpoints never looks there.
//!
//! ```text
//! DIR/JOB/runs/ID/NAME          of the run of that id
//! DIR/JOB/runs/ID/managers/N    the Nth manager that has taken it: its own number
//! ```

use super::{Store, local, names::number, on_disk};
use crate::CheckpointError;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use object_store::{Error, MultipartUpload, ObjectStoreExt, path::Path};
use std::io::Read;

const RUNS: &str = "runs";
const MANAGERS: &str = "managers";
/// Of an upload, in bytes: S3 takes none that is smaller but the last.
const PART: u64 = 5 << 20;
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
        if let Some(folder) = &self.location.folder {
            // The library's own writes do not survive the machine.
            let local = |source: std::io::Error| failed(Error::Generic { store: "LocalFileSystem", source: Box::new(source) });
            return local::copy(folder, &path, &mut file).map_err(local);
        }
        let upload = self.wait(self.location.store.put_multipart(&path)).map_err(failed)?;
        self.upload(upload, &mut file).map_err(failed)
    }

    /// What has come of an upload that fails is of no use; a store that does not hear of that removes it some day.
    fn upload(&self, mut upload: Box<dyn MultipartUpload>, file: &mut impl Read) -> Result<(), Error> {
        self.wait(async {
            let done = match send(upload.as_mut(), file).await {
                Ok(()) => upload.complete().await.map(drop),
                Err(error) => Err(error),
            };
            if done.is_err() {
                drop(upload.abort().await);
            }
            done
        })
    }

    /// The length of what is kept under a name, in bytes; none: there is no such thing.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn kept_bytes(&self, job_id: &str, name: &str) -> Result<Option<u64>, CheckpointError> {
        let path = self.aside(job_id, name);
        match self.wait(self.location.store.head(&path)) {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(CheckpointError::store("look at", &path, error)),
        }
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

    /// Removes what is kept or noted under a name, if it is there.
    ///
    /// # Errors
    /// When the store does not answer, or it cannot be removed.
    pub fn forget(&self, job_id: &str, name: &str) -> Result<(), CheckpointError> {
        self.wait(self.remove(vec![self.aside(job_id, name)]))
    }

    /// The newest claim of a run, and who has made it; see [`Self::claim_run`].
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn newest_claim(&self, job_id: &str) -> Result<Option<(u64, String)>, CheckpointError> {
        let folder = self.claims(job_id);
        self.wait(async {
            let Some(newest) = self.newest_claim_in(&folder).await? else { return Ok(None) };
            let who = self.get(&folder.clone().join(newest.to_string())).await?;
            Ok(Some((newest, String::from_utf8_lossy(&who).into_owned())))
        })
    }

    /// Claims a run: gives the number of the claim, which is higher than that of any other. Claims stay, so that whoever has made one before knows that another one came.
    ///
    /// # Errors
    /// When the store does not answer or may not be written.
    pub fn claim_run(&self, job_id: &str, who: &str) -> Result<u64, CheckpointError> {
        let folder = self.claims(job_id);
        self.wait(async {
            let mut number = self.newest_claim_in(&folder).await?.unwrap_or(0) + 1;
            while !self.create(&folder.clone().join(number.to_string()), Bytes::from(who.to_owned())).await? {
                number += 1;
            }
            Ok(number)
        })
    }

    fn claims(&self, job_id: &str) -> Path {
        self.root.clone().join(RUNS).join(job_id).join(MANAGERS)
    }

    async fn newest_claim_in(&self, folder: &Path) -> Result<Option<u64>, CheckpointError> {
        let found = self.location.store.list_with_delimiter(Some(folder)).await;
        let found = found.map_err(|error| CheckpointError::store("list", folder, error))?;
        Ok(found.objects.iter().filter_map(|object| number(object.location.filename()?)).max())
    }

    /// Removes what was kept of a run, but for its claims and what is to stay.
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

/// Sends a file in parts, some of them at a time.
async fn send(upload: &mut dyn MultipartUpload, file: &mut impl Read) -> Result<(), Error> {
    let mut sending = FuturesUnordered::new();
    loop {
        let mut part = Vec::new();
        let read = file.by_ref().take(PART).read_to_end(&mut part);
        read.map_err(|source| Error::Generic { store: "the file", source: Box::new(source) })?;
        if part.is_empty() {
            break;
        }
        sending.push(upload.put_part(part.into()));
        while sending.len() >= PARTS {
            sending.next().await.transpose()?;
        }
    }
    sending.try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Location;
    use object_store::{PutPayload, PutResult, UploadPart};
    use std::{
        io,
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };

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
        let large: Vec<u8> = (0..3 * 1024 * 1024 + 7).map(|i: u32| (i % 251) as u8).collect();
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
    fn a_run_is_claimed_by_one_after_the_other_and_claims_outlive_what_is_kept() {
        let (_folder, store) = open();
        assert_eq!(store.newest_claim("a").unwrap(), None);
        assert_eq!((store.claim_run("a", "first").unwrap(), store.claim_run("a", "second").unwrap()), (1, 2));
        store.keep("a", "x", b"1".as_slice()).unwrap();
        store.forget_kept("a", &[]).unwrap();
        assert_eq!(store.newest_claim("a").unwrap(), Some((2, "second".to_owned())));
        assert_eq!((store.newest_claim("b").unwrap(), read(&store, "a", "x")), (None, None));
        // Numbers, not names: the tenth comes after the ninth.
        assert!((3..=11).eq((3..=11).map(|_| store.claim_run("a", "x").unwrap())));
        store.keep("a", "y", b"123".as_slice()).unwrap();
        assert_eq!(store.kept_bytes("a", "y").unwrap(), Some(3));
        store.forget("a", "y").unwrap();
        store.forget("a", "y").unwrap();
        assert_eq!(store.kept_bytes("a", "y").unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("as asked"))
            }
        }
        let (folder, store) = open();
        assert!(store.keep("a", "x", Broken).unwrap_err().to_string().contains("as asked"));
        assert_eq!(read(&store, "a", "x"), None);
        assert_eq!(std::fs::read_dir(folder.path().join("counts/runs/a")).unwrap().count(), 0, "nothing that was begun stays");
    }

    #[test]
    fn an_upload_that_fails_is_given_up() {
        type Done<'a, T> = Pin<Box<dyn Future<Output = object_store::Result<T>> + Send + 'a>>;
        #[derive(Debug)]
        struct Full {
            takes: usize,
            aborted: Arc<AtomicBool>,
        }
        fn full<T>() -> object_store::Result<T> {
            Err(Error::Generic { store: "S3", source: "it is full".into() })
        }
        impl MultipartUpload for Full {
            fn put_part(&mut self, _: PutPayload) -> UploadPart {
                let takes = self.takes > 0;
                self.takes = self.takes.saturating_sub(1);
                Box::pin(async move { if takes { Ok(()) } else { full() } })
            }
            fn complete<'a, 'b: 'b>(&'a mut self) -> Done<'b, PutResult>
            where
                'a: 'b,
                Self: 'b,
            {
                Box::pin(async { full() })
            }
            fn abort<'a, 'b: 'b>(&'a mut self) -> Done<'b, ()>
            where
                'a: 'b,
                Self: 'b,
            {
                self.aborted.store(true, SeqCst);
                Box::pin(async { Ok(()) })
            }
        }
        let (_folder, store) = open();
        // The first part, one of many, the last one, and the end.
        for (takes, bytes) in [(0, 1), (3, 10 * PART), (1, PART + 1), (9, 1)] {
            let aborted = Arc::new(AtomicBool::new(false));
            let upload = Box::new(Full { takes, aborted: Arc::clone(&aborted) });
            let error = store.upload(upload, &mut io::repeat(7).take(bytes)).unwrap_err();
            assert!(error.to_string().contains("it is full") && aborted.load(SeqCst), "{takes} {error}");
        }
        let aborted = Arc::new(AtomicBool::new(false));
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("as asked"))
            }
        }
        assert!(store.upload(Box::new(Full { takes: 1, aborted: Arc::clone(&aborted) }), &mut Broken).is_err() && aborted.load(SeqCst));
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
