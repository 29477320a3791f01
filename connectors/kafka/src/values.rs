//! The small types of the configurations: a duration and a size with their units, a time, a librdkafka property's value, the metadata columns, one or several column names.
//! Each reads from the pipeline's YAML and describes itself in the JSON Schema. Used by `config` alone; nothing here connects to anything.

use chrono::{DateTime, NaiveDateTime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, fmt, time::Duration};

/// A duration with its unit: `500ms`, `10s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl Interval {
    /// That many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl std::str::FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(format!("{text:?} is no duration: a number and one of the units ms, s, m, h, as in 10s")),
        };
        let number: u64 = number.parse().map_err(|_| format!("{text:?} is no duration: it starts with a whole number, as in 10s"))?;
        number.checked_mul(millis).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(|| format!("{text:?} is too long"))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Interval {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
    }
}

const SIZES: [(&str, u64); 7] =
    [("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A size with its unit: `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = SIZES.iter().find(|(name, _)| *name == unit.trim());
        let number: Option<u64> = number.parse().ok();
        let (Some((_, unit)), Some(number)) = (unit, number) else {
            return Err(format!("{text:?} is no size: a whole number and one of the units B, KiB, MiB, GiB, kB, MB, GB, as in 64MiB"));
        };
        let bytes = number.checked_mul(*unit).and_then(|bytes| usize::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| format!("{text:?} is too large"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ ?([KMG]i?|k)?[Bb]$" })
    }
}

/// A point in time, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartTime(pub i64);

impl StartTime {
    fn parse(text: &str) -> Option<i64> {
        let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis());
        let plain = || text.parse::<NaiveDateTime>().or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"));
        zoned.or_else(|_| plain().map(|time| time.and_utc().timestamp_millis())).ok()
    }
}

impl<'de> Deserialize<'de> for StartTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let millis = value.as_i64().or_else(|| value.as_str().and_then(Self::parse)).filter(|millis| *millis >= 0);
        millis.map(Self).ok_or_else(|| {
            D::Error::custom(format!("{value} is no time since 1970: write 2026-01-31T12:00:00Z, or milliseconds since the epoch"))
        })
    }
}

impl JsonSchema for StartTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StartTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// A property's value as librdkafka takes it: text. Numbers and booleans need no quotes in YAML.
#[derive(Clone, PartialEq, Eq)]
pub struct PropertyValue(pub String);

impl fmt::Debug for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[a property's value]")
    }
}

impl<'de> Deserialize<'de> for PropertyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            serde_json::Value::Bool(flag) => Ok(Self(flag.to_string())),
            _ => Err(D::Error::custom("a property's value is a text, a number or a boolean")),
        }
    }
}

impl JsonSchema for PropertyValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PropertyValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// What Kafka knows of a record besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metadata {
    /// Its key: binary, null if it has none.
    Key,
    /// Its headers: a map from text to binary.
    Headers,
    /// When it was created or appended, as the topic has it: milliseconds.
    Timestamp,
    /// Its partition.
    Partition,
    /// Its offset in the partition.
    Offset,
    /// Its topic.
    Topic,
}

impl Metadata {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] = [Self::Key, Self::Headers, Self::Timestamp, Self::Partition, Self::Offset, Self::Topic];

    /// The name in the configuration, which is also the column's default name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Headers => "headers",
            Self::Timestamp => "timestamp",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Topic => "topic",
        }
    }

    fn parse<E: Error>(name: &str) -> Result<Self, E> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name);
            match standpipe_sdk::config::closest(name, known.into_iter()) {
                Some(meant) => E::custom(format!("{name:?} is no metadata of a record, did you mean {meant:?}?")),
                None => E::custom(format!("{name:?} is no metadata of a record; there are {}", known.join(", "))),
            }
        })
    }
}

/// The metadata that become columns, each with the column's name: a list of names, or a map from name to column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataColumns(pub Vec<(Metadata, String)>);

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = MetadataColumns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list like [key, offset] or a map like {key: device_key}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<MetadataColumns, A::Error> {
        let mut columns = Vec::new();
        while let Some(name) = list.next_element::<Cow<'de, str>>()? {
            columns.push((Metadata::parse(&name)?, name.into_owned()));
        }
        Ok(MetadataColumns(columns))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetadataColumns, A::Error> {
        let mut columns = Vec::new();
        while let Some((name, column)) = map.next_entry::<Cow<'de, str>, String>()? {
            columns.push((Metadata::parse(&name)?, column));
        }
        Ok(MetadataColumns(columns))
    }
}

impl<'de> Deserialize<'de> for MetadataColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MetadataVisitor)
    }
}

impl JsonSchema for MetadataColumns {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MetadataColumns".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Metadata::ALL.map(Metadata::name);
        json_schema!({
            "anyOf": [
                { "type": "array", "items": { "enum": names } },
                { "type": "object", "propertyNames": { "enum": names }, "additionalProperties": { "type": "string" } },
            ],
        })
    }
}

/// One column name, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnNames(pub Vec<String>);

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = ColumnNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column name or a list of them")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<ColumnNames, E> {
        Ok(ColumnNames(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ColumnNames, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        Ok(ColumnNames(names))
    }
}

impl<'de> Deserialize<'de> for ColumnNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

impl JsonSchema for ColumnNames {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ColumnNames".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!("250ms".parse(), Ok(Interval(Duration::from_millis(250))));
        assert_eq!("2h".parse(), Ok(Interval::seconds(7200)));
        for wrong in ["", "10", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_needs_its_unit() {
        assert_eq!("64MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("10 kB".parse(), Ok(Size(10_000)));
        for wrong in ["", "64", "MiB", "-1B", "1.5GiB", "1TB", "99999999999999999999GiB", "18446744073709551615GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn metadata_come_as_a_list_or_a_map() {
        let list: MetadataColumns = from_value(json!(["offset", "key"])).unwrap();
        assert_eq!(list.0, [(Metadata::Offset, "offset".to_owned()), (Metadata::Key, "key".to_owned())]);
        let map: MetadataColumns = from_value(json!({ "partition": "p" })).unwrap();
        assert_eq!(map.0, [(Metadata::Partition, "p".to_owned())]);
        let error = from_value::<MetadataColumns>(json!(["ofset"])).unwrap_err().to_string();
        assert!(error.contains("did you mean \"offset\"?"), "{error}");
    }

    #[test]
    fn numbers_and_booleans_are_property_values() {
        let values: Vec<PropertyValue> = from_value(json!(["a", 6000, true])).unwrap();
        assert_eq!(values.into_iter().map(|v| v.0).collect::<Vec<_>>(), ["a", "6000", "true"]);
        assert!(from_value::<PropertyValue>(json!(["a"])).is_err());
    }
}
