//! Timers of one domain (event time or processing time): one per key, slot and time. They are handed out in rounds of at most one per key, so that what a key's
//! timer does (sets an earlier one, deletes the next) is seen before its next one fires: in time order per key, in batches across keys.

use crate::changes::Marks;
use std::collections::{BTreeMap, BTreeSet};

/// A timer that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueTimer {
    /// Microseconds since the epoch.
    pub time: i64,
    /// Its key.
    pub id: u32,
    /// The transform's own number for its purpose.
    pub slot: u32,
}

/// The timers of a subtask in one domain.
#[derive(Debug, Default)]
pub struct Timers {
    /// A key's timers, by time and slot; never an empty set.
    of_key: BTreeMap<u32, BTreeSet<(i64, u32)>>,
    /// The first of each key.
    heads: BTreeSet<(i64, u32)>,
    /// What a call did, to take back: `true` where it set the timer.
    undo: Vec<(DueTimer, bool)>,
    /// The keys whose timers may have changed since [`Timers::take_touched`], if anybody wants to know.
    touched: Option<Marks>,
}

impl Timers {
    /// Sets a timer; one that is set already stays.
    pub fn set(&mut self, timer: DueTimer) {
        if self.insert(timer) {
            self.undo.push((timer, true));
        }
    }

    /// Removes a timer.
    pub fn delete(&mut self, timer: DueTimer) {
        if self.take(timer) {
            self.undo.push((timer, false));
        }
    }

    /// Removes all timers of a key, for good.
    pub fn clear(&mut self, id: u32) {
        let timers: Vec<DueTimer> = self.of_key(id).collect();
        timers.into_iter().for_each(|timer| _ = self.take(timer));
    }

    fn insert(&mut self, timer: DueTimer) -> bool {
        self.touch(timer.id);
        let timers = self.of_key.entry(timer.id).or_default();
        let head = timers.first().map(|(time, _)| *time);
        let new = timers.insert((timer.time, timer.slot));
        if head.is_none_or(|head| timer.time < head) {
            head.map(|head| self.heads.remove(&(head, timer.id)));
            self.heads.insert((timer.time, timer.id));
        }
        new
    }

    fn take(&mut self, timer: DueTimer) -> bool {
        let Some(timers) = self.of_key.get_mut(&timer.id) else { return false };
        let head = timers.first().map(|(time, _)| *time);
        if !timers.remove(&(timer.time, timer.slot)) {
            return false;
        }
        if let Some(touched) = &mut self.touched {
            touched.add(timer.id);
        }
        let next = timers.first().map(|(time, _)| *time);
        if head != next {
            head.map(|head| self.heads.remove(&(head, timer.id)));
            next.map(|next| self.heads.insert((next, timer.id)));
        }
        if next.is_none() {
            self.of_key.remove(&timer.id);
        }
        true
    }

    /// Takes the next round of timers whose time is `until` or earlier: of each key its first, in order of time. Empty when none is due.
    pub fn next_round(&mut self, until: i64) -> Vec<DueTimer> {
        let due: Vec<(i64, u32)> = self.heads.range(..=(until, u32::MAX)).copied().collect();
        let first = |(time, id): (i64, u32)| Some(DueTimer { time, id, slot: self.of_key.get(&id)?.first()?.1 });
        let round: Vec<DueTimer> = due.into_iter().filter_map(first).collect();
        for timer in &round {
            self.take(*timer);
        }
        round
    }

    /// The earliest time.
    #[must_use]
    pub fn first_time(&self) -> Option<i64> {
        self.heads.first().map(|(time, _)| *time)
    }

    /// The latest time of each key that has a timer.
    pub fn last_times(&self) -> impl Iterator<Item = (u32, i64)> {
        self.of_key.iter().filter_map(|(id, timers)| Some((*id, timers.last()?.0)))
    }

