//! The engine's timestamps: a `u64` with the checkpoint in the high half and the tick in the low half. Event time is something else: it travels in the data
//! (`Mark`), never in these.
//!
//! All data of checkpoint n has a timestamp of checkpoint n, so "everything of checkpoint n has passed" is a question about a frontier. Ticks divide a checkpoint
//! finely enough that a source learns what has left the dataflow (`budget`); the clock in `runtime::ticker` makes them, never the data.

/// A timely timestamp.
pub(crate) type Time = u64;

const TICK_BITS: u32 = 32;

/// Which consistent cut a timestamp belongs to. The first is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckpointId(pub(crate) u32);

/// The timestamp of a tick of a checkpoint.
pub(crate) const fn time(checkpoint: CheckpointId, tick: u32) -> Time {
    ((checkpoint.0 as u64) << TICK_BITS) | tick as u64
}

/// The checkpoint that a timestamp belongs to.
pub(crate) const fn checkpoint(time: Time) -> CheckpointId {
    CheckpointId((time >> TICK_BITS) as u32)
}

/// The tick after `time` in the same checkpoint. At the last tick (after 497 days of 10 ms) it stays: progress then stands until the next checkpoint begins.
pub(crate) const fn next_tick(at: Time) -> Time {
    let tick = at as u32;
    time(checkpoint(at), tick.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stay_in_their_checkpoint() {
        let first = time(CheckpointId(7), 0);
        assert_eq!(next_tick(first), time(CheckpointId(7), 1));
        let last = time(CheckpointId(7), u32::MAX);
        assert_eq!(next_tick(last), last);
        assert_eq!(checkpoint(last), CheckpointId(7));
    }

    #[test]
    fn every_tick_of_a_checkpoint_is_before_the_next_one() {
        assert!(time(CheckpointId(3), u32::MAX) < time(CheckpointId(4), 0));
    }
}
