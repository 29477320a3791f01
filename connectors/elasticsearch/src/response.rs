//! What an answer to `_bulk` says about each item: done, to be sent again, or refused for good. A status of 200 says nothing by itself. Called by `sender`.
//!
//! Sent again: 429 and 5xx, blocked and closed indexes, missing privileges (of which `sender` makes an end as long as nothing was ever taken). Refused for good:
//! everything else with an error, such as a value that does not fit the mapping. A `create` of our own id that is there already is done: the row was
//! written by an earlier attempt; so is a write with a version of ours where the document has a later one, and a delete where there is nothing.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};
use standpipe_sdk::Rejection;
use std::fmt;

/// Why an item, or a request, was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: u16,
    /// Elasticsearch's name of the error.
    pub(crate) kind: String,
    pub(crate) reason: String,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    Retry(Box<Fault>),
    Rejected(Box<Fault>),
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One per item.
    Items(Vec<Fate>),
    /// 429: fewer and smaller requests, please.
    Busy(Fault),
    /// 401 and 403: the credentials.
    Denied(Fault),
    /// 400 and 413: some item makes the whole request unreadable or too large.
    Unreadable(Fault),
    /// 3xx, 404, 405, 501 and the like: nothing that takes `_bulk` is there, and asking again does not help.
    Foreign(Fault),
    /// A success that is no answer to `_bulk`.
    Garbled(Fault),
    /// Anything else: later.
    Failed(Fault),
}

/// The kind of a fault: no answer in time.
pub(crate) const TIMEOUT: &str = "timeout";
/// Characters of a text from outside that go into a message.
const LONGEST_TEXT: usize = 200;

impl Fault {
    pub(crate) fn new(status: u16, kind: &str, reason: impl Into<String>) -> Self {
        Self { status, kind: kind.to_owned(), reason: reason.into() }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.status == 429
    }

    /// The credentials, or what they or the index permit.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// The credentials, not an index that is read-only.
    pub(crate) fn is_security(&self) -> bool {
        self.status == 401 || self.kind == "security_exception"
    }

    /// As the host reports it.
    pub(crate) fn rejection(&self, row: u32, index: Option<&str>, id: Option<&str>) -> Rejection {
        let details = json!({ "status": self.status, "type": self.kind, "reason": self.reason, "index": index, "id": id });
        Rejection { row, reason: self.to_string(), details: details.to_string() }
    }

    /// From the `error` of an answer: an object, or with proxies a text.
    fn read(status: u16, error: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut reason = text(error, "reason").or_else(|| error.as_str().map(first_line)).unwrap_or_default();
        let mut cause = error.get("caused_by");
        while let Some(inner) = cause {
            if let Some(more) = text(inner, "reason").filter(|more| !reason.contains(more.as_str())) {
                reason.push_str(": ");
                reason.push_str(&more);
            }
            cause = inner.get("caused_by");
        }
        Self { status, kind: text(error, "type").unwrap_or_else(|| format!("status {status}")), reason }
    }

    fn is_temporary(&self) -> bool {
        let blocked = ["cluster_block_exception", "index_closed_exception", "security_exception"];
        matches!(self.status, 401 | 403 | 408 | 429 | 500..=599) || blocked.contains(&self.kind.as_str())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => f.write_str(&self.kind),
            reason => write!(f, "{}: {reason}", self.kind),
        }
    }
}

/// What is ours of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ours {
    /// The ids: a document that exists was written by us.
    pub(crate) ids: bool,
    /// The versions: a document that is newer was written from a later row.
    pub(crate) versions: bool,
}