    /// Whether the key has a timer.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.of_key.contains_key(&id)
    }

    /// The timers of a key, in order of time.
    pub fn of_key(&self, id: u32) -> impl Iterator<Item = DueTimer> {
        self.of_key.get(&id).into_iter().flatten().map(move |(time, slot)| DueTimer { time: *time, id, slot: *slot })
    }

    fn touch(&mut self, id: u32) {
        if let Some(touched) = &mut self.touched {
            touched.add(id);
        }
    }

    /// The keys whose timers may have changed since the last time; from now on they are noted, or not.
    pub fn take_touched(&mut self, note: bool) -> Vec<u32> {
        let touched = self.touched.as_mut().map(Marks::take).unwrap_or_default();
        if note {
            self.touched.get_or_insert_default();
        } else {
            self.touched = None;
        }
        touched
    }

    /// All timers, by key.
    pub fn iter(&self) -> impl Iterator<Item = DueTimer> {
        self.of_key.iter().flat_map(|(id, timers)| timers.iter().map(|(time, slot)| DueTimer { time: *time, id: *id, slot: *slot }))
    }

    /// What was set and deleted holds.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// What was set and deleted since the last commit has never been.
    pub fn rollback(&mut self) {
        while let Some((timer, was_set)) = self.undo.pop() {
            if was_set {
                self.take(timer)
            } else {
                self.insert(timer)
            };
        }
    }

    /// Ids have moved.
    pub fn renumber(&mut self, moved: &[Option<u32>]) {
        let mut old = std::mem::take(self);
        let noted = old.touched.is_some();
        let touched = old.take_touched(false);
        for timer in old.iter() {
            if let Some(Some(id)) = moved.get(timer.id as usize) {
                self.insert(DueTimer { id: *id, ..timer });
            }
        }
        if noted {
            self.touched = Some(Marks::default());
            touched.iter().filter_map(|id| moved.get(*id as usize).copied().flatten()).for_each(|id| self.touch(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timer(time: i64, id: u32, slot: u32) -> DueTimer {
        DueTimer { time, id, slot }
    }

    #[test]
    fn a_round_has_one_timer_per_key_in_order_of_time() {
        let mut timers = Timers::default();
        for due in [timer(5, 1, 0), timer(3, 1, 9), timer(3, 1, 2), timer(4, 0, 0), timer(20, 2, 0), timer(3, 1, 2)] {
            timers.set(due);
        }
        assert_eq!((timers.first_time(), timers.last_times().collect::<Vec<_>>()), (Some(3), vec![(0, 4), (1, 5), (2, 20)]));
        assert_eq!(timers.next_round(19), [timer(3, 1, 2), timer(4, 0, 0)]);
        timers.set(timer(4, 1, 7));
        timers.delete(timer(5, 1, 0));
        assert_eq!(timers.next_round(19), [timer(3, 1, 9)]);
        assert_eq!(timers.next_round(19), [timer(4, 1, 7)], "set in a round, before what was set earlier for later");
        assert_eq!(timers.next_round(19), [], "the deleted one does not fire");
        assert_eq!(timers.next_round(20), [timer(20, 2, 0)]);
        assert_eq!(timers.first_time(), None);
    }

    proptest! {
        #[test]
        fn they_are_a_set(ops in prop::collection::vec((any::<bool>(), -3_i64..3, 0_u32..3, 0_u32..2), 0..60), committed in 0_usize..60) {
            let mut timers = Timers::default();
            let mut truth = BTreeSet::new();
            let mut at_commit = BTreeSet::new();
            for (i, (set, time, id, slot)) in ops.into_iter().enumerate() {
                if i == committed {
                    timers.commit();
                    at_commit = truth.clone();
                }
                let due = timer(time, id, slot);
                if set { timers.set(due) } else { timers.delete(due) }
                if set { truth.insert(due) } else { truth.remove(&due) };
                prop_assert_eq!(timers.iter().collect::<BTreeSet<_>>(), truth.clone());
                prop_assert_eq!(timers.first_time(), truth.first().map(|timer| timer.time));
            }
            timers.rollback();
            prop_assert_eq!(timers.iter().collect::<BTreeSet<_>>(), at_commit.clone());
            prop_assert_eq!(timers.first_time(), at_commit.first().map(|timer| timer.time));
            timers.renumber(&[Some(0), None, Some(1)]);
            let moved: BTreeSet<_> = at_commit.iter().filter(|timer| timer.id != 1).map(|t| timer(t.time, t.id / 2, t.slot)).collect();
            prop_assert_eq!(timers.iter().collect::<BTreeSet<_>>(), moved);
        }
    }
}
