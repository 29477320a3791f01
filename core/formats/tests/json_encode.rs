//! Encoding JSON: the text of every type, and every Arrow form of it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array,
    IntervalDayTimeArray, LargeStringArray, NullArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, StringViewArray,
    Time64MicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use standpipe_formats::types::parse_field;
use standpipe_formats::{FormatKind, TEXT_ISO, TEXT_KEY, encoder};

fn texts(records: &BinaryArray) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.unwrap().to_vec()).unwrap()).collect()
}

fn written(field: Field, column: ArrayRef) -> Vec<String> {
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema.clone(), vec![column]).unwrap();
    let records = encoder(&FormatKind::Json.into(), schema).unwrap().encode(&batch).unwrap();
    let texts = texts(&records);
    texts.iter().map(|text| text.strip_prefix("{\"v\":").and_then(|text| text.strip_suffix('}')).unwrap().to_owned()).collect()
}

/// The values of a column as JSON.
fn values(column: impl Array + 'static) -> Vec<String> {
    written(Field::new("v", column.data_type().clone(), true), Arc::new(column))
}

fn iso(column: impl Array + 'static) -> Vec<String> {
    let field = Field::new("v", column.data_type().clone(), true);
    written(field.with_metadata([(TEXT_KEY.to_owned(), TEXT_ISO.to_owned())].into()), Arc::new(column))
}

