//! Steps without state: filter, project, encode, and the union, which passes everything on. They are fused behind the head of a chain (`dataflow::tail`), or run as
//! a head where they could not be. A step keeps the order of rows; a batch without rows ends there. In an upsert stream a row that a filter does not let pass deletes
//! its key downstream, and of a row that deletes (`-D`) nothing but its key need be there: it is never computed with.

use super::{arrow_error, data_error, expression_error};
use crate::operator::{Emitter, Micros, Operator, OperatorError, Snapshot};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray},
    compute::{cast, filter_record_batch},
    datatypes::{DataType, SchemaRef},
};
use datafusion_common::DataFusionError;
use datafusion_physical_expr::{PhysicalExpr, expressions::Column};
use standpipe_formats::{Encoder, FormatSpec, encoder};
use standpipe_pipeline::plan::{EncodeNode, EvaluationError, FilterNode, ProjectNode};
use standpipe_state::{Cut, KeyGroupRange};
use std::sync::Arc;

/// Batches in, at most one batch out each, nothing kept.
pub(crate) trait Step: Send {
    /// What becomes of a batch with rows; `None`: nothing is left of it.
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError>;
}

/// A step as an operator.
pub(crate) struct Stateless<S>(pub(crate) S);

impl<S: Step> Operator for Stateless<S> {
    fn on_batch(&mut self, _: u32, batch: RecordBatch, out: &mut Emitter) -> Result<(), OperatorError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some(batch) = self.0.apply(batch)? {
            out.emit(0, batch);
        }
        Ok(())
    }

    fn on_watermark(&mut self, _: u32, _: Micros, _: &mut Emitter) -> Result<(), OperatorError> {
        Ok(())
    }

    fn snapshot(&mut self, _: Cut) -> Result<Snapshot, OperatorError> {
        Ok(Snapshot::default())
    }

    fn restore(&mut self, _: &[Snapshot], _: KeyGroupRange) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// Evaluates an expression over a batch, a value per row.
pub(super) fn evaluate(node: &str, expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef, OperatorError> {
    let value = expression.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    value.map_err(|source| evaluation_error(node, source))
}

/// Evaluates an expression for some rows; the others are null.
fn evaluate_where(
    node: &str,
    expression: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    rows: Option<&BooleanArray>,
) -> Result<ArrayRef, OperatorError> {
    let Some(rows) = rows else { return evaluate(node, expression, batch) };
    let value = expression.evaluate_selection(batch, rows).and_then(|value| value.into_array(batch.num_rows()));
    value.map_err(|source| evaluation_error(node, source))
}

/// What the plan's expressions say themselves is for people as it is.
fn evaluation_error(node: &str, source: DataFusionError) -> OperatorError {
    match source.find_root() {
        DataFusionError::External(said) if said.is::<EvaluationError>() => data_error(node, said),
        _ => expression_error(node, source),
    }
}

const DELETE: &str = "-D";

/// The row kinds of a batch as text, whatever text type they have.
fn kinds(node: &str, batch: &RecordBatch, row_kind: usize) -> Result<ArrayRef, OperatorError> {
    cast(batch.column(row_kind), &DataType::Utf8).map_err(|source| arrow_error(node, source))
}

/// The rows that do not delete; `None`: all of them.
fn living(kinds: &StringArray) -> Option<BooleanArray> {
    let deletes = |row: usize| kinds.is_valid(row) && kinds.value(row) == DELETE;
    let living = BooleanArray::from_iter((0..kinds.len()).map(|row| Some(!deletes(row))));
    living.has_false().then_some(living)
}

/// Passes everything on.
pub(crate) struct Union;

impl Step for Union {
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        Ok(Some(batch))
    }
}

/// Keeps the rows for which a predicate is true; null is not.
pub(crate) struct Filter {
    node: String,
    predicate: Arc<dyn PhysicalExpr>,
    /// See [`FilterNode::row_kind`].
    row_kind: Option<usize>,
}

impl Filter {
    pub(crate) fn new(node: &str, filter: &FilterNode) -> Self {
        Self { node: node.to_owned(), predicate: Arc::clone(&filter.predicate), row_kind: filter.row_kind }
    }

