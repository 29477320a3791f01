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
        let folder = env::current_dir().map_err(|error| Error::external(format!("the current directory: {error}")))?;
        let written = Bundle::read(bundle)?;
        let folder = folder.join(format!("{}.bundle", file_name(&written.name)));
        lay_out(&written, bundle, &folder)?;
        let command = self.command(&written, &folder);
        self.host.info("nothing was submitted; this runs the job:", &[]);
        self.host.info(&command, &[]);
        let text = |path: &Path| path.display().to_string();
        Ok([("bundle", text(&folder)), ("command", command)].map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect())
    }

    fn preview(&mut self, bundle: &Path) -> Result<String> {
        let folder = env::current_dir().map_err(|error| Error::external(format!("the current directory: {error}")))?;
        let written = Bundle::read(bundle)?;
        let folder = folder.join(format!("{}.bundle", file_name(&written.name)));
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
        let Some(folder) = handle.get("bundle").and_then(|folder| folder.as_str()).map(Path::new) else { return Ok(()) };
        if is_bundle(folder) { fs::remove_dir_all(folder).map_err(|error| outside(folder, &error)) } else { Ok(()) }
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

/// Writes the folder beside its place, then puts it there: an interrupted run leaves the old one.
fn lay_out(written: &Bundle, bundle: &Path, folder: &Path) -> Result<()> {
    if folder.symlink_metadata().is_ok() && !is_bundle(folder) {
        return Err(Error::external(format!("{}: is there and is no bundle: move it, or deploy from another directory", folder.display())));
    }
    let new = folder.with_extension(format!("bundle.{}", std::process::id()));
    let laid_out = fs::create_dir(&new).map_err(|error| outside(&new, &error)).and_then(|()| {
        written.unpack(bundle, &new)?;
        if folder.exists() {
            check_unused(folder)?;
            fs::remove_dir_all(folder).map_err(|error| outside(folder, &error))?;
        }
        fs::rename(&new, folder).map_err(|error| outside(folder, &error))
    });
    if laid_out.is_err() {
        // What was written in vain; the failure itself is reported.
        drop(fs::remove_dir_all(&new));
    }
    laid_out
}

/// What a job has written there is not removed with the bundle.
fn check_unused(folder: &Path) -> Result<()> {
    let bundle = Bundle::read(folder)?;
    let laid_out: BTreeSet<PathBuf> = bundle.places().map(|(place, _)| folder.join(place)).collect();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).map_err(|error| outside(&at, &error))? {
            let path = entry.map_err(|error| outside(&at, &error))?.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path != folder.join(bundle::DESCRIPTION) && !laid_out.contains(&path) {
                let (folder, found) = (folder.display(), path.display());
                return Err(Error::external(format!(
                    "{folder}: {found} is no part of the bundle: move the folder, or deploy from another directory"
                )));
            }
        }
    }
    Ok(())
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

    #[test]
    fn words_are_those_of_a_shell() {
        for (word, expected) in [("a/b.yaml", "a/b.yaml"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''"), ("$HOME", "'$HOME'")] {
            assert_eq!(quoted(word), expected);
        }
        assert_eq!(file_name("a/b ../ü"), "a_b____ü");
    }
}
