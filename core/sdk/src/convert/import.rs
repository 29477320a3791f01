//! Batches on their way in. The sender's struct is held by every buffer that lies in its memory, and released with the last of them.

use super::{release_count, shape::check};
use crate::{Error, Result};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, GenericByteArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
    downcast_primitive, ffi, make_array, new_empty_array,
    types::{BinaryType, ByteArrayType, LargeBinaryType, LargeUtf8Type, Utf8Type},
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, SchemaRef};
use standpipe_abi::{ArrowArray, arrow_c};
use std::{ptr::NonNull, sync::Arc};

/// The batch behind its C form.
///
/// # Errors
/// When it has not the shape of the schema, or nulls where there may be none.
///
/// # Safety
/// `array` must be released or keep the rules of the Arrow C data interface, as an array of the schema's types.
pub unsafe fn import_batch(array: ArrowArray, schema: &SchemaRef) -> Result<RecordBatch> {
    // SAFETY: passed on to the caller.
    let owner = unsafe { Owner::checked(array, &DataType::Struct(schema.fields.clone())) }?;
    let rows = owner.array.length as usize;
    let whole = Part { owner: &owner, array: &owner.array, at: owner.array.offset as usize, rows };
    if whole.nulls().is_some() {
        return Err(Error::data("a batch has rows that are null as a whole"));
    }
    // SAFETY: the shape is that of the schema.
    let columns = schema.fields.iter().enumerate().map(|(index, field)| unsafe { whole.child(index).import(field.data_type()) });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// The array behind its C form.
///
/// # Errors
/// When it has not the shape of the type.
///
/// # Safety
/// As [`import_batch`].
pub unsafe fn import_array(array: ArrowArray, data_type: &DataType) -> Result<ArrayRef> {
    // SAFETY: passed on to the caller.
    let owner = unsafe { Owner::checked(array, data_type) }?;
    let whole = Part { owner: &owner, array: &owner.array, at: owner.array.offset as usize, rows: owner.array.length as usize };
    // SAFETY: the shape is that of the type.
    unsafe { whole.import(data_type) }
}

/// Releases the sender's struct with the last buffer that is in its memory.
struct Owner {
    array: ArrowArray,
}

// SAFETY: it is only read, until it is released, which Arrow's specification allows on any thread, and which `Drop` does once.
unsafe impl Sync for Owner {}

impl Owner {
    unsafe fn checked(array: ArrowArray, data_type: &DataType) -> Result<Arc<Self>> {
        if array.is_released() {
            return Err(Error::data("an array is missing"));
        }
        // SAFETY: the caller vouches for the memory behind the pointers.
        unsafe { check(&array, data_type, 0) }?;
        Ok(Arc::new(Self { array }))
    }
}

/// Rows of an array that has been checked for its type: `rows` of them from the one at `at` of its buffers.
#[derive(Clone, Copy)]
struct Part<'a> {
    owner: &'a Arc<Owner>,
    array: &'a ArrowArray,
    at: usize,
    rows: usize,
}

impl<'a> Part<'a> {
    /// The same rows of a column of this struct.
    ///
    /// # Safety
    /// There must be such a child, of as many rows.
    unsafe fn child(self, index: usize) -> Self {
        // SAFETY: by the caller's word; it lives as long as the struct.
        let array: &'a ArrowArray = unsafe { &*(*self.array.children.add(index)).cast::<ArrowArray>() };
        Self { array, at: array.offset as usize + self.at, ..self }
    }

    /// The array of those rows.
    ///
    /// # Errors
    /// When the arrow crate cannot read it.
    ///
    /// # Safety
    /// It must have been checked for this type.
    unsafe fn import(self, data_type: &DataType) -> Result<ArrayRef> {
        if self.rows == 0 {
            return Ok(new_empty_array(data_type));
        }
        // SAFETY: passed on to the caller.
        unsafe {
            match data_type {
                DataType::Boolean => Ok(self.flags()),
                DataType::Utf8 => self.bytes::<Utf8Type>(),
                DataType::LargeUtf8 => self.bytes::<LargeUtf8Type>(),
                DataType::Binary => self.bytes::<BinaryType>(),
                DataType::LargeBinary => self.bytes::<LargeBinaryType>(),
                data_type => {
                    macro_rules! values {
                        ($t:ty) => {
                            Ok(self.values::<$t>(data_type))
                        };
                    }
                    downcast_primitive! { data_type => (values), _ => self.nested(data_type) }
                }
            }
        }
    }

