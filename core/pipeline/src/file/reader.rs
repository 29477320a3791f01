//! Reading a map of the file by its known keys: unknown ones, missing ones and values of the wrong kind go to the report, each with its place.
//! The tables of keys are checked against the JSON Schema in `schema.rs`, so that editors and `check` agree.

use crate::{
    diagnostic::{At, Report, Span},
    suggest, units,
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
    pub(crate) fn open(item: Item<'a>, known: &[&str]) -> Option<Self> {
        Self::open_but(item, known, &[])
    }

    /// Opens a map; the caller reports the keys in `later` itself.
    pub(crate) fn open_but(item: Item<'a>, known: &[&str], later: &[&str]) -> Option<Self> {
        let section = Self::open_any(item)?;
        let is_unknown = |entry: &&Entry| !known.contains(&entry.key.as_str()) && !later.contains(&entry.key.as_str());
        for entry in section.entries.iter().filter(is_unknown) {
            let free = known.iter().copied().filter(|key| !section.has(key));
            let end = suggest::or_list(&entry.key, free, "keys");
            section.report.error(entry.key_span, &section.path, format!("unknown key {:?}{end}", entry.key));
        }
        Some(section)
    }

    /// Opens a map whose keys are names of the user.
    pub(crate) fn open_any(item: Item<'a>) -> Option<Self> {
        let Some(entries) = item.node.as_map() else {
            item.expected("a map");
            return None;
        };
        Some(Self { report: item.report, path: item.path, span: item.key_span, entries })
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
        if found.is_none() {
            self.report.error(self.span, &self.path, format!("missing key {key:?}"));
        }
        found
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
        // An empty value begins behind its key, often on the next line: the key is the better place.
        let span = if matches!(&self.node.data, Data::Scalar(Scalar { value: Value::Null, .. })) { self.key_span } else { self.node.span };
        self.report.error(span, &self.path, format!("expected {what}, found {}", self.node.described()));
    }

    pub(crate) fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.data {
            Data::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A text, not empty.
    pub(crate) fn text(&self) -> Option<At<String>> {
        match self.scalar().map(|scalar| &scalar.value) {
            Some(Value::Text(text)) if !text.is_empty() => Some(At { value: text.clone(), span: self.node.span }),
            _ => {
                self.expected("text");
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word(&self, words: &[&str]) -> Option<At<String>> {
        let text = self.text()?;
        if !words.contains(&text.value.as_str()) {
            let end = suggest::or_list(&text.value, words.iter().copied(), "possible values");
            self.error(format!("unknown value {}{end}", self.node.described()));
            return None;
        }
        Some(text)
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
    pub(crate) fn texts(&self) -> Option<Vec<At<String>>> {
        if matches!(self.node.data, Data::Scalar(_)) {
            return self.text().map(|text| vec![text]);
        }
        let mut texts: Vec<At<String>> = Vec::new();
        for item in self.list()? {
            let Some(text) = item.text() else { continue };
            if texts.iter().any(|other| other.value == text.value) {
                item.error(format!("{:?} is there twice", text.value));
                continue;
            }
            texts.push(text);
        }
        Some(texts)
    }
}
