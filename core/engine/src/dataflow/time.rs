//! The engine's timestamps: a `u64` with the checkpoint in the upper 28 bits and the tick in the lower 36. Event time is something else: it travels in the data
//! (`Mark`), never in these.
//!
//! All data of checkpoint n has a timestamp of checkpoint n, so "everything of checkpoint n has passed" is a question about a frontier. Ticks divide a checkpoint
//! finely enough that a source learns what has left the dataflow (`budget`); the clock in `runtime::ticker` makes them, never the data.

/// A timely timestamp.
pub(crate) type Time = u64;

const TICK_BITS: u32 = 36;

/// A consistent cut, and what comes after it until the next one: data of n is behind cut n and before cut n + 1. There are 2^28: one a second for eight years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckpointId(u32);

impl CheckpointId {
    const BITS: u32 = u64::BITS - TICK_BITS;
    /// Before any.
    pub(crate) const NONE: Self = Self(0);

    /// That number, if there can be so many.
    pub(crate) fn new(number: u64) -> Option<Self> {
        u32::try_from(number).ok().filter(|number| *number < 1 << Self::BITS).map(Self)
    }

    pub(crate) const fn number(self) -> u64 {
        self.0 as u64
    }
}

impl std::fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in a checkpoint. There are 2^36: one a millisecond for two years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) const FIRST: Self = Self(0);
    const LAST: Self = Self((1 << TICK_BITS) - 1);

    const fn of(at: Time) -> Self {
        Self(at & Self::LAST.0)
    }
}

/// The timestamp of a tick of a checkpoint.
pub(crate) const fn time(checkpoint: CheckpointId, tick: Tick) -> Time {
    ((checkpoint.0 as u64) << TICK_BITS) | tick.0
}

/// The checkpoint that a timestamp belongs to.
pub(crate) const fn checkpoint(at: Time) -> CheckpointId {
    CheckpointId((at >> TICK_BITS) as u32)
}

/// The tick after `at` in the same checkpoint. At the last tick it stays: progress then stands until the next checkpoint begins.
pub(crate) const fn next_tick(at: Time) -> Time {
    let tick = Tick::of(at);
    if tick.0 == Tick::LAST.0 { at } else { time(checkpoint(at), Tick(tick.0 + 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stay_in_their_checkpoint() {
        let first = time(CheckpointId(7), Tick::FIRST);
        assert_eq!(next_tick(first), time(CheckpointId(7), Tick(1)));
        let last = time(CheckpointId(7), Tick::LAST);
        assert_eq!(next_tick(last), last);
        assert_eq!(checkpoint(last), CheckpointId(7));
    }

    #[test]
    fn a_tick_a_millisecond_lasts_for_years() {
        let after_50_days = time(CheckpointId::NONE, Tick(50 * 24 * 3600 * 1000));
        assert_eq!(next_tick(after_50_days), after_50_days + 1, "32 bits would not hold this");
        const { assert!(Tick::LAST.0 > 2 * 365 * 24 * 3600 * 1000) };
    }

    #[test]
    fn every_tick_of_a_checkpoint_is_before_the_next_one() {
        assert!(time(CheckpointId(3), Tick::LAST) < time(CheckpointId(4), Tick::FIRST));
        let last = time(CheckpointId((1 << 28) - 1), Tick::LAST);
        assert_eq!((last, checkpoint(last)), (u64::MAX, CheckpointId((1 << 28) - 1)));
    }
}
