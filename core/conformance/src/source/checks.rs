//! The checks of a source that are not about positions.

use super::{Enough, FEW, LONG, Positions, SourceCase, WAIT};
use crate::{
    CANCELLATION, LIVES, UNTIL_CANCELLED,
    check::{Outcome, Stop, refused_or_taken, seconds},
    configuration as config,
    process::{grows, left_behind, threads as thread_ids},
};
use standpipe_sdk::{
    CloseReason,
    hosting::{Polled, SplitPosition},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Bytes that are no position, no snapshot and no name of anything.
const NONSENSE: [&[u8]; 4] = [b"\xff\xfe\x00no position", b"-1", b"{\"of\": [\"another\"", b"99999999999999999999999999"];

pub(super) fn configuration(case: &SourceCase) -> Outcome {
    let problems = |bytes: &[u8]| case.kind.validate_bytes(bytes, &[], None).map(|details| details.problems);
    let said = config::wrong_ones(&case.settings.config, case.kind.config_schema(), true, &problems)?;
    let config = case.settings.config.to_string();
    let later = br#"{"node": "node", "inputs": [], "keyed": false, "later": {"than": "this version"}}"#;
    let answer = case
        .kind
        .validate_bytes(config.as_bytes(), &[], Some(later))
        .map_err(|error| Stop::from(error).during("unknown members of the question"))?;
    match answer.problems.as_slice() {
        [] => Ok(said),
        problems => Err(Stop::fail(format!("does not pass over what a later host tells besides: {}", config::line(problems)))),
    }
}

/// One instance, used as little as can be.
fn live(case: &SourceCase) -> Result<(), Stop> {
    let splits = case.splits(&Positions::new())?;
    let mut reader = case.reader(&case.watch())?;
    reader.assign(&splits).map_err(|error| Stop::from(error).during("assign"))?;
    case.poll(&mut reader, FEW, WAIT)?;
    reader.close(CloseReason::Stopped).map_err(|error| Stop::from(error).during("close"))
}

pub(super) fn lifecycle(case: &SourceCase) -> Outcome {
    // Never opened; closed without having been opened.
    drop(case.created(&case.watch())?);
    let mut unopened = case.created(&case.watch())?;
    refused_or_taken("close of a reader that is not open", unopened.close(CloseReason::Failed))?;
    drop(unopened);
    // Opened, not closed: as when the job fails.
    drop(case.reader(&case.watch())?);
    drop(case.enumerator(&case.watch())?);
    for reason in [CloseReason::Finished, CloseReason::Stopped, CloseReason::Failed] {
        let mut reader = case.reader(&case.watch())?;
        reader.close(reason).map_err(|error| Stop::from(error).during("close without splits"))?;
        refused_or_taken("close for the second time", reader.close(reason))?;
    }
    // Two at a time, as two subtasks are.
    let (one, other) = (case.reader(&case.watch())?, case.reader(&case.watch())?);
    drop(one);
    drop(other);
    match live(case) {
        Err(Stop::Skip(_)) | Ok(()) => Ok("made, opened, closed, closed twice and destroyed, in seven orders".to_owned()),
        Err(fail) => Err(fail),
    }
}

pub(super) fn threads(case: &SourceCase) -> Outcome {
    // What a library starts once for all instances is no leak.
    live(case)?;
    thread::sleep(Duration::from_millis(50));
    let before = thread_ids()?;
    for _ in 0..LIVES {
        live(case)?;
    }
    match left_behind(&before, 0, case.settings.deadline)? {
        left if left >= LIVES => Err(Stop::fail(format!(
            "{left} threads are left behind by {LIVES} instances, {} after the last was destroyed",
            seconds(case.settings.deadline)
        ))),
        _ => Ok(format!("{LIVES} instances left no thread behind")),
    }
}

pub(super) fn enumerator(case: &SourceCase) -> Outcome {
    let mut first = case.enumerator(&case.watch())?;
    let (found, exhausted) = case.found(&mut first)?;
    let snapshot = first.snapshot().map_err(|error| Stop::from(error).during("snapshot of the enumerator"))?;
    first.close(CloseReason::Stopped).map_err(|error| Stop::from(error).during("close of the enumerator"))?;
    let names = |found: &BTreeMap<String, _>| found.keys().cloned().collect::<BTreeSet<String>>();
    let mut second = case.enumerator(&case.watch())?;
    let (again, _) = case.found(&mut second)?;
    if names(&again) != names(&found) {
        return Err(Stop::fail(format!("a second enumerator found other splits: {:?} instead of {:?}", names(&again), names(&found))));
    }
    let mut third = case.kind.enumerator(&case.settings.config, &case.settings.context(2), case.watch())?;
    third.open().map_err(|error| Stop::from(error).during("open of the enumerator after a restart"))?;
    if !snapshot.is_empty() {
        third.restore(&snapshot).map_err(|error| Stop::from(error).during("restore of the enumerator's own snapshot"))?;
    }
    let later = third.discover(WAIT).map_err(|error| Stop::from(error).during("discover after a restore"))?;
    if let Some(new) = later.added.iter().find(|split| !found.contains_key(&split.split)) {
        return Err(Stop::fail(format!("after a restore it found the split {:?}, which was not there before", new.split)));
    }
    if let Some(gone) = later.removed.iter().find(|split| found.contains_key(*split)) {
        return Err(Stop::fail(format!("after a restore it says that the split {gone:?} is gone, which was there before")));
    }
    let more = if exhausted { ", and there will be no more" } else { "" };
    Ok(format!("{} splits, the same in two runs and after a restore of {} bytes{more}", found.len(), snapshot.len()))
}

pub(super) fn schema(case: &SourceCase) -> Outcome {
    let fields = case.declared.schema.fields();
    if fields.is_empty() {
        return Err(Stop::fail("declares no columns"));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
        return Err(Stop::fail(format!("declares the column {:?} twice", twice.name())));
    }
    let (mut reader, splits) = case.reading(&Positions::new())?;
    let read = case.read(&mut reader, splits.len(), &Enough::Rows(2000))?;
    if read.rows() == 0 {
        return Err(Stop::skip("the source has given no rows"));
    }
    Ok(format!("{} rows in {} batches: {} columns as declared, all valid", read.rows(), read.steps.len(), fields.len()))
}

pub(super) fn limits(case: &SourceCase) -> Outcome {
    let mut polls = 0;
    for rows in [1, 3, 64] {
        let (mut reader, splits) = case.reading(&Positions::new())?;
        let mut ended = 0;
        for _ in 0..20 {
            match case.poll(&mut reader, rows, WAIT)? {
                Polled::Batch { batch, .. } if batch.num_rows() > rows as usize => {
                    return Err(Stop::fail(format!("a poll for at most {rows} rows gave {}", batch.num_rows())));
                }
                Polled::Batch { split, .. } if !splits.iter().any(|known| known.split == split) => {
                    return Err(Stop::fail(format!("gave rows of the split {split:?}, which it was not assigned")));
                }
                Polled::EndOfSplit(_) => ended += 1,
                _ => {}
            }
            polls += 1;
            if ended >= splits.len() {
                break;
            }
        }
    }
    Ok(format!("{polls} polls of 1, 3 and 64 rows"))
}

/// A reader that waits: it has no splits, or has read all that they have.
fn waiting(case: &SourceCase) -> Result<standpipe_sdk::hosting::SourceReader, Stop> {
    let (mut reader, splits) = match case.reading(&Positions::new()) {
        Err(Stop::Skip(_)) => return case.reader(&case.watch()),
        other => other?,
    };
    let read = case.read(&mut reader, splits.len(), &Enough::Rows(usize::MAX))?;
    match read.quiet || read.ended.len() >= splits.len() {
        true => Ok(reader),
        // It has rows at all times: one that was given no split has none.
        false => case.reader(&case.watch()),
    }
}

pub(super) fn poll_deadline(case: &SourceCase) -> Outcome {
    let mut reader = waiting(case)?;
    let (wait, mut longest) = (Duration::from_millis(150), Duration::ZERO);
    for _ in 0..3 {
        let begun = Instant::now();
        let polled = case.poll(&mut reader, FEW, wait)?;
        let took = begun.elapsed();
        if took > wait + case.settings.deadline / 4 {
            return Err(Stop::fail(format!("a poll that was to wait for {} came back after {}", seconds(wait), seconds(took))));
        }
        if let Polled::Batch { .. } = polled {
            return Err(Stop::skip("the source always has rows"));
        }
        longest = longest.max(took);
    }
    Ok(format!("polls that were to wait for 150 ms took {} ms at most", longest.as_millis()))
}

pub(super) fn end(case: &SourceCase) -> Outcome {
    let bounded = case.declared.details.capabilities.bounded;
    let (mut reader, splits) = case.reading(&Positions::new())?;
    let (mut ended, begun, mut last, mut rows) = (BTreeSet::new(), Instant::now(), Instant::now(), 0);
    let patience = if bounded { case.settings.deadline } else { super::QUIET };
    while ended.len() < splits.len() {
        match case.poll(&mut reader, 4096, WAIT)? {
            Polled::Batch { split, batch, .. } if ended.contains(&split) => {
                return Err(Stop::fail(format!("gave {} rows of the split {split:?} after it had ended", batch.num_rows())));
            }
            Polled::Batch { batch, .. } => {
                rows += batch.num_rows();
                last = if batch.num_rows() > 0 { Instant::now() } else { last };
            }
            Polled::EndOfSplit(split) => {
                last = Instant::now();
                if !ended.insert(split.clone()) {
                    return Err(Stop::fail(format!("the split {split:?} has ended twice")));
                }
            }
            Polled::Idle => {}
        }
        if last.elapsed() > patience {
            return match bounded {
                true => Err(Stop::fail(format!("declares `bounded`, and gave neither rows nor an end for {}", seconds(patience)))),
                false => Ok(format!("not `bounded`: after {rows} rows it waits for more")),
            };
        }
        if begun.elapsed() > LONG {
            return match bounded {
                true => Err(Stop::skip(format!(
                    "{rows} rows in {}, and no end yet: a configuration with fewer rows can show it",
                    seconds(LONG)
                ))),
                false => Ok(format!("not `bounded`: {rows} rows, and no end")),
            };
        }
    }
    if !bounded {
        return Err(Stop::fail(format!("every split has ended after {rows} rows, and it does not declare `bounded`")));
    }
    for _ in 0..5 {
        match case.poll(&mut reader, FEW, WAIT)? {
            Polled::Idle => {}
            Polled::EndOfSplit(split) => return Err(Stop::fail(format!("the split {split:?} has ended twice"))),
            Polled::Batch { split, batch, .. } => {
                return Err(Stop::fail(format!("gave {} rows of the split {split:?} after it had ended", batch.num_rows())));
            }
        }
    }
    Ok(format!("{} splits ended once each, after {rows} rows", ended.len()))
}

pub(super) fn commits(case: &SourceCase) -> Outcome {
    let (mut reader, splits) = case.reading(&Positions::new())?;
    let mut told = Positions::new();
    for checkpoint in 1..=3 {
        let read = case.read(&mut reader, splits.len(), &Enough::Steps(2))?;
        told.extend(read.positions(usize::MAX));
        let positions: Vec<(String, Vec<u8>)> = told.clone().into_iter().collect();
        let taken = reader.checkpoint_committed(checkpoint, &positions);
        taken.map_err(|error| Stop::from(error).during("checkpoint_committed"))?;
    }
    // A stop commits what there is, also where nothing was read.
    reader.checkpoint_committed(4, &[]).map_err(|error| Stop::from(error).during("checkpoint_committed without positions"))?;
    reader.lag();
    Ok(format!("4 checkpoints with the positions of {} splits", told.len()))
}

pub(super) fn nonsense(case: &SourceCase) -> Outcome {
    let splits = case.splits(&Positions::new())?;
    for bytes in NONSENSE {
        let shown = String::from_utf8_lossy(bytes);
        let mut reader = case.reader(&case.watch())?;
        let odd: Vec<SplitPosition> =
            splits.iter().map(|split| SplitPosition { position: Some(bytes.to_vec()), ..split.clone() }).collect();
        let what = format!("the position {shown:?}");
        if refused_or_taken(&what, reader.assign(&odd))?.is_some() {
            refused_or_taken(&what, reader.poll(FEW, 1 << 20, WAIT))?;
        }
        let mut enumerator = case.enumerator(&case.watch())?;
        refused_or_taken(&format!("the enumerator's snapshot {shown:?}"), enumerator.restore(bytes))?;
    }
    let mut reader = case.reader(&case.watch())?;
    let nobody = ["no such split".to_owned()];
    refused_or_taken("unassign of a split that it has not got", reader.unassign(&nobody))?;
    refused_or_taken("pause of a split that it has not got", reader.pause(&nobody))?;
    refused_or_taken("resume of a split that it has not got", reader.resume(&nobody))?;
    let unknown = SplitPosition { split: nobody[0].clone(), details: "{".to_owned(), position: None };
    if refused_or_taken("assign of a split that there is not", reader.assign(&[unknown]))?.is_some() {
        refused_or_taken("poll of a split that there is not", reader.poll(FEW, 1 << 20, WAIT))?;
    }
    refused_or_taken("positions of a split that it has not got", reader.checkpoint_committed(9, &[(nobody[0].clone(), b"7".to_vec())]))?;
    Ok("positions, snapshots and splits that make no sense: errors or nothing, no panic".to_owned())
}

pub(super) fn cancellation(case: &SourceCase) -> Outcome {
    let splits = match case.splits(&Positions::new()) {
        Err(Stop::Skip(_)) => Vec::new(),
        splits => splits?,
    };
    let watch = case.watch();
    let (mut reader, mut enumerator) = (case.reader(&watch)?, case.enumerator(&watch)?);
    if !splits.is_empty() {
        reader.assign(&splits)?;
    }
    let later = Arc::clone(&watch);
    let cancels = thread::Builder::new().name(CANCELLATION.to_owned()).spawn(move || {
        thread::sleep(UNTIL_CANCELLED);
        later.cancel();
    });
    let begun = Instant::now();
    // Whatever it answers: it must not wait for what it was told.
    let mut polls = 0;
    while begun.elapsed() < UNTIL_CANCELLED {
        refused_or_taken("poll that is cancelled", reader.poll(4096, 1 << 20, Duration::from_secs(3600)))?;
        polls += 1;
    }
    drop(cancels.map(thread::JoinHandle::join));
    refused_or_taken("discover that is cancelled", enumerator.discover(Duration::from_secs(3600)))?;
    let took = begun.elapsed().saturating_sub(UNTIL_CANCELLED);
    if took > case.settings.deadline {
        return Err(Stop::fail(format!(
            "came back {} after it was cancelled, which is more than {}",
            seconds(took),
            seconds(case.settings.deadline)
        )));
    }
    refused_or_taken("close after it was cancelled", reader.close(CloseReason::Failed))?;
    Ok(format!("{polls} polls and a discover that were to wait for an hour came back {} ms after they were cancelled", took.as_millis()))
}

pub(super) fn leaks(case: &SourceCase) -> Outcome {
    let splits = case.splits(&Positions::new())?;
    let mut reading = None;
    grows(case.settings.endurance, || {
        let (reader, ended, idle) = match &mut reading {
            Some(reading) => reading,
            None => {
                let mut reader = case.reader(&case.watch())?;
                reader.assign(&splits)?;
                reading.insert((reader, 0, 0))
            }
        };
        match case.poll(reader, 64, WAIT)? {
            Polled::EndOfSplit(_) => *ended += 1,
            Polled::Idle => *idle += 1,
            Polled::Batch { .. } => *idle = 0,
        }
        // From the beginning, with another instance: those must not leak either.
        if *ended >= splits.len() || *idle > 3 {
            reading = None;
        }
        Ok(1)
    })
}