    unsafe fn flags(self) -> ArrayRef {
        // SAFETY: a buffer of flags has one for every row.
        let bits = unsafe { self.buffer(1, (self.at + self.rows).div_ceil(8)) };
        Arc::new(BooleanArray::new(BooleanBuffer::new(bits, self.at, self.rows), self.nulls()))
    }

    unsafe fn values<T: ArrowPrimitiveType>(self, data_type: &DataType) -> ArrayRef {
        // SAFETY: a buffer of values has one for every row.
        let values = unsafe { self.numbers::<T::Native>(self.rows) };
        let array = PrimitiveArray::<T>::new(values, self.nulls());
        // A time zone, a precision.
        Arc::new(if *data_type == T::DATA_TYPE { array } else { array.with_data_type(data_type.clone()) })
    }

    unsafe fn bytes<T: ByteArrayType>(self) -> Result<ArrayRef> {
        // SAFETY: a buffer of offsets has one more than rows.
        let offsets = unsafe { self.numbers::<T::Offset>(self.rows + 1) };
        // That of the array's last row has been checked; a struct may have less rows than its columns.
        let end = offsets.last().and_then(|end| end.to_usize());
        let end = end.ok_or_else(|| Error::data(format!("an array does not fit its type {}: its offsets", T::DATA_TYPE)))?;
        // SAFETY: each offset is as large as the former or larger: the last is where the data ends.
        unsafe {
            let data = self.buffer(2, end);
            Ok(Arc::new(GenericByteArray::<T>::new_unchecked(OffsetBuffer::new_unchecked(offsets), data, self.nulls())))
        }
    }

    /// What the arrow crate makes of it, to which it is lent under a `release` of its own.
    fn nested(self, data_type: &DataType) -> Result<ArrayRef> {
        let ArrowArray { length, null_count, offset, n_buffers, n_children, buffers, children, dictionary, .. } = *self.array;
        let lent = ArrowArray {
            length,
            null_count,
            offset,
            n_buffers,
            n_children,
            buffers,
            children,
            dictionary,
            release: Some(release_count::<Owner>),
            private_data: Arc::into_raw(Arc::clone(self.owner)).cast_mut().cast(),
        };
        // SAFETY: both are the C struct ArrowArray; its shape is that of the type, and it moves no child out.
        let array = make_array(unsafe { ffi::from_ffi_and_data_type(arrow_c::convert(lent), data_type.clone()) }?);
        let before = self.at - self.array.offset as usize;
        Ok(if before == 0 && array.len() == self.rows { array } else { array.slice(before, self.rows) })
    }

    /// So many values of buffer 1 from the first row on. Where C has put them at an odd address, they are copied.
    unsafe fn numbers<T: ArrowNativeType>(self, count: usize) -> ScalarBuffer<T> {
        // SAFETY: passed on to the caller.
        let buffer = unsafe { self.buffer(1, (self.at + count) * size_of::<T>()) };
        let is_aligned = buffer.as_ptr().cast::<T>().is_aligned();
        ScalarBuffer::new(if is_aligned { buffer } else { Buffer::from_slice_ref(buffer.as_slice()) }, self.at, count)
    }

    fn nulls(self) -> Option<NullBuffer> {
        // SAFETY: buffer 0 of these types is the validity, of a bit for every row.
        let is_absent = self.array.null_count == 0 || unsafe { (*self.array.buffers).is_null() };
        if is_absent {
            return None;
        }
        // SAFETY: as above.
        let bits = unsafe { self.buffer(0, (self.at + self.rows).div_ceil(8)) };
        Some(NullBuffer::new(BooleanBuffer::new(bits, self.at, self.rows))).filter(|nulls| nulls.null_count() > 0)
    }

    /// # Safety
    /// There must be such a buffer, of as many bytes.
    unsafe fn buffer(self, index: usize, bytes: usize) -> Buffer {
        // SAFETY: by the caller's word.
        let start = NonNull::new(unsafe { *self.array.buffers.add(index) }.cast_mut().cast::<u8>());
        match start {
            // SAFETY: as above; the owner keeps them.
            Some(start) if bytes > 0 => unsafe { Buffer::from_custom_allocation(start, bytes, Arc::clone(self.owner) as _) },
            _ => Buffer::default(),
        }
    }
}
