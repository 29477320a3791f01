//! Short texts in blocks of 16 bytes: a copy or comparison of a length that is known only at run time is a call, of a whole block two moves. The names and most of the
//! strings of a record are shorter than a block. The codecs of JSON copy and compare by this; nothing here knows what a text means.

const BLOCK: usize = 16;

/// Appends `from[start..end]`.
#[inline]
pub(crate) fn append(out: &mut Vec<u8>, from: &[u8], start: usize, end: usize) {
    match from.get(start..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        Some(block) if end - start <= BLOCK => {
            let end = out.len() + (end - start);
            out.extend_from_slice(block);
            out.truncate(end);
        }
        _ => out.extend_from_slice(&from[start..end]),
    }
}

/// A text that is written or looked for again and again.
pub(crate) struct Fixed {
    /// Filled up to a block at least.
    padded: Vec<u8>,
    len: usize,
    word: u128,
    /// The bytes of `word` that count.
    mask: u128,
}

impl Fixed {
    pub(crate) fn new(text: Vec<u8>) -> Self {
        let (len, mut padded) = (text.len(), text);
        padded.resize(len.max(BLOCK), 0);
        let mask = if len < BLOCK { (1 << (len * 8)) - 1 } else { u128::MAX };
        let word = padded.first_chunk().map_or(0, |block| u128::from_le_bytes(*block));
        Self { padded, len, word, mask }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends it.
    #[inline]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        append(out, &self.padded, 0, self.len);
    }

    /// Whether `bytes` begins with it.
    #[inline]
    pub(crate) fn begins(&self, bytes: &[u8]) -> bool {
        match bytes.first_chunk::<BLOCK>() {
            Some(block) if self.len <= BLOCK => u128::from_le_bytes(*block) & self.mask == self.word,
            _ => bytes.starts_with(&self.padded[..self.len]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_appended_is_the_text_and_no_more(
            before in prop::collection::vec(any::<u8>(), 0..5), from in prop::collection::vec(any::<u8>(), 0..60), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
        ) {
            let (a, b) = (a.index(from.len() + 1), b.index(from.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            let mut out = before.clone();
            append(&mut out, &from, start, end);
            prop_assert_eq!(&out, &[&before[..], &from[start..end]].concat());
            let mut fixed = before.clone();
            Fixed::new(from[start..end].to_vec()).write(&mut fixed);
            prop_assert_eq!(fixed, out);
        }

        #[test]
        fn a_beginning_is_found_where_it_is(text in prop::collection::vec(0_u8..3, 0..20), bytes in prop::collection::vec(0_u8..3, 0..40)) {
            let fixed = Fixed::new(text.clone());
            prop_assert_eq!(fixed.begins(&bytes), bytes.starts_with(&text));
            prop_assert!(fixed.begins(&[&text[..], &bytes].concat()));
            prop_assert_eq!(fixed.len(), text.len());
        }
    }
}
