//! `weighted_avg`: an aggregate function, the mean of values of which each counts as much as its weight.

use arrow_array::{Array, ArrayRef, Float64Array, cast::AsArray, types::Float64Type};
use arrow_schema::{DataType, FieldRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Result,
    function::{Accumulator, AggregateFunction, Bound},
};
use std::sync::Arc;

/// The weighted mean: `weighted_avg(price, amount)`. Rows in which either is null do not count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedAvgConfig {}

/// See the module's documentation.
pub struct WeightedAvg;

impl AggregateFunction for WeightedAvg {
    const NAME: &'static str = "weighted_avg";
    type Config = WeightedAvgConfig;
    type Accumulator = Sums;

    fn bind(_: WeightedAvgConfig, _: &[FieldRef]) -> Result<Bound<Self>> {
        let number = DataType::Float64;
        let state = [("weighted", number.clone()), ("weights", number.clone())];
        Ok(Bound::new(Self, [number.clone(), number.clone()], number).with_state(state))
    }

    fn accumulator(&self) -> Result<Sums> {
        Ok(Sums::default())
    }
}

/// Per group: the sum of values times weights, and of weights.
#[derive(Default)]
pub struct Sums {
    groups: Vec<(f64, f64)>,
}

impl Sums {
    fn add(&mut self, groups: &[u32], columns: &[ArrayRef], sign: f64, as_sums: bool) {
        let (left, right) = (columns[0].as_primitive::<Float64Type>(), columns[1].as_primitive::<Float64Type>());
        let rows = groups.iter().max().map_or(0, |group| *group as usize + 1);
        if rows > self.groups.len() {
            self.groups.resize(rows, (0.0, 0.0));
        }
        for (row, group) in groups.iter().enumerate() {
            if left.is_valid(row) && right.is_valid(row) {
                let (left, right) = (left.value(row), right.value(row));
                let (weighted, weights) = &mut self.groups[*group as usize];
                *weighted += sign * if as_sums { left } else { left * right };
                *weights += sign * right;
            }
        }
    }

    fn of(&self, group: u32) -> (f64, f64) {
        self.groups.get(group as usize).copied().unwrap_or_default()
    }
}

impl Accumulator for Sums {
    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        self.add(groups, arguments, 1.0, false);
        Ok(())
    }

    fn retract(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        self.add(groups, arguments, -1.0, false);
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<()> {
        self.add(groups, states, 1.0, true);
        Ok(())
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let column = |of: fn((f64, f64)) -> f64| -> ArrayRef {
            Arc::new(groups.iter().map(|group| Some(of(self.of(*group)))).collect::<Float64Array>())
        };
        Ok(vec![column(|(weighted, _)| weighted), column(|(_, weights)| weights)])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let mean = |group: &u32| {
            let (weighted, weights) = self.of(*group);
            (weights != 0.0).then(|| weighted / weights)
        };
        Ok(Arc::new(groups.iter().map(mean).collect::<Float64Array>()))
    }

    fn forget(&mut self, groups: &[u32]) {
        for group in groups {
            if let Some(sums) = self.groups.get_mut(*group as usize) {
                *sums = (0.0, 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use standpipe_sdk::testing::Harness;

    fn column(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    #[test]
    fn heavy_values_count_more_and_state_goes_on_elsewhere() {
        let function = Harness::aggregate::<WeightedAvg>(&json!({}), &[DataType::Float64, DataType::Int64]).unwrap();
        let mut groups = function.groups().unwrap();
        let values = column(&[Some(10.0), Some(20.0), Some(5.0), None]);
        let weights = column(&[Some(1.0), Some(3.0), Some(2.0), Some(9.0)]);
        groups.update(&[0, 0, 1, 1], &[values, weights]).unwrap();
        let mean = groups.evaluate(&[1, 0, 2]).unwrap();
        assert_eq!(mean.as_primitive::<Float64Type>(), &Float64Array::from(vec![Some(5.0), Some(17.5), None]));
        let mut other = function.groups().unwrap();
        other.merge(&[3, 0], &groups.state(&[0, 1]).unwrap()).unwrap();
        other.retract(&[3], &[column(&[Some(10.0)]), column(&[Some(1.0)])]).unwrap();
        assert_eq!(other.evaluate(&[3]).unwrap().as_primitive::<Float64Type>().value(0), 20.0);
        other.forget(&[3]).unwrap();
        assert!(other.evaluate(&[3]).unwrap().is_null(0));
    }

    #[test]
    fn it_takes_two_arguments() {
        let refused = Harness::aggregate::<WeightedAvg>(&json!({}), &[DataType::Float64]).unwrap_err().to_string();
        assert_eq!(refused, "weighted_avg: takes 2 arguments, not 1");
    }
}
