//! The rows of a batch as lines of `_bulk` bodies: an action line, then the document unless it is a delete. Rows with an id go to the lane of that id, so that all
//! writes of a document stay in order; rows without go to the lanes in turns. Rows that have no index or no possible id are rejected here. Called by `sink`.

use crate::{
    config::{Config, OpType},
    document::Rows,
    id::{self, Ids},
    index_name::IndexName,
    operation::{Action, Operation},
    plan::Plan,
    response::{Fault, Ours},
    text, version,
};
use arrow_array::RecordBatch;
use standpipe_sdk::{Error, Rejection, Result};
use std::hash::{DefaultHasher, Hasher};

/// Where an action line comes to its index and id.
pub(crate) const TARGET: &[u8] = b"\"_index\":";

/// The lines of some rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Items {
    pub(crate) bytes: Vec<u8>,
    /// Where each item ends in `bytes`.
    pub(crate) ends: Vec<usize>,
    /// The row of each item.
    pub(crate) rows: Vec<u32>,
}

/// A batch as lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// One per lane.
    pub(crate) lanes: Vec<Items>,
    pub(crate) rejected: Vec<Rejection>,
    /// Rows that need no item: `-U`, which the `+U` behind it replaces.
    pub(crate) ignored: usize,
    /// Rows that went to the fallback index.
    pub(crate) fallbacks: u64,
}

/// Room that is made for a lane in advance, bytes: rows may be much smaller than those of the batch before.
const MOST_ROOM: usize = 16 << 20;

/// Turns batches into lines.
pub(crate) struct Encoder {
    plan: Plan,
    index: IndexName,
    fallback: Option<String>,
    lanes: usize,
    /// Rows without an id that a lane gets before it is the next one's turn.
    block: usize,
    turn: usize,
    /// Of the last batch.
    bytes_per_row: usize,
}

impl Encoder {
    /// `plan` has its index: the configuration is resolved.
    pub(crate) fn new(mut plan: Plan, config: &Config) -> Result<Self> {
        let index = plan.index.take().ok_or_else(|| Error::config("index", "is not resolved"))?;
        let fallback = config.index_fallback.clone();
        Ok(Self { plan, index, fallback, lanes: config.in_flight.max(1), block: config.batch.max_docs, turn: 0, bytes_per_row: 0 })
    }

    /// What is ours of the documents.
    pub(crate) fn ours(&self) -> Ours {
        Ours { ids: !self.plan.id.is_empty(), versions: self.plan.operation.version.is_some() }
    }

    /// What becomes of rows.
    pub(crate) const fn operation(&self) -> Operation {
        self.plan.operation
    }

    /// The lines of a batch.
    pub(crate) fn encode(&mut self, batch: &RecordBatch) -> Result<Encoded> {
        let unfit = |why: String| Error::unsupported(why);
        let operation = self.plan.operation;
        let mut encoded = self.room_for(batch.num_rows());
        let documents = self.plan.layout.rows(batch).map_err(unfit)?;
        let ids = Ids::new(&self.plan.id, batch).map_err(unfit)?;
        let mut names = self.index.names(batch).map_err(unfit)?;
        let mut actions = operation.actions(self.plan.row_kind, batch).map_err(unfit)?;
        let versions = operation.version.map(|column| version::versions(batch.column(column))).transpose().map_err(unfit)?;
        let mut id = Vec::new();
        for row in 0..batch.num_rows() {
            let action = actions.of(row)?;
            if action == Action::Ignore {
                encoded.ignored += 1;
                continue;
            }
            let index = match (names.of(row), &self.fallback) {
                (Ok(name), _) => name,
                (Err(_), Some(fallback)) => {
                    encoded.fallbacks += 1;
                    fallback.as_bytes()
                }
                (Err(why), None) => {
                    encoded.rejected.push(rejection(row, "no_index_name", why.to_owned(), None));
                    continue;
                }
            };
            id.clear();
            ids.write(row, &mut id);
            let has_id = !self.plan.id.is_empty();
            if has_id && (id.is_empty() || id.len() > id::MAX_BYTES) {
                let why = format!("an id has 1 to {} bytes, not {}", id::MAX_BYTES, id.len());
                encoded.rejected.push(rejection(row, "no_document_id", why, Some(index)));
                continue;
            }
            let version = match versions.as_ref().map(|versions| versions(row)).transpose() {
                Ok(version) => version,
                Err(why) => {
                    encoded.rejected.push(rejection(row, "no_version", why.to_owned(), Some(index)));
                    continue;
                }
            };
            let lane = if has_id { lane_of(&id, self.lanes) } else { turn(&mut self.turn, self.block, self.lanes) };
            let items = &mut encoded.lanes[lane];
            action_line(&mut items.bytes, action, version, index, has_id.then_some(&id));
            document_line(&mut items.bytes, action, row, &documents);
            items.end(row);
        }
        let bytes: usize = encoded.lanes.iter().map(|items| items.bytes.len()).sum();
        self.bytes_per_row = bytes.checked_div(batch.num_rows()).unwrap_or(self.bytes_per_row);
        Ok(encoded)
    }

