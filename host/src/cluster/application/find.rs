//! Files of a bundle that are on this machine: beside its document, and, for plugins, those of the running distribution, whatever they are called.

use standpipe_cluster::{
    blobs::Blobs,
    bundle::{File, Hash},
};
use standpipe_loader::SearchPath;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a plugin file ends with.
const LIBRARY: &str = "so";

/// Puts those that are here among the blobs; gives those that are not.
pub(super) fn find(wanted: &[File], folder: &Path, blobs: &Blobs) -> Vec<File> {
    let files: Vec<PathBuf> = SearchPath::new(&[], &[]).entries.iter().flat_map(|entry| libraries(&entry.path)).collect();
    let is_here = |file: &File| {
        let beside = folder.join(file.hash.digits());
        let of_distribution = || files.iter().find(|path| is_it(path, file)).cloned();
        let Some(path) = Some(beside).filter(|path| path.is_file()).or_else(of_distribution) else { return false };
        if blobs.has(file.hash) {
            // Of a former start, whatever the one beside has become.
            return is_it(&path, file);
        }
        let put = fs::File::open(&path).map_err(|error| error.to_string());
        match put.and_then(|from| blobs.put(file.hash, from).map_err(|error| error.to_string())) {
            Ok(_) => tracing::debug!("{} is {}", file.path, path.display()),
            Err(error) => tracing::warn!("{}: {} is not taken for it: {error}", file.path, path.display()),
        }
        blobs.has(file.hash)
    };
    wanted.iter().filter(|file| !is_here(file)).cloned().collect()
}

/// Plugin files at a place of the search path.
fn libraries(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let found = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    found.filter(|path| path.extension().is_some_and(|extension| extension == LIBRARY)).collect()
}

/// Its content is not read where its length says enough.
fn is_it(path: &Path, file: &File) -> bool {
    let hash = || -> io::Result<Hash> { Ok(Hash::read(fs::File::open(path)?)?.0) };
    fs::metadata(path).is_ok_and(|found| found.len() == file.bytes) && hash().is_ok_and(|hash| hash == file.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_content_and_one_that_was_changed_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("bundle");
        fs::create_dir(&folder).unwrap();
        let blobs = Blobs::open(root.path().join("own")).unwrap();
        let file = |content: &[u8]| File { path: "x".to_owned(), hash: Hash::of(content), bytes: content.len() as u64 };
        let (good, changed, missing) = (file(b"good"), file(b"whole"), file(b"never"));
        fs::write(folder.join(good.hash.digits()), "good").unwrap();
        fs::write(folder.join(changed.hash.digits()), "whole, and more").unwrap();
        let others = [changed.clone(), missing.clone()];
        let all = [good.clone(), changed.clone(), missing.clone()];
        assert_eq!(find(&all, &folder, &blobs), others);
        assert_eq!(blobs.missing([good.hash, changed.hash, missing.hash]).len(), 2);
        assert!(blobs.has(good.hash));
        // What was sent is not of this machine, also when it is found among the blobs by the next start.
        blobs.put(missing.hash, b"never".as_slice()).unwrap();
        blobs.put(changed.hash, b"whole".as_slice()).unwrap();
        assert_eq!(find(&all, &folder, &blobs), others);
    }

    #[test]
    fn a_plugin_is_known_by_its_length_and_its_content() {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in [("a.so", "one"), ("b.so", "two"), ("two", "two")] {
            fs::write(root.path().join(name), content).unwrap();
        }
        let file = File { path: "plugins/other-name.so".to_owned(), hash: Hash::of(b"two"), bytes: 3 };
        let found: Vec<PathBuf> = libraries(root.path()).into_iter().filter(|path| is_it(path, &file)).collect();
        assert_eq!(found, [root.path().join("b.so")]);
        assert!(libraries(&root.path().join("nothing")).is_empty());
    }
}
