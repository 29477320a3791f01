//! Batches on their way out.
//!
//! A batch is one block: its columns, their C structs and the pointers to these. Every C struct holds the block by a count of its own, because a receiver may move a child
//! out and release its parent (Arrow C data interface, "Moving child arrays").

use super::release_count;
use crate::Result;
use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions,
    cast::AsArray,
    downcast_primitive, ffi,
    types::{BinaryType, ByteArrayType, LargeBinaryType, LargeUtf8Type, Utf8Type},
};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_schema::{DataType, SchemaRef};
use standpipe_abi::{ArrowArray, Batch, arrow_c};
use std::{ffi::c_void, ptr, sync::Arc};

/// The C form of a batch.
#[must_use]
pub fn export_batch(batch: RecordBatch) -> Batch {
    let rows = batch.num_rows();
    let (_, columns, _) = batch.into_parts();
    Batch::new(Block::export(columns, rows))
}

/// The C form of columns, which must be those of the schema, of so many rows each.
///
/// # Errors
/// When they are not.
pub fn export_columns(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<Batch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(export_batch(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?))
}

/// The C form of an array.
#[must_use]
pub fn export_array(array: &dyn Array) -> ArrowArray {
    let exported = ffi::FFI_ArrowArray::new(&array.to_data());
    // SAFETY: both are the C struct ArrowArray.
    unsafe { arrow_c::convert(exported) }
}

/// A batch that was sent, until its last C struct is released.
struct Block {
    /// Keep the memory that the C structs point to.
    _columns: Vec<ArrayRef>,
    _validity: Vec<Buffer>,
    /// Of `Box<[Child]>`. Receivers write into these, so that no reference to them may last.
    children: *mut [Child],
    /// What the C struct of the batch names as its children.
    pointers: *mut [*mut c_void],
    /// A batch has no nulls of its own.
    no_validity: *const c_void,
}

/// A column's C struct, and its buffers: validity, values or offsets, data.
struct Child {
    array: ArrowArray,
    buffers: [*const c_void; 3],
}

// SAFETY: what it points to is its own; only the C structs are written to, by the one who holds the batch.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    fn export(columns: Vec<ArrayRef>, rows: usize) -> ArrowArray {
        let mut validity = Vec::new();
        let children: Box<[Child]> = columns.iter().map(|column| Child::of(column, &mut validity)).collect();
        let count = children.len();
        let children = Box::into_raw(children);
        let child = |index: usize| children.cast::<Child>().wrapping_add(index);
        // SAFETY: there are `count` of them, and nobody else has them yet.
        let pointers = (0..count).map(|index| unsafe { (&raw mut (*child(index)).array).cast::<c_void>() }).collect::<Box<[_]>>();
        let pointers = Box::into_raw(pointers);
        let block = Arc::new(Self { _columns: columns, _validity: validity, children, pointers, no_validity: ptr::null() });
        for child in (0..count).map(child) {
            // SAFETY: as above.
            unsafe {
                if (*child).array.release.is_none() {
                    (*child).array.buffers = (&raw mut (*child).buffers).cast();
                    (*child).array.release = Some(release_count::<Self>);
                    (*child).array.private_data = Arc::into_raw(Arc::clone(&block)).cast_mut().cast();
                }
            }
        }
        ArrowArray {
            length: rows as i64,
            null_count: 0,
            offset: 0,
            n_buffers: 1,
            n_children: count as i64,
            buffers: (&raw const block.no_validity).cast_mut(),
            children: pointers.cast(),
            dictionary: ptr::null_mut(),
            release: Some(release_batch),
            private_data: Arc::into_raw(block).cast_mut().cast(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: both were boxes, and no C struct that refers to them is left: each has held the block.
        unsafe {
            drop(Box::from_raw(self.children));
            drop(Box::from_raw(self.pointers));
        }
    }
}

/// `release` of a batch.
unsafe extern "C" fn release_batch(array: *mut c_void) {
    // SAFETY: called once, with the struct that `export` has made or what it was moved to; its children are the block's own, or have been moved out.
    unsafe {
        let array = array.cast::<ArrowArray>();
        let block = Arc::from_raw((*array).private_data.cast::<Block>().cast_const());
        for index in 0..block.pointers.len() {
            let child = *block.pointers.cast::<*mut ArrowArray>().add(index);
            if let Some(release) = (*child).release {
                release(child.cast());
            }
        }
        (*array).release = None;
    }
}

impl Child {
    /// Describes a column: by itself where it is of one buffer of values, or of offsets and data; else as the arrow crate does, and then it has its `release` already.
    fn of(column: &ArrayRef, kept: &mut Vec<Buffer>) -> Self {
        let plain = match column.data_type() {
            DataType::Boolean => {
                let flags = column.as_boolean();
                let bits = flags.values();
                Self::plain(column, bits.offset(), [bits.inner().as_ptr(), ptr::null()], 2, kept)
            }
            DataType::Utf8 => Self::bytes::<Utf8Type>(column, kept),
            DataType::LargeUtf8 => Self::bytes::<LargeUtf8Type>(column, kept),
            DataType::Binary => Self::bytes::<BinaryType>(column, kept),
            DataType::LargeBinary => Self::bytes::<LargeBinaryType>(column, kept),
            data_type => {
                macro_rules! values {
                    ($t:ty) => {
                        Self::plain(column, 0, [column.as_primitive::<$t>().values().inner().as_ptr(), ptr::null()], 2, kept)
                    };
                }
                downcast_primitive! { data_type => (values), _ => None }
            }
        };
        plain.unwrap_or_else(|| Self { array: export_array(column), buffers: [ptr::null(); 3] })
    }

    fn bytes<T: ByteArrayType>(column: &ArrayRef, kept: &mut Vec<Buffer>) -> Option<Self> {
        let bytes = column.as_bytes::<T>();
        Self::plain(column, 0, [bytes.offsets().inner().inner().as_ptr(), bytes.values().as_ptr()], 3, kept)
    }

    /// A column whose first row stands at `offset` of its values. A C struct has one offset for values and validity: where theirs differ, the validity is moved to the
    /// first bit; values cannot be, and give none.
    fn plain(column: &ArrayRef, offset: usize, [values, data]: [*const u8; 2], buffers: i64, kept: &mut Vec<Buffer>) -> Option<Self> {
        let nulls = column.nulls();
        let validity = match nulls {
            None => ptr::null(),
            Some(nulls) if nulls.offset() == offset => nulls.buffer().as_ptr(),
            Some(nulls) if offset == 0 => {
                let moved = nulls.inner().sliced();
                let place = moved.as_ptr();
                kept.push(moved);
                place
            }
            Some(_) => return None,
        };
        let array = ArrowArray {
            length: column.len() as i64,
            null_count: nulls.map_or(0, NullBuffer::null_count) as i64,
            offset: offset as i64,
            n_buffers: buffers,
            ..ArrowArray::empty()
        };
        Some(Self { array, buffers: [validity.cast(), values.cast(), data.cast()] })
    }
}
