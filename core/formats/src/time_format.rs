//! Times as part of a name, by a format of strftime. Neighbouring rows mostly have the same text: it is made once per second, minute, hour or day, as the format needs.

use std::fmt::Write;

use chrono::DateTime;
use chrono::format::{Fixed, Item, Numeric, StrftimeItems};

pub(crate) const SECONDS_PER_DAY: i64 = 86_400;

/// A format of strftime that can be used.
#[derive(Debug)]
pub struct TimeFormat {
    items: Vec<Item<'static>>,
    /// Seconds within which it gives the same text; 0: it may change within a second.
    step: i64,
}

impl TimeFormat {
    /// Reads a format: `%Y-%m-%d`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(format: &str) -> Result<Self, String> {
        let items = StrftimeItems::new(format).parse_to_owned().map_err(|error| format!("the format is wrong: {error}"))?;
        let format = Self { step: step(&items), items };
        // Some are read and cannot be written.
        let usable = format.clock().text((0, 0)).is_some();
        if usable { Ok(format) } else { Err("the format cannot be used".to_owned()) }
    }

    /// Makes texts of times.
    #[must_use]
    pub fn clock(&self) -> Clock<'_> {
        Clock { format: self, last: None, text: String::new() }
    }
}

/// A format, and the last text that it gave.
#[derive(Debug)]
pub struct Clock<'a> {
    format: &'a TimeFormat,
    last: Option<i64>,
    text: String,
}

impl Clock<'_> {
    /// The text of a time, in seconds since 1970 and nanoseconds; `None`: it is out of range.
    pub fn text(&mut self, (seconds, nanos): (i64, u32)) -> Option<&str> {
        let TimeFormat { items, step } = self.format;
        let slot = (*step > 0).then(|| seconds.div_euclid(*step));
        if slot.is_none() || slot != self.last {
            self.last = None;
            self.text.clear();
            write!(self.text, "{}", DateTime::from_timestamp(seconds, nanos)?.format_with_items(items.iter())).ok()?;
            self.last = slot;
        }
        Some(&self.text)
    }
}

/// See [`TimeFormat::step`].
fn step(format: &[Item<'_>]) -> i64 {
    let of = |item: &Item<'_>| match item {
        Item::Literal(_) | Item::OwnedLiteral(_) | Item::Space(_) | Item::OwnedSpace(_) => i64::MAX,
        Item::Numeric(numeric, _) => match numeric {
            Numeric::Hour | Numeric::Hour12 => 3_600,
            Numeric::Minute => 60,
            Numeric::Second | Numeric::Timestamp => 1,
            Numeric::Nanosecond => 0,
            _ => SECONDS_PER_DAY,
        },
        Item::Fixed(Fixed::ShortMonthName | Fixed::LongMonthName | Fixed::ShortWeekdayName | Fixed::LongWeekdayName) => SECONDS_PER_DAY,
        Item::Fixed(Fixed::LowerAmPm | Fixed::UpperAmPm) => 3_600,
        Item::Fixed(_) | Item::Error => 0,
    };
    format.iter().map(of).min().unwrap_or(i64::MAX).min(SECONDS_PER_DAY)
}
