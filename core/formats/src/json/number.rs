//! JSON numbers: the token, and its exact conversion to Arrow's number types.
//!
//! Nothing is rounded but floats, and those correctly: an integer column takes integral values only (`12`, `12.0`, `1.2e1`), a decimal column values
//! that fit its scale; everything else is an error of the record. Called by the scalar columns.

use arrow_buffer::i256;

use super::cursor::{Cursor, Result};

/// The most decimal digits that always fit a `u64`.
const MAX_EXACT_DIGITS: usize = 19;

/// A number token: `mantissa * 10^exponent`, negated if `negative`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    negative: bool,
    /// All digits, the fraction's too; right only if `exact`.
    mantissa: u64,
    exponent: i64,
    /// Whether the digits fit the mantissa.
    exact: bool,
    text: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Goes past a number.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number<'a>> {
        let start = self.pos;
        let negative = self.peek() == Some(b'-');
        let first = start + usize::from(negative);
        let mut mantissa = 0;
        let mut pos = self.digits(first, &mut mantissa);
        let mut digits = pos - first;
        if digits == 0 || (digits > 1 && self.bytes.get(first) == Some(&b'0')) {
            return Err(self.expected("a number", start));
        }
        let mut exponent = 0;
        if self.bytes.get(pos) == Some(&b'.') {
            let end = self.digits(pos + 1, &mut mantissa);
            let fraction = end - pos - 1;
            if fraction == 0 {
                return Err(self.expected("a number", start));
            }
            digits += fraction;
            exponent = -(fraction as i64);
            pos = end;
        }
        self.pos = pos;
        if let Some(b'e' | b'E') = self.peek() {
            exponent += self.exponent(start)?;
        }
        let text = self.bytes.get(start..self.pos).unwrap_or_default();
        Ok(Number { negative, mantissa, exponent, exact: digits <= MAX_EXACT_DIGITS, text })
    }

    /// Appends the digits from `pos` on to the mantissa, which wraps around, and gives the place after them.
    #[inline]
    fn digits(&self, mut pos: usize, mantissa: &mut u64) -> usize {
        while let Some(chunk) = self.bytes.get(pos..).and_then(<[u8]>::first_chunk::<8>) {
            let Some(eight) = eight_digits(u64::from_le_bytes(*chunk)) else { break };
            *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
            pos += 8;
        }
        while let Some(digit) = self.bytes.get(pos).map(|byte| byte.wrapping_sub(b'0'))
            && digit < 10
        {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            pos += 1;
        }
        pos
    }

    /// Goes past an exponent. One beyond any meaning is cut off, far outside the range of every type.
    fn exponent(&mut self, start: usize) -> Result<i64> {
        self.pos += 1;
        let negative = self.peek() == Some(b'-');
        if let Some(b'-' | b'+') = self.peek() {
            self.pos += 1;
        }
        let first = self.pos;
        let mut exponent = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            exponent = (exponent * 10 + i64::from(digit - b'0')).min(i64::MAX / 100);
            self.pos += 1;
        }
        if self.pos == first {
            return Err(self.expected("a number", start));
        }
        Ok(if negative { -exponent } else { exponent })
    }
}

