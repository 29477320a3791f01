//! Who is still to read something of a job that is over: rows of its sinks, and what has become of requests. A manager of one job alone stays for them, for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// Whoever waits for the outcome of a request asks for it again and again: one that has not for so long has gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is answered has been written by then.
const ANSWERING: Duration = Duration::from_millis(500);
/// Requests that are waited for at a time.
const MOST: usize = 100;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Readers {
    /// Sinks of which somebody has read all.
    read: BTreeSet<String>,
    /// Requests of which nobody has heard what became of them, and when somebody has asked last.
    waiting: BTreeMap<String, Instant>,
    /// When somebody was told last: the answer may still be on its way.
    told: Option<Instant>,
}

impl Readers {
    /// Somebody has made a request, or asks what has become of it.
    pub(super) fn is_asked(&mut self, request: &str, now: Instant) {
        self.forget(now);
        if self.waiting.len() >= MOST
            && !self.waiting.contains_key(request)
            && let Some(oldest) = self.waiting.iter().min_by_key(|(_, asked)| **asked).map(|(id, _)| id.clone())
        {
            self.waiting.remove(&oldest);
        }
        self.waiting.insert(request.to_owned(), now);
    }

    pub(super) fn is_heard(&mut self, request: &str, now: Instant) {
        self.waiting.remove(request);
        self.told = Some(now);
    }

    pub(super) fn is_read(&mut self, sink: String, now: Instant) {
        self.read.insert(sink);
        self.told = Some(now);
    }

    /// Whether an answer may not have been written yet.
    pub(super) fn is_answering(&self, now: Instant) -> bool {
        self.told.is_some_and(|told| now.saturating_duration_since(told) < ANSWERING)
    }

    /// Whether nobody waits for the outcome of a request.
    pub(super) fn have_heard(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.waiting.is_empty()
    }

    pub(super) fn have_read(&self, sinks: &BTreeSet<String>) -> bool {
        sinks.is_subset(&self.read)
    }

    fn forget(&mut self, now: Instant) {
        self.waiting.retain(|_, asked| now.saturating_duration_since(*asked) < PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_come_back_is_forgotten_and_there_is_a_limit() {
        let (mut readers, mut now) = (Readers::default(), Instant::now());
        assert!(readers.have_heard(now));
        readers.is_asked("gone", now);
        readers.is_asked("patient", now);
        readers.is_asked("patient", now + PATIENCE / 2);
        now += PATIENCE;
        assert!(!readers.have_heard(now) && readers.waiting.keys().eq(["patient"]));
        assert!(!readers.is_answering(now));
        readers.is_heard("patient", now);
        assert!(readers.have_heard(now) && readers.is_answering(now) && !readers.is_answering(now + ANSWERING));
        readers.is_read("sinks.out".to_owned(), now + ANSWERING);
        assert!(readers.is_answering(now + ANSWERING) && readers.have_read(&["sinks.out".to_owned()].into()));
        for i in 0..3 * MOST {
            now += Duration::from_millis(1);
            readers.is_asked(&i.to_string(), now);
        }
        assert_eq!(readers.waiting.len(), MOST);
        assert!(readers.waiting.contains_key(&(3 * MOST - 1).to_string()) && !readers.waiting.contains_key("0"));
    }
}
