//! `exhibit_twice` and `exhibit_range`.

use arrow_array::{ArrayRef, Int64Array, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, FieldRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::Result;
use standpipe_sdk::function::{Accumulator, AggregateFunction, Bound, ScalarFunction};
use std::sync::Arc;

/// Multiplies a number.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwiceConfig {
    /// By what.
    #[serde(default = "two")]
    pub by: i64,
}

fn two() -> i64 {
    2
}

pub struct Twice(i64);

impl ScalarFunction for Twice {
    const NAME: &'static str = "exhibit_twice";
    type Config = TwiceConfig;

    fn bind(config: TwiceConfig, _: &[FieldRef]) -> Result<Bound<Self>> {
        Ok(Bound::new(Self(config.by), [DataType::Int64], DataType::Int64))
    }

    fn invoke(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let twice: Int64Array = arguments[0].as_primitive::<Int64Type>().unary(|value| value.wrapping_mul(self.0));
        Ok(Arc::new(twice))
    }
}

/// The largest number less the smallest.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeConfig {}

pub struct Range;

impl AggregateFunction for Range {
    const NAME: &'static str = "exhibit_range";
    type Config = RangeConfig;
    type Accumulator = Ranges;

    fn bind(_: RangeConfig, _: &[FieldRef]) -> Result<Bound<Self>> {
        let state = [("low", DataType::Int64), ("high", DataType::Int64)];
        Ok(Bound::new(Self, [DataType::Int64], DataType::Int64).with_state(state).with_state_version(3))
    }

    fn accumulator(&self) -> Result<Ranges> {
        Ok(Ranges::default())
    }
}

#[derive(Default)]
pub struct Ranges(Vec<Option<(i64, i64)>>);

impl Ranges {
    fn add(&mut self, group: u32, low: i64, high: i64) {
        let group = group as usize;
        if group >= self.0.len() {
            self.0.resize(group + 1, None);
        }
        let (least, most) = self.0[group].unwrap_or((low, high));
        self.0[group] = Some((least.min(low), most.max(high)));
    }

    fn column(&self, groups: &[u32], what: impl Fn((i64, i64)) -> i64) -> ArrayRef {
        let values = groups.iter().map(|group| self.0.get(*group as usize).copied().flatten().map(&what));
        Arc::new(values.collect::<Int64Array>())
    }
}

impl Accumulator for Ranges {
    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        for (group, value) in groups.iter().zip(arguments[0].as_primitive::<Int64Type>()) {
            if let Some(value) = value {
                self.add(*group, value, value);
            }
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<()> {
        let (lows, highs) = (states[0].as_primitive::<Int64Type>(), states[1].as_primitive::<Int64Type>());
        for ((group, low), high) in groups.iter().zip(lows).zip(highs) {
            if let (Some(low), Some(high)) = (low, high) {
                self.add(*group, low, high);
            }
        }
        Ok(())
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.column(groups, |(low, _)| low), self.column(groups, |(_, high)| high)])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(self.column(groups, |(low, high)| high - low))
    }

    fn forget(&mut self, groups: &[u32]) {
        for group in groups {
            if let Some(range) = self.0.get_mut(*group as usize) {
                *range = None;
            }
        }
    }
}
