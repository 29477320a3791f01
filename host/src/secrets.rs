//! Secrets that plugins are given, and their place in what people read: an error or a log line of a plugin may hold what it was given, and shows the reference instead.
//!
//! [`resolver`] is what a job asks, and remembers every answer; [`hidden`] goes over each error before it is reported, and [`Stderr`] over each line of the log. Data is
//! not touched, and nothing happens per row or batch.

use standpipe_engine::Secrets;
use standpipe_pipeline::substitute;
use std::{
    borrow::Cow,
    cmp::Reverse,
    io::{self, Write},
    sync::{Arc, PoisonError, RwLock},
};

/// Shorter values are part of too much that is no secret.
const SHORTEST: usize = 4;
/// Values that are remembered; those of a reference that rotates for ever would be without end.
const MOST: usize = 4096;

/// What was given out, in that order.
static GIVEN: RwLock<Given> = RwLock::new(Given { values: Vec::new() });

/// Values, each with the reference that is shown instead.
struct Given {
    values: Vec<(String, String)>,
}

impl Given {
    fn remember(&mut self, reference: &str, value: &str) {
        let quoted = serde_json::Value::from(value).to_string();
        let debugged = format!("{value:?}");
        // In a line of JSON, and between the quotes of a message, a value may be written with escapes.
        let escaped = [quoted.as_str(), debugged.as_str()].map(|text| text.trim_matches('"'));
        for form in [value, escaped[0], escaped[1]] {
            if form.chars().count() >= SHORTEST && self.values.iter().all(|(known, _)| known != form) {
                self.values.push((form.to_owned(), reference.to_owned()));
            }
        }
        let surplus = self.values.len().saturating_sub(MOST);
        self.values.drain(..surplus);
    }

    /// The text with references instead of values; where several begin, the longest counts.
    fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = String::new();
        let mut rest = text;
        let found = |rest: &str| {
            let places = self.values.iter().filter_map(|(value, shown)| Some((rest.find(value)?, Reverse(value.len()), shown)));
            places.min_by_key(|(at, length, _)| (*at, *length))
        };
        while let Some((at, Reverse(length), shown)) = found(rest) {
            out.push_str(&rest[..at]);
            out.push_str(shown);
            rest = &rest[at + length..];
        }
        if rest.len() == text.len() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(out + rest)
    }
}

/// Resolves the references of plugins' configurations.
pub(crate) fn resolver() -> Secrets {
    Arc::new(|text| substitute::resolve_each(text, remember))
}

/// From now on the value is shown as the reference that it stands for.
pub(crate) fn remember(reference: &str, value: &str) {
    GIVEN.write().unwrap_or_else(PoisonError::into_inner).remember(reference, value);
}

/// The text with references instead of what plugins were given for them.
pub(crate) fn hidden(text: &str) -> Cow<'_, str> {
    GIVEN.read().unwrap_or_else(PoisonError::into_inner).hide(text)
}

/// The log's way to stderr. The formatter gives whole lines.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(hidden(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[(&str, &str)]) -> Given {
        let mut given = Given { values: Vec::new() };
        values.iter().for_each(|(reference, value)| given.remember(reference, value));
        given
    }

    #[test]
    fn values_are_shown_as_their_references() {
        let given = given(&[("${PW}", "hunter2"), ("${LONG}", "hunter2000"), ("${SHORT}", "abc"), ("${PORT}", "PW}x")]);
        assert_eq!(given.hide("login me:hunter2@a failed, hunter2!"), "login me:${PW}@a failed, ${PW}!");
        assert_eq!(given.hide("hunter2000 abc hunter"), "${LONG} abc hunter");
        assert_eq!(given.hide("hunter2x"), "${PW}x", "what has been put in is not looked at again");
        assert!(matches!(given.hide("nothing here"), Cow::Borrowed("nothing here")));
    }

    #[test]
    fn values_with_escapes_are_found_too() {
        let given = given(&[("${KEY}", "a\"b\n\u{1b}c")]);
        for text in [format!("{:?}", "a\"b\n\u{1b}c"), serde_json::json!("a\"b\n\u{1b}c").to_string(), "\"a\"b\n\u{1b}c\"".to_owned()] {
            assert_eq!(given.hide(&text), "\"${KEY}\"", "{text}");
        }
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut given = given(&[("${OLD}", "first")]);
        (0..2 * MOST).for_each(|i| given.remember("${TOKEN}", &format!("token {i}")));
        assert_eq!((given.values.len(), given.hide("first").into_owned()), (MOST, "first".to_owned()));
        assert_eq!(given.hide(&format!("token {}", 2 * MOST - 1)), "${TOKEN}");
    }
}
