//! `_bulk`: the newline-delimited body into items, the items into the store, and the answer item by item. A body that cannot be read is refused as a whole, as
//! Elasticsearch does. Called by `server`; `proxy` uses the reading and the answers of faulted items.

use crate::{
    Faults,
    faults::Refusal,
    store::{Store, Write},
};
use serde::{Deserialize, Serialize, ser::SerializeMap};
use std::borrow::Cow;

/// Bytes of an id at most, as in Elasticsearch.
const MAX_ID_BYTES: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Index,
    Create,
    Update,
    Delete,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// An action and its document.
#[derive(Debug, PartialEq)]
pub(crate) struct Item<'a> {
    pub(crate) kind: Kind,
    pub(crate) index: Cow<'a, str>,
    pub(crate) id: Option<Cow<'a, str>>,
    /// The client's own (`external_gte`).
    pub(crate) version: Option<u64>,
    /// Empty for a delete.
    pub(crate) source: &'a [u8],
    /// Both lines, with their newlines.
    pub(crate) lines: &'a [u8],
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action<'a> {
    #[serde(borrow)]
    Index(Target<'a>),
    Create(Target<'a>),
    Update(Target<'a>),
    Delete(Target<'a>),
}

#[derive(Deserialize)]
struct Target<'a> {
    #[serde(borrow, rename = "_index")]
    index: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "_id")]
    id: Option<Cow<'a, str>>,
    version: Option<u64>,
    #[serde(borrow)]
    version_type: Option<Cow<'a, str>>,
}

/// Reads a body. `index` is that of the path, for items that name none.
pub(crate) fn read<'a>(body: &'a [u8], index: Option<&'a str>) -> Result<Vec<Item<'a>>, Refusal> {
    let wrong = |reason: String| Refusal { status: 400, kind: "illegal_argument_exception", reason };
    if body.last() != Some(&b'\n') {
        return Err(wrong("The bulk request must be terminated by a newline [\\n]".to_owned()));
    }
    let (mut items, mut at) = (Vec::new(), 0);
    while let Some(action) = line(body, at) {
        let start = at;
        at += action.len() + 1;
        if action.trim_ascii().is_empty() {
            continue;
        }
        let malformed = |error| wrong(format!("Malformed action/metadata line [{}]: {error}", items.len() + 1));
        let (kind, target) = match serde_json::from_slice(action).map_err(malformed)? {
            Action::Index(target) => (Kind::Index, target),
            Action::Create(target) => (Kind::Create, target),
            Action::Update(target) => (Kind::Update, target),
            Action::Delete(target) => (Kind::Delete, target),
        };
        let source = if kind == Kind::Delete { &[] } else { line(body, at).ok_or_else(|| wrong("a document is missing".to_owned()))? };
        at += if kind == Kind::Delete { 0 } else { source.len() + 1 };
        let invalid = |reason: String| Refusal { status: 400, kind: "action_request_validation_exception", reason };
        let index =
            target.index.or(index.map(Cow::Borrowed)).ok_or_else(|| invalid("Validation Failed: 1: index is missing;".to_owned()))?;
        match &target.id {
            Some(id) if id.len() > MAX_ID_BYTES => {
                return Err(invalid(format!(
                    "Validation Failed: 1: id is too long, must be no longer than 512 bytes but was: {};",
                    id.len()
                )));
            }
            None if matches!(kind, Kind::Update | Kind::Delete) => return Err(invalid("Validation Failed: 1: id is missing;".to_owned())),
            _ => {}
        }
        let is_versioned = target.version.is_some() || target.version_type.is_some();
        if is_versioned && (target.version_type.as_deref() != Some("external_gte") || !matches!(kind, Kind::Index | Kind::Delete)) {
            return Err(invalid(
                "Validation Failed: 1: the stand-in knows versions of type external_gte of index and delete only;".to_owned(),
            ));
        }
        items.push(Item { kind, index, id: target.id, version: target.version, source, lines: &body[start..at] });
    }
    if items.is_empty() {
        return Err(Refusal {
            status: 400,
            kind: "action_request_validation_exception",
            reason: "Validation Failed: 1: no requests added;".to_owned(),
        });
    }
    Ok(items)
}

/// The line at `at`, without its newline.
fn line(body: &[u8], at: usize) -> Option<&[u8]> {
    let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    Some(&rest[..end])
}

/// The answer to a request.
#[derive(Serialize)]
struct Answer<'a> {
    took: u64,
    errors: bool,
    items: Vec<ItemAnswer<'a>>,
}

/// The answer to an item: `{"index": {"_index": ..., "status": 201, ...}}`.
pub(crate) struct ItemAnswer<'a> {
    kind: Kind,
    body: ItemBody<'a>,
}

#[derive(Serialize)]
struct ItemBody<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: Option<Cow<'a, str>>,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(rename = "_seq_no", skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

#[derive(Serialize)]
struct ItemError {
    #[serde(rename = "type")]
    kind: &'static str,
    reason: String,
}

impl Serialize for ItemAnswer<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.kind.name(), &self.body)?;
        map.end()
    }
}

/// The answer to an item that is not applied.
pub(crate) fn refused<'a>(item: &'a Item<'_>, refusal: Refusal) -> ItemAnswer<'a> {
    let error = Some(ItemError { kind: refusal.kind, reason: refusal.reason });
    let id = item.id.as_deref().map(Cow::Borrowed);
    let body = ItemBody { index: &item.index, id, version: None, result: None, sequence: None, status: refusal.status, error };
    ItemAnswer { kind: item.kind, body }
}

