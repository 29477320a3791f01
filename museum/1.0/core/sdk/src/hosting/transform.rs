//! Instances of a transform. A call is all or nothing: what it emits is returned, and what it writes to keyed state is committed, only if it succeeds.

use super::{
    HostServices, InstanceContext, KeyedCall, Origin, PluginError, TransformValidation,
    instance::Instance,
    kind::Question,
    state_table::{LentSlot, StateCall},
};
use crate::{CloseReason, Error, ErrorCode, TimeDomain, Timer, call::check_columns, convert, wire};
use arrow_array::RecordBatch;
use arrow_schema::{FieldRef, SchemaRef};
use serde_json::Value;
use standpipe_abi::{
    Error as AbiError, Slice, Status,
    state::KeyContext,
    transform::{DueTimers, TransformTable},
};
use std::{ffi::c_void, sync::Arc};

/// A batch that a call gave to an output.
#[derive(Debug, Clone)]
pub struct Emitted {
    /// The output; 0 is the main one.
    pub output: u32,
    /// Its rows.
    pub batch: RecordBatch,
}

/// What `process` answered.
#[derive(Debug)]
pub enum Begun {
    /// It is done; what it gave.
    Done(Vec<Emitted>),
    /// It ends later: [`TransformInstance::ended`] has it by this token.
    Pending(u64),
}

/// A call that was pending and has ended.
#[derive(Debug)]
pub struct Ended {
    /// As [`Begun::Pending`] had it.
    pub token: u64,
    /// What it gave, or why it failed.
    pub result: Result<Vec<Emitted>, PluginError>,
}

/// A transform: one per subtask, on the thread that made it.
pub struct TransformInstance {
    instance: Instance,
    table: TransformTable,
    question: Question,
    outputs: Vec<(wire::OutputDetails, SchemaRef)>,
    states: Vec<(wire::StateDetails, FieldRef)>,
    slots: Vec<LentSlot>,
    /// Whether it has declared that its calls may end later.
    asynchronous: bool,
}

impl TransformInstance {
    pub(super) fn create(
        origin: Arc<Origin>,
        table: TransformTable,
        question: Question,
        validation: TransformValidation,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let schemas = validation.outputs.iter().map(|(_, schema)| schema.clone()).collect();
        let instance = Instance::create(origin, &question.node, (table.create, table.destroy), schemas, config, context, host)?;
        let slots = validation.states.iter().map(|_| LentSlot::default()).collect();
        let asynchronous = validation.details.asynchronous.is_some();
        Ok(Self { instance, table, question, outputs: validation.outputs, states: validation.states, slots, asynchronous })
    }

    /// The outputs that it declared.
    #[must_use]
    pub fn outputs(&self) -> &[(wire::OutputDetails, SchemaRef)] {
        &self.outputs
    }

    /// The keyed state that it declared, by slot.
    #[must_use]
    pub fn states(&self) -> &[(wire::StateDetails, FieldRef)] {
        &self.states
    }

    // SAFETY, for every call below: the plugin's function, called as its contract says; what it borrows is alive for the call.