    /// Room for a batch like the last one, so that little is grown and little is left over.
    fn room_for(&self, rows: usize) -> Encoded {
        let share = rows / self.lanes + rows / self.lanes / 16;
        let items = || Items {
            bytes: Vec::with_capacity(share.saturating_mul(self.bytes_per_row).min(MOST_ROOM)),
            ends: Vec::with_capacity(share),
            rows: Vec::with_capacity(share),
        };
        Encoded { lanes: (0..self.lanes).map(|_| items()).collect(), ..Encoded::default() }
    }
}

impl Items {
    /// What was written since the last item is that of a row.
    fn end(&mut self, row: usize) {
        self.ends.push(self.bytes.len());
        #[allow(clippy::cast_possible_truncation, reason = "a batch has less than 2^32 rows")]
        self.rows.push(row as u32);
    }
}

/// `{"index":{"_index":"...","_id":"..."}}`; what else an action needs comes before its index, so that what follows is the same for all items of a document. An index name
/// has no characters that JSON escapes.
fn action_line(out: &mut Vec<u8>, action: Action, version: Option<u64>, index: &[u8], id: Option<&Vec<u8>>) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(action.verb().as_bytes());
    out.extend_from_slice(b"\":{");
    if let Some(version) = version {
        // Not `external`: a delete may have the version of the write before it.
        out.extend_from_slice(b"\"version_type\":\"external_gte\",\"version\":");
        text::integer(out, version);
        out.push(b',');
    }
    if action == Action::Write(OpType::Update) {
        // Another client's write in between is no reason to send it again.
        out.extend_from_slice(b"\"retry_on_conflict\":3,");
    }
    out.extend_from_slice(TARGET);
    out.extend_from_slice(b"\"");
    out.extend_from_slice(index);
    out.push(b'"');
    if let Some(id) = id {
        out.extend_from_slice(b",\"_id\":");
        text::json_string(out, id);
    }
    out.extend_from_slice(b"}}\n");
}

/// The document, if the action has one.
fn document_line(out: &mut Vec<u8>, action: Action, row: usize, documents: &Rows<'_>) {
    match action {
        Action::Write(OpType::Update) => {
            out.extend_from_slice(b"{\"doc\":");
            documents.write(row, out);
            out.extend_from_slice(b",\"doc_as_upsert\":true}\n");
        }
        Action::Write(_) => {
            documents.write(row, out);
            out.push(b'\n');
        }
        Action::Delete | Action::Ignore => {}
    }
}

fn lane_of(id: &[u8], lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(id);
    #[allow(clippy::cast_possible_truncation, reason = "the low bits are as good")]
    let hash = hasher.finish() as usize;
    hash % lanes
}

fn turn(turn: &mut usize, block: usize, lanes: usize) -> usize {
    let lane = *turn / block.max(1) % lanes;
    *turn = turn.wrapping_add(1);
    lane
}

