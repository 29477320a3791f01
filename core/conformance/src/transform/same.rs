//! The same rows out: for the same rows in, however they are cut into batches, and whatever snapshots were taken on the way.

use super::{Running, TransformCase};
use crate::{
    check::{Outcome, Stop, is_unsupported},
    rows::{difference, difference_unordered},
};
use arrow_array::RecordBatch;
use standpipe_sdk::{CloseReason, testing::MemoryState, wire::ChangeMode};

type Out = Vec<Vec<String>>;

impl TransformCase {
    /// Of the outputs the first that differs, and how. By key the order of rows of one batch is its own affair.
    fn differs(&self, expected: &Out, found: &Out, ordered: bool) -> Option<String> {
        let names = self.declared.outputs.iter().map(|(details, _)| details.name.as_str());
        names.zip(expected.iter().zip(found)).find_map(|(name, (expected, found))| {
            let difference = if ordered { difference(expected, found) } else { difference_unordered(expected, found) };
            difference.map(|difference| format!("of the output {name:?} {difference}"))
        })
    }

    /// What it gives without interruption, if that is the same twice.
    fn twice(&self) -> Result<Result<Out, String>, Stop> {
        let (one, other) = (self.whole_run()?, self.whole_run()?);
        Ok(match self.differs(&one, &other, true) {
            None => Ok(one),
            Some(difference) => Err(difference),
        })
    }

    /// What others are compared with. That it is not the same each time is for the check `deterministic` to tell.
    fn stable(&self) -> Result<Out, Stop> {
        self.twice()?.map_err(|_| Stop::skip("it gives other rows each time, so there is nothing to compare with"))
    }
}

fn rows(out: &Out) -> usize {
    out.iter().map(Vec::len).sum()
}

pub(super) fn deterministic(case: &TransformCase) -> Outcome {
    let declared = case.declared.details.capabilities.deterministic;
    match (case.twice()?, declared) {
        (Ok(out), true) => Ok(format!("{} rows, the same in two runs", rows(&out))),
        (Ok(_), false) => Err(Stop::skip("the transform does not declare `deterministic`; two runs gave the same")),
        (Err(difference), true) => {
            Err(Stop::fail(format!("declares `deterministic`, and gives other rows for the same rows: {difference}")))
        }
        (Err(_), false) => Err(Stop::skip("the transform does not declare `deterministic`")),
    }
}

pub(super) fn batch_sizes(case: &TransformCase) -> Outcome {
    if !case.declared.details.capabilities.deterministic {
        return Err(Stop::skip("the transform does not declare `deterministic`"));
    }
    if let Some((changes, _)) = case.declared.outputs.iter().find(|(output, _)| output.mode != ChangeMode::Append) {
        return Err(Stop::skip(format!("the output {:?} gives changes: how many depends on the batches", changes.name)));
    }
    let expected = case.stable()?;
    for (what, size) in [("one by one", 1), ("in threes", 3), ("with batches without rows between them", usize::MAX)] {
        let mut running = case.open(1)?;
        for (at, batch) in case.batches.iter().enumerate() {
            for piece in pieces(batch, size) {
                running.process(&piece).map_err(|stop| stop.during(&format!("rows {what}")))?;
            }
            running.watermark(at)?;
        }
        running.end()?;
        if let Some(difference) = case.differs(&expected, &running.out, !case.is_keyed()) {
            return Err(Stop::fail(format!("gives other rows where rows come {what}: {difference}")));
        }
    }
    Ok(format!("{} rows: in batches, in ones, in threes, with batches without rows", rows(&expected)))
}

fn pieces(batch: &RecordBatch, size: usize) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    match size {
        usize::MAX => vec![batch.slice(0, 0), batch.clone(), batch.slice(rows, 0)],
        size => (0..rows).step_by(size).map(|from| batch.slice(from, size.min(rows - from))).collect(),
    }
}

pub(super) fn snapshot(case: &TransformCase) -> Outcome {
    let expected = case.stable()?;
    let batches = case.batches.len();
    let mut cuts = vec![0, 1, batches / 2, batches];
    cuts.dedup();
    let mut bytes = 0;
    for cut in &cuts {
        for with_another in [false, true] {
            let (out, size) = interrupted(case, *cut, with_another)?;
            bytes = bytes.max(size);
            if let Some(difference) = case.differs(&expected, &out, true) {
                let parts = if with_another { " and that of a subtask without rows" } else { "" };
                return Err(Stop::fail(format!("restored from the snapshot after {cut} batches{parts} it gives other rows: {difference}")));
            }
        }
    }
    Ok(format!("{} rows, with or without a restart at {} places; snapshots of {bytes} bytes at most", rows(&expected), cuts.len()))
}

/// A run with a snapshot and a restart after so many batches.
fn interrupted(case: &TransformCase, cut: usize, with_another: bool) -> Result<(Out, usize), Stop> {
    let mut before = case.open(1)?;
    for (at, batch) in case.batches.iter().take(cut).enumerate() {
        before.process(batch)?;
        before.watermark(at)?;
    }
    match before.instance.drain(Some(1)) {
        Err(error) if is_unsupported(&error) => {}
        drained => drained.map_err(|error| Stop::from(error).during("drain"))?,
    }
    let snapshot = before.instance.snapshot().map_err(|error| Stop::from(error).during("snapshot"))?;
    // A snapshot does not change what it is of.
    let again = before.instance.snapshot().map_err(|error| Stop::from(error).during("snapshot for the second time"))?;
    let empty = case.open(1)?.instance.snapshot().map_err(|error| Stop::from(error).during("snapshot of a transform without rows"))?;
    before.instance.close(CloseReason::Failed).map_err(|error| Stop::from(error).during("close"))?;
    let Running { state, out, .. } = before;
    let mut after = case.open(2)?;
    // What is behind the keys is the host's, and so is what has come out.
    (after.state, after.out) = (state, out);
    let parts: Vec<&[u8]> = if with_another { vec![&empty, &again] } else { vec![&snapshot] };
    if parts.iter().any(|part| !part.is_empty()) {
        after.instance.restore(&parts).map_err(|error| Stop::from(error).during("restore of its own snapshot"))?;
    }
    for (at, batch) in case.batches.iter().enumerate().skip(cut) {
        after.process(batch)?;
        after.watermark(at)?;
    }
    after.end()?;
    Ok((after.out, snapshot.len()))
}

/// State that holds nothing.
pub(super) fn nothing(running: &Running) -> MemoryState {
    MemoryState::new(running.instance.states().to_vec())
}
