//! `_search` and `_count`: match_all, term and bool.filter of terms; sort by fields, search_after, size and from. Values are compared as they are in the documents
//! (dates as text). What it does not know it refuses, so that no test takes a wrong answer for a right one.

use crate::{
    faults::Refusal,
    store::{Index, Stored},
};
use serde_json::{Value, json};
use std::cmp::Ordering;

/// `from` + `size` at most, as Elasticsearch's `index.max_result_window`.
const MAX_WINDOW: u64 = 10_000;
const KNOWN: [&str; 7] = ["size", "from", "query", "sort", "search_after", "track_total_hits", "_source"];

struct Hit<'a> {
    index: &'a str,
    id: &'a str,
    stored: &'a Stored,
    source: Value,
    sort: Vec<Value>,
}

struct SortKey {
    field: String,
    descending: bool,
}

type Term = (String, Value);

/// How many documents match.
pub(crate) fn count(indices: &[(&str, &Index)], request: &Value) -> Result<Value, Refusal> {
    let terms = terms(request.get("query"))?;
    let matching = hits(indices, &terms, &[]).len();
    Ok(json!({ "count": matching, "_shards": shards(indices) }))
}

/// The page that was asked for.
pub(crate) fn search(indices: &[(&str, &Index)], request: &Value) -> Result<Value, Refusal> {
    if let Some(unknown) = request.as_object().and_then(|members| members.keys().find(|key| !KNOWN.contains(&key.as_str()))) {
        return Err(unsupported(&format!("unknown key [{unknown}]")));
    }
    let number = |key: &str, default: u64| request.get(key).map_or(Some(default), Value::as_u64).ok_or_else(|| unsupported(key));
    let (size, from) = (number("size", 10)?, number("from", 0)?);
    if size.saturating_add(from) > MAX_WINDOW {
        return Err(unsupported(&format!("Result window is too large, from + size must be less than or equal to: [{MAX_WINDOW}]")));
    }
    let keys = sort_keys(request.get("sort"))?;
    let mut found = hits(indices, &terms(request.get("query"))?, &keys);
    let total = found.len();
    found.sort_by(|a, b| {
        compare_keys(&a.sort, &b.sort, &keys).then_with(|| (a.index, a.stored.sequence).cmp(&(b.index, b.stored.sequence)))
    });
    if let Some(after) = request.get("search_after") {
        let after = after
            .as_array()
            .filter(|after| after.len() == keys.len())
            .ok_or_else(|| unsupported("search_after must have one value per sort key"))?;
        found.retain(|hit| compare_keys(&hit.sort, after, &keys) == Ordering::Greater);
    }
    let window = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let page = found.into_iter().skip(window(from)).take(window(size)).map(|hit| {
        let mut answer =
            json!({ "_index": hit.index, "_id": hit.id, "_version": hit.stored.version, "_score": null, "_source": hit.source });
        if !keys.is_empty() {
            answer["sort"] = Value::Array(hit.sort);
        }
        answer
    });
    let page: Vec<Value> = page.collect();
    Ok(json!({
        "took": 0,
        "timed_out": false,
        "_shards": shards(indices),
        "hits": { "total": { "value": total, "relation": "eq" }, "max_score": null, "hits": page },
    }))
}

fn shards(indices: &[(&str, &Index)]) -> Value {
    json!({ "total": indices.len(), "successful": indices.len(), "skipped": 0, "failed": 0 })
}

fn hits<'a>(indices: &[(&'a str, &'a Index)], terms: &[Term], keys: &[SortKey]) -> Vec<Hit<'a>> {
    let mut found = Vec::new();
    for (index, contents) in indices {
        for (id, stored) in &contents.documents {
            let source: Value = serde_json::from_slice(&stored.source).unwrap_or_default();
            if terms.iter().all(|(field, wanted)| has(&value_at(&source, id, field), wanted)) {
                let sort = keys.iter().map(|key| value_at(&source, id, &key.field)).collect();
                found.push(Hit { index, id, stored, sort, source });
            }
        }
    }
    found
}

/// A field, perhaps nested (`a.b`), or `_id`; `.keyword` of a text is the text. Null if there is none.
fn value_at(source: &Value, id: &str, field: &str) -> Value {
    if field == "_id" {
        return id.into();
    }
    let field = field.strip_suffix(".keyword").unwrap_or(field);
    let value = source.get(field).or_else(|| field.split('.').try_fold(source, |value, name| value.get(name)));
    value.cloned().unwrap_or_default()
}

fn has(value: &Value, wanted: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has(item, wanted)),
        Value::Null => false,
        value => compare(value, wanted) == Ordering::Equal,
    }
}

