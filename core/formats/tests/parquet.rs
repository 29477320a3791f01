//! Parquet files read by the parquet crate's reader: what was written is there, as the types that other tools know.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, TimestampSecondArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Schema, SchemaRef, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression as Found;
use proptest::prelude::*;
use standpipe_formats::{Compression, FormatKind, FormatSpec, file_encoder, types};
use std::sync::Arc;

fn schema() -> SchemaRef {
    let columns = [("s", "string"), ("i", "int64"), ("ms", "timestamp_ms"), ("sec", "timestamp_s"), ("l", "list<string>")];
    Arc::new(Schema::new(columns.map(|(name, text)| types::parse_field(name, text).unwrap()).to_vec()))
}

fn batch(rows: &[(Option<String>, Option<i64>)]) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0.as_deref())));
    let seconds = rows.iter().map(|row| row.1.map(|n| n % 1_000_000_000));
    let mut lists = arrow_array::builder::ListBuilder::new(arrow_array::builder::StringBuilder::new());
    for (text, _) in rows {
        match text {
            Some(text) => lists.append_value(text.split('a').map(Some)),
            None => lists.append_null(),
        }
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    let columns: Vec<ArrayRef> = vec![
        texts,
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(TimestampSecondArray::from_iter(seconds)),
        cast(&lists, schema().field(4).data_type()).unwrap(),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A timestamp as the pipeline has it, in its unit and without a zone.
fn without_zone(read: &ArrayRef, written: &DataType) -> ArrayRef {
    match read.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, Some(_)) => {
            let instants = cast(&cast(read, &DataType::Int64).unwrap(), &DataType::Timestamp(TimeUnit::Millisecond, None)).unwrap();
            cast(&instants, written).unwrap()
        }
        _ => cast(read, written).unwrap(),
    }
}

fn file(spec: &FormatSpec, schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = file_encoder(spec, schema).unwrap();
    let mut out = Vec::new();
    encoder.begin(&mut out).unwrap();
    for batch in batches {
        // As a sink does: what there is goes out at once.
        let mut now = Vec::new();
        encoder.write(batch, &mut now).unwrap();
        out.append(&mut now);
    }
    encoder.finish(&mut out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_is_read_again(rows in prop::collection::vec((prop::option::of("[a-cé]{0,5}"), prop::option::of(any::<i64>())), 0..50), cut in any::<prop::sample::Index>(), compression in prop::sample::select(vec![Compression::None, Compression::Snappy, Compression::Zstd])) {
        let whole = batch(&rows);
        let cut = cut.index(rows.len() + 1);
        let spec = FormatSpec { compression: Some(compression), ..FormatKind::Parquet.into() };
        let bytes = file(&spec, &schema(), &[whole.slice(0, cut), whole.slice(cut, rows.len() - cut)]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        let found = reader.schema().clone();
        prop_assert_eq!(found.field(2).data_type(), &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())));
        prop_assert_eq!(found.field(3).data_type(), &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())));
        if let Some(group) = reader.metadata().row_groups().first() {
            let same = matches!((compression, group.column(1).compression()), (Compression::None, Found::UNCOMPRESSED) | (Compression::Snappy, Found::SNAPPY) | (Compression::Zstd, Found::ZSTD(_)));
            prop_assert!(same);
        }
        let read = arrow_select::concat::concat_batches(&found, &reader.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap()).unwrap();
        prop_assert_eq!(read.num_rows(), rows.len());
        for (read, written) in read.columns().iter().zip(whole.columns()) {
            prop_assert_eq!(&without_zone(read, written.data_type()), written);
        }
    }
}

#[test]
fn a_large_file_is_written_out_in_row_groups() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![types::parse_field("s", "string").unwrap()]));
    let mut encoder = file_encoder(&FormatSpec { compression: Some(Compression::None), ..FormatKind::Parquet.into() }, &schema).unwrap();
    let (mut out, mut most) = (Vec::new(), 0);
    for round in 0..150 {
        // A megabyte that no dictionary makes small.
        let texts = StringArray::from_iter_values((0..1000).map(|row| format!("{round:04}{row:08}").repeat(90)));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(texts) as ArrayRef]).unwrap();
        encoder.write(&batch, &mut out).unwrap();
        most = most.max(encoder.buffered());
    }
    assert!(out.len() > 100 << 20, "two row groups are out: {}", out.len());
    assert!(most < 80 << 20, "{most}");
    encoder.finish(&mut out).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(out)).unwrap();
    assert!(reader.metadata().num_row_groups() >= 3);
    assert_eq!(reader.metadata().file_metadata().num_rows(), 150_000);
}

#[test]
fn types_that_parquet_has_not_are_refused() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![arrow_schema::Field::new("n", DataType::Null, true)]));
    let error = file_encoder(&FormatKind::Parquet.into(), &schema).err().unwrap().to_string();
    assert!(error.contains("column \"n\": the format parquet cannot hold the type"), "{error}");
    assert!(file_encoder(&FormatKind::Parquet.into(), &Arc::new(Schema::empty())).is_err());
}
