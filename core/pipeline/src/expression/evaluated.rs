//! What the engine evaluates: a compiled expression in which whole numbers that overflow are an error, and whose errors name it as its author wrote it. What a
//! reference in it stands for may be in DataFusion's own message (`Cannot cast string 'ahunter2'`), which is then withheld.
//!
//! [`finished`] is the last step of every expression, of arguments of aggregates too; `constants` computes with [`checked`] alone.

use super::fault;
use crate::text::Text;
use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Schema};
use datafusion_common::{
    DataFusionError, Result, ScalarValue,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::{
    PhysicalExpr,
    expressions::{BinaryExpr, Literal, NegativeExpr},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Characters of an expression that an error shows.
const MAX_SHOWN: usize = 200;

/// An expression that cannot be computed for some row, as written, and why, where that may be shown. The cause of a [`DataFusionError::External`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EvaluationError(String);

/// The expression for the engine. One without operands (a column, a value) cannot fail and stays as it is.
pub(super) fn finished(physical: Arc<dyn PhysicalExpr>, expression: &Text, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let inner = checked(physical, schema)?;
    if inner.children().is_empty() {
        return Ok(inner);
    }
    Ok(Arc::new(Evaluated { inner, written: expression.written.as_str().into(), secret: expression.secret }))
}

/// The same expression, but an overflow of whole numbers is an error. DataFusion's negation always wraps around, so that it becomes a subtraction.
pub(super) fn checked(physical: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let check = |inner: Arc<dyn PhysicalExpr>| {
        if let Some(binary) = inner.downcast_ref::<BinaryExpr>()
            && matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
        {
            return Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>));
        }
        if let Some(negative) = inner.downcast_ref::<NegativeExpr>()
            && let data_type @ (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) = negative.arg().data_type(schema)?
        {
            let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
            let difference = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg())).with_fail_on_overflow(true);
            return Ok(Transformed::yes(Arc::new(difference) as Arc<dyn PhysicalExpr>));
        }
        Ok(Transformed::no(inner))
    };
    physical.transform_up(check).map(|transformed| transformed.data)
}

/// A message may hold a value of a row, and that may hold what a terminal would act upon.
fn printable(message: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    message.chars().map(escape).collect()
}

/// See the module's documentation.
#[derive(Clone)]
struct Evaluated {
    inner: Arc<dyn PhysicalExpr>,
    written: Arc<str>,
    /// Something in it is what a reference stands for.
    secret: bool,
}

impl Evaluated {
    fn error(&self, error: &DataFusionError) -> DataFusionError {
        let mut text: String = self.written.chars().take(MAX_SHOWN).collect();
        if text.len() < self.written.len() {
            text.push_str("...");
        }
        let message = match self.secret {
            true => format!("{text:?} fails on a row; the message is withheld because the expression has a secret"),
            false => format!("{text:?} fails on a row: {}", printable(&fault::reason(&error.find_root().strip_backtrace()))),
        };
        DataFusionError::External(Box::new(EvaluationError(message)))
    }
}

impl PhysicalExpr for Evaluated {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.inner.evaluate(batch).map_err(|error| self.error(&error))
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().ok_or_else(|| DataFusionError::Internal("an expression has lost its operand".to_owned()))?;
        Ok(Arc::new(Self { inner, ..Self::clone(&self) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl PartialEq for Evaluated {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && self.written == other.written && self.secret == other.secret
    }
}

impl Eq for Evaluated {}

impl Hash for Evaluated {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.written.hash(state);
    }
}

/// As written: compiled, it may hold what a reference stands for.
impl fmt::Display for Evaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// As written.
impl fmt::Debug for Evaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}
