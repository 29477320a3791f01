//! The deployment mode `cli`: submits nothing and opens no connection. It lays the job out in a folder, `NAME.bundle` in the current directory, and says the exact command that
//! runs it there.
#![deny(unsafe_code)]

use arrow_array::RecordBatchReader;
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Deployment, Error, Host, Result,
    bundle::{self, Bundle},
    deployment::{Collect, Handle, JobStatus},
};
use std::{
    collections::BTreeSet,
    env, fs, io,
    path::{Path, PathBuf},
};

standpipe_sdk::export_plugin! { deployments: [Cli] }

/// Writes the job into a folder and prints the command that runs it; submits nothing.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct CliConfig {
    /// The distribution that runs the job: the folder with the `standpipe` binary. Unset: the running one.
    #[serde(default)]
    pub standpipe_home: Option<PathBuf>,
}

/// See [`CliConfig`].
pub struct Cli {
    binary: PathBuf,
    host: Host,
}

impl Deployment for Cli {
    const NAME: &'static str = "cli";
    type Config = CliConfig;

    fn open(config: CliConfig, host: Host) -> Result<Self> {
        let binary = config.standpipe_home.map_or_else(|| PathBuf::from("standpipe"), |home| home.join("standpipe"));
        Ok(Self { binary, host })
    }

    fn submit(&mut self, bundle: &Path) -> Result<Handle> {
        let written = Bundle::read(bundle)?;
        let folder = folder_of(&written)?;
        check_place(&folder, &written)?;
        lay_out(&written, bundle, &folder)?;
        let command = self.command(&written, &folder);
        self.host.info("nothing was submitted; this runs the job:", &[]);
        self.host.info(&command, &[]);
        let text = |path: &Path| path.display().to_string();
        Ok([("bundle", text(&folder)), ("command", command)].map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect())
    }

    fn preview(&mut self, bundle: &Path) -> Result<String> {
        let written = Bundle::read(bundle)?;
        let folder = folder_of(&written)?;
        check_place(&folder, &written)?;
        let files: Vec<String> = written.places().map(|(place, file)| format!("  {} ({} bytes)\n", place.display(), file.bytes)).collect();
        Ok(format!("{}\n{}{}\n", folder.display(), files.concat(), self.command(&written, &folder)))
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        Err(not_submitted(handle))
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        Err(not_submitted(handle))
    }

    fn collect(&mut self, handle: &Handle, _: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        let command = handle.get("command").and_then(|command| command.as_str()).unwrap_or("standpipe run");
        let how = "`standpipe job collect NAME --node NODE` shows rows of a job that was started by";
        Err(Error::unsupported(format!("nothing was submitted, so there are no rows of the job here; {how}: {command}")))
    }

    fn cleanup(&mut self, handle: &Handle) -> Result<()> {
        let folder = handle.get("bundle").and_then(|folder| folder.as_str()).map(Path::new);
        let folder = folder.ok_or_else(|| Error::config("bundle", "the handle does not say the folder of the job"))?;
        if !is_bundle(folder) {
            // It is removed already, as far as it was laid out.
            return Ok(());
        }
        let written = Bundle::read(folder)?;
        let own = others(folder, &written)?;
        remove(folder, &written)?;
        if let Some(first) = own.first() {
            let (folder, first) = (folder.display(), first.display());
            self.host.warn(format!("{folder} stays: {} of its files were not laid out by `deploy`, such as {first}", own.len()), &[]);
        }
        Ok(())
    }
}

impl Cli {
    /// For a shell.
    fn command(&self, bundle: &Bundle, folder: &Path) -> String {
        let mut words = vec!["cd".to_owned(), quoted(&folder.to_string_lossy()), "&&".to_owned(), quoted(&self.binary.to_string_lossy())];
        words.extend(bundle.run_arguments().iter().map(|word| quoted(word)));
        words.join(" ")
    }
}

fn not_submitted(handle: &Handle) -> Error {
    let command = handle.get("command").and_then(|command| command.as_str()).unwrap_or("standpipe run");
    Error::unsupported(format!(
        "nothing was submitted, so nothing is known of the job; `standpipe job` tells of one that was started by: {command}"
    ))
}

/// Where the job is laid out.
fn folder_of(written: &Bundle) -> Result<PathBuf> {
    let current = env::current_dir().map_err(|error| Error::external(format!("the current directory: {error}")))?;
    Ok(current.join(format!("{}.bundle", file_name(&written.name))))
}

/// Whether the job may be laid out there: what is no bundle, what is another job's, and what a job has written there is not removed.
fn check_place(folder: &Path, written: &Bundle) -> Result<()> {
    if folder.symlink_metadata().is_err() {
        return Ok(());
    }
    let refused = |what: &str| Err(Error::external(format!("{}: {what}, or deploy from another directory", folder.display())));
    if !is_bundle(folder) {
        return refused("is there and is no bundle: move it");
    }
    let old = Bundle::read(folder)?;
    if old.name != written.name {
        return refused(&format!("is there and is the bundle of the job {:?}: move it", old.name));
    }
    match others(folder, &old)?.first() {
        Some(found) => refused(&format!("{} is no part of the bundle: move the folder", found.display())),
        None => Ok(()),
    }
}

