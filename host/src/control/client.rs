//! The user's end of control sockets: which jobs there are, and asking one of them.

use super::{Answer, Look, Request, sockets, status::Status};
use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// A job that says nothing for so long about how it does is passed over.
const PATIENCE: Duration = Duration::from_secs(5);
/// What ends a look is said; that it was heard is not waited for.
const CLOSING: Duration = Duration::from_millis(100);

/// Asks, and hands on every answer until the job has said all.
///
/// # Errors
/// When nobody answers, or not in words that this release knows.
pub(crate) fn ask(socket: &Path, request: &Request, patience: Option<Duration>, hear_one: impl FnMut(Answer)) -> io::Result<()> {
    hear(begin(socket, request, patience)?, hear_one)
}

/// Asks, without waiting for an answer.
///
/// # Errors
/// When nobody is there.
pub(crate) fn begin(socket: &Path, request: &Request, patience: Option<Duration>) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(patience)?;
    stream.write_all(&[serde_json::to_vec(request)?.as_slice(), b"\n"].concat())?;
    Ok(stream)
}

/// Hands on every answer to what was asked.
///
/// # Errors
/// As of [`ask`].
pub(crate) fn hear(stream: UnixStream, mut hear: impl FnMut(Answer)) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        hear(serde_json::from_str(&line?)?);
    }
    Ok(())
}

/// Looks at rows of a process. Where its answer is lost, rows may be: the look is over, so that the next one begins anew and says so.
///
/// # Errors
/// As of [`ask`].
pub(crate) fn look(socket: &Path, look: &Look, patience: Duration, hear: impl FnMut(Answer)) -> io::Result<()> {
    let looked = ask(socket, &Request::Tap(look.clone()), Some(patience), hear);
    if looked.as_ref().is_err_and(|error| !is_not_there(error)) && look.rows > 0 {
        // It is gone, or stands still and will hear it.
        drop(ask(socket, &Request::Tap(Look { rows: 0, wait: 0, ..look.clone() }), Some(CLOSING), |_| ()));
    }
    looked
}

/// Whether nobody listens there.
pub(crate) fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Removes the socket of a job that is no more, and those of its processes: all that is called after its id.
fn remove(socket: &Path) {
    let (Some(folder), Some(id)) = (socket.parent(), socket.file_stem().and_then(OsStr::to_str)) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_of_it = |name: &OsStr| name.to_str().and_then(|name| name.strip_prefix(id)).is_some_and(|rest| rest.starts_with('.'));
        if is_of_it(&entry.file_name()) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// A running job.
pub(crate) struct Job {
    pub(crate) socket: PathBuf,
    pub(crate) status: Status,
}

/// The running jobs of this user, in the order of their start.
///
/// # Errors
/// When the folder of their sockets cannot be read.
pub(crate) fn jobs() -> io::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for socket in sockets()? {
        let mut status = None;
        let asked = ask(&socket, &Request::Status, Some(PATIENCE), |answer| {
            if let Answer::Status(of_job) = answer {
                status = Some(*of_job);
            }
        });
        match (asked, status) {
            (Ok(()), Some(status)) => jobs.push(Job { socket, status }),
            // Its process was killed; a socket cannot be bound twice, so this is of no other.
            (Err(error), _) if error.kind() == io::ErrorKind::ConnectionRefused => {
                remove(&socket);
            }
            (Err(error), _) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{}: {error}", socket.display())
            }
            _ => {}
        }
    }
    jobs.sort_by(|a, b| a.status.started.cmp(&b.status.started));
    Ok(jobs)
}
