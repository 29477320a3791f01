//! How the manager takes its one job: it finds its files here, asks the place of the job's checkpoints what a former manager has left, and waits for what is still missing.

use super::{Begun, Early, Phase, RETRY, blocking};
use crate::{
    application::{Ended, Keep, KeepError, Wish, nobody_has_sent},
    bundle::File,
    manager::Past,
    server::shared::{PlanError, Refused, Wanted},
};
use standpipe_trace::{Beginning, Context, Kind};
use std::sync::Arc;
use tokio::time::Instant;

/// Whoever sends without an end is waited for so many times as long as somebody who sends nothing.
const LONGEST: u32 = 30;

impl Begun {
    /// Takes the job, once all of its files are there.
    pub(super) async fn take(&self) -> Result<(), Early> {
        let (is_known, is_over) =
            self.shared.look(|manager| manager.jobs().get(self.alone.job()).map_or((false, false), |job| (true, job.is_over())));
        if is_over {
            self.alone.phase.send_replace(Phase::Ready);
            return Ok(());
        }
        self.find().await?;
        // What is in the database needs nobody else: it runs already.
        if !is_known {
            self.ask_place().await?;
        }
        self.alone.phase.send_replace(Phase::Ready);
        self.wait_for_files().await?;
        if is_known {
            return Ok(());
        }
        if self.alone.place().is_none() {
            // The pipeline file may have been one of those that came.
            self.ask_place().await?;
        }
        self.keep_files().await;
        self.submit().await
    }

    /// Puts those among the blobs that are on this machine by themselves. The others are to be kept: the next manager may be on another one.
    async fn find(&self) -> Result<(), Early> {
        let (find, files, blobs) = (Arc::clone(&self.alone.of.find), self.files(), self.shared.blobs.clone());
        let sent = blocking(move || find(&files, &blobs)).await?;
        self.alone.keeping.lock().is_sent(sent);
        Ok(())
    }

    /// Takes the job where it keeps its checkpoints, and hears there what a former manager has left. What that is must be known before anything is begun.
    async fn ask_place(&self) -> Result<(), Early> {
        let Some(place) = self.place().await? else { return Ok(()) };
        let generation = self.generation();
        let claim = move |place: &dyn Keep| place.claim(generation, true);
        let had_others = self.surely("whether this manager has the job alone", &place, claim).await?;
        if let Some(ended) = self.surely("whether the job has ended before", &place, |place| Ok(place.ended()?)).await? {
            return Err(Early::Before(ended));
        }
        match self.surely("what somebody wishes of the job", &place, |place| Ok(place.wish()?)).await? {
            Some(Wish::Cancel) => {
                self.alone.has_place(Arc::clone(&place), had_others);
                tracing::info!(job = self.alone.job(), "the job was to be cancelled when a former job manager was lost");
                return Err(Early::Over(Ended::canceled(self.alone.job(), self.shared.clock.now())));
            }
            other => self.alone.keeping.lock().wish = other,
        }
        for file in self.missing().await? {
            let (hash, blobs) = (file.hash, self.shared.blobs.clone());
            let fetch = move |place: &dyn Keep| Ok(place.fetch(hash, &blobs)?);
            if self.surely(&format!("whether a former job manager was sent {}", file.path), &place, fetch).await? {
                tracing::info!("{} is of a former job manager", file.path);
            }
        }
        self.alone.has_place(place, had_others);
        Ok(())
    }

    /// Asks until it is answered, for as long as files are waited for.
    async fn surely<T: Send + 'static>(
        &self,
        what: &str,
        place: &Arc<dyn Keep>,
        ask: impl Fn(&dyn Keep) -> Result<T, KeepError> + Clone + Send + 'static,
    ) -> Result<T, Early> {
        let deadline = Instant::now() + self.alone.of.timeout;
        loop {
            let (own, ask) = (Arc::clone(place), ask.clone());
            match blocking(move || ask(own.as_ref())).await.unwrap_or_else(|why| Err(KeepError::Outside(why))) {
                Ok(answer) => return Ok(answer),
                Err(KeepError::Superseded) => return Err(KeepError::Superseded.into()),
                Err(KeepError::Outside(why)) if Instant::now() >= deadline => {
                    return Err(Early::Outside(format!("{what} cannot be known: {why}")));
                }
                Err(KeepError::Outside(why)) => tracing::warn!("{what} is not known yet: {why}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn failed(&self, cause: String) -> Early {
        Early::Over(Ended::failed(self.alone.job(), cause, self.shared.clock.now()))
    }

    /// Whoever sends a large file says so by each piece.
    async fn wait_for_files(&self) -> Result<(), Early> {
        let (mut sent, timeout) = (self.alone.sent.subscribe(), self.alone.of.timeout);
        self.alone.has_come();
        let longest = Instant::now() + timeout * LONGEST;
        loop {
            let missing: Vec<File> = self.missing().await?;
            if missing.is_empty() {
                return Ok(());
            }
            loop {
                let deadline = longest.min(*self.alone.came.lock() + timeout);
                if tokio::time::timeout_at(deadline, sent.changed()).await.is_ok() {
                    break;
                }
                if Instant::now() >= longest.min(*self.alone.came.lock() + timeout) {
                    return Err(self.failed(nobody_has_sent(&missing, timeout, self.alone.place().is_some())));
                }
            }
        }
    }

    /// What is known of what happened to the job before.
    async fn past(&self) -> Past {
        let (place, had_others) = self.alone.place_and_others();
        let Some(place) = place else { return Past::Unknown };
        let job = self.alone.job();
        match blocking(move || place.has_begun()).await.and_then(|known| known) {
            Ok(false) if !had_others => Past::Unknown,
            Ok(false) => {
                tracing::info!(job, "another job manager had the job before: what may still run of it is given the time to end");
                Past::Begun
            }
            Ok(true) => {
                tracing::info!(job, "the job has run before: it goes on from what it has of its own");
                Past::Begun
            }
            Err(why) => {
                tracing::warn!(job, "whether the job has run before is not known: {why}");
                Past::Begun
            }
        }
    }

    async fn submit(&self) -> Result<(), Early> {
        let past = self.past().await;
        let (own, mut bundle, id) = (Arc::clone(&self.shared), self.bundle().clone(), self.alone.job().to_owned());
        if let Some(place) = self.alone.place() {
            let given = self.surely("the parallelism that the job was given", &place, |place| Ok(place.parallelism()?)).await?;
            self.alone.keeping.lock().parallelism = given;
            bundle.options.parallelism = given.or(bundle.options.parallelism);
        }
        let parent = bundle.options.traceparent.as_ref().and_then(|text| text.parse::<Context>().ok());
        let submitted = blocking(move || {
            let beginning = Beginning { name: "submit", kind: Kind::Inside, parent: parent.as_ref(), link: None };
            let mut span = own.traces.begin(&beginning).with("job_name", bundle.name.as_str()).with("job_id", id.as_str());
            let submitted = own.submit(bundle, Wanted { id: Some(id), past }, &span);
            submitted.map(drop).inspect_err(|refused| span.fail(&refused.to_string()))
        });
        submitted.await?.map_err(|refused| match refused {
            // Nobody mends it: another start would find it as it is.
            Refused::Plan(PlanError::Wrong(_)) => self.failed(refused.to_string()),
            Refused::Plan(PlanError::Outside(_)) => Early::Outside(refused.to_string()),
            Refused::Many | Refused::Taken => self.failed("the manager's data are of another job".to_owned()),
        })
    }
}