/// Reads an answer to a request of so many items.
pub(crate) fn read(status: u16, body: &[u8], items: usize, ours: Ours) -> Answer {
    match status {
        200..=299 => match serde_json::from_slice::<Body>(body) {
            Ok(answer) if answer.items.len() == items => Answer::Items(answer.items.into_iter().map(|item| fate(item, ours)).collect()),
            Ok(answer) => {
                Answer::Garbled(Fault::new(status, "unreadable answer", format!("{} items answered of {items}", answer.items.len())))
            }
            Err(error) => Answer::Garbled(Fault::new(status, "unreadable answer", error.to_string())),
        },
        429 => Answer::Busy(whole(status, body)),
        401 | 403 => Answer::Denied(whole(status, body)),
        // A proxy's own 400 says nothing of the documents.
        400 if error_of(body).is_none() => Answer::Garbled(whole(status, body)),
        400 | 413 => Answer::Unreadable(whole(status, body)),
        408 => Answer::Failed(whole(status, body)),
        300..=499 | 501 | 505 => Answer::Foreign(whole(status, body)),
        _ => Answer::Failed(whole(status, body)),
    }
}

/// The error of an answer as a whole; from a proxy it may be no JSON.
pub(crate) fn whole(status: u16, body: &[u8]) -> Fault {
    match error_of(body) {
        Some(error) => Fault::read(status, &error),
        None => Fault { status, kind: format!("status {status}"), reason: first_line(&String::from_utf8_lossy(body)) },
    }
}

fn error_of(body: &[u8]) -> Option<Value> {
    match serde_json::from_slice(body).ok()? {
        Value::Object(mut answer) => answer.remove("error"),
        _ => None,
    }
}

/// The first line with something in it, cut: a proxy's page must not flood a log.
fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().chars().take(LONGEST_TEXT).collect()
}

fn fate(item: Item, ours: Ours) -> Fate {
    let Some(error) = item.error else { return Fate::Done };
    let fault = Fault::read(item.status, &error);
    match (item.action, item.status) {
        (Name::Create, 409) if ours.ids => Fate::Done,
        (Name::Index | Name::Delete, 409) if ours.versions => Fate::Done,
        // Another client writes the same document all the time.
        (Name::Update, 409) => Fate::Retry(Box::new(fault)),
        // What is not there needs no deleting.
        (Name::Delete, 404) => Fate::Done,
        _ if fault.is_temporary() => Fate::Retry(Box::new(fault)),
        _ => Fate::Rejected(Box::new(fault)),
    }
}

#[derive(Deserialize)]
struct Body {
    items: Vec<Item>,
}