/// Writes the folder beside its place, then puts it there: an interrupted run leaves the old one.
fn lay_out(written: &Bundle, bundle: &Path, folder: &Path) -> Result<()> {
    let new = folder.with_extension(format!("bundle.{}", std::process::id()));
    let laid_out = fs::create_dir(&new).map_err(|error| outside(&new, &error)).and_then(|()| {
        written.unpack(bundle, &new)?;
        if folder.exists() {
            remove(folder, &Bundle::read(folder)?)?;
        }
        fs::rename(&new, folder).map_err(|error| outside(folder, &error))
    });
    if laid_out.is_err() {
        // What was written in vain; the failure itself is reported.
        drop(fs::remove_dir_all(&new));
    }
    laid_out
}

/// What is there and was not laid out with the bundle: a job's results and checkpoints, say, and folders with nothing in them.
fn others(folder: &Path, bundle: &Bundle) -> Result<Vec<PathBuf>> {
    let mut laid_out: BTreeSet<PathBuf> = bundle.places().map(|(place, _)| folder.join(place)).collect();
    laid_out.insert(folder.join(bundle::DESCRIPTION));
    let (mut folders, mut others) = (vec![folder.to_owned()], Vec::new());
    while let Some(at) = folders.pop() {
        let mut entries = fs::read_dir(&at).map_err(|error| outside(&at, &error))?.peekable();
        if entries.peek().is_none() {
            others.push(at);
            continue;
        }
        for entry in entries {
            let path = entry.map_err(|error| outside(&at, &error))?.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if !laid_out.contains(&path) {
                others.push(path);
            }
        }
    }
    others.sort();
    Ok(others)
}

/// Removes what was laid out, and the folders that are empty then. The description goes last: until then the folder is a bundle.
fn remove(folder: &Path, written: &Bundle) -> Result<()> {
    let mut parents = BTreeSet::from([folder.to_owned()]);
    for (place, _) in written.places() {
        remove_file(&folder.join(&place))?;
        parents.extend(place.ancestors().skip(1).map(|parent| folder.join(parent)));
    }
    remove_file(&folder.join(bundle::DESCRIPTION))?;
    // The inner ones first. What is not empty is kept for what is in it.
    for parent in parents.iter().rev() {
        match fs::remove_dir(parent) {
            Err(error) if ![io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound].contains(&error.kind()) => {
                return Err(outside(parent, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(outside(path, &error)),
        _ => Ok(()),
    }
}

fn is_bundle(folder: &Path) -> bool {
    folder.join(bundle::DESCRIPTION).is_file()
}

/// A name that is one part of a path.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' };
    name.chars().map(plain).take(100).collect()
}

fn outside(path: &Path, error: &io::Error) -> Error {
    Error::external(format!("{}: {error}", path.display()))
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_laid_out_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("j.bundle");
        let file = |path: &str| json!({"path": path, "hash": format!("sha256:{}", "0".repeat(64)), "bytes": 0});
        let lay_out = || {
            fs::create_dir_all(folder.join("data/a")).unwrap();
            let description =
                json!({"standpipe": "0", "name": "j", "pipeline": file("j.yaml"), "resources": [file("data/a/b.csv"), file("gone")]});
            fs::write(folder.join(bundle::DESCRIPTION), description.to_string()).unwrap();
            ["j.yaml", "data/a/b.csv"].iter().for_each(|path| fs::write(folder.join(path), "").unwrap());
        };
        lay_out();
        let written = Bundle::read(&folder).unwrap();
        remove(&folder, &written).unwrap();
        assert!(!folder.exists());
        lay_out();
        let empty = folder.join("empty");
        fs::create_dir(&empty).unwrap();
        assert_eq!(others(&folder, &written).unwrap(), [empty.as_path()], "the new bundle could not take its place");
        fs::remove_dir(empty).unwrap();
        let own = ["data/mine.jsonl", "results.jsonl"].map(|path| folder.join(path));
        own.iter().for_each(|path| fs::write(path, "precious").unwrap());
        assert_eq!(others(&folder, &written).unwrap(), own);
        assert!(check_place(&folder, &written).unwrap_err().message.contains("data/mine.jsonl is no part of the bundle: move the folder"));
        remove(&folder, &written).unwrap();
        assert_eq!(own.map(|path| fs::read_to_string(path).unwrap()), ["precious", "precious"]);
        assert!(!folder.join("j.yaml").exists() && !folder.join("data/a").exists() && !is_bundle(&folder));
    }

    #[test]
    fn a_bundle_of_another_job_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let description = |name: &str| {
            let file = json!({"path": "j.yaml", "hash": format!("sha256:{}", "0".repeat(64)), "bytes": 0});
            json!({"standpipe": "0", "name": name, "pipeline": file})
        };
        fs::write(root.path().join(bundle::DESCRIPTION), description("a/b").to_string()).unwrap();
        let other: Bundle = serde_json::from_value(description("a b")).unwrap();
        let refused = check_place(root.path(), &other).unwrap_err().message;
        assert!(refused.ends_with("is there and is the bundle of the job \"a/b\": move it, or deploy from another directory"), "{refused}");
    }

    #[test]
    fn words_are_those_of_a_shell() {
        for (word, expected) in [("a/b.yaml", "a/b.yaml"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''"), ("$HOME", "'$HOME'")] {
            assert_eq!(quoted(word), expected);
        }
        assert_eq!(file_name("a/b ../ü"), "a_b____ü");
    }
}
