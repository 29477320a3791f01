//! The end of the one job of a manager: it is written where whoever has started the manager looks, the job's deployment mode cleans up, and the exit code says it.

use crate::{
    cli::ApplicationArguments,
    cluster::wait::wait,
    exit::{Code, Failure},
    output::say,
};
use anyhow::Context as _;
use serde_json::{Map, Value};
use standpipe_cluster::application::Ended;
use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a handle says of a job that has ended.
const ENDED: &str = "ended";
/// A mode that cleans up for longer does not come to an end. Where there was no manager nothing answers probes meanwhile: whoever asks them every ten seconds and gives up after six of them
/// has not yet.
const PATIENCE: Duration = Duration::from_secs(40);

/// Writes how the job has ended into the file that is for that.
pub(super) fn tell(file: Option<&Path>, ended: &Ended) {
    let Some(file) = file else { return };
    // In its place: it may be mounted there, and then has no other.
    let written = fs::File::options().write(true).create(true).truncate(true).open(file);
    if let Err(error) = written.and_then(|mut to| to.write_all(ended.text().as_bytes())) {
        say!("warning: --termination-file {}: {error}", file.display());
    }
}

/// The end of a job that no manager could take: it is told, what its mode has made for it goes, and the exit code says it.
///
/// # Errors
/// As [`over`].
pub(in crate::cluster) fn end(arguments: &ApplicationArguments, ended: &Ended) -> anyhow::Result<()> {
    // First: this process may be ended while the mode cleans up.
    tell(arguments.termination_file.as_deref(), ended);
    if let Some(handle) = &arguments.handle {
        clean(handle, ended);
    }
    over(arguments, ended)
}

/// What the job's mode has made for it goes.
pub(super) fn clean(handle: &Path, ended: &Ended) {
    if let Err(error) = clean_up(handle, ended) {
        say!("warning: the job's deployment mode has not cleaned up: {error:#}");
    }
}

/// The exit code says how the job has ended.
///
/// # Errors
/// Where it has not finished.
pub(in crate::cluster) fn over(arguments: &ApplicationArguments, ended: &Ended) -> anyhow::Result<()> {
    // The manager has told it already, unless there was none, or it could not wait for what keeps it.
    tell(arguments.termination_file.as_deref(), ended);
    match ended.state.as_str() {
        "FINISHED" => {
            say!("the job has finished");
            Ok(())
        }
        "CANCELED" => Err(Failure::error(Code::JobCanceled, "the job was cancelled")),
        _ => {
            let cause = ended.cause.as_deref().unwrap_or("it does not say why");
            Err(Failure::error(Code::JobFailed, format!("the job has failed: {cause}")))
        }
    }
}

/// Calls the mode that the handle names, in a process of its own: a plugin that crashes or hangs changes nothing of how the job has ended.
fn clean_up(file: &Path, ended: &Ended) -> anyhow::Result<()> {
    let at = || format!("--handle {}", file.display());
    let mut handle: Map<String, Value> = serde_json::from_slice(&fs::read(file).with_context(at)?).with_context(at)?;
    handle.insert(ENDED.to_owned(), serde_json::from_str(&ended.text())?);
    let mut command = Command::new(env::current_exe()?);
    // What it prints is for people: standard output has nothing of a manager.
    command.args(["deployment", "remove", "--handle", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(serde_json::to_string(&handle)?.as_bytes())?;
    }
    let status = wait(&mut child, Instant::now() + PATIENCE)?;
    if status.success() { Ok(()) } else { Err(anyhow::anyhow!("its process has ended: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_takes_the_place_of_what_was_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "x".repeat(5_000)).unwrap();
        let ended = Ended::failed("j", "no".to_owned(), 7);
        tell(Some(file.path()), &ended);
        let read: Ended = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(read, ended);
        tell(None, &ended);
        // Nobody is stopped by it.
        tell(Some(Path::new("/no/such/file")), &ended);
    }
}