    /// Gets ready.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.question.lend(|input| self.instance.done(|this, error| unsafe { (self.table.open)(this, input, error) }))
    }

    /// Gives a batch of an input; the call ends before this returns.
    ///
    /// # Errors
    /// As the plugin says, and when the batch is not of the input's columns, or the call would end later.
    pub fn process(&mut self, input: u32, batch: &RecordBatch, keys: Option<KeyedCall<'_>>) -> Result<Vec<Emitted>, PluginError> {
        self.check(input, batch)?;
        if keys.as_ref().is_some_and(|keys| keys.key_of_row.len() != batch.num_rows()) {
            return Err(self.instance.failure(Error::new(ErrorCode::OUT_OF_RANGE, "the host passed more or fewer ordinals than rows")));
        }
        let mut sent = convert::export_batch(batch.clone());
        let process = self.table.process;
        self.run(keys, |this, keys, error| unsafe { process(this, input, &raw mut sent, keys, 0, error) })
    }

    /// Gives a batch of an input, without keys; the call may end later if the transform has declared so.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn begin(&mut self, input: u32, batch: &RecordBatch) -> Result<Begun, PluginError> {
        if !self.asynchronous || self.question.keyed {
            return self.process(input, batch, None).map(Begun::Done);
        }
        self.check(input, batch)?;
        let served = Arc::clone(&self.instance.served);
        let token = served.pending.begin();
        let mut sent = convert::export_batch(batch.clone());
        let process = self.table.process;
        served.begin();
        let status = self.instance.call(|this, error| unsafe { process(this, input, &raw mut sent, std::ptr::null(), token, error) });
        let emitted = served.end();
        if matches!(status, Ok(Status::PENDING)) {
            served.pending.keep(token, emitted);
            return Ok(Begun::Pending(token));
        }
        let was_used = served.pending.forget(token);
        match status? {
            Status::OK if was_used => Err(self
                .instance
                .broken("has emitted or completed by the token of a call that it then answered with OK instead of PENDING")),
            Status::OK => Ok(Begun::Done(emitted)),
            Status(other) => Err(self.unknown_answer(other)),
        }
    }

    /// The calls that have ended since the last time, in the order in which they began.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        let ended = self.instance.served.pending.take_ended();
        ended.into_iter().map(|(token, end)| Ended { token, result: end.map_err(|error| self.instance.failure(error)) }).collect()
    }

    /// A failure of the transform that the host has found.
    #[must_use]
    pub fn failure(&self, error: Error) -> PluginError {
        self.instance.failure(error)
    }

    /// Whether the batch is one of the input's.
    fn check(&self, input: u32, batch: &RecordBatch) -> Result<(), PluginError> {
        let Some(schema) = self.question.schemas.get(input as usize) else {
            return Err(self.instance.failure(Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no input {input}"))));
        };
        check_columns(&"the host", schema, batch).map_err(|error| self.instance.failure(error))
    }

    /// Timers are due; `keys.key_of_row` is taken from their ordinals.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn on_timer(&mut self, domain: TimeDomain, timers: &[Timer], keys: KeyedCall<'_>) -> Result<Vec<Emitted>, PluginError> {
        let ordinals: Vec<u32> = timers.iter().map(|timer| timer.ordinal).collect();
        let slots: Vec<u32> = timers.iter().map(|timer| timer.slot).collect();
        let times: Vec<i64> = timers.iter().map(|timer| timer.time).collect();
        let due = DueTimers {
            size: size_of::<DueTimers>() as u32,
            domain: domain.to_abi(),
            slots: slots.as_ptr(),
            times: times.as_ptr(),
            count: timers.len(),
        };
        let on_timer = self.table.on_timer;
        let keys = KeyedCall { key_of_row: &ordinals, keys: keys.keys, state: keys.state };
        self.run(Some(keys), |this, keys, error| unsafe { on_timer(this, &raw const due, keys, error) })
    }

    /// The watermark of an input has advanced.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn on_watermark(&mut self, input: u32, micros: i64) -> Result<Vec<Emitted>, PluginError> {
        let on_watermark = self.table.on_watermark;
        self.run(None, |this, _, error| unsafe { on_watermark(this, input, micros, error) })
    }

    /// All pending calls are about to be waited for: before the cut of that checkpoint, or before an input's end.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn drain(&mut self, checkpoint: Option<u64>) -> Result<(), PluginError> {
        self.instance.done(|this, error| unsafe { (self.table.drain)(this, checkpoint.unwrap_or(0), error) })
    }

    /// What an unkeyed transform must remember.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn snapshot(&mut self) -> Result<Vec<u8>, PluginError> {
        self.instance.bytes(|this, out, error| unsafe { (self.table.snapshot)(this, out, error) })
    }

    /// Goes on from the snapshots of one or more former subtasks.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn restore(&mut self, parts: &[&[u8]]) -> Result<(), PluginError> {
        let parts: Vec<Slice> = parts.iter().map(|part| Slice::new(part)).collect();
        self.instance.done(|this, error| unsafe { (self.table.restore)(this, parts.as_ptr(), parts.len(), error) })
    }

    /// An input has ended.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn finish(&mut self, input: u32) -> Result<Vec<Emitted>, PluginError> {
        let finish = self.table.finish;
        self.run(None, |this, _, error| unsafe { finish(this, input, error) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the plugin says; to be logged.
    pub fn close(&mut self, reason: CloseReason) -> Result<(), PluginError> {
        self.instance.close(|this, error| unsafe { (self.table.close)(this, reason.to_abi(), error) })
    }

    /// Runs a call that may emit and, with keys, read and write state.
    fn run(
        &mut self,
        keys: Option<KeyedCall<'_>>,
        call: impl FnOnce(*mut c_void, *const KeyContext, *mut AbiError) -> Status,
    ) -> Result<Vec<Emitted>, PluginError> {
        self.instance.served.begin();
        let result = match keys {
            None => self.finished(|this, error| call(this, std::ptr::null(), error)),
            Some(keys) => self.run_keyed(keys, call),
        };
        let emitted = self.instance.served.end();
        result.map(|()| emitted)
    }

    fn run_keyed(
        &mut self,
        keyed: KeyedCall<'_>,
        call: impl FnOnce(*mut c_void, *const KeyContext, *mut AbiError) -> Status,
    ) -> Result<(), PluginError> {
        let KeyedCall { key_of_row, keys, state } = keyed;
        let mut slots = std::mem::take(&mut self.slots);
        let states = std::mem::take(&mut self.states);
        let mut exported = convert::export_batch(keys.clone());
        let mut state = StateCall::new(state, &states, &mut slots, keys.num_rows());
        let table = state.table();
        let context = KeyContext {
            size: size_of::<KeyContext>() as u32,
            n_keys: keys.num_rows() as u32,
            rows: key_of_row.len(),
            key_of_row: key_of_row.as_ptr(),
            keys: &raw mut exported,
            state: &raw const table,
        };
        let result = self.finished(|this, error| call(this, &raw const context, error));
        let settled = state.settle(result.is_ok());
        (self.slots, self.states) = (slots, states);
        result.and(settled.map_err(|error| self.instance.failure(error)))
    }

    fn finished(&mut self, call: impl FnOnce(*mut c_void, *mut AbiError) -> Status) -> Result<(), PluginError> {
        match self.instance.call(call)? {
            Status::OK => Ok(()),
            Status::PENDING if self.question.keyed => {
                let message = "answers PENDING, which a transform of a node with key_by may not: its keyed state is of one call";
                Err(self.instance.failure(Error::unsupported(message)))
            }
            Status::PENDING => {
                Err(self.instance.broken("answers PENDING in a call without a token; process has one if `async` is declared in validate"))
            }
            Status(other) => Err(self.unknown_answer(other)),
        }
    }

    fn unknown_answer(&self, status: i32) -> PluginError {
        self.instance.broken(&format!("answers with the status {status}"))
    }
}
