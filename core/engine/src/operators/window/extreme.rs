//! `min` and `max` of floats in a window, by the order of the running ones (`operators::aggregate::fold`): in DataFusion's a NaN replaces every value and is replaced by
//! every value, so that they depend on the order of rows. Called by the panes (`pane`); of everything but floats DataFusion's are right.

use super::pane::WindowFunction;
use crate::operators::aggregate::fold::{Largest, Order, Smallest};
use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray},
    datatypes::{DataType, Float16Type, Float32Type, Float64Type},
};
use datafusion_common::{Result, internal_err};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::NullState;
use std::{marker::PhantomData, sync::Arc};

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// The accumulator of a smallest or largest float; `None` for every other function.
pub(super) fn of_floats(function: &WindowFunction) -> Option<Box<dyn GroupsAccumulator>> {
    let field = function.function.field();
    match (function.function.fun().name(), field.data_type()) {
        ("min", DataType::Float16) => Some(Extreme::<Float16Type, Smallest>::boxed(Half::NAN)),
        ("min", DataType::Float32) => Some(Extreme::<Float32Type, Smallest>::boxed(f32::NAN)),
        ("min", DataType::Float64) => Some(Extreme::<Float64Type, Smallest>::boxed(f64::NAN)),
        ("max", DataType::Float16) => Some(Extreme::<Float16Type, Largest>::boxed(Half::NEG_INFINITY)),
        ("max", DataType::Float32) => Some(Extreme::<Float32Type, Largest>::boxed(f32::NEG_INFINITY)),
        ("max", DataType::Float64) => Some(Extreme::<Float64Type, Largest>::boxed(f64::NEG_INFINITY)),
        _ => None,
    }
}

/// A value per group.
struct Extreme<T: ArrowPrimitiveType, O> {
    values: Vec<T::Native>,
    /// Which groups have a value.
    nulls: NullState,
    /// What every value replaces or equals.
    start: T::Native,
    order: PhantomData<O>,
}

impl<T: ArrowPrimitiveType + Send, O: Order> Extreme<T, O> {
    fn boxed(start: T::Native) -> Box<dyn GroupsAccumulator> {
        Box::new(Self { values: Vec::new(), nulls: NullState::new(), start, order: PhantomData })
    }
}

impl<T: ArrowPrimitiveType + Send, O: Order> GroupsAccumulator for Extreme<T, O> {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total_groups: usize) -> Result<()> {
        let Some(new) = values.first().and_then(|values| values.as_primitive_opt::<T>()) else {
            return internal_err!("an extreme is of one argument, of its own type");
        };
        let Self { values, nulls, start, .. } = self;
        values.resize(total_groups, *start);
        nulls.accumulate(groups, new, filter, total_groups, |group, new| {
            let kept = &mut values[group];
            if O::replaces(new, *kept) {
                *kept = new;
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let values = emit_to.take_needed(&mut self.values);
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), self.nulls.build(emit_to))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        internal_err!("a window aggregates all rows itself")
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.nulls.size()
    }
}
