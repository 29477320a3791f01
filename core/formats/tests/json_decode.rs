//! Decoding JSON: every type's edges, every way a record can be broken, and that a broken record leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BinaryViewArray, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_formats::types::parse_field;
use standpipe_formats::{Decoded, FormatKind, FormatSpec, OnNull, decoder};

fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, text)| parse_field(name, text).unwrap()).collect::<Vec<_>>()))
}

fn decode_to<R: AsRef<[u8]>>(schema: SchemaRef, records: &[R]) -> Decoded {
    decoder(&FormatKind::Json.into(), schema).unwrap().decode(&BinaryArray::from_iter_values(records)).unwrap()
}

fn reasons(decoded: &Decoded) -> Vec<&str> {
    decoded.broken.iter().map(|broken| broken.reason.as_str()).collect()
}

/// The column `v` of this type, of one record `{"v":VALUE}`; or the reason why it is broken.
fn value(text: &str, value: &str) -> Result<ArrayRef, String> {
    let decoded = decode_to(schema(&[("v", text)]), &[format!("{{\"v\":{value}}}")]);
    match decoded.broken.first() {
        Some(broken) => {
            assert_eq!(decoded.batch.num_rows(), 0);
            Err(broken.reason.clone())
        }
        None => Ok(Arc::clone(decoded.batch.column(0))),
    }
}

fn float64(text: &str) -> Option<u64> {
    value("float64", text).ok().map(|array| array.as_primitive::<Float64Type>().value(0).to_bits())
}

fn int64(text: &str) -> Option<i64> {
    value("int64", text).ok().map(|array| array.as_primitive::<Int64Type>().value(0))
}

fn string(text: &str) -> Result<String, String> {
    value("string", text).map(|array| array.as_string::<i32>().value(0).to_owned())
}

fn metrics() -> SchemaRef {
    schema(&[("host", "string"), ("metric", "string"), ("ts", "timestamp_ms"), ("value", "float64")])
}

fn check_metrics(batch: &RecordBatch) {
    assert_eq!(batch.column(0).as_string::<i32>(), &StringArray::from(vec!["host-0001", "h2"]));
    assert_eq!(batch.column(1).as_string::<i32>(), &StringArray::from(vec!["cpu", "mem"]));
    assert_eq!(batch.column(2).as_primitive::<TimestampMillisecondType>().values(), &[1_700_000_002_000, 5]);
    assert_eq!(batch.column(3).as_primitive::<Float64Type>().values(), &[12.5, -1.0]);
}

