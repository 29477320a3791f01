//! Key groups: the unit in which keyed state moves between subtasks. A job has `max_parallelism` of them, fixed at its first start; a key's group follows from its
//! hash, a group's subtask from the parallelism at hand. The exchange routes by it, snapshots carry it.

/// One of a job's `max_parallelism` key groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroup(pub u16);

/// The key groups that a subtask owns: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyGroupRange {
    /// The first group.
    pub start: u16,
    /// One after the last group.
    pub end: u16,
}

impl KeyGroupRange {
    /// Whether the group is in the range.
    #[must_use]
    pub fn contains(&self, group: KeyGroup) -> bool {
        (self.start..self.end).contains(&group.0)
    }
}

/// The largest `max_parallelism`.
pub const MAX_KEY_GROUPS: u32 = 32_768;

/// The key group of a key's hash: bits 24 to 55 scaled to `max_parallelism` (at most [`MAX_KEY_GROUPS`]). The low and the highest bits stay out, so that they
/// are still independent inside one group: hash tables find their bucket by the former and their tag by the latter.
#[must_use]
#[inline]
pub fn key_group(hash: u64, max_parallelism: u32) -> KeyGroup {
    let bits = (hash >> 24) & 0xFFFF_FFFF;
    KeyGroup(((bits * u64::from(max_parallelism)) >> 32) as u16)
}

/// The subtask that owns a group: groups are dealt in contiguous, equally long ranges, as Flink deals them.
#[must_use]
#[inline]
pub fn subtask_of(group: KeyGroup, parallelism: u32, max_parallelism: u32) -> u32 {
    (u64::from(group.0) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

/// The groups of a subtask: the inverse of [`subtask_of`].
#[must_use]
pub fn range_of(subtask: u32, parallelism: u32, max_parallelism: u32) -> KeyGroupRange {
    let first = |subtask: u32| (u64::from(subtask) * u64::from(max_parallelism)).div_ceil(u64::from(parallelism)) as u16;
    KeyGroupRange { start: first(subtask), end: first(subtask + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_exactly_the_subtask_whose_range_holds_it() {
        for max in [1, 2, 7, 128, 1000, MAX_KEY_GROUPS] {
            for parallelism in [1, 2, 3, 5, 64, 127, 128].into_iter().filter(|p| *p <= max) {
                let mut next = 0;
                for subtask in 0..parallelism {
                    let range = range_of(subtask, parallelism, max);
                    assert_eq!(range.start, next, "ranges are contiguous");
                    assert!(range.end > range.start, "every subtask has a group");
                    next = range.end;
                    for group in range.start..range.end {
                        assert_eq!(subtask_of(KeyGroup(group), parallelism, max), subtask);
                    }
                }
                assert_eq!(u32::from(next), max);
            }
        }
    }

    #[test]
    fn groups_are_even_and_leave_the_tag_bits_alone() {
        let mut counts = [0_u32; 128];
        for i in 0..128_000_u64 {
            counts[usize::from(key_group(xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()), 128).0)] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        assert_eq!(key_group(u64::MAX, MAX_KEY_GROUPS), KeyGroup(32_767));
        assert_eq!(key_group(0xFF00_0000_00FF_FFFF, 128), KeyGroup(0), "neither the highest byte nor the low bits count");
    }
}
