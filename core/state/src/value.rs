//! Value state: at most one value per key, addressed by key id. Fixed-width values lie in one column, from which a call's values are gathered and to which they
//! are scattered; others are bytes of their own ([`crate::rows`]).
//!
//! Writes apply at once and are noted: [`ValueStore::rollback`] takes back what was written since the last [`ValueStore::commit`].

use crate::rows::{RowBytes, RowCodec};
use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, make_array};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer};
use arrow::error::ArrowError;
use arrow_schema::DataType;

/// One value per key, of one Arrow type.
#[derive(Debug)]
pub enum ValueStore {
    /// Values of one width in one column.
    Fixed(FixedValues),
    /// Values of any type.
    Rows(RowValues),
}

impl ValueStore {
    /// An empty store for values of this type.
    ///
    /// # Errors
    /// When values of the type cannot be stored.
    pub fn new(data_type: &DataType) -> Result<Self, ArrowError> {
        Ok(match fixed_width(data_type) {
            Some(width) => Self::Fixed(FixedValues::new(data_type.clone(), width)),
            None => Self::Rows(RowValues { codec: RowCodec::new(data_type.clone())?, values: Vec::new(), bytes: 0, undo: Vec::new() }),
        })
    }

    /// The values of some keys, null where there is none.
    ///
    /// # Errors
    /// When Arrow cannot build the array.
    pub fn get(&self, ids: &[u32]) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Fixed(store) => store.get(ids),
            Self::Rows(store) => store.codec.decode(ids.iter().map(|id| store.values.get(*id as usize)?.as_deref())),
        }
    }

    /// Sets values; null removes. The last of a repeated id holds.
    ///
    /// # Errors
    /// When the values are of another type.
    pub fn set(&mut self, ids: &[u32], values: &ArrayRef) -> Result<(), ArrowError> {
        match self {
            Self::Fixed(store) => store.set(ids, values),
            Self::Rows(store) => store.set(ids, values),
        }
    }

    /// Removes a value.
    pub fn remove(&mut self, id: u32) {
        match self {
            Self::Fixed(store) => store.write(id, None),
            Self::Rows(store) => store.write(id, None),
        }
    }

    /// Whether the key has a value.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        match self {
            Self::Fixed(store) => store.valid.get(id as usize) == Some(&1),
            Self::Rows(store) => matches!(store.values.get(id as usize), Some(Some(_))),
        }
    }

    /// Tells the keys that were written since the last commit, each as often as it was.
    pub fn each_written(&self, tell: impl FnMut(u32)) {
        match self {
            Self::Fixed(store) => store.undo.ids.iter().copied().for_each(tell),
            Self::Rows(store) => store.undo.iter().map(|(id, _)| *id).for_each(tell),
        }
    }

    /// Appends the bytes of a key's value, as only [`Self::import`] of the same process knows them.
    pub(crate) fn export(&self, id: u32, into: &mut Vec<u8>) {
        let value = match self {
            Self::Fixed(store) => store.value(id),
            Self::Rows(store) => store.values.get(id as usize).and_then(Option::as_deref),
        };
        into.extend_from_slice(value.unwrap_or_default());
    }

    /// Sets a key's value; it counts as committed.
    pub(crate) fn import(&mut self, id: u32, bytes: &[u8]) {
        match self {
            Self::Fixed(store) if bytes.len() == store.width => store.write(id, Some(bytes)),
            Self::Fixed(_) => {}
            Self::Rows(store) => store.write(id, Some(bytes.into())),
        }
        self.commit();
    }

    /// About the bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Fixed(store) => store.bytes.len() + store.valid.len(),
            Self::Rows(store) => store.bytes + store.values.len() * size_of::<Option<RowBytes>>(),
        }
    }

    /// What was written holds.
    pub fn commit(&mut self) {
        match self {
            Self::Fixed(store) => store.undo.clear(),
            Self::Rows(store) => store.undo.clear(),
        }
    }

    /// What was written since the last commit has never been.
    pub fn rollback(&mut self) {
        match self {
            Self::Fixed(store) => store.rollback(),
            Self::Rows(store) => {
                while let Some((id, old)) = store.undo.pop() {
                    store.replace(id, old);
                }
            }
        }
    }

    /// Ids have moved: `moved[old]` is the new id, smaller or equal, in the same order.
    pub fn renumber(&mut self, moved: &[Option<u32>]) {
        self.commit();
        match self {
            Self::Fixed(store) => store.renumber(moved),
            Self::Rows(store) => {
                renumber(&mut store.values, moved);
                store.bytes = store.values.iter().flatten().map(|value| value.len()).sum();
            }
        }
    }
}

