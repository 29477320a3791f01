//! `filter`, `select` and `union`: no state, the change mode stays. What a filter drops of an upsert stream it must delete downstream; of a retract stream, whose rows
//! are taken back as they were given, it drops both or neither, which needs expressions that always say the same.

use super::{
    Planner,
    draft::{Draft, DraftInput, Stream},
};
use crate::{
    expression::{Fault, Scope},
    file::{NamedExpression, SelectItem, TransformBlock},
    modes,
    plan::{ChangeMode, FilterNode, Operator, Output, ProjectColumn, ProjectNode},
    text::Text,
};
use arrow_schema::{Field, Schema};
use datafusion_physical_expr::expressions::Column;
use std::sync::Arc;

/// Columns of a select on their way, each with the column of the input that it is, if it is one.
struct Selected {
    columns: Vec<ProjectColumn>,
    fields: Vec<Field>,
    bare: Vec<Option<usize>>,
}

impl Planner<'_> {
    pub(super) fn filter(&self, block: &TransformBlock, predicate: &Text) -> Option<Draft> {
        let stream = self.only_stream(block, "filter")?;
        let path = format!("{}.filter", block.name.path);
        let scope = self.scope(&stream)?;
        let compiled = self.compiled(self.expressions.predicate(predicate, &scope), predicate, &path)?;
        self.repeatable(compiled.volatile, &stream, predicate, &path)?;
        let key = stream.key_columns();
        let by_key = !compiled.volatile && key.is_some_and(|key| compiled.columns.iter().all(|column| key.contains(column)));
        let row_kind = modes::upsert_row_kind(&stream.columns).filter(|_| !by_key);
        let main = Output { name: "main".to_owned(), ..stream.columns.clone() };
        let operator = Operator::Filter(FilterNode { predicate: compiled.physical, row_kind, text: predicate.written.clone() });
        self.stateless(block, vec![stream], operator, main)
    }

    pub(super) fn select(&self, block: &TransformBlock, items: &[SelectItem]) -> Option<Draft> {
        let stream = self.only_stream(block, "select")?;
        let scope = self.scope(&stream)?;
        let mut selected = Selected { columns: Vec::new(), fields: Vec::new(), bare: Vec::new() };
        if items.iter().any(|item| matches!(item, SelectItem::All)) {
            (0..stream.schema().fields().len()).for_each(|column| selected.keep(&stream, column));
        }
        let compile = |item: &SelectItem| match item {
            SelectItem::All => None,
            SelectItem::Column(column) => Some(self.column(column, &stream, &scope)),
        };
        // All of them are compiled, so that all that are wrong are reported.
        let compiled: Vec<Option<(ProjectColumn, Field, Option<usize>)>> = items.iter().filter_map(compile).collect();
        for (column, field, bare) in compiled.into_iter().collect::<Option<Vec<_>>>()? {
            selected.put(column, field, bare);
        }
        let main = self.selected_output(block, &stream, &mut selected)?;
        let row_kind = modes::upsert_row_kind(&stream.columns);
        self.stateless(block, vec![stream], Operator::Project(ProjectNode { columns: selected.columns, row_kind }), main)
    }

    fn column(&self, column: &NamedExpression, stream: &Stream, scope: &Scope) -> Option<(ProjectColumn, Field, Option<usize>)> {
        let (name, expression) = (&column.name.value, &column.expression);
        let compiled = self.compiled(self.expressions.column(name, expression, scope), expression, &column.path)?;
        self.repeatable(compiled.volatile, stream, expression, &column.path)?;
        let project = ProjectColumn { name: name.clone(), expression: compiled.physical, text: expression.written.clone() };
        let field = match (stream.columns.mode, compiled.bare) {
            // Of a row that deletes it is null.
            (ChangeMode::Upsert, None) => compiled.field.with_nullable(true),
            _ => compiled.field,
        };
        Some((project, field, compiled.bare))
    }

    /// Refuses an expression that would not say of a row that is taken back what it said when the row was given.
    fn repeatable(&self, volatile: bool, stream: &Stream, expression: &Text, path: &str) -> Option<()> {
        if !volatile || stream.columns.mode != ChangeMode::Retract {
            return Some(());
        }
        let message =
            format!("{} is {}: what depends on time or chance cannot be taken back", stream.name, modes::described(&stream.columns));
        self.report.error(expression.span, path, message);
        None
    }

    /// The output of a select: what is left of row kind, key and event time.
    fn selected_output(&self, block: &TransformBlock, stream: &Stream, selected: &mut Selected) -> Option<Output> {
        let input = &stream.columns;
        let kind = modes::row_kind_index(&input.schema).filter(|_| input.mode != ChangeMode::Append);
        if let Some(kind) = kind.filter(|kind| !selected.bare.contains(&Some(*kind))) {
            let name = input.schema.field(kind).name();
            if selected.fields.iter().any(|field| field.name() == name) {
                let message =
                    format!("the column {name:?} is the row kind of {}, {}; give yours another name", stream.name, modes::described(input));
                self.report.error(block.verb.span, &format!("{}.select", block.name.path), message);
                return None;
            }
            selected.keep(stream, kind);
        }
        let renamed = |column: &String| {
            let at = input.schema.index_of(column).ok()?;
            selected.find(at, column).map(|i| selected.fields[i].name().clone())
        };
        let key: Option<Vec<String>> = input.key.iter().map(renamed).collect();
        if key.is_none() && input.mode == ChangeMode::Upsert {
            let lost = input.key.iter().find(|column| renamed(column).is_none()).cloned().unwrap_or_default();
            let message = format!("{} is {}; select must keep the column {lost:?}", stream.name, modes::described(input));
            self.report.error(block.verb.span, &format!("{}.select", block.name.path), message);
            return None;
        }
        let event_time = input.event_time.and_then(|at| selected.find(at, input.schema.field(at).name()));
        let schema = Arc::new(Schema::new(selected.fields.clone()));
        Some(Output { name: "main".to_owned(), schema, mode: input.mode, key: key.unwrap_or_default(), event_time })
    }

    pub(super) fn union(&self, block: &TransformBlock) -> Option<Draft> {
        let streams = self.streams(&block.inputs)?;
        let (first, rest) = streams.split_first()?;
        let mut main = Output { name: "main".to_owned(), ..first.columns.clone() };
        for other in rest {
            if let Some(message) = difference(first, other) {
                self.report.error(other.span, &other.path, message);
                return None;
            }
            main.schema = Arc::new(nullable_where_either(&main.schema, other.schema()));
            if main.key != other.columns.key {
                main.key.clear();
            }
            if main.event_time != other.columns.event_time {
                main.event_time = None;
            }
        }
        self.stateless(block, streams, Operator::Union, main)
    }

    /// A node without state: all its streams spread over its subtasks.
    fn stateless(&self, block: &TransformBlock, streams: Vec<Stream>, operator: Operator, main: Output) -> Option<Draft> {
        let own = self.parallelism_of(block.parallelism.as_ref(), &block.name)?;
        let parallelism = streams.iter().fold(own, |parallelism, stream| stream.fitting(parallelism, block.parallelism.is_some()));
        let inputs: Option<Vec<DraftInput>> = streams.iter().map(|stream| self.spread(stream, parallelism)).collect();
        Some(Draft {
            name: block.name.name.clone(),
            path: block.name.path.clone(),
            span: block.name.span,
            parallelism,
            operator,
            outputs: vec![main],
            inputs: inputs?,
            bounded: streams.iter().all(|stream| stream.bounded),
        })
    }

    pub(super) fn scope(&self, stream: &Stream) -> Option<Scope> {
        Scope::new(stream.schema()).map_err(|fault| self.report.error(stream.span, &stream.path, fault.message)).ok()
    }

    /// What an expression was compiled to, or a report at its place.
    pub(super) fn compiled<T>(&self, result: Result<T, Fault>, expression: &Text, path: &str) -> Option<T> {
        result
            .map_err(|fault| match fault.hint {
                // What is wrong with it has been said where it is declared.
                _ if fault.unknown.is_some_and(|name| self.file.declared_functions.contains(&name)) => {}
                Some(hint) => self.report.error_with_hint(expression.span, path, fault.message, hint),
                None => self.report.error(expression.span, path, fault.message),
            })
            .ok()
    }
}

