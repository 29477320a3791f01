//! Which keys have changed since which checkpoint, so that a snapshot says only that and refers to former ones for the rest.
//!
//! A table of keyed state is a chain of files: a whole one, then changes, on the whole each later one smaller. When a new one would be about as large as the three (`ALIKE`) before
//! it, they are written as one; when the chain would have more rows than there are keys, or a file half of them, all is written anew. So a checkpoint costs what has changed, a
//! chain has few files (a small multiple of the logarithm of the number of keys), a restore reads each key twice at most, and what is written on the whole is a small multiple
//! of what has changed: 2.3 times where a tenth of the keys, by chance, changes from one checkpoint to the next.
//!
//! Only durable checkpoints are built upon: what was said in one that was given up is said again.
//!
//! Where state is larger than memory, a key that leaves memory takes with it what is known of its changes ([`Changes::leave`]); only their number stays.

use std::cmp::Reverse;

/// So many files of changes stay beside each other, though the next one is about as large. With fewer, more is written; with more, a chain has more files.
pub(crate) const ALIKE: usize = 3;

/// A cut at which a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The checkpoint's number: higher than those of all former cuts.
    pub id: u64,
    /// What the snapshot may refer to.
    pub base: Base,
}

/// What a snapshot may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// To nothing, and nothing will refer to it: a savepoint.
    Alone,
    /// To nothing; a later one may refer to it.
    Nothing,
    /// To this durable checkpoint, and so to what that refers to.
    Checkpoint(u64),
}

impl Cut {
    /// A snapshot for itself.
    pub const ALONE: Self = Self { id: 0, base: Base::Alone };
}

/// What a snapshot has to say of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// All rows.
    Whole,
    /// The rows of these keys, which have changed since that cut. Sorted.
    Since(u64, Vec<u32>),
}

/// Ids that were noted, each once.
#[derive(Debug, Default)]
pub struct Marks {
    ids: Vec<u32>,
    /// A bit per id.
    seen: Vec<u64>,
}

impl Marks {
    /// Notes an id.
    #[inline]
    pub fn add(&mut self, id: u32) {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.ids.push(id);
        }
    }

    /// The ids in order; none is noted any more.
    pub fn take(&mut self) -> Vec<u32> {
        self.ids.iter().for_each(|id| self.seen[*id as usize / 64] = 0);
        let mut ids = std::mem::take(&mut self.ids);
        ids.sort_unstable();
        ids
    }

    /// The ids in order; they stay noted.
    #[must_use]
    pub fn sorted(&self) -> Vec<u32> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids
    }

    /// Those that leave, in order; the others stay noted.
    pub fn take_those(&mut self, leaves: impl Fn(u32) -> bool) -> Vec<u32> {
        let (left, stay): (Vec<u32>, Vec<u32>) = self.take().into_iter().partition(|id| leaves(*id));
        stay.into_iter().for_each(|id| self.add(id));
        left
    }

    /// Ids have moved.
    pub fn renumber(&mut self, moved: &[Option<u32>]) {
        self.take().iter().filter_map(|id| moved.get(*id as usize).copied().flatten()).for_each(|id| self.add(id));
    }
}

/// The changes of a table, see the module's documentation.
#[derive(Debug, Default)]
pub struct Changes {
    /// The cut of the last whole snapshot, since which all changes are known; `None`: nothing is noted.
    whole: Option<u64>,
    now: Marks,
    /// Changes since the last cut of keys that have left.
    now_left: usize,
    /// Oldest first; their files are the chain behind the whole one.
    former: Vec<Interval>,
}

/// What has changed up to a cut since the interval before.
#[derive(Debug)]
struct Interval {
    cut: u64,
    ids: Vec<u32>,
    /// Changes of keys that have left; a key may be counted more than once.
    left: usize,
}

impl Interval {
    /// Changes.
    fn len(&self) -> usize {
        self.ids.len() + self.left
    }
}

