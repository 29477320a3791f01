//! The calls of a transform that are answered later, by their tokens: what is emitted for each, and how it ended. A plugin's threads write, the instance's thread reads.
//! A token that is not here is refused, whatever it once was.

use super::Emitted;
use crate::{Error, ErrorCode, Result};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How a call ended: what it emitted, or its failure.
pub(super) type End = Result<Vec<Emitted>>;

/// The calls of one instance.
#[derive(Default)]
pub(super) struct PendingCalls(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    /// Never given twice.
    last: u64,
    /// What those that have not ended have emitted.
    open: BTreeMap<u64, Vec<Emitted>>,
    /// What has ended and was not taken yet.
    ended: BTreeMap<u64, End>,
}

impl PendingCalls {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins that may be answered later: its token.
    pub(super) fn begin(&self) -> u64 {
        let mut calls = self.calls();
        calls.last += 1;
        let token = calls.last;
        calls.open.insert(token, Vec::new());
        token
    }

    /// The call of that token gives a batch.
    pub(super) fn emit(&self, token: u64, emitted: Emitted) -> Result<()> {
        self.calls().open.get_mut(&token).ok_or_else(|| unknown(token))?.push(emitted);
        Ok(())
    }

    /// The call of that token has ended.
    pub(super) fn complete(&self, token: u64, result: Result<()>) -> Result<()> {
        let mut calls = self.calls();
        let emitted = calls.open.remove(&token).ok_or_else(|| unknown(token))?;
        calls.ended.insert(token, result.map(|()| emitted));
        Ok(())
    }

    /// The call is pending; what it has emitted itself goes before what came by its token.
    pub(super) fn keep(&self, token: u64, mut first: Vec<Emitted>) {
        let mut calls = self.calls();
        let Calls { open, ended, .. } = &mut *calls;
        let of_token = open.get_mut(&token).or_else(|| ended.get_mut(&token).and_then(|end| end.as_mut().ok()));
        if let Some(emitted) = of_token {
            first.append(emitted);
            *emitted = first;
        }
    }

    /// The call is not pending: its token is void. True if it has been used.
    pub(super) fn forget(&self, token: u64) -> bool {
        let mut calls = self.calls();
        calls.open.remove(&token).is_some_and(|emitted| !emitted.is_empty()) | calls.ended.remove(&token).is_some()
    }

    /// What has ended since the last time, by token.
    pub(super) fn take_ended(&self) -> BTreeMap<u64, End> {
        std::mem::take(&mut self.calls().ended)
    }
}

fn unknown(token: u64) -> Error {
    Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no pending call {token}: it has ended, or never was"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::RecordBatch;
    use arrow_schema::Schema;
    use std::sync::Arc;

    fn emitted(output: u32) -> Emitted {
        Emitted { output, batch: RecordBatch::new_empty(Arc::new(Schema::empty())) }
    }

    fn outputs(end: &End) -> Vec<u32> {
        end.as_ref().unwrap().iter().map(|emitted| emitted.output).collect()
    }

    #[test]
    fn what_a_call_emits_itself_comes_first_whenever_it_ends() {
        for ends_early in [false, true] {
            let calls = PendingCalls::default();
            let token = calls.begin();
            calls.emit(token, emitted(1)).unwrap();
            if ends_early {
                calls.complete(token, Ok(())).unwrap();
            }
            calls.keep(token, vec![emitted(0)]);
            if !ends_early {
                calls.complete(token, Ok(())).unwrap();
            }
            assert_eq!(outputs(&calls.take_ended()[&token]), [0, 1]);
            assert!(calls.take_ended().is_empty());
        }
    }

    #[test]
    fn a_token_is_good_once() {
        let calls = PendingCalls::default();
        let refused = |token| {
            let line = format!("there is no pending call {token}: it has ended, or never was");
            assert_eq!(calls.emit(token, emitted(0)).unwrap_err().message, line);
            assert_eq!(calls.complete(token, Ok(())).unwrap_err().message, line);
        };
        refused(0);
        refused(1);
        let (first, second) = (calls.begin(), calls.begin());
        assert!(first != 0 && first != second);
        calls.complete(first, Err(Error::data("no"))).unwrap();
        refused(first);
        assert!(!calls.forget(second), "nothing came of it");
        refused(second);
        assert_eq!(
            calls.take_ended().into_iter().map(|(token, end)| (token, end.unwrap_err().message)).collect::<Vec<_>>(),
            [(first, "no".to_owned())]
        );
    }

    #[test]
    fn a_token_that_was_used_is_noticed() {
        let calls = PendingCalls::default();
        let (emitting, ended) = (calls.begin(), calls.begin());
        calls.emit(emitting, emitted(0)).unwrap();
        calls.complete(ended, Ok(())).unwrap();
        assert!(calls.forget(emitting) && calls.forget(ended));
        assert!(calls.take_ended().is_empty());
    }
}
