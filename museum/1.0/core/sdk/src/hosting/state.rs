//! Keyed state as the host keeps it: the trait that the state backend implements, for the keys of one call, and the columns that a call is lent.

use crate::{ErrorCode, TimeDomain};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::FieldRef;
use std::fmt;

/// The keys of a batch (or of timers), and the state behind them.
pub struct KeyedCall<'a> {
    /// For each row, or timer, the ordinal of its key.
    pub key_of_row: &'a [u32],
    /// The columns of `key_by`, one row per distinct key.
    pub keys: &'a RecordBatch,
    /// The state of these keys.
    pub state: &'a mut dyn KeyedState,
}

/// State of the keys of one call, by ordinal. What a call writes is committed when it succeeds and rolled back when it fails; reads in a call see its own writes.
/// Ordinals and slots are checked before they come here.
pub trait KeyedState {
    /// The declared field: of the value; of a list's items; for a map a struct of key and value.
    ///
    /// # Errors
    /// When there is no such slot.
    fn field(&self, slot: u32) -> Result<FieldRef, StateError>;
    /// Fills columns with the values of a fixed-width value state, one per ordinal. They come with width and length set, zeroed.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn gather(&mut self, slot: u32, into: &mut LentColumn) -> Result<(), StateError>;
    /// Takes the values back where `dirty` is not 0; where `validity` is 0 the value is removed.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn scatter(&mut self, slot: u32, from: &LentColumn) -> Result<(), StateError>;
    /// Values of some keys, null where there is none.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn value_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef, StateError>;
    /// Sets values; null removes. The last of a repeated ordinal holds.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn value_set(&mut self, slot: u32, ordinals: &[u32], values: ArrayRef) -> Result<(), StateError>;
    /// Lists of some keys: a list array of the declared field, null where there is none.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn list_get(&mut self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef, StateError>;
    /// Appends `values[i]` to the list of `ordinals[i]`, in order.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn list_append(&mut self, slot: u32, ordinals: &[u32], values: ArrayRef) -> Result<(), StateError>;
    /// Empties lists.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn list_clear(&mut self, slot: u32, ordinals: &[u32]) -> Result<(), StateError>;
    /// Values behind `keys[i]` in the map of `ordinals[i]`, null where there is none.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn map_get(&mut self, slot: u32, ordinals: &[u32], keys: ArrayRef) -> Result<ArrayRef, StateError>;
    /// Sets `keys[i]` to `values[i]` in the map of `ordinals[i]`.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn map_put(&mut self, slot: u32, ordinals: &[u32], keys: ArrayRef, values: ArrayRef) -> Result<(), StateError>;
    /// Removes `keys[i]` from the map of `ordinals[i]`.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn map_remove(&mut self, slot: u32, ordinals: &[u32], keys: ArrayRef) -> Result<(), StateError>;
    /// At most `limit` entries of one key's map in the order of its keys, from the key `from[0]` on: a struct array of the declared field.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn map_scan(&mut self, slot: u32, ordinal: u32, from: Option<ArrayRef>, limit: usize) -> Result<ArrayRef, StateError>;
    /// Sets timers; `slot` is the transform's own number.
    ///
    /// # Errors
    /// When timers cannot be written.
    fn timer_set(&mut self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<(), StateError>;
    /// Removes timers.
    ///
    /// # Errors
    /// When timers cannot be written.
    fn timer_delete(&mut self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<(), StateError>;
    /// The call has succeeded: what it wrote holds.
    fn commit(&mut self);
    /// The call has failed: what it wrote has never been.
    fn rollback(&mut self);
}

/// State could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// One line for people.
    pub message: String,
}

impl StateError {
    /// A failure of that kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StateError {}

/// Columns of a fixed-width value state that a call is lent: one value, one byte of validity and one of change per ordinal.
#[derive(Debug, Clone, Default)]
pub struct LentColumn {
    /// Bytes of one value; booleans have one.
    pub width: usize,
    values: Vec<u128>,
    /// 1 where the key has a value.
    pub validity: Vec<u8>,
    /// 1 where the call has changed value or validity.
    pub dirty: Vec<u8>,
}

impl LentColumn {
    /// Columns for `n` values of `width` bytes, zeroed.
    #[must_use]
    pub fn new(width: usize, n: usize) -> Self {
        let mut column = Self::default();
        column.reset(width, n);
        column
    }

    /// Makes room for `n` values of `width` bytes, zeroed; keeps its memory where that is enough.
    pub fn reset(&mut self, width: usize, n: usize) {
        self.width = width;
        self.values.clear();
        self.values.resize((width * n).div_ceil(size_of::<u128>()), 0);
        for column in [&mut self.validity, &mut self.dirty] {
            column.clear();
            column.resize(n, 0);
        }
    }

    /// How many values.
    #[must_use]
    pub fn n(&self) -> usize {
        self.validity.len()
    }

    /// The values' bytes, `n * width`, aligned to 16.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `values` has at least that many bytes (`reset`); any byte of a u128 is a valid u8.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), self.length()) }
    }

    /// The values' bytes, for writing.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; any bytes are a valid u128.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_mut_ptr().cast(), self.length()) }
    }

    /// `width` and `validity` are public: never more than there is.
    fn length(&self) -> usize {
        (self.width * self.n()).min(self.values.len() * size_of::<u128>())
    }
}
