//! A transform in a test.

use super::{MemoryState, TestHost, context, input};
use crate::{
    CloseReason, Error, ErrorCode, TimeDomain, Timer,
    hosting::{Begun, Emitted, KeyedCall, NodeInput, PluginError, TransformInstance, TransformKind, TransformValidation},
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a test waits for a call to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A transform with keyed state in memory. Made and opened at first use.
pub struct TransformHarness {
    /// What it told its host.
    pub host: Arc<TestHost>,
    kind: TransformKind,
    config: Value,
    inputs: Vec<NodeInput>,
    running: Option<TransformInstance>,
    state: MemoryState,
    /// What has ended and was not asked for, by token.
    ended: BTreeMap<u64, Result<Vec<Emitted>, PluginError>>,
}

/// A call of `process` that may not have ended.
#[derive(Debug)]
#[must_use = "its results are waited for"]
pub struct BegunCall(Begun);

impl BegunCall {
    /// Whether it ends later than `process` has returned.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self.0, Begun::Pending(_))
    }
}

impl TransformHarness {
    pub(super) fn new(kind: TransformKind, config: Value, schema: SchemaRef) -> Self {
        Self {
            host: Arc::default(),
            kind,
            config,
            inputs: vec![input(schema)],
            running: None,
            state: MemoryState::default(),
            ended: BTreeMap::new(),
        }
    }

    /// Gives the node a `key_by` of these columns.
    #[must_use]
    pub fn keyed(mut self, columns: &[&str]) -> Self {
        for input in &mut self.inputs {
            input.details.key = columns.iter().map(|column| (*column).to_owned()).collect();
        }
        self
    }

    /// The inputs, where one append stream is not enough.
    #[must_use]
    pub fn with_inputs(mut self, inputs: Vec<NodeInput>) -> Self {
        self.inputs = inputs;
        self
    }

    fn is_keyed(&self) -> bool {
        self.inputs.iter().any(|input| !input.details.key.is_empty())
    }

    /// What the transform declares, and everything that is wrong with its configuration.
    ///
    /// # Errors
    /// As the transform says.
    pub fn validate(&self) -> Result<TransformValidation, PluginError> {
        self.kind.validate("node", &self.config, &self.inputs, self.is_keyed())
    }

