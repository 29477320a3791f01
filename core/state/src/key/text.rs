//! The usual keys, strings and binaries alone, encoded in one walk over the rows. Same bytes as the general way (`super::Pass`), which takes every other type.

use super::{MAX_LENGTH_WIDTH, write_length};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

/// What is copied at once: more than most key values have, so that a copy is two moves and no call. What is too much is overwritten by what follows.
const BLOCK: usize = 16;

/// A string or binary column.
pub(super) struct Text<'a> {
    offsets: &'a [i32],
    values: &'a [u8],
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Text<'a> {
    /// All columns, if each of them is one; `None` also where there are none.
    pub(super) fn all(columns: &'a [ArrayRef]) -> Option<Vec<Self>> {
        if columns.is_empty() {
            return None;
        }
        columns.iter().map(Self::of).collect()
    }

    fn of(column: &'a ArrayRef) -> Option<Self> {
        let (offsets, values) = match column.data_type() {
            DataType::Utf8 => {
                let column = column.as_string::<i32>();
                (column.value_offsets(), column.value_data())
            }
            DataType::Binary => {
                let column = column.as_binary::<i32>();
                (column.value_offsets(), column.value_data())
            }
            _ => return None,
        };
        Some(Self { offsets, values, nulls: column.nulls().filter(|nulls| nulls.null_count() > 0) })
    }

    /// Bytes of all values of the column.
    fn len(&self) -> usize {
        let ends = (self.offsets.first(), self.offsets.last());
        if let (Some(first), Some(last)) = ends { (last - first) as usize } else { 0 }
    }
}

/// Writes the keys of `rows` rows from the beginning of `bytes`, which never becomes shorter, and adds the end of each to `offsets`.
pub(super) fn encode(columns: &[Text<'_>], rows: usize, bytes: &mut Vec<u8>, offsets: &mut Vec<usize>) {
    let most = columns.iter().map(|column| column.len() + rows * MAX_LENGTH_WIDTH).sum::<usize>() + MAX_LENGTH_WIDTH + BLOCK;
    if bytes.len() < most {
        bytes.resize(most, 0);
    }
    let out = bytes.as_mut_slice();
    let mut at = 0;
    for row in 0..rows {
        for column in columns {
            if column.nulls.is_some_and(|nulls| nulls.is_null(row)) {
                out[at] = 0;
                at += 1;
                continue;
            }
            let (start, end) = (column.offsets[row] as usize, column.offsets[row + 1] as usize);
            let length = end - start;
            match column.values.get(start..).and_then(<[u8]>::first_chunk::<BLOCK>) {
                Some(block) if length <= BLOCK => {
                    out[at] = length as u8 + 1;
                    out[at + 1..at + 1 + BLOCK].copy_from_slice(block);
                    at += 1 + length;
                }
                _ => {
                    at += write_length(length, &mut out[at..]);
                    out[at..at + length].copy_from_slice(&column.values[start..end]);
                    at += length;
                }
            }
        }
        offsets.push(at);
    }
}
