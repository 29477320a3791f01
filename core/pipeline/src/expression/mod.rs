//! Expressions of the file to DataFusion's: parsed as SQL with case-sensitive names, type-checked on the columns of the input, simplified, made physical.
//!
//! `functions` says which names there are, `plugin` puts those of plugins behind DataFusion's interface, `depth` refuses what is too deep for a stack, `constants` finds what cannot be computed, `fault` turns DataFusion's
//! errors into one line for people, `aggregate` is for the calls of `aggregate:`, `evaluated` makes what the engine gets.
//! The planner calls; the engine evaluates the physical expression, once per batch.

mod aggregate;
mod constants;
mod depth;
mod evaluated;
mod fault;
mod functions;
mod plugin;

pub use evaluated::EvaluationError;
pub(crate) use fault::Fault;

use crate::{plan::PluginFunction, text::Text};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, SchemaRef};
use datafusion_common::{
    DFSchema, DataFusionError, Result as DataFusionResult,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{
    Expr, ExprSchemable, cast, execution_props::ExecutionProps, physical_planning_context::PhysicalPlanningContext,
    simplify::SimplifyContext,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr, expressions::Column, utils::collect_columns};
use datafusion_sql::{
    parser::DFParserBuilder,
    planner::{ParserOptions, PlannerContext, SqlToRel},
};
use functions::Functions;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// The compiler of expressions; made once per plan.
pub(crate) struct Expressions {
    functions: Functions,
}

/// A computed column.
pub(crate) struct Compiled {
    pub(crate) physical: Arc<dyn PhysicalExpr>,
    pub(crate) field: Field,
    /// The column of the input that it is, as it is.
    pub(crate) bare: Option<usize>,
    /// See [`Predicate::volatile`].
    pub(crate) volatile: bool,
}

/// A condition on rows.
#[derive(Debug)]
pub(crate) struct Predicate {
    pub(crate) physical: Arc<dyn PhysicalExpr>,
    /// The columns of the input that decide.
    pub(crate) columns: HashSet<usize>,
    /// Asked again with the same row it may say something else.
    pub(crate) volatile: bool,
}

/// The columns that an expression may use.
pub(crate) struct Scope {
    schema: SchemaRef,
    columns: Arc<DFSchema>,
}

impl Scope {
    /// # Errors
    /// Two columns of one name, which the planner refuses where they arise.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, Fault> {
        let columns = DFSchema::try_from(Arc::clone(schema)).map_err(|error| Fault::new(error.strip_backtrace()))?;
        Ok(Self { schema: Arc::clone(schema), columns: Arc::new(columns) })
    }
}

impl Expressions {
    /// DataFusion's functions, and these of plugins; of two with one name DataFusion's is taken.
    pub(crate) fn new(plugins: Vec<PluginFunction>) -> Self {
        Self { functions: Functions::new(plugins) }
    }

    /// With those that are there and cannot be called, by name, and why.
    pub(crate) fn refusing(mut self, refused: BTreeMap<String, String>) -> Self {
        self.functions.refuse(refused);
        self
    }

    /// Whether there is a function of that name that is no plugin's.
    pub(crate) fn is_built_in(&self, name: &str) -> bool {
        self.functions.is_built_in(name)
    }

    /// The functions of plugins that were called, by name.
    pub(crate) fn called(self) -> Vec<PluginFunction> {
        self.functions.called()
    }

    /// A condition on rows.
    pub(crate) fn predicate(&self, expression: &Text, scope: &Scope) -> Result<Predicate, Fault> {
        self.guarded(expression, || {
            let logical = self.scalar(&expression.value, scope)?;
            let found = self.plan(&expression.value, scope, || logical.get_type(&scope.columns))?;
            if found != DataType::Boolean {
                return Err(Fault::new(format!("a filter is a condition (bool), this is {}", type_name(&found))));
            }
            let physical = self.physical(expression, &logical, scope)?;
            let columns = collect_columns(&physical).iter().map(Column::index).collect();
            Ok(Predicate { physical, columns, volatile: logical.is_volatile() })
        })
    }

    /// A column.
    pub(crate) fn column(&self, name: &str, expression: &Text, scope: &Scope) -> Result<Compiled, Fault> {
        self.guarded(expression, || {
            let logical = self.scalar(&expression.value, scope)?;
            if let Expr::Column(column) = &logical
                && let Ok(index) = scope.schema.index_of(&column.name)
            {
                let field = scope.schema.field(index).clone().with_name(name);
                return Ok(Compiled { physical: self.physical(expression, &logical, scope)?, field, bare: Some(index), volatile: false });
            }
            let found = self.plan(&expression.value, scope, || logical.get_type(&scope.columns))?;
            let logical = match plain_type(&found) {
                _ if found == DataType::Null => {
                    return Err(Fault::new("the expression is always null and has no type; write cast(null as ...)"));
                }
                Some(plain) => self.plan(&expression.value, scope, || self.simplifier(scope).simplify(cast(logical.clone(), plain)))?,
                None => logical,
            };
            let physical = self.physical(expression, &logical, scope)?;
            let field = self.plan(&expression.value, scope, || {
                Ok(Field::new(name, physical.data_type(&scope.schema)?, physical.nullable(&scope.schema)?))
            })?;
            Ok(Compiled { physical, field, bare: None, volatile: logical.is_volatile() })
        })
    }