impl Selected {
    /// A column of the input as it is.
    fn keep(&mut self, stream: &Stream, at: usize) {
        let field = stream.schema().field(at);
        let expression = Arc::new(Column::new(field.name(), at));
        self.put(ProjectColumn { name: field.name().clone(), expression, text: field.name().clone() }, field.clone(), Some(at));
    }

    /// A column instead of one of its name, or behind the others.
    fn put(&mut self, column: ProjectColumn, field: Field, bare: Option<usize>) {
        match self.fields.iter().position(|other| other.name() == field.name()) {
            Some(i) => (self.columns[i], self.fields[i], self.bare[i]) = (column, field, bare),
            None => {
                self.columns.push(column);
                self.fields.push(field);
                self.bare.push(bare);
            }
        }
    }

    /// Where a column of the input has gone; the one with its old name if there are several.
    fn find(&self, at: usize, name: &str) -> Option<usize> {
        let same = |i: &usize| self.bare[*i] == Some(at);
        let all = 0..self.bare.len();
        all.clone().find(|i| same(i) && self.fields[*i].name() == name).or_else(|| all.clone().find(same))
    }
}

/// Why two streams cannot be one.
fn difference(first: &Stream, other: &Stream) -> Option<String> {
    let (one, two) = (&first.columns, &other.columns);
    let both = format!("{:?} and {:?} cannot be one stream", first.name, other.name);
    if one.mode != two.mode {
        return Some(format!("{both}: one is {}, the other is {}", modes::described(one), modes::described(two)));
    }
    if one.mode != ChangeMode::Append && one.key != two.key {
        return Some(format!("{both}: their keys are {} and {}", one.key.join(", "), two.key.join(", ")));
    }
    let names = |output: &Output| output.schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    if names(one) != names(two) {
        return Some(format!(
            "{both}: their columns are {} and {}; a select can make them equal",
            names(one).join(", "),
            names(two).join(", ")
        ));
    }
    let pairs = one.schema.fields().iter().zip(two.schema.fields());
    let (left, right) = pairs.into_iter().find(|(left, right)| left.data_type() != right.data_type())?;
    let types = [left, right].map(|field| standpipe_formats::types::type_text(field));
    Some(format!("{both}: the column {:?} is {} in one and {} in the other; cast it in a select", left.name(), types[0], types[1]))
}

fn nullable_where_either(left: &Schema, right: &Schema) -> Schema {
    let fields = left.fields().iter().zip(right.fields());
    Schema::new(
        fields.map(|(left, right)| left.as_ref().clone().with_nullable(left.is_nullable() || right.is_nullable())).collect::<Vec<_>>(),
    )
}
