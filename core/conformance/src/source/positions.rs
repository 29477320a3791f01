//! Positions: what is read from one is exactly what was not read before it, by another reader, by the same one after it gave its splits back, and around a pause.

use super::{Enough, FEW, Positions, Read, SAMPLE, SourceCase, WAIT};
use crate::{
    check::{Outcome, Stop, is_unsupported},
    rows::difference,
};
use standpipe_sdk::hosting::{Polled, SplitPosition};
use std::collections::BTreeMap;

impl SourceCase {
    /// The first rows, to compare others with.
    fn sample(&self) -> Result<Read, Stop> {
        let (mut reader, splits) = self.reading(&Positions::new())?;
        let read = self.read(&mut reader, splits.len(), &Enough::Rows(SAMPLE))?;
        match read.steps.iter().any(|step| !step.rows.is_empty()) {
            true => Ok(read),
            false => Err(Stop::skip("the source has given no rows")),
        }
    }

    fn replayable(&self) -> Result<(), Stop> {
        match self.declared.details.capabilities.replayable {
            true => Ok(()),
            false => Err(Stop::skip("the source does not declare `replayable`")),
        }
    }

    /// Reads what is left of each split and compares. `whole`: the rows are all that there are.
    fn compare(&self, what: &str, expected: &BTreeMap<&str, Vec<String>>, found: &Read, whole: bool) -> Result<(), Stop> {
        let found = found.rest(0);
        for (split, expected) in expected {
            let none = Vec::new();
            let rows = found.get(split).unwrap_or(&none);
            let rows = if whole { rows.as_slice() } else { &rows[..rows.len().min(expected.len())] };
            if let Some(difference) = difference(expected, rows) {
                return Err(Stop::fail(format!("{what}: of the split {split:?} {difference}")));
            }
        }
        match found.iter().find(|(split, rows)| whole && !rows.is_empty() && !expected.contains_key(*split)) {
            Some((split, _)) => Err(Stop::fail(format!("{what}: the split {split:?} gave rows that it had given before"))),
            None => Ok(()),
        }
    }
}

fn counts(rows: &BTreeMap<&str, Vec<String>>) -> Enough {
    Enough::OfEach(rows.iter().map(|(split, rows)| ((*split).to_owned(), rows.len())).collect())
}

pub(super) fn positions(case: &SourceCase) -> Outcome {
    case.replayable()?;
    let sample = case.sample()?;
    let capabilities = case.declared.details.capabilities;
    let last = sample.steps.len();
    let from_the_beginning = (capabilities.bounded || capabilities.rewinds).then_some(0);
    let mut cuts: Vec<usize> = from_the_beginning.into_iter().chain([1, last / 3, last / 2, last.saturating_sub(1), last]).collect();
    cuts.dedup();
    for cut in &cuts {
        let (mut expected, positions) = (sample.rest(*cut), sample.positions(*cut));
        let what = match cut {
            0 => "from the beginning, again".to_owned(),
            _ => format!("from the positions after {cut} batches"),
        };
        let mut splits = case.splits(&positions)?;
        // Without a position a split may begin elsewhere, unless it says that it does not.
        if from_the_beginning.is_none() {
            splits.retain(|split| split.position.is_some());
            expected.retain(|split, _| positions.contains_key(*split));
        }
        let mut reader = case.reader(&case.watch())?;
        reader.assign(&splits).map_err(|error| Stop::from(error).during(&what))?;
        let whole = sample.ended.len() >= splits.len() && capabilities.bounded;
        let enough = if whole { Enough::Rows(usize::MAX) } else { counts(&expected) };
        let found = case.read(&mut reader, splits.len(), &enough).map_err(|stop| stop.during(&what))?;
        case.compare(&what, &expected, &found, whole)?;
    }
    Ok(format!("{} rows; read on from {} positions, the rest was exactly the rest", sample.rows(), cuts.len()))
}

