//! A function of a plugin behind the interface of accumulators.

use super::{accumulator::Accumulator, plugin::new};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::{DataType, Field, Int64Type},
};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_loader::Catalogue;
use standpipe_sdk::{Accumulator as Groups, AggregateFunction as Function, Bound, Error, export::Kind};
use std::sync::Arc;

/// Adds, and refuses a 13.
struct Adding;

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Default)]
struct Sums(Vec<i64>);

impl Function for Adding {
    const NAME: &'static str = "adding";
    type Config = Nothing;
    type Accumulator = Sums;

    fn bind(_: Nothing, _: &[Arc<Field>]) -> standpipe_sdk::Result<Bound<Self>> {
        Ok(Bound::new(Self, [DataType::Int64, DataType::Int64], DataType::Int64).with_state([("sum", DataType::Int64)]))
    }

    fn accumulator(&self) -> standpipe_sdk::Result<Sums> {
        Ok(Sums::default())
    }
}

impl Groups for Sums {
    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> standpipe_sdk::Result<()> {
        let (left, right) = (arguments[0].as_primitive::<Int64Type>(), arguments[1].as_primitive::<Int64Type>());
        for ((group, left), right) in groups.iter().zip(left.values()).zip(right.values()) {
            if *left == 13 {
                return Err(Error::data("no 13"));
            }
            let group = *group as usize;
            self.0.resize(self.0.len().max(group + 1), 0);
            self.0[group] += left + right;
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], states: &[ArrayRef]) -> standpipe_sdk::Result<()> {
        let zeros: ArrayRef = Arc::new(Int64Array::from(vec![0; groups.len()]));
        self.update(groups, &[Arc::clone(&states[0]), zeros])
    }

    fn state(&self, groups: &[u32]) -> standpipe_sdk::Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn evaluate(&self, groups: &[u32]) -> standpipe_sdk::Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| self.0.get(*group as usize).copied().unwrap_or_default()))))
    }

    fn forget(&mut self, groups: &[u32]) {
        groups.iter().for_each(|group| self.0[*group as usize] = 0);
    }
}

fn fold() -> Box<dyn Accumulator> {
    let catalogue = Catalogue::linked("test", &[Kind::aggregate::<Adding>()]);
    let fields: Vec<Arc<Field>> = ["a", "b"].map(|name| Arc::new(Field::new(name, DataType::Int64, true))).into();
    new(&catalogue.aggregate("adding").unwrap().bind(&serde_json::json!({}), &fields).unwrap()).unwrap()
}

fn numbers(numbers: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(numbers.to_vec()))
}

fn values(array: &ArrayRef) -> Vec<i64> {
    array.as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn each_row_gives_the_value_after_it() {
    let mut fold = fold();
    let rows = [numbers(&[1, 2, 3, 4, 5]), numbers(&[10, 10, 10, 10, 10])];
    let running = fold.update_each(&[0, 1, 0, 0, 2], 3, &rows).unwrap();
    assert_eq!(values(&running), [11, 12, 24, 38, 15]);
    let none = fold.update_each(&[], 3, &[numbers(&[]), numbers(&[])]).unwrap();
    assert_eq!(values(&none), [0; 0]);
    assert_eq!(values(&fold.read(&[2, 0]).unwrap()), [15, 38]);
}

#[test]
fn state_goes_on_elsewhere_under_other_ids() {
    let mut first = fold();
    first.update(&[0, 1], 2, &[numbers(&[1, 2]), numbers(&[5, 5])]).unwrap();
    let state = first.state(&[1, 0]).unwrap();
    assert_eq!(state.iter().map(|column| column.data_type().clone()).collect::<Vec<_>>(), first.state_types());
    let mut second = fold();
    second.restore(&[4, 7], 8, &state).unwrap();
    second.update(&[7], 8, &[numbers(&[100]), numbers(&[0])]).unwrap();
    assert_eq!(values(&second.read(&[4, 7]).unwrap()), [7, 106]);
    second.clear().unwrap();
    assert_eq!(values(&second.read(&[4, 7]).unwrap()), [0, 0]);
}

#[test]
fn a_failure_is_the_functions() {
    let failed = fold().update(&[0], 1, &[numbers(&[13]), numbers(&[0])]).unwrap_err().to_string();
    assert_eq!(failed, "adding: no 13");
}
