//! Properties of the JSON codec, on random schemas and records: it decodes as arrow-json does, what it encodes it decodes again (and so does
//! arrow-json), it accepts no text that serde_json refuses, and a broken record changes nothing for its neighbours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::sync::Arc;

use arrow_array::{BinaryArray, RecordBatch};
use arrow_json::reader::ReaderBuilder;
use arrow_schema::{Schema, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat};
use proptest::prelude::*;
use proptest::sample::select;
use standpipe_formats::types::parse_field;
use standpipe_formats::{Decoded, FormatKind, decoder, encoder};

/// A column type, as `types::parse_field` reads it.
#[derive(Debug, Clone)]
enum Type {
    Leaf(&'static str),
    Decimal(u8, u8),
    List(Box<Type>),
    Struct(Vec<(String, Type)>),
    Map(Box<Type>),
}

impl Type {
    fn text(&self) -> String {
        match self {
            Self::Leaf(text) => (*text).to_owned(),
            Self::Decimal(precision, scale) => format!("decimal({precision}, {scale})"),
            Self::List(item) => format!("list<{}>", item.text()),
            Self::Map(value) => format!("map<string, {}>", value.text()),
            Self::Struct(fields) => {
                let fields = fields.iter().map(|(name, field)| format!("{name:?}: {}", field.text()));
                format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A JSON text before it is written: the white space is still open.
#[derive(Debug, Clone)]
enum Json {
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn write(&self, space: &str, out: &mut String) {
        let join = |out: &mut String, at: usize| {
            if at > 0 {
                out.push_str(&format!("{space},{space}"));
            }
        };
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Array(items) => {
                out.push_str(&format!("[{space}"));
                for (at, item) in items.iter().enumerate() {
                    join(out, at);
                    item.write(space, out);
                }
                out.push_str(&format!("{space}]"));
            }
            Self::Object(fields) => {
                out.push_str(&format!("{{{space}"));
                for (at, (key, value)) in fields.iter().enumerate() {
                    join(out, at);
                    out.push_str(&format!("{}{space}:{space}", serde_json::to_string(key).unwrap()));
                    value.write(space, out);
                }
                out.push_str(&format!("{space}}}"));
            }
        }
    }
}

/// The types that arrow-json reads and writes as we do.
const SHARED: [&str; 18] = [
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
    "date",
    "timestamp",
    "timestamp_s",
    "timestamp_ms",
    "timestamp_us",
    "timestamp_ns",
];

fn types(leaves: &'static [&'static str]) -> impl Strategy<Value = Type> {
    let decimal = (1..=76_u8)
        .prop_flat_map(|precision| (Just(precision), 0..=precision))
        .prop_map(|(precision, scale)| Type::Decimal(precision, scale));
    prop_oneof![4 => select(leaves).prop_map(Type::Leaf), 1 => decimal].prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|item| Type::List(Box::new(item))),
            inner.clone().prop_map(|value| Type::Map(Box::new(value))),
            prop::collection::vec((names(), inner), 1..4).prop_map(|fields| Type::Struct(distinct(fields))),
        ]
    })
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z]{1,3}", 1 => "[a-zä\"\\\\ 😀]{1,4}"]
}

/// The same with different names.
fn distinct<T>(fields: Vec<(String, T)>) -> Vec<(String, T)> {
    fields.into_iter().enumerate().map(|(at, (name, field))| (format!("{name}{at}"), field)).collect()
}

