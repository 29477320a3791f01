//! The text form of column types: what is read, what is written back, and what a mistake is told.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use proptest::prelude::*;
use standpipe_formats::types::{parse_field, type_text};
use standpipe_formats::{TEXT_ISO, TEXT_KEY};

#[test]
fn types_are_read() {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let entries = DataType::Struct(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Float64, true)].into());
    for (text, data_type) in [
        ("bool", DataType::Boolean),
        ("uint8", DataType::UInt8),
        ("int64", DataType::Int64),
        ("float32", DataType::Float32),
        ("string", DataType::Utf8),
        ("binary", DataType::Binary),
        ("date", DataType::Date32),
        ("time", DataType::Time64(TimeUnit::Microsecond)),
        ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("timestamp_s", DataType::Timestamp(TimeUnit::Second, None)),
        ("timestamp_ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("decimal(10,2)", DataType::Decimal128(10, 2)),
        ("decimal( 38 , 38 )", DataType::Decimal128(38, 38)),
        ("decimal(39, 0)", DataType::Decimal256(39, 0)),
        ("decimal(5)", DataType::Decimal128(5, 0)),
        (" list< int64 > ", DataType::List(field("item", DataType::Int64))),
        ("list<list<bool>>", DataType::List(field("item", DataType::List(field("item", DataType::Boolean))))),
        (
            r#"struct<a: int64, "b, \"c": string>"#,
            DataType::Struct(vec![field("a", DataType::Int64), field("b, \"c", DataType::Utf8)].into()),
        ),
        ("map<string,float64>", DataType::Map(Arc::new(Field::new("entries", entries, false)), false)),
    ] {
        let parsed = parse_field("column", text).unwrap();
        assert_eq!(parsed.data_type(), &data_type, "{text}");
        assert!(parsed.is_nullable() && parsed.name() == "column", "{text}");
    }
}

#[test]
fn only_a_text_timestamp_has_metadata() {
    assert_eq!(parse_field("ts", "timestamp").unwrap().metadata().get(TEXT_KEY).map(String::as_str), Some(TEXT_ISO));
    assert!(parse_field("ts", "timestamp_us").unwrap().metadata().is_empty());
    let list = parse_field("ts", "list<timestamp>").unwrap();
    let DataType::List(item) = list.data_type() else { panic!("{list}") };
    assert_eq!(item.metadata().get(TEXT_KEY).map(String::as_str), Some(TEXT_ISO));
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, at, message) in [
        ("strng", 0, r#"unknown type "strng", did you mean "string"?"#),
        ("Int64", 0, r#"unknown type "Int64", did you mean "int64"?"#),
        ("list<double>", 5, r#"unknown type "double", did you mean "float64"?"#),
        ("timestamp_millis", 0, r#"unknown type "timestamp_millis", did you mean "timestamp_ms"?"#),
        ("", 0, r#"expected a type, found the end, in """#),
        ("list", 4, r#"expected "<", found the end, in "list""#),
        ("list<int64", 10, r#"expected ">", found the end, in "list<int64""#),
        ("int64 string", 6, r#"expected the end of the type, found "s", in "int64 string""#),
        ("decimal", 7, r#"decimal needs its precision and scale, such as decimal(10, 2), in "decimal""#),
        ("decimal(77, 2)", 7, r#"a decimal's precision is 1 to 76 digits, not 77, in "decimal(77, 2)""#),
        ("decimal(2, 3)", 7, r#"a decimal's scale (3) cannot be more than its precision (2), in "decimal(2, 3)""#),
        ("decimal(x)", 8, r#"expected a number from 0 to 76, found "x", in "decimal(x)""#),
        ("struct<a: int8, a: int8>", 16, r#"the field "a" is there twice, in "struct<a: int8, a: int8>""#),
        ("struct<>", 7, r#"expected a field's name, found ">", in "struct<>""#),
        ("struct<a int64>", 9, r#"expected ":", found "i", in "struct<a int64>""#),
        ("struct<\"a: int64>", 7, r#"a quoted name without its closing quote, in "struct<\"a: int64>""#),
        ("map<int64, string>", 4, r#"a map's keys are strings, not int64, in "map<int64, string>""#),
    ] {
        let error = parse_field("column", text).unwrap_err();
        assert_eq!((error.message.as_str(), error.at), (message, at), "{text}");
    }
    let error = parse_field("column", "qwertz").unwrap_err();
    assert!(error.message.starts_with(r#"unknown type "qwertz"; the types are bool, int8, "#), "{error}");
    assert!(parse_field("column", &"list<".repeat(100_000)).unwrap_err().message.contains("more than 64 levels of nesting"));
}

#[test]
fn other_types_have_a_text_too() {
    let text = |data_type| type_text(&Field::new("column", data_type, true));
    assert_eq!(text(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View))), "string");
    assert_eq!(text(DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into()))), "timestamp_ms");
    assert_eq!(text(DataType::Duration(TimeUnit::Second)), "Duration(s)");
}

fn type_texts() -> impl Strategy<Value = String> {
    let simple = prop::sample::select(vec![
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
        "string",
        "binary",
        "date",
        "time",
        "timestamp",
        "timestamp_s",
        "timestamp_ms",
        "timestamp_us",
        "timestamp_ns",
    ]);
    let decimal = (1..=76_u8, 0..=76_u8).prop_map(|(precision, scale)| format!("decimal({precision}, {})", scale.min(precision)));
    prop_oneof![simple.prop_map(str::to_owned), decimal].prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|item| format!("list<{item}>")),
            inner.clone().prop_map(|value| format!("map<string, {value}>")),
            prop::collection::vec((r#"[a-z_][a-z0-9_.-]{0,5}|[ :,<>"\\a-c]{1,6}"#, inner), 1..4).prop_map(|fields| {
                let fields = fields.iter().enumerate().map(|(at, (name, text))| {
                    let name = format!("{name}{at}");
                    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
                    if bare { format!("{name}: {text}") } else { format!("{name:?}: {text}") }
                });
                format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_comes_back(text in type_texts()) {
        let field = parse_field("column", &text).unwrap();
        prop_assert_eq!(type_text(&field), text);
    }

    #[test]
    fn no_text_is_too_odd(text in r#"(decimal|list|struct|map|int64|string|[<>(),: "\\0-9a-zé])*"#) {
        if let Ok(field) = parse_field("column", &text) {
            prop_assert_eq!(parse_field("column", &type_text(&field)), Ok(field));
        }
    }
}
