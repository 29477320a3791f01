//! CSV against arrow-csv, and against itself: what is written is read again, by theirs as by ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_csv::{ReaderBuilder, WriterBuilder};
use arrow_schema::{Schema, SchemaRef};
use proptest::prelude::*;
use standpipe_formats::{FormatKind, FormatSpec, decoder, encoder, types};
use std::sync::Arc;

fn schema() -> SchemaRef {
    let columns = [("s", "string"), ("i", "int64"), ("f", "float64"), ("b", "bool"), ("d", "date"), ("ts", "timestamp")];
    Arc::new(Schema::new(columns.map(|(name, text)| types::parse_field(name, text).unwrap()).to_vec()))
}

type Row = (Option<String>, Option<i64>, Option<f64>, Option<bool>, Option<i32>, Option<i64>);

fn rows(text: &'static str) -> impl Strategy<Value = RecordBatch> {
    // Years 0001 to 9999, which every reader knows.
    let row = (
        prop::option::of(text),
        prop::option::of(any::<i64>()),
        prop::option::of(prop_oneof![any::<f64>().prop_filter("a number", |f| !f.is_nan()), Just(f64::INFINITY)]),
        prop::option::of(any::<bool>()),
        prop::option::of(-719_162..2_932_896_i32),
        prop::option::of(-62_135_596_800_000_000..253_402_300_800_000_000_i64),
    );
    prop::collection::vec(row, 1..20).prop_map(|rows| batch(&rows))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0.as_deref()))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.3))),
        Arc::new(Date32Array::from_iter(rows.iter().map(|row| row.4))),
        Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.5))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn encoded(spec: &FormatSpec, batch: &RecordBatch) -> BinaryArray {
    encoder(spec, batch.schema()).unwrap().encode(batch).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(batch in rows("[a-c\"',; \n\r\\\\é]{0,6}|NULL"), delimiter in prop::sample::select(vec![',', ';', '\t', '|']), null in prop::sample::select(vec!["", "NULL", "\\N", "0"])) {
        let spec = FormatSpec { delimiter: Some(delimiter), null_text: Some(null.to_owned()), ..FormatKind::Csv.into() };
        let decoded = decoder(&spec, schema()).unwrap().decode(&encoded(&spec, &batch)).unwrap();
        prop_assert_eq!(decoded.broken, vec![]);
        prop_assert_eq!(decoded.batch, batch);
    }

    // arrow-csv cannot tell an empty text from a null.
    #[test]
    fn arrow_reads_what_is_written(batch in rows("[a-c\"', \n\r\\\\é]{1,6}")) {
        let mut text = Vec::new();
        for record in &encoded(&FormatKind::Csv.into(), &batch) {
            text.extend_from_slice(record.unwrap());
            text.push(b'\n');
        }
        let mut reader = ReaderBuilder::new(schema()).build(text.as_slice()).unwrap();
        let read = reader.next().unwrap().unwrap();
        prop_assert_eq!(read.columns(), batch.columns());
    }

    #[test]
    fn what_arrow_writes_is_read(batch in rows("[a-c\"', \n\\\\é]{1,6}")) {
        let records: Vec<Vec<u8>> = (0..batch.num_rows()).map(|row| {
            let mut text = Vec::new();
            WriterBuilder::new().with_header(false).build(&mut text).write(&batch.slice(row, 1)).unwrap();
            text.strip_suffix(b"\n").unwrap().to_vec()
        }).collect();
        let decoded = decoder(&FormatKind::Csv.into(), schema()).unwrap().decode(&BinaryArray::from_iter_values(&records)).unwrap();
        prop_assert_eq!(&decoded.broken, &vec![]);
        prop_assert_eq!(decoded.batch, batch);
    }

    #[test]
    fn no_bytes_are_too_odd(records in prop::collection::vec(prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b','), Just(b'1')], 0..20), 1..5), header in any::<bool>()) {
        let spec = FormatSpec { header: Some(header), ..FormatKind::Csv.into() };
        let schema: SchemaRef = Arc::new(Schema::new(vec![types::parse_field("1", "string").unwrap(), types::parse_field("b", "int64").unwrap()]));
        let decoded = decoder(&spec, schema).unwrap().decode(&BinaryArray::from_iter_values(&records)).unwrap();
        let kept = decoded.kept.map_or(records.len(), |kept| kept.values().len());
        prop_assert_eq!(kept, decoded.batch.num_rows());
        prop_assert!(kept + decoded.broken.len() <= records.len());
    }
}
