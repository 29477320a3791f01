//! `exhibit-summary`: every shape of keyed state, timers of event time.

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_select::take::take;
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::transform::{Capabilities, InputStream, OutputDeclaration, StateDeclaration, StateKind};
use standpipe_sdk::{Call, Context, Error, Result, TimeDomain, Timer, Transform, TransformDeclaration, TransformInput};
use std::sync::Arc;

/// At a time, what the rows of each key were: how many, their sum, the list of their numbers, and how many had each last digit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SummaryConfig {
    /// When, in seconds since 1970.
    pub at_seconds: i64,
}

const COUNT: u32 = 0;
const SUM: u32 = 1;
const ALL: u32 = 2;
const DIGITS: u32 = 3;
const SEEN: u32 = 4;

pub struct Summary {
    at: i64,
    number: usize,
    schema: SchemaRef,
}

fn schema(input: &InputStream) -> SchemaRef {
    let keys = input.key.iter().filter_map(|name| input.schema.fields().find(name)).map(|(_, field)| Arc::clone(field));
    let number = |name: &str| -> FieldRef { Arc::new(Field::new(name, DataType::Int64, false)) };
    Arc::new(Schema::new(keys.chain(["count", "sum", "listed", "digits"].map(number)).collect::<Vec<_>>()))
}

fn states() -> Vec<StateDeclaration> {
    let field = |data_type: DataType| -> FieldRef { Arc::new(Field::new("item", data_type, true)) };
    let entry = |name: &str| Field::new(name, DataType::Int64, name == "value");
    let map = DataType::Struct(Fields::from(vec![entry("key"), entry("value")]));
    let state = |name: &str, kind: StateKind, data_type: DataType| StateDeclaration {
        name: name.to_owned(),
        kind,
        field: field(data_type),
        version: 1,
        time_to_live: None,
    };
    vec![
        state("count", StateKind::Value, DataType::Int64),
        state("sum", StateKind::Reducing, DataType::Int64),
        state("all", StateKind::List, DataType::Int64),
        state("digits", StateKind::Map, map),
        state("seen", StateKind::Value, DataType::Boolean),
    ]
}

impl Transform for Summary {
    const NAME: &'static str = "exhibit-summary";
    type Config = SummaryConfig;

    fn declare(_: &SummaryConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let input = input.only()?;
        input.schema.index_of("n")?;
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(schema(input))],
            states: states(),
            timers: true,
            requires_key: true,
            capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
            ..TransformDeclaration::default()
        })
    }

    fn open(config: SummaryConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let input = input.only()?;
        Ok(Self { at: config.at_seconds * 1_000_000, number: input.schema.index_of("n")?, schema: schema(input) })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let keys = call.keys().ok_or_else(|| Error::unsupported("exhibit-summary needs key_by"))?;
        let of_row = keys.key_of_row();
        let numbers = batch.column(self.number).as_primitive::<Int64Type>();
        let (count, seen) = (call.value::<Int64Type>(COUNT)?, call.boolean(SEEN)?);
        let sum = call.reducing::<Int64Type, _>(SUM, |a, b| Ok(a + b))?;
        let mut fresh = Vec::new();
        for (key, number) in of_row.iter().zip(numbers.values()) {
            count.set(*key, count.get(*key).unwrap_or(0) + 1);
            sum.add(*key, *number)?;
            if seen.get(*key) != Some(true) {
                seen.set(*key, true);
                fresh.push(*key);
            }
        }
        call.list_append(ALL, of_row, numbers)?;
        // One row after another: the same digit may come twice in a call.
        for (key, number) in of_row.iter().zip(numbers.values()) {
            let digit: ArrayRef = Arc::new(Int64Array::from(vec![number.rem_euclid(10)]));
            let before = call.map_get(DIGITS, &[*key], &digit)?;
            let before = before.as_primitive::<Int64Type>();
            let now = if before.is_null(0) { 1 } else { before.value(0) + 1 };
            call.map_put(DIGITS, &[*key], &digit, &Int64Array::from(vec![now]))?;
        }
        call.set_timer(TimeDomain::EventTime, 7, &fresh, &vec![self.at; fresh.len()])
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        let keys = call.keys().ok_or_else(|| Error::unsupported("exhibit-summary needs key_by"))?;
        let ordinals: Vec<u32> = timers.iter().filter(|timer| timer.slot == 7).map(|timer| timer.ordinal).collect();
        let count = call.values_get(COUNT, &ordinals)?;
        let sum = call.values_get(SUM, &ordinals)?;
        let lists = call.list_get(ALL, &ordinals)?;
        let listed: Int64Array = lists.as_list::<i32>().iter().map(|list| Some(list.map_or(0, |list| list.len() as i64))).collect();
        let mut digits = Vec::new();
        for ordinal in &ordinals {
            digits.push(call.map_scan(DIGITS, *ordinal, None, 100)?.len() as i64);
        }
        call.list_clear(ALL, &ordinals)?;
        let rows = UInt32Array::from(ordinals);
        let mut columns: Vec<ArrayRef> = keys.batch()?.columns().iter().map(|key| take(key, &rows, None)).collect::<Result<_, _>>()?;
        columns.extend([count, sum, Arc::new(listed), Arc::new(Int64Array::from(digits))]);
        call.emit(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
