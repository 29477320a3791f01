//! `aggregate` with `window`. Output columns: the keys, `window_start`, `window_end`, the aggregates; the event time of the output is `window_end`, so that a row of it
//! is never before the watermark that closed its window.

use super::{
    Planner,
    draft::{Draft, Stream, append},
};
use crate::{
    file::{NamedExpression, TransformBlock, WindowBlock},
    plan::{Exchange, Operator, Output, WindowAggregate, WindowAssigner, WindowNode},
    units,
};
use arrow_schema::{DataType, Field, TimeUnit};
use std::time::Duration;

impl Planner<'_> {
    pub(super) fn window(&self, block: &TransformBlock, columns: &[NamedExpression], window: &WindowBlock) -> Option<Draft> {
        let name = &block.name;
        let stream = self.only_stream(block, "aggregate")?;
        self.needs_append(&stream, "a window")?;
        let time = self.window_time(&stream, window, &name.path);
        let keys = self.key_columns(&block.key_by, &stream, &name.path);
        let scope = self.scope(&stream)?;
        let compile = |column: &NamedExpression| {
            let (name, expression) = (&column.name.value, &column.expression);
            let windowed = self.compiled(self.expressions.windowed(name, expression, &scope), expression, &column.path)?;
            let aggregate = WindowAggregate {
                name: name.clone(),
                function: windowed.function,
                state: windowed.state,
                text: expression.written.clone(),
            };
            Some((aggregate, windowed.field))
        };
        let aggregates: Vec<Option<(WindowAggregate, Field)>> = columns.iter().map(compile).collect();
        let aggregates: Option<Vec<(WindowAggregate, Field)>> = aggregates.into_iter().collect();
        let (keys, time) = (keys?, time?);
        let (aggregates, computed): (Vec<WindowAggregate>, Vec<Field>) = aggregates?.into_iter().unzip();
        let parallelism = self.keyed_parallelism(block, &keys)?;
        let mut fields: Vec<Field> = keys.iter().map(|key| stream.schema().field(*key).clone()).collect();
        fields.extend(["window_start", "window_end"].map(|bound| bound_field(bound, stream.schema().field(time))));
        fields.extend(computed);
        self.refuse_doubles(&fields, block, columns)?;
        let mut main = append("main", fields);
        main.event_time = Some(keys.len() + 1);
        main.key = block.key_by.iter().map(|column| column.value.clone()).collect();
        let late = Output { name: "late".to_owned(), ..stream.columns.clone() };
        let exchange = self.by_key(&stream, &keys, parallelism)?;
        let assigner = WindowAssigner::Tumbling { size: window.size.value, offset: window.offset };
        Some(Draft {
            name: name.name.clone(),
            path: name.path.clone(),
            span: name.span,
            parallelism,
            operator: Operator::Window(WindowNode { keys, time, assigner, allowed_lateness: window.allowed_lateness, aggregates }),
            outputs: vec![main, late],
            inputs: vec![stream.read(exchange)],
            bounded: stream.bounded,
        })
    }

    /// The event time column, whose unit must be fine enough for the window's bounds.
    fn window_time(&self, stream: &Stream, window: &WindowBlock, path: &str) -> Option<usize> {
        let path = format!("{path}.window");
        let Some(time) = stream.columns.event_time else {
            let message = format!("a window needs an event time, and {:?} has none", stream.name);
            let hint = "write event_time: at its source and keep that column as it is on the way";
            self.report.error_with_hint(window.span, &path, message, hint);
            return None;
        };
        let unit = match stream.schema().field(time).data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => Duration::from_secs(1),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Duration::from_millis(1),
            _ => Duration::from_micros(1),
        };
        for (what, length) in [("window", window.size.value), ("offset", window.offset)] {
            if length.as_nanos() % unit.as_nanos() != 0 {
                let (length, unit) = (units::duration_text(length), units::duration_text(unit));
                let column = stream.schema().field(time).name();
                self.report.error(
                    window.size.span,
                    &path,
                    format!("a {what} of {length} is finer than the event time {column:?}, which counts in {unit}"),
                );
                return None;
            }
        }
        Some(time)
    }

    /// Subtasks of an aggregate; without keys there is one group, and so one subtask.
    pub(super) fn keyed_parallelism(&self, block: &TransformBlock, keys: &[usize]) -> Option<u32> {
        if !keys.is_empty() {
            return self.parallelism_of(block.parallelism.as_ref(), &block.name);
        }
        if let Some(own) = block.parallelism.as_ref().filter(|own| own.value > 1) {
            let path = format!("{}.parallelism", block.name.path);
            self.report.error(own.span, &path, "an aggregate without key_by is one group of all rows and runs with parallelism 1");
            return None;
        }
        Some(1)
    }

    /// By key to the keys' subtasks; without keys to the only one.
    pub(super) fn by_key(&self, stream: &Stream, keys: &[usize], parallelism: u32) -> Option<Exchange> {
        if keys.is_empty() { self.spread(stream, parallelism).map(|input| input.exchange) } else { Some(Exchange::Hash(keys.to_vec())) }
    }

    /// Reports two output columns of one name, at the aggregate that has it.
    pub(super) fn refuse_doubles(&self, fields: &[Field], block: &TransformBlock, columns: &[NamedExpression]) -> Option<()> {
        let double = fields.iter().enumerate().find(|(i, field)| fields[..*i].iter().any(|other| other.name() == field.name()));
        let Some((_, field)) = double else { return Some(()) };
        let written = columns.iter().find(|column| column.name.value == *field.name());
        let span = written.map_or(block.verb.span, |column| column.name.span);
        let message =
            format!("there are two output columns {:?}: beside the aggregates there are the keys and what the host adds", field.name());
        self.report.error(span, &format!("{}.aggregate", block.name.path), message);
        None
    }
}

/// A window's bound: as the event time, but never null.
fn bound_field(name: &str, time: &Field) -> Field {
    let mut metadata = time.metadata().clone();
    metadata.retain(|key, _| key == standpipe_formats::TEXT_KEY);
    Field::new(name, time.data_type().clone(), false).with_metadata(metadata)
}
