//! CSV as a user sees it: which text is which value, what is broken and why, what is written.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type};
use arrow_array::{Array, ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_formats::{Decoded, FormatKind, FormatSpec, decoder, encoder, file_encoder, types};
use std::sync::Arc;

fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, text)| types::parse_field(name, text).unwrap()).collect::<Vec<_>>()))
}

fn csv() -> FormatSpec {
    FormatKind::Csv.into()
}

fn decode(spec: &FormatSpec, schema: &SchemaRef, records: &[&str]) -> Decoded {
    decoder(spec, schema.clone()).unwrap().decode(&BinaryArray::from_iter_values(records)).unwrap()
}

fn encode(spec: &FormatSpec, batch: &RecordBatch) -> Vec<String> {
    let records = encoder(spec, batch.schema()).unwrap().encode(batch).unwrap();
    records.iter().map(|record| String::from_utf8(record.unwrap().to_vec()).unwrap()).collect()
}

fn reason(columns: &[(&str, &str)], record: &str) -> String {
    let decoded = decode(&csv(), &schema(columns), &[record]);
    assert_eq!((decoded.batch.num_rows(), decoded.broken.len()), (0, 1), "{record}");
    decoded.broken[0].reason.clone()
}

#[test]
fn every_type_has_its_text() {
    let columns = [
        ("b", "bool", "true"),
        ("i", "int64", "-5"),
        ("f", "float64", "1.5"),
        ("d", "decimal(10, 2)", "12.50"),
        ("s", "string", "\"a,\"\"b\"\"\""),
        ("y", "binary", "aGk="),
        ("day", "date", "2024-01-31"),
        ("at", "time", "23:59:59.500000"),
        ("ts", "timestamp", "2024-01-31T23:59:59Z"),
        ("ms", "timestamp_ms", "1700000000000"),
    ];
    let schema = schema(&columns.map(|(name, of_type, _)| (name, of_type)));
    let record = columns.map(|(.., text)| text).join(",");
    let decoded = decode(&csv(), &schema, &[&record, ",,,,,,,,,"]);
    assert_eq!(decoded.broken, []);
    assert_eq!(decoded.batch.column(4).as_string::<i32>().value(0), "a,\"b\"");
    assert!((0..columns.len()).all(|column| decoded.batch.column(column).is_null(1)));
    assert_eq!(encode(&csv(), &decoded.batch), [record, ",,,,,,,,,".to_owned()]);
}

#[test]
fn numbers_are_taken_as_other_writers_write_them() {
    let schema = schema(&[("i", "int32"), ("f", "float64")]);
    let decoded = decode(&csv(), &schema, &["007,+1.5", "+3,.5", "1e2,inf", "-0,NaN", "\"4\",\"-inf\""]);
    assert_eq!(decoded.broken, []);
    assert_eq!(decoded.batch.column(0).as_primitive::<Int32Type>().values(), &[7, 3, 100, 0, 4]);
    let floats = decoded.batch.column(1).as_primitive::<Float64Type>().values();
    assert!(floats[..3] == [1.5, 0.5, f64::INFINITY] && floats[3].is_nan() && floats[4] == f64::NEG_INFINITY);
}

#[test]
fn nulls_and_empty_texts_are_told_apart() {
    let schema = schema(&[("a", "string"), ("b", "string")]);
    let decoded = decode(&csv(), &schema, &["\"\","]);
    assert_eq!((decoded.batch.column(0).is_null(0), decoded.batch.column(1).is_null(0)), (false, true));
    assert_eq!(encode(&csv(), &decoded.batch), ["\"\","]);
    let spec = FormatSpec { null_text: Some("NA".to_owned()), delimiter: Some(';'), ..csv() };
    let decoded = decode(&spec, &schema, &["NA;\"NA\"", ";a;b"]);
    assert_eq!(decoded.batch.column(0).null_count(), 1);
    assert_eq!(decoded.batch.column(1).as_string::<i32>().value(0), "NA");
    assert_eq!(decoded.broken[0].reason, "expected 2 fields, found 3 fields");
    assert_eq!(encode(&spec, &decoded.batch), ["NA;\"NA\""]);
    // A number may be the null text too.
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(10)]));
    let batch = RecordBatch::try_from_iter_with_nullable([("n", numbers, true)]).unwrap();
    assert_eq!(encode(&FormatSpec { null_text: Some("0".to_owned()), ..csv() }, &batch), ["\"0\"", "0", "10"]);
}

