//! What the manager keeps for the next one where the job keeps its checkpoints: files that were sent, the parallelism that the job was given, what somebody wishes of its end.
//! The place may come later than the manager: the job's first process makes the folder. What could not be kept is tried again.

use super::{Alone, Begun, LOOK, RETRY, blocking};
use crate::{
    application::{Ended, Keep, KeepError, Wish},
    bundle::File,
    triggers::Trigger,
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Between two looks for a place that was not there.
const LOOK_FOR_PLACE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// Whoever wishes the end of the job waits no longer for that to be noted.
pub(in crate::server) const WISHING: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 5 });

/// What is kept, and what is still to be.
#[derive(Default)]
pub(super) struct Keeping {
    /// Where: once this manager has taken the job there.
    place: Option<Arc<dyn Keep>>,
    /// Another manager had it before.
    had_others: bool,
    /// Files that this machine does not have by itself.
    sent: Vec<File>,
    /// As it is kept.
    pub(super) parallelism: Option<u32>,
    /// As it is kept: the job is still to be asked, or has not answered.
    pub(super) wish: Option<Wish>,
    /// How the job has ended under another manager.
    elsewhere: Option<Result<Ended, KeepError>>,
    /// Why there is no place, as was said last.
    said: String,
}

impl Keeping {
    pub(super) fn is_sent(&mut self, files: Vec<File>) {
        self.sent = files;
    }
}

impl Alone {
    pub(super) fn place(&self) -> Option<Arc<dyn Keep>> {
        self.keeping.lock().place.clone()
    }

    pub(super) fn place_and_others(&self) -> (Option<Arc<dyn Keep>>, bool) {
        let keeping = self.keeping.lock();
        (keeping.place.clone(), keeping.had_others)
    }

    pub(super) fn has_place(&self, place: Arc<dyn Keep>, had_others: bool) {
        let mut keeping = self.keeping.lock();
        (keeping.place, keeping.had_others) = (Some(place), had_others);
    }

    pub(super) fn elsewhere(&self) -> Option<Result<Ended, KeepError>> {
        self.keeping.lock().elsewhere.clone()
    }

    /// Somebody wishes the end of the job: kept before they hear that it will be, for the manager that may take this one's place.
    pub(in crate::server) async fn wishes(&self, wish: Wish) {
        let Some(place) = self.place() else { return };
        let own = wish.clone();
        let kept = tokio::time::timeout(WISHING, blocking(move || place.keep_wish(Some(&own))));
        match kept.await.unwrap_or_else(|_| Err("it takes too long".to_owned())).and_then(|kept| kept) {
            Ok(()) => self.keeping.lock().wish = Some(wish),
            Err(why) => {
                tracing::warn!("what is wished of the job's end is not kept for a job manager that takes the place of this one: {why}")
            }
        }
    }
}

/// What is asked of the job's first process by which it ends, as a wish.
pub(in crate::server) fn wish_of(request: &str, ask: &Value) -> Option<Wish> {
    let is_stop = ask.get("do").and_then(Value::as_str) == Some("stop");
    is_stop.then(|| Wish::Stop { request: request.to_owned(), ask: ask.clone() })
}

impl Begun {
    /// Of the manager that has the job, or is about to take it.
    pub(super) fn generation(&self) -> u64 {
        self.shared.look(|manager| manager.jobs().get(self.alone.job()).map_or(manager.version().generation, |job| job.term))
    }

    /// Where the job keeps its checkpoints; none where that is not known, or not there yet.
    pub(super) async fn place(&self) -> Result<Option<Arc<dyn Keep>>, String> {
        let pipeline = self.shared.blobs.path(self.bundle().pipeline.hash);
        let (open, bundle) = (Arc::clone(&self.alone.of.keeper), self.bundle().clone());
        let opened = blocking(move || if pipeline.is_file() { open(&pipeline, &bundle) } else { Ok(None) }).await?;
        Ok(opened.unwrap_or_else(|why| {
            let is_new = std::mem::replace(&mut self.alone.keeping.lock().said, why.clone()) != why;
            if is_new {
                tracing::warn!("nothing can be kept where the job keeps its checkpoints: {why}");
            }
            None
        }))
    }

    /// Takes the job in its place, if that was not there when the job was taken, or was not asked.
    pub(super) async fn attach(&self) -> Result<Option<Arc<dyn Keep>>, KeepError> {
        if let Some(place) = self.alone.place() {
            return Ok(Some(place));
        }
        let Some(place) = self.place().await? else { return Ok(None) };
        let (own, generation) = (Arc::clone(&place), self.generation());
        let (had_others, ended, parallelism, wish) = blocking(move || {
            let had_others = own.claim(generation, false)?;
            Ok::<_, KeepError>((had_others, own.ended()?, own.parallelism()?, own.wish()?))
        })
        .await??;
        let mut keeping = self.alone.keeping.lock();
        // One that is over here may have noted it before it was started again.
        if !self.is_over() {
            keeping.elsewhere = ended.map(Ok);
        }
        (keeping.parallelism, keeping.wish) = (parallelism, wish);
        drop(keeping);
        self.alone.has_place(Arc::clone(&place), had_others);
        Ok(Some(place))
    }

