//! The course of a manager that has one job alone: its files are found or waited for and it is taken (`take`), what the next manager needs is kept (`keeping`), and when it is
//! over the manager stays until what is to be read of it has been read (`end`, `readers`), or the time for that is over; what was made for the job goes while it still answers.
//!
//! A manager that took the place of another one may have nothing: then the job goes on from what it has kept itself where its checkpoints are, and what a task manager still
//! runs of it is given the time to end ([`crate::manager::Past`]). Two managers may live at once, where one was given up that is only out of reach: where the job keeps its checkpoints
//! each notes that it has taken the job, and one that finds that another has since ends, and decides nothing of the job any more.

mod end;
mod keeping;
mod readers;
mod take;

use super::{Shared, answer::Refusal};
use crate::{
    application::{Application, Ended, KeepError},
    bundle::{Bundle, File, Hash},
};
use axum::http::StatusCode;
pub(super) use end::part;
use keeping::Keeping;
pub(super) use keeping::{WISHING, wish_of};
use parking_lot::Mutex;
use readers::Readers;
use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::watch, task::spawn_blocking, time::Instant};

/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(50);
/// Before somebody who does not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How far the manager is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It looks for files.
    Looking,
    /// It waits for those that are missing, or has the job.
    Ready,
}

/// The one job of a manager.
pub(super) struct Alone {
    of: Application,
    phase: watch::Sender<Phase>,
    /// When something of a file has come last.
    came: Mutex<Instant>,
    /// Grows with every file that has come as a whole.
    sent: watch::Sender<u64>,
    /// Nobody waits for readers any more.
    hurries: AtomicBool,
    readers: Mutex<Readers>,
    keeping: Mutex<Keeping>,
    /// How the job has ended, as soon as that is known.
    over: Mutex<Option<Ended>>,
}

impl Alone {
    pub(super) fn new(of: Application) -> Self {
        let (phase, sent) = (watch::Sender::new(Phase::Looking), watch::Sender::new(0));
        Self {
            of,
            phase,
            came: Mutex::new(Instant::now()),
            sent,
            hurries: AtomicBool::new(false),
            readers: Mutex::default(),
            keeping: Mutex::default(),
            over: Mutex::default(),
        }
    }

    pub(super) fn job(&self) -> &str {
        &self.of.job
    }

    /// Whether it has begun to wait, or has the job.
    pub(super) fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Ready
    }

    /// What is missing is known once it has looked.
    pub(super) async fn has_looked(&self) {
        // The sender is this one.
        drop(self.phase.subscribe().wait_for(|phase| *phase == Phase::Ready).await);
    }

    /// Something has come of a file: whoever sends a large one says so by each piece.
    pub(super) fn has_come(&self) {
        *self.came.lock() = Instant::now();
    }

    /// A file has come as a whole.
    pub(super) fn has_come_whole(&self) {
        self.has_come();
        self.sent.send_modify(|sent| *sent = sent.wrapping_add(1));
    }

    /// Another job than its own is refused, and so is a file that is none of it.
    pub(super) fn refuse_other(&self, is_own: bool) -> Result<(), Refusal> {
        let why = || format!("this job manager runs the job {} ({}) alone", self.of.bundle.name, self.of.job);
        if is_own { Ok(()) } else { Err(Refusal::one(StatusCode::CONFLICT, why())) }
    }

    /// Whether a file is one of the job.
    pub(super) fn has_file(&self, hash: Hash) -> bool {
        self.of.bundle.files().any(|file| file.hash == hash)
    }

    /// Somebody has asked something of the job, and waits for what becomes of it.
    pub(super) fn is_asked(&self, request: &str) {
        self.readers.lock().is_asked(request, Instant::now());
    }

    /// They have heard it.
    pub(super) fn is_heard(&self, request: &str) {
        self.readers.lock().is_heard(request, Instant::now());
    }

    /// Somebody has read all rows of a sink.
    pub(super) fn is_read(&self, node: &str) {
        self.readers.lock().is_read(format!("sinks.{node}"), Instant::now());
    }

    /// Nobody is waited for any more.
    pub(super) fn hurry(&self) {
        self.hurries.store(true, SeqCst);
    }

    /// How the job has ended, if it has, whether or not that is kept or told yet.
    pub(super) fn over(&self, shared: &Shared) -> Option<Ended> {
        let known = self.over.lock().clone();
        known.or_else(|| {
            let state = shared.state();
            let job = state.manager.jobs().get(self.job())?;
            Ended::of(job, state.triggers.stopped_with(job))
        })
    }
}

/// From the first look for its files until nobody needs the manager any more: how the job has ended. An error is of something outside: another start may help.
pub(super) async fn course(shared: Arc<Shared>, alone: Arc<Alone>) -> io::Result<Ended> {
    let begun = Begun { shared, alone };
    begun.run().await.map_err(io::Error::other)
}

/// Why the job is not run here.
enum Early {
    /// It is over: it cannot be run, or nobody wants it any more.
    Over(Ended),
    /// It was over before, which is noted.
    Before(Ended),
    /// What has to be known is not, or it is another manager's.
    Outside(String),
}

impl From<KeepError> for Early {
    fn from(error: KeepError) -> Self {
        Self::Outside(error.to_string())
    }
}

/// What went wrong in here, or on this machine.
impl From<String> for Early {
    fn from(why: String) -> Self {
        Self::Outside(why)
    }
}

#[derive(Clone)]
struct Begun {
    shared: Arc<Shared>,
    alone: Arc<Alone>,
}

/// Work that waits for a disk or a network.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    spawn_blocking(work).await.map_err(|error| format!("it went wrong in here: {error}"))
}

impl Begun {
    fn bundle(&self) -> &Bundle {
        &self.alone.of.bundle
    }

    /// The files of the bundle, each content once.
    fn files(&self) -> Vec<File> {
        let mut seen = BTreeSet::new();
        self.bundle().files().filter(|file| seen.insert(file.hash)).cloned().collect()
    }

    /// Those that are not here. Waits for a disk.
    async fn missing(&self) -> Result<Vec<File>, String> {
        let (mut files, blobs) = (self.files(), self.shared.blobs.clone());
        blocking(move || {
            let missing = blobs.missing(files.iter().map(|file| file.hash));
            files.retain(|file| missing.contains(&file.hash));
            files
        })
        .await
    }

    async fn run(&self) -> Result<Ended, String> {
        let early = match self.take().await {
            Ok(()) => self.end().await,
            Err(early) => Err(early),
        };
        let ended = match early {
            Ok(ended) | Err(Early::Over(ended)) => {
                self.tell(&ended).await?;
                ended
            }
            Err(Early::Before(ended)) => {
                tracing::info!(job = self.alone.job(), "the job had ended already: {}", ended.state);
                self.tell_outside(&ended).await;
                return Ok(ended);
            }
            Err(Early::Outside(why)) => return Err(why),
        };
        self.linger().await;
        self.check().await?;
        Ok(ended)
    }
}

/// Takes the job as [`course`] does that finds its files, and does not wait for its end.
#[cfg(test)]
pub(super) async fn take_for_tests(shared: &Arc<Shared>, alone: &Arc<Alone>) {
    let begun = Begun { shared: Arc::clone(shared), alone: Arc::clone(alone) };
    assert!(begun.take().await.is_ok(), "the files of the job are there");
}

#[cfg(test)]
mod tests;
