//! Watches how far the partitions of a reader have grown. A thread asks the brokers for all ends together every few seconds, because what librdkafka itself remembers
//! stands still while a full queue stops its fetching: just when the lag matters. `source` owns one and answers the host's `lag` from it without waiting.
//!
//! A partition without a leader gives nothing, neither records nor errors: it is found here, told once, and left out so that the ends of the others stay known.

use crate::{client::Callbacks, cluster};
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
};
use standpipe_sdk::Host;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

const INTERVAL: Duration = Duration::from_secs(5);
/// The same after a question that was not answered.
const RETRY: Duration = Duration::from_secs(1);
/// How long a broker may take to answer once it reads the question; the end of the thread waits for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Id, topic, number of a partition that is read.
type Watched = (String, String, i32);

#[derive(Default)]
struct State {
    partitions: Vec<Watched>,
    ends: HashMap<String, i64>,
    changed: bool,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ends of the partitions of a reader, some seconds old at most.
pub struct LagMonitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LagMonitor {
    /// Starts watching, no partition yet. A broker takes the requests of a connection one by one: every question stands behind a fetch, which takes `fetch_wait` where
    /// there is nothing to fetch.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(consumer: Arc<BaseConsumer<Callbacks>>, fetch_wait: Duration) -> standpipe_sdk::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut watch = Watch { shared: shared.clone(), consumer, patience: ANSWER + fetch_wait, leaderless: BTreeSet::new() };
        let thread = std::thread::Builder::new().name("kafka-lag".to_owned()).spawn(move || watch.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Watches these partitions (id, topic, number) from now on.
    pub fn watch(&self, partitions: Vec<Watched>) {
        let mut state = self.shared.lock();
        state.ends.retain(|id, _| partitions.iter().any(|(known, ..)| known == id));
        state.partitions = partitions;
        state.changed = true;
        self.shared.wake.notify_all();
    }

    /// Where that partition ended lately.
    pub fn end(&self, id: &str) -> Option<i64> {
        self.shared.lock().ends.get(id).copied()
    }
}

impl Drop for LagMonitor {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Watch {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Callbacks>>,
    patience: Duration,
    /// Ids of the partitions that had no leader the last time.
    leaderless: BTreeSet<String>,
}

impl Watch {
    fn run(&mut self) {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        while !state.stopped {
            let partitions = state.partitions.clone();
            state.changed = false;
            drop(state);
            let ends = self.ends(&partitions);
            state = shared.lock();
            let pause = if ends.is_ok() { INTERVAL } else { RETRY };
            match ends {
                Ok(ends) if !state.changed => state.ends = ends,
                Ok(_) => {}
                Err(error) => self.consumer.context().host().debug("the lag is not known", &[("reason", error.message.into())]),
            }
            let waiting = shared.wake.wait_timeout_while(state, pause, |state| !state.changed && !state.stopped);
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The ends of the partitions that have a leader. Which have none is asked only if some had none the last time, or there is no answer.
    fn ends(&mut self, partitions: &[Watched]) -> standpipe_sdk::Result<HashMap<String, i64>> {
        if !self.leaderless.is_empty() {
            self.look_for_leaders(partitions);
        }
        let first = self.ask(partitions);
        if first.is_ok() || !self.look_for_leaders(partitions) { first } else { self.ask(partitions) }
    }

    fn is_stopped(&self) -> bool {
        self.shared.lock().stopped
    }

    fn ask(&self, partitions: &[Watched]) -> standpipe_sdk::Result<HashMap<String, i64>> {
        if self.is_stopped() {
            return Ok(HashMap::new());
        }
        let led: Vec<&Watched> = partitions.iter().filter(|(id, ..)| !self.leaderless.contains(id)).collect();
        let names: Vec<(&str, i32)> = led.iter().map(|(_, topic, partition)| (topic.as_str(), *partition)).collect();
        let ends = cluster::offsets(&self.consumer, &names, Offset::End, self.patience)?;
        Ok(led.into_iter().map(|(id, ..)| id.clone()).zip(ends).collect())
    }

    /// Finds the partitions that have no leader, and tells what has changed. Whether something has.
    fn look_for_leaders(&mut self, partitions: &[Watched]) -> bool {
        let topics: BTreeSet<&str> = partitions.iter().map(|(_, topic, _)| topic.as_str()).collect();
        let mut found = BTreeSet::new();
        for topic in topics {
            if self.is_stopped() {
                return false;
            }
            let Ok(metadata) = self.consumer.client().fetch_metadata(Some(topic), self.patience) else { return false };
            let states = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| found.partitions());
            let without: BTreeSet<i32> = states.filter(|state| state.leader() < 0).map(rdkafka::metadata::MetadataPartition::id).collect();
            found.extend(partitions.iter().filter(|(_, of, number)| of == topic && without.contains(number)).map(|(id, ..)| id.clone()));
        }
        // One that is not read any more has not come back.
        self.leaderless.retain(|id| partitions.iter().any(|(watched, ..)| watched == id));
        tell(self.consumer.context().host(), &self.leaderless, &found);
        let has_changed = self.leaderless != found;
        self.leaderless = found;
        has_changed
    }
}

fn tell(host: &Host, before: &BTreeSet<String>, now: &BTreeSet<String>) {
    let less = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    let (lost, back) = (less(now, before), less(before, now));
    if !lost.is_empty() {
        host.warn("partitions have no leader and cannot be read; going on when they have one", &[("splits", lost.into())]);
    }
    if !back.is_empty() {
        host.info("partitions have a leader again", &[("splits", back.into())]);
    }
}
