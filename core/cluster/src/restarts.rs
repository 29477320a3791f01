//! When a job that failed is started again: the pipeline's `restart:` as decisions, without a clock or a process.

use serde::{Deserialize, Serialize};
use standpipe_pipeline::RestartStrategy;
use std::{collections::VecDeque, time::Duration};

/// What a delay that grows is spread by, to either side: jobs that failed together do not come back together.
const JITTER: f64 = 0.1;

/// Keeps count of a job's failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restarts {
    strategy: RestartStrategy,
    /// So far, or in a row.
    failures: u32,
    /// When, within the interval of `failure-rate`, by the clock of whoever asks.
    recent: VecDeque<Duration>,
}

impl Restarts {
    /// Of a job that has not failed.
    #[must_use]
    pub fn new(strategy: RestartStrategy) -> Self {
        Self { strategy, failures: 0, recent: VecDeque::new() }
    }

    /// The job has failed, having run for that long: how long to wait before it is started again; `None`: it is not. `now` is the time since any moment that stays the
    /// same; `random` is from 0 to 1.
    pub fn failed(&mut self, now: Duration, ran: Duration, random: f64) -> Option<Duration> {
        match self.strategy {
            RestartStrategy::None => None,
            RestartStrategy::FixedDelay { attempts, delay } => {
                self.failures = self.failures.saturating_add(1);
                (self.failures <= attempts).then_some(delay)
            }
            RestartStrategy::ExponentialDelay { initial_delay, max_delay, multiplier } => {
                // One that has run for longer than it would have to wait has recovered: what comes now is another trouble.
                self.failures = if ran > max_delay { 0 } else { self.failures };
                let factor = multiplier.powi(i32::try_from(self.failures).unwrap_or(i32::MAX));
                self.failures = self.failures.saturating_add(1);
                let grown = (initial_delay.as_secs_f64() * factor).min(max_delay.as_secs_f64());
                Some(Duration::from_secs_f64(grown * (1.0 + JITTER * (2.0 * random - 1.0))))
            }
            RestartStrategy::FailureRate { failures, interval, delay } => {
                self.recent.push_back(now);
                while self.recent.pop_front_if(|failure| now.saturating_sub(*failure) > interval).is_some() {}
                (self.recent.len() <= failures as usize).then_some(delay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn none_is_never() {
        assert_eq!(Restarts::new(RestartStrategy::None).failed(1000 * SECOND, SECOND, 0.5), None);
    }

    #[test]
    fn a_fixed_delay_has_so_many_attempts_in_all() {
        let mut restarts = Restarts::new(RestartStrategy::FixedDelay { attempts: 2, delay: SECOND });
        let now = 1000 * SECOND;
        let waits: Vec<_> = (0..4).map(|_| restarts.failed(now, 1000 * SECOND, 0.5)).collect();
        assert_eq!(waits, [Some(SECOND), Some(SECOND), None, None]);
    }

    #[test]
    fn an_exponential_delay_grows_to_its_maximum_and_begins_anew_after_a_long_run() {
        let strategy = RestartStrategy::ExponentialDelay { initial_delay: SECOND, max_delay: 10 * SECOND, multiplier: 2.0 };
        let mut restarts = Restarts::new(strategy.clone());
        let now = 1000 * SECOND;
        let mut wait = |ran, random| restarts.failed(now, ran, random).unwrap();
        let waits: Vec<_> = (0..6).map(|_| wait(SECOND, 0.5)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10].map(|seconds| seconds * SECOND));
        assert_eq!(wait(11 * SECOND, 0.5), SECOND);
        assert_eq!((wait(SECOND, 0.0), wait(SECOND, 1.0)), (Duration::from_millis(1800), Duration::from_millis(4400)));
        let mut many = Restarts { strategy, failures: u32::MAX, recent: VecDeque::new() };
        assert_eq!(many.failed(now, SECOND, 0.5), Some(10 * SECOND));
    }

    #[test]
    fn a_failure_rate_counts_those_of_the_interval() {
        let mut restarts = Restarts::new(RestartStrategy::FailureRate { failures: 2, interval: 10 * SECOND, delay: SECOND });
        let begin = 1000 * SECOND;
        let mut at = |seconds: u32| restarts.failed(begin + seconds * SECOND, SECOND, 0.5).is_some();
        assert_eq!([at(0), at(1), at(11), at(12), at(13)], [true, true, true, true, false]);
    }
}
