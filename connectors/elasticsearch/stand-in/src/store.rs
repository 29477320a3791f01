//! What is indexed: documents by index and id, index templates, versions. In memory and bounded; a document's text is kept as it came and parsed when a search asks.
//! Called by `bulk`, `search` and `server` under one lock.

use crate::faults::{FieldType, Refusal, conflict};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// A document as it was last written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its index.
    pub index: String,
    /// Its id.
    pub id: String,
    /// How often it has been written since it was created, from 1.
    pub version: u64,
    /// The document.
    pub source: Value,
}

/// Something that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `index`, `create`, `update` or `delete`.
    pub kind: String,
    /// The index.
    pub index: String,
    /// The id.
    pub id: String,
    /// The document's text; empty for a delete.
    pub source: String,
}

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write<'a> {
    Index(&'a [u8]),
    Create(&'a [u8]),
    /// The document itself, merged on the top level into what is there, or taken as it is.
    Upsert(&'a [u8]),
    Delete,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) status: u16,
    pub(crate) result: &'static str,
    pub(crate) version: u64,
    pub(crate) sequence: u64,
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) source: Box<[u8]>,
    pub(crate) version: u64,
    pub(crate) sequence: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) documents: HashMap<String, Stored>,
    /// The versions of deleted documents, where clients give them. Kept for ever, unlike a server's (`index.gc_deletes`).
    deleted: HashMap<String, u64>,
    types: Vec<FieldType>,
    sequence: u64,
}

pub(crate) struct Store {
    indices: BTreeMap<String, Index>,
    templates: BTreeMap<String, Value>,
    operations: Option<Vec<Operation>>,
    bytes: usize,
    limit: usize,
    ids: u64,
}

impl Store {
    pub(crate) fn new(limit: usize) -> Self {
        Self { indices: BTreeMap::new(), templates: BTreeMap::new(), operations: None, bytes: 0, limit, ids: 0 }
    }

    /// An id for a document without one: as long as Elasticsearch's own, 20 characters.
    pub(crate) fn new_id(&mut self) -> String {
        self.ids += 1;
        format!("{:020x}", self.ids)
    }

    /// A write with a version of the client's (`external_gte`) is refused if the document has a higher one.
    pub(crate) fn apply(&mut self, index: &str, id: &str, write: Write<'_>, external: Option<u64>) -> Result<Written, Refusal> {
        let size = match write {
            Write::Index(source) | Write::Create(source) | Write::Upsert(source) => check_source(source)?.len() + id.len(),
            Write::Delete => 0,
        };
        if self.bytes + size > self.limit {
            let reason = format!("[parent] Data too large: the stand-in keeps {} bytes at most", self.limit);
            return Err(Refusal { status: 429, kind: "circuit_breaking_exception", reason });
        }
        self.create_index(index);
        let Some(target) = self.indices.get_mut(index) else { return Err(no_such_index(index)) };
        let old = target.documents.get(id);
        let (existed, before, old_size) = old.map_or((false, 0, 0), |old| (true, old.version, old.source.len() + id.len()));
        let newest = if existed { before } else { target.deleted.get(id).copied().unwrap_or(0) };
        if let Some(given) = external.filter(|given| *given < newest) {
            let reason = format!("[{id}]: version conflict, current version [{newest}] is higher than the one provided [{given}]");
            return Err(Refusal { status: 409, kind: "version_conflict_engine_exception", reason });
        }
        let source = match write {
            Write::Create(_) if existed => {
                let reason = format!("[{id}]: version conflict, document already exists (current version [{before}])");
                return Err(Refusal { status: 409, kind: "version_conflict_engine_exception", reason });
            }
            Write::Index(source) | Write::Create(source) => Some(source.to_vec()),
            Write::Upsert(source) => Some(old.map_or_else(|| source.to_vec(), |old| merged(&old.source, source))),
            Write::Delete => None,
        };
        if let Some(refusal) = source.as_deref().and_then(|source| conflict(target.types.iter(), source)) {
            return Err(refusal);
        }
        target.sequence += 1;
        let (version, sequence) = (external.unwrap_or(before + 1), target.sequence - 1);
        let (status, result) = match (&source, existed) {
            (None, true) => (200, "deleted"),
            (None, false) => (404, "not_found"),
            (Some(_), true) => (200, "updated"),
            (Some(_), false) => (201, "created"),
        };
        self.bytes = self.bytes.saturating_sub(old_size);
        match source {
            Some(source) => {
                if let Some(operations) = &mut self.operations {
                    operations.push(operation(write, index, id, &source));
                }
                self.bytes += source.len() + id.len();
                target.documents.insert(id.to_owned(), Stored { source: source.into_boxed_slice(), version, sequence });
            }
            None => {
                if let Some(operations) = &mut self.operations {
                    operations.push(operation(write, index, id, b""));
                }
                target.documents.remove(id);
                if external.is_some() {
                    target.deleted.insert(id.to_owned(), version);
                }
            }
        }
        Ok(Written { status, result, version, sequence })
    }

