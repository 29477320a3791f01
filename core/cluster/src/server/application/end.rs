//! The end of the one job: it is waited for, kept and told, and the manager stays for those that are still to read something.

use super::{Alone, Begun, Early, LOOK, blocking};
use crate::{
    application::{Ended, KeepError},
    server::Shared,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// What was asked of the job is answered by then, or nobody is there to answer any more.
const ANSWERS: Duration = Duration::from_secs(8);
/// Whoever waits for such an answer has heard it by then.
const HEARD: Duration = Duration::from_secs(5);

/// Task managers that end with the job have said farewell by then, or nobody ends them.
const FAREWELLS: Duration = Duration::from_secs(3);

/// The job is over, and what was made for it goes. Whoever ends a task manager with it does so while there is still somebody who hears its farewell.
pub(in crate::server) async fn part(shared: &Shared, alone: &Alone, ended: &Ended) {
    let Some(clean) = alone.of.clean.clone() else { return };
    let own = ended.clone();
    if let Err(why) = blocking(move || clean(&own)).await {
        tracing::error!("{why}");
    }
    let begun = Instant::now();
    while !shared.look(|manager| manager.task_managers().is_empty()) && begun.elapsed() < FAREWELLS && !alone.hurries.load(SeqCst) {
        tokio::time::sleep(LOOK).await;
    }
}

impl Begun {
    /// Waits for the end of the job. What it is given meanwhile is kept.
    pub(super) async fn end(&self) -> Result<Ended, Early> {
        let (stop, stopped) = watch::channel(());
        let keeping = tokio::spawn(self.clone().keep_up(stopped));
        let ended = self.over().await;
        drop(stop);
        // It may be taking the job in its place: two of that would be one too many.
        if let Err(error) = keeping.await {
            tracing::error!("what the next job manager needs is not kept: {error}");
        }
        ended
    }

    async fn over(&self) -> Result<Ended, Early> {
        let (mut told, mut answers_until) = (self.shared.told.subscribe(), None);
        loop {
            match self.alone.elsewhere() {
                Some(Ok(ended)) => return Err(Early::Before(ended)),
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
            if let Some(ended) = self.ended(&mut answers_until) {
                return Ok(ended);
            }
            tokio::select! {
                _ = told.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
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

    /// Keeps how it has ended, before anybody is told: a manager that takes this one's place must not begin the job again. An error: another one has the job.
    pub(super) async fn tell(&self, ended: &Ended) -> Result<(), String> {
        *self.alone.over.lock() = Some(ended.clone());
        let kept = match self.attach().await {
            Ok(Some(place)) => {
                let own = ended.clone();
                blocking(move || place.end(&own)).await.map_err(KeepError::Outside).and_then(|kept| kept)
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => {}
            Err(KeepError::Superseded) => {
                *self.alone.over.lock() = None;
                return Err(KeepError::Superseded.to_string());
            }
            Err(KeepError::Outside(why)) => tracing::warn!("that the job has ended cannot be kept where its checkpoints are: {why}"),
        }
        self.tell_outside(ended).await;
        Ok(())
    }

    pub(super) async fn tell_outside(&self, ended: &Ended) {
        *self.alone.over.lock() = Some(ended.clone());
        let (tell, own) = (Arc::clone(&self.alone.of.ended), ended.clone());
        if let Err(why) = blocking(move || tell(&own)).await {
            tracing::error!("{why}");
        }
    }

    /// An error: another manager has taken the job, and what is to be cleaned up is its own.
    pub(super) async fn check(&self) -> Result<(), String> {
        let Some(place) = self.alone.place() else { return Ok(()) };
        match blocking(move || place.check()).await {
            Ok(Err(KeepError::Superseded)) => Err(KeepError::Superseded.to_string()),
            // What is known holds.
            _ => Ok(()),
        }
    }

    /// Stays for rows that nobody has read, and for whoever waits for the outcome of a request.
    pub(super) async fn linger(&self) {
        let begun = Instant::now();
        let sinks: BTreeSet<String> = self.shared.look(|manager| {
            let nodes = manager.jobs().get(self.alone.job()).map(|job| job.planned.nodes.as_slice()).unwrap_or_default();
            nodes.iter().filter(|node| node.collects).map(|node| node.path.clone()).collect()
        });
        loop {
            let (is_read, is_heard, is_answering) = {
                let (mut readers, now) = (self.alone.readers.lock(), Instant::now());
                (readers.have_read(&sinks), readers.have_heard(now), readers.is_answering(now))
            };
            let rows = !is_read && begun.elapsed() < self.alone.of.linger;
            let requests = !is_heard && begun.elapsed() < HEARD;
            if self.alone.hurries.load(SeqCst) || !(rows || requests || is_answering) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
