//! Arrow values of the arrow crate on their way to and from the C structs of `standpipe-abi`. Schemas cross once; batches cross as arrays and are read by the
//! schema that is known. Nothing is copied: the receiver holds the sender's buffers until it drops the last array made of them.
//!
//! An array from the other side is checked for the shape that its type needs (children, buffers, lengths, first and last offsets) before it is read. What the
//! buffers hold is taken on trust, as the Arrow C data interface has it: both sides run in one process.
//!
//! Columns of one buffer of values, or of offsets and values, are all that most batches have. Those cross by what is written here, with a handful of allocations for a whole
//! batch on the sender's side; all others by the arrow crate's own conversion, which allocates for each array, its lists of buffers and children, and its description.
#![allow(unsafe_code, reason = "crosses to the Arrow C data interface")]

mod export;
mod import;
mod shape;

pub use export::{export_array, export_batch, export_columns};
pub use import::{import_array, import_batch};

use crate::{Error, Result};
use arrow_array::ffi;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use standpipe_abi::{ArrowArray, ArrowSchema, arrow_c};
use std::{ffi::c_void, sync::Arc};

/// `release` of an array whose `private_data` is one count of an `Arc<T>`, which keeps its memory.
///
/// # Safety
/// `array` must point to such an array, which is not released yet. It may lie in what the count keeps: it is not touched after that is let go.
unsafe extern "C" fn release_count<T>(array: *mut c_void) {
    // SAFETY: by the caller's word.
    unsafe {
        let array = array.cast::<ArrowArray>();
        let kept = (*array).private_data.cast::<T>().cast_const();
        (*array).release = None;
        drop(Arc::from_raw(kept));
    }
}

/// The C form of a schema: a struct type with one child per column.
///
/// # Errors
/// When a type has no form in the Arrow C data interface.
pub fn export_schema(schema: &Schema) -> Result<ArrowSchema> {
    let exported = ffi::FFI_ArrowSchema::try_from(schema)?;
    // SAFETY: both are the C struct ArrowSchema.
    Ok(unsafe { arrow_c::convert(exported) })
}

/// The schema behind its C form; the C form stays the caller's.
///
/// # Errors
/// When it is released, or no struct type, or holds a type that this Arrow does not know.
///
/// # Safety
/// `schema` must be null or point to an `ArrowSchema` that keeps the rules of the Arrow C data interface.
pub unsafe fn import_schema(schema: *const ArrowSchema) -> Result<SchemaRef> {
    // SAFETY: null or valid by the caller's word; both are the C struct ArrowSchema.
    let Some(schema) = (unsafe { schema.cast::<ffi::FFI_ArrowSchema>().as_ref() }) else {
        return Err(Error::data("a schema is missing"));
    };
    // SAFETY: as above.
    let plain = unsafe { &*std::ptr::from_ref(schema).cast::<ArrowSchema>() };
    if plain.is_released() || plain.format.is_null() {
        return Err(Error::data("a schema is missing"));
    }
    Ok(Arc::new(Schema::try_from(schema)?))
}

/// Several schemas as one: a struct type whose children are struct types. Names are the children's.
///
/// # Errors
/// As [`export_schema`].
pub fn export_schemas<'a>(schemas: impl IntoIterator<Item = (&'a str, &'a Schema)>) -> Result<ArrowSchema> {
    let children = schemas
        .into_iter()
        .map(|(name, schema)| Field::new(name, DataType::Struct(schema.fields.clone()), false).with_metadata(schema.metadata.clone()));
    export_schema(&Schema::new(children.collect::<Vec<_>>()))
}

/// The schemas behind [`export_schemas`]; a released one holds none.
///
/// # Errors
/// When a child is no struct type.
///
/// # Safety
/// As [`import_schema`].
pub unsafe fn import_schemas(schema: *const ArrowSchema) -> Result<Vec<SchemaRef>> {
    // SAFETY: passed on to the caller.
    let children = unsafe { import_fields(schema) }?;
    children.iter().map(|child| struct_schema(child)).collect()
}

/// The children of a struct type; a released one has none.
///
/// # Errors
/// As [`import_schema`].
///
/// # Safety
/// As [`import_schema`].
pub unsafe fn import_fields(schema: *const ArrowSchema) -> Result<Vec<FieldRef>> {
    // SAFETY: null or valid by the caller's word.
    if unsafe { schema.as_ref() }.is_none_or(ArrowSchema::is_released) {
        return Ok(Vec::new());
    }
    // SAFETY: passed on to the caller.
    Ok(unsafe { import_schema(schema) }?.fields.iter().cloned().collect())
}

fn struct_schema(field: &Field) -> Result<SchemaRef> {
    match field.data_type() {
        DataType::Struct(fields) => Ok(Arc::new(Schema::new_with_metadata(fields.clone(), field.metadata().clone()))),
        other => Err(Error::data(format!("the schema of {:?} is {other}, not a struct", field.name()))),
    }
}
