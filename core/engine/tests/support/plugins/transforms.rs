//! Transforms: one that passes rows on, and a keyed one with state and timers.

use super::{Probe, event_times};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use standpipe_sdk::{
    Call, Context, Error, Host, Result, TimeDomain, Timer, Transform, TransformDeclaration, TransformInput,
    transform::{OutputDeclaration, StateDeclaration, StateKind},
};
use std::{sync::Arc, time::Duration};

/// Passes rows on, slowly, or fails.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct PassConfig {
    /// Which hears of a failure.
    pub probe: Option<String>,
    /// Fails at that batch.
    pub fail_at: Option<u64>,
    /// Panics at that batch.
    pub panic_at: Option<u64>,
    /// Sleeps for each batch.
    #[serde(default)]
    pub sleep_ms: u64,
    /// Keeps the rows until the input has ended.
    #[serde(default)]
    pub hold: bool,
    /// Every subtask but the first waits at that batch until the probe is awake, and its worker with it.
    pub wait_at: Option<u64>,
}

pub struct Pass {
    config: PassConfig,
    subtask: u32,
    batches: u64,
    held: Vec<RecordBatch>,
}

impl Transform for Pass {
    const NAME: &'static str = "pass";
    type Config = PassConfig;

    fn declare(_: &PassConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let main = OutputDeclaration::main(input.inputs[0].schema.clone());
        Ok(TransformDeclaration { outputs: vec![main], ..Default::default() })
    }

    fn open(config: PassConfig, _: &TransformInput, context: Context) -> Result<Self> {
        Ok(Self { config, subtask: context.subtask, batches: 0, held: Vec::new() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        self.batches += 1;
        if [self.config.fail_at, self.config.panic_at].contains(&Some(self.batches)) {
            self.config.probe.iter().for_each(|probe| Probe::of(probe).fails());
        }
        if self.config.fail_at == Some(self.batches) {
            return Err(Error::data("cannot pass"));
        }
        assert!(self.config.panic_at != Some(self.batches), "the transform is broken");
        std::thread::sleep(Duration::from_millis(self.config.sleep_ms));
        if self.subtask > 0 && self.config.wait_at == Some(self.batches) {
            self.config.probe.iter().for_each(|probe| Probe::of(probe).waits());
        }
        if self.config.hold {
            self.held.push(batch);
            return Ok(());
        }
        call.emit(batch)
    }

    fn finish(&mut self, call: &mut Call<'_>) -> Result<()> {
        self.held.drain(..).try_for_each(|batch| call.emit(batch))
    }
}

/// Counts the rows of each key in state, and gives the count when a timer fires: a second of event time after a row, or 50 ms of the clock.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct TallyConfig {
    /// Whether it goes by the clock.
    #[serde(default)]
    pub clock: bool,
}

pub struct Tally {
    clock: bool,
    host: Host,
    schema: SchemaRef,
}

fn tally_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, false), Field::new("count", DataType::Int64, false)]))
}

impl Transform for Tally {
    const NAME: &'static str = "tally";
    type Config = TallyConfig;

    fn declare(_: &TallyConfig, _: &TransformInput) -> Result<TransformDeclaration> {
        let count = StateDeclaration {
            name: "count".to_owned(),
            kind: StateKind::Value,
            field: Arc::new(Field::new("count", DataType::Int64, true)),
            version: 1,
            time_to_live: None,
        };
        let outputs = vec![OutputDeclaration::main(tally_schema())];
        Ok(TransformDeclaration { outputs, states: vec![count], timers: true, requires_key: true, ..Default::default() })
    }

    fn open(config: TallyConfig, _: &TransformInput, context: Context) -> Result<Self> {
        Ok(Self { clock: config.clock, host: context.host, schema: tally_schema() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let keys = call.keys().ok_or_else(|| Error::unsupported("needs key_by"))?.key_of_row();
        let counts = call.value::<Int64Type>(0)?;
        keys.iter().for_each(|key| counts.set(*key, counts.get(*key).unwrap_or(0) + 1));
        if self.clock {
            return call.set_timer(TimeDomain::ProcessingTime, 0, keys, &vec![self.host.now() + 50_000; keys.len()]);
        }
        let times: Vec<i64> = event_times(&batch).iter().map(|time| time + 1_000_000).collect();
        call.set_timer(TimeDomain::EventTime, 0, keys, &times)
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        let counts = call.value::<Int64Type>(0)?;
        let due: Vec<(u32, i64)> =
            timers.iter().filter_map(|timer| counts.get(timer.ordinal).map(|count| (timer.ordinal, count))).collect();
        due.iter().for_each(|(ordinal, _)| counts.clear(*ordinal));
        let keys = call.keys().ok_or_else(|| Error::unsupported("needs key_by"))?.batch()?.column(0).as_string::<i32>();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(due.iter().map(|(ordinal, _)| Some(keys.value(*ordinal as usize))).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(due.iter().map(|(_, count)| *count))),
        ];
        call.emit(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
