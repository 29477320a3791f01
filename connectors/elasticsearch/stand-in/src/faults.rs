//! Which requests and items go wrong, decided by a seed, the number of the bulk request and the number of the item: the same run fails in the same way, and a
//! repeated item is decided anew. Called by `server` and `bulk`; it decides, others act.

use crate::store::matches;
use serde_json::Value;
use std::time::Duration;

/// Faults to inject; the default is none.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The decisions follow from it.
    pub seed: u64,
    /// Every n-th bulk request is answered 429 as a whole, nothing applied; 0 means none.
    pub busy_every: u64,
    /// The share of items answered 429 `es_rejected_execution_exception`, not applied.
    pub busy_items: f64,
    /// The share of items answered 503 `unavailable_shards_exception`, not applied.
    pub unavailable_items: f64,
    /// The share of bulk requests whose connection is closed before anything is applied.
    pub cut_before_apply: f64,
    /// The share of bulk requests that are applied, after which the connection is closed instead of an answer.
    pub cut_after_apply: f64,
    /// Every answer waits so long.
    pub latency: Duration,
    /// Indexes (patterns with `*`) whose items are answered 403 `cluster_block_exception`, not applied.
    pub refused_indices: Vec<String>,
    /// Fields of a fixed type: another value is answered 400, as by a mapping.
    pub field_types: Vec<FieldType>,
    /// The `authorization` header that is asked for, else 401.
    pub authorization: Option<String>,
    /// Bodies above it are answered 413; at most [`crate::MAX_BODY_BYTES`].
    pub max_body_bytes: Option<usize>,
}

/// A field of a fixed type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldType {
    /// The indexes: a name or a pattern with `*`.
    pub index: String,
    /// A top-level field.
    pub field: String,
    /// `long`, `integer`, `short`, `byte`, `unsigned_long`, `double`, `float`, `date`, `boolean`, `keyword` or `text`; anything fits another type.
    pub kind: String,
}

/// Why an item was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
}

impl Faults {
    /// Whether the bulk request of that number (from 1) is answered 429.
    pub(crate) fn is_busy(&self, request: u64) -> bool {
        self.busy_every > 0 && request.is_multiple_of(self.busy_every)
    }

    /// Whether the connection is closed before anything of the request is applied.
    pub(crate) fn is_cut_before(&self, request: u64) -> bool {
        self.share(request, u64::MAX - 1) < self.cut_before_apply
    }

    /// Whether the connection is closed after the request was applied.
    pub(crate) fn is_cut(&self, request: u64) -> bool {
        self.share(request, u64::MAX) < self.cut_after_apply
    }

    /// Why the item of that number is not applied.
    pub(crate) fn refusal(&self, request: u64, item: u64, index: &str, source: &[u8]) -> Option<Refusal> {
        if self.refused_indices.iter().any(|pattern| matches(pattern, index)) {
            let reason = format!("index [{index}] blocked by: [FORBIDDEN/8/index write (api)];");
            return Some(Refusal { status: 403, kind: "cluster_block_exception", reason });
        }
        let share = self.share(request, item);
        if share < self.busy_items {
            let reason = "rejected execution of coordinating operation (injected by the stand-in)".to_owned();
            return Some(Refusal { status: 429, kind: "es_rejected_execution_exception", reason });
        }
        if share < self.busy_items + self.unavailable_items {
            let reason = format!("[{index}][0] primary shard is not active (injected by the stand-in)");
            return Some(Refusal { status: 503, kind: "unavailable_shards_exception", reason });
        }
        conflict(self.field_types.iter().filter(|rule| matches(&rule.index, index)), source)
    }

    /// A number in [0, 1) that looks random: the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    fn share(&self, request: u64, item: u64) -> f64 {
        let mut x = self.seed ^ request.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ item.wrapping_mul(0xD1B5_4A32_D192_ED03);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
        let share = (x >> 11) as f64 / (1_u64 << 53) as f64;
        share
    }
}

/// The first field whose value does not fit its type, as Elasticsearch would say it.
pub(crate) fn conflict<'a>(rules: impl Iterator<Item = &'a FieldType>, source: &[u8]) -> Option<Refusal> {
    let mut rules = rules.peekable();
    rules.peek()?;
    let source: Value = serde_json::from_slice(source).ok()?;
    let wrong = rules.find(|rule| source.get(&rule.field).is_some_and(|value| !fits(value, &rule.kind)))?;
    let value = &source[&wrong.field];
    let reason = format!("failed to parse field [{}] of type [{}]: the value is {value}", wrong.field, wrong.kind);
    Some(Refusal { status: 400, kind: "mapper_parsing_exception", reason })
}

/// Whether a value can be indexed in a field of that type; null always can, an array if each item can.
fn fits(value: &Value, kind: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().is_ok();
    match (value, kind) {
        (Value::Null, _) => true,
        (Value::Array(items), kind) => items.iter().all(|item| fits(item, kind)),
        (value, "long" | "integer" | "short" | "byte" | "unsigned_long" | "double" | "float" | "half_float") => {
            value.is_number() || value.as_str().is_some_and(number)
        }
        (value, "date") => value.is_number() || value.as_str().is_some_and(is_date),
        (value, "boolean") => value.is_boolean() || matches!(value.as_str(), Some("true" | "false" | "")),
        (value, "keyword" | "text") => !value.is_object(),
        _ => true,
    }
}

/// `YYYY-MM-DD`, perhaps with a time after a `T`: the start of `strict_date_optional_time`.
fn is_date(text: &str) -> bool {
    let (date, time) = text.split_once('T').unwrap_or((text, "00"));
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape == "9999-99-99" && time.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_repeat_and_keep_their_share() {
        let faults = Faults { seed: 7, busy_items: 0.1, unavailable_items: 0.1, busy_every: 3, ..Faults::default() };
        let refused =
            |request| (0..10_000).filter_map(|item| faults.refusal(request, item, "a", b"{}").map(|r| r.status)).collect::<Vec<_>>();
        assert_eq!(refused(1), refused(1));
        assert_ne!(refused(1), refused(2));
        let busy = refused(1).iter().filter(|status| **status == 429).count();
        assert!((800..1200).contains(&busy), "{busy}");
        assert_eq!((1..=6).filter(|n| faults.is_busy(*n)).collect::<Vec<_>>(), [3, 6]);
    }

    #[test]
    fn a_value_of_another_type_is_a_conflict() {
        let rule = |kind: &str| [FieldType { index: "a*".to_owned(), field: "v".to_owned(), kind: kind.to_owned() }];
        let refused = |kind: &str, source: &str| conflict(rule(kind).iter(), source.as_bytes()).is_some();
        assert!(refused("long", r#"{"v":"x"}"#) && refused("date", r#"{"v":"yesterday"}"#) && refused("keyword", r#"{"v":{}}"#));
        assert!(
            !refused("long", r#"{"v":"12"}"#) && !refused("date", r#"{"v":"2026-01-02T03:04:05Z"}"#) && !refused("long", r#"{"w":"x"}"#)
        );
        assert!(!refused("long", r#"{"v":[1,null]}"#) && refused("boolean", r#"{"v":[true,1]}"#));
    }
}
