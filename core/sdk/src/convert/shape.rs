//! What an array from the other side must have before it is read.

use crate::{Error, Result};
use arrow_schema::{DataType, UnionMode};
use standpipe_abi::ArrowArray;

/// Whether an array has the children, buffers and lengths that its type needs, and at least `rows` rows.
pub(super) unsafe fn check(array: &ArrowArray, data_type: &DataType, rows: i64) -> Result<()> {
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
        let offsets = match data_type {
            DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => Some(4),
            DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => Some(8),
            _ => None,
        };
        // The most frequent ones without the lists that a layout is made of.
        match data_type {
            DataType::Boolean => return Self { buffers: 2, nullable: true, variadic: false, fixed: 1, offsets },
            DataType::Utf8 | DataType::Binary | DataType::LargeUtf8 | DataType::LargeBinary => {
                return Self { buffers: 3, nullable: true, variadic: false, fixed: 1, offsets };
            }
            _ => {}
        }
        let layout = arrow_data::layout(data_type);
        let nullable = layout.can_contain_null_mask;
        let buffers = layout.buffers.len() as i64 + i64::from(nullable);
        // A view type's own buffer list is the views, then as many data buffers as there are, then their lengths.
        let buffers = buffers + i64::from(layout.variadic);
        let fixed = if offsets.is_some() { 1 } else { layout.buffers.len() as i64 };
        Self { buffers, nullable, variadic: layout.variadic, fixed, offsets }
    }
}