    /// Makes an index with the mapping of the template that fits best; `false` if it is there.
    pub(crate) fn create_index(&mut self, name: &str) -> bool {
        if self.indices.contains_key(name) {
            return false;
        }
        let types = self.mapped(name);
        self.indices.insert(name.to_owned(), Index { types, ..Index::default() });
        true
    }

    fn mapped(&self, name: &str) -> Vec<FieldType> {
        let fits = |template: &&Value| {
            let patterns = template.get("index_patterns").and_then(Value::as_array);
            patterns.is_some_and(|patterns| patterns.iter().filter_map(Value::as_str).any(|pattern| matches(pattern, name)))
        };
        let priority = |template: &&Value| template.get("priority").and_then(Value::as_i64).unwrap_or(0);
        let best = self.templates.values().filter(fits).max_by_key(priority);
        let fields = best.and_then(|template| template.pointer("/template/mappings/properties")).and_then(Value::as_object);
        let kind = |mapping: &Value| mapping.get("type").and_then(Value::as_str).map(str::to_owned);
        let rule = |(field, mapping): (&String, &Value)| {
            kind(mapping).map(|kind| FieldType { index: name.to_owned(), field: field.clone(), kind })
        };
        fields.into_iter().flatten().filter_map(rule).collect()
    }

    pub(crate) fn delete_indices(&mut self, pattern: &str) -> usize {
        let names: Vec<String> = self.indices.keys().filter(|name| matches(pattern, name)).cloned().collect();
        for name in &names {
            let gone = self.indices.remove(name).unwrap_or_default();
            self.bytes -= gone.documents.iter().map(|(id, stored)| id.len() + stored.source.len()).sum::<usize>();
        }
        names.len()
    }

    /// The indexes that an expression names: names, patterns with `*`, comma lists, `_all`. A plain name that is not there is an error.
    pub(crate) fn select(&self, expression: &str) -> Result<Vec<(&str, &Index)>, Refusal> {
        if let Some(missing) = expression.split(',').find(|part| is_plain(part) && !self.indices.contains_key(*part)) {
            return Err(no_such_index(missing));
        }
        Ok(self.indices.iter().filter(|(name, _)| matches(expression, name)).map(|(name, index)| (name.as_str(), index)).collect())
    }

    pub(crate) fn documents(&self, expression: &str) -> Vec<Document> {
        let mut found = Vec::new();
        for (name, index) in self.indices.iter().filter(|(name, _)| matches(expression, name)) {
            found.extend(index.documents.iter().map(|(id, stored)| Document {
                index: name.clone(),
                id: id.clone(),
                version: stored.version,
                source: serde_json::from_slice(&stored.source).unwrap_or_default(),
            }));
        }
        found.sort_by(|a, b| (&a.index, &a.id).cmp(&(&b.index, &b.id)));
        found
    }

    pub(crate) fn template(&self, name: &str) -> Option<&Value> {
        self.templates.get(name)
    }

    pub(crate) fn put_template(&mut self, name: &str, template: Value) {
        self.templates.insert(name.to_owned(), template);
    }

    pub(crate) fn delete_template(&mut self, name: &str) -> bool {
        self.templates.remove(name).is_some()
    }

    pub(crate) fn record_operations(&mut self) {
        self.operations.get_or_insert_default();
    }

    pub(crate) fn operations(&self) -> &[Operation] {
        self.operations.as_deref().unwrap_or_default()
    }
}

pub(crate) fn no_such_index(name: &str) -> Refusal {
    Refusal { status: 404, kind: "index_not_found_exception", reason: format!("no such index [{name}]") }
}

