//! Accumulators that fold each value into one: count, sum, mean, smallest and largest.

use super::accumulator::{Accumulator, AccumulatorError, Result, typed};
use arrow::{
    array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BinaryArray, Float64Array, Int64Array, PrimitiveArray},
    buffer::{BooleanBuffer, NullBuffer, ScalarBuffer},
    compute::cast,
    datatypes::{
        DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type,
        i256,
    },
    error::ArrowError,
};
use std::{cmp::Ordering, marker::PhantomData, sync::Arc};

/// Which of two values is kept. The order is total, so that the result does not depend on the order of rows: -0.0 is below 0.0, and NaN, of whatever sign, above every
/// number, as in PostgreSQL. The smallest value is therefore a number if there is one, the largest NaN if there is one.
pub(in crate::operators) trait Order: Send + Sync + 'static {
    /// How a value that replaces the kept one compares to it.
    const REPLACES: Ordering;

    /// Whether `new` is kept in the place of `kept`.
    #[inline]
    fn replaces<N: ArrowNativeTypeOp>(new: N, kept: N) -> bool {
        let (better, worse) = if Self::REPLACES == Ordering::Less { (new < kept, new > kept) } else { (new > kept, new < kept) };
        better || (!worse && tie(new, kept) == Self::REPLACES)
    }
}

/// The order of two values that are equal as numbers, or of which one is none.
fn tie<N: ArrowNativeTypeOp>(left: N, right: N) -> Ordering {
    if left == right { left.compare(right) } else { is_nan(left).cmp(&is_nan(right)) }
}

#[inline]
fn is_nan<N: PartialOrd>(value: N) -> bool {
    value.partial_cmp(&value).is_none()
}

/// The smallest value.
pub(in crate::operators) struct Smallest;
/// The largest value.
pub(in crate::operators) struct Largest;

impl Order for Smallest {
    const REPLACES: Ordering = Ordering::Less;
}
impl Order for Largest {
    const REPLACES: Ordering = Ordering::Greater;
}

/// How a number is folded into another; `None`: the result does not fit.
pub(super) trait Combine<N>: Send + 'static {
    fn combine(kept: N, new: N) -> Option<N>;
}

impl<N: ArrowNativeTypeOp, O: Order> Combine<N> for O {
    #[inline]
    fn combine(kept: N, new: N) -> Option<N> {
        Some(if O::replaces(new, kept) { new } else { kept })
    }
}

/// Their sum.
pub(super) struct Sum;

impl Combine<i64> for Sum {
    #[inline]
    fn combine(kept: i64, new: i64) -> Option<i64> {
        kept.checked_add(new)
    }
}
impl Combine<u64> for Sum {
    #[inline]
    fn combine(kept: u64, new: u64) -> Option<u64> {
        kept.checked_add(new)
    }
}
impl Combine<i128> for Sum {
    #[inline]
    fn combine(kept: i128, new: i128) -> Option<i128> {
        let limit = Decimal128Type::MAX_FOR_EACH_PRECISION[DECIMAL128_MAX_PRECISION as usize];
        kept.checked_add(new).filter(|sum| (-limit..=limit).contains(sum))
    }
}
impl Combine<i256> for Sum {
    #[inline]
    fn combine(kept: i256, new: i256) -> Option<i256> {
        let limit = Decimal256Type::MAX_FOR_EACH_PRECISION[DECIMAL256_MAX_PRECISION as usize];
        kept.checked_add(new).filter(|sum| *sum <= limit && *sum >= limit.wrapping_neg())
    }
}
impl Combine<f64> for Sum {
    #[inline]
    fn combine(kept: f64, new: f64) -> Option<f64> {
        Some(kept + new)
    }
}

/// A number per key; null until the first that is not.
pub(super) struct NumberFold<T: ArrowPrimitiveType, C> {
    data_type: DataType,
    values: Vec<T::Native>,
    seen: Vec<bool>,
    combine: PhantomData<C>,
}

