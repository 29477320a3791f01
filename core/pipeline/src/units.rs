//! Durations (`10s`, `500ms`, `1h30m`) and sizes (`64MiB`). A unit is required: a bare number says nothing.
//! Called by the reader of the file and, for its own options, by the command line.

use std::time::Duration;

const DURATIONS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration: numbers with units, the largest unit first: `1h30m`, `1.5s`, `500ms`.
///
/// # Errors
/// One line that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        |why: &str| format!("{text:?} is no duration{why}; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m");
    let mut nanos = 0_u64;
    let mut rest = text.trim();
    let mut last = u64::MAX;
    if rest.is_empty() {
        return Err(wrong(""));
    }
    while !rest.is_empty() {
        let (number, unit, after) = quantity(rest).ok_or_else(|| wrong(""))?;
        if unit.is_empty() {
            return Err(wrong(": the unit is missing"));
        }
        let factor = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(|| wrong(""))?;
        if factor >= last {
            return Err(wrong(": the larger unit comes first, each unit once"));
        }
        let part = scaled(number, factor).ok_or_else(|| wrong(": it is too long or finer than a nanosecond"))?;
        nanos = nanos.checked_add(part).ok_or_else(|| wrong(": it is too long"))?;
        (rest, last) = (after, factor);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Reads a size in bytes: `64MiB`, `1.5GiB`, `512B`.
///
/// # Errors
/// One line that says what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        |why: &str| format!("{text:?} is no size{why}; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as 64MiB");
    let (number, unit, after) = quantity(text.trim()).ok_or_else(|| wrong(""))?;
    if !after.is_empty() {
        return Err(wrong(""));
    }
    if unit.is_empty() {
        return Err(wrong(": the unit is missing"));
    }
    let factor = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor).ok_or_else(|| wrong(""))?;
    scaled(number, factor).ok_or_else(|| wrong(": it is too large or no whole number of bytes"))
}

/// A number, the letters behind it, and what follows.
fn quantity(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(digits)?;
    let unit = rest.trim_start();
    let letters = unit.find(|c: char| !c.is_alphabetic()).unwrap_or(unit.len());
    let (unit, rest) = unit.split_at_checked(letters)?;
    (!number.is_empty()).then_some((number, unit, rest.trim_start()))
}

/// `number * factor`, exactly.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    let digits: u64 = fraction.parse().ok()?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(digits) * u128::from(factor);
    if part % u128::from(scale) != 0 {
        return None;
    }
    whole.checked_mul(factor)?.checked_add(u64::try_from(part / u128::from(scale)).ok()?)
}

/// A duration as it would be written: `1h30m`, `500ms`, `0s`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATIONS.iter().rev() {
        if rest >= *factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A size as it would be written, in the largest unit that divides it: `64MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    let unit = SIZES.iter().rev().filter(|(name, _)| name.contains('i')).find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_exactly() {
        for (text, millis) in
            [("10s", 10_000), ("500ms", 500), ("1h30m", 5_400_000), ("1.5s", 1_500), ("2d", 172_800_000), ("1m 5s", 65_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("7us"), Ok(Duration::from_micros(7)));
        for text in ["10", "", "s", "10 parsecs", "5s1h", "1s1s", "-1s", "1.5ns", "99999999999999d", "1..5s", "ten s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_duration("10"),
            Err("\"10\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m"
                .to_owned())
        );
    }

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("1.5GiB", 3 << 29), ("512B", 512), ("2kB", 2_000), ("1 GB", 1_000_000_000), ("8mib", 8 << 20)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["64", "", "MiB", "1.5B", "64 parsecs", "64MiB1B", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in any::<u64>(), bytes in any::<u64>()) {
            prop_assert_eq!(parse_duration(&duration_text(Duration::from_nanos(nanos))), Ok(Duration::from_nanos(nanos)));
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
