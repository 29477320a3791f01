//! What rows do to documents: the verbs of the action lines, tombstones, external versions, data streams; checked against the input without I/O. Part of `plan`, used by
//! `bulk`.

use crate::{
    config::{Config, OpType, Version},
    document::{self, Cell},
    plan::{problem, suggest},
    version,
};
use arrow_array::{Array, RecordBatch};
use standpipe_sdk::{
    Error, Result, SinkInput,
    wire::{ChangeMode, Problem, ROLE, ROLE_POSITION},
};

/// The column of a data stream's times.
const TIMESTAMP: &str = "@timestamp";

/// How rows become actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    /// What a row does that is no deletion.
    pub(crate) op_type: OpType,
    /// The column of which a null deletes.
    pub(crate) tombstone: Option<usize>,
    /// The column of the version.
    pub(crate) version: Option<usize>,
}

/// What an item does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Write(OpType),
    Delete,
    /// Nothing to send.
    Ignore,
}

impl Operation {
    /// Adds what is wrong to the problems.
    pub(crate) fn new(config: &Config, input: &SinkInput, has_id: bool, problems: &mut Vec<Problem>) -> Self {
        let op_type = config.op();
        let mut wrong = |path: &str, message: &str| problems.push(problem(path, message.to_owned()));
        let only_appends = matches!(op_type, OpType::Create | OpType::Delete);
        if config.data_stream {
            if input.mode == ChangeMode::Upsert {
                wrong("data_stream", "a data stream takes no changes: it does not fit an upsert stream");
            }
            if op_type != OpType::Create {
                wrong("op_type", "a data stream takes create alone");
            }
            if config.tombstone.is_some() {
                wrong("tombstone", "a data stream deletes nothing");
            }
        } else if input.mode == ChangeMode::Upsert && only_appends {
            wrong("op_type", "an upsert stream replaces and deletes documents: index or update fits");
        }
        if !has_id && matches!(op_type, OpType::Update | OpType::Delete) {
            wrong("id", "is missing; update and delete need the columns of the id");
        }
        if !has_id && config.tombstone.is_some() {
            wrong("id", "is missing; tombstone needs the columns of the id");
        }
        if config.version != Version::None {
            if !matches!(op_type, OpType::Index | OpType::Delete) {
                wrong("version", "create and update have the server's versions alone");
            }
            if !has_id {
                wrong("id", "is missing; version needs the columns of the id");
            }
        }
        if config.data_stream {
            timestamp(input, problems);
        }
        let tombstone = config.tombstone.as_ref().and_then(|name| column("tombstone", name, input, problems));
        Self { op_type, tombstone, version: version_column(config, input, problems) }
    }

    /// What the rows of a batch do. `row_kind` is the column of their kinds.
    pub(crate) fn actions(self, row_kind: Option<usize>, batch: &RecordBatch) -> Result<Actions<'_>, String> {
        let kinds = row_kind.map(|column| document::plain(batch.column(column))).transpose()?;
        let nulls = self.tombstone.and_then(|column| batch.column(column).logical_nulls());
        let is_tombstone = nulls.map(|nulls| Box::new(move |row| nulls.is_null(row)) as Box<dyn Fn(usize) -> bool>);
        Ok(Actions { operation: self, kinds, is_tombstone, kind: Vec::new() })
    }

    /// What the rows of a kind do; `None`: there is no such kind.
    fn action(self, kind: &[u8]) -> Option<Action> {
        match kind {
            b"+I" | b"+U" => Some(self.write()),
            b"-D" => Some(Action::Delete),
            b"-U" => Some(Action::Ignore),
            _ => None,
        }
    }

    /// What a row of an append stream does.
    fn write(self) -> Action {
        if self.op_type == OpType::Delete { Action::Delete } else { Action::Write(self.op_type) }
    }

    /// Whether two items of an id must not be in one request: a later one that is taken does not make up for an earlier one that is not.
    pub(crate) const fn is_cumulative(self) -> bool {
        matches!(self.op_type, OpType::Create | OpType::Update)
    }
}

/// What the rows of a batch do.
pub(crate) struct Actions<'a> {
    operation: Operation,
    kinds: Option<Cell<'a>>,
    is_tombstone: Option<Box<dyn Fn(usize) -> bool>>,
    kind: Vec<u8>,
}

impl Actions<'_> {
    /// What a row does.
    pub(crate) fn of(&mut self, row: usize) -> Result<Action> {
        let action = match &self.kinds {
            None => self.operation.write(),
            Some(cell) => {
                self.kind.clear();
                cell(row, &mut self.kind);
                self.operation.action(&self.kind).ok_or_else(|| no_kind(&self.kind))?
            }
        };
        let is_deleted = matches!(action, Action::Write(_)) && self.is_tombstone.as_ref().is_some_and(|is_tombstone| is_tombstone(row));
        Ok(if is_deleted { Action::Delete } else { action })
    }
}

fn no_kind(kind: &[u8]) -> Error {
    Error::data(format!("a row has the kind {:?}; there are +I, -U, +U and -D", String::from_utf8_lossy(kind)))
}

impl Action {
    /// As action lines have it.
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Write(OpType::Index) => "index",
            Self::Write(OpType::Create) => "create",
            Self::Write(OpType::Update) => "update",
            Self::Write(OpType::Delete) | Self::Delete | Self::Ignore => "delete",
        }
    }
}

fn column(path: &str, name: &str, input: &SinkInput, problems: &mut Vec<Problem>) -> Option<usize> {
    let found = input.schema.column_with_name(name).map(|(column, _)| column);
    if found.is_none() {
        let message = format!("there is no column {name:?}");
        problems.push(Problem { suggestion: suggest(name, &input.schema), ..problem(path, message) });
    }
    found
}

