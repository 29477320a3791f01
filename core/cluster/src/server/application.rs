//! The course of a manager that has one job alone: its files are found or waited for, it is taken, and when it is over the manager stays until what is to be read of it has
//! been read, or the time for that is over.
//!
//! A manager that took the place of another one may have nothing: then the job goes on from what it has kept itself where its checkpoints are, and what a task manager still
//! runs of it is given the time to end ([`Past`]).

use super::{
    Shared,
    answer::Refusal,
    shared::{Refused, Wanted},
};
use crate::{
    application::{Application, Ended, Keep, nobody_has_sent},
    bundle::{Bundle, File, Hash},
    manager::Past,
};
use axum::http::StatusCode;
use parking_lot::Mutex;
use standpipe_trace::{Beginning, Context, Kind};
use std::io;
use std::{
    collections::BTreeSet,
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
/// What was asked of the job is answered by then, or nobody is there to answer any more.
const ANSWERS: Duration = Duration::from_secs(8);
/// Whoever waits for such an answer has heard it by then.
const HEARD: Duration = Duration::from_secs(5);

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
    /// Grows with everything that comes of a file.
    sent: watch::Sender<u64>,
    /// Nobody waits for readers any more.
    hurries: AtomicBool,
    readers: Mutex<Readers>,
}

/// Who is still to read something.
#[derive(Default)]
struct Readers {
    /// Sinks of which somebody has read all.
    read: BTreeSet<String>,
    /// Requests of which nobody has heard what became of them.
    waiting: BTreeSet<String>,
}

impl Alone {
    pub(super) fn new(of: Application) -> Self {
        let (phase, sent) = (watch::Sender::new(Phase::Looking), watch::Sender::new(0));
        Self { of, phase, sent, hurries: AtomicBool::new(false), readers: Mutex::default() }
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

    /// Something has come of a file.
    pub(super) fn has_come(&self) {
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
        self.readers.lock().waiting.insert(request.to_owned());
    }

    /// They have heard it.
    pub(super) fn is_heard(&self, request: &str) {
        self.readers.lock().waiting.remove(request);
    }

    /// Somebody has read all rows of a sink.
    pub(super) fn is_read(&self, node: &str) {
        self.readers.lock().read.insert(format!("sinks.{node}"));
    }

    /// Nobody is waited for any more.
    pub(super) fn hurry(&self) {
        self.hurries.store(true, SeqCst);
    }
}

/// From the first look for its files until nobody needs the manager any more: how the job has ended. An error is of something outside: another start may help.
pub(super) async fn course(shared: Arc<Shared>, alone: Arc<Alone>) -> io::Result<Ended> {
    let begun = Begun { shared, alone };
    let (ended, keep) = match begun.take().await {
        Ok(keep) => (begun.end(&keep).await, keep),
        Err(Early::Failed(cause, keep)) => (Ended::failed(begun.alone.job(), cause, begun.shared.clock.now()), keep),
        Err(Early::Outside(why)) => return Err(io::Error::other(why)),
        Err(Early::Ended(ended)) => {
            tracing::info!(job = begun.alone.job(), "the job had ended already: {}", ended.state);
            begun.tell(&ended, None).await;
            return Ok(ended);
        }
    };
    begun.tell(&ended, keep).await;
    begun.linger().await;
    Ok(ended)
}

type Kept = Option<Arc<dyn Keep>>;

/// Why the job is not run here.
enum Early {
    /// It cannot be, and where it would have kept what it needs.
    Failed(String, Kept),
    /// It was over before.
    Ended(Ended),
    /// Whether it was over before is not known.
    Outside(String),
}

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

    fn missing(&self) -> Vec<File> {
        let missing = self.shared.blobs.missing(self.bundle().files().map(|file| file.hash));
        let mut seen = BTreeSet::new();
        self.bundle().files().filter(|file| missing.contains(&file.hash) && seen.insert(file.hash)).cloned().collect()
    }

