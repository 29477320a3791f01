//! Functions of plugins behind DataFusion's interface.
//!
//! Before the types of an expression are coerced, [`bound`] goes through it from the inside out: a call is bound to the arguments that it really has, they are cast to what the
//! function wants, and what it binds to takes its place, which is all that DataFusion and the engine call from then on.

mod aggregate;
mod scalar;

pub(super) use aggregate::PluginAggregate;
pub(super) use scalar::PluginScalar;

use super::type_name;
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{
    DFSchemaRef, DataFusionError, Result, ScalarValue, plan_err,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::{Expr, ExprSchemable, Signature, TypeSignature, Volatility, cast};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use standpipe_loader::{LITERAL, PluginError};
use std::sync::Arc;

/// A function that is bound.
trait Callable {
    /// Its name in the pipeline.
    fn name(&self) -> &str;
    /// The types that it wants its arguments in.
    fn wanted(&self) -> Vec<DataType>;
}

/// Binds the calls of plugins' functions in an expression as it was parsed.
pub(super) fn bound(expr: Expr, simplifier: &ExprSimplifier, columns: &DFSchemaRef) -> Result<Expr> {
    expr.transform_up(|inner| match inner {
        Expr::ScalarFunction(mut call) => {
            let Some(function) = call.func.inner().downcast_ref::<PluginScalar>() else {
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            };
            let (arguments, fields) = told(call.args, simplifier, columns)?;
            let function = function.bound(&fields)?;
            call.args = wanted(&function, arguments, &fields)?;
            call.func = Arc::new(function.into());
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::AggregateFunction(mut call) => {
            let Some(function) = call.func.inner().downcast_ref::<PluginAggregate>() else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            let (arguments, fields) = told(call.params.args, simplifier, columns)?;
            let function = function.bound(&fields)?;
            call.params.args = wanted(&function, arguments, &fields)?;
            call.func = Arc::new(function.into());
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

/// Arguments with their types settled, and what a function is told of them.
fn told(arguments: Vec<Expr>, simplifier: &ExprSimplifier, columns: &DFSchemaRef) -> Result<(Vec<Expr>, Vec<FieldRef>)> {
    let settle = |argument| {
        let argument = simplifier.coerce(argument, columns)?;
        let (_, field) = argument.to_field(columns)?;
        let mut field = field.as_ref().clone();
        if let Expr::Literal(value, _) = &argument
            && let Some(value) = literal(value)
        {
            field = field.with_metadata([(LITERAL.to_owned(), value.to_string())].into());
        }
        Ok((argument, Arc::new(field)))
    };
    arguments.into_iter().map(settle).collect::<Result<Vec<_>>>().map(|settled| settled.into_iter().unzip())
}

fn literal(value: &ScalarValue) -> Option<serde_json::Value> {
    if value.is_null() {
        return Some(serde_json::Value::Null);
    }
    Some(match value {
        ScalarValue::Boolean(Some(value)) => (*value).into(),
        ScalarValue::Int64(Some(value)) => (*value).into(),
        ScalarValue::UInt64(Some(value)) => (*value).into(),
        ScalarValue::Float64(Some(value)) => (*value).into(),
        ScalarValue::Utf8(Some(value)) => value.as_str().into(),
        _ => return None,
    })
}

/// The arguments in the types that the function wants.
fn wanted(function: &impl Callable, arguments: Vec<Expr>, fields: &[FieldRef]) -> Result<Vec<Expr>> {
    let types = function.wanted();
    let fit = |(at, (argument, wanted)): (usize, (Expr, &DataType))| {
        let found = fields[at].data_type();
        if found == wanted {
            return Ok(argument);
        }
        if !loses_nothing(found, wanted) {
            let (name, found, wanted) = (function.name(), type_name(found), type_name(wanted));
            return plan_err!("{name}() takes {wanted} as argument {}, not {found}; a cast in the call makes it one", at + 1);
        }
        Ok(cast(argument, wanted.clone()))
    };
    arguments.into_iter().zip(&types).enumerate().map(fit).collect()
}

/// Whether each value of a type is one of another: only then the host casts unasked. Numbers count as floats, as everywhere in SQL.
fn loses_nothing(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Decimal128, Dictionary, Float16, Float32, Float64, LargeBinary, LargeUtf8, Null, Timestamp, Utf8, Utf8View,
    };
    let is_text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let is_binary = |data_type: &DataType| matches!(data_type, Binary | LargeBinary | BinaryView);
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _) => true,
        (Dictionary(_, value), to) => loses_nothing(value, to),
        (from, to) if is_text(from) && is_text(to) || is_binary(from) && is_binary(to) => true,
        (from, Float64) => from.is_numeric(),
        (Float16, Float32) => true,
        (from, to) if from.is_integer() && to.is_integer() => {
            let (narrower, same_sign) = (from.primitive_width() < to.primitive_width(), from.is_signed_integer() == to.is_signed_integer());
            narrower && (same_sign || to.is_signed_integer())
        }
        (from, Decimal128(digits, scale)) if from.is_integer() => i16::from(*digits) - i16::from(*scale) >= 20,
        (Decimal128(from, before), Decimal128(to, behind)) => {
            behind >= before && i16::from(*to) - i16::from(*behind) >= i16::from(*from) - i16::from(*before)
        }
        (Timestamp(from, zone), Timestamp(to, other)) => zone == other && fineness(*from) <= fineness(*to),
        _ => false,
    }
}

const fn fineness(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// Arguments of which nothing is known but their types.
fn untold(types: &[DataType]) -> Vec<FieldRef> {
    types.iter().map(|data_type| Arc::new(Field::new("argument", data_type.clone(), true))).collect()
}

/// A signature whose types the function itself says, of which there may be none.
fn signature(volatility: Volatility) -> Signature {
    Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::UserDefined], volatility)
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

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::{Binary, Date32, Decimal128, Float32, Float64, Int32, Int64, LargeUtf8, Null, Timestamp, UInt32, UInt64, Utf8};

    #[test]
    fn only_what_loses_nothing_is_cast_unasked() {
        let (millis, micros) = (Timestamp(TimeUnit::Millisecond, None), Timestamp(TimeUnit::Microsecond, None));
        let utc = Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (from, to, expected) in [
            (Int32, Int64, true),
            (Int64, Int32, false),
            (UInt32, Int64, true),
            (UInt64, Int64, false),
            (Int32, UInt64, false),
            (Int64, Float64, true),
            (Decimal128(10, 2), Float64, true),
            (Float64, Float32, false),
            (Float64, Int64, false),
            (Int64, Decimal128(38, 2), true),
            (Int64, Decimal128(10, 2), false),
            (Decimal128(10, 2), Decimal128(12, 4), true),
            (Decimal128(10, 4), Decimal128(12, 2), false),
            (LargeUtf8, Utf8, true),
            (Utf8, Int64, false),
            (Utf8, Binary, false),
            (Null, Date32, true),
            (millis.clone(), micros.clone(), true),
            (micros.clone(), millis, false),
            (micros.clone(), utc, false),
            (micros, Float64, false),
        ] {
            assert_eq!(loses_nothing(&from, &to), expected, "{from} as {to}");
        }
    }
}
