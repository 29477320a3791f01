use super::*;
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray, StringViewArray, StructArray,
    types::{Int32Type, Int64Type},
};
use arrow_schema::{Field, Schema};
use proptest::prelude::*;

/// The two ends of a way.
#[derive(Default)]
struct Way {
    pool: Pool,
    mapped: Mapped,
}

impl Way {
    fn send(&mut self, batch: &RecordBatch) -> Result<(RecordBatch, usize), BatchError> {
        let mut parcel = Parcel::default();
        let packed = pack(batch, &batch.schema(), &mut self.pool, &mut parcel)?;
        let mut files = parcel.files.iter().map(|file| file.try_clone()).collect::<io::Result<_>>()?;
        let got = unpack(&packed, &batch.schema(), &parcel.inline, &mut files, &mut self.mapped)?;
        assert!(files.is_empty());
        Ok((got, packed.bytes as usize))
    }
}

fn batch(rows: usize) -> RecordBatch {
    let texts = (0..rows).map(|row| (row % 7 != 3).then(|| format!("text {row}")));
    let words: StringArray = texts.clone().collect();
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
        (0..rows).map(|row| (row % 5 != 1).then(|| (0..row % 4).map(|item| Some(item as i64)).collect::<Vec<_>>())),
    );
    let fields = vec![
        (Arc::new(Field::new("a", DataType::Int64, true)), Arc::new(Int64Array::from_iter_values(0..rows as i64)) as ArrayRef),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(words.clone()) as ArrayRef),
    ];
    let dictionary: DictionaryArray<Int32Type> = (0..rows).map(|row| ["x", "y", "z"][row % 3]).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("number", Arc::new((0..rows).map(|row| (row % 3 != 0).then_some(row as i64)).collect::<Int64Array>())),
        ("double", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64 / 3.0)))),
        ("flag", Arc::new((0..rows).map(|row| (row % 11 != 0).then_some(row % 2 == 0)).collect::<BooleanArray>())),
        ("text", Arc::new(words)),
        ("view", Arc::new(texts.collect::<StringViewArray>())),
        ("list", Arc::new(lists)),
        ("struct", Arc::new(StructArray::from(fields))),
        ("dictionary", Arc::new(dictionary)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

#[test]
fn large_and_small_batches_arrive_as_they_were() {
    let mut way = Way::default();
    for rows in [0, 1, 7, 100, 5000, 100, 20_000] {
        let sent = batch(rows);
        assert_eq!(way.send(&sent).unwrap().0, sent);
    }
}

#[test]
fn a_batch_without_columns_has_rows() {
    let options = RecordBatchOptions::new().with_row_count(Some(9));
    let sent = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    assert_eq!(Way::default().send(&sent).unwrap().0.num_rows(), 9);
}

#[test]
fn of_a_small_part_only_that_part_is_sent() {
    let whole = batch(20_000).project(&[0, 1, 2, 3, 5, 6, 7]).unwrap();
    let part = whole.slice(9_990, 20);
    let (got, bytes) = Way::default().send(&part).unwrap();
    assert_eq!(got, part);
    assert!(bytes < 20_000, "{bytes} bytes for 20 rows");
}

#[test]
fn other_columns_are_not_sent() {
    let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Utf8, true)]));
    let sent = batch(1).project(&[0]).unwrap();
    let refused = pack(&sent, &schema, &mut Pool::default(), &mut Parcel::default());
    assert_eq!(refused.unwrap_err().to_string(), "a batch has other columns than were agreed");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let sent = batch(50).project(&[3]).unwrap();
    let mut parcel = Parcel::default();
    let mut packed = pack(&sent, &sent.schema(), &mut Pool::default(), &mut parcel).unwrap();
    let read = |packed: &Packed, inline: &[u8]| unpack(packed, &sent.schema(), inline, &mut VecDeque::new(), &mut Mapped::default());
    assert_eq!(read(&packed, &parcel.inline).unwrap(), sent);
    assert!(read(&packed, &parcel.inline[1..]).is_err(), "cut off");
    let mut broken = parcel.inline.clone();
    // The first offset.
    let at = packed.pieces[0].buffers[0].0 as usize;
    broken[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    assert!(read(&packed, &broken).is_err(), "an offset beyond the end");
    let mut broken = parcel.inline.clone();
    broken[packed.pieces[0].buffers[1].0 as usize] = 0xff;
    assert!(read(&packed, &broken).is_err(), "no UTF-8");
    packed.pieces[0].rows = u64::MAX;
    assert!(read(&packed, &parcel.inline).is_err(), "too many rows");
    packed.store = Store::Once;
    assert!(read(&packed, &parcel.inline).is_err(), "no file");
}

proptest! {
    #[test]
    fn any_part_arrives(from in 0_usize..400, rows in 0_usize..200) {
        let sent = batch(600).slice(from, rows);
        prop_assert_eq!(Way::default().send(&sent).unwrap().0, sent);
    }
}