/// Moves each id's entry to its new place and drops those without one.
pub(crate) fn renumber<T>(entries: &mut Vec<T>, moved: &[Option<u32>]) {
    let mut old = 0;
    entries.retain(|_| {
        old += 1;
        matches!(moved.get(old - 1), Some(Some(_)))
    });
}

/// Bytes of a value in a column; booleans have one.
#[must_use]
pub fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

/// Values of one width, in a column addressed by key id.
#[derive(Debug)]
pub struct FixedValues {
    data_type: DataType,
    width: usize,
    bytes: Vec<u8>,
    /// 1 where the key has a value; what is behind a 0 is zero.
    valid: Vec<u8>,
    undo: FixedUndo,
}

/// What was overwritten: entry `i` has `bytes[i * width..]`.
#[derive(Debug, Default)]
struct FixedUndo {
    ids: Vec<u32>,
    valid: Vec<u8>,
    bytes: Vec<u8>,
}

impl FixedUndo {
    fn clear(&mut self) {
        self.ids.clear();
        self.valid.clear();
        self.bytes.clear();
    }
}

impl FixedValues {
    fn new(data_type: DataType, width: usize) -> Self {
        Self { data_type, width, bytes: Vec::new(), valid: Vec::new(), undo: FixedUndo::default() }
    }