    fn is_over(&self) -> bool {
        self.shared.look(|manager| manager.jobs().get(self.alone.job()).is_some_and(crate::manager::Job::is_over))
    }

    /// Until `stopped`: keeps what comes.
    pub(super) async fn keep_up(self, mut stopped: watch::Receiver<()>) {
        let mut next = Instant::now();
        while stopped.has_changed().is_ok() {
            if Instant::now() >= next {
                next = Instant::now() + self.keep_all().await;
            }
            drop(tokio::time::timeout(LOOK, stopped.changed()).await);
        }
    }

    /// Keeps what is not kept yet; gives when to look again.
    async fn keep_all(&self) -> Duration {
        let place = match self.attach().await {
            Ok(Some(place)) => place,
            Ok(None) => return LOOK_FOR_PLACE,
            Err(KeepError::Superseded) => return self.is_superseded(),
            Err(KeepError::Outside(why)) => {
                tracing::warn!("what the next job manager needs cannot be kept where the job keeps its checkpoints: {why}");
                return LOOK_FOR_PLACE;
            }
        };
        let is_kept = self.keep_files().await;
        self.follow_wish(&place).await;
        match self.keep_parallelism(&place).await {
            Err(KeepError::Superseded) => self.is_superseded(),
            Err(KeepError::Outside(why)) => {
                tracing::warn!(
                    "the parallelism that the job was given is not kept for a job manager that takes the place of this one: {why}"
                );
                RETRY
            }
            Ok(()) if is_kept => LOOK,
            Ok(()) => LOOK_FOR_PLACE,
        }
    }

    fn is_superseded(&self) -> Duration {
        self.alone.keeping.lock().elsewhere = Some(Err(KeepError::Superseded));
        LOOK_FOR_PLACE
    }

    /// Keeps the files that this machine does not have by itself. False: some could not be.
    pub(super) async fn keep_files(&self) -> bool {
        let (place, sent) = {
            let mut keeping = self.alone.keeping.lock();
            let Some(place) = keeping.place.clone() else { return false };
            (place, std::mem::take(&mut keeping.sent))
        };
        let mut failed = Vec::new();
        for file in sent {
            let (own, path, of) = (Arc::clone(&place), self.shared.blobs.path(file.hash), file.clone());
            let kept = blocking(move || if own.has(&of)? { Ok(()) } else { own.keep(of.hash, &path) }).await;
            if let Err(why) = kept.and_then(|kept| kept) {
                tracing::warn!("{}: it is not kept for a job manager that takes the place of this one: {why}", file.path);
                failed.push(file);
            }
        }
        let is_kept = failed.is_empty();
        self.alone.keeping.lock().sent = failed;
        is_kept
    }

    async fn keep_parallelism(&self, place: &Arc<dyn Keep>) -> Result<(), KeepError> {
        let of_job = self.shared.look(|manager| manager.jobs().get(self.alone.job()).and_then(|job| job.bundle.options.parallelism));
        let kept = self.alone.keeping.lock().parallelism.or(self.bundle().options.parallelism);
        let Some(given) = of_job.filter(|_| of_job != kept) else { return Ok(()) };
        let own = Arc::clone(place);
        blocking(move || own.keep_parallelism(given)).await??;
        self.alone.keeping.lock().parallelism = Some(given);
        Ok(())
    }

    /// Asks the job what a former manager was asked for, once it runs; forgets a wish that it has refused.
    async fn follow_wish(&self, place: &Arc<dyn Keep>) {
        let Some(Wish::Stop { request, ask }) = self.alone.keeping.lock().wish.clone() else { return };
        let refused = {
            let mut state = self.shared.state();
            let (now, state) = (self.shared.clock.now(), &mut *state);
            state.triggers.settle(&state.manager, now);
            state.triggers.get(self.alone.job(), &request).map(|trigger| trigger.outcome().is_some_and(|outcome| outcome.is_err()))
        };
        match refused {
            None => self.ask_again(request, ask).await,
            Some(true) if !self.is_over() => {
                let own = Arc::clone(place);
                // Next time.
                if blocking(move || own.keep_wish(None)).await.is_ok_and(|kept| kept.is_ok()) {
                    self.alone.keeping.lock().wish = None;
                }
            }
            Some(_) => {}
        }
    }

    async fn ask_again(&self, request: String, ask: Value) {
        let (shared, id) = (Arc::clone(&self.shared), self.alone.job().to_owned());
        let asked = blocking(move || {
            shared.decide(|manager, triggers, now| {
                let running = manager.jobs().get(&id).filter(|job| job.state() == "RUNNING");
                // There are few requests of a job that has just begun.
                let asked = running.is_some_and(|job| triggers.ask(request, Trigger::new(job.attempt(), ask, now)) == Ok(true));
                (Vec::new(), asked)
            })
        });
        if asked.await == Ok(true) {
            tracing::info!(job = self.alone.job(), "the job is asked to stop, as a former job manager was told");
            self.shared.told.send_modify(|_| ());
        }
    }
}
