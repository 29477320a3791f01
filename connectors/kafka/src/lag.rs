//! Watches how far the partitions of a reader have grown. A thread asks the brokers for all ends together every few seconds, because what librdkafka itself remembers
//! stands still while a full queue stops its fetching: just when the lag matters. `source` owns one and answers the host's `lag` from it without waiting.

use crate::{client::Callbacks, cluster};
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

const INTERVAL: Duration = Duration::from_secs(5);
/// An answer takes this long at most, and so does the end of the thread.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    /// Id, topic, number of each partition that is read.
    partitions: Vec<(String, String, i32)>,
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
    pub fn watch(&self, partitions: Vec<(String, String, i32)>) {
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
    let mut state = shared.lock();
    while !state.stopped {
        let partitions = state.partitions.clone();
        state.changed = false;
        drop(state);
        let names: Vec<(&str, i32)> = partitions.iter().map(|(_, topic, partition)| (topic.as_str(), *partition)).collect();
        let ends = cluster::offsets(consumer, &names, Offset::End, ANSWER);
        state = shared.lock();
        match ends {
            Ok(ends) if !state.changed => state.ends = partitions.into_iter().map(|(id, ..)| id).zip(ends).collect(),
            Ok(_) => {}
            Err(error) => consumer.context().host().debug("the lag is not known", &[("reason", error.message.into())]),
        }
        let waiting = shared.wake.wait_timeout_while(state, INTERVAL, |state| !state.changed && !state.stopped);
        state = waiting.unwrap_or_else(PoisonError::into_inner).0;
    }
}
