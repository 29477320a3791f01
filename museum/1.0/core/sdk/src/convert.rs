//! Arrow values of the arrow crate on their way to and from the C structs of `standpipe-abi`. Schemas cross once; batches cross as arrays and are read by the
//! schema that is known. Nothing is copied: the receiver holds the sender's buffers until it drops the last array made of them.
//!
//! An array from the other side is checked for the shape that its type needs (children, buffers, lengths, first and last offsets) before it is read. What the
//! buffers hold is taken on trust, as the Arrow C data interface has it: both sides run in one process.
#![allow(unsafe_code, reason = "crosses to the Arrow C data interface")]

use crate::{Error, Result};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StructArray, ffi, make_array};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, UnionMode};
use standpipe_abi::{ArrowArray, ArrowSchema, Batch, arrow_c};
use std::sync::Arc;

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

/// The C form of a batch.
#[must_use]
pub fn export_batch(batch: RecordBatch) -> Batch {
    Batch::new(export_array(&StructArray::from(batch)))
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

/// The batch behind its C form.
///
/// # Errors
/// When it has not the shape of the schema, or nulls where there may be none.
///
/// # Safety
/// `array` must be released or keep the rules of the Arrow C data interface, as an array of the schema's types.
pub unsafe fn import_batch(array: ArrowArray, schema: &SchemaRef) -> Result<RecordBatch> {
    // SAFETY: passed on to the caller.
    let columns = unsafe { import_data(array, &DataType::Struct(schema.fields.clone())) }?;
    let columns = StructArray::from(columns);
    let rows = columns.len();
    let (_, columns, nulls) = columns.into_parts();
    if nulls.is_some_and(|nulls| nulls.null_count() > 0) {
        return Err(Error::data("a batch has rows that are null as a whole"));
    }
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
    Ok(make_array(unsafe { import_data(array, data_type) }?))
}

unsafe fn import_data(array: ArrowArray, data_type: &DataType) -> Result<arrow_data::ArrayData> {
    if array.is_released() {
        return Err(Error::data("an array is missing"));
    }
    // SAFETY: the caller vouches for the memory behind the pointers.
    unsafe { check(&array, data_type, 0) }?;
    // SAFETY: both are the C struct ArrowArray; its shape is that of the type.
    Ok(unsafe { ffi::from_ffi_and_data_type(arrow_c::convert(array), data_type.clone()) }?)
}

/// Whether an array has the children, buffers and lengths that its type needs, and at least `rows` rows.
unsafe fn check(array: &ArrowArray, data_type: &DataType, rows: i64) -> Result<()> {
    let wrong = |what: &str| Error::data(format!("an array does not fit its type {data_type}: {what}"));
    let end = array.length.checked_add(array.offset).filter(|_| array.length >= 0 && array.offset >= 0);
    let Some(end) = end.filter(|end| *end < i64::MAX / 64) else { return Err(wrong("length or offset")) };
    if array.length < rows {
        return Err(wrong(&format!("{} rows where {rows} are needed", array.length)));
    }
    let shape = Shape::of(data_type);
    if array.n_buffers < shape.buffers || (array.n_buffers > shape.buffers && !shape.variadic) {
        return Err(wrong(&format!("{} buffers, not {}", array.n_buffers, shape.buffers)));
    }
    if array.n_buffers > 0 && array.buffers.is_null() {
        return Err(wrong("no buffers"));
    }
    // SAFETY: there are `n_buffers` of them.
    let buffer = |index: i64| unsafe { array.buffers.offset(index as isize).read() };
    let first = i64::from(shape.nullable);
    let needed = if shape.variadic { first + 1 } else { shape.buffers.min(first + shape.fixed) };
    if end > 0 && (first..needed).any(|index| buffer(index).is_null()) {
        return Err(wrong("a buffer is null"));
    }
    if shape.variadic && array.n_buffers > shape.buffers && buffer(array.n_buffers - 1).is_null() {
        return Err(wrong("a buffer is null"));
    }
    let mut child_rows = match data_type {
        DataType::Struct(_) | DataType::Union(_, UnionMode::Sparse) => end,
        DataType::FixedSizeList(_, width) => end.saturating_mul(i64::from(*width)),
        _ => 0,
    };
    if let (Some(width), true) = (shape.offsets, array.length > 0) {
        // SAFETY: an offsets buffer is not null and has one entry more than rows.
        let offset = |index: i64| unsafe {
            match width {
                4 => i64::from(buffer(1).cast::<i32>().offset(index as isize).read_unaligned()),
                _ => buffer(1).cast::<i64>().offset(index as isize).read_unaligned(),
            }
        };
        let (from, to) = (offset(array.offset), offset(end));
        if from < 0 || to < from {
            return Err(wrong("its offsets"));
        }
        if array.n_buffers > 2 && to > 0 && buffer(2).is_null() {
            return Err(wrong("a buffer is null"));
        }
        child_rows = to;
    }
    // SAFETY: passed on to the caller.
    unsafe { check_children(array, data_type, child_rows) }
}

unsafe fn check_children(array: &ArrowArray, data_type: &DataType, rows: i64) -> Result<()> {
    let wrong = |what: &str| Error::data(format!("an array does not fit its type {data_type}: {what}"));
    let types: Vec<&DataType> = match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::List(field) | DataType::LargeList(field) | DataType::ListView(field) | DataType::LargeListView(field) => {
            vec![field.data_type()]
        }
        DataType::FixedSizeList(field, _) | DataType::Map(field, _) => vec![field.data_type()],
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        _ => Vec::new(),
    };
    if array.n_children != types.len() as i64 || (array.children.is_null() && !types.is_empty()) {
        return Err(wrong(&format!("{} children, not {}", array.n_children, types.len())));
    }
    for (index, data_type) in types.into_iter().enumerate() {
        // SAFETY: there are `n_children` of them.
        let Some(child) = (unsafe { (*array.children.add(index)).cast::<ArrowArray>().as_ref() }) else {
            return Err(wrong("a child is null"));
        };
        // SAFETY: passed on to the caller.
        unsafe { check(child, data_type, rows) }?;
    }
    match (data_type, array.dictionary.is_null()) {
        // SAFETY: passed on to the caller.
        (DataType::Dictionary(_, values), false) => unsafe { check(&*array.dictionary.cast(), values, 0) },
        (DataType::Dictionary(..), true) => Err(wrong("no dictionary")),
        (_, true) => Ok(()),
        (_, false) => Err(wrong("a dictionary")),
    }
}

/// The buffers of a type's layout (Arrow columnar format, "Physical Memory Layout").
struct Shape {
    buffers: i64,
    nullable: bool,
    variadic: bool,
    /// Buffers after the validity whose size follows from the number of rows: null only if there are no rows.
    fixed: i64,
    /// Bytes of an offset, for types with an offsets buffer of one entry more than rows.
    offsets: Option<u8>,
}

impl Shape {
    fn of(data_type: &DataType) -> Self {
        if data_type.is_primitive() {
            return Self { buffers: 2, nullable: true, variadic: false, fixed: 1, offsets: None };
        }
        let layout = arrow_data::layout(data_type);
        let offsets = match data_type {
            DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => Some(4),
            DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => Some(8),
            _ => None,
        };
        let nullable = layout.can_contain_null_mask;
        let buffers = layout.buffers.len() as i64 + i64::from(nullable);
        // A view type's own buffer list is the views, then as many data buffers as there are, then their lengths.
        let buffers = buffers + i64::from(layout.variadic);
        let fixed = if offsets.is_some() { 1 } else { layout.buffers.len() as i64 };
        Self { buffers, nullable, variadic: layout.variadic, fixed, offsets }
    }
}