    /// What the predicate says of the rows.
    fn mask(&self, batch: &RecordBatch, rows: Option<&BooleanArray>) -> Result<BooleanArray, OperatorError> {
        let mask = evaluate_where(&self.node, &self.predicate, batch, rows)?;
        let mask_or_error = mask.as_boolean_opt().cloned();
        mask_or_error.ok_or_else(|| data_error(&self.node, format!("the filter gives {}, not true or false", mask.data_type())))
    }

    /// Makes rows that fail delete their keys, and passes on those that delete.
    fn delete_failing(&self, batch: RecordBatch, row_kind: usize) -> Result<RecordBatch, OperatorError> {
        let kinds = kinds(&self.node, &batch, row_kind)?;
        let kinds = kinds.as_string::<i32>();
        let living = living(kinds);
        let mask = self.mask(&batch, living.as_ref())?;
        let passes = |row: usize| mask.is_valid(row) && mask.value(row);
        if living.is_none() && mask.true_count() == batch.num_rows() {
            return Ok(batch);
        }
        let kinds = StringArray::from_iter(kinds.iter().enumerate().map(|(row, kind)| if passes(row) { kind } else { Some(DELETE) }));
        let replaced = cast(&kinds, batch.column(row_kind).data_type()).and_then(|kinds| {
            let mut columns = batch.columns().to_vec();
            columns[row_kind] = kinds;
            RecordBatch::try_new(batch.schema(), columns)
        });
        replaced.map_err(|source| arrow_error(&self.node, source))
    }
}

impl Step for Filter {
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        if let Some(row_kind) = self.row_kind {
            return self.delete_failing(batch, row_kind).map(Some);
        }
        let mask = self.mask(&batch, None)?;
        match mask.true_count() {
            0 => Ok(None),
            all if all == batch.num_rows() => Ok(Some(batch)),
            _ => filter_record_batch(&batch, &mask).map(Some).map_err(|source| arrow_error(&self.node, source)),
        }
    }
}

/// Computes columns.
pub(crate) struct Project {
    node: String,
    columns: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// See [`ProjectNode::row_kind`].
    row_kind: Option<usize>,
}

impl Project {
    /// `schema` is the output's: a column per expression.
    pub(crate) fn new(node: &str, project: &ProjectNode, schema: SchemaRef) -> Self {
        let columns = project.columns.iter().map(|column| Arc::clone(&column.expression)).collect();
        Self { node: node.to_owned(), columns, schema, row_kind: project.row_kind }
    }
}

impl Step for Project {
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        let kinds = self.row_kind.map(|row_kind| kinds(&self.node, &batch, row_kind)).transpose()?;
        let living = kinds.and_then(|kinds| living(kinds.as_string::<i32>()));
        let compute = |expression: &Arc<dyn PhysicalExpr>| {
            // A column of the input is there for all rows.
            let rows = living.as_ref().filter(|_| !expression.is::<Column>());
            evaluate_where(&self.node, expression, &batch, rows)
        };
        let columns = self.columns.iter().map(compute).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        batch.map(Some).map_err(|source| arrow_error(&self.node, source))
    }
}

/// Encodes rows into records: the column `value`, then the columns that the sink asked for.
pub(crate) struct Encode {
    node: String,
    format: FormatSpec,
    columns: Vec<usize>,
    schema: SchemaRef,
    /// Made for the schema of the first batch.
    encoder: Option<Box<dyn Encoder>>,
}

impl Encode {
    pub(crate) fn new(node: &str, encode: &EncodeNode, schema: SchemaRef) -> Self {
        Self { node: node.to_owned(), format: encode.format.clone(), columns: encode.columns.clone(), schema, encoder: None }
    }
}