pub(super) fn unassign(case: &SourceCase) -> Outcome {
    case.replayable()?;
    let sample = case.sample()?;
    let (mut reader, splits) = case.reading(&Positions::new())?;
    let before = case.read(&mut reader, splits.len(), &Enough::Steps(sample.steps.len() / 2))?;
    let open: Vec<SplitPosition> = splits.into_iter().filter(|split| !before.ended.contains(&split.split)).collect();
    let names: Vec<String> = open.iter().map(|split| split.split.clone()).collect();
    if names.is_empty() {
        return Err(Stop::skip("every split has ended before it could be given back"));
    }
    let positions = match reader.unassign(&names) {
        Err(error) if is_unsupported(&error) => return Err(Stop::skip("the source cannot give splits back, and says so")),
        positions => positions.map_err(|error| Stop::from(error).during("unassign"))?,
    };
    for _ in 0..5 {
        if let Polled::Batch { split, batch, .. } = case.poll(&mut reader, FEW, WAIT)? {
            return Err(Stop::fail(format!("gave {} rows of the split {split:?} after it had given it back", batch.num_rows())));
        }
    }
    let given =
        |(split, position): (SplitPosition, Vec<u8>)| SplitPosition { position: (!position.is_empty()).then_some(position), ..split };
    let again: Vec<SplitPosition> = open.into_iter().zip(positions).map(given).collect();
    reader.assign(&again).map_err(|error| Stop::from(error).during("assign of what was given back"))?;
    let read =
        |read: &Read| -> BTreeMap<String, usize> { read.rest(0).into_iter().map(|(split, rows)| (split.to_owned(), rows.len())).collect() };
    let had = read(&before);
    let mut expected = sample.rest(0);
    for (split, rows) in &mut expected {
        let had = had.get(*split).copied().unwrap_or(0).min(rows.len());
        rows.drain(..had);
    }
    expected.retain(|split, _| names.iter().any(|name| name == split));
    let found = case.read(&mut reader, again.len(), &counts(&expected))?;
    case.compare("after splits were given back and taken again", &expected, &found, false)?;
    Ok(format!("{} splits were given back after {} rows and taken again", names.len(), before.rows()))
}

pub(super) fn pause(case: &SourceCase) -> Outcome {
    let sample = case.sample()?;
    let (mut reader, splits) = case.reading(&Positions::new())?;
    let mut before = case.read(&mut reader, splits.len(), &Enough::Steps(sample.steps.len() / 2))?;
    let open: Vec<String> = splits.iter().map(|split| split.split.clone()).filter(|split| !before.ended.contains(split)).collect();
    // Where all are paused a reader is not polled: one goes on, if there are several.
    let paused = open[..open.len().saturating_sub(1).max(1).min(open.len())].to_vec();
    if paused.is_empty() {
        return Err(Stop::skip("every split has ended before it could be paused"));
    }
    match reader.pause(&paused) {
        Err(error) if is_unsupported(&error) => return Err(Stop::skip("the source cannot pause splits, and says so")),
        done => done.map_err(|error| Stop::from(error).during("pause"))?,
    }
    if paused.len() < open.len() {
        let during = case.read(&mut reader, 1, &Enough::Steps(6))?;
        if let Some(step) = during.steps.iter().find(|step| paused.contains(&step.split) && !step.rows.is_empty()) {
            return Err(Stop::fail(format!("gave {} rows of the split {:?}, which was paused", step.rows.len(), step.split)));
        }
        before.ended.extend(during.ended);
        before.steps.extend(during.steps);
    }
    reader.resume(&paused).map_err(|error| Stop::from(error).during("resume"))?;
    case.replayable()
        .map_err(|_| Stop::skip("a paused split gave no rows; whether it lost any cannot be told, for it is not `replayable`"))?;
    let expected = sample.rest(0);
    let had = before.rest(0);
    let wanted = expected.iter().map(|(split, rows)| ((*split).to_owned(), rows.len().saturating_sub(had.get(split).map_or(0, Vec::len))));
    let wanted = Enough::OfEach(wanted.collect());
    let left = splits.len() - before.ended.len();
    let after = if left > 0 { case.read(&mut reader, left, &wanted)? } else { Read::default() };
    before.steps.extend(after.steps);
    case.compare("around a pause", &expected, &before, false)?;
    Ok(format!("{} of {} splits were paused and went on, without a row lost or twice", paused.len(), open.len()))
}
