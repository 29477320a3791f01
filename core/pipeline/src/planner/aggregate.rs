//! `aggregate` without a window: `emit` decides when rows come, and with it the change mode.

use super::{
    Planner,
    draft::{Draft, append},
};
use crate::{
    diagnostic::At,
    file::{NamedExpression, TransformBlock},
    modes,
    plan::{AggregateNode, ChangeMode, Emit, Operator, RunningAggregate},
};
use arrow_schema::Field;

impl Planner<'_> {
    pub(super) fn aggregate(&self, block: &TransformBlock, columns: &[NamedExpression], emit: Option<&At<Emit>>) -> Option<Draft> {
        let name = &block.name;
        let stream = self.only_stream(block, "aggregate")?;
        self.needs_append(&stream, "an aggregate")?;
        let keys = self.key_columns(&block.key_by, &stream, &name.path);
        let scope = self.scope(&stream)?;
        let compile = |column: &NamedExpression| {
            let (name, expression) = (&column.name.value, &column.expression);
            let running = self.compiled(self.expressions.running(name, expression, &scope), expression, &column.path)?;
            let aggregate = RunningAggregate {
                name: name.clone(),
                function: running.function,
                arguments: running.arguments,
                data_type: running.field.data_type().clone(),
                text: expression.written.clone(),
            };
            Some((aggregate, running.field))
        };
        let aggregates: Vec<Option<(RunningAggregate, Field)>> = columns.iter().map(compile).collect();
        let aggregates: Option<Vec<(RunningAggregate, Field)>> = aggregates.into_iter().collect();
        let keys = keys?;
        let (aggregates, computed): (Vec<RunningAggregate>, Vec<Field>) = aggregates?.into_iter().unzip();
        let parallelism = self.keyed_parallelism(block, &keys)?;
        let when = emit.map_or(if stream.bounded { Emit::Final } else { Emit::Changes }, |at| at.value);
        if let Some(emit) = emit.filter(|emit| emit.value == Emit::Final && !stream.bounded) {
            let message = format!("{:?} does not end by itself: emit: final gives rows only when the job is drained", stream.name);
            self.report.warn(emit.span, &format!("{}.emit", name.path), message);
        }
        let mut fields: Vec<Field> = keys.iter().map(|key| stream.schema().field(*key).clone()).collect();
        fields.extend(computed);
        if when == Emit::Changes {
            fields.push(modes::row_kind_field());
        }
        self.refuse_doubles(&fields, block, columns)?;
        let mut main = append("main", fields);
        main.mode = if when == Emit::Changes { ChangeMode::Upsert } else { ChangeMode::Append };
        main.key = block.key_by.iter().map(|column| column.value.clone()).collect();
        main.event_time = stream.columns.event_time.and_then(|time| keys.iter().position(|key| *key == time));
        let exchange = self.by_key(&stream, &keys, parallelism)?;
        Some(Draft {
            name: name.name.clone(),
            path: name.path.clone(),
            span: name.span,
            parallelism,
            operator: Operator::Aggregate(AggregateNode { keys, emit: when, aggregates }),
            outputs: vec![main],
            inputs: vec![stream.read(exchange)],
            bounded: stream.bounded,
        })
    }
}
