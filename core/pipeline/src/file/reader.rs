//! Reading a map of the file by its known keys: unknown ones, missing ones and values of the wrong kind go to the report, each with its place.
//! The tables of keys are checked against the JSON Schema in `schema.rs`, so that editors and `check` agree.

use crate::{
    diagnostic::{At, Report, Span},
    suggest,
    text::Text,
    units,
    yaml::{Data, Entry, Node, Scalar, Value, join},
};
use std::time::Duration;

/// A map whose keys are known.
pub(crate) struct Section<'a> {
    pub(crate) report: &'a Report,
    pub(crate) path: String,
    /// Where it is introduced: its own key, or its beginning.
    pub(crate) span: Span,
    entries: &'a [Entry],
    /// Keys that are not there, but that an unknown key is probably meant to be: one mistake is one finding.
    meant: Vec<&'static str>,
}

/// A value of a section.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    pub(crate) report: &'a Report,
    pub(crate) path: String,
    pub(crate) key_span: Span,
    pub(crate) node: &'a Node,
}

impl<'a> Section<'a> {
    /// Opens a map and reports the keys that it must not have.
    pub(crate) fn open(item: Item<'a>, known: &[&'static str]) -> Option<Self> {
        Self::open_but(item, known, &[], "")
    }

    /// Opens a map; the caller reports the keys in `later` itself. The hint is for an unknown key that is like no known one.
    pub(crate) fn open_but(item: Item<'a>, known: &[&'static str], later: &[&str], hint: &str) -> Option<Self> {
        let mut section = Self::open_any(item)?;
        let is_unknown = |entry: &&Entry| !known.contains(&entry.key.as_str()) && !later.contains(&entry.key.as_str());
        // Looked for once: there may be many that are unknown.
        let absent: Vec<&'static str> = known.iter().copied().filter(|key| !section.has(key)).collect();
        let free: Vec<&str> = absent.iter().copied().filter(|key| !later.contains(key)).collect();
        for entry in section.entries.iter().filter(is_unknown) {
            let message = format!("unknown key {:?}{}", entry.key, suggest::or_list(&entry.key, free.iter().copied(), "keys"));
            match suggest::closest(&entry.key, free.iter().copied()) {
                None if !hint.is_empty() => section.report.error_with_hint(entry.key_span, &section.path, message, hint),
                _ => section.report.error(entry.key_span, &section.path, message),
            }
            section.meant.extend(suggest::closest(&entry.key, absent.iter().copied()));
        }
        Some(section)
    }

    /// Opens a map whose keys are names of the user.
    pub(crate) fn open_any(item: Item<'a>) -> Option<Self> {
        let Some(entries) = item.node.as_map() else {
            item.expected("a map");
            return None;
        };
        Some(Self { report: item.report, path: item.path, span: item.key_span, entries, meant: Vec::new() })
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Item<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.item(entry))
    }

    /// The value of a key that must be there.
    pub(crate) fn required(&self, key: &str) -> Option<Item<'a>> {
        let found = self.get(key);
        if found.is_none() && !self.is_meant(key) {
            self.report.error(self.span, &self.path, format!("missing key {key:?}"));
        }
        found
    }

    /// The value of a key that may be left out: `Some(None)` if it is; `None` if it is there and wrong.
    pub(crate) fn optional<T>(&self, key: &str, read: impl FnOnce(Item<'a>) -> Option<T>) -> Option<Option<T>> {
        match self.get(key) {
            Some(item) => read(item).map(Some),
            None if self.is_meant(key) => None,
            None => Some(None),
        }
    }

    /// Whether the key is there under a wrong name, which has been reported.
    pub(crate) fn is_meant(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }

    /// Every key with its value, in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.item(entry)))
    }

    fn item(&self, entry: &'a Entry) -> Item<'a> {
        Item { report: self.report, path: join(&self.path, &entry.key), key_span: entry.key_span, node: &entry.value }
    }
}

