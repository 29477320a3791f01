//! Truth against documents.

use super::{
    documents::Found,
    truth::{LogRecord, Position, Truth, Window},
};
use std::{collections::BTreeMap, collections::HashSet, fmt::Debug};

/// Differences that are shown; more are counted.
const SHOWN: usize = 10;
/// The mean of n float32 values, summed in float64 in another order: n * 2^-53 relative to the sum of magnitudes, which are at most 1 here. Far above it, far below an error.
const MEAN_TOLERANCE: f64 = 1e-9;

/// One line for everything that is missing, too many or different.
pub(super) fn differences(truth: &Truth, found: &Found, log: &[LogRecord]) -> Vec<String> {
    let mut lines: Vec<String> = found.doubled.iter().map(|what| format!("there twice: {what}")).collect();
    let positions: HashSet<Position> = log.iter().map(|record| record.position).collect();
    lines.extend(found.late.difference(&positions).map(|position| format!("late signal at {position:?}: no such record in the log")));
    pairs("window (baseline, start)", &truth.windows, &found.windows, |truth, (found, mean)| same_window(truth, found, *mean), &mut lines);
    pairs("run that ends at (partition, offset)", &truth.runs, &found.runs, |truth, found| truth == found, &mut lines);
    pairs("flag of baseline", &truth.flags, &found.flags, |truth, found| truth == found, &mut lines);
    lines
}

/// Whether a window of the truth is the one of a document.
pub(super) fn same_window(truth: &Window, found: &Window, mean: f64) -> bool {
    (truth.count, truth.flags) == (found.count, found.flags)
        && (truth.min, truth.max) == (found.min, found.max)
        && (truth.sum / truth.count as f64 - mean).abs() <= MEAN_TOLERANCE
}

fn pairs<K: Ord + Debug, T: Debug, F: Debug>(
    what: &str,
    truth: &BTreeMap<K, T>,
    found: &BTreeMap<K, F>,
    same: impl Fn(&T, &F) -> bool,
    lines: &mut Vec<String>,
) {
    for (key, expected) in truth {
        match found.get(key) {
            None => lines.push(format!("{what} {key:?}: missing, should be {expected:?}")),
            Some(found) if !same(expected, found) => lines.push(format!("{what} {key:?}: {found:?}, should be {expected:?}")),
            Some(_) => {}
        }
    }
    lines.extend(
        found
            .iter()
            .filter(|(key, _)| !truth.contains_key(key))
            .map(|(key, found)| format!("{what} {key:?}: {found:?}, should not be there")),
    );
}

/// The error message.
pub(super) fn report(differences: &[String]) -> String {
    let mut text = format!("{} documents are not what the Kafka log says", differences.len());
    for line in differences.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if differences.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", differences.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::truth::Run;

    fn window() -> Window {
        Window { count: 4, sum: 2.0, min: -1.0, max: 1.0, flags: 2 }
    }

    fn right() -> (Truth, Found) {
        let (run, flag) = (Run { baseline: 42, length: 3, end: 5 }, (1, 7));
        let truth = Truth { windows: [((42, 0), window())].into(), runs: [((0, 9), run)].into(), flags: [(42, flag)].into() };
        let found = Found {
            windows: [((42, 0), (window(), 0.5))].into(),
            runs: [((0, 9), run)].into(),
            flags: [(42, flag)].into(),
            ..Found::default()
        };
        (truth, found)
    }

    #[test]
    fn equal_is_equal() {
        let (truth, found) = right();
        assert_eq!(differences(&truth, &found, &[]), [""; 0]);
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let spoil: [fn(&mut Found); 8] = [
            |found| found.windows.clear(),
            |found| found.windows.extend([((42, 0), (window(), 0.5001))]),
            |found| found.windows.extend([((42, 0), (Window { flags: 3, ..window() }, 0.5))]),
            |found| found.windows.extend([((22, 0), (window(), 0.5))]),
            |found| found.runs.extend([((0, 9), Run { baseline: 42, length: 4, end: 5 })]),
            |found| found.flags.extend([(42, (0, 7))]),
            |found| found.doubled.push("flag".to_owned()),
            |found| found.late.extend([(3, 3)]),
        ];
        for change in spoil {
            let (truth, mut found) = right();
            change(&mut found);
            assert_eq!(differences(&truth, &found, &[]).len(), 1, "{found:?}");
        }
    }
}
