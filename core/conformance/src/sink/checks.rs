//! The checks of a sink that are not about transactions.

use super::{SinkCase, Writing, other_mode};
use crate::{
    CANCELLATION, LIVES, UNTIL_CANCELLED,
    check::{Outcome, Stop, refused_or_taken, seconds},
    configuration as config,
    data::{batch, nulls, records},
    process::{grows, left_behind, threads as thread_ids},
    rows::{fresh, references},
};
use arrow_array::RecordBatch;
use standpipe_sdk::{
    CloseReason, Written,
    wire::{ChangeMode, Encoding},
};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub(super) fn configuration(case: &SinkCase) -> Outcome {
    let input = std::slice::from_ref(&case.input);
    let problems = |bytes: &[u8]| case.kind.validate_bytes(bytes, input, None).map(|details| details.problems);
    let said = config::wrong_ones(&case.settings.config, case.kind.config_schema(), true, &problems)?;
    let mut told = serde_json::json!({"node": "node", "keyed": false, "later": {"than": "this version"}});
    told["inputs"] = serde_json::to_value([&case.input.details]).unwrap_or_default();
    told["inputs"][0]["later"] = true.into();
    let config = case.settings.config.to_string();
    let answer = case.kind.validate_bytes(config.as_bytes(), input, Some(told.to_string().as_bytes()));
    let answer = answer.map_err(|error| Stop::from(error).during("unknown members of the question"))?;
    if let [_, ..] = answer.problems.as_slice() {
        return Err(Stop::fail(format!("does not pass over what a later host tells besides: {}", config::line(&answer.problems))));
    }
    refused_or_taken("a question that is no JSON", case.kind.validate_bytes(config.as_bytes(), input, Some(b"\xff{")))?;
    Ok(said)
}

/// One instance, used as little as can be.
fn live(case: &SinkCase) -> Result<(), Stop> {
    let mut writing = case.open(1)?;
    writing.write(&case.batches[0])?;
    writing.deliver(1)?;
    writing.instance.close(CloseReason::Finished).map_err(|error| Stop::from(error).during("close"))
}

pub(super) fn lifecycle(case: &SinkCase) -> Outcome {
    drop(case.created(&case.watch(), 1)?);
    let mut unopened = case.created(&case.watch(), 1)?;
    refused_or_taken("close of a sink that is not open", unopened.close(CloseReason::Failed))?;
    drop(unopened);
    drop(case.open(1)?);
    // Written and given up: as when the job fails.
    let mut given_up = case.open(1)?;
    given_up.write(&case.batches[0])?;
    drop(given_up);
    for reason in [CloseReason::Finished, CloseReason::Stopped, CloseReason::Failed] {
        let mut writing = case.open(1)?;
        writing.instance.close(reason).map_err(|error| Stop::from(error).during("close without rows"))?;
        refused_or_taken("close for the second time", writing.instance.close(reason))?;
    }
    live(case)?;
    Ok("made, opened, closed, closed twice and destroyed, in eight orders".to_owned())
}

