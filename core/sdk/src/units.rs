//! Durations (`200ms`, `1m30s`) and sizes (`5MiB`) of a configuration, written as in the rest of a pipeline file: a unit is required.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{borrow::Cow, time::Duration};

const DURATIONS: [(&str, u64); 6] =
    [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000), ("d", 86_400_000_000_000)];
const SIZES: [(&str, u64); 7] =
    [("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A duration, such as `200ms`, `10s` or `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A size in bytes, such as `5MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = duration(&text);
        duration.map(Self).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no duration; write a number and a unit (us, ms, s, m, h, d), such as 10s or 1m30s"))
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = size(&text);
        size.map(Self).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no size; write a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as 5MiB"))
        })
    }
}

/// For the defaults in the JSON Schema.
impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        let (unit, factor) = largest(&DURATIONS, nanos);
        serializer.collect_str(&format_args!("{}{unit}", nanos / factor))
    }
}

/// For the defaults in the JSON Schema.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (unit, factor) = largest(&SIZES, self.0 as u64);
        serializer.collect_str(&format_args!("{}{unit}", self.0 as u64 / factor))
    }
}

/// The largest unit that divides a quantity, the smallest if none does.
fn largest(units: &[(&'static str, u64)], quantity: u64) -> (&'static str, u64) {
    let fitting = units.iter().filter(|(_, factor)| quantity.is_multiple_of(*factor));
    fitting.max_by_key(|(_, factor)| *factor).copied().unwrap_or(units[0])
}

macro_rules! text_schema {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_schema!(Time, "Duration", r"^\s*([0-9]+(\.[0-9]+)?\s*(us|ms|s|m|h|d)\s*)+$");
text_schema!(Size, "Size", r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGkmg]i?)?[Bb]\s*$");

/// One or more quantities, the largest unit first.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut nanos, mut last) = (text.trim(), 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (number, unit, after) = quantity(rest)?;
        let factor = DURATIONS.iter().find(|(name, _)| *name == unit)?.1;
        if factor >= last {
            return None;
        }
        nanos = nanos.checked_add(scaled(number, factor)?)?;
        (rest, last) = (after, factor);
    }
    (last != u64::MAX).then(|| Duration::from_nanos(nanos))
}

fn size(text: &str) -> Option<usize> {
    let (number, unit, rest) = quantity(text.trim())?;
    let factor = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
    if !rest.is_empty() {
        return None;
    }
    usize::try_from(scaled(number, factor)?).ok()
}

/// A number, the letters behind it, and what follows.
fn quantity(text: &str) -> Option<(&str, &str, &str)> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let rest = rest.trim_start();
    let (unit, rest) = rest.split_at(rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len()));
    (!number.is_empty() && !unit.is_empty()).then_some((number, unit, rest.trim_start()))
}

/// `number * factor`, if that is a whole number.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok().map(|digits| u128::from(digits) * u128::from(factor))?;
    if part % scale != 0 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(u64::try_from(part / scale).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_unit() {
        for (text, millis) in
            [("200ms", 200), ("10s", 10_000), ("1m30s", 90_000), ("1.5s", 1_500), ("0s", 0), (" 1h ", 3_600_000), ("1d12h", 129_600_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1s1m", "10 parsecs", "-1s", "1..5s", "99999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
        for (text, bytes) in [("5MiB", 5 << 20), ("1.5KiB", 1536), ("100B", 100), ("2kb", 2000)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "5", "MiB", "1.5B", "5MiB1B", "99999999999GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn defaults_are_written_as_a_user_would() {
        let written = |millis| serde_json::to_value(Time(Duration::from_millis(millis))).unwrap();
        assert_eq!((written(200), written(30_000), written(90_000)), ("200ms".into(), "30s".into(), "90s".into()));
        assert_eq!(serde_json::to_value(Size(5 << 20)).unwrap(), "5MiB");
        assert_eq!(serde_json::to_value(Size(1000)).unwrap(), "1kB");
    }
}
