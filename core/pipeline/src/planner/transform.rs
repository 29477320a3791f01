//! Transforms of plugins, keyed or not, and what key columns are to all keyed nodes.

use super::{
    Planner,
    draft::{Draft, DraftInput, Stream},
};
use crate::{
    expression::type_name,
    file::{AsyncBlock, TransformBlock, With},
    modes,
    plan::{AsyncCalls, ChangeMode, Exchange, Operator, Output, ResultOrder, TransformNode},
    text::Text,
};
use standpipe_isolation::Limits;
use standpipe_loader::{NodeInput, TransformValidation};
use std::{collections::HashSet, time::Duration};

impl Planner<'_> {
    pub(super) fn transform(
        &self,
        block: &TransformBlock,
        wanted: &Text,
        with: &With,
        asynchronous: Option<&AsyncBlock>,
        isolation: Option<Limits>,
    ) -> Option<Draft> {
        let name = &block.name;
        let kind = self.kind(self.catalogue.transform(&wanted.value), wanted, &format!("{}.transform", name.path));
        let streams = self.streams(&block.inputs);
        let kind = kind?;
        let config = self.configuration(with, name, kind.config_schema());
        let (streams, config) = (streams?, config?);
        let keyed = !block.key_by.is_empty();
        if keyed && streams.len() > 1 {
            self.report.error(
                name.span,
                &name.path,
                format!("a keyed transform takes one input, not {}; join them by a transform with union: true", streams.len()),
            );
            return None;
        }
        let keys = if keyed { self.key_columns(&block.key_by, &streams[0], &name.path)? } else { Vec::new() };
        let key_names: Vec<String> = block.key_by.iter().map(|column| column.value.clone()).collect();
        let told = |stream: &Stream| if keyed { stream.told(key_names.clone()) } else { stream.told_rows() };
        let inputs: Vec<NodeInput> = streams.iter().map(told).collect();
        let validation = self.answer(kind.validate(&name.path, &config, &inputs, keyed), |answer| &answer.details, with, name)?;
        self.check_transform(block, wanted, &streams, &validation)?;
        let calls = self.calls(block, wanted, asynchronous, &streams, &validation)?;
        let own = self.within(block.parallelism.as_ref(), name, validation.details.max_subtasks)?;
        let insists = keyed || block.parallelism.is_some();
        let parallelism = streams.iter().fold(own, |parallelism, stream| stream.fitting(parallelism, insists));
        let edges: Option<Vec<DraftInput>> = if keyed {
            Some(vec![streams[0].read(Exchange::Hash(keys.clone()))])
        } else {
            streams.iter().map(|stream| self.spread(stream, parallelism)).collect()
        };
        let inputs_of_edges = edges?;
        Some(Draft {
            name: name.name.clone(),
            path: name.path.clone(),
            span: name.span,
            parallelism,
            outputs: outputs(&validation, &streams, &key_names),
            operator: Operator::Transform(TransformNode { kind, config, inputs, validation, keys, asynchronous: calls, isolation }),
            inputs: inputs_of_edges,
            bounded: streams.iter().all(|stream| stream.bounded),
        })
    }

    fn check_transform(&self, block: &TransformBlock, kind: &Text, streams: &[Stream], validation: &TransformValidation) -> Option<()> {
        let name = &block.name;
        let details = &validation.details;
        if details.requires_key && block.key_by.is_empty() {
            self.report.error(name.span, &name.path, format!("the transform {kind:?} needs key_by"));
            return None;
        }
        let main_mode = validation.outputs.first().map(|(output, _)| output.mode).unwrap_or_default();
        for stream in streams {
            let mode = stream.columns.mode;
            if mode != ChangeMode::Append && mode != main_mode && !details.accepts.contains(&mode) {
                let message = format!(
                    "the transform {kind:?} takes {}, {:?} is {}",
                    modes::accepted(&details.accepts),
                    stream.name,
                    modes::described(&stream.columns)
                );
                self.report.error(stream.span, &stream.path, message);
                return None;
            }
            self.takes_types(stream, &details.types, &format!("the transform {kind:?}"))?;
        }
        let mut names = HashSet::new();
        for (output, schema) in &validation.outputs {
            let what = if !names.insert(&output.name) {
                format!("two outputs {:?}", output.name)
            } else if output.mode != ChangeMode::Append && modes::row_kind_index(schema).is_none() {
                format!("the output {:?} of mode {} without a row kind column", output.name, modes::name(output.mode))
            } else {
                continue;
            };
            let message = format!("the transform {kind:?} breaks the plugin contract: it declares {what}");
            self.report.error(block.verb.span, &name.path, message);
            return None;
        }
        Some(())
    }

    /// How calls that end later are held: as the file says, as the plugin wishes, by default. `Some(None)`: there are none.
    fn calls(
        &self,
        block: &TransformBlock,
        kind: &Text,
        wanted: Option<&AsyncBlock>,
        streams: &[Stream],
        validation: &TransformValidation,
    ) -> Option<Option<AsyncCalls>> {
        let name = &block.name;
        let Some(declared) = validation.details.asynchronous else {
            if let Some(wanted) = wanted {
                let message = format!("\"async\" means nothing to the transform {kind:?}: its calls end when they return");
                self.report.error(wanted.span, &name.path, message);
                return None;
            }
            return Some(None);
        };
        if let Some(key) = block.key_by.first() {
            let message = format!("the transform {kind:?} is asynchronous, and such a one cannot have keys; leave key_by out");
            self.report.error(key.span, &format!("{}.key_by", name.path), message);
            return None;
        }
        let default = AsyncCalls::default();
        let order = wanted.and_then(|wanted| wanted.order.as_ref());
        let changes = streams.iter().find(|stream| stream.columns.mode != ChangeMode::Append);
        if let (Some(order), Some(stream)) = (order.filter(|order| order.value == ResultOrder::Any), changes) {
            let message =
                format!("results in any order would swap changes of a row: {:?} is {}", stream.name, modes::described(&stream.columns));
            self.report.error(order.span, &format!("{}.async.order", name.path), message);
            return None;
        }
        let capacity = wanted.and_then(|wanted| wanted.capacity).or(declared.capacity.filter(|capacity| *capacity > 0));
        let timeout =
            wanted.and_then(|wanted| wanted.timeout).or(declared.timeout_ms.filter(|millis| *millis > 0).map(Duration::from_millis));
        Some(Some(AsyncCalls {
            capacity: capacity.unwrap_or(default.capacity),
            order: order.map_or(default.order, |order| order.value),
            timeout: timeout.unwrap_or(default.timeout),
        }))
    }

    /// The positions of `key_by`'s columns.
    pub(super) fn key_columns(&self, key_by: &[Text], stream: &Stream, path: &str) -> Option<Vec<usize>> {
        let path = format!("{path}.key_by");
        let find = |column: &Text| {
            let Ok(at) = stream.schema().index_of(&column.value) else {
                let names = stream.schema().fields().iter().map(|field| field.name().as_str());
                let message = format!("unknown column {column:?}{}", column.or_list(names, "columns"));
                match column.value.contains(',') {
                    true => self.report.error_with_hint(column.span, &path, message, "several columns are a list: [host, metric]"),
                    false => self.report.error(column.span, &path, message),
                }
                return None;
            };
            let data_type = stream.schema().field(at).data_type();
            if data_type.is_nested() {
                let message = format!("the column {column:?} of type {} cannot be a key", type_name(data_type));
                self.report.error(column.span, &path, message);
                return None;
            }
            Some(at)
        };
        // All of them are looked up, so that all that are wrong are reported.
        let found: Vec<Option<usize>> = key_by.iter().map(find).collect();
        found.into_iter().collect()
    }
}

/// The outputs that a plugin declares; key and event time are kept where the columns are.
fn outputs(validation: &TransformValidation, streams: &[Stream], key: &[String]) -> Vec<Output> {
    let first = &streams[0].columns;
    let key = match (key, streams) {
        ([], [only]) => &only.columns.key,
        (key, _) => key,
    };
    let make = |(index, (details, schema)): (usize, &(standpipe_sdk::wire::OutputDetails, arrow_schema::SchemaRef))| {
        let same = |name: &str| {
            let was = first.schema.field_with_name(name).ok()?;
            schema.index_of(name).ok().filter(|at| schema.field(*at).data_type() == was.data_type())
        };
        let time = first.event_time.map(|at| first.schema.field(at).name());
        let one_time = streams.iter().all(|stream| stream.columns.event_time.map(|at| stream.schema().field(at).name()) == time);
        let kept = key.iter().all(|column| same(column).is_some());
        Output {
            name: if index == 0 { "main".to_owned() } else { details.name.clone() },
            schema: schema.clone(),
            mode: details.mode,
            key: if kept { key.to_vec() } else { Vec::new() },
            event_time: time.filter(|_| one_time).and_then(|name| same(name)),
        }
    };
    validation.outputs.iter().enumerate().map(make).collect()
}
