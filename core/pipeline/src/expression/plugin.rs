//! Functions of plugins behind DataFusion's interface.
//!
//! While an expression is typed, such a function is asked anew for every look at its types. Once the types are settled, [`bound`] puts in its place what it binds to, which
//! is all that the engine calls.

mod aggregate;
mod scalar;

pub(super) use aggregate::PluginAggregate;
pub(super) use scalar::PluginScalar;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{
    DFSchema, DataFusionError, Result,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::{Expr, ExprSchemable, Signature, TypeSignature, Volatility};
use standpipe_loader::PluginError;
use std::sync::Arc;

/// Binds the calls of plugins' functions in a coerced expression.
pub(super) fn bound(expr: Expr, columns: &DFSchema) -> Result<Expr> {
    expr.transform_up(|inner| match inner {
        Expr::ScalarFunction(mut call) => {
            let Some(function) = call.func.inner().downcast_ref::<PluginScalar>() else {
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            };
            call.func = Arc::new(function.bound(&fields(&call.args, columns)?)?.into());
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::AggregateFunction(mut call) => {
            let Some(function) = call.func.inner().downcast_ref::<PluginAggregate>() else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            call.func = Arc::new(function.bound(&fields(&call.params.args, columns)?)?.into());
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

fn fields(arguments: &[Expr], columns: &DFSchema) -> Result<Vec<FieldRef>> {
    arguments.iter().map(|argument| argument.to_field(columns).map(|(_, field)| field)).collect()
}

/// Arguments of which nothing is known but their types.
fn untold(types: &[DataType]) -> Vec<FieldRef> {
    types.iter().map(|data_type| Arc::new(Field::new("argument", data_type.clone(), true))).collect()
}

/// A signature whose types the function itself says.
fn signature(takes_none: bool, volatility: Volatility) -> Signature {
    match takes_none {
        true => Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::UserDefined], volatility),
        false => Signature::user_defined(volatility),
    }
}

/// At planning: the line that a user sees.
fn refused(name: &str, error: PluginError) -> DataFusionError {
    if error.origin.kind != name {
        return DataFusionError::Plan(format!("{name}(): {error}"));
    }
    let is_of_configuration = error.details.get("path").and_then(serde_json::Value::as_str).is_some_and(|path| !path.is_empty());
    let how = if is_of_configuration { "; a function with a configuration gets a name under functions" } else { "" };
    DataFusionError::Plan(format!("{error}{how}"))
}
