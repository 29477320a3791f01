//! The fields of one CSV record. It knows no columns: a field is a text, and whether it had quotes.

use std::borrow::Cow;

use memchr::memchr;

use super::Dialect;

/// A field of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Its text, without quotes.
    pub(super) text: Cow<'a, [u8]>,
    pub(super) quoted: bool,
    /// Where it begins in the record.
    pub(super) at: usize,
}

/// Goes through a record.
pub(super) struct Fields<'a> {
    dialect: &'a Dialect,
    record: &'a [u8],
    /// Where the next field begins; `None` behind the last one.
    next: Option<usize>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(dialect: &'a Dialect, record: &'a [u8]) -> Self {
        Self { dialect, record, next: Some(0) }
    }

    /// The next field; why there is none: the reason.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Result<Field<'a>, String>> {
        let at = self.next?;
        let rest = self.record.get(at..).unwrap_or_default();
        if rest.first() == Some(&self.dialect.quote) {
            return Some(self.quoted(at, rest));
        }
        let end = memchr(self.dialect.delimiter, rest);
        self.next = end.map(|end| at + end + 1);
        Some(Ok(Field { text: Cow::Borrowed(&rest[..end.unwrap_or(rest.len())]), quoted: false, at }))
    }

    /// A field that begins with a quote; `rest` begins there too.
    fn quoted(&mut self, at: usize, rest: &'a [u8]) -> Result<Field<'a>, String> {
        let quote = self.dialect.quote;
        let mut text: Cow<'a, [u8]> = Cow::Borrowed(&[]);
        let mut from = 1;
        loop {
            let Some(found) = memchr(quote, &rest[from..]) else {
                let hint = "a newline within quotes ends a line all the same";
                return Err(format!("a field without its closing quote at byte {at} ({hint})"));
            };
            let end = from + found;
            match &mut text {
                Cow::Owned(text) => text.extend_from_slice(&rest[from..end]),
                text => *text = Cow::Borrowed(&rest[from..end]),
            }
            match rest.get(end + 1) {
                // Twice for itself.
                Some(next) if *next == quote => {
                    text.to_mut().push(quote);
                    from = end + 2;
                }
                Some(next) if *next == self.dialect.delimiter => {
                    self.next = Some(at + end + 2);
                    return Ok(Field { text, quoted: true, at });
                }
                None => {
                    self.next = None;
                    return Ok(Field { text, quoted: true, at });
                }
                Some(_) => return Err(format!("expected the delimiter behind a closing quote at byte {}", at + end + 1)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FormatKind, FormatSpec};
    use proptest::prelude::*;

    fn split(record: &str, spec: &FormatSpec) -> Result<Vec<(String, bool)>, String> {
        let dialect = Dialect::new(spec).unwrap();
        let mut fields = Fields::new(&dialect, record.as_bytes());
        std::iter::from_fn(|| fields.next())
            .map(|field| field.map(|field| (String::from_utf8(field.text.into_owned()).unwrap(), field.quoted)))
            .collect()
    }

    fn fields(record: &str) -> Vec<String> {
        split(record, &FormatKind::Csv.into())
            .unwrap()
            .into_iter()
            .map(|(text, quoted)| format!("{text}{}", if quoted { "!" } else { "" }))
            .collect()
    }

    #[test]
    fn fields_are_told_apart() {
        assert_eq!(fields(""), [""]);
        assert_eq!(fields(","), ["", ""]);
        assert_eq!(fields("a,b c,"), ["a", "b c", ""]);
        assert_eq!(fields(r#""a,b",c,"""""#), ["a,b!", "c", "\"!"]);
        assert_eq!(fields("\"\",\"a\nb\""), ["!", "a\nb!"]);
        assert_eq!(fields(r#"5" pipe,x"y""#), ["5\" pipe", "x\"y\""]);
        let other = FormatSpec { delimiter: Some('\t'), quote: Some('\''), ..FormatKind::Csv.into() };
        assert_eq!(split("a,b\t'c\td'", &other).unwrap(), [("a,b".to_owned(), false), ("c\td".to_owned(), true)]);
    }

    #[test]
    fn what_is_no_record_is_said() {
        let wrong = |record| split(record, &FormatKind::Csv.into()).unwrap_err();
        assert!(wrong(r#"a,"b"#).starts_with("a field without its closing quote at byte 2"));
        assert!(wrong(r#"a,"b"c,d"#).starts_with("expected the delimiter behind a closing quote at byte 5"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in prop::collection::vec("[a,\"\n\r;NA]{0,5}", 1..5), null in "|NA|a", delimiter in prop_oneof![Just(','), Just(';')]) {
            let spec = FormatSpec { delimiter: Some(delimiter), null_text: Some(null.clone()), ..FormatKind::Csv.into() };
            let dialect = Dialect::new(&spec).unwrap();
            let mut record = Vec::new();
            for (at, text) in texts.iter().enumerate() {
                if at > 0 {
                    record.push(dialect.delimiter);
                }
                dialect.write(text.as_bytes(), &mut record);
            }
            let found = split(std::str::from_utf8(&record).unwrap(), &spec).unwrap();
            // None of them is null.
            prop_assert!(found.iter().all(|(text, quoted)| *quoted || *text != null));
            prop_assert_eq!(found.into_iter().map(|(text, _)| text).collect::<Vec<_>>(), texts);
        }
    }
}
