//! Arrays of every type cross without a copy; arrays that do not fit are refused before they are read.
#![allow(unsafe_code, reason = "calls the conversions of the C data interface")]
#![allow(clippy::unwrap_used, reason = "tests")]

use arrow_array::{cast::AsArray, types::Int32Type, *};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use standpipe_sdk::{abi::ArrowArray, convert};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

fn sample() -> RecordBatch {
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"));
    let items = Arc::new(Field::new("item", DataType::Utf8, true));
    let list = ListArray::new(items, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(StringArray::from(vec!["x", "yy", "zzz"])), None);
    let nested = StructArray::new(
        vec![Field::new("a", DataType::Int64, true)].into(),
        vec![ints.clone()],
        Some(NullBuffer::from(vec![true, false, true])),
    );
    let run = RunArray::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec!["a", "b"])).unwrap();
    let mut map = builder::MapBuilder::new(None, builder::StringBuilder::new(), builder::Int32Builder::new());
    for row in 0..3 {
        map.keys().append_value(format!("k{row}"));
        map.values().append_value(row);
        map.append(true).unwrap();
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ints", ints),
        ("times", times),
        ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc")]))),
        ("large", Arc::new(LargeStringArray::from(vec!["a", "b", "c"]))),
        ("view", Arc::new(StringViewArray::from(vec!["short", "long enough not to be inlined", ""]))),
        ("flags", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2], [3, 4], [5, 6]].into_iter()).unwrap())),
        ("decimals", Arc::new(Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(10, 2).unwrap())),
        ("dictionary", Arc::new(["a", "b", "a"].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("list", Arc::new(list)),
        ("struct", Arc::new(nested)),
        ("map", Arc::new(map.finish())),
        ("run", Arc::new(run)),
        ("nothing", Arc::new(NullArray::new(3))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn cross(batch: &RecordBatch) -> RecordBatch {
    let mut exported = convert::export_batch(batch.clone());
    // SAFETY: exported above, with these types.
    unsafe { convert::import_batch(exported.take(), &batch.schema()) }.unwrap()
}

#[test]
fn every_type_crosses_whole_sliced_and_empty() {
    let batch = sample();
    assert_eq!(cross(&batch), batch);
    assert_eq!(cross(&batch.slice(1, 2)), batch.slice(1, 2));
    assert_eq!(cross(&batch.slice(3, 0)).num_rows(), 0);
    let none =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(7))).unwrap();
    assert_eq!(cross(&none).num_rows(), 7);
}

#[test]
fn nothing_is_copied_and_the_last_reader_frees() {
    let numbers: Int64Array = (0..1000).collect();
    let place = numbers.values().as_ptr();
    let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
    let column = cross(&batch).column(0).clone();
    drop(batch);
    let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
    assert_eq!((column.values().as_ptr(), column.value(999)), (place, 999));
}

/// Values that say when they are freed.
fn watched(rows: i32) -> (ArrayRef, Arc<AtomicBool>) {
    struct Watch(Vec<i32>, Arc<AtomicBool>);
    impl Drop for Watch {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    let freed = Arc::new(AtomicBool::new(false));
    let watch = Watch((0..rows).collect(), Arc::clone(&freed));
    let start = std::ptr::NonNull::from(watch.0.as_slice()).cast();
    // SAFETY: the watch keeps them.
    let buffer = unsafe { Buffer::from_custom_allocation(start, rows as usize * 4, Arc::new(watch)) };
    (Arc::new(Int32Array::new(buffer.into(), None)), freed)
}

#[test]
fn memory_is_freed_with_the_last_array_of_a_batch_and_not_before() {
    let (numbers, freed) = watched(100);
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"); 100]));
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>((0..100).map(|n| Some([Some(n)]))));
    let batch = RecordBatch::try_from_iter([("n", numbers), ("t", text), ("l", list)]).unwrap();
    let is_freed = || freed.load(Ordering::SeqCst);
    drop(convert::export_batch(batch.clone()));
    assert!(!is_freed());
    // Each column in turn is the last one.
    for last in 0..3 {
        let crossed = cross(&batch);
        let column = crossed.column(last).clone();
        drop(crossed);
        assert_eq!(&column, batch.column(last));
        std::thread::spawn(move || drop(column)).join().unwrap();
    }
    let column = cross(&batch).column(2).clone();
    drop(batch);
    assert!(!is_freed(), "a column of the batch is still there");
    drop(column);
    assert!(is_freed());
}

#[test]
fn a_column_may_be_moved_out_of_a_batch() {
    let (numbers, freed) = watched(5);
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true; 5]));
    let mut exported = convert::export_batch(RecordBatch::try_from_iter([("n", numbers), ("f", flags)]).unwrap()).take();
    // SAFETY: it has two children; the first is moved as the specification has it: its bytes, and the batch is released at once.
    let moved = unsafe { (*(*exported.children).cast::<ArrowArray>()).take() };
    drop(exported.take());
    assert!(!freed.load(Ordering::SeqCst));
    // SAFETY: it is of that type.
    let numbers = unsafe { convert::import_array(moved, &DataType::Int32) }.unwrap();
    assert_eq!(numbers.as_primitive::<Int32Type>().values(), &[0, 1, 2, 3, 4]);
    drop(numbers);
    assert!(freed.load(Ordering::SeqCst));
}

