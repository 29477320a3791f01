//! Times and durations of the configuration, and times as text. All in UTC, in microseconds.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

const DAY: i64 = 86_400_000_000;

/// The duration behind a number and a unit: `500ms`, `1s`, `1.5m`.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit.trim_start() {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" | "min" => 60e6,
        "h" => 3_600e6,
        "d" => 86_400e6,
        "" => return Err(format!("{text:?} has no unit: us, ms, s, m, h or d")),
        other => return Err(format!("{text:?} has the unit {other:?}, which is none of us, ms, s, m, h, d")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration"))?;
    let micros = number * unit;
    if (0.0..1e18).contains(&micros) { Ok(micros.round() as i64) } else { Err(format!("{text:?} is too long")) }
}

/// The time behind `YYYY-MM-DD HH:MM:SS[.f]` or ISO 8601, microseconds since the epoch.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let plain = |format| NaiveDateTime::parse_from_str(text, format).ok().map(|time| time.and_utc().timestamp_micros());
    let zoned = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
    plain("%Y-%m-%d %H:%M:%S%.f")
        .or_else(|| plain("%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(zoned)
        .ok_or_else(|| format!("{text:?} is no time like \"2024-01-31 23:59:59\""))
}

/// Writes times as `YYYY-MM-DD HH:MM:SS`; works out the date once a day.
#[derive(Debug, Default)]
pub(crate) struct TimeText {
    day: Option<i64>,
    date: String,
}

impl TimeText {
    /// Appends the text of a time.
    pub(crate) fn write(&mut self, micros: i64, out: &mut String) {
        let day = micros.div_euclid(DAY);
        if self.day != Some(day) {
            self.day = Some(day);
            let date = i32::try_from(day).ok().and_then(NaiveDate::from_epoch_days).unwrap_or_default();
            self.date = date.format("%Y-%m-%d ").to_string();
        }
        out.push_str(&self.date);
        let seconds = micros.rem_euclid(DAY) / 1_000_000;
        for (index, part) in [seconds / 3_600, seconds / 60 % 60, seconds % 60].into_iter().enumerate() {
            if index > 0 {
                out.push(':');
            }
            out.push(char::from(b'0' + (part / 10) as u8));
            out.push(char::from(b'0' + (part % 10) as u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000));
        assert_eq!(parse_duration("250 ms"), Ok(250_000));
        assert!(parse_duration("3").unwrap_err().contains("no unit"));
        assert!(parse_duration("3 weeks").unwrap_err().contains("weeks"));
        assert!(parse_duration("s").is_err() && parse_duration("1e9d").is_err() && parse_duration("99999999999d").is_err());
    }

    #[test]
    fn text_and_time_are_inverse() {
        let mut text = TimeText::default();
        for micros in [0, 1, 951_827_696_789_000, 951_868_799_999_999, 951_868_800_000_000, -1_000_000, 4_102_444_800_000_000] {
            let mut out = String::new();
            text.write(micros, &mut out);
            assert_eq!(parse_time(&out), Ok(micros.div_euclid(1_000_000) * 1_000_000), "{out}");
        }
        let mut out = String::new();
        text.write(951_827_696_000_000, &mut out);
        assert_eq!(out, "2000-02-29 12:34:56");
        assert_eq!(parse_time("2000-02-29T12:34:56Z"), parse_time("2000-02-29T13:34:56+01:00"));
        assert!(parse_time("yesterday").is_err());
    }
}