/// Applies what is not faulted and gives the answer as JSON.
pub(crate) fn apply(store: &mut Store, faults: &Faults, request: u64, items: &[Item<'_>]) -> Vec<u8> {
    let mut answers = Vec::with_capacity(items.len());
    for (number, item) in items.iter().enumerate() {
        let done = match faults.refusal(request, number as u64, &item.index, item.source) {
            Some(refusal) => Err(refusal),
            None => apply_item(store, item),
        };
        answers.push(done.unwrap_or_else(|refusal| refused(item, refusal)));
    }
    let errors = answers.iter().any(|answer| answer.body.error.is_some());
    serde_json::to_vec(&Answer { took: 0, errors, items: answers }).unwrap_or_default()
}

fn apply_item<'a>(store: &mut Store, item: &'a Item<'_>) -> Result<ItemAnswer<'a>, Refusal> {
    let id = item.id.as_deref().map_or_else(|| Cow::Owned(store.new_id()), Cow::Borrowed);
    let document;
    let write = match item.kind {
        Kind::Index => Write::Index(item.source),
        Kind::Create => Write::Create(item.source),
        Kind::Update => {
            document = upsert(item.source)?;
            Write::Upsert(document.as_bytes())
        }
        Kind::Delete => Write::Delete,
    };
    let done = store.apply(&item.index, &id, write, item.version)?;
    let (version, sequence, result) = (Some(done.version), Some(done.sequence), Some(done.result));
    let body = ItemBody { index: &item.index, id: Some(id), version, result, sequence, status: done.status, error: None };
    Ok(ItemAnswer { kind: item.kind, body })
}

/// The document of an update; only `{"doc": {...}, "doc_as_upsert": true}` is known.
fn upsert(source: &[u8]) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct Update {
        doc: serde_json::Map<String, serde_json::Value>,
        doc_as_upsert: bool,
    }
    let read = serde_json::from_slice::<Update>(source).ok().filter(|update| update.doc_as_upsert);
    let document = read.and_then(|update| serde_json::to_string(&update.doc).ok());
    let reason = "the stand-in knows updates with doc and doc_as_upsert: true only";
    document.ok_or_else(|| Refusal { status: 400, kind: "illegal_argument_exception", reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(store: &mut Store, faults: &Faults, body: &str) -> Value {
        let items = read(body.as_bytes(), Some("d")).unwrap();
        serde_json::from_slice(&apply(store, faults, 1, &items)).unwrap()
    }

    #[test]
    fn items_are_applied_in_order_and_answered_one_by_one() {
        let mut store = Store::new(1 << 20);
        let body = concat!(
            "{\"index\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"v\":1}\n",
            "{\"create\":{\"_id\":\"x\"}}\n{\"v\":2}\n",
            "{\"update\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"doc\":{\"w\":3},\"doc_as_upsert\":true}\n",
            "{\"delete\":{\"_index\":\"a\",\"_id\":\"9\"}}\n",
            "{\"create\":{\"_id\":\"x\"}}\n{\"v\":4}\n",
            "{\"index\":{}}\nnonsense\n",
        );
        let answer = run(&mut store, &Faults::default(), body);
        let statuses: Vec<_> = answer["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item.as_object().unwrap().values().next().unwrap()["status"].clone())
            .collect();
        assert_eq!(statuses, [201, 201, 200, 404, 409, 400]);
        assert_eq!(answer["errors"], true);
        assert_eq!(answer["items"][2]["update"]["_version"], 2);
        assert_eq!(answer["items"][4]["create"]["error"]["type"], "version_conflict_engine_exception");
        let sources: Vec<_> = store.documents("*").into_iter().map(|d| (d.index, d.id, d.source)).collect();
        assert_eq!(sources, [("a".into(), "1".into(), json!({"v": 1, "w": 3})), ("d".into(), "x".into(), json!({"v": 2}))]);
    }

    #[test]
    fn refused_items_are_not_applied() {
        let mut store = Store::new(1 << 20);
        let faults = Faults { busy_items: 1.0, ..Faults::default() };
        let answer = run(&mut store, &faults, "{\"index\":{\"_id\":\"1\"}}\n{}\n");
        assert_eq!(answer["items"][0]["index"]["status"], 429);
        let faults = Faults { refused_indices: vec!["d*".to_owned()], ..Faults::default() };
        let answer = run(&mut store, &faults, "{\"index\":{\"_id\":\"1\"}}\n{}\n");
        assert_eq!(answer["items"][0]["index"]["error"]["type"], "cluster_block_exception");
        assert!(store.documents("*").is_empty());
    }

    #[test]
    fn a_broken_body_is_refused_as_a_whole() {
        let refused = |body: &str| read(body.as_bytes(), None).unwrap_err().reason;
        assert!(refused("{\"index\":{\"_index\":\"a\"}}\n{}").contains("newline"));
        assert!(refused("{\"index\":{}}\n{}\n").contains("index is missing"));
        assert!(refused("{\"index\":{\"_index\":\"a\"}}\n").contains("document is missing"));
        assert!(refused("{\"drop\":{}}\n{}\n").contains("Malformed action"));
        assert!(refused("{\"delete\":{\"_index\":\"a\"}}\n").contains("id is missing"));
        assert!(refused(&format!("{{\"index\":{{\"_index\":\"a\",\"_id\":\"{}\"}}}}\n{{}}\n", "i".repeat(513))).contains("too long"));
        assert!(refused("\n").contains("no requests"));
    }
}
