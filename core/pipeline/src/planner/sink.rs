//! Sinks: what the plugin takes, the encode step before one that takes records, the exchange to its subtasks.

use super::{
    Planner,
    draft::{Draft, DraftInput, Stream, append, text_field},
};
use crate::{
    diagnostic::Span,
    file::SinkBlock,
    modes,
    plan::{ChangeMode, EncodeNode, Exchange, Operator, Output, SinkNode},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_formats::{FormatError, FormatKind, FormatSpec};
use standpipe_loader::{NodeInput, SinkValidation};
use standpipe_sdk::wire::{Encoding, InputDetails, ROLE, ROLE_REASON, VALUE_COLUMN};
use std::sync::Arc;

impl Planner<'_> {
    pub(super) fn sink(&mut self, block: &SinkBlock) -> Option<Draft> {
        let name = &block.name;
        let kind = self.kind(self.catalogue.sink(&block.connector.value), &block.connector, &format!("{}.connector", name.path));
        let stream = self.stream(&block.input);
        let kind = kind?;
        let config = self.configuration(&block.with, name, kind.config_schema());
        let (stream, config) = (stream?, config?);
        let mut rows = stream.told_rows();
        rows.details.format = block.format.as_ref().and_then(|format| serde_json::to_value(&format.value).ok());
        let validation = self.answer(kind.validate(&config, &rows, &name.path), |answer| &answer.details, &block.with, name)?;
        self.accepts(block, &stream, &validation)?;
        if validation.details.capabilities.needs_log && self.file.checkpoint.is_none() {
            let message = "with this configuration rows are written when a checkpoint is durable, and the pipeline takes none: add `checkpoint: {interval: 10s}`";
            self.report.error(block.with.span, &format!("{}.with", name.path), message);
            return None;
        }
        let parallelism = self.within(block.parallelism.as_ref(), name, validation.details.max_subtasks)?;
        let parallelism = stream.fitting(parallelism, block.parallelism.is_some());
        let (input, edge) = match validation.details.encoding {
            encoding @ (Encoding::Rows | Encoding::Files) => {
                if encoding == Encoding::Files {
                    self.can_encode(block, &stream)?
                } else {
                    self.refuse_format(block)?
                }
                self.takes_types(&stream, &validation.details.types, &format!("the sink {:?}", block.connector))?;
                (rows, self.spread(&stream, parallelism)?)
            }
            Encoding::Records => self.encode(block, &stream, &validation, parallelism, rows.details)?,
        };
        Some(Draft {
            name: name.name.clone(),
            path: name.path.clone(),
            span: name.span,
            parallelism,
            outputs: vec![rejects(&input.schema)],
            operator: Operator::Sink(SinkNode { kind, config, input, validation, isolation: block.isolation.clone() }),
            inputs: vec![edge],
            bounded: stream.bounded,
        })
    }

    fn accepts(&self, block: &SinkBlock, stream: &Stream, validation: &SinkValidation) -> Option<()> {
        if modes::accepts(&validation.details.accepts, stream.columns.mode) {
            return Some(());
        }
        let (from, to) = (&stream.name, &block.name.name);
        let message = format!(
            "{from} -> {to}: the sink {:?} takes {}, {from} is {}",
            block.connector,
            modes::accepted(&validation.details.accepts),
            modes::described(&stream.columns)
        );
        self.report.error(stream.span, &stream.path, message);
        None
    }

    fn refuse_format(&self, block: &SinkBlock) -> Option<()> {
        let Some(format) = &block.format else { return Some(()) };
        let message = format!("{} takes rows, not records; remove \"format\"", block.connector);
        self.report.error(format.span, &format!("{}.format", block.name.path), message);
        None
    }

    /// Whether a sink that writes files can write these in the format.
    fn can_encode(&self, block: &SinkBlock, stream: &Stream) -> Option<()> {
        let made = standpipe_formats::file_encoder(&block.format_or_json(), stream.schema());
        let refused =
            |error: FormatError| self.report.error(block.format_span(stream), &format!("{}.format", block.name.path), error.to_string());
        made.map(|_| ()).map_err(refused).ok()
    }

    /// Plans the encode step and gives what the sink gets of it.
    fn encode(
        &mut self,
        block: &SinkBlock,
        stream: &Stream,
        validation: &SinkValidation,
        parallelism: u32,
        told: InputDetails,
    ) -> Option<(NodeInput, DraftInput)> {
        let name = &block.name;
        let format = block.format_or_json();
        let refused = match (format.of_files(), standpipe_formats::encoder(&format, stream.schema().clone())) {
            (Some(why), _) => Some(format!("{} takes records, one by one: {why}", block.connector)),
            (None, made) => made.err().map(|error| error.to_string()),
        };
        if let Some(message) = refused {
            self.report.error(block.format_span(stream), &format!("{}.format", name.path), message);
            return None;
        }
        let columns = self.asked_columns(block, stream, &validation.details.columns)?;
        let output = encoded(stream, &columns);
        let schema = output.schema.clone();
        // Rows of one key must meet in one subtask of the sink, which the encoded batch may no longer tell: they are sent there before.
        let before = matches!(stream.spread(parallelism), Ok(Exchange::Hash(_)) | Err(_));
        let own = if before { parallelism } else { stream.parallelism };
        let encode = Draft {
            name: format!("{}.encode", name.name),
            path: format!("{}.encode", name.path),
            span: name.span,
            parallelism: own,
            operator: Operator::Encode(EncodeNode { format, columns }),
            outputs: vec![output],
            inputs: vec![self.spread(stream, own)?],
            bounded: stream.bounded,
        };
        let exchange = if own == parallelism { Exchange::Forward } else { Exchange::Rebalance };
        let edge = DraftInput { from: self.drafts.len(), output: 0, exchange };
        self.drafts.push(encode);
        let input = NodeInput { schema, details: told };
        Some((input, edge))
    }

    /// The positions of the row's columns that the sink wants beside the record.
    fn asked_columns(&self, block: &SinkBlock, stream: &Stream, asked: &[String]) -> Option<Vec<usize>> {
        let find = |column: &String| {
            let found = stream.schema().index_of(column);
            found.map_err(|_| {
                let names: Vec<&str> = stream.schema().fields().iter().map(|field| field.name().as_str()).collect();
                let end = crate::suggest::or_list(column, names.iter().copied(), "columns");
                let message = format!("{} wants the column {column:?}, which {:?} does not have{end}", block.connector, stream.name);
                self.report.error(block.with.span, &format!("{}.with", block.name.path), message);
            })
        };
        asked.iter().map(|column| find(column).ok()).collect()
    }
}

