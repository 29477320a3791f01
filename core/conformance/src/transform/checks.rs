//! The checks of a transform that do not compare runs.

use super::{TransformCase, same::nothing};
use crate::{
    CANCELLATION, LIVES, UNTIL_CANCELLED,
    check::{Outcome, Stop, refused_or_taken, seconds},
    configuration as config,
    data::{batch, nulls},
    process::{grows, left_behind, threads as thread_ids},
    rows::{fresh, references},
};
use standpipe_sdk::{
    CloseReason, TimeDomain,
    wire::{ChangeMode, TypeClass},
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub(super) fn configuration(case: &TransformCase) -> Outcome {
    let input = std::slice::from_ref(&case.input);
    let problems = |bytes: &[u8]| case.kind.validate_bytes(bytes, input, None).map(|details| details.problems);
    let said = config::wrong_ones(&case.settings.config, case.kind.config_schema(), true, &problems)?;
    let mut told = serde_json::json!({"node": "node", "keyed": case.is_keyed(), "later": {"than": "this version"}});
    told["inputs"] = serde_json::to_value([&case.input.details]).unwrap_or_default();
    told["inputs"][0]["later"] = true.into();
    let config = case.settings.config.to_string();
    let answer = case.kind.validate_bytes(config.as_bytes(), input, Some(told.to_string().as_bytes()));
    let answer = answer.map_err(|error| Stop::from(error).during("unknown members of the question"))?;
    if let [_, ..] = answer.problems.as_slice() {
        return Err(Stop::fail(format!("does not pass over what a later host tells besides: {}", config::line(&answer.problems))));
    }
    refused_or_taken("a question that is no JSON", case.kind.validate_bytes(config.as_bytes(), input, Some(b"\xff{")))?;
    // More inputs than it may take.
    let two = [case.input.clone(), case.input.clone()];
    refused_or_taken("two inputs", case.kind.validate("node", &case.settings.config, &two, case.is_keyed()))?;
    refused_or_taken("no input", case.kind.validate("node", &case.settings.config, &[], false))?;
    Ok(said)
}

/// One instance, used as little as can be.
fn live(case: &TransformCase) -> Result<(), Stop> {
    let mut running = case.open(1)?;
    running.process(&case.batches[0])?;
    running.watermark(0)?;
    running.end()?;
    running.instance.close(CloseReason::Finished).map_err(|error| Stop::from(error).during("close"))
}

pub(super) fn lifecycle(case: &TransformCase) -> Outcome {
    drop(case.created(&case.watch(), 1)?);
    let mut unopened = case.created(&case.watch(), 1)?;
    refused_or_taken("close of a transform that is not open", unopened.close(CloseReason::Failed))?;
    drop(unopened);
    drop(case.open(1)?);
    let mut given_up = case.open(1)?;
    given_up.process(&case.batches[0])?;
    drop(given_up);
    for reason in [CloseReason::Finished, CloseReason::Stopped, CloseReason::Failed] {
        let mut running = case.open(1)?;
        running.instance.close(reason).map_err(|error| Stop::from(error).during("close without rows"))?;
        refused_or_taken("close for the second time", running.instance.close(reason))?;
    }
    live(case)?;
    Ok("made, opened, closed, closed twice and destroyed, in eight orders".to_owned())
}

pub(super) fn threads(case: &TransformCase) -> Outcome {
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

pub(super) fn schema(case: &TransformCase) -> Outcome {
    let mut outputs = BTreeSet::new();
    for (details, schema) in &case.declared.outputs {
        if !outputs.insert(&details.name) {
            return Err(Stop::fail(format!("declares the output {:?} twice", details.name)));
        }
        let mut columns = BTreeSet::new();
        if let Some(twice) = schema.fields().iter().find(|field| !columns.insert(field.name())) {
            return Err(Stop::fail(format!("declares the column {:?} of the output {:?} twice", twice.name(), details.name)));
        }
        let has_kind = schema.fields().iter().any(|field| crate::data::is_row_kind(field));
        if details.mode != ChangeMode::Append && !has_kind {
            let mode = format!("{:?}", details.mode).to_lowercase();
            return Err(Stop::fail(format!("declares the output {:?} as {mode}, and no column of it says what a row does", details.name)));
        }
    }
    let mut running = case.open(1)?;
    for (at, batch) in case.batches.iter().enumerate() {
        running.process(batch)?;
        running.watermark(at)?;
    }
    running.end()?;
    Ok(format!("{} rows in {} batches of {} outputs: columns as declared, all valid", running.rows(), running.batches, outputs.len()))
}

pub(super) fn batches(case: &TransformCase) -> Outcome {
    let mut random = case.settings.random();
    let rows = case.batches[0].num_rows();
    let odd = [
        ("a batch without rows", Ok(case.batches[0].slice(0, 0))),
        ("rows cut out of a batch", Ok(case.batches[0].slice(rows / 2, rows - rows / 2))),
        ("another batch without rows", batch(&case.input.schema, 0, &mut random)),
        ("rows of nulls", nulls(&case.input.schema, 5, &mut random)),
        ("4096 rows", batch(&case.input.schema, 4096, &mut random)),
    ];
    let mut running = case.open(1)?;
    let mut taken = Vec::new();
    for (what, rows) in odd {
        let Ok(rows) = rows else { continue };
        running.process(&rows).map_err(|stop| stop.during(what))?;
        taken.push(what);
    }
    running.end()?;
    let with_classes = [(TypeClass::Dictionary, "dictionaries"), (TypeClass::Nested, "nested columns"), (TypeClass::View, "views")];
    let declared: Vec<&str> =
        with_classes.iter().filter(|(class, _)| case.declared.details.types.contains(class)).map(|(_, name)| *name).collect();
    let besides = if declared.is_empty() { String::new() } else { format!("; declares to take {} besides", declared.join(", ")) };
    Ok(format!("{} were taken{besides}", taken.join(", ")))
}

pub(super) fn timers(case: &TransformCase) -> Outcome {
    let declared = case.declared.details.timers;
    if !case.is_keyed() {
        return match declared {
            true => Err(Stop::skip("it declares timers, which only a key can have: none was given")),
            false => Err(Stop::skip("the transform has no key, so it has no timers")),
        };
    }
    let (mut running, mut most) = (case.open(1)?, 0);
    for (at, batch) in case.batches.iter().enumerate() {
        running.process(batch)?;
        let set = running.state.timers().len();
        if set > 0 && !declared {
            return Err(Stop::fail(format!("has set {set} timers, and does not declare `timers`")));
        }
        most = most.max(set);
        running.watermark(at)?;
    }
    running.end()?;
    // Those of the clock, once it has gone on far enough.
    running.fire(TimeDomain::ProcessingTime, i64::MAX)?;
    Ok(if declared { format!("{most} at a time at most, which fired in order") } else { "declares none, and sets none".to_owned() })
}

pub(super) fn nonsense(case: &TransformCase) -> Outcome {
    let odd: [&[u8]; 5] = [b"\xff\xfe\x00", b"{\"of\": [\"another\"", b"{}", b"-1", &[0; 4096]];
    for bytes in odd {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(20).collect();
        let mut running = case.open(2)?;
        let what = format!("restore of the snapshot {shown:?}");
        if refused_or_taken(&what, running.instance.restore(&[bytes, bytes]))?.is_some() {
            running.process(&case.batches[0]).map_err(|stop| stop.during(&format!("after {what}")))?;
        }
    }
    let mut running = case.open(1)?;
    for time in [i64::MIN, i64::MAX] {
        running.process(&case.batches[0])?;
        refused_or_taken(&format!("the watermark {time}"), running.instance.on_watermark(0, time))?;
    }
    refused_or_taken("an end before any row", case.open(1)?.instance.finish(0))?;
    Ok("snapshots and watermarks that make no sense: errors or nothing, no panic".to_owned())
}

pub(super) fn cancellation(case: &TransformCase) -> Outcome {
    let mut running = case.open(1)?;
    let later = Arc::clone(&running.watch);
    let cancels = thread::Builder::new().name(CANCELLATION.to_owned()).spawn(move || {
        thread::sleep(UNTIL_CANCELLED);
        later.cancel();
    });
    let (begun, mut calls) = (Instant::now(), 0_usize);
    while begun.elapsed() < UNTIL_CANCELLED && calls < 10_000 {
        running.process(&case.batches[calls % case.batches.len()])?;
        running.out.iter_mut().for_each(Vec::clear);
        running.state = nothing(&running);
        calls += 1;
    }
    drop(cancels.map(thread::JoinHandle::join));
    let begun = Instant::now();
    // It may still answer, or say that it was cancelled.
    if let Err(Stop::Fail { message, .. }) = running.process(&case.batches[0])
        && message.contains("panicked")
    {
        return Err(Stop::fail(format!("process that is cancelled: {message}")));
    }
    refused_or_taken("drain that is cancelled", running.instance.drain(Some(1)))?;
    refused_or_taken("close after it was cancelled", running.instance.close(CloseReason::Failed))?;
    drop(running);
    match begun.elapsed() {
        took if took > case.settings.deadline => Err(Stop::fail(format!(
            "came back {} after it was cancelled, which is more than {}",
            seconds(took),
            seconds(case.settings.deadline)
        ))),
        took => Ok(format!("process, drain, close and destroy took {} ms when cancelled", took.as_millis())),
    }
}

pub(super) fn release(case: &TransformCase) -> Outcome {
    let lent = fresh(&case.batches)?;
    let held = || lent.iter().map(references).sum::<usize>();
    let before = held();
    let mut running = case.open(1)?;
    for (at, batch) in lent.iter().enumerate() {
        running.process(batch)?;
        running.watermark(at)?;
    }
    drop(running);
    let end = Instant::now() + case.settings.deadline;
    while held() > before && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    match held().saturating_sub(before) {
        0 => Ok(format!("{} batches were lent, and all their buffers came back", lent.len())),
        left => Err(Stop::fail(format!(
            "{left} buffers of {} batches were not released {} after the transform was destroyed",
            lent.len(),
            seconds(case.settings.deadline)
        ))),
    }
}

pub(super) fn leaks(case: &TransformCase) -> Outcome {
    let mut running = case.open(1)?;
    let mut at = 0;
    grows(case.settings.endurance, || {
        // What is behind the keys is the host's memory, and the rows that come out are too.
        running.state = nothing(&running);
        running.out.iter_mut().for_each(Vec::clear);
        for _ in 0..8 {
            running.process(&case.batches[at % case.batches.len()])?;
            at += 1;
        }
        running.instance.snapshot().map_err(|error| Stop::from(error).during("snapshot"))?;
        Ok(8)
    })
}