#[test]
fn every_kind_of_records_is_read() {
    let records =
        [r#"{"host":"host-0001","metric":"cpu","ts":1700000002000,"value":12.5}"#, r#"{"host":"h2","metric":"mem","ts":5,"value":-1}"#];
    let inputs: [ArrayRef; 5] = [
        Arc::new(BinaryViewArray::from_iter_values(records)),
        Arc::new(BinaryArray::from_iter_values(records)),
        Arc::new(StringArray::from(records.to_vec())),
        Arc::new(LargeStringArray::from(records.to_vec())),
        Arc::new(StringViewArray::from(records.to_vec())),
    ];
    let mut decoder = decoder(&FormatKind::Json.into(), metrics()).unwrap();
    for input in inputs {
        let decoded = decoder.decode(&input).unwrap();
        check_metrics(&decoded.batch);
        assert!(decoded.kept.is_none() && decoded.broken.is_empty());
    }
}

#[test]
fn keys_come_in_any_order_with_any_space_escaped_or_unknown() {
    let records = [
        " {\t\"ts\" : 1700000002000 ,\n\"value\":12.5, \"host\":\"host-0001\",\r\"metric\":\"cpu\" } ",
        r#"{"x":[1,{"y":null}],"v\u0061lue":-1,"metric":"mem","x":"\u00e4","host":"h2","z":-0.0e+1,"ts":5}"#,
    ];
    check_metrics(&decode_to(metrics(), &records).batch);
}

#[test]
fn the_last_of_duplicate_keys_wins() {
    let schema = schema(&[("a", "string"), ("l", "list<int64>"), ("m", "map<string, int64>")]);
    let many = (0..100).map(|n| format!("\"k{}\":{n}", n % 60)).collect::<Vec<_>>().join(",");
    let records = [
        r#"{"a":"first","l":[1,2],"a":"last","l":[3],"m":{"x":1,"y":2,"x":3,"x":4}}"#.to_owned(),
        r#"{"a":"kept","a":null,"m":{"x":5}}"#.to_owned(),
        format!("{{\"m\":{{{many}}}}}"),
    ];
    let batch = decode_to(schema, &records).batch;
    assert_eq!(batch.column(0).as_string::<i32>(), &StringArray::from(vec![Some("last"), None, None]));
    assert_eq!(batch.column(1).as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[3]);
    let maps = batch.column(2).as_map();
    let entries = |row: usize| {
        let entries = maps.value(row);
        let keys = entries.column(0).as_string::<i32>().iter().map(|key| key.unwrap().to_owned());
        keys.zip(entries.column(1).as_primitive::<Int64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(entries(0), [("y".to_owned(), 2), ("x".to_owned(), 4)]);
    assert_eq!(entries(1), [("x".to_owned(), 5)]);
    let expected: Vec<_> = (40..100).map(|n| (format!("k{}", n % 60), n)).collect();
    assert_eq!(entries(2), expected);
}

#[test]
fn missing_and_null_values_are_nulls_where_allowed() {
    let decoded = decode_to(schema(&[("a", "int64"), ("b", "string")]), &["{}", r#"{"a":null}"#, r#"{"b":"x","a":1}"#]);
    assert!(decoded.broken.is_empty());
    assert_eq!(decoded.batch.column(0).null_count(), 2);
    assert_eq!(decoded.batch.column(1).null_count(), 2);

    let inner = Field::new_struct("s", vec![Field::new("b", arrow_schema::DataType::Int64, false)], true);
    let strict = Arc::new(Schema::new(vec![Field::new("a", arrow_schema::DataType::Int64, false), inner]));
    let records = [r#"{"a":1}"#, "{}", r#"{"a":null}"#, r#"{"a":2,"s":{}}"#, r#"{"a":3,"s":{"b":4}}"#, r#"{"a":3,"s":{"b":null}}"#];
    let decoded = decode_to(strict, &records);
    assert_eq!(decoded.kept.as_ref().unwrap().values(), &[0, 4]);
    let expected = [
        r#"column "a": no value, but the column is not nullable"#,
        r#"column "a": no value, but the column is not nullable"#,
        r#"column "s.b": no value, but the column is not nullable"#,
        r#"column "s.b": no value, but the column is not nullable"#,
    ];
    assert_eq!(reasons(&decoded), expected);
    assert!(decoded.batch.column(1).is_null(0) && decoded.batch.column(1).is_valid(1));
}

#[test]
fn broken_records_leave_nothing_behind() {
    let columns = [("a", "string"), ("b", "list<struct<c: string, d: list<int64>>>"), ("e", "map<string, binary>"), ("f", "bool")];
    let good = r#"{"a":"ä","b":[{"c":"x","d":[1,null]},null,{"d":[]}],"e":{"k":"AAE=","k":"Ag=="},"f":true}"#;
    let other = r#"{"f":false,"e":{},"b":[],"a":null}"#;
    let mut records: Vec<Vec<u8>> = Vec::new();
    for end in 0..good.len() {
        records.push(good.as_bytes()[..end].to_vec());
        records.push(if end % 2 == 0 { good.into() } else { other.into() });
        // A byte that is never valid in its place, or changes a value to one of another type.
        let mut damaged = good.as_bytes().to_vec();
        damaged[end] = 0x01;
        records.push(damaged);
    }
    let decoded = decode_to(schema(&columns), &records);
    assert_eq!(decoded.broken.len(), 2 * good.len());
    let clean: Vec<_> = records.iter().skip(1).step_by(3).collect();
    assert_eq!(decoded.batch, decode_to(schema(&columns), &clean).batch);
    let kept: Vec<_> = (0..good.len() as u32).map(|at| at * 3 + 1).collect();
    assert_eq!(decoded.kept.unwrap().values(), kept.as_slice());
}

#[test]
fn reasons_say_what_and_where() {
    let records = [
        r#"{"host":"host-0001","metric":"","ts":"abc"}"#,
        r#"{"host":"h","ts":1700000002.5}"#,
        r#"{"host":12,"metric":"cpu"}"#,
        r#"{"value":"12,5"}"#,
        r#"{"value":1e400}"#,
        r#"{"value":{"a":1}}"#,
        r#"{"value":1"#,
        r#"{"value":1]"#,
        r#"{"value" 1}"#,
        r#"{"value":}"#,
        r#"{"value":1,}"#,
        r#"{value:1}"#,
        r#"{"value":1} {"#,
        r#"[1]"#,
        r#""#,
        r#"{"host":"abc"#,
        r#"{"host":"\x"}"#,
        "{\"host\":\"a\nb\"}",
        r#"{"unknown":[tru]}"#,
        r#"{"unknown":01}"#,
    ];
    let decoded = decode_to(metrics(), &records);
    let expected = [
        r#"column "ts": expected an epoch number, found "abc" at byte 37"#,
        r#"column "ts": expected an epoch number, found 1700000002.5 at byte 17"#,
        r#"column "host": expected a string, found 12 at byte 8"#,
        r#"column "value": expected a number that fits float64, found "12,5" at byte 9"#,
        r#"column "value": expected a number that fits float64, found 1e400 at byte 9"#,
        r#"column "value": expected a number that fits float64, found an object at byte 9"#,
        r#"expected "," or "}", found the end of the record at byte 10"#,
        r#"expected "," or "}", found "]" at byte 10"#,
        r#"expected ":", found 1 at byte 9"#,
        r#"column "value": expected a number that fits float64, found "}" at byte 9"#,
        r#"expected a string, found "}" at byte 11"#,
        r#"expected a string, found value at byte 1"#,
        r#"expected the end of the record, found an object at byte 12"#,
        r#"expected an object, found an array at byte 0"#,
        r#"expected an object, found the end of the record at byte 0"#,
        r#"column "host": a string without its closing quote: the record ends at byte 12"#,
        r#"column "host": unknown escape in a string at byte 9"#,
        r#"column "host": unescaped control character 0x0a in a string at byte 10"#,
        r#"expected true, found tru at byte 12"#,
        r#"expected a number, found 01 at byte 11"#,
    ];
    assert_eq!(reasons(&decoded), expected);

    let nested = schema(&[("a", "struct<b: list<map<string, int8>>>")]);
    let decoded = decode_to(nested, &[r#"{"a":{"b":[{},{"x":1,"k":300}]}}"#]);
    assert_eq!(reasons(&decoded), [r#"column "a.b[1].k": expected a number that fits int8, found 300 at byte 25"#]);

    let long = format!("{{\"ts\":\"{}\"}}", "ä".repeat(1_000_000));
    let found = "ä".repeat(40);
    assert_eq!(
        reasons(&decode_to(metrics(), &[long])),
        [format!(r#"column "ts": expected an epoch number, found "{found}..." at byte 6"#)]
    );
}

#[test]
fn a_null_record_is_broken() {
    let mut decoder = decoder(&FormatKind::Json.into(), metrics()).unwrap();
    let decoded = decoder.decode(&BinaryArray::from_iter([Some("{}"), None, Some("{}")])).unwrap();
    assert_eq!(decoded.kept.unwrap().values(), &[0, 2]);
    assert_eq!((decoded.broken[0].row, decoded.broken[0].reason.as_str()), (1, "the record is null (a tombstone)"));
}

#[test]
fn a_null_record_is_a_row_or_nothing_where_that_is_asked_for() {
    let records = BinaryArray::from_iter([None, Some("{"), Some(r#"{"v":1}"#), None]);
    let decode = |on_null, nullable| {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, nullable)]));
        let spec = FormatSpec { on_null, ..FormatKind::Json.into() };
        let decoded = decoder(&spec, schema).unwrap().decode(&records).unwrap();
        let values: Vec<_> = decoded.batch.column(0).as_primitive::<Int64Type>().iter().collect();
        (values, decoded.kept.unwrap().values().to_vec(), decoded.broken.iter().map(|broken| broken.row).collect::<Vec<_>>())
    };
    assert_eq!(decode(OnNull::Row, true), (vec![None, Some(1), None], vec![0, 2, 3], vec![1]));
    assert_eq!(decode(OnNull::Skip, true), (vec![Some(1)], vec![2], vec![1]));
    // A column that must have a value.
    assert_eq!(decode(OnNull::Row, false), (vec![Some(1)], vec![2], vec![0, 1, 3]));
}

#[test]
fn integers_keep_every_digit() {
    assert_eq!(int64("9223372036854775807"), Some(i64::MAX));
    assert_eq!(int64("-9223372036854775808"), Some(i64::MIN));
    assert_eq!(int64("9007199254740993"), Some(9_007_199_254_740_993));
    assert_eq!(int64("9007199254740993.0"), Some(9_007_199_254_740_993));
    assert_eq!(int64("\"9007199254740993\""), Some(9_007_199_254_740_993));
    assert_eq!(int64("1.0"), Some(1));
    assert_eq!(int64("12e2"), Some(1200));
    for broken in
        ["9223372036854775808", "-9223372036854775809", "1.5", "01", "-", "+1", "1.", ".5", "1e", "0x10", "\"\"", "\" 1\"", "true", "1e400"]
    {
        assert_eq!(int64(broken), None, "{broken}");
    }
    assert_eq!(value("uint64", "18446744073709551615").unwrap().as_primitive::<UInt64Type>().value(0), u64::MAX);
    assert!(value("uint64", "-1").is_err() && value("uint64", "18446744073709551616").is_err());
    assert_eq!(value("uint64", "-0").unwrap().as_primitive::<UInt64Type>().value(0), 0);
    for (text, least, most) in [("int8", "-128", "127"), ("int16", "-32768", "32767"), ("int32", "-2147483648", "2147483647")] {
        assert!(value(text, least).is_ok() && value(text, most).is_ok(), "{text}");
        assert!(value(text, &format!("{least}0")).is_err() && value(text, &format!("{most}0")).is_err(), "{text}");
    }
    for (text, most, beyond) in [("uint8", "255", "256"), ("uint16", "65535", "65536"), ("uint32", "4294967295", "4294967296")] {
        assert!(value(text, most).is_ok() && value(text, beyond).is_err(), "{text}");
    }
}

#[test]
fn floats_are_rounded_once() {
    for text in [
        "0",
        "12.5",
        "0.1",
        "1e22",
        "1e23",
        "9007199254740993",
        "123456789012345678901234567890",
        "4.9e-324",
        "1e-400",
        "2.2250738585072011e-308",
    ] {
        assert_eq!(float64(text), Some(text.parse::<f64>().unwrap().to_bits()), "{text}");
    }
    assert_eq!(float64("-0.0"), Some((-0.0_f64).to_bits()));
    assert_eq!(float64("-0"), Some((-0.0_f64).to_bits()));
    assert_eq!(float64("1e400"), None);
    assert_eq!(float64("\"NaN\""), None);
    assert_eq!(value("float32", "16777217").unwrap().as_primitive::<Float32Type>().value(0), 16_777_216.0);
    assert!(value("float32", "1e39").is_err());
}

#[test]
fn decimals_are_exact_or_broken() {
    let decimal = |text: &str| value("decimal(20, 3)", text).ok().map(|array| array.as_primitive::<Decimal128Type>().value(0));
    assert_eq!(decimal("9007199254740993.001"), Some(9_007_199_254_740_993_001));
    assert_eq!(decimal("\"-0.001\""), Some(-1));
    assert_eq!(decimal("1.5000"), Some(1500));
    assert_eq!(decimal("1e3"), Some(1_000_000));
    assert_eq!(decimal("99999999999999999.999"), Some(10_i128.pow(20) - 1));
    assert_eq!(decimal("100000000000000000"), None);
    assert_eq!(decimal("0.0001"), None);
    let largest = "9".repeat(76);
    assert!(value("decimal(76, 0)", &largest).is_ok() && value("decimal(76, 0)", &format!("{largest}0")).is_err());
    assert!(value("decimal(76, 0)", &format!("-1{}", "0".repeat(76))).is_err());
    assert_eq!(
        value("decimal(4, 2)", "123.4").unwrap_err(),
        r#"column "v": expected a number that fits decimal(4, 2), found 123.4 at byte 5"#
    );
}

#[test]
fn strings_have_every_escape() {
    assert_eq!(string(r#""\"\\\/\b\f\n\r\t\u00e4\u20ac\ud83d\ude00\u0000""#).unwrap(), "\"\\/\u{8}\u{c}\n\r\tä€😀\0");
    assert_eq!(string(r#""plain \u0041 and \u0042 more text, long enough""#).unwrap(), "plain A and B more text, long enough");
    for lone in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\n""#, r#""\ud83d\u0041""#, r#""\ud83d\ud83d""#] {
        assert_eq!(string(lone).unwrap_err(), r#"column "v": lone surrogate in a string at byte 6"#, "{lone}");
    }
    for broken in [
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\u+123""#,
        r#""\u"#,
        r#""\"#,
        r#""\a""#,
        "\"\t\"",
        "\"\0\"",
        "\"\x1f\"",
        "'a'",
        "a",
        "1",
        "true",
        "{}",
    ] {
        assert!(string(broken).is_err(), "{broken}");
    }
    let huge = "x".repeat(10_000_000);
    assert_eq!(string(&format!("\"{huge}\"")).unwrap(), huge);
    assert_eq!(string(&format!("\"{huge}\\n\"")).unwrap(), format!("{huge}\n"));
}

#[test]
fn invalid_utf8_is_broken_wherever_it_is() {
    let records: [&[u8]; 6] =
        [b"{\"v\":\"a\xffb\"}", b"{\"v\":\"12345678\xc3\"}", b"{\"\xff\":1}", b"{\"x\":\"\xf0\x9f\x98\"}", b"{\"v\":\"\\n\xff\"}", b"\xff"];
    let decoded = decode_to(schema(&[("v", "string")]), &records);
    let expected = [
        r#"column "v": invalid UTF-8 in a string at byte 7"#,
        r#"column "v": invalid UTF-8 in a string at byte 14"#,
        "invalid UTF-8 in a string at byte 2",
        "invalid UTF-8 in a string at byte 6",
        r#"column "v": invalid UTF-8 in a string at byte 8"#,
        "expected an object, found \"\u{fffd}\" at byte 0",
    ];
    assert_eq!(reasons(&decoded), expected);
}

#[test]
fn temporal_values_are_read() {
    let micros = |text: &str| value("timestamp", text).map(|array| array.as_primitive::<TimestampMicrosecondType>().value(0));
    assert_eq!(micros(r#""2023-11-14T22:13:20.5+01:00""#), Ok(1_699_996_400_500_000));
    assert_eq!(micros(r#""2023-11-14 22:13:20""#), Ok(1_700_000_000_000_000));
    assert_eq!(micros(r#""2023\u002d11-14""#), Ok(1_699_920_000_000_000));
    let reason = |found: &str| Err(format!(r#"column "v": expected a timestamp such as "2024-01-31T23:59:59Z", found {found} at byte 5"#));
    assert_eq!(micros("1700000000000"), reason("1700000000000"));
    assert_eq!(micros(r#""yesterday""#), reason("\"yesterday\""));
    assert_eq!(value("timestamp_ms", "\"1700000000000\"").unwrap().as_primitive::<TimestampMillisecondType>().value(0), 1_700_000_000_000);
    assert_eq!(value("timestamp_ms", "-1.7e12").unwrap().as_primitive::<TimestampMillisecondType>().value(0), -1_700_000_000_000);
    assert!(value("timestamp_ms", "\"2023-11-14\"").is_err());
    assert_eq!(value("date", "\"1969-12-31\"").unwrap().as_primitive::<Date32Type>().value(0), -1);
    assert_eq!(value("time", "\"23:59:59.000001\"").unwrap().as_primitive::<Time64MicrosecondType>().value(0), 86_399_000_001);
    assert!(value("date", "\"2023-02-29\"").is_err() && value("time", "\"24:00\"").is_err());
}

#[test]
fn booleans_and_binary_are_read() {
    assert!(value("bool", "true").unwrap().as_boolean().value(0));
    assert!(!value("bool", "false").unwrap().as_boolean().value(0));
    assert_eq!(value("bool", "1").unwrap_err(), r#"column "v": expected true or false, found 1 at byte 5"#);
    assert!(value("bool", "truth").is_err());
    for text in ["\"AP9/\"", "\"AP9\\/\""] {
        assert_eq!(value("binary", text).unwrap().as_binary::<i32>().value(0), [0, 255, 127]);
    }
    assert_eq!(value("binary", "\"AA\"").unwrap().as_binary::<i32>().value(0), [0]);
    assert_eq!(value("binary", "\"A-\"").unwrap_err(), r#"column "v": expected base64 text, found "A-" at byte 5"#);
}

#[test]
fn nesting_is_limited() {
    let deep = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let records = [deep(127), deep(128), "{\"x\":".repeat(1_000_000), format!("{{\"x\":{}", "[".repeat(1_000_000))];
    let decoded = decode_to(schema(&[("v", "int64")]), &records);
    assert_eq!(decoded.kept.as_ref().unwrap().values(), &[0]);
    let reason = |at: u32| format!("objects and arrays nested deeper than 128 levels at byte {at}");
    assert_eq!(reasons(&decoded), [reason(132), reason(640), reason(132)]);
}

#[test]
fn a_schema_without_columns_counts_records() {
    let decoded = decode_to(schema(&[]), &["{}", "{", r#"{"a":1}"#]);
    assert_eq!((decoded.batch.num_rows(), decoded.broken.len()), (2, 1));
}
