//! What a state's values are turned into when its declaration has changed: only where nothing is lost and the meaning cannot change.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, StructArray, new_null_array};
use arrow::compute::cast;
use arrow::error::ArrowError;
use arrow_schema::{DataType, FieldRef, Fields};
use std::sync::Arc;

/// Values of another type as values of this one; `None`: that would not be safe.
///
/// Safe is: a wider whole number or float, more digits of a decimal at the same scale, and in a struct new fields that may be null (also in lists and in structs within).
pub(crate) fn widened(values: &ArrayRef, data_type: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
    if values.data_type() == data_type {
        return Ok(Some(values.clone()));
    }
    match (values.data_type(), data_type) {
        (from, to) if is_wider(from, to) => cast(values, to).map(Some),
        (DataType::Struct(_), DataType::Struct(fields)) => with_fields(values.as_struct(), fields),
        (DataType::List(_), DataType::List(item)) => {
            let list = values.as_list::<i32>();
            let items = item_values(list.values(), item)?;
            items
                .map(|items| Ok(Arc::new(ListArray::try_new(item.clone(), list.offsets().clone(), items, list.nulls().cloned())?) as _))
                .transpose()
        }
        (DataType::LargeList(_), DataType::LargeList(item)) => {
            let list = values.as_list::<i64>();
            let items = item_values(list.values(), item)?;
            let list =
                |items| Ok(Arc::new(LargeListArray::try_new(item.clone(), list.offsets().clone(), items, list.nulls().cloned())?) as _);
            items.map(list).transpose()
        }
        (DataType::FixedSizeList(_, size), DataType::FixedSizeList(item, wanted)) if size == wanted => {
            let list = values.as_fixed_size_list();
            let items = item_values(list.values(), item)?;
            items
                .map(|items| Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), *size, items, list.nulls().cloned())?) as _))
                .transpose()
        }
        _ => Ok(None),
    }
}

fn item_values(values: &ArrayRef, item: &FieldRef) -> Result<Option<ArrayRef>, ArrowError> {
    let forbidden = !item.is_nullable() && values.logical_null_count() > 0;
    if forbidden { Ok(None) } else { widened(values, item.data_type()) }
}

/// Fields go by their names; none may be lost.
fn with_fields(values: &StructArray, fields: &Fields) -> Result<Option<ArrayRef>, ArrowError> {
    if values.fields().iter().any(|field| fields.find(field.name()).is_none()) {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let column = match values.column_by_name(field.name()) {
            Some(column) => item_values(column, field)?,
            None => field.is_nullable().then(|| new_null_array(field.data_type(), values.len())),
        };
        let Some(column) = column else { return Ok(None) };
        columns.push(column);
    }
    Ok(Some(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, values.nulls().cloned(), values.len())?)))
}

fn is_wider(from: &DataType, to: &DataType) -> bool {
    let signed = |data_type: &DataType| match data_type {
        DataType::Int8 => Some(7),
        DataType::Int16 => Some(15),
        DataType::Int32 => Some(31),
        DataType::Int64 => Some(63),
        _ => None,
    };
    let unsigned = |data_type: &DataType| match data_type {
        DataType::UInt8 => Some(8),
        DataType::UInt16 => Some(16),
        DataType::UInt32 => Some(32),
        DataType::UInt64 => Some(64),
        _ => None,
    };
    match (from, to) {
        (DataType::Float32, DataType::Float64) => true,
        (DataType::Decimal128(digits, scale), DataType::Decimal128(more, same) | DataType::Decimal256(more, same))
        | (DataType::Decimal256(digits, scale), DataType::Decimal256(more, same)) => digits <= more && scale == same,
        _ => match (signed(from).or(unsigned(from)), signed(to)) {
            (Some(bits), Some(room)) => bits <= room,
            _ => matches!((unsigned(from), unsigned(to)), (Some(bits), Some(room)) if bits <= room),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::*;

    fn empty(from: DataType, to: &DataType) -> bool {
        widened(&new_empty_array(&from), to).unwrap().is_some()
    }

    fn fields(fields: &[(&str, DataType, bool)]) -> Fields {
        fields.iter().map(|(name, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable)).collect()
    }

    #[test]
    fn only_what_loses_nothing_is_safe() {
        use DataType::*;
        for (from, to) in [
            (Int32, Int64),
            (UInt32, Int64),
            (UInt8, UInt64),
            (Float32, Float64),
            (Decimal128(10, 2), Decimal128(38, 2)),
            (Decimal128(10, 2), Decimal256(40, 2)),
        ] {
            assert!(empty(from.clone(), &to), "{from} to {to}");
            assert!(!empty(to.clone(), &from), "{to} to {from}");
        }
        for (from, to) in [
            (UInt64, Int64),
            (Int32, UInt64),
            (Int64, Float64),
            (Utf8, Binary),
            (Decimal128(10, 2), Decimal128(10, 3)),
            (Int32, Utf8),
            (Int64, Timestamp(TimeUnit::Second, None)),
        ] {
            assert!(!empty(from.clone(), &to), "{from} to {to}");
        }
    }

    #[test]
    fn a_struct_may_gain_nullable_fields_and_wider_ones_in_any_depth() {
        let old = StructArray::from(vec![
            (Arc::new(Field::new("a", DataType::Int32, false)), Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
            (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef),
        ]);
        let wider = fields(&[("new", DataType::Float64, true), ("b", DataType::Utf8, true), ("a", DataType::Int64, false)]);
        let array: ArrayRef = Arc::new(old.clone());
        let found = widened(&array, &DataType::Struct(wider.clone())).unwrap().unwrap();
        let found = found.as_struct();
        assert_eq!(found.fields(), &wider);
        assert_eq!(found.column(0).null_count(), 2);
        assert_eq!(found.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("x"), None]);
        assert_eq!(found.column(2).as_primitive::<Int64Type>().values()[..], [1, 2]);

        let list: ArrayRef = Arc::new(ListArray::new(
            Arc::new(Field::new("item", array.data_type().clone(), true)),
            OffsetBuffer::from_lengths([2]),
            array.clone(),
            None,
        ));
        let wanted = DataType::List(Arc::new(Field::new("item", DataType::Struct(wider), true)));
        assert_eq!(widened(&list, &wanted).unwrap().unwrap().data_type(), &wanted);

        for refused in [
            fields(&[("a", DataType::Int32, false)]),
            fields(&[("a", DataType::Int32, false), ("b", DataType::Utf8, true), ("c", DataType::Utf8, false)]),
            fields(&[("a", DataType::Int32, false), ("b", DataType::Utf8, false)]),
            fields(&[("a", DataType::Int16, false), ("b", DataType::Utf8, true)]),
        ] {
            assert!(widened(&array, &DataType::Struct(refused.clone())).unwrap().is_none(), "{refused:?}");
        }
    }

    use arrow::buffer::OffsetBuffer;
}
