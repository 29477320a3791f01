//! Sources: what the plugin gives, how its records become rows, which column is the event time.

use super::{
    Planner,
    draft::{Draft, append, text_field},
    sink::reason_field,
};
use crate::{
    diagnostic::{At, Span},
    file::SourceBlock,
    plan::{Alignment, DecodeStep, EventTime, Operator, SourceNode},
    suggest,
    text::Text,
};
use arrow_schema::{DataType, Field, Schema};
use standpipe_formats::{FormatError, FormatKind, FormatSpec};
use standpipe_loader::SourceValidation;
use standpipe_sdk::wire::{Encoding, VALUE_COLUMN};
use std::sync::Arc;

impl Planner<'_> {
    pub(super) fn source(&self, block: &SourceBlock) -> Option<Draft> {
        let name = &block.name;
        let connector_path = format!("{}.connector", name.path);
        let kind = self.kind(self.catalogue.source(&block.connector.value), &block.connector, &connector_path)?;
        let config = self.configuration(&block.with, name, kind.config_schema())?;
        let validation = self.answer(kind.validate(&name.path, &config), |answer| &answer.details, &block.with, name)?;
        let decode = self.decode(block, &validation);
        let parallelism = self.within(block.parallelism.as_ref(), name, validation.details.max_subtasks);
        let decode = decode?;
        let fields = self.fields(block, &validation, decode.as_ref())?;
        let event_time = self.event_time(block, &fields)?;
        let mut main = append("main", fields);
        main.event_time = event_time.as_ref().map(|time| time.column);
        let mut outputs = vec![main];
        if decode.is_some() {
            outputs.push(append("errors", vec![Field::new("record", DataType::Binary, true), reason_field(), text_field("split")]));
        }
        Some(Draft {
            name: name.name.clone(),
            path: name.path.clone(),
            span: name.span,
            parallelism: parallelism?,
            bounded: validation.details.capabilities.bounded,
            operator: Operator::Source(SourceNode { kind, config, validation, decode, event_time, isolation: block.isolation.clone() }),
            outputs,
            inputs: Vec::new(),
        })
    }

    /// The decode step, if the source gives records. The inner `None` is a source of rows.
    fn decode(&self, block: &SourceBlock, validation: &SourceValidation) -> Option<Option<DecodeStep>> {
        let name = &block.name;
        if validation.details.encoding != Encoding::Records {
            return self.refuse_decoding(block).map(|()| None);
        }
        let Some(format) = &block.format else {
            let message = format!("missing key \"format\": {} gives records; write format: json or format: raw", block.connector);
            self.report.error(name.span, &name.path, message);
            return None;
        };
        let schema = match (&block.schema, format.value.kind) {
            (Some(schema), _) => Schema::new(schema.fields.iter().map(|field| field.value.clone()).collect::<Vec<_>>()),
            (None, FormatKind::Raw) => Schema::new(vec![Field::new(VALUE_COLUMN, DataType::Utf8, true)]),
            (None, kind) => {
                let message = format!("missing key \"schema\": the format {} needs the columns of the records", kind.name());
                self.report.error(name.span, &name.path, message);
                return None;
            }
        };
        let schema = Arc::new(schema);
        let span = block.schema.as_ref().map_or(format.span, |schema| schema.span);
        self.can_decode(format, &schema, span, &name.path)?;
        Some(Some(DecodeStep { format: format.value.clone(), schema }))
    }

    fn can_decode(&self, format: &At<FormatSpec>, schema: &Arc<Schema>, span: Span, path: &str) -> Option<()> {
        let refused = |error: FormatError| match error {
            FormatError::Option { .. } | FormatError::OfFiles { .. } => {
                self.report.error(format.span, &format!("{path}.format"), error.to_string())
            }
            _ => self.report.error(span, &format!("{path}.schema"), error.to_string()),
        };
        standpipe_formats::decoder(&format.value, Arc::clone(schema)).map(|_| ()).map_err(refused).ok()
    }

    /// A source of rows has its columns already.
    fn refuse_decoding(&self, block: &SourceBlock) -> Option<()> {
        let name = &block.name;
        let given = [("format", block.format.as_ref().map(|at| at.span)), ("schema", block.schema.as_ref().map(|schema| schema.span))];
        let mut good = Some(());
        for (key, span) in given.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let message = format!("{} gives rows with columns of its own; remove {key:?}", block.connector);
            self.report.error(span, &format!("{}.{key}", name.path), message);
            good = None;
        }
        good
    }

    /// The columns of the main output: decoded ones, then those that come with a record.
    fn fields(&self, block: &SourceBlock, validation: &SourceValidation, decode: Option<&DecodeStep>) -> Option<Vec<Field>> {
        let theirs = validation.schema.fields().iter().map(|field| field.as_ref().clone());
        let Some(decode) = decode else { return Some(theirs.collect()) };
        if validation.schema.index_of(VALUE_COLUMN).is_err() {
            let message = format!("{} breaks the plugin contract: it gives records without the column {VALUE_COLUMN:?}", block.connector);
            self.report.error(block.connector.span, &block.name.path, message);
            return None;
        }
        let mut fields: Vec<Field> = decode.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for field in theirs.filter(|field| field.name() != VALUE_COLUMN) {
            if decode.schema.index_of(field.name()).is_ok() {
                let written = block.schema.as_ref().and_then(|schema| schema.fields.iter().find(|at| at.value.name() == field.name()));
                let message = format!(
                    "the column {:?} comes with every record of {}; give the record's own another name",
                    field.name(),
                    block.connector
                );
                self.report.error(written.map_or(block.name.span, |at| at.span), &format!("{}.schema", block.name.path), message);
                return None;
            }
            fields.push(field);
        }
        Some(fields)
    }

    /// `event_time:`, resolved; the inner `None` is a source without.
    fn event_time(&self, block: &SourceBlock, fields: &[Field]) -> Option<Option<EventTime>> {
        let Some(time) = &block.event_time else { return Some(None) };
        let path = format!("{}.event_time.column", block.name.path);
        let wanted = &time.column;
        let Some(column) = fields.iter().position(|field| *field.name() == wanted.value) else {
            let end = wanted.or_list(fields.iter().map(|field| field.name().as_str()), "columns");
            self.report.error(wanted.span, &path, format!("unknown column {wanted:?}{end}"));
            return None;
        };
        if !matches!(fields[column].data_type(), DataType::Timestamp(..)) {
            let found = standpipe_formats::types::type_text(&fields[column]);
            self.report.error(wanted.span, &path, format!("the event time must be a timestamp, the column {wanted:?} is {found}"));
            return None;
        }
        let alignment = time.alignment.as_ref();
        let group = |name: &Text| name.value.clone();
        let alignment = alignment.map(|align| Alignment { max_drift: align.max_drift, group: align.group.as_ref().map(group) });
        Some(Some(EventTime { column, out_of_orderness: time.out_of_orderness, idle_timeout: time.idle_timeout, alignment }))
    }

    /// A source that is alone in its group waits for nobody: most likely its name is misspelt.
    pub(super) fn warn_of_lone_groups(&self) {
        let group = |source: &'_ SourceBlock| source.event_time.as_ref()?.alignment.as_ref()?.group.clone();
        let groups: Vec<(&SourceBlock, Text)> = self.file.sources.iter().filter_map(|source| Some((source, group(source)?))).collect();
        for (i, (source, name)) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, (_, other))| other.value.as_str());
            if others.clone().any(|other| other == name.value) {
                continue;
            }
            let meant = suggest::closest(&name.value, others).map_or(String::new(), |other| format!(", did you mean {other:?}?"));
            let message = format!("no other source is in the group {name:?}{meant}");
            self.report.warn(name.span, &format!("{}.event_time.alignment_group", source.name.path), message);
        }
    }

    /// `on_error: dead-letter` with nobody to read the letters would lose them.
    pub(super) fn refuse_unread_dead_letters(&self) {
        if !self.file.unread.names.is_empty() || self.file.unread.sections {
            // What could not be read may read them.
            return;
        }
        for source in &self.file.sources {
            let name = &source.name.name;
            let Some(draft) = self.by_name.get(name.as_str()).map(|i| &self.drafts[*i]) else { continue };
            if !draft.dead_letters() {
                continue;
            }
            let transforms = self.file.transforms.iter().flat_map(|block| &block.inputs);
            let mut inputs = transforms.chain(self.file.sinks.iter().map(|block| &block.input));
            if !inputs.any(|input| input.node() == name && input.output() == Some("errors")) {
                let span = source.format.as_ref().map_or(source.name.span, |format| format.span);
                let message = format!(
                    "on_error: dead-letter sends broken records to {name}.errors, which nothing reads; add a sink with input: {name}.errors, or write on_error: skip"
                );
                self.report.error(span, &format!("{}.format", source.name.path), message);
            }
        }
    }
}
