//! Which window an event time falls into, in the unit of its column.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use std::time::Duration;

use crate::operator::Micros;

/// Windows of one length, aligned to the epoch plus an offset.
#[derive(Debug)]
pub(super) struct Tumbling {
    /// In the column's unit, above 0.
    size: i64,
    /// From 0 to below `size`.
    offset: i64,
    unit: TimeUnit,
}

impl Tumbling {
    pub(super) fn new(size: Duration, offset: Duration, column: &DataType) -> Result<Self, String> {
        let DataType::Timestamp(unit, _) = column else { return Err(format!("the event time is {column}, not a timestamp")) };
        let in_unit = |what: &str, length: Duration| {
            let nanos = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1000,
                TimeUnit::Nanosecond => 1,
            };
            let units = i64::try_from(length.as_nanos() / nanos).ok().filter(|_| length.as_nanos().is_multiple_of(nanos));
            units.ok_or_else(|| format!("a window {what} of {length:?} cannot be counted in the unit of the event time, {unit:?}"))
        };
        let (size, offset) = (in_unit("size", size)?, in_unit("offset", offset)?);
        if size == 0 {
            return Err("a window of no length".to_owned());
        }
        Ok(Self { size, offset: offset % size, unit: *unit })
    }

    /// Start and end of the window of a time; `None` where they are beyond what the type holds.
    #[inline]
    pub(super) fn of(&self, time: i64) -> Option<(i64, i64)> {
        let start = time.checked_sub(time.checked_sub(self.offset)?.rem_euclid(self.size))?;
        Some((start, start.checked_add(self.size)?))
    }

    /// The end of the window that begins at `start`.
    pub(super) fn end(&self, start: i64) -> i64 {
        start.saturating_add(self.size)
    }

    /// The end in microseconds, rounded up: no row of the window is at it.
    pub(super) fn end_micros(&self, start: i64) -> Micros {
        let end = self.end(start);
        match self.unit {
            TimeUnit::Second => end.saturating_mul(1_000_000),
            TimeUnit::Millisecond => end.saturating_mul(1000),
            TimeUnit::Microsecond => end,
            TimeUnit::Nanosecond => end.div_euclid(1000) + i64::from(end.rem_euclid(1000) > 0),
        }
    }
}

/// The values of a timestamp column; what is behind a null means nothing.
pub(super) fn event_times(column: &ArrayRef) -> Option<&[i64]> {
    Some(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => column.as_primitive::<TimestampSecondType>().values(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => column.as_primitive::<TimestampMillisecondType>().values(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => column.as_primitive::<TimestampMicrosecondType>().values(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => column.as_primitive::<TimestampNanosecondType>().values(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(size: Duration, offset: Duration, unit: TimeUnit) -> Result<Tumbling, String> {
        Tumbling::new(size, offset, &DataType::Timestamp(unit, None))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn windows_are_aligned_to_the_epoch_and_the_offset_also_before_it() {
        let aligned = windows(10 * SECOND, Duration::ZERO, TimeUnit::Second).unwrap();
        assert_eq!([0, 9, 10, -1, -10, -11].map(|t| aligned.of(t).unwrap().0), [0, 0, 10, -10, -10, -20]);
        for offset in [3, 13] {
            let shifted = windows(10 * SECOND, offset * SECOND, TimeUnit::Second).unwrap();
            assert_eq!([2, 3, 12, 13].map(|t| shifted.of(t).unwrap()), [(-7, 3), (3, 13), (3, 13), (13, 23)]);
        }
    }

    #[test]
    fn times_at_the_ends_of_time_have_no_window() {
        let windows = windows(10 * SECOND, 3 * SECOND, TimeUnit::Nanosecond).unwrap();
        assert_eq!([i64::MIN, i64::MIN + 1, i64::MAX].map(|t| windows.of(t)), [None; 3]);
    }

    #[test]
    fn the_end_in_microseconds_is_never_before_the_end() {
        assert_eq!(windows(SECOND, Duration::ZERO, TimeUnit::Second).unwrap().end_micros(4), 5_000_000);
        assert_eq!(windows(SECOND, Duration::ZERO, TimeUnit::Millisecond).unwrap().end_micros(4000), 5_000_000);
        assert_eq!(windows(SECOND, Duration::ZERO, TimeUnit::Microsecond).unwrap().end_micros(4), 1_000_004);
        let tiny = windows(Duration::from_nanos(10), Duration::ZERO, TimeUnit::Nanosecond).unwrap();
        assert_eq!([990, 995, -10, -15].map(|start| tiny.end_micros(start)), [1, 2, 0, 0]);
        assert_eq!(windows(SECOND, Duration::ZERO, TimeUnit::Second).unwrap().end_micros(i64::MAX - 1), i64::MAX);
    }

    #[test]
    fn a_length_finer_than_the_unit_is_refused() {
        assert!(windows(Duration::from_millis(1500), Duration::ZERO, TimeUnit::Second).unwrap_err().contains("1.5s"));
        assert!(windows(SECOND, Duration::from_nanos(1), TimeUnit::Microsecond).is_err());
        assert!(windows(Duration::ZERO, Duration::ZERO, TimeUnit::Microsecond).is_err());
        assert!(Tumbling::new(SECOND, Duration::ZERO, &DataType::Int64).is_err());
    }
}
