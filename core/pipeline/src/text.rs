//! A text of the file that may hold `${references}`: what it stands for, and what people are shown of it. Every text that is not a plugin's own goes through this
//! type, so that no message, no `Debug` and no plan can show what a reference stands for.
//!
//! A reference that names something (a connector, a node, a column, a word) is shown as that thing once it has been found: the thing is no secret. One that is a
//! setting (a number, a duration, a size) is a setting of the plan and shown as such. Free texts (the job's name, expressions, a directory) are shown as written.

use crate::{diagnostic::Span, suggest};
use std::fmt;

/// A text and its place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// What it stands for; never to be shown where `secret`.
    pub(crate) value: String,
    /// As in the file, without quotes and escapes.
    pub(crate) written: String,
    /// `value` holds what a reference stands for.
    pub(crate) secret: bool,
    /// Where it begins.
    pub(crate) span: Span,
}

impl Text {
    /// The end of a message about an unknown word, which this is: the nearest one, or else all of them. Nothing where a nearness would tell of a secret.
    pub(crate) fn or_list<'a>(&self, candidates: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
        if self.secret { String::new() } else { suggest::or_list(&self.value, candidates, what) }
    }
}

/// As written, in quotes.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

/// As written.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}