#[test]
fn a_batch_may_begin_behind_the_first_row_of_its_columns() {
    let batch = sample();
    for (offset, rows) in [(1, 2), (0, 2), (2, 1), (3, 0)] {
        let mut exported = convert::export_batch(batch.clone()).take();
        (exported.offset, exported.length) = (offset, rows);
        // SAFETY: exported above, with these types.
        let crossed = unsafe { convert::import_batch(exported, &batch.schema()) }.unwrap();
        assert_eq!(crossed, batch.slice(offset as usize, rows as usize), "{rows} from {offset}");
    }
}

#[test]
fn validity_that_begins_elsewhere_than_values_crosses() {
    let nulls = NullBuffer::from(vec![true, true, false, true, false, true]).slice(2, 3);
    let bits = BooleanBuffer::from(vec![false, true, true, false, true]).slice(1, 3);
    let numbers = Int64Array::new(vec![7, 8, 9].into(), Some(nulls.clone()));
    let text = StringArray::new(OffsetBuffer::from_lengths([1, 0, 2]), Buffer::from(b"abc"), Some(nulls.clone()));
    let columns: [(&str, ArrayRef); 3] =
        [("n", Arc::new(numbers)), ("t", Arc::new(text)), ("f", Arc::new(BooleanArray::new(bits, Some(nulls))))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    assert_eq!(cross(&batch), batch);
    assert_eq!(cross(&batch.slice(1, 2)), batch.slice(1, 2));
}

/// C has no such demand; the arrow crate reads only what is aligned.
#[test]
fn values_at_odd_addresses_are_copied() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "bc"]));
    let batch = RecordBatch::try_from_iter([("n", numbers), ("t", text)]).unwrap();
    let mut exported = convert::export_batch(batch.clone()).take();
    let odd = |bytes: Vec<u8>| [vec![0], bytes].concat();
    let (values, offsets) =
        (odd([1i64, 2].iter().flat_map(|n| n.to_ne_bytes()).collect()), odd([0i32, 1, 3].iter().flat_map(|n| n.to_ne_bytes()).collect()));
    for (index, bytes) in [&values, &offsets].into_iter().enumerate() {
        // SAFETY: there are two children, with a second buffer each; what is put there outlives them.
        unsafe { *(*(*exported.children.add(index)).cast::<ArrowArray>()).buffers.add(1) = bytes.as_ptr().add(1).cast() };
    }
    // SAFETY: exported above, with these types.
    assert_eq!(unsafe { convert::import_batch(exported.take(), &batch.schema()) }.unwrap(), batch);
}

#[test]
fn schemas_keep_types_names_nullability_and_metadata() {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let role = [("standpipe.role".to_owned(), "event_time".to_owned())];
    let mut fields = vec![Field::new("at", time, false).with_metadata(role.into())];
    fields.extend(sample().schema().fields().iter().map(|field| field.as_ref().clone()));
    let schema = Schema::new_with_metadata(fields, [("a".to_owned(), "b".to_owned())].into());
    let exported = convert::export_schemas([("main", &schema), ("errors", &Schema::empty())]).unwrap();
    // SAFETY: exported above.
    let imported = unsafe { convert::import_schemas(&raw const exported) }.unwrap();
    assert_eq!((imported[0].as_ref(), imported[1].as_ref()), (&schema, &Schema::empty()));
}

/// Exports a batch, breaks it, and says why it is refused.
fn refused(schema: SchemaRef, batch: RecordBatch, damage: impl FnOnce(&mut ArrowArray)) -> String {
    let mut exported = convert::export_batch(batch).take();
    damage(&mut exported);
    // SAFETY: the memory is that of a whole batch; what does not fit is refused before it is read.
    unsafe { convert::import_batch(exported, &schema) }.unwrap_err().message
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let batch = RecordBatch::try_from_iter([("t", text)]).unwrap();
    let schema = batch.schema();
    let said = |damage: &dyn Fn(&mut ArrowArray)| refused(schema.clone(), batch.clone(), damage);
    // SAFETY, for every child below: the batch has one child.
    fn child(array: &mut ArrowArray) -> &mut ArrowArray {
        unsafe { &mut *(*array.children).cast::<ArrowArray>() }
    }
    assert!(said(&|array| array.length = -1).ends_with("length or offset"));
    assert!(said(&|array| array.length = i64::MAX).ends_with("length or offset"));
    assert!(said(&|array| array.length = 4).ends_with("3 rows where 4 are needed"));
    assert!(said(&|array| array.n_children = 0).ends_with("0 children, not 1"));
    assert!(said(&|array| array.children = std::ptr::null_mut()).ends_with("1 children, not 1"));
    assert!(said(&|array| child(array).n_buffers = 2).ends_with("2 buffers, not 3"));
    assert!(said(&|array| child(array).buffers = std::ptr::null_mut()).ends_with("no buffers"));
    assert!(said(&|array| unsafe { *child(array).buffers.add(1) = std::ptr::null() }).ends_with("a buffer is null"));
    assert!(said(&|array| unsafe { *child(array).buffers.add(2) = std::ptr::null() }).ends_with("a buffer is null"));
    let negative = [0i32, 1, 2, -5];
    assert!(said(&|array| unsafe { *child(array).buffers.add(1) = negative.as_ptr().cast() }).ends_with("its offsets"));
    let wide: SchemaRef = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true), Field::new("u", DataType::Utf8, true)]));
    assert!(refused(wide, batch.clone(), |_| ()).ends_with("1 children, not 2"));
    let dictionary = Field::new("t", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), true);
    assert!(refused(Arc::new(Schema::new(vec![dictionary])), batch, |array| child(array).n_buffers = 2).ends_with("no dictionary"));
    // SAFETY: a released array points to nothing.
    assert_eq!(unsafe { convert::import_batch(ArrowArray::empty(), &schema) }.unwrap_err().message, "an array is missing");
}
