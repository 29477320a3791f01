//! What is decided is done: files of a worker are fetched and laid out, its process is started and killed, and what is left of it goes.

use super::{Event, LEASE, Ordered, TaskManager, WorkerSpec, folders, lease, millis, worker::Worker};
use crate::{
    agent::Do,
    blobs::Blobs,
    ends::Ended,
    protocol::{Attempt, Order},
};
use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::ExitStatus,
    sync::{
        Arc, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// SIGKILL: so a worker ends itself when its lease is over.
const KILL: i32 = 9;

impl TaskManager {
    pub(super) fn do_all(&mut self, all: Vec<Do>) {
        for one in all {
            match one {
                Do::Start(order) => self.fetch(order),
                Do::Kill(attempt) => self.kill(&attempt),
                Do::Introduce(attempt, go) => {
                    if let Some(worker) = self.workers.get_mut(&attempt) {
                        worker.introduce(&go);
                    }
                }
            }
        }
    }

    /// Gets what the worker needs, on a thread of its own.
    fn fetch(&mut self, order: Order) {
        let (client, blobs, events) = (Arc::clone(&self.client), self.blobs.clone(), self.events.clone());
        let folder = self.options.data.join(folders::JOBS).join(&order.attempt.job);
        let (attempt, bundle, laying_out) = (order.attempt.clone(), Arc::clone(&order.bundle), Arc::clone(&self.laying_out));
        let dropped = Arc::new(AtomicBool::new(false));
        self.ordered.insert(attempt.clone(), Ordered { order, dropped: Arc::clone(&dropped) });
        let own = attempt.clone();
        let fetch = move || {
            let fetch = || {
                bundle.check().into_iter().next().map_or(Ok(()), |problem| Err(problem.to_string()))?;
                for hash in blobs.missing(bundle.files().map(|file| file.hash)) {
                    client.fetch(hash, &blobs)?;
                }
                // It guards no data: a panic leaves nothing half done that the next one does not do anew.
                let _one = laying_out.lock().unwrap_or_else(PoisonError::into_inner);
                if !dropped.load(SeqCst) {
                    blobs.lay_out(&bundle, &folder).map_err(|error| error.to_string())?;
                }
                Ok(())
            };
            let fetched = fetch();
            drop(events.send(Event::Fetched(own, fetched.map(|()| folder))));
        };
        if let Err(error) = thread::Builder::new().name("fetch".to_owned()).spawn(fetch) {
            self.failed(&attempt, error.to_string());
        }
    }

    /// It is not to run any more: its files go, unless another start of its job needs them.
    pub(super) fn forget(&mut self, attempt: &Attempt) -> Option<Ordered> {
        let ordered = self.ordered.remove(attempt)?;
        ordered.dropped.store(true, SeqCst);
        self.left.insert(attempt.job.clone(), Arc::clone(&ordered.order.bundle));
        self.take_in();
        Some(ordered)
    }

    /// Removes files of starts that are over. While others are being laid out, which may take long, nobody here waits for that: another time.
    pub(super) fn take_in(&mut self) {
        let one = match self.laying_out.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        for (job, bundle) in std::mem::take(&mut self.left) {
            if !self.ordered.keys().any(|other| other.job == job) {
                Blobs::take_in(&bundle, &self.options.data.join(folders::JOBS).join(&job));
            }
        }
        drop(one);
    }

    pub(super) fn failed(&mut self, attempt: &Attempt, why: String) {
        if let Some(ordered) = self.forget(attempt) {
            self.agent.ended(attempt, Ended::failed(ordered.order.process, why));
        }
    }

    pub(super) fn start(&mut self, attempt: &Attempt, folder: &Path) {
        // It may have been killed before it has begun.
        let Some(Ordered { order, .. }) = self.ordered.get(attempt) else { return };
        let lease = self.sockets.join(LEASE);
        let spec = WorkerSpec { order, folder, sockets: &self.sockets, lease: &lease, host: &self.options.host };
        let alone = order.slots.len() == 1;
        let slots = order.slots.get(order.process as usize).copied().unwrap_or(1);
        let group = self.groups.as_ref().map(|groups| groups.group(&format!("{}-{}", attempt.job, attempt.number), slots));
        let started = group.transpose().map_err(io::Error::other).and_then(|group| {
            let command = (self.options.launcher)(&spec)?;
            Worker::start(command, &spec, group, &self.events)
        });
        match started {
            Ok(worker) => {
                _ = self.workers.insert(attempt.clone(), worker);
                if alone {
                    self.agent.running(attempt);
                }
            }
            Err(error) => self.failed(attempt, format!("its process cannot be started: {error}")),
        }
    }

    fn kill(&mut self, attempt: &Attempt) {
        match self.workers.get_mut(attempt) {
            Some(worker) => worker.kill(),
            None => {
                if let Some(ordered) = self.forget(attempt) {
                    let ended = Ended::lost(ordered.order.process, true, "it was ended before it had begun".to_owned());
                    self.agent.ended(attempt, ended);
                }
            }
        }
    }

    pub(super) fn ended(&mut self, attempt: &Attempt, status: io::Result<ExitStatus>) {
        let Some(worker) = self.workers.remove(attempt) else { return };
        let Some(ordered) = self.forget(attempt) else { return };
        let process = ordered.order.process;
        let mut ended = match status {
            Ok(status) => Ended::new(process, status, worker.is_killed()),
            Err(error) => Ended::failed(process, error.to_string()),
        };
        if !ended.is_success() && ended.said.is_none() {
            ended.said = worker.verdict().or_else(|| worker.last_words());
        }
        let is_over = self.agent.lease_ends().is_some_and(|until| millis(lease::now()) >= until);
        if is_over && ended.status().signal() == Some(KILL) && worker.verdict().is_none() {
            self.agent.fenced(attempt);
        }
        if let Some(status) = worker.last_status() {
            self.agent.status(attempt, status);
        }
        worker.tidy();
        self.agent.ended(attempt, ended);
    }
}
