//! A plugin for the loader's tests: a source, a keyed transform, a transform that panics where it is told to, a sink.
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "panics are what it is for")]

use arrow_array::{ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::Deserialize;
use standpipe_sdk::{
    Call, Context, Error, Poll, PollLimits, Result, Secret, SingleSplit, Sink, SinkDeclaration, SinkInput, Source, SourceDeclaration,
    Split, TimeDomain, Timer, Transform, TransformDeclaration, TransformInput, Written,
    source::{Capabilities, Encoding},
    transform::{OutputDeclaration, StateDeclaration, StateKind},
};
use std::sync::Arc;

fn number() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, true)]))
}

/// Counts from 0.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct NumbersConfig {
    /// How far.
    rows: i64,
    #[serde(default)]
    token: Secret,
}

struct Numbers {
    config: NumbersConfig,
    context: Context,
    splits: Vec<Split>,
}

impl Source for Numbers {
    const NAME: &'static str = "fixture_numbers";
    type Config = NumbersConfig;
    type Enumerator = SingleSplit<NumbersConfig>;

    fn declare(_: &NumbersConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: true, ..Default::default() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: number(), capabilities, problems: Vec::new() })
    }

    fn open(config: NumbersConfig, context: Context) -> Result<Self> {
        context.host.info("opened", &[("token", config.token.expose().into())]);
        Ok(Self { config, context, splits: Vec::new() })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        self.splits.extend(splits);
        Ok(())
    }

    fn poll(&mut self, _: PollLimits) -> Result<Poll> {
        let Some(split) = self.splits.pop() else { return Ok(Poll::Idle) };
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..self.config.rows));
        self.context.host.counter("rows", &[]).add(rows.len() as u64);
        let batch = RecordBatch::try_new(number(), vec![rows])?;
        Ok(Poll::Batch { split: split.id, batch, position: b"end".to_vec(), watermark: None })
    }
}

/// Panics.
#[derive(Deserialize, schemars::JsonSchema)]
struct PanicConfig {
    at: String,
}

struct Panic(String);

impl Panic {
    fn at(&self, place: &str) {
        assert!(self.0 != place, "as asked");
    }
}

impl Transform for Panic {
    const NAME: &'static str = "fixture_panic";
    type Config = PanicConfig;

    fn declare(config: &PanicConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        assert!(config.at != "validate", "as asked");
        Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(input.only()?.schema.clone())], ..Default::default() })
    }

    fn open(config: PanicConfig, _: &TransformInput, _: Context) -> Result<Self> {
        let this = Self(config.at);
        this.at("open");
        Ok(this)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        self.at("process");
        if self.0 == "any" {
            std::panic::panic_any(7);
        }
        call.emit(batch)
    }
}

impl Drop for Panic {
    fn drop(&mut self) {
        self.at("drop");
    }
}

/// Counts rows per key, and tells the counts at event time 100.
#[derive(Deserialize, schemars::JsonSchema)]
struct CountConfig {}

struct Count;

impl Transform for Count {
    const NAME: &'static str = "fixture_count";
    type Config = CountConfig;

    fn declare(_: &CountConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let field = Arc::new(Field::new("count", DataType::Int64, true));
        let count = StateDeclaration { name: "count".to_owned(), kind: StateKind::Value, field, version: 0, time_to_live: None };
        let outputs = vec![OutputDeclaration::main(input.only()?.schema.clone())];
        Ok(TransformDeclaration { outputs, states: vec![count], timers: true, requires_key: true, ..Default::default() })
    }

    fn open(_: CountConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let count = call.value::<Int64Type>(0)?;
        for key in call.keys().into_iter().flat_map(|keys| keys.key_of_row()) {
            count.set(*key, count.get(*key).unwrap_or_default() + 1);
            call.set_timer(TimeDomain::EventTime, 3, &[*key], &[100])?;
        }
        if batch.column(1).as_primitive::<Int64Type>().values().contains(&13) {
            call.emit(batch)?;
            return Err(Error::data("13 is no number"));
        }
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        let Some(keys) = call.keys() else { return Ok(()) };
        let (names, count) = (keys.batch()?.column(0).clone(), call.value::<Int64Type>(0)?);
        let counts: Int64Array = timers.iter().map(|timer| count.get(timer.ordinal)).collect();
        timers.iter().for_each(|timer| count.clear(timer.ordinal));
        let schema = Schema::new(vec![Field::new("key", DataType::Utf8, true), Field::new("number", DataType::Int64, true)]);
        call.emit(RecordBatch::try_new(Arc::new(schema), vec![names, Arc::new(counts)])?)
    }
}

/// Counts what it is given.
#[derive(Deserialize, schemars::JsonSchema)]
struct CollectConfig {}

struct Collect {
    context: Context,
    last: u64,
}

impl Sink for Collect {
    const NAME: &'static str = "fixture_collect";
    type Config = CollectConfig;

    fn declare(_: &CollectConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration::default())
    }

    fn open(_: CollectConfig, _: &SinkInput, context: Context) -> Result<Self> {
        Ok(Self { context, last: 0 })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.last = seq;
        self.context.host.counter("written", &[]).add(batch.num_rows() as u64);
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        self.context.host.ack(self.last);
        Ok(())
    }
}

standpipe_sdk::export_plugin! { sinks: [Collect], transforms: [Panic, Count], sources: [Numbers] }
