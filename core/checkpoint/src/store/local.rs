//! Objects on this machine's disk, written so that they survive the machine and not only the process: first the content, then the name, then the folders. `object_store`
//! lists, reads and removes them; its own writes leave the syncs out, and what it has begun and not ended it does not list.

use object_store::path::Path;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path as FilePath, PathBuf},
};

/// What stands behind the name of a file that is being written. The process' number keeps two processes apart.
const PARTIAL: &str = "partial";

/// Where an object is.
fn file(folder: &FilePath, path: &Path) -> PathBuf {
    let mut file = folder.to_owned();
    file.extend(path.parts().map(|part| part.as_ref().to_owned()));
    file
}

/// Writes an object; one that is there is replaced. The folders are still to be synced.
pub(super) fn put(folder: &FilePath, path: &Path, content: &[u8]) -> io::Result<()> {
    written(folder, path, |out| out.write_all(content), |partial, file| fs::rename(partial, file))
}

/// Writes an object from a reader; one that is there is replaced. The folders are synced.
pub(super) fn copy(folder: &FilePath, path: &Path, from: &mut impl Read) -> io::Result<()> {
    written(folder, path, |out| io::copy(from, out).map(drop), |partial, file| fs::rename(partial, file))?;
    sync_folders(folder, path)
}

/// Creates an object. False: there is one.
pub(super) fn create(folder: &FilePath, path: &Path, content: &[u8]) -> io::Result<bool> {
    let mut is_new = true;
    written(
        folder,
        path,
        |out| out.write_all(content),
        |partial, file| {
            match fs::hard_link(partial, file) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_new = false,
                linked => linked?,
            }
            fs::remove_file(partial)
        },
    )?;
    sync_folders(folder, path).map(|()| is_new)
}

fn written(
    folder: &FilePath,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    name: impl FnOnce(&FilePath, &FilePath) -> io::Result<()>,
) -> io::Result<()> {
    let file = file(folder, path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut partial = file.clone().into_os_string();
    partial.push(format!(".{PARTIAL}.{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let write = || {
        let mut out = File::create(&partial)?;
        write(&mut out)?;
        out.sync_all()
    };
    write().and_then(|()| name(&partial, &file)).inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// Makes the names in an object's folder, and those of the folders above it, survive.
pub(super) fn sync_folders(folder: &FilePath, path: &Path) -> io::Result<()> {
    let file = file(folder, path);
    file.ancestors().skip(1).take_while(|parent| parent.starts_with(folder)).try_for_each(|parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = Path::from("a/b/c");
        assert!(create(folder.path(), &path, b"one").unwrap());
        assert!(!create(folder.path(), &path, b"two").unwrap());
        assert_eq!(fs::read(folder.path().join("a/b/c")).unwrap(), b"one");
        put(folder.path(), &path, b"two").unwrap();
        sync_folders(folder.path(), &path).unwrap();
        assert_eq!(fs::read(folder.path().join("a/b/c")).unwrap(), b"two");
        copy(folder.path(), &path, &mut b"three".as_slice()).unwrap();
        assert_eq!(fs::read(folder.path().join("a/b/c")).unwrap(), b"three");
        // A folder is where the file is to be.
        fs::create_dir(folder.path().join("a/d")).unwrap();
        assert!(put(folder.path(), &Path::from("a/d"), b"x").is_err());
        assert!(create(folder.path(), &Path::from("a/b/c/e"), b"x").is_err());
        let names = |of: &str| fs::read_dir(folder.path().join(of)).unwrap().count();
        assert_eq!((names("a"), names("a/b")), (2, 1));
    }
}
