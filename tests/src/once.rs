//! Whether a million rows have come out as they went in: every one once, whatever their order, and each in one window.

use crate::Row;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// How often each of the numbers from 0 has been seen.
pub struct Seen(Vec<u8>);

impl Seen {
    /// None of so many.
    #[must_use]
    pub fn none_of(rows: i64) -> Self {
        Self(vec![0; usize::try_from(rows).expect("a number of rows")])
    }

    /// Adds the rows of a file of JSON lines `{"n":7}`, without other columns.
    ///
    /// # Panics
    /// When a line is something else, or its number too great.
    #[must_use]
    pub fn and_file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        BufReader::with_capacity(1 << 20, file).split(b'\n').for_each(|line| self.add(&line.expect("a line")));
        self
    }

    /// Adds the rows of a text of such lines.
    ///
    /// # Panics
    /// As [`Self::and_file`] does.
    #[must_use]
    pub fn and_text(mut self, text: &[u8]) -> Self {
        text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| self.add(line));
        self
    }

    fn add(&mut self, line: &[u8]) {
        let number = line.strip_prefix(b"{\"n\":").and_then(|rest| rest.strip_suffix(b"}"));
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let Some(times) = number.and_then(|number| self.0.get_mut(number)) else {
            panic!("not one of the rows: {}", String::from_utf8_lossy(line))
        };
        *times = times.saturating_add(1);
    }

    /// Fails, with the first of those that are missing or too many, unless each was seen once.
    ///
    /// # Panics
    /// See above.
    #[track_caller]
    pub fn assert_once(&self, what: &str) {
        let (missing, twice) = (self.0.iter().filter(|times| **times == 0).count(), self.0.iter().filter(|times| **times > 1).count());
        let wrong: Vec<_> = self.0.iter().enumerate().filter(|(_, times)| **times != 1).take(5).collect();
        let of = self.0.len();
        assert!(wrong.is_empty(), "{what}: {missing} of {of} rows are missing, {twice} came again (number, times): {wrong:?}, ...");
    }
}

/// Fails unless the rows `{k, window_start, n, s}` are windows that hold each of the numbers `0..rows` once: each window came once, `n` counts and `s` sums.
///
/// # Panics
/// See above.
#[track_caller]
pub fn assert_windows(windows: &[Row], rows: i64) {
    let names: BTreeSet<_> = windows.iter().map(|row| (row["k"].as_i64(), row["window_start"].to_string())).collect();
    assert_eq!(names.len(), windows.len(), "a window came twice");
    let sum = |column: &str| windows.iter().map(|row| row[column].as_i64().expect("a whole number")).sum::<i64>();
    assert_eq!((sum("n"), sum("s")), (rows, rows * (rows - 1) / 2), "count and sum of {} windows", windows.len());
}

/// Count and sum of `n` by `k`; a row without a column of that name counts as one.
fn sums(rows: &[Row], count: &str, sum: &str) -> BTreeMap<i64, (i64, i64)> {
    let mut sums: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for row in rows {
        let value = |name: &str| row.get(name).map_or(1, |value| value.as_i64().expect("a whole number"));
        let total = sums.entry(value("k")).or_default();
        *total = (total.0 + value(count), total.1 + value(sum));
    }
    sums
}

/// Windows and totals by `k`, of which there are ten, each with the columns `n` (rows) and `s` (their sum), are those of the rows `n`, `k`; no window came twice.
///
/// # Panics
/// Else.
pub fn assert_counted(all: &[Row], windows: &[Row], totals: &[Row]) {
    let expected = sums(all, "one", "n");
    let starts: BTreeSet<_> = windows.iter().map(|row| (row["k"].as_i64(), row["window_start"].to_string())).collect();
    assert_eq!(starts.len(), windows.len(), "a window came twice");
    assert_eq!(sums(windows, "n", "s"), expected);
    assert_eq!((totals.len(), sums(totals, "n", "s")), (10, expected));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once_in_any_order() {
        Seen::none_of(3).and_text(b"{\"n\":2}\n{\"n\":0}\n").and_text(b"{\"n\":1}\n").assert_once("rows");
    }

    #[test]
    #[should_panic(expected = "1 of 3 rows are missing, 1 came again (number, times): [(0, 2), (1, 0)]")]
    fn what_is_missing_and_what_came_twice_is_told() {
        Seen::none_of(3).and_text(b"{\"n\":0}\n{\"n\":2}\n{\"n\":0}\n").assert_once("rows");
    }

    #[test]
    #[should_panic(expected = "not one of the rows: {\"n\":3}")]
    fn a_row_that_was_never_written_is_told() {
        let _ = Seen::none_of(3).and_text(b"{\"n\":3}\n");
    }
}