fn texts<T: ToString + std::fmt::Debug>(values: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Json> {
    values.prop_map(|value| Json::Text(value.to_string())).boxed()
}

fn quoted(values: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Json> {
    values.prop_map(|value| Json::Text(serde_json::to_string(&value).unwrap())).boxed()
}

/// A value of a type, now and then null.
fn nullable(of: &Type) -> BoxedStrategy<Json> {
    prop_oneof![1 => Just(Json::Text("null".to_owned())), 6 => value(of)].boxed()
}

fn value(of: &Type) -> BoxedStrategy<Json> {
    match of {
        Type::Leaf(leaf) => leaf_value(leaf),
        Type::Decimal(precision, scale) => decimal_value(usize::from(*precision), usize::from(*scale)),
        Type::List(item) => prop::collection::vec(nullable(item), 0..4).prop_map(Json::Array).boxed(),
        Type::Map(value) => {
            prop::collection::vec((names(), nullable(value)), 0..4).prop_map(|entries| Json::Object(distinct(entries))).boxed()
        }
        Type::Struct(fields) => object(fields),
    }
}

/// An object with fields in any order, some missing, some that no column has.
fn object(fields: &[(String, Type)]) -> BoxedStrategy<Json> {
    let known = fields.iter().map(|(name, field)| prop::option::weighted(0.85, (Just(name.clone()), nullable(field)))).collect::<Vec<_>>();
    let unknown = prop::option::weighted(
        0.2,
        (Just("unknown".to_owned()), prop_oneof![value(&Type::List(Box::new(Type::Leaf("string")))), value(&Type::Leaf("float64"))]),
    );
    (known, unknown)
        .prop_map(|(known, unknown)| known.into_iter().chain([unknown]).flatten().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(Json::Object)
        .boxed()
}

fn leaf_value(leaf: &str) -> BoxedStrategy<Json> {
    let number = r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9])?";
    // Years 1 to 9999.
    let micros = -62_135_596_800_000_000_i64..253_402_300_800_000_000;
    match leaf {
        "bool" => texts(any::<bool>()),
        "int8" => texts(any::<i8>()),
        "int16" => texts(any::<i16>()),
        "int32" => texts(any::<i32>()),
        // arrow-json wants ISO text in quotes where a timestamp is.
        "timestamp_s" | "timestamp_ms" | "timestamp_us" | "timestamp_ns" => prop_oneof![texts(any::<i64>()), texts(any::<i16>())].boxed(),
        "int64" => {
            prop_oneof![texts(any::<i64>()), texts(any::<i16>()), texts(any::<i64>().prop_map(|value| format!("\"{value}\"")))].boxed()
        }
        "uint8" => texts(any::<u8>()),
        "uint16" => texts(any::<u16>()),
        "uint32" => texts(any::<u32>()),
        "uint64" => texts(any::<u64>()),
        "float32" => texts(prop::num::f32::NORMAL.prop_map(|value| format!("{value:?}"))),
        "float64" => prop_oneof![
            texts(prop::num::f64::NORMAL.prop_map(|value| format!("{value:?}"))),
            texts(number),
            texts((-100_000..100_000_i32).prop_map(|cents| f64::from(cents) / 100.0)),
        ]
        .boxed(),
        "string" => prop_oneof![
            quoted(any::<String>()),
            texts("[ -~]{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap())),
            texts("(plain|\\\\n|\\\\u00e4|\\\\ud83d\\\\ude00|\\\\\"|ä){0,6}".prop_map(|text| format!("\"{text}\""))),
        ]
        .boxed(),
        "binary" => quoted(prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| STANDARD.encode(bytes))),
        "date" => quoted((-719_162..2_932_896_i32).prop_map(|days| NaiveDate::from_epoch_days(days).unwrap().to_string())),
        "time" => quoted(
            (0..86_400_u32, 0..1_000_000_u32)
                .prop_map(|(second, micro)| NaiveTime::from_num_seconds_from_midnight_opt(second, micro * 1000).unwrap().to_string()),
        ),
        "timestamp" => {
            quoted(micros.prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::AutoSi, true)))
        }
        other => panic!("no values for {other}"),
    }
}

fn decimal_value(precision: usize, scale: usize) -> BoxedStrategy<Json> {
    let whole = prop::string::string_regex(&format!("[1-9][0-9]{{0,{}}}", (precision - scale).saturating_sub(1))).unwrap();
    let whole = if precision == scale { Just("0".to_owned()).boxed() } else { whole.boxed() };
    let fraction = prop::string::string_regex(&format!("[0-9]{{{scale}}}")).unwrap();
    let number = (any::<bool>(), whole, fraction).prop_map(|(negative, whole, fraction)| {
        let sign = if negative { "-" } else { "" };
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    });
    texts(number)
}

/// A schema and records of it.
fn records(leaves: &'static [&'static str]) -> impl Strategy<Value = (SchemaRef, Vec<String>)> {
    let columns = prop::collection::vec((names(), types(leaves)), 1..5).prop_map(distinct);
    columns.prop_flat_map(|columns| {
        let fields = columns.iter().map(|(name, column)| parse_field(name, &column.text()).unwrap()).collect::<Vec<_>>();
        let record = (object(&columns), select(vec!["", " ", "\n\t"])).prop_map(|(record, space)| {
            let mut text = String::new();
            record.write(space, &mut text);
            text
        });
        (Just(Arc::new(Schema::new(fields))), prop::collection::vec(record, 1..8))
    })
}

