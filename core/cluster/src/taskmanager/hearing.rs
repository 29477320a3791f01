//! What is said with the manager: beats, which tell it all and are answered with orders, and orders that are waited for.

use super::{
    Event, RETRY, TaskManager, TaskManagerError,
    client::{Client, Trouble},
    lease, millis,
};
use crate::protocol::{Beat, Orders, is_id};
use std::{
    io,
    sync::{Arc, mpsc::Sender},
    thread,
    time::Duration,
};

/// How long a beat waits for its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for orders on a thread of its own.
pub(super) fn listen(client: &Arc<Client>, events: &Sender<Event>) -> io::Result<()> {
    let (client, events) = (Arc::clone(client), events.clone());
    let wait = move || {
        let mut seen = None;
        loop {
            let sent = lease::now();
            match client.orders(seen) {
                Ok(orders) => {
                    seen = Some(orders.version);
                    let has_requests = !orders.requests.is_empty();
                    if events.send(Event::Orders(orders, sent)).is_err() {
                        return;
                    }
                    if has_requests {
                        // Until they are answered, every answer comes at once.
                        thread::sleep(RETRY);
                    }
                }
                // Beats say what is wrong.
                Err(_) => {
                    seen = None;
                    thread::sleep(RETRY);
                }
            }
        }
    };
    thread::Builder::new().name("orders".to_owned()).spawn(wait).map(drop)
}

impl TaskManager {
    /// Tells all; `false`: the manager does not answer.
    pub(super) fn beat(&mut self) -> Result<bool, TaskManagerError> {
        let sent = lease::now();
        let beat = Beat {
            slots: self.options.slots,
            host: self.options.host.clone(),
            pid: std::process::id(),
            seen: self.agent.seen(),
            workers: self.agent.report(),
            leaving: false,
            answers: self.answers.clone(),
        };
        if let Some(observer) = &self.options.observer {
            observer(&beat, self.heard);
        }
        // While it is waited for, the end of the lease is not seen: what is left of it then is enough.
        let patience = self.lease.map_or(PATIENCE, |lease| (lease / 8).min(PATIENCE));
        match self.client.beat(&beat, patience) {
            Ok(orders) => {
                self.lease = Some(Duration::from_millis(orders.lease_millis));
                self.known = true;
                if !std::mem::replace(&mut self.heard, true) {
                    tracing::info!("{} slots are with the job manager at {}", self.options.slots, self.options.manager);
                }
                self.answers.clear();
                self.extend(&orders, sent);
                self.follow(&orders, sent);
                Ok(true)
            }
            // One that has known it may have been started with something wrong, or be busy: its workers have their lease.
            Err(Trouble::Refused(reason)) if !self.known => {
                Err(TaskManagerError::Refused { manager: self.options.manager.clone(), reason })
            }
            Err(Trouble::Passing(why) | Trouble::Refused(why)) => {
                if std::mem::replace(&mut self.heard, false) {
                    tracing::warn!("the job manager at {} does not answer: {why}", self.options.manager);
                }
                Ok(false)
            }
        }
    }

    /// The manager has heard a beat, and counts from then. Orders that were waited for extend nothing: who asks for them is not heard.
    fn extend(&mut self, orders: &Orders, sent: Duration) {
        self.agent.answered(orders, millis(sent));
        if let Some(until) = self.agent.lease_ends()
            && let Err(error) = self.lease_file.extend(Duration::from_millis(until))
        {
            tracing::warn!("workers cannot be told that they may go on: {error}");
        }
    }

    pub(super) fn follow(&mut self, orders: &Orders, sent: Duration) {
        // They become names of files.
        if !orders.workers.iter().all(|order| is_id(&order.attempt.job)) {
            tracing::warn!("orders of the job manager at {} are not followed: they name a job by what is no id", self.options.manager);
            return;
        }
        let all = self.agent.orders(orders, millis(sent), millis(lease::now()));
        self.do_all(all);
        if orders.version >= self.agent.seen() {
            orders.requests.iter().for_each(|request| self.pass_on(request));
        }
    }
}
