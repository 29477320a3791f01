//! Text <-> dates, times of day and timestamps, in UTC and the proleptic Gregorian calendar.
//!
//! Reads ISO 8601 / RFC 3339 and `YYYY-MM-DD HH:MM:SS[.f]`; writes `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`. Years outside 0000 to 9999 carry a sign, as
//! ISO 8601 has it, so that every Arrow timestamp can be written and read back. Called by the JSON codec; property-tested against chrono.

const SECONDS_PER_DAY: i64 = 86_400;
const NANOS_PER_MICRO: u32 = 1_000;

/// Reads digits and separators from the front of a text.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn eat(&mut self, accepted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        accepted.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    fn digit(&mut self) -> Option<i64> {
        let (first, rest) = self.0.split_first()?;
        first.is_ascii_digit().then(|| {
            self.0 = rest;
            i64::from(first - b'0')
        })
    }

    fn two_digits(&mut self, max: i64) -> Option<i64> {
        let value = self.digit()? * 10 + self.digit()?;
        (value <= max).then_some(value)
    }

    /// Four digits, or a sign and 4 to 12 digits.
    fn year(&mut self) -> Option<i64> {
        let sign = self.eat(b"+-");
        let mut year = 0;
        let mut digits = 0;
        let most = if sign.is_some() { 12 } else { 4 };
        while digits < most
            && let Some(digit) = self.digit()
        {
            year = year * 10 + digit;
            digits += 1;
        }
        (digits >= 4).then_some(if sign == Some(b'-') { -year } else { year })
    }

    /// `YYYY-MM-DD` as days since the epoch.
    fn date(&mut self) -> Option<i64> {
        let year = self.year()?;
        self.eat(b"-")?;
        let month = self.two_digits(12)?;
        self.eat(b"-")?;
        let day = self.two_digits(31)?;
        (month >= 1 && day >= 1 && day <= days_in_month(year, month)).then(|| days_from_civil(year, month, day))
    }

    /// `HH:MM[:SS[.f]]` as microseconds since midnight; finer digits are cut off. The leap second `23:59:60` is the second after it.
    fn time(&mut self) -> Option<i64> {
        let hour = self.two_digits(23)?;
        self.eat(b":")?;
        let minute = self.two_digits(59)?;
        if self.eat(b":").is_none() {
            return Some((hour * 60 + minute) * 60_000_000);
        }
        let second = self.two_digits(60)?;
        if second == 60 && (hour, minute) != (23, 59) {
            return None;
        }
        let micros = if self.eat(b".,").is_some() { self.fraction()? } else { 0 };
        Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
    }

    fn fraction(&mut self) -> Option<i64> {
        let mut value = self.digit()?;
        let mut digits = 1;
        while let Some(digit) = self.digit() {
            if digits < 6 {
                value = value * 10 + digit;
                digits += 1;
            }
        }
        Some(value * 10_i64.pow(6 - digits))
    }

    /// `Z`, `+HH:MM`, `+HHMM`, `+HH` or nothing, as microseconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        let Some(sign) = self.eat(b"Zz+-") else { return Some(0) };
        if matches!(sign, b'Z' | b'z') {
            return Some(0);
        }
        let hours = self.two_digits(23)?;
        let minutes = if self.eat(b":").is_some() || !self.0.is_empty() { self.two_digits(59)? } else { 0 };
        let east = (hours * 60 + minutes) * 60_000_000;
        Some(if sign == b'-' { -east } else { east })
    }
}

/// Days since the epoch of a `YYYY-MM-DD` text.
pub(crate) fn parse_date(text: &[u8]) -> Option<i32> {
    let mut reader = Reader(text);
    let days = reader.date()?;
    if !reader.0.is_empty() {
        return None;
    }
    i32::try_from(days).ok()
}

/// Microseconds since midnight of a `HH:MM[:SS[.f]]` text.
pub(crate) fn parse_time(text: &[u8]) -> Option<i64> {
    let mut reader = Reader(text);
    let micros = reader.time()?;
    (reader.0.is_empty() && micros < SECONDS_PER_DAY * 1_000_000).then_some(micros)
}

/// Microseconds since the epoch of an ISO 8601 text (a date alone is its midnight), in UTC unless it carries an offset.
pub(crate) fn parse_timestamp(text: &[u8]) -> Option<i64> {
    let mut reader = Reader(text);
    // In 128 bits: the first representable day begins before the first representable microsecond.
    let midnight = i128::from(reader.date()?) * i128::from(SECONDS_PER_DAY * 1_000_000);
    if reader.0.is_empty() {
        return i64::try_from(midnight).ok();
    }
    reader.eat(b"Tt ")?;
    let time = reader.time()?;
    let offset = reader.offset()?;
    if !reader.0.is_empty() {
        return None;
    }
    i64::try_from(midnight + i128::from(time - offset)).ok()
}

/// Writes `YYYY-MM-DD`.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    if (0..=9999).contains(&year) {
        two_digits(year / 100, out);
        two_digits(year % 100, out);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(year.unsigned_abs());
        out.extend(std::iter::repeat_n(b'0', 4_usize.saturating_sub(digits.len())));
        out.extend_from_slice(digits.as_bytes());
    }
    out.push(b'-');
    two_digits(month, out);
    out.push(b'-');
    two_digits(day, out);
}

