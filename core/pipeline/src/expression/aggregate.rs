//! The calls of `aggregate:`: in a window any aggregate function of DataFusion, without one those whose running value the engine can keep.

use super::{
    Expressions, Fault, Scope, constants, evaluated,
    plugin::{self, PluginAggregate},
    refuse, type_name,
};
use crate::{
    plan::{Folding, RunningFunction},
    text::Text,
};
use arrow_schema::{DataType, Field};
use datafusion_common::{DataFusionError, Result as DataFusionResult};
use datafusion_expr::{
    Expr, cast,
    execution_props::ExecutionProps,
    expr::{AggregateFunction, NullTreatment},
    physical_planning_context::PhysicalPlanningContext,
};
use datafusion_physical_expr::{
    PhysicalExpr,
    aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder},
};
use standpipe_formats::TEXT_KEY;
use standpipe_loader::AggregateFunction as PluginFold;
use std::sync::Arc;

/// An aggregate of a window.
pub(crate) struct Windowed {
    pub(crate) function: Arc<AggregateFunctionExpr>,
    pub(crate) field: Field,
    /// See [`WindowAggregate::state`](crate::plan::WindowAggregate::state).
    pub(crate) state: Option<Vec<String>>,
}

/// An aggregate without a window.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) function: Folding,
    pub(crate) arguments: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) field: Field,
}

const RUNNING: [(&str, RunningFunction); 7] = [
    ("count", RunningFunction::Count),
    ("sum", RunningFunction::Sum),
    ("min", RunningFunction::Min),
    ("max", RunningFunction::Max),
    ("avg", RunningFunction::Avg),
    ("first_value", RunningFunction::First),
    ("last_value", RunningFunction::Last),
];

impl Expressions {
    pub(crate) fn windowed(&self, name: &str, expression: &Text, scope: &Scope) -> Result<Windowed, Fault> {
        self.guarded(expression, || {
            let text = &expression.value;
            let call = Expr::AggregateFunction(self.call(text, scope)?);
            let function = self.plan(text, scope, || {
                let context = PhysicalPlanningContext::default();
                let properties = ExecutionProps::new();
                let lowered =
                    LoweredAggregateBuilder::new(&call, &scope.columns, &scope.schema, &properties, &context).with_name(name).build()?;
                let finish = |argument| evaluated::finished(argument, expression, &scope.schema);
                let arguments: DataFusionResult<_> = lowered.aggregate.expressions().into_iter().map(finish).collect();
                let function = lowered.aggregate.with_new_expressions(arguments?, Vec::new());
                let function = function.ok_or_else(|| DataFusionError::Internal("the aggregate takes other arguments".to_owned()))?;
                // Found now, not at the first row: some functions are refused for some types only here.
                function.create_accumulator()?;
                Ok(Arc::new(function))
            })?;
            let found = function.field();
            let field = Field::new(name, found.data_type().clone(), found.is_nullable());
            let state = function.fun().inner().downcast_ref::<PluginAggregate>().and_then(PluginAggregate::function);
            let state = state.map(|function| function.state_names());
            Ok(Windowed { field: like_argument(field, &call, scope), function, state })
        })
    }

    pub(crate) fn running(&self, name: &str, expression: &Text, scope: &Scope) -> Result<Running, Fault> {
        self.guarded(expression, || {
            let text = &expression.value;
            let mut call = self.call(text, scope)?;
            if let Some(function) = call.func.inner().downcast_ref::<PluginAggregate>().and_then(PluginAggregate::function) {
                return self.running_plugin(name, expression, &call, function, scope);
            }
            let known = RUNNING.iter().find(|(known, _)| *known == call.func.name());
            let Some((_, function)) = known else {
                let names = RUNNING.map(|(name, _)| name).join(", ");
                return Err(Fault::new(format!("{}() needs a window; without one there are {names}", call.func.name())));
            };
            if call.params.distinct || call.params.null_treatment == Some(NullTreatment::IgnoreNulls) || call.params.args.len() > 1 {
                return Err(Fault::new("DISTINCT, IGNORE NULLS and several arguments need a window"));
            }
            let argument = call.params.args.pop();
            // count(*) is count(1).
            let argument = argument.filter(|argument| {
                !(*function == RunningFunction::Count && matches!(argument, Expr::Literal(value, _) if !value.is_null()))
            });
            let argument = match (function, argument) {
                // DataFusion's mean of decimals is a decimal; ours is always float64.
                (RunningFunction::Avg, Some(argument)) => Some(cast(argument, DataType::Float64)),
                (_, argument) => argument,
            };
            let physical = argument.as_ref().map(|argument| self.physical(expression, argument, scope)).transpose()?;
            let field = self.running_field(name, *function, physical.as_ref(), text, scope)?;
            let field = argument.map_or(field.clone(), |argument| like(field, &argument, scope));
            Ok(Running { function: Folding::BuiltIn(*function), arguments: physical.into_iter().collect(), field })
        })
    }