/// `{"index": {"status": 201}}`: the object in it, whatever its name.
struct Item {
    action: Name,
    status: u16,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ItemBody {
    status: u16,
    #[serde(default)]
    error: Option<Value>,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one action")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Item, M::Error> {
                let Some((action, body)) = map.next_entry::<Name, ItemBody>()? else {
                    return Err(serde::de::Error::custom("an item without an action"));
                };
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Item { action, status: body.status, error: body.error })
            }
        }
        deserializer.deserialize_map(ItemVisitor)
    }
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Name {
    Index,
    Create,
    Update,
    Delete,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ours = Ours { ids: true, versions: false };

    fn fate_of(action: &str, status: u16, kind: &str, ids: bool) -> Fate {
        fate_with(action, status, kind, Ours { ids, versions: false })
    }

    fn fate_with(action: &str, status: u16, kind: &str, ours: Ours) -> Fate {
        let error = if kind.is_empty() {
            Value::Null
        } else {
            json!({ "type": kind, "reason": "r", "caused_by": { "type": "x", "reason": "deeper" } })
        };
        let body = json!({ "took": 1, "errors": true, "items": [{ action: { "_index": "i", "status": status, "error": error } }] });
        match read(200, body.to_string().as_bytes(), 1, ours) {
            Answer::Items(mut fates) => fates.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_item_has_its_own_fate() {
        assert_eq!(fate_of("index", 201, "", true), Fate::Done);
        assert_eq!(fate_of("delete", 404, "", true), Fate::Done);
        assert_eq!(fate_of("create", 409, "version_conflict_engine_exception", true), Fate::Done);
        for (action, status, kind, own_ids) in [
            ("index", 429, "es_rejected_execution_exception", true),
            ("index", 503, "unavailable_shards_exception", true),
            ("index", 500, "exception", true),
            ("index", 403, "cluster_block_exception", true),
            ("index", 403, "security_exception", true),
            ("index", 400, "index_closed_exception", true),
        ] {
            assert!(matches!(fate_of(action, status, kind, own_ids), Fate::Retry(_)), "{status} {kind}");
        }
        for (action, status, kind, own_ids) in [
            ("index", 400, "mapper_parsing_exception", true),
            ("index", 404, "index_not_found_exception", true),
            ("create", 409, "version_conflict_engine_exception", false),
            ("index", 409, "version_conflict_engine_exception", true),
        ] {
            let Fate::Rejected(fault) = fate_of(action, status, kind, own_ids) else { panic!("{status} {kind}") };
            assert_eq!(fault.to_string(), format!("{kind}: r: deeper"));
        }
    }

    #[test]
    fn a_conflict_is_no_failure_where_a_later_row_wrote_the_document() {
        let conflict = |action, ours| fate_with(action, 409, "version_conflict_engine_exception", ours);
        let versions = Ours { ids: true, versions: true };
        assert_eq!((conflict("index", versions), conflict("delete", versions)), (Fate::Done, Fate::Done));
        assert!(matches!(conflict("index", OURS), Fate::Rejected(_)) && matches!(conflict("delete", OURS), Fate::Rejected(_)));
        assert!(matches!(conflict("update", OURS), Fate::Retry(_)), "another client's write came in between");
        assert_eq!(fate_of("delete", 404, "index_not_found_exception", true), Fate::Done);
    }

    #[test]
    fn an_answer_as_a_whole() {
        let body = br#"{"error":{"type":"t","reason":"r"},"status":1}"#;
        let fault = |status| Fault::new(status, "t", "r");
        assert_eq!(read(429, body, 1, OURS), Answer::Busy(fault(429)));
        assert_eq!(read(401, body, 1, OURS), Answer::Denied(fault(401)));
        assert_eq!(read(403, body, 1, OURS), Answer::Denied(fault(403)));
        assert_eq!(read(413, body, 1, OURS), Answer::Unreadable(fault(413)));
        assert_eq!(read(400, body, 1, OURS), Answer::Unreadable(fault(400)));
        assert!(matches!(read(400, b"<html>Bad Request</html>", 1, OURS), Answer::Garbled(_)), "a proxy's own");
        assert_eq!(read(503, body, 1, OURS), Answer::Failed(fault(503)));
        assert_eq!(
            read(502, b"<html>Bad Gateway</html>", 1, OURS),
            Answer::Failed(Fault::new(502, "status 502", "<html>Bad Gateway</html>"))
        );
        assert_eq!(read(500, br#"{"error":"no handler"}"#, 1, OURS), Answer::Failed(Fault::new(500, "status 500", "no handler")));
        assert_eq!(read(408, body, 1, OURS), Answer::Failed(fault(408)));
    }

    #[test]
    fn what_does_not_know_bulk_is_not_asked_again() {
        for status in [301, 302, 307, 308, 404, 405, 406, 410, 415, 501, 505] {
            assert_eq!(read(status, b"", 1, OURS), Answer::Foreign(Fault::new(status, &format!("status {status}"), "")), "{status}");
        }
        for status in [408, 500, 502, 503, 504] {
            assert!(matches!(read(status, b"", 1, OURS), Answer::Failed(_)), "{status}");
        }
    }

    #[test]
    fn a_page_is_cut_to_its_first_line() {
        assert_eq!(whole(404, b"\r\n  <!DOCTYPE html>\n<html>\n<body>\n").to_string(), "status 404: <!DOCTYPE html>");
        assert_eq!(whole(502, "\u{e4}".repeat(3_000).as_bytes()).reason, "\u{e4}".repeat(LONGEST_TEXT));
        assert_eq!(whole(500, br#"{"error":"one\ntwo"}"#).reason, "one");
    }

    #[test]
    fn an_answer_that_does_not_fit_is_no_success() {
        for body in [&br#"{"items":[]}"#[..], b"", b"{}", br#"{"items":[{}]}"#, br#"{"items":[{"index":{}}]}"#] {
            assert!(matches!(read(200, body, 1, OURS), Answer::Garbled(_)), "{}", String::from_utf8_lossy(body));
        }
    }
}