impl SinkBlock {
    fn format_or_json(&self) -> FormatSpec {
        self.format.as_ref().map_or_else(|| FormatSpec::from(FormatKind::Json), |format| format.value.clone())
    }

    /// Where what is wrong with the format is shown.
    fn format_span(&self, stream: &Stream) -> Span {
        self.format.as_ref().map_or(stream.span, |format| format.span)
    }
}

impl Stream {
    /// What a plugin without `key_by` is told: the key counts where rows replace each other.
    pub(super) fn told_rows(&self) -> NodeInput {
        self.told(if self.columns.mode == ChangeMode::Append { Vec::new() } else { self.columns.key.clone() })
    }
}

fn encoded(stream: &Stream, columns: &[usize]) -> Output {
    let mut fields = vec![Field::new(VALUE_COLUMN, DataType::Binary, true)];
    fields.extend(columns.iter().map(|column| stream.schema().field(*column).clone()));
    let mut output = append("main", fields);
    output.mode = stream.columns.mode;
    let has = |name: &String| columns.iter().any(|column| stream.schema().field(*column).name() == name);
    if stream.columns.key.iter().all(has) {
        output.key.clone_from(&stream.columns.key);
    }
    output
}

/// The `errors` output of a sink: what it was given, and why it did not take it.
fn rejects(schema: &SchemaRef) -> Output {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend([reason_field(), text_field("details")]);
    Output { schema: Arc::new(Schema::new(fields)), ..append("errors", Vec::new()) }
}

/// Why a record or row was refused.
pub(super) fn reason_field() -> Field {
    text_field("reason").with_metadata([(ROLE.to_owned(), ROLE_REASON.to_owned())].into())
}
