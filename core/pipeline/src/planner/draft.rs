//! A node on its way into the plan, the streams that it reads, and how their rows find its subtasks.

use super::Planner;
use crate::{
    diagnostic::{Report, Span},
    file::InputName,
    modes,
    plan::{ChangeMode, Exchange, Operator, Output},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_formats::OnError;
use standpipe_loader::NodeInput;
use standpipe_sdk::wire::InputDetails;
use std::{collections::HashSet, sync::Arc};

/// A node without its number.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) span: Span,
    pub(super) parallelism: u32,
    pub(super) operator: Operator,
    pub(super) outputs: Vec<Output>,
    pub(super) inputs: Vec<DraftInput>,
    /// All its rows come some day.
    pub(super) bounded: bool,
}

pub(super) struct DraftInput {
    /// Index of a draft.
    pub(super) from: usize,
    pub(super) output: u32,
    pub(super) exchange: Exchange,
}

/// An output of a draft, as a reader sees it.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) draft: usize,
    pub(super) output: u32,
    pub(super) parallelism: u32,
    pub(super) bounded: bool,
    pub(super) columns: Output,
    /// `stats`, `stats.late`.
    pub(super) name: String,
    /// Where the reader names it.
    pub(super) span: Span,
    pub(super) path: String,
}

impl Draft {
    /// Whether a source gives records that cannot be decoded to `errors`.
    pub(super) fn dead_letters(&self) -> bool {
        matches!(&self.operator, Operator::Source(source) if source.decode.as_ref().is_some_and(|decode| decode.format.on_error == OnError::DeadLetter))
    }

    /// Broken records come to `errors` only if the source is told so.
    pub(super) fn warn_if_empty(&self, output: &str, input: &InputName, report: &Report) {
        if output == "errors" && matches!(self.operator, Operator::Source(_)) && !self.dead_letters() {
            let message = format!("{}.errors stays empty: the source's format has no on_error: dead-letter", self.name);
            report.warn(input.span(), &input.path, message);
        }
    }
}

impl Stream {
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.columns.schema
    }

    /// The parallelism of a reader that does not insist on one: this stream's, where it cannot be spread over as many subtasks.
    pub(super) fn fitting(&self, parallelism: u32, insists: bool) -> u32 {
        if insists || self.spread(parallelism).is_ok() { parallelism } else { self.parallelism }
    }

    /// What a plugin is told of it.
    pub(super) fn told(&self, key: Vec<String>) -> NodeInput {
        let details = InputDetails { name: self.name.clone(), mode: self.columns.mode, key, format: None };
        NodeInput { schema: self.schema().clone(), details }
    }

    pub(super) fn read(&self, exchange: Exchange) -> DraftInput {
        DraftInput { from: self.draft, output: self.output, exchange }
    }

    /// The positions of its key columns, if it has any and all are there.
    pub(super) fn key_columns(&self) -> Option<Vec<usize>> {
        let columns: Option<Vec<usize>> = self.columns.key.iter().map(|name| self.schema().index_of(name).ok()).collect();
        columns.filter(|columns| !columns.is_empty())
    }

    /// How its rows find the subtasks of a reader that does not care: rows of one key stay in order.
    ///
    /// # Errors
    /// A changing stream without key columns cannot be spread.
    pub(super) fn spread(&self, parallelism: u32) -> Result<Exchange, String> {
        if self.parallelism == parallelism {
            return Ok(Exchange::Forward);
        }
        if parallelism == 1 {
            return Ok(Exchange::Rebalance);
        }
        match self.key_columns() {
            Some(columns) => Ok(Exchange::Hash(columns)),
            None if self.columns.mode == ChangeMode::Append => Ok(Exchange::Rebalance),
            None => {
                let other = if self.parallelism == 1 { "1".to_owned() } else { format!("{} or 1", self.parallelism) };
                let what = modes::described(&self.columns);
                Err(format!(
                    "{what} without key columns cannot be spread over {parallelism} subtasks; run this node with parallelism {other}"
                ))
            }
        }
    }
}

impl Planner<'_> {
    /// Spreads a stream over the subtasks of its reader, or reports why that cannot be.
    pub(super) fn spread(&self, stream: &Stream, parallelism: u32) -> Option<DraftInput> {
        match stream.spread(parallelism) {
            Ok(exchange) => Some(stream.read(exchange)),
            Err(message) => {
                self.report.error(stream.span, &stream.path, message);
                None
            }
        }
    }

    /// Reports a stream that is not append to a reader that takes no other.
    pub(super) fn needs_append(&self, stream: &Stream, what: &str) -> Option<()> {
        if stream.columns.mode == ChangeMode::Append {
            return Some(());
        }
        let message = format!("{what} takes append streams, {:?} is {}", stream.name, modes::described(&stream.columns));
        self.report.error(stream.span, &stream.path, message);
        None
    }
}

/// A name that two columns have.
pub(super) fn double_column(output: &Output) -> Option<&str> {
    let mut seen = HashSet::new();
    output.schema.fields().iter().map(|field| field.name().as_str()).find(|name| !seen.insert(*name))
}

/// The main output, append.
pub(super) fn append(name: &str, fields: Vec<Field>) -> Output {
    Output { name: name.to_owned(), schema: Arc::new(Schema::new(fields)), mode: ChangeMode::Append, key: Vec::new(), event_time: None }
}

/// Nullable text, as in the outputs that the host adds.
pub(super) fn text_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}