impl Step for Encode {
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => {
                let made = encoder(&self.format, batch.schema()).map_err(|error| data_error(&self.node, error))?;
                none.insert(made)
            }
        };
        let records = encoder.encode(&batch).map_err(|error| data_error(&self.node, error))?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(records)];
        columns.extend(self.columns.iter().map(|column| Arc::clone(batch.column(*column))));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map(Some).map_err(|source| arrow_error(&self.node, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion_expr::Operator as Op;
    use datafusion_physical_expr::expressions::{binary, col, lit};
    use proptest::prelude::*;
    use standpipe_formats::FormatKind;
    use standpipe_pipeline::plan::ProjectColumn;
    use std::collections::BTreeMap;

    fn rows(values: &[Option<i64>]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("v", DataType::Int64, true), Field::new("k", DataType::Utf8, false)]);
        let keys: StringArray = (0..values.len()).map(|row| Some(format!("k{row}"))).collect();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(values.to_vec())), Arc::new(keys)]).unwrap()
    }

    fn run(step: impl Step, batch: RecordBatch) -> Vec<RecordBatch> {
        let mut out = Emitter::default();
        Stateless(step).on_batch(0, batch, &mut out).unwrap();
        out.drain().map(|(output, batch)| (assert_eq!(output, 0), batch).1).collect()
    }

    fn over(limit: i64) -> Filter {
        let schema = rows(&[]).schema();
        let predicate = binary(col("v", &schema).unwrap(), Op::Gt, lit(limit), &schema).unwrap();
        Filter::new("transforms.hot", &FilterNode { predicate, row_kind: None, text: String::new() })
    }

    #[test]
    fn a_filter_keeps_what_is_true() {
        let kept = run(over(3), rows(&[Some(1), Some(5), None, Some(9)]));
        assert_eq!(kept[0].column(0).as_primitive::<Int64Type>().values(), &[5, 9]);
        assert_eq!(kept[0].column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("k1"), Some("k3")]);
        assert!(run(over(99), rows(&[Some(1), None])).is_empty());
        assert!(run(over(0), rows(&[])).is_empty());
        let all = rows(&[Some(4), Some(5)]);
        assert!(run(over(3), all.clone())[0].column(0).to_data().ptr_eq(&all.column(0).to_data()), "nothing is copied when all rows stay");
    }

    #[test]
    fn a_project_computes_its_columns_in_order() {
        let input = rows(&[]).schema();
        let doubled = binary(col("v", &input).unwrap(), Op::Multiply, lit(2_i64), &input).unwrap();
        let column = |name: &str, expression| ProjectColumn { name: name.to_owned(), expression, text: String::new() };
        let project = ProjectNode { columns: vec![column("one", lit(1_i64)), column("twice", doubled)], row_kind: None };
        let schema = Schema::new(vec![Field::new("one", DataType::Int64, false), Field::new("twice", DataType::Int64, true)]);
        let out = run(Project::new("transforms.shaped", &project, Arc::new(schema)), rows(&[Some(4), None]));
        assert_eq!(out[0].column(0).as_primitive::<Int64Type>().values(), &[1, 1]);
        assert_eq!(out[0].column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(8), None]);
    }

    #[test]
    fn an_error_of_an_expression_names_the_node() {
        let input = rows(&[]).schema();
        let broken = binary(col("v", &input).unwrap(), Op::Divide, lit(0_i64), &input).unwrap();
        let columns = vec![ProjectColumn { name: "x".to_owned(), expression: broken, text: String::new() }];
        let project = ProjectNode { columns, row_kind: None };
        let schema = Schema::new(vec![Field::new("x", DataType::Int64, true)]);
        let mut step = Stateless(Project::new("transforms.shaped", &project, Arc::new(schema)));
        let error = step.on_batch(0, rows(&[Some(1)]), &mut Emitter::default()).unwrap_err().to_string();
        assert!(error.starts_with("transforms.shaped: ") && error.contains("ivide by zero"), "{error}");
    }

    /// A row of an upsert stream: what happens to a key.
    #[derive(Debug, Clone)]
    struct Change {
        key: u8,
        value: Option<i64>,
        kind: &'static str,
    }

    /// A row that deletes has its key alone.
    fn change() -> impl Strategy<Value = Change> {
        let kind = prop_oneof![Just("+I"), Just("+U"), Just("-D")];
        (0_u8..5, -4_i64..5, kind).prop_map(|(key, number, kind)| Change { key, value: (kind != "-D").then_some(number), kind })
    }

    /// Columns `k`, `v` and the row kind, whose type is the plugin's choice.
    fn changes(rows: &[Change], kind_type: &DataType) -> RecordBatch {
        let kinds = StringArray::from_iter_values(rows.iter().map(|row| row.kind));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("k", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.key))))),
            ("v", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.value)))),
            ("op", cast(&kinds, kind_type).unwrap()),
        ];
        let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), *name == "v")).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect()).unwrap()
    }

    /// What is left of the keys, with a column's values.
    fn folded<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>, column: usize) -> BTreeMap<i64, Option<i64>> {
        let mut rows = BTreeMap::new();
        for batch in batches {
            let kinds = cast(batch.column(2), &DataType::Utf8).unwrap();
            let (keys, values) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(column).as_primitive::<Int64Type>());
            for (row, kind) in kinds.as_string::<i32>().iter().enumerate() {
                match kind.unwrap() {
                    "-D" => _ = rows.remove(&keys.value(row)),
                    _ => _ = rows.insert(keys.value(row), values.is_valid(row).then(|| values.value(row))),
                }
            }
        }
        rows
    }

    proptest! {
        /// Whatever the batches: what is left of the keys is the filter of what was left before it. What is computed behind it never sees a row that deletes.
        #[test]
        fn an_upsert_stream_is_filtered_as_a_table(rows in prop::collection::vec(change(), 0..40), size in 1_usize..9, dictionary: bool) {
            let kind_type = match dictionary {
                true => DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
                false => DataType::Utf8,
            };
            let batches: Vec<RecordBatch> = rows.chunks(size).map(|rows| changes(rows, &kind_type)).collect();
            let schema = changes(&[], &kind_type).schema();
            // Not of 0, which divides by zero, nor of the missing value of a row that deletes.
            let not_zero = binary(col("v", &schema).unwrap(), Op::NotEq, lit(0_i64), &schema).unwrap();
            let mut filter = Filter::new("transforms.f", &FilterNode { predicate: not_zero, row_kind: Some(2), text: String::new() });
            let divided = binary(lit(12_i64), Op::Divide, col("v", &schema).unwrap(), &schema).unwrap();
            let column = |name: &str, expression| ProjectColumn { name: name.to_owned(), expression, text: String::new() };
            let columns = vec![column("k", col("k", &schema).unwrap()), column("v", divided), column("op", col("op", &schema).unwrap())];
            let mut project = Project::new("transforms.p", &ProjectNode { columns, row_kind: Some(2) }, Arc::clone(&schema));

            let mut filtered = Vec::new();
            for batch in &batches {
                filtered.push(filter.apply(batch.clone()).unwrap().unwrap());
            }
            let expected: BTreeMap<i64, Option<i64>> = folded(&batches, 1).into_iter().filter(|(_, value)| *value != Some(0)).collect();
            prop_assert_eq!(&folded(&filtered, 1), &expected);
            let mut computed = Vec::new();
            for batch in filtered {
                computed.push(project.apply(batch).unwrap().unwrap());
            }
            let expected: BTreeMap<i64, Option<i64>> = expected.into_iter().map(|(key, value)| (key, value.map(|value| 12 / value))).collect();
            prop_assert_eq!(folded(&computed, 1), expected);
        }
    }

    #[test]
    fn rows_that_delete_pass_as_they_are() {
        let rows = [("+I", Some(5)), ("-D", None), ("+U", Some(1)), ("+U", None)].map(|(kind, value)| Change { key: 7, value, kind });
        let input = changes(&rows, &DataType::Utf8);
        let predicate = binary(col("v", &input.schema()).unwrap(), Op::Gt, lit(3_i64), &input.schema()).unwrap();
        let filter =
            || Filter::new("transforms.f", &FilterNode { predicate: Arc::clone(&predicate), row_kind: Some(2), text: String::new() });
        let out = run(filter(), input.clone());
        assert_eq!(out[0].column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["+I", "-D", "-D", "-D"]);
        assert_eq!((out[0].column(0), out[0].column(1)), (input.column(0), input.column(1)));
        let passes = input.slice(0, 1);
        assert!(
            run(filter(), passes.clone())[0].column(2).to_data().ptr_eq(&passes.column(2).to_data()),
            "nothing is copied when all rows stay"
        );
    }

    #[test]
    fn encode_puts_records_before_the_columns_asked_for() {
        let schema = Schema::new(vec![Field::new("value", DataType::Binary, false), Field::new("k", DataType::Utf8, false)]);
        let encode = EncodeNode { format: FormatKind::Json.into(), columns: vec![1] };
        let out = run(Encode::new("sinks.out.encode", &encode, Arc::new(schema)), rows(&[Some(4), None]));
        let records: &BinaryArray = out[0].column(0).as_binary();
        let texts: Vec<&str> = records.iter().map(|record| std::str::from_utf8(record.unwrap()).unwrap()).collect();
        assert_eq!(texts, [r#"{"v":4,"k":"k0"}"#, r#"{"v":null,"k":"k1"}"#]);
        assert_eq!(out[0].column(1).as_string::<i32>().value(1), "k1");
    }
}
