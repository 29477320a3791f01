//! Checkpoints by where they are: `DIR/JOB/checkpoints/00000041-000003.json`, or `DIR/JOB`, on this machine's disk or by the URL of an object store.

use super::{CHECKPOINTS, Store, names::Name};
use crate::{CheckpointError, Location};
use percent_encoding::percent_decode_str;
use std::{fs, path::Path};
use url::Url;

/// What a path or URL names.
#[derive(Debug)]
pub(super) struct Place {
    /// The checkpoints of its job.
    pub(super) store: Store,
    /// One of them.
    pub(super) name: Option<Name>,
}

/// What is meant by a path or URL. On this machine's disk it must be there; a store is not asked yet.
pub(super) fn resolve(text: &str) -> Result<Place, CheckpointError> {
    let nowhere = |there: String| CheckpointError::Nowhere { text: text.to_owned(), there };
    let absolute = absolute(text).ok_or_else(|| nowhere(String::new()))?;
    let (folder, name) = match manifest(&absolute) {
        Some((folder, name)) => (folder, Some(name)),
        None => (absolute.as_str(), None),
    };
    let is_url = folder.contains("://");
    if name.is_none() && !is_url && !Path::new(folder).join(CHECKPOINTS).is_dir() {
        return Err(nowhere(jobs_below(Path::new(folder))));
    }
    // Of a URL, the first part is the bucket.
    let has_bucket = |dir: &str| !is_url || !dir.ends_with('/');
    let named = folder.rsplit_once('/').filter(|(dir, job)| !job.is_empty() && has_bucket(dir));
    let (dir, job) = named.ok_or_else(|| nowhere(String::new()))?;
    let dir = if dir.is_empty() { "/" } else { dir };
    // The folder's name is the job's as the store writes it: `a#b` is `a%23b`.
    let job = percent_decode_str(job).decode_utf8_lossy();
    Ok(Place { store: Store::open(Location::open(dir, &[])?, &job)?, name })
}

/// A path from the root, or a URL that is none of this machine's disk; `None`: nothing is there.
fn absolute(text: &str) -> Option<String> {
    let of_path = |path: &Path| path.canonicalize().ok().and_then(|path| path.into_os_string().into_string().ok());
    match Url::parse(text) {
        Ok(url) if url.scheme() == "file" => url.to_file_path().ok().and_then(|path| of_path(&path)),
        _ if text.contains("://") => Some(text.trim_end_matches('/').to_owned()),
        _ => of_path(Path::new(text)),
    }
}

/// The job's folder and the name in it, if it is the place of a manifest.
fn manifest(text: &str) -> Option<(&str, Name)> {
    let (rest, name) = text.rsplit_once('/')?;
    let (folder, checkpoints) = rest.rsplit_once('/')?;
    Some((folder, Name::parse(name).filter(|_| checkpoints == CHECKPOINTS)?))
}

/// The folder of all jobs is taken for that of one easily.
fn jobs_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut jobs: Vec<String> = entries.filter(|entry| entry.join(CHECKPOINTS).is_dir()).map(|entry| entry.display().to_string()).collect();
    jobs.sort();
    if jobs.is_empty() { String::new() } else { format!("; there are {}", jobs.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_known_by_their_names() {
        let id = |text| manifest(text).map(|(folder, name)| (folder.to_owned(), name.id));
        assert_eq!(id("/a/counts/checkpoints/00000041-000003.json"), Some(("/a/counts".to_owned(), 41)));
        assert_eq!(id("s3://b/counts/checkpoints/00000041-000003-savepoint.json"), Some(("s3://b/counts".to_owned(), 41)));
        for text in ["counts.json", "a/41-3.json", "a/checkpoints/x-3.json", "a/checkpoints/41.json", "a/checkpoints/41-3.arrow"] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_have_a_job_is_nowhere() {
        for text in ["s3://bucket", "gs://b/", "s3:///job", "file:///no/such/folder", "no/such/folder"] {
            let error = resolve(text).unwrap_err();
            assert!(matches!(error, CheckpointError::Nowhere { .. }), "{error}");
        }
    }

    #[test]
    fn a_job_is_found_whatever_its_name_is() {
        let folder = tempfile::tempdir().unwrap();
        for job in ["counts", "a#b", "größe", "100%"] {
            let store = Store::open(Location::open(&folder.path().display().to_string(), &[]).unwrap(), job).unwrap();
            store.claim("x").unwrap();
            let place = store.place();
            fs::create_dir(Path::new(&place).join(CHECKPOINTS)).unwrap();
            assert_eq!((resolve(&place).unwrap().store.job, resolve(&place).unwrap().store.place()), (job.to_owned(), place));
        }
        let error = resolve(&folder.path().display().to_string()).unwrap_err().to_string();
        assert!(error.contains("; there are ") && error.contains("counts"), "{error}");
    }
}
