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
/// How long an answer may take; the end of the thread waits for one, or where leaders are missing for two and the look for them between.
const ANSWER: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(1);

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
    /// Starts watching, no partition yet.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(consumer: Arc<BaseConsumer<Callbacks>>) -> standpipe_sdk::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("kafka-lag".to_owned()).spawn(move || watch(&theirs, &consumer))?;
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

fn watch(shared: &Shared, consumer: &BaseConsumer<Callbacks>) {
    let mut leaderless = BTreeSet::new();
    let mut state = shared.lock();
    while !state.stopped {
        let partitions = state.partitions.clone();
        state.changed = false;
        drop(state);
        let ends = ends(consumer, &partitions, &mut leaderless);
        state = shared.lock();
        match ends {
            Ok(ends) if !state.changed => state.ends = ends,
            Ok(_) => {}
            Err(error) => consumer.context().host().debug("the lag is not known", &[("reason", error.message.into())]),
        }
        let waiting = shared.wake.wait_timeout_while(state, INTERVAL, |state| !state.changed && !state.stopped);
        state = waiting.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// The ends of the partitions that have a leader. Which have none is asked only if some had none the last time, or there is no answer.
fn ends(
    consumer: &BaseConsumer<Callbacks>,
    partitions: &[Watched],
    leaderless: &mut BTreeSet<String>,
) -> standpipe_sdk::Result<HashMap<String, i64>> {
    let ask = |leaderless: &BTreeSet<String>| {
        let led: Vec<&Watched> = partitions.iter().filter(|(id, ..)| !leaderless.contains(id)).collect();
        let names: Vec<(&str, i32)> = led.iter().map(|(_, topic, partition)| (topic.as_str(), *partition)).collect();
        let ends = cluster::offsets(consumer, &names, Offset::End, ANSWER)?;
        Ok(led.into_iter().map(|(id, ..)| id.clone()).zip(ends).collect())
    };
    if !leaderless.is_empty() {
        look_for_leaders(consumer, partitions, leaderless);
    }
    let first = ask(leaderless);
    if first.is_ok() || !look_for_leaders(consumer, partitions, leaderless) {
        return first;
    }
    ask(leaderless)
}

/// Finds the partitions that have no leader, and tells what has changed. Whether something has.
fn look_for_leaders(consumer: &BaseConsumer<Callbacks>, partitions: &[Watched], leaderless: &mut BTreeSet<String>) -> bool {
    let topics: BTreeSet<&str> = partitions.iter().map(|(_, topic, _)| topic.as_str()).collect();
    let mut found = BTreeSet::new();
    for topic in topics {
        let Ok(metadata) = consumer.client().fetch_metadata(Some(topic), LOOK) else { return false };
        let states = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| found.partitions());
        let without: BTreeSet<i32> = states.filter(|state| state.leader() < 0).map(rdkafka::metadata::MetadataPartition::id).collect();
        found.extend(partitions.iter().filter(|(_, of, number)| of == topic && without.contains(number)).map(|(id, ..)| id.clone()));
    }
    // One that is not read any more has not come back.
    leaderless.retain(|id| partitions.iter().any(|(watched, ..)| watched == id));
    tell(consumer.context().host(), leaderless, &found);
    let has_changed = *leaderless != found;
    *leaderless = found;
    has_changed
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