fn is_plain(part: &str) -> bool {
    !part.contains('*') && part != "_all" && !part.is_empty()
}

fn check_source(source: &[u8]) -> Result<&[u8], Refusal> {
    let is_object = source.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(source).is_ok();
    let broken =
        || Refusal { status: 400, kind: "mapper_parsing_exception", reason: "failed to parse: the document is no JSON object".to_owned() };
    is_object.then_some(source).ok_or_else(broken)
}

fn merged(old: &[u8], new: &[u8]) -> Vec<u8> {
    let read = |source| serde_json::from_slice::<serde_json::Map<String, Value>>(source).unwrap_or_default();
    let mut document = read(old);
    document.extend(read(new));
    serde_json::to_vec(&document).unwrap_or_default()
}

fn operation(write: Write<'_>, index: &str, id: &str, source: &[u8]) -> Operation {
    let kind = match write {
        Write::Index(_) => "index",
        Write::Create(_) => "create",
        Write::Upsert(_) => "update",
        Write::Delete => "delete",
    };
    let source = String::from_utf8_lossy(source).into_owned();
    Operation { kind: kind.to_owned(), index: index.to_owned(), id: id.to_owned(), source }
}

/// Whether a name fits an expression: comma lists, `*` for any text, `_all`.
pub(crate) fn matches(expression: &str, name: &str) -> bool {
    expression.split(',').any(|pattern| pattern == "_all" || fits(pattern.as_bytes(), name.as_bytes()))
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // On a mismatch the last star takes one byte more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            (p, n) = (p + 1, n + 1);
        } else if let Some((after, taken)) = star {
            (p, n) = (after, taken + 1);
            star = Some((after, taken + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*d", "abc", false),
            ("*", "", true),
            ("x,a*", "ab", true),
            ("_all", "z", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn writes_count_versions_and_keep_within_the_limit() {
        let mut store = Store::new(64);
        let results = [
            store.apply("i", "1", Write::Index(br#"{"a":1}"#), None),
            store.apply("i", "1", Write::Upsert(br#"{"b":2}"#), None),
            store.apply("i", "1", Write::Create(b"{}"), None),
            store.apply("i", "1", Write::Delete, None),
            store.apply("i", "1", Write::Delete, None),
            store.apply("i", "1", Write::Create(b"{}"), None),
            store.apply("i", "2", Write::Index(b"[1]"), None),
            store.apply("i", "3", Write::Index(format!("{{\"x\":\"{}\"}}", "y".repeat(64)).as_bytes()), None),
        ];
        let seen: Vec<_> = results.iter().map(|result| result.as_ref().map_or_else(|r| (r.status, 0), |w| (w.status, w.version))).collect();
        assert_eq!(seen, [(201, 1), (200, 2), (409, 0), (200, 3), (404, 1), (201, 1), (400, 0), (429, 0)]);
        assert_eq!(store.documents("*").len(), 1);
        assert_eq!(store.delete_indices("i"), 1);
        assert_eq!((store.bytes, store.documents("*").len()), (0, 0));
    }

    #[test]
    fn a_later_version_stands() {
        let mut store = Store::new(1 << 20);
        let mut status =
            |write, version| store.apply("i", "1", write, Some(version)).map_or_else(|refusal| refusal.status, |done| done.status);
        assert_eq!([status(Write::Index(b"{}"), 5), status(Write::Index(b"{}"), 4), status(Write::Index(b"{}"), 5)], [201, 409, 200]);
        assert_eq!([status(Write::Delete, 4), status(Write::Delete, 7), status(Write::Index(b"{}"), 6)], [409, 200, 409]);
        assert_eq!(status(Write::Index(b"{}"), 8), 201);
    }

    #[test]
    fn a_template_types_the_fields_of_a_new_index() {
        let mut store = Store::new(1 << 20);
        let template = |kind: &str, priority: u32| serde_json::json!({ "index_patterns": ["m-*"], "priority": priority, "template": { "mappings": { "properties": { "v": { "type": kind } } } } });
        store.put_template("low", template("keyword", 1));
        store.put_template("high", template("long", 2));
        assert_eq!(store.apply("m-1", "1", Write::Index(br#"{"v":"x"}"#), None).unwrap_err().status, 400);
        assert!(store.apply("n-1", "1", Write::Index(br#"{"v":"x"}"#), None).is_ok());
    }
}
