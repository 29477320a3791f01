//! What a restart may change of what is late. A job that is started again reads what came after its checkpoint anew, and other rows may be late then: one that is in the index of late
//! signals, since it was late before, may be in its window after all. Which ones are is seen by the window itself: it must be right with some of them.

use super::{
    compare::same_window,
    documents::Found,
    truth::{LogRecord, Position, Window, read},
};
use std::collections::{BTreeMap, HashSet};

/// Late signals of a window of which every selection is tried; of more, all or none are in it.
const MOST: usize = 12;

/// A window as far as it is known: without the late signals, and these with their places.
#[derive(Default)]
struct Doubtful {
    sure: Window,
    late: Vec<(Position, Window)>,
}

/// The late signals that are in no window.
///
/// # Errors
/// When a record of the log is not what the producer writes.
pub(super) fn late_at_last(log: &[LogRecord], found: &Found) -> Result<HashSet<Position>, String> {
    let mut late = found.late.clone();
    if late.is_empty() {
        return Ok(late);
    }
    let mut windows: BTreeMap<(i32, i64), Doubtful> = BTreeMap::new();
    for record in log {
        let reading = read(record)?;
        let window = windows.entry((reading.baseline, reading.window_start())).or_default();
        if late.contains(&record.position) {
            window.late.push((record.position, Window::of(&reading)));
        } else {
            window.sure.add(&Window::of(&reading));
        }
    }
    for (key, window) in windows.iter().filter(|(_, window)| !window.late.is_empty()) {
        let Some((document, mean)) = found.windows.get(key) else { continue };
        for position in in_it(window, document, *mean) {
            late.remove(&position);
        }
    }
    Ok(late)
}

/// Those of the late signals with which the window is right; none: it is wrong with any.
fn in_it(window: &Doubtful, document: &Window, mean: f64) -> Vec<Position> {
    let all = (1_u32 << window.late.len().min(MOST)) - 1;
    let is_in = |selection: u32, index: usize| if index < MOST { selection & (1 << index) != 0 } else { selection == all };
    for selection in 0..=all {
        let chosen = || window.late.iter().enumerate().filter(|(index, _)| is_in(selection, *index)).map(|(_, late)| late);
        let mut sum = window.sure.clone();
        chosen().for_each(|(_, one)| sum.add(one));
        if sum.count > 0 && same_window(&sum, document, mean) {
            return chosen().map(|(position, _)| *position).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::truth;

    /// Three records in the first window, then one a second.
    fn log() -> Vec<LogRecord> {
        let text = |second: i64| {
            format!(r#"{{"createTime":"2024-01-01 00:00:{second:02}","baselineId":42,"signalValue":{}}}"#, second as f32 / 8.0)
        };
        (0..3)
            .chain(15..60)
            .zip(0..)
            .map(|(second, offset)| LogRecord { position: (0, offset), value: text(second).into_bytes() })
            .collect()
    }

    fn found(late: &[i64], in_windows_all_the_same: &[i64]) -> Found {
        let left: HashSet<Position> =
            late.iter().filter(|offset| !in_windows_all_the_same.contains(offset)).map(|offset| (0, *offset)).collect();
        let truth = truth::compute(&log(), &left).unwrap();
        let windows = truth.windows.into_iter().map(|(key, window)| (key, (window.clone(), window.sum / window.count as f64)));
        Found { windows: windows.collect(), late: late.iter().map(|offset| (0, *offset)).collect(), ..Found::default() }
    }

    #[test]
    fn what_was_late_before_a_restart_and_is_in_its_window_is_not_late() {
        let left = |late: &[i64], inside: &[i64]| {
            let mut left: Vec<i64> = late_at_last(&log(), &found(late, inside)).unwrap().into_iter().map(|(_, offset)| offset).collect();
            left.sort_unstable();
            left
        };
        assert!(left(&[], &[]).is_empty());
        assert_eq!(left(&[1, 2], &[]), [1, 2]);
        assert_eq!(left(&[1, 2], &[2]), [1]);
        // A window of which all were late before.
        assert!(left(&[0, 1, 2], &[0, 1, 2]).is_empty());
    }

    #[test]
    fn a_window_that_is_wrong_either_way_stays_so() {
        let mut found = found(&[1], &[]);
        found.windows.values_mut().for_each(|(window, _)| window.count += 7);
        assert_eq!(late_at_last(&log(), &found).unwrap().len(), 1);
    }
}