/// Writes `HH:MM:SS`, with six digits of a second if they are not all zero, nine if the last three of them are not.
pub(crate) fn write_time(second_of_day: i64, nanos: u32, out: &mut Vec<u8>) {
    two_digits(second_of_day / 3600, out);
    out.push(b':');
    two_digits(second_of_day / 60 % 60, out);
    out.push(b':');
    two_digits(second_of_day % 60, out);
    if nanos == 0 {
        return;
    }
    out.push(b'.');
    let micros = i64::from(nanos / NANOS_PER_MICRO);
    two_digits(micros / 10_000, out);
    two_digits(micros / 100 % 100, out);
    two_digits(micros % 100, out);
    let rest = nanos % NANOS_PER_MICRO;
    if rest != 0 {
        let rest = i64::from(rest);
        out.push(digit(rest / 100));
        two_digits(rest % 100, out);
    }
}

/// Writes `YYYY-MM-DDTHH:MM:SS[.ffffff]Z` for a number of units since the epoch, of which `per_second` make a second.
pub(crate) fn write_timestamp(value: i64, per_second: i64, out: &mut Vec<u8>) {
    let seconds = value.div_euclid(per_second);
    let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    write_date(seconds.div_euclid(SECONDS_PER_DAY), out);
    out.push(b'T');
    write_time(seconds.rem_euclid(SECONDS_PER_DAY), u32::try_from(nanos).unwrap_or(0), out);
    out.push(b'Z');
}

fn digit(value: i64) -> u8 {
    b'0' + (value % 10) as u8
}

fn two_digits(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// (year, month, day) of a number of days since 1970-01-01: `civil_from_days` of the same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn written(value: i64, per_second: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(value, per_second, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_are_read() {
        let second = 1_700_000_000_000_000;
        for (text, micros) in [
            ("2023-11-14T22:13:20Z", second),
            ("2023-11-14t22:13:20z", second),
            ("2023-11-14 22:13:20", second),
            ("2023-11-14T22:13:20.5", second + 500_000),
            ("2023-11-14T22:13:20,123", second + 123_000),
            ("2023-11-14T22:13:20.123456789Z", second + 123_456),
            ("2023-11-15T00:13:20+02:00", second),
            ("2023-11-14T18:43:20-0330", second),
            ("2023-11-15T00:13:20+02", second),
            ("2023-11-14T22:13Z", second - 20_000_000),
            ("2023-11-14", second - 80_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), Some(micros), "{text}");
        }
    }

    #[test]
    fn broken_timestamps_are_refused() {
        for text in [
            "",
            "abc",
            "2023",
            "2023-1-1",
            "2023-02-29",
            "2100-02-29",
            "2023-13-01",
            "2023-00-01",
            "2023-01-00",
            "2023-01-32",
            "2023-01-01T",
            "2023-01-01T24:00:00",
            "2023-01-01T00:60:00",
            "2023-01-01T12:30:60Z",
            "2023-01-01T00:00:00.",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00ZZ",
            "2023-01-01T00:00:00 Z",
            "2023-01-01T00:00:00+2",
            "2023-01-01T00:00:00+02:",
            "2023-01-01T00:00:00+02:60",
            "2023-01-01X00:00:00",
            "20230101T000000Z",
            "+999999999999-01-01",
            "+1000000000000-01-01",
            "12023-01-01",
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_date(b"2023-01-01T00:00"), None);
        assert_eq!(parse_time(b"23:59:60"), None);
        assert_eq!(parse_time(b"23:59:59.999999"), Some(86_399_999_999));
    }

    #[test]
    fn timestamps_are_written() {
        assert_eq!(written(1_700_000_000, 1), "2023-11-14T22:13:20Z");
        assert_eq!(written(1_700_000_000_007, 1_000), "2023-11-14T22:13:20.007000Z");
        assert_eq!(written(-1, 1_000_000), "1969-12-31T23:59:59.999999Z");
        assert_eq!(written(1_000, 1_000_000_000), "1970-01-01T00:00:00.000001Z");
        assert_eq!(written(1_001, 1_000_000_000), "1970-01-01T00:00:00.000001001Z");
        assert_eq!(written(253_402_300_800, 1), "+10000-01-01T00:00:00Z");
        assert_eq!(written(-62_167_219_201, 1), "-0001-12-31T23:59:59Z");
        assert_eq!(written(i64::MAX, 1), "+292277026596-12-04T15:30:07Z");
        for edge in [i64::MIN, i64::MAX] {
            assert_eq!(parse_timestamp(written(edge, 1_000_000).as_bytes()), Some(edge));
        }
    }

    proptest! {
        #[test]
        fn every_microsecond_timestamp_comes_back(micros in any::<i64>()) {
            prop_assert_eq!(parse_timestamp(written(micros, 1_000_000).as_bytes()), Some(micros));
        }

        #[test]
        fn every_date_comes_back(days in any::<i32>()) {
            let mut out = Vec::new();
            write_date(i64::from(days), &mut out);
            prop_assert_eq!(parse_date(&out), Some(days));
        }

        #[test]
        fn agrees_with_chrono(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let chrono = DateTime::from_timestamp_micros(micros).unwrap();
            prop_assert_eq!(parse_timestamp(chrono.to_rfc3339().as_bytes()), Some(micros));
            prop_assert_eq!(DateTime::parse_from_rfc3339(&written(micros, 1_000_000)).unwrap().timestamp_micros(), micros);
        }

        #[test]
        fn exactly_chronos_dates_are_dates(year in 0..=9999_i32, month in 0..=13_u32, day in 0..=32_u32) {
            let chrono = NaiveDate::from_ymd_opt(year, month, day).map(|date| date.to_epoch_days());
            prop_assert_eq!(parse_date(format!("{year:04}-{month:02}-{day:02}").as_bytes()), chrono);
        }
    }
}