fn version_column(config: &Config, input: &SinkInput, problems: &mut Vec<Problem>) -> Option<usize> {
    let (path, found) = match (config.version, &config.version_column) {
        (Version::Column, None) => {
            problems.push(problem("version_column", "is missing; version: column needs it".to_owned()));
            return None;
        }
        (Version::Column, Some(name)) => ("version_column", column("version_column", name, input, problems)?),
        (Version::None | Version::Position, Some(_)) => {
            problems.push(problem("version_column", "goes with version: column alone".to_owned()));
            return None;
        }
        (Version::None, None) => return None,
        (Version::Position, None) => {
            let is_position = |field: &arrow_schema::FieldRef| field.metadata().get(ROLE).is_some_and(|role| role == ROLE_POSITION);
            let Some(found) = input.schema.fields().iter().position(is_position) else {
                let message = "no column is the row's place in its source: ask the source for it (kafka: `metadata: [offset]`) and keep it";
                problems.push(problem("version", message.to_owned()));
                return None;
            };
            ("version", found)
        }
    };
    let field = input.schema.field(found);
    if let Err(why) = version::check(field.data_type()) {
        problems.push(problem(path, format!("{}: {why}", field.name())));
    }
    Some(found)
}

/// A data stream refuses every document without a time.
fn timestamp(input: &SinkInput, problems: &mut Vec<Problem>) {
    match input.schema.column_with_name(TIMESTAMP) {
        Some((_, field)) if document::instants(&arrow_array::new_empty_array(field.data_type())).is_some() => {}
        Some((_, field)) => problems.push(problem("data_stream", format!("{TIMESTAMP} is {}, not a time", field.data_type()))),
        None => problems.push(problem("data_stream", format!("there is no column {TIMESTAMP}, which every document of a data stream has"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{DataType, Field, Schema, TimeUnit};
    use serde_json::{Value, json};
    use std::{collections::HashMap, sync::Arc};

    fn operation(mode: ChangeMode, more: Value) -> Result<Operation, Vec<String>> {
        let position = HashMap::from([(ROLE.to_owned(), ROLE_POSITION.to_owned())]);
        let schema = Schema::new(vec![
            Field::new("host", DataType::Utf8, true),
            Field::new(TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("value", DataType::Float64, true),
            Field::new("place", DataType::Int64, false).with_metadata(position),
        ]);
        let mut config = json!({ "hosts": ["http://a:9200"], "index": "i" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(config).unwrap();
        let input = SinkInput { node: "s".to_owned(), schema: Arc::new(schema), mode, key: vec!["host".to_owned()], format: None };
        let mut problems = Vec::new();
        let has_id = config.id.is_some() || mode == ChangeMode::Upsert;
        let operation = Operation::new(&config, &input, has_id, &mut problems);
        let problems: Vec<String> = problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        if problems.is_empty() { Ok(operation) } else { Err(problems) }
    }

    #[test]
    fn what_is_asked_for_is_planned() {
        let append = |more| operation(ChangeMode::Append, more).unwrap();
        let plain = Operation { op_type: OpType::Index, tombstone: None, version: None };
        assert_eq!(append(json!({})), plain);
        assert_eq!(append(json!({ "data_stream": true })), Operation { op_type: OpType::Create, ..plain });
        assert_eq!(append(json!({ "id": ["host"], "version": "position" })), Operation { version: Some(3), ..plain });
        let by_time = append(json!({ "id": ["host"], "version": "column", "version_column": "@timestamp", "tombstone": "value" }));
        assert_eq!(by_time, Operation { version: Some(1), tombstone: Some(2), ..plain });
        let update = operation(ChangeMode::Upsert, json!({ "op_type": "update" })).unwrap();
        assert_eq!(update.action(b"+U"), Some(Action::Write(OpType::Update)));
        assert_eq!((update.action(b"-U"), update.action(b"-D"), update.action(b"?")), (Some(Action::Ignore), Some(Action::Delete), None));
        assert_eq!(append(json!({ "op_type": "delete", "id": ["host"] })).write(), Action::Delete);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (mode, more, expected) in [
            (ChangeMode::Upsert, json!({ "op_type": "create" }), "op_type: an upsert stream"),
            (ChangeMode::Upsert, json!({ "op_type": "delete" }), "op_type: an upsert stream"),
            (ChangeMode::Upsert, json!({ "data_stream": true }), "data_stream: a data stream takes no changes"),
            (ChangeMode::Append, json!({ "op_type": "index", "data_stream": true }), "op_type: a data stream takes create alone"),
            (ChangeMode::Append, json!({ "op_type": "update" }), "id: is missing; update"),
            (ChangeMode::Append, json!({ "tombstone": "value" }), "id: is missing; tombstone"),
            (ChangeMode::Append, json!({ "id": ["host"], "tombstone": "valeu" }), "tombstone: there is no column \"valeu\""),
            (ChangeMode::Append, json!({ "version": "position" }), "id: is missing; version"),
            (ChangeMode::Upsert, json!({ "op_type": "update", "version": "position" }), "version: create and update"),
            (ChangeMode::Upsert, json!({ "version": "column" }), "version_column: is missing"),
            (
                ChangeMode::Upsert,
                json!({ "version": "column", "version_column": "value" }),
                "version_column: value: values of type Float64",
            ),
            (ChangeMode::Upsert, json!({ "version_column": "place" }), "version_column: goes with"),
        ] {
            let seen = operation(mode, more.clone()).unwrap_err();
            assert!(seen.len() == 1 && seen[0].starts_with(expected), "{more}: {seen:?}");
        }
    }
}
