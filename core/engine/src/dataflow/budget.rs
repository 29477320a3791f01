//! Backpressure: how many bytes a source subtask has on their way to the sinks, by the tick in which it emitted them. A tick has left the dataflow when the frontier
//! of the source's feedback edge has passed it: every sink has acknowledged what came of it. State does not count: a window that has taken a row has let it go.

use super::time::Time;
use std::collections::VecDeque;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    in_flight: u64,
    /// Bytes by tick, oldest first.
    ticks: VecDeque<(Time, u64)>,
}

/// Ticks that fit into a budget at full speed: a source asks for one whenever it has emitted that part of its budget.
const TICKS_PER_BUDGET: u64 = 8;

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: limit.max(1), in_flight: 0, ticks: VecDeque::new() }
    }

    /// Whether the source must wait. One batch fits into any budget.
    pub(crate) fn is_spent(&self) -> bool {
        self.in_flight >= self.limit
    }

    /// The source has emitted so much in the current tick.
    pub(crate) fn spend(&mut self, tick: Time, bytes: u64) {
        self.in_flight += bytes;
        match self.ticks.back_mut() {
            Some((last, spent)) if *last == tick => *spent += bytes,
            _ => self.ticks.push_back((tick, bytes)),
        }
    }

    /// Whether the current tick should end now, because it has become large or the source waits: nothing of a tick is released before all of it.
    pub(crate) fn wants_tick(&self, tick: Time) -> bool {
        let large = |spent| self.is_spent() || spent >= self.limit / TICKS_PER_BUDGET;
        self.ticks.back().is_some_and(|(last, spent)| *last == tick && large(*spent))
    }

    /// Every tick before `frontier` has left the dataflow; `None`: all have.
    pub(crate) fn release(&mut self, frontier: Option<Time>) {
        while let Some((tick, bytes)) = self.ticks.front().copied()
            && frontier.is_none_or(|frontier| tick < frontier)
        {
            self.in_flight -= bytes;
            self.ticks.pop_front();
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_released_when_the_frontier_has_passed_it() {
        let mut budget = Budget::new(100);
        budget.spend(1, 60);
        budget.spend(1, 10);
        budget.spend(2, 50);
        assert!(budget.is_spent());
        budget.release(Some(1));
        assert_eq!(budget.in_flight(), 120, "tick 1 may still have something on its way");
        budget.release(Some(2));
        assert_eq!(budget.in_flight(), 50);
        assert!(!budget.is_spent());
        budget.release(None);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_large_tick_asks_to_end() {
        let mut budget = Budget::new(80);
        budget.spend(1, 9);
        assert!(!budget.wants_tick(1));
        budget.spend(1, 1);
        assert!(budget.wants_tick(1));
        assert!(!budget.wants_tick(2), "the tick has ended already");
        budget.spend(2, 70);
        assert!(budget.is_spent());
        assert!(!budget.wants_tick(3), "a source that waits asks once");
    }

    #[test]
    fn one_batch_fits_into_any_budget() {
        assert!(!Budget::new(0).is_spent());
    }
}
