//! Document ids from key columns, the same for the same values in every run: texts joined by `|`, in which `\` and `|` are written `\\` and `\|`, and null is `\N`.
//! So two different keys never give the same id. Numbers, booleans, dates and times stand as in the document. Called by `bulk`.

use crate::document::{self, Cell};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;

/// Bytes of an id at most; Elasticsearch refuses the whole request of a longer one.
pub(crate) const MAX_BYTES: usize = 512;

/// Writes the ids of a batch.
pub(crate) struct Ids<'a>(Vec<Part<'a>>);

struct Part<'a> {
    array: &'a dyn Array,
    cell: Cell<'a>,
    is_text: bool,
}

impl<'a> Ids<'a> {
    /// The ids of these columns of a batch.
    pub(crate) fn new(columns: &[usize], batch: &'a RecordBatch) -> Result<Self, String> {
        let part = |index: &usize| {
            let array: &dyn Array = batch.column(*index);
            Ok(Part { array, cell: document::plain(array)?, is_text: is_text(array.data_type()) })
        };
        Ok(Self(columns.iter().map(part).collect::<Result<_, String>>()?))
    }

    /// Appends the id of a row.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        for (place, part) in self.0.iter().enumerate() {
            if place > 0 {
                out.push(b'|');
            }
            let start = out.len();
            if part.array.is_null(row) {
                out.extend_from_slice(b"\\N");
                continue;
            }
            (part.cell)(row, out);
            if part.is_text {
                escape(out, start);
            }
        }
    }
}

/// Whether a column can be part of an id; else why not.
pub(crate) fn check(data_type: &DataType) -> Result<(), String> {
    document::plain(&arrow_array::new_empty_array(data_type)).map(|_| ())
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn escape(out: &mut Vec<u8>, start: usize) {
    let special = |byte: &u8| matches!(byte, b'\\' | b'|');
    let extra = out[start..].iter().filter(|byte| special(byte)).count();
    if extra == 0 {
        return;
    }
    // From the end, so that every byte moves once.
    let mut read = out.len();
    out.resize(read + extra, 0);
    let mut write = out.len();
    while write > read {
        read -= 1;
        write -= 1;
        out[write] = out[read];
        if special(&out[write]) {
            write -= 1;
            out[write] = b'\\';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, StringArray, TimestampMillisecondArray};
    use proptest::prelude::*;
    use std::{collections::HashMap, sync::Arc};

    fn ids(rows: &[(Option<&str>, Option<&str>)]) -> Vec<String> {
        let (a, b): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        let columns: [(&str, Arc<dyn Array>); 2] = [("a", Arc::new(StringArray::from(a))), ("b", Arc::new(StringArray::from(b)))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let ids = Ids::new(&[0, 1], &batch).unwrap();
        let id = |row| {
            let mut out = Vec::new();
            ids.write(row, &mut out);
            String::from_utf8(out).unwrap()
        };
        (0..rows.len()).map(id).collect()
    }

    #[test]
    fn separators_in_texts_are_escaped() {
        let rows = [(Some("a"), Some("b")), (Some("a|b"), Some("")), (Some(""), Some("\\|")), (None, Some("\\N"))];
        assert_eq!(ids(&rows), ["a|b", "a\\|b|", "|\\\\\\|", "\\N|\\\\N"]);
    }

    #[test]
    fn numbers_and_times_stand_as_in_the_document() {
        let columns: [(&str, Arc<dyn Array>); 2] =
            [("n", Arc::new(Int64Array::from(vec![-7]))), ("t", Arc::new(TimestampMillisecondArray::from(vec![1_767_323_045_006])))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut out = Vec::new();
        Ids::new(&[0, 1], &batch).unwrap().write(0, &mut out);
        assert_eq!(out, b"-7|2026-01-02T03:04:05.006Z");
        assert!(check(&DataType::Float64).is_err() && check(&DataType::Binary).is_err() && check(&DataType::Date32).is_ok());
    }

    proptest! {
        #[test]
        fn different_keys_have_different_ids(rows in proptest::collection::vec((proptest::option::of("[ab|\\\\N]{0,4}"), proptest::option::of("[ab|\\\\N]{0,4}")), 2..40)) {
            let rows: Vec<_> = rows.iter().map(|(a, b)| (a.as_deref(), b.as_deref())).collect();
            let mut seen = HashMap::new();
            for (row, id) in rows.iter().zip(ids(&rows)) {
                prop_assert_eq!(*seen.entry(id).or_insert(*row), *row);
            }
        }
    }
}
