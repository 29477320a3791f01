//! How the rows of a stream relate, from edge to edge: what takes upsert and retract streams, and what happens to their row kind.
//! SEMANTICS.md, "Streams and change modes", is the rule book.

use crate::plan::{ChangeMode, Output};
use arrow_schema::{DataType, Field, Schema};
use standpipe_sdk::wire::{ROLE, ROLE_ROW_KIND};

/// The row kind's column where the host adds it.
pub(crate) const ROW_KIND_COLUMN: &str = "op";

/// The row kind: `+I`, `-U`, `+U`, `-D`.
pub(crate) fn row_kind_field() -> Field {
    Field::new(ROW_KIND_COLUMN, DataType::Utf8, false).with_metadata([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())].into())
}

pub(crate) fn row_kind_index(schema: &Schema) -> Option<usize> {
    schema.fields().iter().position(|field| field.metadata().get(ROLE).is_some_and(|role| role == ROLE_ROW_KIND))
}

/// The row kind column of an upsert stream.
pub(crate) fn upsert_row_kind(output: &Output) -> Option<usize> {
    row_kind_index(&output.schema).filter(|_| output.mode == ChangeMode::Upsert)
}

/// `an upsert stream by host`, for messages.
pub(crate) fn described(output: &Output) -> String {
    match output.mode {
        ChangeMode::Append => "an append stream".to_owned(),
        ChangeMode::Upsert if output.key.is_empty() => "an upsert stream".to_owned(),
        ChangeMode::Upsert => format!("an upsert stream by {}", output.key.join(", ")),
        ChangeMode::Retract => "a retract stream".to_owned(),
    }
}

pub(crate) fn name(mode: ChangeMode) -> &'static str {
    match mode {
        ChangeMode::Append => "append",
        ChangeMode::Upsert => "upsert",
        ChangeMode::Retract => "retract",
    }
}

/// `append and upsert streams`, for messages; none means append.
pub(crate) fn accepted(modes: &[ChangeMode]) -> String {
    let names: Vec<&str> = if modes.is_empty() { vec!["append"] } else { modes.iter().map(|mode| name(*mode)).collect() };
    format!("{} streams", names.join(" and "))
}

/// Whether streams of that mode are taken; none means append alone.
pub(crate) fn accepts(modes: &[ChangeMode], mode: ChangeMode) -> bool {
    if modes.is_empty() { mode == ChangeMode::Append } else { modes.contains(&mode) }
}