impl<'a> Item<'a> {
    pub(crate) fn span(&self) -> Span {
        self.node.span
    }

    /// Reports the value.
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.report.error(self.node.span, &self.path, message);
    }

    pub(crate) fn expected(&self, what: &str) {
        self.report.error(self.place(), &self.path, format!("expected {what}, found {}", self.node.described()));
    }

    pub(crate) fn expected_with_hint(&self, what: &str, hint: &str) {
        self.report.error_with_hint(self.place(), &self.path, format!("expected {what}, found {}", self.node.described()), hint);
    }

    fn place(&self) -> Span {
        // An empty value begins behind its key, often on the next line: the key is the better place.
        if self.is_null() { self.key_span } else { self.node.span }
    }

    /// Whether there is a key and nothing behind it.
    pub(crate) fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub(crate) fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.data {
            Data::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A text, not empty.
    pub(crate) fn text(&self) -> Option<Text> {
        match self.scalar() {
            Some(Scalar { value: Value::Text(text), written, secret, .. }) if !text.is_empty() => {
                Some(Text { value: text.clone(), written: written.clone(), secret: *secret, span: self.node.span })
            }
            _ => {
                self.expected("text");
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<At<T>> {
        let text = self.text()?;
        let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) else {
            let end = text.or_list(words.iter().map(|(word, _)| *word), "possible values");
            self.error(format!("unknown value {text:?}{end}"));
            return None;
        };
        Some(At { value: *value, span: text.span })
    }

    /// A whole number from 1 to `most`; it may come from a reference.
    pub(crate) fn count(&self, most: u32) -> Option<At<u32>> {
        let number = match self.scalar().map(|scalar| (&scalar.value, scalar.secret)) {
            Some((Value::Integer(number), _)) => u32::try_from(*number).ok(),
            Some((Value::Text(text), true)) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(value) if (1..=most).contains(&value) => Some(At { value, span: self.node.span }),
            _ => {
                self.expected(&format!("a whole number from 1 to {most}"));
                None
            }
        }
    }

    pub(crate) fn duration(&self) -> Option<At<Duration>> {
        self.quantity("a duration such as 10s", units::parse_duration)
    }

    pub(crate) fn size(&self) -> Option<At<u64>> {
        self.quantity("a size such as 64MiB", units::parse_size)
    }

    fn quantity<T>(&self, what: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<At<T>> {
        let Some(scalar) = self.scalar() else {
            self.expected(what);
            return None;
        };
        match &scalar.value {
            Value::Text(text) => match parse(text) {
                Ok(value) => return Some(At { value, span: self.node.span }),
                Err(_) if scalar.secret => self.expected(what),
                Err(message) => self.error(message),
            },
            Value::Integer(_) | Value::Float(_) => match parse(&scalar.written) {
                Ok(value) => return Some(At { value, span: self.node.span }),
                Err(message) => self.error(message),
            },
            _ => self.expected(what),
        }
        None
    }

    /// The items of a list.
    pub(crate) fn list(&self) -> Option<Vec<Item<'a>>> {
        let Data::List(items) = &self.node.data else {
            self.expected("a list");
            return None;
        };
        let item =
            |(i, node): (usize, &'a Node)| Item { report: self.report, path: format!("{}[{i}]", self.path), key_span: node.span, node };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list of texts, none twice; one text is a list of one.
    pub(crate) fn texts(&self) -> Option<Vec<Text>> {
        if matches!(self.node.data, Data::Scalar(_)) {
            return self.text().map(|text| vec![text]);
        }
        let mut texts: Vec<Text> = Vec::new();
        let mut all_good = true;
        for item in self.list()? {
            match item.text() {
                Some(text) if texts.iter().any(|other| other.value == text.value) => {
                    item.error(format!("{text:?} is there twice"));
                    all_good = false;
                }
                Some(text) => texts.push(text),
                None => all_good = false,
            }
        }
        all_good.then_some(texts)
    }
}