    /// What an expression gives, unless it is wrong; a message never shows what a reference stands for.
    fn guarded<T>(&self, expression: &Text, compile: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        compile().map_err(|fault| {
            if expression.secret {
                Fault::new(format!("{:?} is no valid expression with what it refers to", expression.written))
            } else {
                fault
            }
        })
    }

    /// A logical expression of one row: coerced and simplified.
    fn scalar(&self, text: &str, scope: &Scope) -> Result<Expr, Fault> {
        let expr = self.parse(text, scope)?;
        refuse(&expr, true)?;
        self.plan(text, scope, || {
            let simplifier = self.simplifier(scope);
            let coerced = simplifier.coerce(plugin::bound(expr, &simplifier, &scope.columns)?, &scope.columns)?;
            constants::check(&coerced)?;
            simplifier.simplify(coerced)
        })
    }

    /// A logical expression, as written.
    fn parse(&self, text: &str, scope: &Scope) -> Result<Expr, Fault> {
        depth::check_text(text)?;
        let expr = self.plan(text, scope, || {
            let sql = DFParserBuilder::new(text).build()?.parse_into_expr()?;
            if sql.alias.is_some() {
                return Err(DataFusionError::Plan("the name of a column is its key, not an AS".to_owned()));
            }
            let options = ParserOptions::new().with_enable_ident_normalization(false).with_map_string_types_to_utf8view(false);
            SqlToRel::new_with_options(&self.functions, options).sql_to_expr(sql.expr, &scope.columns, &mut PlannerContext::new())
        })?;
        depth::check(&expr, text)?;
        Ok(expr)
    }

    fn simplifier(&self, scope: &Scope) -> ExprSimplifier {
        ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(&scope.columns)).build())
    }

    fn physical(&self, expression: &Text, logical: &Expr, scope: &Scope) -> Result<Arc<dyn PhysicalExpr>, Fault> {
        self.plan(&expression.value, scope, || {
            let physical = create_physical_expr(logical, &scope.columns, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
            // Computed for no rows: what is refused whatever the rows are, such as the part 'minut' of a time, is found now.
            physical.evaluate(&RecordBatch::new_empty(Arc::clone(&scope.schema)))?;
            evaluated::finished(physical, expression, &scope.schema)
        })
    }

    /// Runs a step of DataFusion.
    fn plan<T>(&self, text: &str, scope: &Scope, step: impl FnOnce() -> DataFusionResult<T>) -> Result<T, Fault> {
        step().map_err(|error| fault::translate(&error, text, &scope.schema, &self.functions))
    }
}

/// Refuses what SQL has and a row does not.
fn refuse(expr: &Expr, no_aggregates: bool) -> Result<(), Fault> {
    let mut wrong = None;
    // The closure does not fail, and so the walk does not.
    let _ = expr.apply(|inner| {
        wrong = match inner {
            Expr::AggregateFunction(call) if no_aggregates => {
                Some(format!("{}() is an aggregate function, which only aggregate: can compute", call.func.name()))
            }
            Expr::WindowFunction(_) => Some("OVER is not supported; use aggregate: with window:".to_owned()),
            Expr::Unnest(_) => Some("unnest() makes several rows of one, which an expression cannot".to_owned()),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                Some("queries inside of an expression are not supported".to_owned())
            }
            #[allow(deprecated, reason = "it is what the parser gives")]
            Expr::Wildcard { .. } if no_aggregates => Some("only count() takes *".to_owned()),
            Expr::Placeholder(_) => Some("placeholders are not supported; write the value".to_owned()),
            _ => None,
        };
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    wrong.map_or(Ok(()), |message| Err(Fault::new(message)))
}

/// The plain type that a computed column gets instead of a view, large or dictionary type: every part of the engine and every plugin takes it.
fn plain_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => Some(DataType::Utf8),
        DataType::BinaryView | DataType::LargeBinary => Some(DataType::Binary),
        DataType::Dictionary(_, value) => Some(plain_type(value).unwrap_or_else(|| value.as_ref().clone())),
        _ => None,
    }
}

/// A type as a pipeline file writes it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    standpipe_formats::types::type_text(&Field::new("", data_type.clone(), true))
}
#[cfg(test)]
mod aggregate_tests;
#[cfg(test)]
mod tests;