fn terms(query: Option<&Value>) -> Result<Vec<Term>, Refusal> {
    let Some(query) = query else { return Ok(Vec::new()) };
    let only = query.as_object().filter(|query| query.len() == 1).and_then(|query| query.iter().next());
    match only {
        Some((name, _)) if name == "match_all" => Ok(Vec::new()),
        Some((name, Value::Object(fields))) if name == "term" => {
            let value = |wanted: &Value| wanted.get("value").unwrap_or(wanted).clone();
            Ok(fields.iter().map(|(field, wanted)| (field.clone(), value(wanted))).collect())
        }
        Some((name, Value::Object(clauses))) if name == "bool" => match (clauses.len(), clauses.get("filter")) {
            (1, Some(Value::Array(filters))) => {
                let all: Result<Vec<_>, _> = filters.iter().map(|filter| terms(Some(filter))).collect();
                Ok(all?.into_iter().flatten().collect())
            }
            (1, Some(filter)) => terms(Some(filter)),
            _ => Err(unsupported("of bool the stand-in knows filter only")),
        },
        _ => Err(unsupported("the stand-in knows the queries match_all, term and bool")),
    }
}

fn sort_keys(sort: Option<&Value>) -> Result<Vec<SortKey>, Refusal> {
    let list = match sort {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
    };
    let wrong = || unsupported("a sort key is a field or {field: asc | desc}");
    let key = |entry: &Value| match entry {
        Value::String(field) => Ok(SortKey { field: field.clone(), descending: false }),
        Value::Object(fields) if fields.len() == 1 => {
            let (field, order) = fields.iter().next().ok_or_else(wrong)?;
            match order.get("order").unwrap_or(order).as_str() {
                Some(order @ ("asc" | "desc")) => Ok(SortKey { field: field.clone(), descending: order == "desc" }),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    };
    list.iter().map(key).collect()
}

fn compare_keys(a: &[Value], b: &[Value], keys: &[SortKey]) -> Ordering {
    let each = keys.iter().zip(a.iter().zip(b)).map(|(key, (a, b))| match (a.is_null(), b.is_null()) {
        // Without a value last, in either direction.
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ if key.descending => compare(b, a),
        _ => compare(a, b),
    });
    each.fold(Ordering::Equal, Ordering::then)
}

fn compare(a: &Value, b: &Value) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.cmp(&b);
    }
    if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) {
        return a.total_cmp(&b);
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

const fn rank(value: &Value) -> u8 {
    match value {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn unsupported(reason: &str) -> Refusal {
    Refusal { status: 400, kind: "parsing_exception", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, Write};

    fn store() -> Store {
        let mut store = Store::new(1 << 20);
        for (id, host, v) in
            [("1", "a", json!(3)), ("2", "b", json!(1.5)), ("3", "a", json!(null)), ("4", "a", json!(7)), ("5", "b", json!(3))]
        {
            let source = json!({ "host": host, "v": v, "n": { "id": id } }).to_string();
            store.apply("m-1", id, Write::Index(source.as_bytes()), None).unwrap();
        }
        store
    }

    fn ids(store: &Store, request: Value) -> Vec<String> {
        let answer = search(&store.select("m-*").unwrap(), &request).unwrap();
        answer["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn documents_are_filtered_sorted_and_paged() {
        let store = store();
        assert_eq!(ids(&store, json!({})), ["1", "2", "3", "4", "5"]);
        assert_eq!(ids(&store, json!({ "query": { "term": { "host.keyword": "a" } } })), ["1", "3", "4"]);
        let both = json!({ "query": { "bool": { "filter": [{ "term": { "host": { "value": "b" } } }, { "term": { "v": 3 } }] } } });
        assert_eq!(ids(&store, both), ["5"]);
        assert_eq!(ids(&store, json!({ "query": { "term": { "_id": "2" } } })), ["2"]);
        assert_eq!(ids(&store, json!({ "query": { "term": { "n.id": "4" } } })), ["4"]);
        let sort = json!([{ "v": "desc" }, { "_id": { "order": "asc" } }]);
        assert_eq!(ids(&store, json!({ "sort": sort })), ["4", "1", "5", "2", "3"]);
        assert_eq!(ids(&store, json!({ "sort": sort, "search_after": [3, "1"], "size": 2 })), ["5", "2"]);
        assert_eq!(ids(&store, json!({ "from": 4, "size": 5 })), ["5"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let store = store();
        let indices = store.select("m-1").unwrap();
        for request in
            [json!({ "aggs": {} }), json!({ "query": { "match": { "a": 1 } } }), json!({ "size": 20_000 }), json!({ "sort": [3] })]
        {
            assert_eq!(search(&indices, &request).unwrap_err().status, 400, "{request}");
        }
        assert_eq!(store.select("missing").unwrap_err().kind, "index_not_found_exception");
        assert!(store.select("missing-*").unwrap().is_empty());
        assert_eq!(count(&indices, &json!({ "query": { "term": { "v": 3 } } })).unwrap()["count"], 2);
    }
}