impl<T: ArrowPrimitiveType, C: Combine<T::Native>> NumberFold<T, C> {
    pub(super) fn new(data_type: DataType) -> Self {
        Self { data_type, values: Vec::new(), seen: Vec::new(), combine: PhantomData }
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, T::Native::default());
        self.seen.resize(groups, false);
    }

    #[inline]
    fn fold(&mut self, id: u32, new: T::Native) -> Option<T::Native> {
        let at = id as usize;
        let value = if self.seen[at] { C::combine(self.values[at], new)? } else { new };
        self.values[at] = value;
        self.seen[at] = true;
        Some(value)
    }

    fn overflow(&self) -> AccumulatorError {
        AccumulatorError::Overflow(self.data_type.clone())
    }

    fn array(&self, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(self.data_type.clone()))
    }
}

impl<T: ArrowPrimitiveType, C: Combine<T::Native>> Accumulator for NumberFold<T, C> {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        let values = typed(values, &self.data_type)?;
        let values = values.as_primitive::<T>();
        self.grow(groups);
        let mut rows = ids.iter().zip(values.values());
        let folded = match values.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => rows.try_for_each(|(id, value)| self.fold(*id, *value).map(drop)),
            Some(nulls) => {
                rows.zip(nulls).try_for_each(|((id, value), valid)| if valid { self.fold(*id, *value).map(drop) } else { Some(()) })
            }
        };
        folded.ok_or_else(|| self.overflow())
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        let values = typed(values, &self.data_type)?;
        let values = values.as_primitive::<T>();
        self.grow(groups);
        let mut running = Vec::with_capacity(ids.len());
        let Some(nulls) = values.nulls().filter(|nulls| nulls.null_count() > 0) else {
            for (id, value) in ids.iter().zip(values.values()) {
                running.push(self.fold(*id, *value).ok_or_else(|| self.overflow())?);
            }
            return Ok(self.array(running, None));
        };
        let mut known = Vec::with_capacity(ids.len());
        for ((id, value), valid) in ids.iter().zip(values.values()).zip(nulls) {
            if valid {
                self.fold(*id, *value).ok_or_else(|| self.overflow())?;
            }
            running.push(self.values[*id as usize]);
            known.push(self.seen[*id as usize]);
        }
        Ok(self.array(running, Some(known.into())))
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        let values = ids.iter().map(|id| self.values[*id as usize]).collect();
        let nulls = ids.iter().map(|id| self.seen[*id as usize]).collect::<BooleanBuffer>();
        Ok(self.array(values, Some(NullBuffer::new(nulls))))
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.read(ids)?])
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.data_type.clone()]
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.update(ids, groups, state)
    }

    fn clear(&mut self) -> Result<()> {
        self.values.clear();
        self.seen.clear();
        Ok(())
    }
}

/// More rows of a key than any job has: a table that says more is damaged, and what is counted on to it would not fit.
const MOST_ROWS: i64 = 1 << 48;

/// A column of counts.
fn restored_counts(state: &[ArrayRef]) -> Result<ArrayRef> {
    let counts = typed(state, &DataType::Int64)?;
    let wrong = counts.as_primitive::<Int64Type>().values().iter().copied().find(|count| !(0..=MOST_ROWS).contains(count));
    match wrong {
        None => Ok(counts),
        Some(wrong) => Err(ArrowError::InvalidArgumentError(format!("no job has counted {wrong} rows")).into()),
    }
}

/// Rows, or rows where the argument is not null.
#[derive(Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Accumulator for Count {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        self.counts.resize(groups, 0);
        match values.first().and_then(|values| values.logical_nulls()) {
            None => ids.iter().for_each(|id| self.counts[*id as usize] += 1),
            Some(nulls) => ids.iter().zip(&nulls).for_each(|(id, valid)| self.counts[*id as usize] += i64::from(valid)),
        }
        Ok(())
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        self.counts.resize(groups, 0);
        let nulls = values.first().and_then(|values| values.logical_nulls());
        let running = ids.iter().enumerate().map(|(row, id)| {
            let count = &mut self.counts[*id as usize];
            *count += i64::from(nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)));
            *count
        });
        Ok(Arc::new(Int64Array::from_iter_values(running)))
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| self.counts[*id as usize]))))
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.read(ids)?])
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64]
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.counts.resize(groups, 0);
        let counts = restored_counts(state)?;
        ids.iter().zip(counts.as_primitive::<Int64Type>().values()).for_each(|(id, count)| self.counts[*id as usize] = *count);
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.counts.clear();
        Ok(())
    }
}

