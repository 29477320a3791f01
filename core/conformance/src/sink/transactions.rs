//! Transactions of a sink: prepared, committed, found again after a restart, given up.

use super::{SinkCase, Writing};
use crate::check::{Outcome, Stop, refused_or_taken};
use standpipe_sdk::{Committable, Recovered};

impl SinkCase {
    fn transactional(&self) -> Result<(), Stop> {
        match self.is_transactional() {
            true => Ok(()),
            false => Err(Stop::skip("the sink does not declare `transactional`")),
        }
    }
}

impl Writing<'_> {
    /// Writes, and prepares what was written.
    fn prepared(&mut self, checkpoint: u64) -> Result<Committable, Stop> {
        self.write_all()?;
        let bytes = self.instance.prepare(checkpoint).map_err(|error| Stop::from(error).during("prepare"))?;
        Ok(Committable { checkpoint, subtask: 0, bytes })
    }

    fn commit(&mut self, up_to: u64, prepared: &[Committable], what: &str) -> Result<(), Stop> {
        self.instance.commit(up_to, prepared).map_err(|error| Stop::from(error).during(what))
    }

    fn recover(&mut self, prepared: &[Committable], what: &str) -> Result<Vec<Recovered>, Stop> {
        self.instance.recover(prepared).map_err(|error| Stop::from(error).during(what))
    }
}

pub(super) fn commit(case: &SinkCase) -> Outcome {
    case.transactional()?;
    let mut writing = case.open(1)?;
    let first = writing.prepared(1)?;
    writing.commit(1, std::slice::from_ref(&first), "commit")?;
    // The answer was lost, or the process ended before it could note it.
    writing.commit(1, std::slice::from_ref(&first), "commit of what is committed")?;
    // Nothing was written since.
    let bytes = writing.instance.prepare(2).map_err(|error| Stop::from(error).during("prepare without rows"))?;
    let empty = Committable { checkpoint: 2, subtask: 0, bytes };
    // A commit covers every checkpoint up to its own: those between may have failed.
    let third = writing.prepared(3)?;
    let fourth = writing.prepared(4)?;
    let size = third.bytes.len();
    writing.commit(4, &[empty, third, fourth], "commit of three checkpoints at once")?;
    writing.instance.finish().map_err(|error| Stop::from(error).during("finish after the last commit"))?;
    Ok(format!("4 checkpoints of some {size} bytes, one without rows, one committed twice, three at once"))
}

pub(super) fn recover(case: &SinkCase) -> Outcome {
    case.transactional()?;
    let mut first = case.open(1)?;
    let committed = first.prepared(1)?;
    first.commit(1, std::slice::from_ref(&committed), "commit")?;
    let open = first.prepared(2)?;
    // The process ends here: prepared for a durable checkpoint, not committed.
    drop(first);
    let mut second = case.open(2)?;
    let both = [committed.clone(), open.clone()];
    let decisions = second.recover(&both, "recover")?;
    match decisions.as_slice() {
        // A file that grows has nothing left to do when it goes on where it was prepared.
        [Recovered::Committed, Recovered::Commit | Recovered::Committed] => {}
        [Recovered::Commit, _] => return Err(Stop::fail("says of what was committed that it must be committed")),
        [Recovered::Lost, _] | [_, Recovered::Lost] => return Err(Stop::fail("says that what it has prepared is lost")),
        other => return Err(Stop::fail(format!("says {other:?} of what was committed and of what was prepared"))),
    }
    let told = if decisions[1] == Recovered::Commit { "which commits the latter" } else { "to which both are there" };
    if decisions[1] == Recovered::Commit {
        second.commit(2, std::slice::from_ref(&open), "commit of what a former instance has prepared")?;
    }
    drop(second);
    let mut third = case.open(3)?;
    let decisions = third.recover(&both, "recover after both were committed")?;
    if decisions != [Recovered::Committed, Recovered::Committed] {
        return Err(Stop::fail(format!("says {decisions:?} after both were committed")));
    }
    let decisions = third.recover(&[], "recover of nothing")?;
    if !decisions.is_empty() {
        return Err(Stop::fail(format!("says {decisions:?} of nothing")));
    }
    third.write_all()?;
    third.deliver(5)?;
    Ok(format!("what was committed and what was prepared is found by another instance, {told}"))
}

pub(super) fn abort(case: &SinkCase) -> Outcome {
    case.transactional()?;
    if case.declared.details.capabilities.needs_log {
        return Err(Stop::skip("its rows lie in the checkpoint (`needs_log`): there is nothing to give up"));
    }
    let mut first = case.open(1)?;
    let kept = first.prepared(1)?;
    first.commit(1, std::slice::from_ref(&kept), "commit")?;
    let passed_over = first.prepared(2)?;
    drop(first);
    // The job goes on from checkpoint 1, for it was told to.
    let mut second = case.open(2)?;
    second.recover(std::slice::from_ref(&kept), "recover")?;
    let abort = |writing: &mut Writing<'_>, what: &str| {
        writing.instance.abort(std::slice::from_ref(&passed_over)).map_err(|error| Stop::from(error).during(what))
    };
    abort(&mut second, "abort")?;
    abort(&mut second, "abort for the second time")?;
    second.write_all()?;
    second.deliver(3).map_err(|stop| stop.during("after an abort"))?;
    drop(second);
    let mut third = case.open(3)?;
    third.recover(&[], "recover of nothing")?;
    abort(&mut third, "abort by another instance")?;
    Ok("what was prepared is given up, again, and by another instance; the next checkpoint is committed".to_owned())
}

pub(super) fn nonsense(case: &SinkCase) -> Outcome {
    let odd: [&[u8]; 4] = [b"\xff\xfe\x00", b"{\"of\": [\"another\"", b"{}", b"[1, 2, 3]"];
    for bytes in odd {
        let shown = String::from_utf8_lossy(bytes);
        let prepared = [Committable { checkpoint: 7, subtask: 3, bytes: bytes.to_vec() }];
        refused_or_taken(&format!("recover of {shown:?}"), case.open(1)?.instance.recover(&prepared))?;
        refused_or_taken(&format!("commit of {shown:?}"), case.open(1)?.instance.commit(7, &prepared))?;
        refused_or_taken(&format!("abort of {shown:?}"), case.open(1)?.instance.abort(&prepared))?;
    }
    Ok(format!("{} committables that make no sense: errors or nothing, no panic", odd.len()))
}
