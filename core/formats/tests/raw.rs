//! The format `raw`.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{
    ArrayRef, BinaryArray, BinaryViewArray, Int64Array, LargeBinaryArray, LargeStringArray, PrimitiveArray, RecordBatch, StringArray,
    StringViewArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_formats::types::parse_field;
use standpipe_formats::{FormatError, FormatKind, FormatSpec, OnNull, decoder, encoder};

fn schema(text: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![parse_field("value", text).unwrap()]))
}

#[test]
fn every_kind_of_records_becomes_a_column() {
    let texts = ["a", "", "zwölf Boxkämpfer jagen Viktor"];
    let inputs: [ArrayRef; 6] = [
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
        Arc::new(BinaryArray::from_iter_values(texts)),
        Arc::new(LargeBinaryArray::from_iter_values(texts)),
        Arc::new(BinaryViewArray::from_iter_values(texts)),
    ];
    for input in inputs {
        let decoded = decoder(&FormatKind::Raw.into(), schema("string")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.batch.column(0).as_string::<i32>(), &StringArray::from(texts.to_vec()));
        assert!(decoded.kept.is_none() && decoded.broken.is_empty());
        let decoded = decoder(&FormatKind::Raw.into(), schema("binary")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.batch.column(0).as_binary::<i32>(), &BinaryArray::from_iter_values(texts));
    }
}

#[test]
fn same_types_are_not_copied() {
    let input = BinaryArray::from_iter_values(["a", "b"]);
    let decoded = decoder(&FormatKind::Raw.into(), schema("string")).unwrap().decode(&input).unwrap();
    assert_eq!(decoded.batch.column(0).as_string::<i32>().values().as_ptr(), input.values().as_ptr());
    let encoded = encoder(&FormatKind::Raw.into(), schema("string")).unwrap().encode(&decoded.batch).unwrap();
    assert_eq!(encoded.values().as_ptr(), input.values().as_ptr());
}

#[test]
fn broken_text_and_tombstones_are_reported() {
    // The first two records are valid only together.
    let records: [Option<&[u8]>; 5] = [Some(b"\xc3"), Some(b"\xb6"), Some(b"whole"), None, Some(b"ab\xff")];
    for input in [Arc::new(BinaryArray::from_iter(records)) as ArrayRef, Arc::new(BinaryViewArray::from_iter(records))] {
        let decoded = decoder(&FormatKind::Raw.into(), schema("string")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.batch.column(0).as_string::<i32>(), &StringArray::from(vec!["whole"]));
        assert_eq!(decoded.kept.unwrap().values(), &[2]);
        let broken: Vec<_> = decoded.broken.iter().map(|broken| (broken.row, broken.reason.as_str())).collect();
        let expected = [
            (0, "invalid UTF-8 at byte 0"),
            (1, "invalid UTF-8 at byte 0"),
            (3, "the record is null (a tombstone)"),
            (4, "invalid UTF-8 at byte 2"),
        ];
        assert_eq!(broken, expected);

        let decoded = decoder(&FormatKind::Raw.into(), schema("binary")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.kept.unwrap().values(), &[0, 1, 2, 4]);
        assert_eq!(decoded.batch.column(0).as_binary::<i32>().value(3), b"ab\xff");
    }
}

#[test]
fn tombstones_are_rows_or_nothing_where_that_is_asked_for() {
    let spec = |on_null| FormatSpec { on_null, ..FormatKind::Raw.into() };
    let records: [Option<&[u8]>; 4] = [None, Some(b"a"), None, Some(b"\xff")];
    for input in [Arc::new(BinaryArray::from_iter(records)) as ArrayRef, Arc::new(BinaryViewArray::from_iter(records))] {
        let decoded = decoder(&spec(OnNull::Row), schema("string")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.batch.column(0).as_string::<i32>(), &StringArray::from(vec![None, Some("a"), None]));
        assert_eq!((decoded.kept.unwrap().values().to_vec(), decoded.broken[0].row), (vec![0, 1, 2], 3));
        let decoded = decoder(&spec(OnNull::Row), schema("binary")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.batch.column(0).as_binary::<i32>(), &BinaryArray::from_iter(records));
        assert!(decoded.kept.is_none() && decoded.broken.is_empty());
        let decoded = decoder(&spec(OnNull::Skip), schema("string")).unwrap().decode(&input).unwrap();
        assert_eq!(decoded.batch.column(0).as_string::<i32>(), &StringArray::from(vec!["a"]));
        assert_eq!((decoded.kept.unwrap().values().to_vec(), decoded.broken[0].row), (vec![1], 3));
    }
    let strict = Arc::new(Schema::new(vec![Field::new("v", DataType::Binary, false)]));
    let decoded = decoder(&spec(OnNull::Row), strict).unwrap().decode(&BinaryArray::from_iter(records)).unwrap();
    assert_eq!(decoded.broken.iter().map(|broken| broken.row).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn nulls_are_written_as_tombstones() {
    let batch = RecordBatch::try_new(schema("string"), vec![Arc::new(StringArray::from(vec![Some("a"), None]))]).unwrap();
    let encoded = encoder(&FormatKind::Raw.into(), schema("string")).unwrap().encode(&batch).unwrap();
    assert_eq!(encoded, BinaryArray::from_iter([Some("a"), None]));
}

#[test]
fn other_types_are_written_as_text() {
    let written = |text: &str, column: ArrayRef| {
        let batch = RecordBatch::try_new(schema(text), vec![column]).unwrap();
        encoder(&FormatKind::Raw.into(), schema(text)).unwrap().encode(&batch).unwrap()
    };
    let numbers = written("int64", Arc::new(Int64Array::from(vec![Some(-5), None])));
    assert_eq!(numbers, BinaryArray::from_iter([Some("-5"), None]));
    let stamps = PrimitiveArray::<TimestampMicrosecondType>::from(vec![1_700_000_000_000_000]);
    assert_eq!(written("timestamp", Arc::new(stamps)).value(0), b"2023-11-14T22:13:20Z");
}

#[test]
fn schemas_that_are_not_raw_are_refused() {
    let two = Arc::new(Schema::new(vec![parse_field("a", "string").unwrap(), parse_field("b", "string").unwrap()]));
    assert!(matches!(decoder(&FormatKind::Raw.into(), two.clone()), Err(FormatError::RawColumns(2))));
    assert!(matches!(encoder(&FormatKind::Raw.into(), two), Err(FormatError::RawColumns(2))));
    let error = decoder(&FormatKind::Raw.into(), schema("list<int64>")).err().unwrap();
    assert_eq!(error.to_string(), r#"column "value": the format raw cannot hold the type list<int64>"#);
    let error = decoder(&FormatKind::Raw.into(), schema("string")).unwrap().decode(&Int64Array::from(vec![1])).err().unwrap();
    assert_eq!(error.to_string(), "encoded records must be a binary or string column, not Int64");
}
