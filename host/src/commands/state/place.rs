//! From what the user names to a checkpoint: a pipeline file, a job's folder or URL, or one manifest in it.

use crate::{
    checkpoints::failure,
    cli::StateQuery,
    commands::checkpoint,
    exit::{Code, Failure},
};
use percent_encoding::percent_decode_str;
use standpipe_checkpoint::{Location, Manifest, Store};
use std::{fs, path::Path};

const CHECKPOINTS: &str = "checkpoints";

/// The checkpoint that is asked for; the newest one where no number is given.
pub(super) fn find(query: &StateQuery) -> anyhow::Result<(Store, Manifest)> {
    let text = query.checkpoint.trim_end_matches('/');
    let path = Path::new(text);
    let (store, number) = if text.contains("://") {
        job(text)?
    } else if path.is_dir() {
        refuse_other_folders(path)?;
        // A relative one may end in `..`, which is no job's name.
        job(&fs::canonicalize(path)?.to_string_lossy())?
    } else if is_manifest(text) {
        job(&fs::canonicalize(path)?.to_string_lossy())?
    } else if path.is_file() {
        (checkpoint::store(path, &query.set)?, None)
    } else {
        return Err(Failure::error(
            Code::Outside,
            format!("{text}: there is no such pipeline file and no such folder of a job's checkpoints"),
        ));
    };
    let found = match query.number.or(number) {
        Some(number) => store.read(number).map(Some),
        None => store.latest(),
    };
    match found.map_err(|error| failure(&error))? {
        Some(manifest) => Ok((store, manifest)),
        None => Err(Failure::error(Code::Usage, format!("there is no checkpoint in {}", store.place()))),
    }
}

/// `DIR/JOB/checkpoints/00000041-000003.json`.
fn is_manifest(text: &str) -> bool {
    number_of(text).is_some() && Path::new(text).is_file()
}

/// The number in the name of a manifest.
fn number_of(text: &str) -> Option<u64> {
    let (folder, name) = text.rsplit_once('/')?;
    let number = name.strip_suffix(".json")?.split_once('-')?.0;
    number.parse().ok().filter(|_| folder.ends_with(&format!("/{CHECKPOINTS}")))
}

/// The checkpoints of `DIR/JOB`, or of the manifest's job with its number.
fn job(text: &str) -> anyhow::Result<(Store, Option<u64>)> {
    let number = number_of(text);
    let folder = match number {
        Some(_) => text.rsplit_once(&format!("/{CHECKPOINTS}/")).map_or(text, |(folder, _)| folder),
        None => text,
    };
    let named = folder.rsplit_once('/').filter(|(place, name)| !name.is_empty() && !place.ends_with(":/") && !place.ends_with("//"));
    let Some((place, name)) = named else {
        return Err(Failure::error(Code::Usage, format!("{text} is no job's checkpoints: they are in DIR/JOB")));
    };
    let place = if place.is_empty() { "/" } else { place };
    let location = Location::open(place, &[]).map_err(|error| failure(&error))?;
    // The folder's name is the job's as the store writes it: `a#b` is `a%23b`.
    let name = percent_decode_str(name).decode_utf8_lossy();
    Ok((Store::open(location, &name).map_err(|error| failure(&error))?, number))
}

/// The folder of all jobs is taken for that of one easily.
fn refuse_other_folders(path: &Path) -> anyhow::Result<()> {
    if path.join(CHECKPOINTS).is_dir() {
        return Ok(());
    }
    let jobs = fs::read_dir(path)?.filter_map(Result::ok).filter(|entry| entry.path().join(CHECKPOINTS).is_dir());
    let mut jobs: Vec<String> = jobs.map(|entry| entry.path().display().to_string()).collect();
    jobs.sort();
    let there = if jobs.is_empty() { String::new() } else { format!("; there are {}", jobs.join(", ")) };
    Err(Failure::error(Code::Usage, format!("{} is no folder of a job's checkpoints{there}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_known_by_their_names() {
        assert_eq!(number_of("a/counts/checkpoints/00000041-000003.json"), Some(41));
        assert_eq!(number_of("s3://b/counts/checkpoints/00000041-000003.json"), Some(41));
        for text in ["counts.json", "a/41-3.json", "a/checkpoints/x-3.json", "a/checkpoints/41.json", "a/checkpoints/41-3.arrow"] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_have_a_job_is_refused() {
        for text in ["s3://bucket", "counts", "gs://b"] {
            assert!(job(text).err().unwrap().to_string().ends_with("they are in DIR/JOB"), "{text}");
        }
    }
}