/// The value of eight ASCII digits. Daniel Lemire, "Quickly parsing eight digits" (2018).
#[inline]
fn eight_digits(word: u64) -> Option<u64> {
    let digits = word.wrapping_sub(0x3030_3030_3030_3030);
    if (word.wrapping_add(0x4646_4646_4646_4646) | digits) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits * 10 + (digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

impl Number<'_> {
    /// The number, if it is integral and within 128 bits.
    #[inline]
    pub(super) fn integer(&self) -> Option<i128> {
        if self.exact && self.exponent == 0 {
            let value = i128::from(self.mantissa);
            return Some(if self.negative { -value } else { value });
        }
        self.scaled(0)
    }

    /// The nearest float64; none if the number is beyond its range. Clinger's fast path: mantissa and power of ten are exact, so one operation
    /// rounds once ("How to read floating point numbers accurately", 1990).
    #[inline]
    pub(super) fn float64(&self) -> Option<f64> {
        const POWERS: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
        ];
        if self.exact
            && self.mantissa <= 1 << f64::MANTISSA_DIGITS
            && let Some(power) = usize::try_from(self.exponent.unsigned_abs()).ok().and_then(|exponent| POWERS.get(exponent))
        {
            let mantissa = self.mantissa as f64;
            let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
            return Some(if self.negative { -value } else { value });
        }
        self.parse().filter(|value: &f64| value.is_finite())
    }

    /// The nearest float32 (rounded once, not by way of float64); none if the number is beyond its range.
    #[inline]
    pub(super) fn float32(&self) -> Option<f32> {
        const POWERS: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];
        if self.exact
            && self.mantissa <= 1 << f32::MANTISSA_DIGITS
            && let Some(power) = usize::try_from(self.exponent.unsigned_abs()).ok().and_then(|exponent| POWERS.get(exponent))
        {
            let mantissa = self.mantissa as f32;
            let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
            return Some(if self.negative { -value } else { value });
        }
        self.parse().filter(|value: &f32| value.is_finite())
    }

    fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        std::str::from_utf8(self.text).ok()?.parse().ok()
    }

    /// The number times `10^scale`, if that is integral and within 128 bits.
    pub(super) fn scaled(&self, scale: i8) -> Option<i128> {
        let shift = self.exponent + i64::from(scale);
        if self.exact && (-19..=19).contains(&shift) {
            let power = 10_i128.pow(shift.unsigned_abs() as u32);
            let mantissa = i128::from(self.mantissa);
            // 19 + 19 digits fit 128 bits.
            let value = if shift >= 0 { mantissa * power } else { (mantissa % power == 0).then_some(mantissa / power)? };
            return Some(if self.negative { -value } else { value });
        }
        self.scaled_digits(scale, i128::MAX.ilog10() as usize + 1)?.parse().ok()
    }

    /// As [`Self::scaled`], within 256 bits.
    pub(super) fn scaled_256(&self, scale: i8) -> Option<i256> {
        i256::from_string(&self.scaled_digits(scale, 77)?)
    }

    /// The digits of the number times `10^scale`, with a sign, if that is integral and has at most `most` digits.
    fn scaled_digits(&self, scale: i8, most: usize) -> Option<String> {
        let mut digits = String::with_capacity(most + 1);
        let significant = self.text.iter().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(|byte| byte.is_ascii_digit());
        digits.extend(significant.skip_while(|byte| **byte == b'0').map(|byte| char::from(*byte)));
        if digits.is_empty() {
            return Some("0".to_owned());
        }
        let shift = self.exponent + i64::from(scale);
        if shift < 0 {
            let kept = digits.len().checked_sub(usize::try_from(shift.unsigned_abs()).ok()?)?;
            if digits.bytes().skip(kept).any(|digit| digit != b'0') {
                return None;
            }
            digits.truncate(kept);
        } else {
            let zeros = usize::try_from(shift).ok()?;
            if digits.len().checked_add(zeros)? > most {
                return None;
            }
            digits.extend(std::iter::repeat_n('0', zeros));
        }
        if digits.len() > most {
            return None;
        }
        if self.negative {
            digits.insert(0, '-');
        }
        Some(digits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with<'a, T>(text: &'a str, convert: impl Fn(&Number<'a>) -> T) -> T {
        let mut cursor = Cursor::new(text.as_bytes());
        let number = cursor.number().unwrap();
        assert_eq!(cursor.pos, text.len(), "{text}");
        convert(&number)
    }

    #[test]
    fn integers_are_exact() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-0.0", Some(0)),
            ("0e99999999999999999999", Some(0)),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("-9223372036854775808", Some(i128::from(i64::MIN))),
            ("18446744073709551615", Some(i128::from(u64::MAX))),
            ("18446744073709551616", Some(i128::from(u64::MAX) + 1)),
            ("170141183460469231731687303715884105727", Some(i128::MAX)),
            ("170141183460469231731687303715884105728", None),
            ("1.0", Some(1)),
            ("1.50e1", Some(15)),
            ("-12e3", Some(-12_000)),
            ("1200e-2", Some(12)),
            ("1.5", None),
            ("1e-1", None),
            ("1e400", None),
            ("1e-99999999999999999999", None),
            ("0.00000000000000000001e20", Some(1)),
            ("12345678901234567890.000000000000000000000000000", Some(12_345_678_901_234_567_890)),
        ] {
            assert_eq!(with(text, Number::integer), value, "{text}");
        }
    }

    #[test]
    fn floats_are_nearest() {
        assert_eq!(with("-0.0", Number::float64).map(f64::to_bits), Some((-0.0_f64).to_bits()));
        assert_eq!(with("1e400", Number::float64), None);
        assert_eq!(with("1e-400", Number::float64), Some(0.0));
        assert_eq!(with("1e39", Number::float32), None);
        assert_eq!(with("1.7976931348623157e308", Number::float64), Some(f64::MAX));
        // Rounding to float64 first would give the even neighbour.
        assert_eq!(with("1.00000005960464480000000001", Number::float32), "1.00000005960464480000000001".parse().ok());
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(with("12.5", |n| n.scaled(2)), Some(1250));
        assert_eq!(with("-12.500", |n| n.scaled(1)), Some(-125));
        assert_eq!(with("12.55", |n| n.scaled(1)), None);
        assert_eq!(with("9007199254740993.01", |n| n.scaled(2)), Some(900_719_925_474_099_301));
        assert_eq!(with("99999999999999999999999999999999999.999", |n| n.scaled(3)), Some(10_i128.pow(38) - 1));
        let most = "9".repeat(76);
        assert_eq!(with(&most, |n| n.scaled_256(0)), i256::from_string(&most));
        assert_eq!(with("1e77", |n| n.scaled_256(0)), None);
    }

    #[test]
    fn broken_numbers_are_refused() {
        for text in ["", "-", "+1", ".5", "1.", "1.e1", "01", "-01", "1e", "1e+", "00", "--1", "e1", "NaN", "-Infinity"] {
            assert!(Cursor::new(text.as_bytes()).number().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(text in r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
            let nearest: f64 = text.parse().unwrap();
            prop_assert_eq!(with(&text, Number::float64).map(f64::to_bits), nearest.is_finite().then_some(nearest.to_bits()));
            let nearest: f32 = text.parse().unwrap();
            prop_assert_eq!(with(&text, Number::float32).map(f32::to_bits), nearest.is_finite().then_some(nearest.to_bits()));
        }

        #[test]
        fn every_integer_is_read(value in any::<i128>(), bits in 0..128_u32) {
            let value = value >> bits;
            prop_assert_eq!(with(&value.to_string(), Number::integer), Some(value));
            prop_assert_eq!(with(&format!("{value}.0"), |n| n.scaled_256(1)), Some(i256::from_i128(value).wrapping_mul(i256::from(10))));
        }

        #[test]
        fn eight_digits_are_read(bytes in prop::array::uniform8(prop_oneof![9 => b'0'..=b'9', 1 => any::<u8>()]), value in 0..100_000_000_u64) {
            let digits = std::str::from_utf8(&bytes).ok().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok());
            prop_assert_eq!(eight_digits(u64::from_le_bytes(bytes)), digits);
            let text: [u8; 8] = format!("{value:08}").into_bytes().try_into().unwrap();
            prop_assert_eq!(eight_digits(u64::from_le_bytes(text)), Some(value));
        }
    }
}