#[test]
fn a_broken_record_says_why_and_takes_nothing_with_it() {
    assert_eq!(
        reason(&[("a", "string"), ("n", "int8")], "x,300"),
        "column \"n\": expected a number that fits int8, found \"300\" at byte 2"
    );
    assert_eq!(reason(&[("a", "bool")], "yes"), "column \"a\": expected true or false, found \"yes\" at byte 0");
    assert_eq!(reason(&[("f", "float64")], "1e999"), "column \"f\": expected a number that fits float64, found \"1e999\" at byte 0");
    assert!(reason(&[("d", "date")], "31.1.2024").contains("expected a date such as 2024-01-31, found \"31.1.2024\""));
    assert_eq!(reason(&[("a", "string"), ("b", "string")], "x"), "expected 2 fields, found 1 field: nothing for column \"b\"");
    assert!(reason(&[("a", "string")], "\"x").contains("without its closing quote at byte 0"));
    let invalid = BinaryArray::from_iter_values([&b"a\xff"[..], b"b"]);
    let decoded = decoder(&csv(), schema(&[("a", "string")])).unwrap().decode(&invalid).unwrap();
    assert_eq!((decoded.broken[0].reason.as_str(), decoded.batch.num_rows()), ("invalid UTF-8 at byte 1", 1));
    let schema = schema(&[("a", "string"), ("n", "int64")]);
    let decoded = decode(&csv(), &schema, &["x,1", "y,z", "v,2"]);
    assert_eq!(decoded.kept.unwrap().values(), &[0, 2]);
    assert_eq!(decoded.batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x", "v"]);
    let not_null = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    assert!(decode(&csv(), &not_null, &[""]).broken[0].reason.starts_with("column \"n\": the column is not nullable"));
}

#[test]
fn a_header_is_no_row_wherever_it_comes() {
    let schema = schema(&[("a", "string"), ("b c", "string")]);
    let spec = FormatSpec { header: Some(true), ..csv() };
    let decoded = decode(&spec, &schema, &["\u{feff}a,\"b c\"", "1,2", "a,b c", "a,x"]);
    assert_eq!((decoded.batch.num_rows(), decoded.kept.unwrap().values().to_vec(), decoded.broken.len()), (2, vec![1, 3], 0));
    let swapped = decode(&spec, &schema, &["b c,a,d"]).broken;
    assert_eq!(swapped[0].reason, "a header of the columns b c, a, d; the schema has a, b c, and needs them all in the order of the file");
    // Without the option it is a row.
    assert_eq!(decode(&csv(), &schema, &["a,b c"]).batch.num_rows(), 1);
}

#[test]
fn a_file_begins_with_its_header() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
    let batch = RecordBatch::try_from_iter([("a,b", texts)]).unwrap();
    let spec = FormatSpec { header: Some(true), ..csv() };
    let mut file = Vec::new();
    let mut encoder = file_encoder(&spec, &batch.schema()).unwrap();
    encoder.begin(&mut file).unwrap();
    encoder.write(&batch, &mut file).unwrap();
    encoder.finish(&mut file).unwrap();
    assert_eq!(String::from_utf8(file).unwrap(), "\"a,b\"\nx\ny\n");
    let error = standpipe_formats::encoder(&spec, batch.schema()).err().unwrap();
    assert!(error.to_string().contains("a header stands at the beginning of a file"), "{error}");
}

#[test]
fn floats_that_are_no_numbers_are_written_as_they_are_read() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]));
    let batch = RecordBatch::try_from_iter([("f", floats)]).unwrap();
    assert_eq!(encode(&csv(), &batch), ["NaN", "inf", "-inf", "1.0"]);
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let refused = |spec: FormatSpec, columns: &[(&str, &str)]| decoder(&spec, schema(columns)).err().unwrap().to_string();
    let columns = [("a", "string")];
    assert!(refused(FormatSpec { delimiter: Some('x'), ..csv() }, &columns).starts_with("delimiter: 'x' is no delimiter"));
    assert!(refused(FormatSpec { delimiter: Some('-'), ..csv() }, &columns).starts_with("delimiter: '-' is no delimiter"));
    assert!(refused(FormatSpec { quote: Some(','), ..csv() }, &columns).starts_with("quote: ',' is no quote"));
    assert!(refused(FormatSpec { null_text: Some("a,b".to_owned()), ..csv() }, &columns).starts_with("null_text: \"a,b\" holds ','"));
    assert_eq!(refused(csv(), &[("l", "list<int64>")]), "column \"l\": the format csv cannot hold the type list<int64>");
    assert!(refused(FormatKind::Parquet.into(), &columns).contains("a source gives records"));
}