pub(super) fn threads(case: &SinkCase) -> Outcome {
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

pub(super) fn capabilities(case: &SinkCase) -> Outcome {
    let details = &case.declared.details;
    let can = details.capabilities;
    if can.needs_log && !can.transactional {
        return Err(Stop::fail("declares `needs_log` without `transactional`: what is to be committed lies in what it prepares"));
    }
    if can.bounded || can.replayable || can.rewinds {
        return Err(Stop::fail("declares what only a source can do: `bounded`, `replayable` or `rewinds`"));
    }
    let names = |field: &String| case.input.schema.field_with_name(field).is_ok();
    if let Some(unknown) = details.id.iter().find(|column| !names(column)) {
        return Err(Stop::fail(format!("tells rows apart by the column {unknown:?}, which the input has not got")));
    }
    if !details.id.is_empty() && !can.idempotent {
        return Err(Stop::fail("says by which columns it tells rows apart, and does not declare `idempotent`"));
    }
    if details.max_subtasks == Some(0) {
        return Err(Stop::fail("allows no subtask"));
    }
    if !can.transactional {
        let mut writing = case.open(1)?;
        writing.write(&case.batches[0])?;
        let prepared = refused_or_taken("prepare", writing.instance.prepare(1))?;
        if let Some(bytes) = prepared.filter(|bytes| !bytes.is_empty()) {
            return Err(Stop::fail(format!(
                "prepares {} bytes to be committed, and does not declare `transactional`: nobody would commit them",
                bytes.len()
            )));
        }
    }
    let declared =
        [("transactional", can.transactional), ("idempotent", can.idempotent), ("ordered", can.ordered), ("needs_log", can.needs_log)];
    let declared: Vec<&str> = declared.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    Ok(if declared.is_empty() { "declares none".to_owned() } else { format!("declares {}", declared.join(", ")) })
}

/// Whether it has acknowledged what it had not been given.
fn not_beyond(writing: &Writing<'_>) -> Result<(), Stop> {
    match writing.watch.beyond() {
        Some((acknowledged, given)) => Err(Stop::fail(format!("acknowledged batch {acknowledged} when it had been given {given}"))),
        None => Ok(()),
    }
}

pub(super) fn acknowledgements(case: &SinkCase) -> Outcome {
    let mut writing = case.open(1)?;
    for round in 1..=3 {
        writing.write_all()?;
        not_beyond(&writing)?;
        writing.deliver(round)?;
        not_beyond(&writing)?;
        let (acknowledged, written) = (writing.watch.acknowledged(), writing.seq);
        // What a transaction holds is delivered by its commit, whether the sink says so or not.
        if acknowledged < written && !case.is_transactional() {
            return Err(Stop::fail(format!("a flush came back when {acknowledged} of {written} batches had been acknowledged")));
        }
    }
    writing.instance.close(CloseReason::Finished).map_err(|error| Stop::from(error).during("close"))?;
    not_beyond(&writing)?;
    let how = if case.is_transactional() { "committed" } else { "acknowledged after a flush" };
    Ok(format!("{} batches, all {how}, none before it was written", writing.seq))
}

pub(super) fn batches(case: &SinkCase) -> Outcome {
    let mut random = case.settings.random();
    let is_records = case.declared.details.encoding == Encoding::Records;
    let encoded = |rows: RecordBatch| if is_records { records(&case.schema, &rows) } else { Ok(rows) };
    let long = batch(&case.input.schema, 4096, &mut random);
    let mut odd: Vec<(&str, Result<RecordBatch, Stop>)> = vec![
        ("a batch without rows", Ok(case.batches[0].slice(0, 0))),
        ("rows cut out of a batch", Ok(case.batches[0].slice(case.batches[0].num_rows() / 2, 1))),
        ("another batch without rows", batch(&case.input.schema, 0, &mut random).and_then(encoded)),
        ("rows of nulls", nulls(&case.input.schema, 5, &mut random).and_then(encoded)),
        ("4096 rows", long.and_then(encoded)),
    ];
    if is_records {
        // A record that is null takes back what its key had.
        odd.push(("records that are null", nulls(&case.schema, 3, &mut random)));
    }
    let mut writing = case.open(1)?;
    let mut written = Vec::new();
    for (what, rows) in odd {
        let Ok(rows) = rows else { continue };
        writing.write(&rows).map_err(|stop| stop.during(what))?;
        written.push(what);
    }
    writing.deliver(1).map_err(|stop| stop.during("after batches without rows, of nulls, and cut out of others"))?;
    Ok(format!("{} were taken", written.join(", ")))
}

pub(super) fn change_modes(case: &SinkCase) -> Outcome {
    let accepts = match case.declared.details.accepts.as_slice() {
        [] => vec![ChangeMode::Append],
        accepts => accepts.to_vec(),
    };
    for mode in &accepts {
        let word = format!("a stream of the mode {mode:?}").to_lowercase();
        let other = match other_mode(case, *mode) {
            // With this configuration, or this input, it may not.
            Err(_) if *mode != case.settings.mode => continue,
            other => other.map_err(|error| Stop::from(error).during(&word))?,
        };
        let mut writing = other.open(1).map_err(|stop| stop.during(&word))?;
        writing.write_all().map_err(|stop| stop.during(&word))?;
        writing.deliver(1).map_err(|stop| stop.during(&word))?;
    }
    if !accepts.contains(&case.settings.mode) {
        return Err(Stop::skip(format!("it takes {accepts:?}, and not the input's mode")));
    }
    Ok(format!("takes {}", accepts.iter().map(|mode| format!("{mode:?}").to_lowercase()).collect::<Vec<_>>().join(", ")))
}

pub(super) fn busy(case: &SinkCase) -> Outcome {
    let (mut writing, mut busy, begun) = (case.open(1)?, 0_u64, Instant::now());
    let mut seq = 0;
    // As fast as it can be, without a flush: until it is busy, or has had enough chances.
    'batches: for at in 0..2000 {
        if begun.elapsed() > case.settings.deadline {
            break;
        }
        seq += 1;
        writing.watch.give(seq);
        loop {
            let wakes = writing.watch.wakes();
            match writing.instance.write(seq, &case.batches[at % case.batches.len()])? {
                Written::Taken => break,
                Written::Busy if busy >= 8 => break 'batches,
                Written::Busy => busy += 1,
            }
            if !writing.watch.woken(wakes, case.settings.deadline) {
                return Err(Stop::fail(format!(
                    "was busy with batch {seq}, and has not called `wake` for {}",
                    seconds(case.settings.deadline)
                )));
            }
        }
    }
    match busy {
        0 => Ok(format!("{seq} batches without a flush in between, and it never was busy")),
        _ => Ok(format!("was busy {busy} times in {seq} batches, and called `wake` each time")),
    }
}