impl Changes {
    /// Whether changes need be noted.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.whole.is_some()
    }

    /// The entry of a key has changed, or is no more.
    #[inline]
    pub fn note(&mut self, id: u32) {
        if self.whole.is_some() {
            self.now.add(id);
        }
    }

    /// A snapshot is taken, of a table of at most so many keys.
    pub fn cut(&mut self, cut: Cut, keys: usize) -> Said {
        let mut ids = self.now.take();
        let base = match cut.base {
            Base::Alone => {
                // Nobody builds on it: for the next one it has not been.
                ids.into_iter().for_each(|id| self.now.add(id));
                return Said::Whole;
            }
            Base::Nothing => None,
            Base::Checkpoint(base) => Some(base),
        };
        if let (Some(whole), Some(base)) = (self.whole, base)
            && base >= whole
        {
            // What is in none that is durable is said again.
            let mut first = self.former.iter().rposition(|last| last.cut <= base).map_or(0, |last| last + 1);
            let mut left = std::mem::take(&mut self.now_left);
            loop {
                if first < self.former.len() {
                    for last in self.former.drain(first..) {
                        ids.extend(last.ids);
                        left += last.left;
                    }
                    ids.sort_unstable();
                    ids.dedup();
                }
                let alike = self.former.iter().rev().take_while(|last| last.len() <= 2 * (ids.len() + left)).count();
                if alike < ALIKE {
                    break;
                }
                first = self.former.len() - alike;
            }
            let since = self.former.last().map_or(whole, |last| last.cut);
            let changes = ids.len() + left;
            let chain = changes + self.former.iter().map(Interval::len).sum::<usize>();
            if changes <= keys / 2 && chain <= keys {
                if changes > 0 {
                    self.former.push(Interval { cut: cut.id, ids: ids.clone(), left });
                }
                return Said::Since(since, ids);
            }
        }
        self.former.clear();
        self.now_left = 0;
        self.whole = Some(cut.id);
        Said::Whole
    }

    /// Some keys leave: gives, by id, since which cut each of them has changed, where a snapshot may have to say so.
    pub fn leave(&mut self, leaves: impl Fn(u32) -> bool) -> Vec<(u32, u64)> {
        let Some(mut since) = self.whole else { return Vec::new() };
        let mut left = Vec::new();
        for interval in &mut self.former {
            let before = interval.ids.len();
            interval.ids.retain(|id| {
                let leaves = leaves(*id);
                if leaves {
                    left.push((*id, since));
                }
                !leaves
            });
            interval.left += before - interval.ids.len();
            since = interval.cut;
        }
        let now = self.now.take_those(leaves);
        self.now_left += now.len();
        left.extend(now.into_iter().map(|id| (id, since)));
        // The last change counts.
        left.sort_unstable_by_key(|(id, since)| (*id, Reverse(*since)));
        left.dedup_by_key(|(id, _)| *id);
        left
    }

    /// Whether the snapshot of that cut, which says what has changed, must say it of keys that have left.
    #[must_use]
    pub fn has_left(&self, cut: u64) -> bool {
        self.former.last().is_some_and(|last| last.cut == cut && last.left > 0)
    }

    /// The next snapshot is whole.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Says of every id that a snapshot must still name: that it is needed, also where its key holds nothing any more.
    pub fn needs(&self, needed: &mut [bool]) {
        for id in self.now.ids.iter().chain(self.former.iter().flat_map(|interval| &interval.ids)) {
            if let Some(needed) = needed.get_mut(*id as usize) {
                *needed = true;
            }
        }
    }

    /// Ids have moved, in the same order.
    pub fn renumber(&mut self, moved: &[Option<u32>]) {
        let new = |id: &u32| moved.get(*id as usize).copied().flatten();
        self.now.renumber(moved);
        for interval in &mut self.former {
            interval.ids = interval.ids.iter().filter_map(new).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn on(id: u64, base: u64) -> Cut {
        Cut { id, base: Base::Checkpoint(base) }
    }

    fn note(changes: &mut Changes, ids: impl IntoIterator<Item = u32>) {
        ids.into_iter().for_each(|id| changes.note(id));
    }

    #[test]
    fn changes_are_said_once_and_small_ones_together() {
        let mut changes = Changes::default();
        note(&mut changes, [1]);
        assert_eq!(changes.cut(Cut { id: 1, base: Base::Nothing }, 100), Said::Whole);
        note(&mut changes, [5, 3, 5, 9, 7, 1, 2]);
        assert_eq!(changes.cut(on(2, 1), 100), Said::Since(1, vec![1, 2, 3, 5, 7, 9]));
        assert_eq!(changes.cut(on(3, 2), 100), Said::Since(2, vec![]));
        note(&mut changes, [4]);
        assert_eq!(changes.cut(on(4, 3), 100), Said::Since(2, vec![4]), "six are not written again for one");
        note(&mut changes, [4]);
        assert_eq!(changes.cut(on(5, 4), 100), Said::Since(4, vec![4]));
        note(&mut changes, [8]);
        assert_eq!(changes.cut(on(6, 5), 100), Said::Since(5, vec![8]));
        note(&mut changes, [4]);
        assert_eq!(changes.cut(on(7, 6), 100), Said::Since(2, vec![4, 8]), "four that are alike are as one");
        note(&mut changes, 10..20);
        assert_eq!(changes.cut(on(8, 7), 100), Said::Since(7, (10..20).collect()), "six and two are not three that are alike");
        note(&mut changes, 20..30);
        let all = (1..=5).chain(7..=9).chain(10..30).collect();
        assert_eq!(changes.cut(on(9, 8), 100), Said::Since(1, all), "six, two and ten are");
        note(&mut changes, 0..51);
        assert_eq!(changes.cut(on(10, 9), 100), Said::Whole, "more than half");
        note(&mut changes, 0..50);
        assert_eq!(changes.cut(on(11, 10), 100), Said::Since(10, (0..50).collect()));
        note(&mut changes, 0..50);
        assert_eq!(changes.cut(on(12, 11), 100), Said::Since(11, (0..50).collect()));
        note(&mut changes, 0..1);
        assert_eq!(changes.cut(on(13, 12), 100), Said::Whole, "the chain would be longer than all");
    }

    #[test]
    fn what_was_given_up_is_said_again_and_a_savepoint_changes_nothing() {
        let mut changes = Changes::default();
        changes.cut(Cut { id: 1, base: Base::Nothing }, 100);
        note(&mut changes, [1]);
        assert_eq!(changes.cut(on(2, 1), 100), Said::Since(1, vec![1]));
        note(&mut changes, [2]);
        assert_eq!(changes.cut(on(3, 1), 100), Said::Since(1, vec![1, 2]), "2 was given up");
        note(&mut changes, [3]);
        assert_eq!(changes.cut(Cut { id: 4, base: Base::Alone }, 100), Said::Whole);
        assert_eq!(changes.cut(on(5, 3), 100), Said::Since(3, vec![3]));
        assert_eq!(changes.cut(Cut { id: 6, base: Base::Nothing }, 100), Said::Whole, "nobody knows whether 5 is there");
        assert_eq!(changes.cut(on(7, 5), 100), Said::Whole, "6 was given up, and 5 is from before");
    }

    /// The figure of the module's documentation, by whole rounds of it.
    #[test]
    fn a_tenth_of_the_keys_costs_little_more_than_twice_what_has_changed() {
        let (keys, mut changes, mut random) = (10_000_usize, Changes::default(), 1_u64);
        let (mut changed, mut written, mut longest) = (0, 0, 0);
        changes.cut(Cut { id: 1, base: Base::Nothing }, keys);
        for id in 2..402 {
            let mut ids = BTreeSet::new();
            for _ in 0..keys / 10 {
                // Knuth's linear congruential generator (MMIX).
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ids.insert(((random >> 33) % keys as u64) as u32);
            }
            changed += ids.len();
            note(&mut changes, ids);
            written += match changes.cut(on(id, id - 1), keys) {
                Said::Whole => keys,
                Said::Since(_, ids) => ids.len(),
            };
            longest = longest.max(changes.former.len());
        }
        let times = written as f64 / changed as f64;
        assert!((2.2..2.4).contains(&times) && longest <= 2 * ALIKE, "{times} times, {longest} files of changes");
    }

    #[test]
    fn keys_that_leave_take_the_last_of_their_changes_with_them() {
        let mut changes = Changes::default();
        note(&mut changes, [1]);
        assert_eq!(changes.leave(|_| true), [], "before the first snapshot nothing is to be said");
        changes.cut(Cut { id: 1, base: Base::Nothing }, 100);
        note(&mut changes, 0..8);
        assert_eq!(changes.cut(on(2, 1), 100), Said::Since(1, (0..8).collect()));
        note(&mut changes, [0, 9]);
        assert_eq!(changes.leave(|id| id != 9), [(0, 2), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]);
        assert_eq!(changes.cut(on(3, 2), 100), Said::Since(2, vec![9]));
        assert!(changes.has_left(3), "of 0 the disk must be asked");
        assert_eq!(changes.cut(on(4, 3), 100), Said::Since(3, vec![]));
        assert!(!changes.has_left(4));
        note(&mut changes, [9]);
        assert_eq!(changes.cut(on(5, 2), 100), Said::Since(2, vec![9]), "3 was given up");
        assert!(changes.has_left(5));
        note(&mut changes, 0..10);
        changes.leave(|_| true);
        assert_eq!(changes.cut(on(6, 5), 19), Said::Whole, "those that have left are more than half");
        assert_eq!(changes.cut(on(7, 6), 19), Said::Since(6, vec![]));
        assert!(!changes.has_left(7));
    }

    proptest! {
        /// A chain of files as a manifest has it: what a reader puts together is what was there, of keys that have left too.
        #[test]
        fn a_chain_says_all(steps in prop::collection::vec((prop::collection::vec(0_u32..40, 0..30), any::<bool>(), 0_u8..8, any::<u64>()), 1..40)) {
            let mut changes = Changes::default();
            let mut truth: BTreeMap<u32, u64> = BTreeMap::new();
            // Of those that have left: since when there is a change.
            let mut left: BTreeMap<u32, u64> = BTreeMap::new();
            // (cut, whole, rows); of the durable checkpoint: its number and its files.
            type File = (u64, bool, BTreeMap<u32, u64>);
            let mut durable: Option<(u64, Vec<File>)> = None;
            for (step, (ids, succeeds, how, leaves)) in (1_u64..).zip(steps) {
                for id in ids {
                    truth.insert(id, step);
                    changes.note(id);
                }
                left.extend(changes.leave(|id| leaves >> id & 1 == 1));
                let base = match (&durable, how) {
                    (_, 0) => Base::Alone,
                    (Some((base, _)), 2..) => Base::Checkpoint(*base),
                    _ => Base::Nothing,
                };
                let files = match changes.cut(Cut { id: step, base }, 40) {
                    Said::Whole => vec![(step, true, truth.clone())],
                    Said::Since(since, ids) => {
                        let mut files = durable.clone().unwrap().1;
                        files.retain(|file| file.0 <= since);
                        let elsewhere = left.iter().filter(|(_, changed)| changes.has_left(step) && **changed >= since).map(|(id, _)| id);
                        files.push((step, false, ids.iter().chain(elsewhere).map(|id| (*id, truth[id])).collect()));
                        files
                    }
                };
                let mut read = BTreeMap::new();
                files.iter().for_each(|file| read.extend(file.2.iter().map(|(id, at)| (*id, *at))));
                prop_assert_eq!(&read, &truth);
                prop_assert!(files[0].1 && files.len() <= 8);
                let ids: BTreeSet<u64> = files.iter().map(|file| file.0).collect();
                prop_assert_eq!(ids.len(), files.len());
                if succeeds && how != 0 {
                    durable = Some((step, files));
                } else if how == 1 {
                    durable = None;
                }
            }
        }
    }
}