fn decode<R: AsRef<[u8]>>(schema: &SchemaRef, records: &[R]) -> Decoded {
    decoder(&FormatKind::Json.into(), schema.clone()).unwrap().decode(&BinaryArray::from_iter_values(records)).unwrap()
}

fn encode(batch: &RecordBatch) -> BinaryArray {
    encoder(&FormatKind::Json.into(), batch.schema()).unwrap().encode(batch).unwrap()
}

fn arrow_json<R: AsRef<[u8]>>(schema: &SchemaRef, records: impl IntoIterator<Item = R>) -> RecordBatch {
    let mut reader = ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    for record in records {
        assert_eq!(reader.decode(record.as_ref()).unwrap(), record.as_ref().len());
        reader.decode(b"\n").unwrap();
    }
    reader.flush().unwrap().unwrap()
}

fn changed(record: &str, at: prop::sample::Index, byte: u8, how: u8) -> Vec<u8> {
    let mut bytes = record.as_bytes().to_vec();
    let at = at.index(bytes.len());
    match how {
        0 => bytes.truncate(at),
        1 => bytes[at] = byte,
        2 => bytes.insert(at, byte),
        3 => drop(bytes.remove(at)),
        _ => bytes.extend_from_within(at..),
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decodes_as_arrow_json_does((schema, records) in records(&SHARED)) {
        let decoded = decode(&schema, &records);
        prop_assert_eq!(&decoded.broken, &[]);
        prop_assert_eq!(decoded.batch, arrow_json(&schema, &records));
    }

    #[test]
    fn what_is_encoded_is_decoded_again((schema, records) in records(&["binary", "time", "timestamp", "float32", "float64", "string", "uint64", "timestamp_ns", "date", "bool", "int8"])) {
        let decoded = decode(&schema, &records);
        prop_assert_eq!(&decoded.broken, &[]);
        let encoded = encode(&decoded.batch);
        let again = decode(&schema, &encoded.iter().map(Option::unwrap).collect::<Vec<_>>());
        prop_assert_eq!(&again.broken, &[]);
        prop_assert_eq!(&again.batch, &decoded.batch);
        for record in encoded.iter().flatten() {
            let parsed: serde_json::Result<serde_json::Value> = serde_json::from_slice(record);
            prop_assert!(parsed.is_ok(), "{:?}", parsed);
        }
    }

    #[test]
    fn arrow_json_decodes_what_is_encoded((schema, records) in records(&SHARED)) {
        let batch = decode(&schema, &records).batch;
        prop_assert_eq!(&arrow_json(&schema, encode(&batch).iter().flatten()), &batch);
    }

    #[test]
    fn broken_records_are_found_and_change_nothing(
        (schema, records) in records(&["string", "int64", "float64", "timestamp", "binary", "bool"]),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), select(b"{}[]\",:\\ue0-.1ntf \n".to_vec())],
        how in 0..5_u8,
    ) {
        let good = decode(&schema, &records).batch;
        let bad = changed(&records[0], at, byte, how);
        let mut mixed: Vec<&[u8]> = vec![&bad];
        for record in &records {
            mixed.push(record.as_bytes());
            mixed.push(&bad);
        }
        let decoded = decode(&schema, &mixed);
        if decoded.broken.is_empty() {
            // The change made another valid record.
            let parsed: serde_json::Result<serde_json::Value> = serde_json::from_slice(&bad);
            prop_assert!(parsed.is_ok() || parsed.is_err_and(|error| error.to_string().contains("out of range")));
        } else {
            prop_assert_eq!(decoded.broken.len(), records.len() + 1);
            prop_assert_eq!(decoded.batch, good);
            let kept: Vec<u32> = (0..records.len() as u32).map(|row| row * 2 + 1).collect();
            prop_assert_eq!(decoded.kept.map(|kept| kept.values().to_vec()), Some(kept));
        }
    }

    #[test]
    fn a_slice_is_encoded_like_the_whole((schema, records) in records(&SHARED), from in any::<prop::sample::Index>()) {
        let batch = decode(&schema, &records).batch;
        let from = from.index(batch.num_rows());
        let length = batch.num_rows() - from;
        prop_assert_eq!(encode(&batch.slice(from, length)), encode(&batch).slice(from, length));
    }

    #[test]
    fn no_bytes_are_too_odd(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..5)) {
        let schema = Arc::new(Schema::new(vec![parse_field("a", "string").unwrap()]));
        let decoded = decode(&schema, &records);
        prop_assert_eq!(decoded.batch.num_rows() + decoded.broken.len(), records.len());
    }
}
