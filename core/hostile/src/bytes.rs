//! Changes of bytes: flipped, cut, repeated, put elsewhere; numbers at their edges, in any width and order; words that mean something to a parser.

use proptest::{collection::vec, prelude::*, sample::select};

/// Places are counted modulo the length that there is when the change is made.
#[derive(Debug, Clone)]
pub enum Change {
    /// A bit is turned.
    Flip(u32, u8),
    /// A byte is another one.
    Set(u32, u8),
    /// Nothing follows.
    Cut(u32),
    /// Some bytes are gone.
    Remove(u32, u32),
    /// Some bytes are there several times.
    Repeat(u32, u32, u8),
    /// Some bytes are at another place, too.
    Copy {
        /// Where they are.
        from: u32,
        /// How many.
        length: u32,
        /// Where else.
        to: u32,
    },
    /// A number in the place of what was there, little-endian or big-endian.
    Number {
        /// Where.
        at: u32,
        /// The number.
        value: u64,
        /// Its bytes.
        width: usize,
        /// Its order.
        big: bool,
    },
    /// Bytes in between.
    Insert(u32, Vec<u8>),
}

/// Numbers at which lengths, offsets and counts go wrong.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Some changes; `words` are what means something where they are made.
pub fn changes(words: &'static [&'static str]) -> impl Strategy<Value = Vec<Change>> {
    let at = any::<u32>;
    let number = (at(), select(&EDGES[..]), select(&[1_usize, 2, 4, 8][..]), any::<bool>());
    let one = prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), 1..64_u32).prop_map(|(at, length)| Change::Remove(at, length)),
        1 => (at(), 1..64_u32, 1..40_u8).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        2 => (at(), 1..256_u32, at()).prop_map(|(from, length, to)| Change::Copy { from, length, to }),
        4 => number.prop_map(|(at, value, width, big)| Change::Number { at, value, width, big }),
        2 => (at(), insertion(words)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ];
    vec(one, 1..6)
}

fn insertion(words: &'static [&'static str]) -> BoxedStrategy<Vec<u8>> {
    let noise = vec(any::<u8>(), 1..16);
    if words.is_empty() {
        noise.boxed()
    } else {
        prop_oneof![1 => noise, 3 => select(words).prop_map(|word| word.as_bytes().to_vec())].boxed()
    }
}

/// A sample after these changes.
#[must_use]
pub fn changed(sample: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    changes.iter().for_each(|change| change.make(&mut bytes));
    bytes
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        let at = |place: u32| place as usize % length;
        let range = |place: u32, count: u32| at(place)..(at(place) + count as usize).min(length);
        match self {
            Self::Flip(place, bit) => bytes[at(*place)] ^= 1 << bit,
            Self::Set(place, byte) => bytes[at(*place)] = *byte,
            Self::Cut(place) => bytes.truncate(at(*place)),
            Self::Remove(place, count) => drop(bytes.drain(range(*place, *count))),
            Self::Repeat(place, count, times) => {
                let part = bytes[range(*place, *count)].repeat(usize::from(*times));
                insert(bytes, at(*place), &part);
            }
            Self::Copy { from, length, to } => {
                let part = bytes[range(*from, *length)].to_vec();
                let to = range(*to, *length);
                let fits = to.len().min(part.len());
                bytes[to.start..to.start + fits].copy_from_slice(&part[..fits]);
            }
            Self::Number { at: place, value, width, big } => {
                let (little, all) = (value.to_le_bytes(), value.to_be_bytes());
                let number = if *big { &all[8 - width..] } else { &little[..*width] };
                // Aligned, as most are.
                let place = at(*place) / width * width;
                bytes.iter_mut().skip(place).zip(number).for_each(|(to, byte)| *to = *byte);
            }
            Self::Insert(place, part) => insert(bytes, at(*place), part),
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    drop(bytes.splice(at..at, part.iter().copied()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_does_what_it_says() {
        let made = |change: Change| changed(b"abcdef", &[change]);
        assert_eq!(made(Change::Flip(6, 0)), b"`bcdef");
        assert_eq!(made(Change::Set(1, b'x')), b"axcdef");
        assert_eq!(made(Change::Cut(2)), b"ab");
        assert_eq!(made(Change::Remove(4, 9)), b"abcd");
        assert_eq!(made(Change::Repeat(1, 2, 2)), b"abcbcbcdef");
        assert_eq!(made(Change::Copy { from: 0, length: 3, to: 4 }), b"abcdab");
        assert_eq!(made(Change::Number { at: 3, value: 0x0102, width: 2, big: false }), b"ab\x02\x01ef");
        assert_eq!(made(Change::Number { at: 3, value: 0x0102, width: 2, big: true }), b"ab\x01\x02ef");
        assert_eq!(made(Change::Insert(1, b"--".to_vec())), b"a--bcdef");
        assert_eq!(changed(b"", &[Change::Cut(0), Change::Set(3, 3)]), b"");
    }
}