#[test]
fn records_are_objects() {
    let role = [("standpipe.role".to_owned(), "row_kind".to_owned())];
    let fields = vec![
        Field::new("a \"b\"", DataType::Int64, true),
        Field::new("op", DataType::Utf8, false).with_metadata(role.into()),
        Field::new("c", DataType::Boolean, true),
    ];
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
        Arc::new(StringArray::from(vec!["+I", "-D"])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false)])),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let mut encoder = encoder(&FormatKind::Json.into(), schema).unwrap();
    let expected = [r#"{"a \"b\"":-9223372036854775808,"op":"+I","c":true}"#, r#"{"a \"b\"":null,"op":"-D","c":false}"#];
    assert_eq!(texts(&encoder.encode(&batch).unwrap()), expected);
    assert_eq!(texts(&encoder.encode(&batch.slice(1, 1)).unwrap()), expected[1..]);
    assert!(encoder.encode(&batch.slice(0, 0)).unwrap().is_empty());

    let error = encoder.encode(&batch.project(&[0]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the encoder was made for 3 columns, but the batch has 1");
}

#[test]
fn a_batch_without_columns_gives_empty_objects() {
    let schema = Arc::new(Schema::empty());
    let rows = RecordBatchOptions::new().with_row_count(Some(2));
    let batch = RecordBatch::try_new_with_options(schema.clone(), vec![], &rows).unwrap();
    assert_eq!(texts(&encoder(&FormatKind::Json.into(), schema).unwrap().encode(&batch).unwrap()), ["{}", "{}"]);
}

#[test]
fn numbers_are_exact() {
    assert_eq!(values(UInt64Array::from(vec![u64::MAX, 0])), ["18446744073709551615", "0"]);
    let floats = vec![12.0, 12.5, 0.1, -0.0, 1e16, 1e300, 5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let expected = ["12.0", "12.5", "0.1", "-0.0", "1e+16", "1e+300", "5e-324", "null", "null", "null"];
    assert_eq!(values(Float64Array::from(floats.clone())), expected);
    // As serde_json writes them.
    assert_eq!(floats.iter().map(|float| serde_json::to_string(float).unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(values(Float32Array::from(vec![0.1, 16_777_216.0, f32::NAN])), ["0.1", "16777216.0", "null"]);
    let decimals = |precision, scale, values: Vec<i128>| Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap();
    let expected = ["12.34", "-0.05", "0.00", "-1.00", "90071992547409930.01"];
    assert_eq!(values(decimals(20, 2, vec![1234, -5, 0, -100, 9_007_199_254_740_993_001])), expected);
    assert_eq!(values(decimals(20, 0, vec![7])), ["7"]);
    assert_eq!(values(decimals(20, -2, vec![7, 0, -3])), ["700", "0", "-300"]);
}

#[test]
fn strings_are_escaped_and_come_in_every_form() {
    let strings = ["plain", "", "\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}", "zwölf 😀"];
    let expected = ["\"plain\"", "\"\"", r#""\"\\/\b\f\n\r\t\u0001\u001f"#, "\"zwölf 😀\""].map(str::to_owned);
    let expected = [expected[0].clone(), expected[1].clone(), format!("{}\u{7f}\"", expected[2]), expected[3].clone()];
    assert_eq!(values(StringArray::from(strings.to_vec())), expected);
    assert_eq!(values(LargeStringArray::from(strings.to_vec())), expected);
    assert_eq!(values(StringViewArray::from(strings.to_vec())), expected);
    assert_eq!(values(strings.iter().copied().collect::<DictionaryArray<Int8Type>>()), expected);
    for (text, json) in strings.iter().zip(expected) {
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), *text);
    }
    // The batch may have another form than the schema says.
    let schema = Schema::new(vec![parse_field("v", "string").unwrap()]);
    let mut encoder = encoder(&FormatKind::Json.into(), Arc::new(schema)).unwrap();
    let batch = RecordBatch::try_from_iter([("v", Arc::new(StringViewArray::from(vec!["x"])) as ArrayRef)]).unwrap();
    assert_eq!(texts(&encoder.encode(&batch).unwrap()), [r#"{"v":"x"}"#]);
    // But not other values: those would have to be guessed, or lost.
    let schema = Schema::new(vec![parse_field("v", "int64").unwrap()]);
    let mut encoder = standpipe_formats::encoder(&FormatKind::Json.into(), Arc::new(schema)).unwrap();
    assert!(encoder.encode(&batch).is_err());
}

#[test]
fn binary_is_base64() {
    assert_eq!(
        values(BinaryArray::from_vec(vec![b"", b"a", b"ab", b"abc", &[0, 255]])),
        [r#""""#, r#""YQ==""#, r#""YWI=""#, r#""YWJj""#, r#""AP8=""#]
    );
}

#[test]
fn timestamps_are_numbers_unless_they_came_as_text() {
    assert_eq!(values(TimestampMillisecondArray::from(vec![Some(1_700_000_002_000), None])), ["1700000002000", "null"]);
    assert_eq!(values(TimestampMillisecondArray::from(vec![5]).with_timezone("+02:00")), ["5"]);
    assert_eq!(iso(TimestampSecondArray::from(vec![1_700_000_000])), [r#""2023-11-14T22:13:20Z""#]);
    assert_eq!(iso(TimestampMillisecondArray::from(vec![-1])), [r#""1969-12-31T23:59:59.999000Z""#]);
    assert_eq!(iso(PrimitiveArray::<TimestampMicrosecondType>::from(vec![1])), [r#""1970-01-01T00:00:00.000001Z""#]);
    assert_eq!(iso(TimestampNanosecondArray::from(vec![1])), [r#""1970-01-01T00:00:00.000000001Z""#]);
    assert_eq!(values(Date32Array::from(vec![19_675])), [r#""2023-11-14""#]);
    assert_eq!(values(Time64MicrosecondArray::from(vec![0, 86_399_500_000])), [r#""00:00:00""#, r#""23:59:59.500000""#]);
}

#[test]
fn a_null_column_is_written_and_an_interval_refused() {
    assert_eq!(values(NullArray::new(2)), ["null", "null"]);
    let field = Field::new("gap", IntervalDayTimeArray::from(vec![None]).data_type().clone(), true);
    let error = encoder(&FormatKind::Json.into(), Arc::new(Schema::new(vec![field]))).err().unwrap();
    assert_eq!(error.to_string(), r#"column "gap": the format json cannot hold the type Interval(DayTime)"#);
}

#[test]
fn nested_values_are_written_as_read() {
    let text = "struct<a: list<timestamp>, b: map<string, struct<c: int8, d: binary>>>";
    let schema = Arc::new(Schema::new(vec![parse_field("v", text).unwrap()]));
    let records = [
        r#"{"v":{"a":["2023-11-14T22:13:20Z",null],"b":{"x\n":{"c":1,"d":"YQ=="},"y":null}}}"#,
        r#"{"v":null}"#,
        r#"{"v":{"a":null,"b":{}}}"#,
        r#"{"v":{"a":[],"b":null}}"#,
    ];
    let mut decoder = standpipe_formats::decoder(&FormatKind::Json.into(), schema.clone()).unwrap();
    let batch = decoder.decode(&StringArray::from(records.to_vec())).unwrap().batch;
    let mut encoder = encoder(&FormatKind::Json.into(), schema).unwrap();
    assert_eq!(texts(&encoder.encode(&batch).unwrap()), records);
    assert_eq!(texts(&encoder.encode(&batch.slice(2, 2)).unwrap()), records[2..]);
    assert!(batch.column(0).as_struct().is_null(1));
}
