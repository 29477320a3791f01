//! The smallest and largest of floats with all that is special about them, in windows, and the same as running.

use super::one_key::{running, windowed};
use crate::operators::testing::{float_extremes, floats};
use arrow::{
    array::{ArrayRef, AsArray, Float64Array},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use datafusion_functions_aggregate::min_max::{max_udaf, min_udaf};
use proptest::prelude::*;
use standpipe_pipeline::plan::RunningFunction;
use std::sync::Arc;

/// The bits of the one value, as a float64 and with every NaN as the same one; `None`: null.
fn bits(value: &ArrayRef) -> Option<u64> {
    let value = cast(value, &DataType::Float64).unwrap();
    let value = value.as_primitive::<Float64Type>().iter().next().flatten();
    value.map(|value| if value.is_nan() { f64::NAN } else { value }.to_bits())
}

/// In batches of three.
fn batches(values: &[Option<f64>], data_type: &DataType) -> Vec<ArrayRef> {
    values.chunks(3).map(|values| cast(&(Arc::new(Float64Array::from(values.to_vec())) as ArrayRef), data_type).unwrap()).collect()
}

proptest! {
    #[test]
    fn extremes_of_floats_do_not_depend_on_the_order_of_rows((values, shuffled) in floats()) {
        for data_type in [DataType::Float64, DataType::Float32, DataType::Float16] {
            let rounded: Vec<Option<f64>> = batches(&values, &data_type)
                .iter()
                .flat_map(|batch| cast(batch, &DataType::Float64).unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>())
                .collect();
            let (low, high) = float_extremes(&rounded);
            let expected = [low, high].map(|value| bits(&(Arc::new(Float64Array::from(vec![value])) as ArrayRef)));
            for values in [&values, &shuffled] {
                let batches = batches(values, &data_type);
                let found = [windowed(&min_udaf(), &batches, false), windowed(&max_udaf(), &batches, false)].map(|value| bits(&value.unwrap()));
                prop_assert_eq!(found, expected);
                let found = [running(RunningFunction::Min, &batches), running(RunningFunction::Max, &batches)].map(|value| bits(&value.unwrap()));
                prop_assert_eq!(found, expected);
            }
        }
    }
}