    /// Makes and opens the transform. The other methods do so if it has not been done.
    ///
    /// # Errors
    /// As the transform says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.running().map(|_| ())
    }

    fn running(&mut self) -> Result<(&mut TransformInstance, &mut MemoryState), PluginError> {
        if let Some(ref mut running) = self.running {
            return Ok((running, &mut self.state));
        }
        let keyed = self.is_keyed();
        let mut instance = self.kind.instance(&self.config, "node", &self.inputs, keyed, &context(), self.host.clone())?;
        instance.open()?;
        self.state = MemoryState::new(instance.states().to_vec());
        Ok((self.running.insert(instance), &mut self.state))
    }

    /// The instance itself.
    ///
    /// # Errors
    /// As `open`.
    pub fn instance(&mut self) -> Result<&mut TransformInstance, PluginError> {
        Ok(self.running()?.0)
    }

    /// The keyed state.
    #[must_use]
    pub const fn state(&self) -> &MemoryState {
        &self.state
    }

    /// Gives a batch to the only input; what comes out of the main output. A call that ends later is waited for.
    ///
    /// # Errors
    /// As the transform says, and when a call does not end within half a minute.
    pub fn process(&mut self, batch: &RecordBatch) -> Result<Vec<RecordBatch>, PluginError> {
        Ok(main(self.process_input(0, batch)?))
    }

    /// Gives a batch to an input; what comes out of all outputs. A call that ends later is waited for.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn process_input(&mut self, input: u32, batch: &RecordBatch) -> Result<Vec<Emitted>, PluginError> {
        let key: Vec<usize> = match self.inputs.get(input as usize) {
            Some(input) => input.details.key.iter().filter_map(|name| batch.schema().index_of(name).ok()).collect(),
            None => Vec::new(),
        };
        let keyed = self.is_keyed();
        let (instance, state) = self.running()?;
        match (keyed, batch.project(&key)) {
            (true, Ok(columns)) => {
                let grouped = state.begin(&columns);
                instance.process(input, batch, Some(KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state }))
            }
            _ => {
                let begun = instance.begin(input, batch)?;
                self.wait(BegunCall(begun))
            }
        }
    }

    /// Gives a batch to an input of a transform without keys, and does not wait for the call: several may be pending, and end in any order.
    ///
    /// # Errors
    /// As the transform says.
    pub fn begin(&mut self, input: u32, batch: &RecordBatch) -> Result<BegunCall, PluginError> {
        Ok(BegunCall(self.running()?.0.begin(input, batch)?))
    }

    /// Waits for a call; what comes out of all outputs.
    ///
    /// # Errors
    /// As the transform says, and when the call does not end within half a minute.
    pub fn wait(&mut self, call: BegunCall) -> Result<Vec<Emitted>, PluginError> {
        let token = match call.0 {
            Begun::Done(emitted) => return Ok(emitted),
            Begun::Pending(token) => token,
        };
        let give_up = Instant::now() + PATIENCE;
        let host = Arc::clone(&self.host);
        loop {
            let instance = self.running()?.0;
            let ended = instance.ended();
            let late = instance.failure(Error::new(ErrorCode::OTHER, format!("a call has not ended within {} s", PATIENCE.as_secs())));
            self.ended.extend(ended.into_iter().map(|ended| (ended.token, ended.result)));
            match self.ended.remove(&token) {
                Some(result) => return result,
                None if Instant::now() >= give_up => return Err(late),
                None => host.wait_for_change(Duration::from_millis(10)),
            }
        }
    }

    /// As the host does before a checkpoint: has the transform begin what it has put off, then waits for these calls. What comes out of all outputs, call by call.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn drain(&mut self, checkpoint: u64, calls: Vec<BegunCall>) -> Result<Vec<Vec<Emitted>>, PluginError> {
        self.running()?.0.drain(Some(checkpoint))?;
        calls.into_iter().map(|call| self.wait(call)).collect()
    }

    /// Advances the watermark of every input: `on_watermark`, then the timers that are due, in time order. What comes out of all outputs.
    ///
    /// # Errors
    /// As the transform says.
    pub fn advance_watermark(&mut self, micros: i64) -> Result<Vec<Emitted>, PluginError> {
        let inputs = self.inputs.len() as u32;
        let mut emitted = Vec::new();
        for input in 0..inputs {
            emitted.extend(self.running()?.0.on_watermark(input, micros)?);
        }
        emitted.extend(self.fire(TimeDomain::EventTime, micros)?);
        Ok(emitted)
    }

    /// Sets the clock, then fires the timers that are due.
    ///
    /// # Errors
    /// As the transform says.
    pub fn advance_clock(&mut self, micros: i64) -> Result<Vec<Emitted>, PluginError> {
        self.host.set_now(micros);
        self.fire(TimeDomain::ProcessingTime, micros)
    }

    fn fire(&mut self, domain: TimeDomain, until: i64) -> Result<Vec<Emitted>, PluginError> {
        let (instance, state) = self.running()?;
        let mut emitted = Vec::new();
        while let Some((time, slots, columns)) = state.due(domain, until) {
            let grouped = state.begin(&columns);
            let timers: Vec<Timer> = grouped.key_of_row.iter().zip(slots).map(|(&ordinal, slot)| Timer { ordinal, slot, time }).collect();
            let keys = KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state };
            emitted.extend(instance.on_timer(domain, &timers, keys)?);
        }
        Ok(emitted)
    }

    /// Ends every input. What comes out of all outputs.
    ///
    /// # Errors
    /// As the transform says.
    pub fn finish(&mut self) -> Result<Vec<Emitted>, PluginError> {
        let inputs = self.inputs.len() as u32;
        let (instance, _) = self.running()?;
        let mut emitted = Vec::new();
        for input in 0..inputs {
            emitted.extend(instance.finish(input)?);
        }
        instance.close(CloseReason::Finished)?;
        Ok(emitted)
    }
}

/// The batches of the main output.
fn main(emitted: Vec<Emitted>) -> Vec<RecordBatch> {
    emitted.into_iter().filter(|emitted| emitted.output == 0).map(|emitted| emitted.batch).collect()
}
