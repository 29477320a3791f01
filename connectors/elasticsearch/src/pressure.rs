//! How much is sent while the server says 429 or is slow, how many requests a second, and how long a pause is. Additive increase, multiplicative decrease (Chiu and Jain 1989): an answer without 429 adds a
//! little, one with takes away in proportion. Owned by `sender`.

use crate::config::Retry;
use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// Steps in which the size of a request comes back.
const STEPS: f64 = 16.0;
/// The smallest request is this share of the largest.
const FLOOR: f64 = 1.0 / 32.0;

/// Requests in flight and documents per request that are allowed now.
#[derive(Debug)]
pub(crate) struct Pressure {
    max_requests: f64,
    requests: f64,
    max_docs: f64,
    docs: f64,
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
impl Pressure {
    pub(crate) fn new(max_requests: usize, max_docs: usize) -> Self {
        let (max_requests, max_docs) = (max_requests as f64, max_docs as f64);
        Self { max_requests, requests: max_requests, max_docs, docs: max_docs }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests as usize
    }

    pub(crate) fn docs(&self) -> usize {
        self.docs as usize
    }

    /// An answer in time, without 429.
    pub(crate) fn relax(&mut self) {
        self.requests = (self.requests + 1.0 / self.requests).min(self.max_requests);
        self.docs = (self.docs + self.max_docs / STEPS).min(self.max_docs);
    }

    /// So many of the items were answered 429, or late, of so many.
    pub(crate) fn tighten(&mut self, busy: usize, items: usize) {
        let keep = 1.0 - 0.5 * busy as f64 / items.max(1) as f64;
        self.requests = (self.requests * keep).max(1.0);
        self.docs = (self.docs * keep).max((self.max_docs * FLOOR).max(1.0));
    }
}

/// Requests a second at most: those that were held back do not come in a burst.
#[derive(Debug)]
pub(crate) struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    /// `None`: no limit.
    pub(crate) fn new(per_second: Option<f64>) -> Self {
        let gap = per_second.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok()).unwrap_or_default();
        Self { gap, next: Instant::now() }
    }

    /// When the next request may be sent.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// A request is sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.next = now + self.gap;
    }
}

/// The pauses before something is sent again.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { retry, random: RandomState::new().hash_one(0) | 1 }
    }

    /// The pause before attempt `attempt` + 1, from 1: doubled each time up to the longest, less a random share.
    pub(crate) fn pause(&mut self, attempt: u32) -> Duration {
        // xorshift64 (Marsaglia 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
        let chance = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
        let doubled = 2_u32.checked_pow(attempt.saturating_sub(1)).and_then(|factor| self.retry.initial.0.checked_mul(factor));
        let pause = doubled.map_or(self.retry.max.0, |pause| pause.min(self.retry.max.0));
        pause.mul_f64(1.0 - self.retry.jitter * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Time;

    #[test]
    fn a_429_halves_and_answers_bring_it_back() {
        let mut pressure = Pressure::new(8, 1000);
        pressure.tighten(1, 1);
        assert_eq!((pressure.requests(), pressure.docs()), (4, 500));
        pressure.tighten(100, 1000);
        assert_eq!((pressure.requests(), pressure.docs()), (3, 475));
        for _ in 0..20 {
            pressure.tighten(1, 1);
        }
        assert_eq!((pressure.requests(), pressure.docs()), (1, 31));
        for _ in 0..64 {
            pressure.relax();
        }
        assert_eq!((pressure.requests(), pressure.docs()), (8, 1000));
        let mut small = Pressure::new(1, 1);
        small.tighten(1, 1);
        assert_eq!((small.requests(), small.docs()), (1, 1));
    }

    #[test]
    fn requests_keep_their_distance() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(4.0));
        assert!(pace.next() <= Instant::now());
        pace.sent(now);
        assert_eq!(pace.next(), now + Duration::from_millis(250));
        let mut unlimited = Pace::new(None);
        unlimited.sent(now);
        assert_eq!(unlimited.next(), now);
    }

    #[test]
    fn pauses_double_to_the_longest_less_a_random_share() {
        let retry = Retry { initial: Time(Duration::from_millis(100)), max: Time(Duration::from_secs(2)), jitter: 0.5 };
        let mut backoff = Backoff::new(retry);
        let mut seen = Vec::new();
        for (attempt, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1600), (6, 2000), (40, 2000)] {
            let pause = backoff.pause(attempt);
            let full = Duration::from_millis(full);
            assert!(pause <= full && pause >= full / 2, "{attempt}: {pause:?}");
            seen.push(pause.as_secs_f64() / full.as_secs_f64());
        }
        assert!(seen.windows(2).any(|pair| pair[0] != pair[1]), "pauses have a random share");
    }
}
