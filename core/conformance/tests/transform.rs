//! Each check of a transform fails for the transform that does wrong what it looks at. One test: memory and threads are the whole process'.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "each kind uses its part")]
mod support;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use standpipe_sdk::{
    Call, CloseReason, Context, Error, Result, TimeDomain, Timer, Transform, TransformDeclaration, TransformInput,
    testing::Harness,
    transform::{Capabilities, OutputDeclaration, StateDeclaration, StateKind},
};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};
use support::{Loose, every_check_can_fail, trouble_at_open, trouble_when_cancelled, trouble_with_release, trouble_with_rows};

/// What makes one run differ from the next.
static CHANCE: AtomicI64 = AtomicI64::new(0);

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    trouble: String,
    #[serde(default)]
    loose: Loose,
}

fn schema(trouble: &str) -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![number("all"), number(if trouble == "schema" { "all" } else { "of_key" })]))
}

/// Numbers rows: all of them, which it remembers itself, and those of the row's key, which the host does.
struct Numbered {
    config: Config,
    context: Context,
    all: i64,
    closed: bool,
}

impl Numbered {
    fn is(&self, trouble: &str) -> bool {
        self.config.trouble == trouble
    }
}

impl Transform for Numbered {
    const NAME: &'static str = "numbered";
    type Config = Config;

    fn declare(config: &Config, input: &TransformInput) -> Result<TransformDeclaration> {
        input.only()?;
        let field = Arc::new(Field::new("count", DataType::Int64, true));
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(schema(&config.trouble))],
            states: vec![StateDeclaration { name: "count".to_owned(), kind: StateKind::Value, field, version: 1, time_to_live: None }],
            requires_key: true,
            timers: config.trouble != "timers",
            capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
            problems: config.loose.problem(&config.trouble).into_iter().collect(),
            ..TransformDeclaration::default()
        })
    }

    fn open(config: Config, _: &TransformInput, context: Context) -> Result<Self> {
        trouble_at_open(&config.trouble);
        Ok(Self { config, context, all: 0, closed: false })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        trouble_with_rows(&self.config.trouble);
        trouble_with_release(&self.config.trouble, &batch);
        trouble_when_cancelled(&self.config.trouble, self.context.host.cancelled());
        if self.is("batches") && batch.num_rows() == 5 && batch.column(1).null_count() == 5 {
            return Err(Error::data("nothing but nulls"));
        }
        let keys = call.keys().ok_or_else(|| Error::data("no key"))?;
        let (mut all, mut of_key) = (Vec::new(), Vec::new());
        let chance = if self.is("deterministic") { CHANCE.fetch_add(1, SeqCst) } else { 0 };
        let size = if self.is("batch-sizes") { batch.num_rows() as i64 } else { 0 };
        let counts = call.value::<Int64Type>(0)?;
        for ordinal in keys.key_of_row() {
            self.all += 1;
            let count = counts.get(*ordinal).unwrap_or(0) + 1;
            counts.set(*ordinal, count);
            all.push(self.all + chance + size);
            of_key.push(count);
        }
        let ordinals: Vec<u32> = (0..keys.len() as u32).collect();
        // In the midst of the rows, whatever batches they come in.
        let times = vec![1_704_067_296_000_000; ordinals.len()];
        call.set_timer(TimeDomain::EventTime, 0, &ordinals, &times)?;
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(all)), Arc::new(Int64Array::from(of_key))];
        call.emit(RecordBatch::try_new(schema(&self.config.trouble), columns)?)
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        let counts = call.value::<Int64Type>(0)?;
        timers.iter().for_each(|timer| counts.clear(timer.ordinal));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok((self.all + i64::from(self.is("snapshot"))).to_string().into_bytes())
    }

    fn restore(&mut self, parts: &[&[u8]]) -> Result<()> {
        for part in parts {
            let text = std::str::from_utf8(part);
            self.all += match self.is("nonsense") {
                true => text.unwrap().parse::<i64>().unwrap(),
                false => text.ok().and_then(|text| text.parse().ok()).ok_or_else(|| Error::data("no snapshot of mine"))?,
            };
        }
        Ok(())
    }

    fn close(&mut self, _: CloseReason) -> Result<()> {
        assert!(!self.closed || !self.is("lifecycle"), "closed twice");
        self.closed = true;
        Ok(())
    }
}

#[test]
fn every_check_fails_for_what_it_looks_at() {
    every_check_can_fail(Harness::transform_kind::<Numbered>(), &[], |_| json!({}), |suite| suite);
}
