//! Values as text: JSON strings and numbers, ISO 8601 dates and times in UTC. Appends to a byte buffer, allocates nothing. Called per value by `document`, `id` and
//! `index_name`.

/// A JSON string. Everything but quotes, backslashes and control characters stays as it is.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut from = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text[from..at]);
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            out.extend_from_slice(&[b'0', b'0', b'0' + (byte >> 4), b"0123456789abcdef"[usize::from(byte & 15)]]);
        }
        from = at + 1;
    }
    out.extend_from_slice(&text[from..]);
    out.push(b'"');
}

/// A whole number.
pub(crate) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same number; JSON has no NaN and no infinity: null.
pub(crate) fn float(out: &mut Vec<u8>, value: impl zmij::Float + Copy, is_finite: bool) {
    if is_finite {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// `2026-01-02T03:04:05Z`, with 3, 6 or 9 digits of a fraction where there is one.
pub(crate) fn timestamp(out: &mut Vec<u8>, seconds: i64, nanos: u32) {
    date(out, seconds.div_euclid(86_400));
    out.push(b'T');
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 86,399")]
    time(out, seconds.rem_euclid(86_400) as u32, nanos);
    out.push(b'Z');
}

/// `2026-01-02`, from days since the epoch: "days_from_civil" inverted (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"). Years beyond four digits get
/// a sign, as ISO 8601 asks.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "month and day are small")]
pub(crate) fn date(out: &mut Vec<u8>, days: i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if (0..=9_999).contains(&year) {
        two(out, year as u32 / 100);
        two(out, year as u32 % 100);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        let magnitude = year.unsigned_abs();
        out.extend([1_000, 100, 10].iter().filter(|bound| magnitude < **bound).map(|_| b'0'));
        integer(out, magnitude);
    }
    out.push(b'-');
    two(out, month as u32);
    out.push(b'-');
    two(out, day as u32);
}

/// `03:04:05`, with 3, 6 or 9 digits of a fraction where there is one.
pub(crate) fn time(out: &mut Vec<u8>, seconds: u32, nanos: u32) {
    two(out, seconds / 3_600);
    out.push(b':');
    two(out, seconds / 60 % 60);
    out.push(b':');
    two(out, seconds % 60);
    let (digits, mut fraction) = match nanos {
        0 => return,
        n if n % 1_000_000 == 0 => (3, n / 1_000_000),
        n if n % 1_000 == 0 => (6, n / 1_000),
        n => (9, n),
    };
    out.push(b'.');
    let start = out.len();
    out.resize(start + digits, b'0');
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + u8::try_from(fraction % 10).unwrap_or(0);
        fraction /= 10;
    }
}

fn two(out: &mut Vec<u8>, number: u32) {
    let digit = |n: u32| b'0' + u8::try_from(n % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(number / 10), digit(number)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_iso_8601() {
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_827_696, 120_000_000, "2000-02-29T12:34:56.120Z"),
            (-1, 999_999_000, "1969-12-31T23:59:59.999999Z"),
            (253_402_300_799, 1, "9999-12-31T23:59:59.000000001Z"),
            (253_402_300_800, 0, "+10000-01-01T00:00:00Z"),
            (-62_167_219_201, 0, "-0001-12-31T23:59:59Z"),
        ] {
            assert_eq!(written(|out| timestamp(out, seconds, nanos)), expected);
        }
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        for (value, expected) in [(0.1, "0.1"), (-0.0, "-0.0"), (1.0, "1.0"), (f64::NAN, "null"), (f64::NEG_INFINITY, "null")] {
            assert_eq!(written(|out| float(out, value, value.is_finite())), expected);
        }
        assert_eq!(written(|out| float(out, 0.1_f32, true)), "0.1");
    }

    proptest! {
        #[test]
        fn strings_read_back(text in any::<String>()) {
            let json = written(|out| json_string(out, text.as_bytes()));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn floats_read_back(value in any::<f64>()) {
            let json = written(|out| float(out, value, value.is_finite()));
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok());
            prop_assert_eq!(json.parse::<f64>().ok().map(f64::to_bits), value.is_finite().then(|| value.to_bits()));
        }

        #[test]
        fn times_are_those_of_chrono(seconds in -62_167_219_200_i64..253_402_300_800, nanos in 0_u32..1_000_000_000) {
            let expected = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
            let text = written(|out| timestamp(out, seconds, nanos));
            prop_assert_eq!(chrono::DateTime::parse_from_rfc3339(&text).unwrap().to_utc(), expected);
            prop_assert!(text.starts_with(&expected.format("%Y-%m-%dT%H:%M:%S").to_string()), "{}", text);
        }

        #[test]
        fn no_time_panics(seconds in any::<i64>(), nanos in 0_u32..1_000_000_000) {
            prop_assert!(written(|out| timestamp(out, seconds, nanos)).ends_with('Z'));
        }
    }
}
