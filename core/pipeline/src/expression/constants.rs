//! Constants that cannot be computed, such as `1 / 0`: DataFusion leaves them to run time, where every row would fail.
//! Called on every expression before it is simplified.

use super::evaluated;
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use datafusion_common::{
    DFSchema, DataFusionError, Result, ScalarValue,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, execution_props::ExecutionProps, physical_planning_context::PhysicalPlanningContext,
};
use datafusion_physical_expr::create_physical_expr;
use std::sync::Arc;

/// Computes every part of a coerced expression that is the same for all rows.
///
/// # Errors
/// The first part that cannot be computed, or divides by a zero that makes every row fail.
pub(super) fn check(expr: &Expr) -> Result<()> {
    expr.apply(|inner| {
        if let Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) = inner
            && is_constant(right)
            && is_zero(&value(right)?)
        {
            return Err(DataFusionError::Execution("division by zero".to_owned()));
        }
        if !is_constant(inner) {
            return Ok(TreeNodeRecursion::Continue);
        }
        value(inner).map(|_| TreeNodeRecursion::Jump)
    })
    .map(|_| ())
}

fn is_constant(expr: &Expr) -> bool {
    // The closure does not fail, and so the walk does not.
    !expr.exists(|inner| Ok(!is_computable(inner))).unwrap_or(true)
}

fn is_computable(expr: &Expr) -> bool {
    !expr.is_volatile_node()
        && matches!(
            expr,
            Expr::Literal(..)
                | Expr::BinaryExpr(_)
                | Expr::Not(_)
                | Expr::Negative(_)
                | Expr::IsNull(_)
                | Expr::IsNotNull(_)
                | Expr::Between(_)
                | Expr::Like(_)
                | Expr::SimilarTo(_)
                | Expr::Case(_)
                | Expr::Cast(_)
                | Expr::InList(_)
                | Expr::ScalarFunction(_)
        )
}

fn value(constant: &Expr) -> Result<ScalarValue> {
    let physical = create_physical_expr(constant, &DFSchema::empty(), &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    match evaluated::checked(physical, &Schema::empty())?.evaluate(&batch)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0),
    }
}

/// Whether dividing by it fails: floating-point numbers have an infinity.
fn is_zero(value: &ScalarValue) -> bool {
    let data_type = value.data_type();
    let is_exact = data_type.is_integer() || data_type.is_decimal();
    is_exact && ScalarValue::new_zero(&data_type).is_ok_and(|zero| zero == *value)
}
