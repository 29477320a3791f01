//! A call of a transform that ends later: what waits for something outside takes the call's [`Completion`] with it to a thread of its own, and `process` returns.
//!
//! ```
//! # use standpipe_sdk::{Call, Result};
//! # use arrow_array::RecordBatch;
//! # fn look_up(batch: &RecordBatch) -> Result<RecordBatch> { Ok(batch.clone()) }
//! fn process(batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
//!     let completion = call.completion()?;
//!     std::thread::spawn(move || completion.answer(|results| results.emit(look_up(&batch)?)));
//!     Ok(())
//! }
//! ```
//!
//! A transform that does so says it in its declaration ([`crate::transform::Asynchronous`]), and is not keyed. The host has at most so many calls pending as the pipeline says,
//! so there is no need for another bound; and it gives up a job of which a call is pending for too long.

use crate::{Error, ErrorCode, Host, Result, call::check_emitted, convert, glue, transform::OutputDeclaration};
use arrow_array::RecordBatch;
use std::{fmt, sync::Arc};

/// A call that has not ended. Dropped, the call has failed: so it ends in any case, also where a thread panics.
///
/// When the job is cancelled or has failed nobody waits any more: then batches are refused with an error of the code "cancelled", and ends mean nothing.
pub struct Completion {
    host: Host,
    outputs: Arc<[OutputDeclaration]>,
    token: u64,
    has_ended: bool,
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Completion {
    pub(crate) fn new(host: Host, outputs: Arc<[OutputDeclaration]>, token: u64) -> Self {
        Self { host, outputs, token, has_ended: false }
    }

    /// Gives a batch to the main output; the rows count if the call ends well.
    ///
    /// # Errors
    /// When its columns are not those that were declared, or nobody waits for them any more.
    pub fn emit(&self, batch: RecordBatch) -> Result<()> {
        self.emit_to(0, batch)
    }

    /// Gives a batch to an output by its position in the declaration.
    ///
    /// # Errors
    /// As [`Self::emit`], and when there is no such output.
    pub fn emit_to(&self, output: usize, batch: RecordBatch) -> Result<()> {
        check_emitted(&self.outputs, output, &batch)?;
        self.host.emit(output as u32, &mut convert::export_batch(batch), self.token)
    }

    /// The call has ended well.
    pub fn done(mut self) {
        self.end(Ok(()));
    }

    /// The call has failed, and with it the job; what it gave is dropped.
    pub fn fail(mut self, error: Error) {
        self.end(Err(error));
    }

    /// Ends the call with what the work returns: well, with its error, or with its panic, which goes no further.
    pub fn answer(mut self, work: impl FnOnce(&Self) -> Result<()>) {
        let result = glue::caught("process, behind the call", || work(&self));
        self.end(result);
    }

    /// Whether the host does not want the result any more.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }

    fn end(&mut self, result: Result<()>) {
        self.has_ended = true;
        self.host.complete(self.token, result);
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let error = match glue::panic_under_way() {
            Some(error) => error,
            None => Error::new(ErrorCode::OTHER, "dropped the completion of a call without ending it"),
        };
        self.end(Err(error));
    }
}

const _: () = {
    const fn sent<T: Send + Sync>() {}
    sent::<Completion>();
};