    /// Bytes of one value.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    fn value(&self, id: u32) -> Option<&[u8]> {
        let at = id as usize;
        (self.valid.get(at) == Some(&1)).then(|| &self.bytes[at * self.width..(at + 1) * self.width])
    }

    /// Copies the values of some keys into `bytes`: `width` bytes each, zeroed before.
    pub fn gather(&self, ids: &[u32], bytes: &mut [u8]) {
        for (ordinal, id) in ids.iter().enumerate() {
            if let Some(value) = self.value(*id) {
                bytes[ordinal * self.width..(ordinal + 1) * self.width].copy_from_slice(value);
            }
        }
    }

    /// Says which keys have values: 1 or 0 each.
    pub fn gather_validity(&self, ids: &[u32], validity: &mut [u8]) {
        for (id, valid) in ids.iter().zip(validity) {
            *valid = self.valid.get(*id as usize).copied().unwrap_or(0);
        }
    }

    /// Takes the values back where `dirty` is not 0; where `validity` is 0 the value is removed.
    pub fn scatter(&mut self, ids: &[u32], bytes: &[u8], validity: &[u8], dirty: &[u8]) {
        for (ordinal, id) in ids.iter().enumerate() {
            if dirty[ordinal] != 0 {
                let value = &bytes[ordinal * self.width..(ordinal + 1) * self.width];
                self.write(*id, (validity[ordinal] != 0).then_some(value));
            }
        }
    }

    fn write(&mut self, id: u32, value: Option<&[u8]>) {
        let at = id as usize;
        if at >= self.valid.len() {
            self.valid.resize(at + 1, 0);
            self.bytes.resize((at + 1) * self.width, 0);
        }
        let bytes = &mut self.bytes[at * self.width..(at + 1) * self.width];
        self.undo.ids.push(id);
        self.undo.valid.push(self.valid[at]);
        self.undo.bytes.extend_from_slice(bytes);
        match value {
            Some(value) => bytes.copy_from_slice(value),
            None => bytes.fill(0),
        }
        self.valid[at] = u8::from(value.is_some());
    }

    fn rollback(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        for (i, id) in undo.ids.iter().enumerate().rev() {
            let at = *id as usize;
            self.valid[at] = undo.valid[i];
            self.bytes[at * self.width..(at + 1) * self.width].copy_from_slice(&undo.bytes[i * self.width..(i + 1) * self.width]);
        }
    }

    fn get(&self, ids: &[u32]) -> Result<ArrayRef, ArrowError> {
        let nulls: NullBuffer = ids.iter().map(|id| self.value(*id).is_some()).collect();
        if self.data_type == DataType::Boolean {
            let values = ids.iter().map(|id| self.value(*id).is_some_and(|value| value[0] != 0)).collect();
            return Ok(std::sync::Arc::new(BooleanArray::new(values, Some(nulls))));
        }
        let mut bytes = MutableBuffer::from_len_zeroed(ids.len() * self.width);
        self.gather(ids, bytes.as_slice_mut());
        let data = ArrayData::try_new(
            self.data_type.clone(),
            ids.len(),
            Some(nulls.into_inner().into_inner()),
            0,
            vec![Buffer::from(bytes)],
            vec![],
        )?;
        Ok(make_array(data))
    }

    fn set(&mut self, ids: &[u32], values: &ArrayRef) -> Result<(), ArrowError> {
        if values.data_type() != &self.data_type {
            return Err(ArrowError::InvalidArgumentError(format!(
                "values of type {} for a state of type {}",
                values.data_type(),
                self.data_type
            )));
        }
        if let Some(booleans) = values.as_boolean_opt() {
            ids.iter().zip(booleans).for_each(|(id, value)| self.write(*id, value.map(u8::from).as_ref().map(std::slice::from_ref)));
            return Ok(());
        }
        let data = values.to_data();
        let bytes = data.buffers().first().map(Buffer::as_slice).unwrap_or_default();
        for (row, id) in ids.iter().enumerate() {
            let at = (data.offset() + row) * self.width;
            self.write(*id, values.is_valid(row).then(|| &bytes[at..at + self.width]));
        }
        Ok(())
    }

    fn renumber(&mut self, moved: &[Option<u32>]) {
        let mut kept = 0;
        for old in 0..self.valid.len() {
            if matches!(moved.get(old), Some(Some(_))) {
                self.valid[kept] = self.valid[old];
                self.bytes.copy_within(old * self.width..(old + 1) * self.width, kept * self.width);
                kept += 1;
            }
        }
        self.valid.truncate(kept);
        self.bytes.truncate(kept * self.width);
    }
}

/// Values of any type, as bytes.
#[derive(Debug)]
pub struct RowValues {
    codec: RowCodec,
    values: Vec<Option<RowBytes>>,
    /// Of all values.
    bytes: usize,
    undo: Vec<(u32, Option<RowBytes>)>,
}

impl RowValues {
    fn set(&mut self, ids: &[u32], values: &ArrayRef) -> Result<(), ArrowError> {
        let rows = self.codec.encode(values)?;
        let nulls = values.logical_nulls();
        for (row, id) in ids.iter().enumerate() {
            let valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            self.write(*id, valid.then(|| rows.row(row).data().into()));
        }
        Ok(())
    }

    fn write(&mut self, id: u32, value: Option<RowBytes>) {
        let at = id as usize;
        if at >= self.values.len() {
            self.values.resize_with(at + 1, || None);
        }
        let old = self.replace(id, value);
        self.undo.push((id, old));
    }

