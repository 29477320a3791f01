//! Finds the files of a source: a path, a pattern of paths, or `-` for standard input. One file is one split, whose id is its path.
//!
//! All files are found once, when the job starts: the source is bounded. What is in them is the business of [`crate::lines`].

use crate::{FileSourceConfig, outside};
use standpipe_sdk::{
    Context, Enumerator, Error, Result,
    source::{Discovery, SplitDescription},
};
use std::{fs, path::Path, time::Duration};

/// The path that stands for standard input, and the id of its split.
pub(crate) const STDIN: &str = "-";

/// Finds the files once.
pub struct FileEnumerator {
    files: Vec<String>,
}

impl Enumerator for FileEnumerator {
    type Config = FileSourceConfig;

    fn open(config: FileSourceConfig, _: Context) -> Result<Self> {
        Ok(Self { files: find(&config.path)? })
    }

    fn discover(&mut self, _: Duration) -> Result<Discovery> {
        let added = self.files.drain(..).map(|split| SplitDescription { split, details: String::new() }).collect();
        Ok(Discovery { added, removed: Vec::new(), exhausted: true })
    }
}

/// Whether a path has the wildcards `*`, `?` or `[...]`.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The files behind a path or pattern, sorted by path. A file whose name is the pattern, letter by letter, is that file.
fn find(path: &str) -> Result<Vec<String>> {
    if path == STDIN {
        return Ok(vec![path.to_owned()]);
    }
    if !is_pattern(path) || Path::new(path).exists() {
        check_readable(Path::new(path))?;
        return Ok(vec![path.to_owned()]);
    }
    let like_a_shell = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let mut files = Vec::new();
    for found in glob::glob_with(path, like_a_shell).map_err(|error| Error::config("path", format!("{path:?} is no pattern: {error}")))? {
        let found = found.map_err(|error| outside("read", error.path().display(), error.error()))?;
        if found.is_dir() {
            continue;
        }
        check_readable(&found)?;
        let name = found.to_str().ok_or_else(|| Error::external(format!("the name of {} is no UTF-8", found.display())))?;
        files.push(name.to_owned());
    }
    if files.is_empty() {
        return Err(Error::external(format!("no file matches {path}")));
    }
    files.sort_unstable();
    Ok(files)
}

/// Says at the start of the job what would else come up in the middle of it. A pipe is not opened: that would be seen at its other end.
fn check_readable(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| outside("read", path.display(), error))?;
    if metadata.is_dir() {
        let pattern = path.join("*");
        return Err(Error::external(format!("{} is a directory; {} takes the files in it", path.display(), pattern.display())));
    }
    if metadata.is_file() {
        fs::File::open(path).map_err(|error| outside("read", path.display(), error))?;
    }
    Ok(())
}
