//! A cursor over one JSON text: white space, literals, strings, and values to be skipped, each checked against RFC 8259.
//!
//! It holds no values: the columns ask it for what they expect and store the result. Numbers are in `number`. A [`Fault`] carries where and why
//! a record is broken; it is made on the cold path only.

use std::borrow::Cow;

use crate::block::append;

/// The deepest nesting of objects and arrays that is read; hostile input must not overflow the stack. serde_json has the same limit.
pub(super) const MAX_DEPTH: u32 = 128;

/// The most text of a record that a message repeats.
const MAX_FOUND: usize = 40;

/// Why a record is broken.
#[derive(Debug)]
pub(super) struct Fault {
    /// The column and the path within it: `a.b[3]`; empty outside columns.
    path: String,
    message: String,
    at: Option<usize>,
}

/// Boxed, so that the result of the hot functions fits a register.
pub(super) type Result<T> = std::result::Result<T, Box<Fault>>;

impl Fault {
    #[cold]
    pub(super) fn missing() -> Box<Self> {
        Box::new(Self { path: String::new(), message: "no value, but the column is not nullable".to_owned(), at: None })
    }

    /// Puts the name of a field or map key in front of the path.
    #[cold]
    pub(super) fn in_field(mut self: Box<Self>, name: &str) -> Box<Self> {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    /// Puts the position of a list's item in front of the path.
    #[cold]
    pub(super) fn in_item(self: Box<Self>, item: usize) -> Box<Self> {
        self.in_field(&format!("[{item}]"))
    }

    #[cold]
    pub(super) fn reason(&self) -> String {
        let at = self.at.map_or_else(String::new, |at| format!(" at byte {at}"));
        if self.path.is_empty() { format!("{}{at}", self.message) } else { format!("column \"{}\": {}{at}", self.path, self.message) }
    }
}

/// A position in one record.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) pos: usize,
    depth: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0, depth: 0 }
    }

    /// What is left of the record.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    /// The byte at the cursor, if the record has not ended.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    /// The byte at the next token, if the record has not ended.
    #[inline]
    pub(super) fn token(&mut self) -> Option<u8> {
        match self.peek() {
            Some(byte) if byte > b' ' => Some(byte),
            _ => self.token_after_space(),
        }
    }

    fn token_after_space(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pos += 1;
        }
        self.peek()
    }

    /// A fault at `at`: `expected ..., found ...`.
    #[cold]
    pub(super) fn expected(&self, what: &str, at: usize) -> Box<Fault> {
        self.fault(format!("expected {what}, found {}", self.found(at)), at)
    }

    #[cold]
    fn fault(&self, message: String, at: usize) -> Box<Fault> {
        Box::new(Fault { path: String::new(), message, at: Some(at) })
    }

    /// What is at `at`, for people: a scalar as it is written, the name of anything longer.
    fn found(&self, at: usize) -> String {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let Some(&first) = rest.first() else { return "the end of the record".to_owned() };
        let length = match first {
            b'{' => return "an object".to_owned(),
            b'[' => return "an array".to_owned(),
            b'"' => match (Cursor { bytes: self.bytes, pos: at, depth: 0 }).string() {
                Ok(text) => return format!("{:?}", shorten(&text)),
                Err(_) => return "a broken string".to_owned(),
            },
            b if b.is_ascii_alphanumeric() || b == b'-' => {
                rest.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')).count()
            }
            // A whole character, not a piece of it.
            _ => String::from_utf8_lossy(rest.get(..4).unwrap_or(rest)).chars().next().map_or(1, char::len_utf8),
        };
        let text = shorten(rest.get(..length).unwrap_or(rest));
        if first.is_ascii_alphanumeric() || first == b'-' { text } else { format!("{text:?}") }
    }

    /// Goes past an opening bracket, at the cursor already.
    pub(super) fn enter(&mut self) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault(format!("objects and arrays nested deeper than {MAX_DEPTH} levels"), self.pos));
        }
        self.depth += 1;
        self.pos += 1;
        Ok(())
    }

    /// Goes past a closing bracket, at the cursor already.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
        self.pos += 1;
    }

    /// After an opening bracket: whether `close` follows at once.
    pub(super) fn is_empty(&mut self, close: u8) -> bool {
        self.token() == Some(close)
    }

    /// After a value within brackets: whether another follows. Stops at the token after a comma, or at the closing bracket.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool> {
        match self.token() {
            Some(b',') => {
                self.pos += 1;
                self.token();
                Ok(true)
            }
            Some(byte) if byte == close => Ok(false),
            _ => Err(self.expected(if close == b'}' { "\",\" or \"}\"" } else { "\",\" or \"]\"" }, self.pos)),
        }
    }

    /// Goes past the colon after a key, to the value.
    #[inline]
    pub(super) fn colon(&mut self) -> Result<()> {
        if self.token() != Some(b':') {
            return Err(self.expected("\":\"", self.pos));
        }
        self.pos += 1;
        self.token();
        Ok(())
    }

    /// Nothing but white space may follow a record's object.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.token() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the record", self.pos)),
        }
    }

    /// Goes past `true`, `false` or `null`.
    pub(super) fn literal(&mut self, word: &'static str) -> Result<()> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.expected(word, self.pos));
        }
        self.pos += word.len();
        Ok(())
    }

    /// A string without its quotes and escapes, borrowed if it has no escapes. It is valid UTF-8.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>> {
        let start = self.pos + 1;
        if let Some(end) = self.plain_string()? {
            return Ok(Cow::Borrowed(self.bytes.get(start..end).unwrap_or_default()));
        }
        let mut text = Vec::new();
        self.unescape(&mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Appends a string, without its quotes and escapes, to `out`. On a fault `out` may hold a part of it.
    #[inline]
    pub(super) fn string_into(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let start = self.pos + 1;
        match self.plain_string()? {
            Some(end) => append(out, self.bytes, start, end),
            None => self.unescape(out)?,
        }
        Ok(())
    }

    /// Goes past a string without escapes and gives the place of its closing quote; at the first escape it stays where it is and gives `None`.
    #[inline]
    fn plain_string(&mut self) -> Result<Option<usize>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a string", self.pos));
        }
        let start = self.pos + 1;
        let (end, ascii) = plain_run(self.bytes, start);
        match self.bytes.get(end) {
            Some(b'"') => {
                if !ascii {
                    self.check_utf8(start, end)?;
                }
                self.pos = end + 1;
                Ok(Some(end))
            }
            Some(b'\\') => Ok(None),
            _ => Err(self.ends_badly(end)),
        }
    }

    /// Appends a string with escapes.
    fn unescape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.pos += 1;
        loop {
            let start = self.pos;
            let (end, ascii) = plain_run(self.bytes, start);
            if !ascii {
                self.check_utf8(start, end)?;
            }
            out.extend_from_slice(self.bytes.get(start..end).unwrap_or_default());
            self.pos = end;
            match self.peek() {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                _ => return Err(self.ends_badly(end)),
            }
        }
    }

    /// Appends the character of one escape.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let at = self.pos;
        self.pos += 2;
        out.push(match self.bytes.get(at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let character = self.unicode_escape(at)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.fault("unknown escape in a string".to_owned(), at)),
        });
        Ok(())
    }

    /// The character of `\uXXXX`, or of a surrogate pair of two of them; the cursor is at the first digit.
    fn unicode_escape(&mut self, at: usize) -> Result<char> {
        let first = self.four_hex_digits(at)?;
        let code = if (0xd800..0xdc00).contains(&first) && self.bytes.get(self.pos..self.pos + 2) == Some(b"\\u") {
            self.pos += 2;
            let second = self.four_hex_digits(at)?;
            if (0xdc00..0xe000).contains(&second) { 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00) } else { first }
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.fault("lone surrogate in a string".to_owned(), at))
    }

    fn four_hex_digits(&mut self, at: usize) -> Result<u32> {
        let digits = self.bytes.get(self.pos..self.pos + 4).unwrap_or_default();
        self.pos += 4;
        let mut code = 0;
        for digit in digits {
            code = code * 16 + char::from(*digit).to_digit(16).ok_or_else(|| self.fault("broken \\u escape in a string".to_owned(), at))?;
        }
        if digits.len() < 4 { Err(self.fault("broken \\u escape in a string".to_owned(), at)) } else { Ok(code) }
    }

    #[cold]
    fn ends_badly(&self, at: usize) -> Box<Fault> {
        match self.bytes.get(at) {
            None => self.fault("a string without its closing quote: the record ends".to_owned(), at),
            Some(byte) => self.fault(format!("unescaped control character 0x{byte:02x} in a string"), at),
        }
    }

    fn check_utf8(&self, start: usize, end: usize) -> Result<()> {
        match std::str::from_utf8(self.bytes.get(start..end).unwrap_or_default()) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fault("invalid UTF-8 in a string".to_owned(), start + error.valid_up_to())),
        }
    }

    /// Goes past one value of any kind, checking it.
    pub(super) fn skip_value(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'{') => self.skip_object(),
            Some(b'[') => self.skip_array(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => Err(self.expected("a value", self.pos)),
        }
    }

    fn skip_string(&mut self) -> Result<()> {
        self.string().map(drop)
    }

    fn skip_object(&mut self) -> Result<()> {
        self.enter()?;
        let mut more = !self.is_empty(b'}');
        while more {
            self.skip_string()?;
            self.colon()?;
            self.skip_value()?;
            more = self.more(b'}')?;
        }
        self.leave();
        Ok(())
    }

    fn skip_array(&mut self) -> Result<()> {
        self.enter()?;
        let mut more = !self.is_empty(b']');
        while more {
            self.skip_value()?;
            more = self.more(b']')?;
        }
        self.leave();
        Ok(())
    }
}