    fn replace(&mut self, id: u32, value: Option<RowBytes>) -> Option<RowBytes> {
        let length = |value: &Option<RowBytes>| value.as_ref().map_or(0, |value| value.len());
        self.bytes += length(&value);
        let old = std::mem::replace(&mut self.values[id as usize], value);
        self.bytes -= length(&old);
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::compute::take;
    use arrow::datatypes::{Int32Type, TimestampMillisecondType};
    use std::sync::Arc;

    /// Four values with a null, of every shape of storage.
    fn columns() -> Vec<ArrayRef> {
        let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(-3), Some(4)]));
        let times = PrimitiveArray::<TimestampMillisecondType>::from(vec![Some(1), None, Some(3), Some(4)]).with_timezone("UTC");
        let fixed =
            FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some(b"abc"), None, Some(b"def"), Some(b"ghi")].into_iter(), 3).unwrap();
        let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("été")]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(2)])]);
        let structure = StructArray::from(vec![(
            Arc::new(arrow_schema::Field::new("x", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![Some("p"), Some("q"), None, Some("r")])) as ArrayRef,
        )]);
        vec![
            arrow::compute::cast(&integers, &DataType::Decimal128(10, 0)).unwrap(),
            integers,
            Arc::new(times),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
            Arc::new(fixed),
            arrow::compute::cast(&strings, &DataType::Utf8View).unwrap(),
            arrow::compute::cast(&strings, &dictionary).unwrap(),
            strings,
            Arc::new(list),
            Arc::new(structure),
        ]
    }

    #[test]
    fn values_come_back_in_any_order_and_type() {
        for column in columns() {
            let mut store = ValueStore::new(column.data_type()).unwrap();
            store.set(&[5, 2, 0, 3], &column).unwrap();
            store.commit();
            let expected = take(&column, &UInt32Array::from(vec![Some(3), None, Some(0), Some(1), Some(2), None]), None).unwrap();
            assert_eq!(&store.get(&[3, 1, 5, 2, 0, 99]).unwrap(), &expected, "{}", column.data_type());

            store.set(&[3, 3], &column.slice(1, 2)).unwrap();
            assert_eq!(&store.get(&[3]).unwrap(), &column.slice(2, 1), "the last of a repeated key holds");
            store.remove(5);
            assert!(!store.contains(5));
            store.rollback();
            assert_eq!(&store.get(&[3, 1, 5, 2, 0, 99]).unwrap(), &expected, "{}", column.data_type());

            store.renumber(&[None, Some(0), Some(1), Some(2), None, Some(3)]);
            assert_eq!(&store.get(&[2, 0, 3, 1]).unwrap(), &expected.slice(0, 4), "{}", column.data_type());
        }
    }

    #[test]
    fn a_call_gathers_and_scatters_what_is_dirty() {
        let ValueStore::Fixed(mut store) = ValueStore::new(&DataType::Int32).unwrap() else { panic!("int32 has a fixed width") };
        let values: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
        store.set(&[1, 2], &values).unwrap();
        store.undo.clear();
        let (mut bytes, mut validity) = (vec![0; 12], vec![0; 3]);
        store.gather(&[2, 0, 1], &mut bytes);
        store.gather_validity(&[2, 0, 1], &mut validity);
        assert_eq!((&bytes[..], &validity[..]), (&[8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0][..], &[1, 0, 1][..]));

        bytes[0] = 80;
        bytes[4] = 50;
        bytes[8] = 70;
        store.scatter(&[2, 0, 1], &bytes, &[0, 1, 1], &[1, 1, 0]);
        let get = |store: &FixedValues| store.get(&[0, 1, 2]).unwrap().as_primitive::<Int32Type>().iter().collect::<Vec<_>>();
        assert_eq!(get(&store), [Some(50), Some(7), None]);
        store.rollback();
        assert_eq!(get(&store), [None, Some(7), Some(8)]);
    }

    #[test]
    fn values_of_another_type_are_refused() {
        let mut store = ValueStore::new(&DataType::Int32).unwrap();
        let values: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        assert!(store.set(&[0], &values).is_err());
    }
}
