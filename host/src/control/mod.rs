//! The control socket of a running job: a Unix socket in a folder that only its user may enter, one line of JSON for a request, one per answer. `run` serves it
//! ([`server`]), `job` asks ([`client`]). Where a job is supervised, the supervisor serves, and passes on what the job's process must answer.

pub(crate) mod client;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod taps;

use rustix::process::getuid;
use serde::{Deserialize, Serialize};
use status::Status;
use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Names another folder for the sockets.
pub(crate) const FOLDER: &str = "STANDPIPE_RUN_DIR";
/// What sockets of jobs end with; those of supervised processes, which nobody is to find, end otherwise.
const SOCKET: &str = "sock";
const OF_A_CHILD: &str = "child";
const OF_A_LAUNCH: &str = "launch";

/// What is asked of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How it does. One answer.
    Status,
    /// A savepoint; answered when it is durable.
    Savepoint {
        /// A folder or URL that it is copied to.
        #[serde(default)]
        to: Option<String>,
    },
    /// An ordinary checkpoint, now; answered when it is durable.
    Checkpoint,
    /// A clean stop. Several answers, the last when the job has ended.
    Stop {
        /// Open windows fire.
        #[serde(default)]
        drain: bool,
        /// The last checkpoint is a savepoint.
        #[serde(default)]
        savepoint: bool,
        /// A folder or URL that it is copied to.
        #[serde(default)]
        to: Option<String>,
    },
    /// An end at once.
    Cancel,
    /// Rows of a node as they pass, once there are some. One answer of each of the job's processes.
    Tap(Look),
    /// How it ends: answered when it does.
    End,
}

/// Which rows are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Look {
    /// Who looks: a name by which one look goes on where the last one has ended.
    pub(crate) tap: String,
    /// `stats`, `transforms.stats`, `stats.late`.
    pub(crate) node: String,
    /// Rows at most; at the first look, also how many are kept between two. 0: whoever looks has all that was wanted, the look is over.
    pub(crate) rows: u64,
    /// Those that passed last, where there are more.
    #[serde(default)]
    pub(crate) newest: bool,
    /// How long to wait for rows, in milliseconds.
    pub(crate) wait: u64,
}

/// What a job answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// How it does.
    Status(Box<Status>),
    /// A savepoint or checkpoint that is durable.
    Savepoint {
        /// Its number.
        number: u64,
        /// Where its manifest is: what `--restore` takes.
        place: String,
    },
    /// Rows that have passed.
    Rows(Rows),
    /// The job is about to end.
    Stopping,
    /// It has ended without a failure: a line about it.
    Ended(String),
    /// It has failed: why.
    Failed(String),
    /// It will not, or cannot: why.
    Refused(String),
    /// Too many others look at its rows: another time it may.
    Busy(String),
}

/// Rows that a process of a job has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rows {
    /// An Arrow IPC stream, in base64; empty: the job has not begun.
    pub(crate) stream: String,
    /// Rows that were passed over since the last look.
    pub(crate) dropped: u64,
    /// The look begins with these: whoever had rows before misses what has passed since, and how many is not known.
    #[serde(default)]
    pub(crate) opened: bool,
    /// Nothing follows.
    pub(crate) ended: bool,
    /// All sources of the job end.
    pub(crate) bounded: bool,
}

/// The folder of the sockets: made if it is missing, and refused if others may enter it.
fn folder() -> io::Result<PathBuf> {
    let of_system = || env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(|path| PathBuf::from(path).join("standpipe"));
    let named = env::var_os(FOLDER).filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = named.or_else(of_system).unwrap_or_else(|| env::temp_dir().join(format!("standpipe-{}", getuid().as_raw())));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let found = fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != getuid().as_raw() || found.mode() & 0o077 != 0 {
        let reason = format!("{}: others may enter it; it must be a folder of yours alone (mode 700), or set {FOLDER}", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(folder)
}

/// Where a job's socket is.
pub(crate) fn socket(job_id: &str) -> io::Result<PathBuf> {
    Ok(folder()?.join(job_id).with_extension(SOCKET))
}

/// Where the socket of a process is that a supervised job runs in. On a task manager, which has one of a job's processes in a folder of its own, all have the same name.
pub(crate) fn socket_of_child(job_id: &str, process: u32) -> io::Result<PathBuf> {
    let is_alone = process == 0 || env::var_os(crate::processes::HOST).is_some();
    let name = if is_alone { format!("{job_id}.{OF_A_CHILD}") } else { format!("{job_id}.{process}.{OF_A_CHILD}") };
    Ok(folder()?.join(name))
}

/// Where processes of a job that has several hear of each other as they start.
pub(crate) fn socket_of_launch(job_id: &str) -> io::Result<PathBuf> {
    Ok(folder()?.join(job_id).with_extension(OF_A_LAUNCH))
}

/// For whoever has started this process, and may not have asked since: how the job did at its end.
pub(crate) fn leave_status(status: &Status) {
    // Only figures are lost with it, and whoever supervises without asking for it has no use for them.
    let left = env::var_os(crate::processes::HOST).map(|_| {
        let path = folder()?.join(&status.id).with_extension(standpipe_cluster::taskmanager::LAST_STATUS);
        fs::write(path, serde_json::to_vec(status)?)
    });
    if let Some(Err(error)) = left {
        tracing::warn!(job = status.id, "how the job did at its end is not known: {error}");
    }
}

/// The sockets of all jobs of this user, also of some that are no more.
fn sockets() -> io::Result<Vec<PathBuf>> {
    let is_socket = |path: &Path| path.extension().is_some_and(|extension| extension == SOCKET);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()?)? {
        found.extend(Some(entry?.path()).filter(|path| is_socket(path)));
    }
    found.sort();
    Ok(found)
}