fn rejection(row: usize, kind: &str, why: String, index: Option<&[u8]>) -> Rejection {
    let fault = Fault { status: 400, kind: kind.to_owned(), reason: why };
    let index = index.map(|index| String::from_utf8_lossy(index).into_owned());
    #[allow(clippy::cast_possible_truncation, reason = "a batch has less than 2^32 rows")]
    fault.rejection(row as u32, index.as_deref(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Array, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow_schema::{DataType, Field, Schema, TimeUnit};
    use serde_json::{Value, json};
    use standpipe_sdk::{
        SinkInput,
        wire::{ChangeMode, ROLE, ROLE_ROW_KIND},
    };
    use std::{collections::HashMap, sync::Arc};

    const DAY: i64 = 86_400_000;

    fn batch(mode: ChangeMode, rows: &[(&str, Option<&str>, Option<i64>, i64)]) -> RecordBatch {
        let role = HashMap::from([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())]);
        let mut fields = vec![Field::new("op", DataType::Utf8, false).with_metadata(role)];
        let mut columns: Vec<Arc<dyn Array>> = vec![Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))];
        if mode == ChangeMode::Append {
            fields.clear();
            columns.clear();
        }
        fields.push(Field::new("host", DataType::Utf8, true));
        fields.push(Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true));
        fields.push(Field::new("n", DataType::Int64, true));
        columns.push(Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()));
        columns.push(Arc::new(rows.iter().map(|row| row.2).collect::<TimestampMillisecondArray>()));
        columns.push(Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>()));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn encoder(mode: ChangeMode, more: Value) -> Encoder {
        let mut config = json!({ "hosts": ["http://a"], "index": "i" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(config).unwrap();
        let key = vec!["host".to_owned()];
        let input = SinkInput { node: "s".to_owned(), schema: batch(mode, &[]).schema(), mode, key, format: None };
        let plan = Plan::new(&config, &input).unwrap_or_else(|problems| panic!("{problems:?}"));
        Encoder::new(plan, &config).unwrap()
    }

    fn text(items: &Items) -> String {
        String::from_utf8(items.bytes.clone()).unwrap()
    }

    #[test]
    fn an_append_stream_becomes_lines_of_documents() {
        let mut encoder = encoder(ChangeMode::Append, json!({ "index": "s-{ts:%Y.%m.%d}", "id": ["host", "ts"], "in_flight": 1 }));
        let encoded =
            encoder.encode(&batch(ChangeMode::Append, &[("", Some("a\"|"), Some(0), 1), ("", Some("b"), Some(DAY), -2)])).unwrap();
        let expected = concat!(
            "{\"index\":{\"_index\":\"s-1970.01.01\",\"_id\":\"a\\\"\\\\||1970-01-01T00:00:00Z\"}}\n",
            "{\"host\":\"a\\\"|\",\"ts\":\"1970-01-01T00:00:00Z\",\"n\":1}\n",
            "{\"index\":{\"_index\":\"s-1970.01.02\",\"_id\":\"b|1970-01-02T00:00:00Z\"}}\n",
            "{\"host\":\"b\",\"ts\":\"1970-01-02T00:00:00Z\",\"n\":-2}\n",
        );
        assert_eq!(text(&encoded.lanes[0]), expected);
        assert_eq!((encoded.lanes[0].ends[1], &encoded.lanes[0].rows), (expected.len(), &vec![0, 1]));
    }

    #[test]
    fn an_upsert_stream_writes_and_deletes_by_id() {
        let mut encoder = encoder(ChangeMode::Upsert, json!({ "in_flight": 1 }));
        let rows = [("+I", Some("a"), None, 1), ("-U", Some("a"), None, 1), ("+U", Some("a"), None, 2), ("-D", Some("a"), None, 2)];
        let encoded = encoder.encode(&batch(ChangeMode::Upsert, &rows)).unwrap();
        let action = |verb: &str| format!("{{\"{verb}\":{{\"_index\":\"i\",\"_id\":\"a\"}}}}\n");
        let document = |n: i64| format!("{{\"host\":\"a\",\"ts\":null,\"n\":{n}}}\n");
        let expected = [action("index"), document(1), action("index"), document(2), action("delete")].concat();
        assert_eq!((text(&encoded.lanes[0]), encoded.ignored, &encoded.lanes[0].rows), (expected, 1, &vec![0, 2, 3]));
        assert!(encoder.encode(&batch(ChangeMode::Upsert, &[("?", None, None, 1)])).unwrap_err().message.contains("kind \"?\""));
    }

    #[test]
    fn updates_tombstones_and_versions_are_in_the_lines() {
        let rows = [("+I", Some("a"), Some(5), 1), ("-U", Some("a"), None, 2), ("+U", Some("a"), None, 2), ("-D", Some("a"), Some(7), 3)];
        let lines = |more: Value| {
            let encoded = encoder(ChangeMode::Upsert, more).encode(&batch(ChangeMode::Upsert, &rows)).unwrap();
            (text(&encoded.lanes[0]), encoded.rejected.iter().map(|rejection| rejection.row).collect::<Vec<_>>())
        };
        let (update, _) = lines(json!({ "in_flight": 1, "op_type": "update", "tombstone": "ts" }));
        let expected = concat!(
            "{\"update\":{\"retry_on_conflict\":3,\"_index\":\"i\",\"_id\":\"a\"}}\n",
            "{\"doc\":{\"host\":\"a\",\"ts\":\"1970-01-01T00:00:00.005Z\",\"n\":1},\"doc_as_upsert\":true}\n",
            "{\"delete\":{\"_index\":\"i\",\"_id\":\"a\"}}\n",
            "{\"delete\":{\"_index\":\"i\",\"_id\":\"a\"}}\n",
        );
        assert_eq!(update, expected);
        let (versioned, rejected) = lines(json!({ "in_flight": 1, "version": "column", "version_column": "ts" }));
        let expected = concat!(
            "{\"index\":{\"version_type\":\"external_gte\",\"version\":5000,\"_index\":\"i\",\"_id\":\"a\"}}\n",
            "{\"host\":\"a\",\"ts\":\"1970-01-01T00:00:00.005Z\",\"n\":1}\n",
            "{\"delete\":{\"version_type\":\"external_gte\",\"version\":7000,\"_index\":\"i\",\"_id\":\"a\"}}\n",
        );
        assert_eq!((versioned.as_str(), rejected), (expected, vec![2]));
    }

    #[test]
    fn rows_of_an_id_share_a_lane_and_rows_without_take_turns() {
        let hosts: Vec<String> = (0..100).map(|n| format!("h{}", n % 20)).collect();
        let rows: Vec<_> = hosts.iter().zip(0..).map(|(host, n)| ("", Some(host.as_str()), Some(0), n)).collect();
        let encoded =
            encoder(ChangeMode::Append, json!({ "id": ["host"], "in_flight": 4 })).encode(&batch(ChangeMode::Append, &rows)).unwrap();
        let mut lane_of = HashMap::new();
        for (lane, items) in encoded.lanes.iter().enumerate() {
            assert!(items.rows.is_sorted() && !items.rows.is_empty());
            for row in &items.rows {
                assert_eq!(*lane_of.entry(&hosts[*row as usize]).or_insert(lane), lane);
            }
        }
        let mut turns = encoder(ChangeMode::Append, json!({ "batch": { "max_docs": 30 }, "in_flight": 2 }));
        let lanes = |encoded: Encoded| encoded.lanes.iter().map(|items| items.rows.len()).collect::<Vec<_>>();
        assert_eq!(lanes(turns.encode(&batch(ChangeMode::Append, &rows)).unwrap()), [60, 40]);
        assert_eq!(lanes(turns.encode(&batch(ChangeMode::Append, &rows)).unwrap()), [50, 50]);
    }

    #[test]
    fn a_row_without_an_index_or_an_id_goes_to_the_fallback_or_is_rejected() {
        let long = "x".repeat(513);
        let rows =
            [("", Some("a"), None, 1), ("", Some(long.as_str()), Some(0), 2), ("", Some(""), Some(0), 3), ("", Some("b"), Some(0), 4)];
        let rows = batch(ChangeMode::Append, &rows);
        let encoded = encoder(ChangeMode::Append, json!({ "index": "s-{ts:%Y}", "id": ["host"], "in_flight": 1 })).encode(&rows).unwrap();
        let kinds: Vec<Value> =
            encoded.rejected.iter().map(|r| serde_json::from_str::<Value>(&r.details).unwrap()["type"].clone()).collect();
        assert_eq!(kinds, ["no_index_name", "no_document_id", "no_document_id"]);
        assert_eq!(encoded.rejected.iter().map(|r| r.row).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(encoded.lanes[0].rows, [3]);
        let encoded =
            encoder(ChangeMode::Append, json!({ "index": "s-{ts:%Y}", "index_fallback": "s-none", "in_flight": 1 })).encode(&rows).unwrap();
        assert_eq!((encoded.fallbacks, encoded.rejected.len(), encoded.lanes[0].rows.len()), (1, 0, 4));
        assert!(text(&encoded.lanes[0]).starts_with("{\"index\":{\"_index\":\"s-none\"}}\n"));
    }
}