pub(super) fn replay(case: &SinkCase) -> Outcome {
    if !case.declared.details.capabilities.idempotent {
        return Err(Stop::skip("the sink does not declare `idempotent`"));
    }
    let mut first = case.open(1)?;
    first.write_all()?;
    first.deliver(1)?;
    drop(first);
    // The job was started again from before: the same rows, with numbers from 1.
    let mut second = case.open(2)?;
    second.write_all().map_err(|stop| stop.during("the same rows again, after a restart"))?;
    second.deliver(1).map_err(|stop| stop.during("the same rows again, after a restart"))?;
    let (acknowledged, written) = (second.watch.acknowledged(), second.seq);
    if acknowledged < written && !case.is_transactional() {
        return Err(Stop::fail(format!("of rows that it had been given before it acknowledged {acknowledged} of {written} batches")));
    }
    Ok(format!("{written} batches were taken again; whether each row is there once, only its target can tell"))
}

pub(super) fn finish(case: &SinkCase) -> Outcome {
    let mut writing = case.open(1)?;
    writing.write_all()?;
    if case.is_transactional() {
        writing.deliver(1)?;
    }
    writing.instance.finish().map_err(|error| Stop::from(error).during("finish"))?;
    let (acknowledged, written) = (writing.watch.acknowledged(), writing.seq);
    if acknowledged < written && !case.is_transactional() {
        return Err(Stop::fail(format!("finish came back when {acknowledged} of {written} batches had been acknowledged")));
    }
    writing.instance.close(CloseReason::Finished).map_err(|error| Stop::from(error).during("close after finish"))?;
    let mut empty = case.open(1)?;
    empty.instance.finish().map_err(|error| Stop::from(error).during("finish of an input without rows"))?;
    empty.instance.close(CloseReason::Finished).map_err(|error| Stop::from(error).during("close after finish"))?;
    Ok(format!("with {written} batches and without any"))
}

pub(super) fn cancellation(case: &SinkCase) -> Outcome {
    let mut writing = case.open(1)?;
    let later = Arc::clone(&writing.watch);
    let cancels = thread::Builder::new().name(CANCELLATION.to_owned()).spawn(move || {
        thread::sleep(UNTIL_CANCELLED);
        later.cancel();
    });
    let begun = Instant::now();
    while begun.elapsed() < UNTIL_CANCELLED {
        writing.watch.give(writing.seq + 1);
        if refused_or_taken("write", writing.instance.write(writing.seq + 1, &case.batches[0]))? == Some(Written::Taken) {
            writing.seq += 1;
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    drop(cancels.map(thread::JoinHandle::join));
    refused_or_taken("flush that is cancelled", writing.instance.flush(0))?;
    writing.watch.give(writing.seq + 1);
    refused_or_taken("write that is cancelled", writing.instance.write(writing.seq + 1, &case.batches[0]))?;
    refused_or_taken("close after it was cancelled", writing.instance.close(CloseReason::Failed))?;
    drop(writing);
    let took = begun.elapsed().saturating_sub(UNTIL_CANCELLED);
    if took > case.settings.deadline {
        return Err(Stop::fail(format!(
            "came back {} after it was cancelled, which is more than {}",
            seconds(took),
            seconds(case.settings.deadline)
        )));
    }
    Ok(format!("flush, write, close and destroy came back {} ms after they were cancelled", took.as_millis()))
}

pub(super) fn release(case: &SinkCase) -> Outcome {
    let lent = fresh(&case.batches)?;
    let held = || lent.iter().map(references).sum::<usize>();
    let before = held();
    let mut writing = case.open(1)?;
    lent.iter().try_for_each(|batch| writing.write(batch).map(drop))?;
    writing.deliver(1)?;
    // What it has not delivered when it is destroyed is let go of too.
    lent.iter().try_for_each(|batch| writing.write(batch).map(drop))?;
    let written = writing.seq;
    drop(writing);
    let end = Instant::now() + case.settings.deadline;
    while held() > before && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    match held().saturating_sub(before) {
        0 => Ok(format!("{written} batches were lent, and all their buffers came back")),
        left => Err(Stop::fail(format!(
            "{left} buffers of {written} batches were not released {} after the sink was destroyed",
            seconds(case.settings.deadline)
        ))),
    }
}

pub(super) fn leaks(case: &SinkCase) -> Outcome {
    let mut writing = case.open(1)?;
    let (mut at, mut checkpoint) = (0, 0);
    grows(case.settings.endurance, || {
        for _ in 0..16 {
            at = (at + 1) % case.batches.len();
            writing.write(&case.batches[at])?;
        }
        checkpoint += 1;
        writing.deliver(checkpoint)?;
        Ok(16)
    })
}
