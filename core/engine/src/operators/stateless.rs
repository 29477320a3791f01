//! Steps without state: filter, project, encode, and the union, which passes everything on. They are fused behind the head of a chain (`dataflow::tail`), or run as
//! a head where they could not be. A step keeps the order of rows; a batch without rows ends there.

use super::{arrow_error, data_error, expression_error};
use crate::operator::{Emitter, Micros, Operator, OperatorError, Snapshot};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::SchemaRef,
};
use datafusion_physical_expr::PhysicalExpr;
use standpipe_formats::{Encoder, FormatSpec, encoder};
use standpipe_pipeline::plan::{EncodeNode, FilterNode, ProjectNode};
use standpipe_state::KeyGroupRange;
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

    fn snapshot(&mut self) -> Result<Snapshot, OperatorError> {
        Ok(Snapshot::default())
    }

    fn restore(&mut self, _: &[Snapshot], _: KeyGroupRange) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// Evaluates an expression over a batch, a value per row.
pub(super) fn evaluate(node: &str, expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef, OperatorError> {
    let value = expression.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    value.map_err(|source| expression_error(node, source))
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
}

impl Filter {
    pub(crate) fn new(node: &str, filter: &FilterNode) -> Self {
        Self { node: node.to_owned(), predicate: Arc::clone(&filter.predicate) }
    }
}

impl Step for Filter {
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        let mask = evaluate(&self.node, &self.predicate, &batch)?;
        let Some(mask) = mask.as_boolean_opt() else {
            return Err(data_error(&self.node, format!("the filter gives {}, not true or false", mask.data_type())));
        };
        match mask.true_count() {
            0 => Ok(None),
            all if all == batch.num_rows() => Ok(Some(batch)),
            _ => filter_record_batch(&batch, mask).map(Some).map_err(|source| arrow_error(&self.node, source)),
        }
    }
}

/// Computes columns.
pub(crate) struct Project {
    node: String,
    columns: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Project {
    /// `schema` is the output's: a column per expression.
    pub(crate) fn new(node: &str, project: &ProjectNode, schema: SchemaRef) -> Self {
        let columns = project.columns.iter().map(|column| Arc::clone(&column.expression)).collect();
        Self { node: node.to_owned(), columns, schema }
    }
}

impl Step for Project {
    fn apply(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        let columns = self.columns.iter().map(|expression| evaluate(&self.node, expression, &batch)).collect::<Result<_, _>>()?;
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
    use standpipe_formats::FormatKind;
    use standpipe_pipeline::plan::ProjectColumn;

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
        Filter::new("transforms.hot", &FilterNode { predicate, text: String::new() })
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
        let project = ProjectNode { columns: vec![column("one", lit(1_i64)), column("twice", doubled)] };
        let schema = Schema::new(vec![Field::new("one", DataType::Int64, false), Field::new("twice", DataType::Int64, true)]);
        let out = run(Project::new("transforms.shaped", &project, Arc::new(schema)), rows(&[Some(4), None]));
        assert_eq!(out[0].column(0).as_primitive::<Int64Type>().values(), &[1, 1]);
        assert_eq!(out[0].column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(8), None]);
    }

    #[test]
    fn an_error_of_an_expression_names_the_node() {
        let input = rows(&[]).schema();
        let broken = binary(col("v", &input).unwrap(), Op::Divide, lit(0_i64), &input).unwrap();
        let project = ProjectNode { columns: vec![ProjectColumn { name: "x".to_owned(), expression: broken, text: String::new() }] };
        let schema = Schema::new(vec![Field::new("x", DataType::Int64, true)]);
        let mut step = Stateless(Project::new("transforms.shaped", &project, Arc::new(schema)));
        let error = step.on_batch(0, rows(&[Some(1)]), &mut Emitter::default()).unwrap_err().to_string();
        assert!(error.starts_with("transforms.shaped: ") && error.contains("ivide by zero"), "{error}");
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
