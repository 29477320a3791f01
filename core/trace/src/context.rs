//! The text by which a span is known in other processes: W3C Trace Context, the header `traceparent` (<https://www.w3.org/TR/trace-context/>).

use std::{fmt, str::FromStr};

/// A span, as other processes know it: the number of its trace, its own, and whether it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Of all spans of a trace; not 0.
    pub trace: u128,
    /// Of the span; not 0.
    pub span: u64,
    /// Whether it is exported; what is a part of it follows it in that.
    pub is_sampled: bool,
}

/// A text that is no [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoContext;

impl fmt::Display for NoContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no traceparent of W3C's Trace Context: expected 00-TRACE-SPAN-FLAGS, of 32, 16 and 2 hexadecimal digits in lower case")
    }
}

impl std::error::Error for NoContext {}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// Hexadecimal digits in lower case, so many.
fn digits(text: &str, length: usize) -> Option<u128> {
    let is_right = text.len() == length && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_right.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Context {
    type Err = NoContext;

    fn from_str(text: &str) -> Result<Self, NoContext> {
        let mut parts = text.trim().split('-');
        let mut next = |length| parts.next().and_then(|part| digits(part, length)).ok_or(NoContext);
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // A later version may have more behind; this one may not, and 255 is none.
        let has_more = parts.next().is_some();
        let span = u64::try_from(span).map_err(|_| NoContext)?;
        if version == 0xff || (version == 0 && has_more) || trace == 0 || span == 0 {
            return Err(NoContext);
        }
        Ok(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_the_text_of_w3c() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context: Context = text.parse().unwrap();
        assert_eq!((context.trace, context.span), (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331));
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), text);
        let later: Context = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02-more".parse().unwrap();
        assert!(!later.is_sampled && later.trace == context.trace);
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-é-b7ad6b7169203331-01",
        ] {
            assert_eq!(wrong.parse::<Context>(), Err(NoContext), "{wrong}");
        }
    }
}