/// The beginning of a text, for a message.
fn shorten(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(MAX_FOUND) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}

/// Where a run of plain string text from `from` on ends (at a quote, a backslash, a control character or the end of the text), and whether it is
/// all ASCII. Eight bytes at a time: <https://graphics.stanford.edu/~seander/bithacks.html>, "Determine if a word has a zero byte / a byte less than n",
/// whose lowest marked byte is exact.
#[inline]
pub(super) fn plain_run(bytes: &[u8], from: usize) -> (usize, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut pos = from;
    let mut seen = 0;
    while let Some(chunk) = bytes.get(pos..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let stops = ((quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash) | control) & HIGH;
        if stops != 0 {
            let plain = stops.trailing_zeros() / 8;
            seen |= word & ((1 << (plain * 8)) - 1);
            return (pos + plain as usize, seen & HIGH == 0);
        }
        seen |= word;
        pos += 8;
    }
    let mut ascii = seen & HIGH == 0;
    while let Some(&byte) = bytes.get(pos) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        ascii &= byte < 0x80;
        pos += 1;
    }
    (pos, ascii)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_run_agrees_with_a_byte_loop(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x1e..0x24_u8, 0x5a..0x5e_u8, Just(0xa2_u8), Just(0xdc_u8), Just(b'a')], 0..40), from in 0..40_usize) {
            let from = from.min(bytes.len());
            let plain = bytes[from..].iter().take_while(|b| **b >= 0x20 && **b != b'"' && **b != b'\\').count();
            prop_assert_eq!(plain_run(&bytes, from), (from + plain, bytes[from..from + plain].is_ascii()));
        }

        #[test]
        fn skips_exactly_what_serde_json_reads(text in r#"[\[\]{}", :0-9a-z\\.+\-eE]{0,12}|\[[-+.0-9eE,]{0,8}\]|"[\\u0-9a-fdDn/"\t]{0,10}"|\{"a": ?[0-9,"b:{}]{0,8}\}"#) {
            let mut cursor = Cursor::new(text.as_bytes());
            cursor.token();
            let ours = cursor.skip_value().and_then(|()| cursor.end()).map_err(|fault| fault.reason());
            let theirs = serde_json::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string());
            // RFC 8259 has no largest number; what follows one that serde_json finds too large is left to its reader without numbers.
            let too_large = theirs.as_ref().is_err_and(|error| error.contains("out of range"));
            let theirs_is_ok = theirs.is_ok() || too_large && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(ours.is_ok(), theirs_is_ok, "{:?} {:?} {:?}", text, ours, theirs);
        }
    }

    #[test]
    fn nesting_is_limited_and_cheap() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Cursor::new(nested(128).as_bytes()).skip_value().is_ok());
        let fault = Cursor::new(nested(129).as_bytes()).skip_value().unwrap_err();
        assert_eq!(fault.reason(), "objects and arrays nested deeper than 128 levels at byte 128");
        assert!(Cursor::new("[{\"a\":".repeat(1_000_000).as_bytes()).skip_value().is_err());
    }
}