    /// Takes the job, once all of its files are there.
    async fn take(&self) -> Result<Kept, Early> {
        let (known, is_over) =
            self.shared.look(|manager| manager.jobs().get(self.alone.job()).map_or((false, false), |job| (true, job.is_over())));
        if is_over {
            self.alone.phase.send_replace(Phase::Ready);
            return Ok(self.keeper().await.unwrap_or_default());
        }
        let failed = |cause| Early::Failed(cause, None);
        let find = Arc::clone(&self.alone.of.find);
        let (missing, blobs) = (self.missing(), self.shared.blobs.clone());
        blocking(move || find(&missing, &blobs)).await.map_err(failed)?;
        let mut keep = self.keeper().await.map_err(failed)?;
        if let Some(keep) = &keep {
            if let Some(ended) = self.had_ended(keep).await? {
                return Err(Early::Ended(ended));
            }
            self.fetch(keep).await.map_err(failed)?;
        }
        self.alone.phase.send_replace(Phase::Ready);
        let sent = self.missing();
        if let Err(cause) = self.wait_for_files(keep.is_some()).await {
            return Err(Early::Failed(cause, keep));
        }
        if keep.is_none() {
            // The pipeline file may have been one of those that came.
            keep = self.keeper().await.map_err(failed)?;
        }
        if known {
            return Ok(keep);
        }
        if let Some(keep) = &keep {
            self.keep(keep, sent).await.map_err(failed)?;
        }
        let past = self.past(&keep).await.map_err(failed)?;
        self.submit(past, &keep).await.map_err(|cause| Early::Failed(cause, keep.clone()))?;
        Ok(keep)
    }

    /// Where the job keeps its checkpoints; none where that is not known.
    async fn keeper(&self) -> Result<Kept, String> {
        let pipeline = self.shared.blobs.path(self.bundle().pipeline.hash);
        if !pipeline.is_file() {
            return Ok(None);
        }
        let (open, bundle) = (Arc::clone(&self.alone.of.keeper), self.bundle().clone());
        Ok(blocking(move || open(&pipeline, &bundle)).await?.unwrap_or_else(|why| {
            tracing::warn!("nothing can be kept where the job keeps its checkpoints: {why}");
            None
        }))
    }