    /// A function of a plugin keeps its running value itself.
    fn running_plugin(
        &self,
        name: &str,
        expression: &Text,
        call: &AggregateFunction,
        function: PluginFold,
        scope: &Scope,
    ) -> Result<Running, Fault> {
        if call.params.distinct || call.params.null_treatment == Some(NullTreatment::IgnoreNulls) {
            return Err(Fault::new(format!("{}() knows neither DISTINCT nor IGNORE NULLS", call.func.name())));
        }
        let arguments = call.params.args.iter().map(|argument| self.physical(expression, argument, scope)).collect::<Result<_, _>>()?;
        let field = function.result().clone().with_name(name);
        Ok(Running { function: Folding::Plugin(function), arguments, field })
    }

    fn running_field(
        &self,
        name: &str,
        function: RunningFunction,
        argument: Option<&Arc<dyn PhysicalExpr>>,
        text: &str,
        scope: &Scope,
    ) -> Result<Field, Fault> {
        let Some(argument) = argument else { return Ok(Field::new(name, DataType::Int64, false)) };
        let found = self.plan(text, scope, || argument.data_type(&scope.schema))?;
        let data_type = match function {
            RunningFunction::Count => return Ok(Field::new(name, DataType::Int64, false)),
            RunningFunction::Avg => DataType::Float64,
            RunningFunction::Sum => match found {
                DataType::Int64 | DataType::UInt64 | DataType::Float64 => found,
                other => {
                    return Err(Fault::new(format!(
                        "sum() without a window takes numbers that are no decimals, this is {}",
                        type_name(&other)
                    )));
                }
            },
            RunningFunction::Min | RunningFunction::Max if found.is_nested() || found == DataType::Null => {
                return Err(Fault::new(format!("min() and max() need values with an order, this is {}", type_name(&found))));
            }
            _ => found,
        };
        Ok(Field::new(name, data_type, true))
    }

    /// The one call that the expression is, its arguments coerced.
    fn call(&self, text: &str, scope: &Scope) -> Result<AggregateFunction, Fault> {
        let written = self.parse(text, scope)?;
        refuse(&written, false)?;
        let coerced = self.plan(text, scope, || {
            let simplifier = self.simplifier(scope);
            simplifier.coerce(plugin::bound(written, &simplifier, &scope.columns)?, &scope.columns)
        })?;
        let call = match unaliased(coerced) {
            Expr::AggregateFunction(call) => call,
            _ => {
                let message = format!("expected one aggregate function such as avg(value), found {text:?}");
                return Err(Fault { message, hint: Some("compute with its result in a select behind".to_owned()), unknown: None });
            }
        };
        if call.params.filter.is_some() {
            return Err(Fault {
                message: "FILTER is not supported".to_owned(),
                hint: Some("write the condition as case when ... then ... end in the argument".to_owned()),
                unknown: None,
            });
        }
        if !call.params.order_by.is_empty() {
            return Err(Fault::new("ORDER BY is not supported; rows are aggregated in the order in which they arrive"));
        }
        for argument in &call.params.args {
            refuse(argument, true)?;
            self.plan(text, scope, || constants::check(argument))?;
        }
        // Some functions exist only as what they simplify to.
        let expr = Expr::AggregateFunction(call.clone());
        match self.plan(text, scope, || self.simplifier(scope).simplify(expr)).map(unaliased) {
            Ok(Expr::AggregateFunction(simplified)) if simplified.params.order_by.is_empty() && simplified.params.filter.is_none() => {
                Ok(simplified)
            }
            Ok(_) => Ok(call),
            Err(fault) => Err(fault),
        }
    }
}

fn unaliased(mut expr: Expr) -> Expr {
    while let Expr::Alias(alias) = expr {
        expr = *alias.expr;
    }
    expr
}

/// A minimum or last value of a timestamp is written as the timestamp is.
fn like_argument(field: Field, call: &Expr, scope: &Scope) -> Field {
    match call {
        Expr::AggregateFunction(call) => match call.params.args.first() {
            Some(argument) => like(field, argument, scope),
            None => field,
        },
        _ => field,
    }
}

fn like(field: Field, argument: &Expr, scope: &Scope) -> Field {
    let Expr::Column(column) = argument else { return field };
    let Ok(source) = scope.schema.field_with_name(&column.name) else { return field };
    match source.metadata().get(TEXT_KEY) {
        Some(text) if source.data_type() == field.data_type() => field.with_metadata([(TEXT_KEY.to_owned(), text.clone())].into()),
        _ => field,
    }
}
