//! Reading a plugin's tables. A plugin of a newer minor version has longer tables, one in C may have forgotten a member: a table is copied as far as both sides know
//! it, and every function of it must be there.

use standpipe_abi::{
    deployment::DeploymentTable,
    function::{AggregateTable, ScalarTable},
    growing::{self, Growing, Unusable},
    sink::SinkTable,
    source::{EnumeratorTable, SourceTable},
    transform::TransformTable,
};
use std::{ffi::c_void, fmt, mem::offset_of};

/// A table that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// The plugin gave none.
    Missing,
    /// It ends before a function that 1.0 has.
    Short {
        /// Its bytes.
        size: usize,
        /// The bytes of 1.0.
        needed: usize,
    },
    /// The function at that position is null.
    Null(usize),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Short { size, needed } => write!(f, "is too short: {size} bytes, {needed} needed"),
            Self::Null(index) => write!(f, "has no function at position {index}"),
        }
    }
}

impl From<Unusable> for TableError {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Missing => Self::Missing,
            Unusable::Short { size, needed } => Self::Short { size, needed },
        }
    }
}

/// A table of a plugin: `size`, `reserved`, then functions alone.
///
/// All members of 1.0 are required. A member that a later minor version appends is an `Option`, and `None` where the plugin's table is shorter.
///
/// # Safety
/// The layout must be that.
pub(super) unsafe trait Table: Growing + Copy {}

// SAFETY: as declared in `standpipe-abi`: two u32, then non-null functions.
unsafe impl Table for SourceTable {}
// SAFETY: as above.
unsafe impl Table for EnumeratorTable {}
// SAFETY: as above.
unsafe impl Table for TransformTable {}
// SAFETY: as above.
unsafe impl Table for SinkTable {}
// SAFETY: as above.
unsafe impl Table for DeploymentTable {}
// SAFETY: as above.
unsafe impl Table for ScalarTable {}
// SAFETY: as above.
unsafe impl Table for AggregateTable {}

const HEADER: usize = offset_of!(SourceTable, validate);

/// Copies a table.
///
/// # Safety
/// `table` must be null or point to as many bytes as its first member says, and be aligned as a pointer.
pub(super) unsafe fn read<T: Table>(table: *const c_void) -> Result<T, TableError> {
    // SAFETY: passed on to the caller.
    unsafe { growing::shared(table.cast::<T>()) }?;
    let functions = (T::REQUIRED - HEADER) / size_of::<usize>();
    for index in 0..functions {
        // SAFETY: inside of the table.
        if unsafe { table.byte_add(HEADER).cast::<usize>().add(index).read() } == 0 {
            return Err(TableError::Null(index));
        }
    }
    // SAFETY: required functions are not null, the others may be zero.
    Ok(unsafe { growing::read(table.cast::<T>()) }?)
}

/// How to ask a plugin for its tables, by id (`source/1`).
pub struct Tables<'a>(&'a dyn Fn(&str) -> *const c_void);

impl<'a> Tables<'a> {
    /// Tables by what `interface(kind, id)` gives.
    ///
    /// # Safety
    /// What `find` gives must be null or a table of that id that lives for ever.
    #[must_use]
    pub unsafe fn new(find: &'a dyn Fn(&str) -> *const c_void) -> Self {
        Self(find)
    }

    pub(super) fn read<T: Table>(&self, id: &str) -> Result<T, String> {
        // SAFETY: by the word of who made this.
        unsafe { read((self.0)(id)) }.map_err(|error| format!("the table {id} {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: &[usize]) -> Result<SinkTable, TableError> {
        // SAFETY: the first word says how long it is, or less.
        unsafe { read::<SinkTable>(words.as_ptr().cast()) }
    }

    #[test]
    fn a_short_table_and_a_missing_function_are_refused() {
        let needed = size_of::<SinkTable>();
        assert_eq!(table(&[16, 1]).err(), Some(TableError::Short { size: 16, needed }));
        let mut words = vec![1; needed / size_of::<usize>()];
        words[0] = needed;
        words[3] = 0;
        assert_eq!(table(&words).err(), Some(TableError::Null(2)));
        // SAFETY: null is a table that is missing.
        assert_eq!(unsafe { read::<SinkTable>(std::ptr::null()) }.err(), Some(TableError::Missing));
    }

    #[test]
    fn a_longer_table_is_read_as_far_as_it_is_known() {
        let mut words = vec![1; size_of::<SinkTable>() / size_of::<usize>() + 2];
        words[0] = words.len() * size_of::<usize>();
        assert!(table(&words).is_ok());
    }
}
