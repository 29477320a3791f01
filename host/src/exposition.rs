//! The port that Prometheus asks: of a job that runs in this process (`run --metrics`), and of a task manager.

use crate::{
    control::status::Status,
    exit::{Code, Failure},
    output::say,
    processes,
};
use standpipe_cluster::{
    exposition::{self, Exposer, Families, IsReady, Render},
    protocol::{Beat, Phase},
    taskmanager::Observer,
};
use std::{
    env,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// A task manager says something every second, and waits two for an answer.
const SAID: Duration = Duration::from_secs(10);

type Ask = Box<dyn Fn() -> Status + Send + Sync>;

/// The endpoint of a job, which may not have begun.
pub(crate) struct OfJob(Arc<OnceLock<Ask>>);

impl OfJob {
    /// Answers from now on; with nothing until [`Self::ask`]. On a session cluster the task manager answers.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) fn start(address: Option<SocketAddr>) -> anyhow::Result<Self> {
        let asked = Arc::new(OnceLock::<Ask>::new());
        let job = Self(Arc::clone(&asked));
        if let Some(address) = address.filter(|_| env::var_os(processes::HOST).is_none()) {
            serve(
                address,
                Arc::new(move || {
                    let mut families = Families::new();
                    if let Some(ask) = asked.get() {
                        exposition::job(&mut families, &ask());
                    }
                    families.text()
                }),
                Arc::new(|| true),
            )?;
        }
        Ok(job)
    }

    /// Whom to ask how the job does.
    pub(crate) fn ask(&self, ask: Ask) {
        drop(self.0.set(ask));
    }
}

/// Of a task manager, which tells here what it tells the job manager.
///
/// # Errors
/// As of [`OfJob::start`].
pub(crate) fn of_task_manager(address: SocketAddr) -> anyhow::Result<Observer> {
    let told: Arc<Mutex<Option<(Beat, bool, Instant)>>> = Arc::default();
    let (last, newest) = (Arc::clone(&told), Arc::clone(&told));
    serve(
        address,
        Arc::new(move || {
            let mut families = Families::new();
            if let Some((beat, heard, _)) = &*told.lock().unwrap_or_else(PoisonError::into_inner) {
                task_manager(&mut families, beat, *heard);
            }
            families.text()
        }),
        Arc::new(move || {
            newest.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|(_, heard, at)| is_connected(*heard, at.elapsed()))
        }),
    )?;
    Ok(Box::new(move |beat, heard| *last.lock().unwrap_or_else(PoisonError::into_inner) = Some((beat.clone(), heard, Instant::now()))))
}

/// What was so when a task manager has said something last is not for ever: one that hangs says nothing.
fn is_connected(heard: bool, ago: Duration) -> bool {
    heard && ago < SAID
}

fn serve(address: SocketAddr, render: Render, is_ready: IsReady) -> anyhow::Result<()> {
    let started = Exposer::start(address, render, is_ready);
    let exposer = started.map_err(|error| Failure::error(Code::Outside, format!("metrics cannot be served at {address}: {error}")))?;
    say!("metrics: http://{}/metrics", exposer.address());
    Ok(())
}

fn task_manager(families: &mut Families, beat: &Beat, heard: bool) {
    let running = beat.workers.iter().filter(|worker| !matches!(worker.phase, Phase::Ended(_)));
    let mut gauge = |name, help, value| families.gauge(name, help, &[], value);
    gauge("standpipe_taskmanager_slots", "Slots of this task manager.", f64::from(beat.slots));
    gauge("standpipe_taskmanager_workers", "Worker processes of jobs that run here.", running.count() as f64);
    let help = "1 while the job manager answers.";
    gauge("standpipe_taskmanager_connected", help, f64::from(u8::from(heard)));
    for status in beat.workers.iter().filter_map(|worker| worker.status.as_ref()).filter_map(Status::of) {
        exposition::job(families, &status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_said_nothing_for_long_is_connected_no_more() {
        assert!(is_connected(true, Duration::ZERO) && !is_connected(false, Duration::ZERO) && !is_connected(true, SAID));
    }
}
