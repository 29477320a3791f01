//! Reducing state: a value per key into which others are folded, such as a sum or a maximum. The host keeps it as it keeps a value; the author says how two become one.

use crate::{Call, Result, ValueState, transform::StateKind};
use arrow_array::ArrowPrimitiveType;

/// A fixed-width value per key and how another one is added to it.
pub struct ReducingState<'a, T: ArrowPrimitiveType, F> {
    values: ValueState<'a, T>,
    reduce: F,
}

impl<T: ArrowPrimitiveType, F: Fn(T::Native, T::Native) -> Result<T::Native>> ReducingState<'_, T, F> {
    /// The key's value.
    ///
    /// # Panics
    /// When there is no such ordinal in this call, as an index does.
    #[must_use]
    #[inline]
    #[track_caller]
    pub fn get(&self, ordinal: u32) -> Option<T::Native> {
        self.values.get(ordinal)
    }

    /// Folds a value into the key's, and gives what it is then. The first one is taken as it is.
    ///
    /// # Errors
    /// As the author's function; the key's value is then as before.
    ///
    /// # Panics
    /// As `get`.
    #[inline]
    #[track_caller]
    pub fn add(&self, ordinal: u32, value: T::Native) -> Result<T::Native> {
        let reduced = match self.values.get(ordinal) {
            Some(before) => (self.reduce)(before, value)?,
            None => value,
        };
        self.values.set(ordinal, reduced);
        Ok(reduced)
    }

    /// Removes the key's value.
    ///
    /// # Panics
    /// As `get`.
    #[inline]
    #[track_caller]
    pub fn clear(&self, ordinal: u32) {
        self.values.clear(ordinal);
    }
}

impl Call<'_> {
    /// The values of a reducing state, one per key of the call; `reduce` makes one value of two.
    ///
    /// # Errors
    /// When the slot is no reducing state, or its type is not `T`.
    pub fn reducing<T, F>(&self, slot: u32, reduce: F) -> Result<ReducingState<'_, T, F>>
    where
        T: ArrowPrimitiveType,
        F: Fn(T::Native, T::Native) -> Result<T::Native>,
    {
        Ok(ReducingState { values: self.fixed(slot, &[StateKind::Reducing])?, reduce })
    }
}