    /// A job that has ended must not be begun again, whatever it takes to know that.
    async fn had_ended(&self, keep: &Arc<dyn Keep>) -> Result<Option<Ended>, Early> {
        let deadline = Instant::now() + self.alone.of.timeout;
        loop {
            let own = Arc::clone(keep);
            match blocking(move || own.ended()).await.and_then(|known| known) {
                Ok(ended) => return Ok(ended),
                Err(why) if Instant::now() >= deadline => {
                    return Err(Early::Outside(format!("whether the job has ended before cannot be known: {why}")));
                }
                Err(why) => tracing::warn!("whether the job has ended before is not known yet: {why}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Gets what a former manager was sent.
    async fn fetch(&self, keep: &Arc<dyn Keep>) -> Result<(), String> {
        for file in self.missing() {
            let (own, blobs) = (Arc::clone(keep), self.shared.blobs.clone());
            match blocking(move || own.fetch(file.hash, &blobs)).await? {
                Ok(true) => tracing::info!("{} is of a former job manager", file.path),
                Ok(false) => {}
                Err(why) => tracing::warn!("{}: what a former job manager was sent cannot be had: {why}", file.path),
            }
        }
        Ok(())
    }

    async fn wait_for_files(&self, is_kept: bool) -> Result<(), String> {
        let (mut sent, timeout) = (self.alone.sent.subscribe(), self.alone.of.timeout);
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(());
            }
            // Whoever sends a large file says so by each piece.
            if tokio::time::timeout(timeout, sent.changed()).await.is_err() {
                return Err(nobody_has_sent(&missing, timeout, is_kept));
            }
        }
    }

    /// Keeps what was sent for the manager that may take this one's place.
    async fn keep(&self, keep: &Arc<dyn Keep>, sent: Vec<File>) -> Result<(), String> {
        for file in sent {
            let (own, path) = (Arc::clone(keep), self.shared.blobs.path(file.hash));
            if let Err(why) = blocking(move || own.keep(file.hash, &path)).await? {
                tracing::warn!("{}: it is not kept for a job manager that takes the place of this one: {why}", file.path);
            }
        }
        Ok(())
    }

    async fn past(&self, keep: &Kept) -> Result<Past, String> {
        let Some(keep) = keep.clone() else { return Ok(Past::Unknown) };
        Ok(match blocking(move || keep.has_begun()).await? {
            Ok(false) => Past::Unknown,
            Ok(true) => {
                tracing::info!(job = self.alone.job(), "the job has run before: it goes on from what it has of its own");
                Past::Begun
            }
            Err(why) => {
                tracing::warn!(job = self.alone.job(), "whether the job has run before is not known: {why}");
                Past::Begun
            }
        })
    }

    async fn submit(&self, past: Past, keep: &Kept) -> Result<(), String> {
        let (own, mut bundle, id) = (Arc::clone(&self.shared), self.bundle().clone(), self.alone.job().to_owned());
        if let Some(keep) = keep.clone() {
            match blocking(move || keep.parallelism()).await? {
                Ok(given) => bundle.options.parallelism = given.or(bundle.options.parallelism),
                Err(why) => tracing::warn!("the parallelism that the job was given while it ran is not known: {why}"),
            }
        }
        let parent = bundle.options.traceparent.as_ref().and_then(|text| text.parse::<Context>().ok());
        let submitted = blocking(move || {
            let beginning = Beginning { name: "submit", kind: Kind::Inside, parent: parent.as_ref(), link: None };
            let mut span = own.traces.begin(&beginning).with("job_name", bundle.name.as_str()).with("job_id", id.as_str());
            let submitted = own.submit(bundle, Wanted { id: Some(id), past }, &span);
            let why = |refused| match refused {
                Refused::Wrong(errors) => errors.join("\n"),
                Refused::Many | Refused::Taken => "the manager's data are of another job".to_owned(),
            };
            submitted.map(drop).map_err(why).inspect_err(|why| span.fail(why))
        });
        submitted.await?
    }

    /// Waits for the end of the job. What it is given meanwhile is kept.
    async fn end(&self, keep: &Kept) -> Ended {
        let mut told = self.shared.told.subscribe();
        let (mut answers_until, mut parallelism) = (None, self.parallelism());
        loop {
            let given = self.parallelism();
            if let (Some(keep), Some(given)) = (keep.clone(), given.filter(|_| given != parallelism))
                && let Err(why) = blocking(move || keep.keep_parallelism(given)).await.and_then(|kept| kept)
            {
                tracing::warn!(
                    "the parallelism that the job was given is not kept for a job manager that takes the place of this one: {why}"
                );
            }
            parallelism = given;
            if let Some(ended) = self.ended(&mut answers_until) {
                return ended;
            }
            tokio::select! {
                _ = told.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn parallelism(&self) -> Option<u32> {
        self.shared.look(|manager| manager.jobs().get(self.alone.job()).and_then(|job| job.bundle.options.parallelism))
    }

    /// How it has ended, with the savepoint that it was stopped with: its answer may come after the end.
    fn ended(&self, answers_until: &mut Option<Instant>) -> Option<Ended> {
        let mut state = self.shared.state();
        let (now, state) = (self.shared.clock.now(), &mut *state);
        let job = state.manager.jobs().get(self.alone.job())?;
        if !job.is_over() {
            return None;
        }
        let until = *answers_until.get_or_insert_with(|| Instant::now() + ANSWERS);
        state.triggers.settle(&state.manager, now);
        if state.triggers.has_open(self.alone.job()) && Instant::now() < until && !self.alone.hurries.load(SeqCst) {
            return None;
        }
        Ended::of(job, state.triggers.stopped_with(job))
    }

    /// Keeps how it has ended, before anybody is told: a manager that takes this one's place must not begin the job again.
    async fn tell(&self, ended: &Ended, keep: Kept) {
        if let Some(keep) = keep {
            let own = ended.clone();
            if let Err(why) = blocking(move || keep.end(&own)).await.and_then(|kept| kept) {
                tracing::warn!("that the job has ended cannot be kept where its checkpoints are: {why}");
            }
        }
        let (tell, own) = (Arc::clone(&self.alone.of.ended), ended.clone());
        if let Err(why) = blocking(move || tell(&own)).await {
            tracing::error!("{why}");
        }
    }

    /// Stays for rows that nobody has read, and for whoever waits for the outcome of a request.
    async fn linger(&self) {
        let begun = Instant::now();
        let sinks: BTreeSet<String> = self.shared.look(|manager| {
            let nodes = manager.jobs().get(self.alone.job()).map(|job| job.planned.nodes.as_slice()).unwrap_or_default();
            nodes.iter().filter(|node| node.collects).map(|node| node.path.clone()).collect()
        });
        loop {
            let (is_read, is_heard) = {
                let readers = self.alone.readers.lock();
                (sinks.is_subset(&readers.read), readers.waiting.is_empty())
            };
            let rows = !is_read && begun.elapsed() < self.alone.of.linger;
            let requests = !is_heard && begun.elapsed() < HEARD;
            if self.alone.hurries.load(SeqCst) || !(rows || requests) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests;
