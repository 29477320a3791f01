//! From what the user names to a checkpoint: a pipeline file, a job's folder or URL, or one manifest in it.

use crate::{
    checkpoints::failure,
    cli::StateQuery,
    commands::checkpoint,
    exit::{Code, Failure},
};
use standpipe_checkpoint::{Manifest, Store};
use std::path::Path;

/// The checkpoint that is asked for; the newest one where no number is given.
pub(super) fn find(query: &StateQuery) -> anyhow::Result<(Store, Manifest)> {
    let text = query.checkpoint.as_str();
    let path = Path::new(text);
    let (store, number) = if path.is_file() && !text.ends_with(".json") {
        (checkpoint::store(path, &query.set)?, None)
    } else if path.exists() || text.contains("://") {
        Store::at(text).map_err(|error| failure(&error))?
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