/// The mean, a float64; null until the first value that is not.
#[derive(Default)]
pub(super) struct Average {
    sums: Vec<f64>,
    counts: Vec<i64>,
}

impl Average {
    fn mean(&self, id: u32) -> Option<f64> {
        let count = self.counts[id as usize];
        (count > 0).then(|| self.sums[id as usize] / count as f64)
    }

    fn add(&mut self, id: u32, value: Option<f64>) {
        if let Some(value) = value {
            self.sums[id as usize] += value;
            self.counts[id as usize] += 1;
        }
    }

    fn grow(&mut self, groups: usize) {
        self.sums.resize(groups, 0.0);
        self.counts.resize(groups, 0);
    }
}

impl Accumulator for Average {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        let values = typed(values, &DataType::Float64)?;
        self.grow(groups);
        ids.iter().zip(values.as_primitive::<Float64Type>()).for_each(|(id, value)| self.add(*id, value));
        Ok(())
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        let values = typed(values, &DataType::Float64)?;
        self.grow(groups);
        let running = ids.iter().zip(values.as_primitive::<Float64Type>()).map(|(id, value)| {
            self.add(*id, value);
            self.mean(*id)
        });
        Ok(Arc::new(running.collect::<Float64Array>()))
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(ids.iter().map(|id| self.mean(*id)).collect::<Float64Array>()))
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        let sums = Float64Array::from_iter_values(ids.iter().map(|id| self.sums[*id as usize]));
        let counts = Int64Array::from_iter_values(ids.iter().map(|id| self.counts[*id as usize]));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Float64, DataType::Int64]
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.grow(groups);
        let (sums, counts) = (typed(state, &DataType::Float64)?, restored_counts(state.get(1..).unwrap_or_default())?);
        let state = sums.as_primitive::<Float64Type>().values().iter().zip(counts.as_primitive::<Int64Type>().values());
        for (id, (sum, count)) in ids.iter().zip(state) {
            self.sums[*id as usize] = *sum;
            self.counts[*id as usize] = *count;
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.sums.clear();
        self.counts.clear();
        Ok(())
    }
}

/// The smallest or largest string or binary value, by its bytes.
pub(super) struct BytesFold<O> {
    data_type: DataType,
    values: Vec<Option<Box<[u8]>>>,
    order: PhantomData<O>,
}

impl<O: Order> BytesFold<O> {
    pub(super) fn new(data_type: DataType) -> Self {
        Self { data_type, values: Vec::new(), order: PhantomData }
    }

    /// The plain type of the same kind.
    fn plain(&self) -> DataType {
        match self.data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            _ => DataType::Binary,
        }
    }

    fn bytes(&self, values: &[ArrayRef]) -> Result<ArrayRef> {
        Ok(cast(&typed(values, &self.plain())?, &DataType::Binary)?)
    }

    fn array<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let binary: ArrayRef = Arc::new(values.collect::<BinaryArray>());
        Ok(cast(&cast(&binary, &self.plain())?, &self.data_type)?)
    }

    fn fold(&mut self, id: u32, new: Option<&[u8]>) {
        let kept = &mut self.values[id as usize];
        let Some(new) = new else { return };
        if kept.as_deref().is_none_or(|kept| new.cmp(kept) == O::REPLACES) {
            *kept = Some(new.into());
        }
    }
}

impl<O: Order> Accumulator for BytesFold<O> {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        let values = self.bytes(values)?;
        self.values.resize(groups, None);
        ids.iter().zip(values.as_binary::<i32>()).for_each(|(id, value)| self.fold(*id, value));
        Ok(())
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        let values = self.bytes(values)?;
        self.values.resize(groups, None);
        let mut running = arrow::array::BinaryBuilder::with_capacity(ids.len(), 0);
        for (id, value) in ids.iter().zip(values.as_binary::<i32>()) {
            self.fold(*id, value);
            running.append_option(self.values[*id as usize].as_deref());
        }
        let running: ArrayRef = Arc::new(running.finish());
        Ok(cast(&cast(&running, &self.plain())?, &self.data_type)?)
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        self.array(ids.iter().map(|id| self.values[*id as usize].as_deref()))
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.read(ids)?])
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.data_type.clone()]
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.update(ids, groups, state)
    }

    fn clear(&mut self) -> Result<()> {
        self.values.clear();
        Ok(())
    }
}
