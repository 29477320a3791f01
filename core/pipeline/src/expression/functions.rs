//! The functions that expressions know: DataFusion's scalar, nested and aggregate ones, clocks of our own, and those of plugins.
//!
//! DataFusion's `now()` is the time at which a query was planned, the same for every row; in a job that runs for months it must be the time of the batch.

use super::plugin::{PluginAggregate, PluginScalar};
use crate::plan::{FunctionKind, PluginFunction};
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::{DataFusionError, HashMap, Result, ScalarValue, TableReference, config::ConfigOptions, not_impl_err};
use datafusion_expr::{
    AggregateUDF, ColumnarValue, HigherOrderUDF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableSource, Volatility,
    WindowUDF,
    planner::{ContextProvider, ExprPlanner},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// What DataFusion asks for names.
pub(crate) struct Functions {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    plugins: BTreeMap<String, PluginFunction>,
    /// Those that are there and cannot be called, and why.
    refused: BTreeMap<String, String>,
    called: Mutex<BTreeSet<String>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Functions {
    pub(crate) fn new(plugins: Vec<PluginFunction>) -> Self {
        let clocks = [Clock::Now, Clock::Date].map(|clock| Arc::new(ScalarUDF::new_from_impl(ClockFunction::new(clock))));
        let theirs =
            datafusion_functions::all_default_functions().into_iter().chain(datafusion_functions_nested::all_default_nested_functions());
        let mut scalars = HashMap::new();
        // `current_time` and its like would be frozen at planning.
        for function in
            theirs.filter(|function| !matches!(function.name(), "now" | "current_date" | "current_time" | "today")).chain(clocks)
        {
            for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
                scalars.insert(name.to_owned(), Arc::clone(&function));
            }
        }
        let mut aggregates = HashMap::new();
        for function in datafusion_functions_aggregate::all_default_aggregate_functions() {
            for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
                aggregates.insert(name.to_owned(), Arc::clone(&function));
            }
        }
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
            Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        ];
        let is_new = |function: &PluginFunction| !scalars.contains_key(&function.name) && !aggregates.contains_key(&function.name);
        let mut named = BTreeMap::new();
        for function in plugins.into_iter().filter(is_new) {
            // The first of a name counts, as everywhere.
            named.entry(function.name.clone()).or_insert(function);
        }
        Self {
            scalars,
            aggregates,
            plugins: named,
            refused: BTreeMap::new(),
            called: Mutex::default(),
            planners,
            options: ConfigOptions::default(),
        }
    }

    /// Says of these why they cannot be called.
    pub(crate) fn refuse(&mut self, refused: BTreeMap<String, String>) {
        self.refused = refused;
    }

    /// Why a function that there is cannot be called.
    pub(crate) fn refusal(&self, name: &str) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    /// Whether there is a function of that name that is no plugin's.
    pub(crate) fn is_built_in(&self, name: &str) -> bool {
        self.scalars.contains_key(name) || self.aggregates.contains_key(name)
    }

    /// The functions of plugins that were asked for, by name.
    pub(crate) fn called(self) -> Vec<PluginFunction> {
        let called = self.called.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.plugins.into_iter().filter(|(name, _)| called.contains(name)).map(|(_, function)| function).collect()
    }

    /// The function of a plugin, which is called now.
    fn of_plugin(&self, name: &str) -> Option<&PluginFunction> {
        let function = self.plugins.get(name)?;
        self.called.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Some(function)
    }

    /// All names that can be called.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.scalars.keys().chain(self.aggregates.keys()).chain(self.plugins.keys()).map(String::as_str)
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, _: TableReference) -> Result<Arc<dyn TableSource>> {
        not_impl_err!("queries inside of an expression")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let of_plugin = || match self.of_plugin(name)? {
            PluginFunction { kind: FunctionKind::Scalar(kind), config, .. } => Some(Arc::new(PluginScalar::new(name, kind, config).into())),
            _ => None,
        };
        self.scalars.get(name).cloned().or_else(of_plugin)
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let of_plugin = || match self.of_plugin(name)? {
            PluginFunction { kind: FunctionKind::Aggregate(kind), config, .. } => {
                Some(Arc::new(PluginAggregate::new(name, kind, config).into()))
            }
            _ => None,
        };
        self.aggregates.get(name).cloned().or_else(of_plugin)
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Clock {
    Now,
    Date,
}

/// The time of the batch, UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    clock: Clock,
    signature: Signature,
    aliases: Vec<String>,
}

impl ClockFunction {
    fn new(clock: Clock) -> Self {
        let alias = match clock {
            Clock::Now => "current_timestamp",
            Clock::Date => "today",
        };
        Self { clock, signature: Signature::nullary(Volatility::Volatile), aliases: vec![alias.to_owned()] }
    }
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        match self.clock {
            Clock::Now => "now",
            Clock::Date => "current_date",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.clock {
            Clock::Now => DataType::Timestamp(TimeUnit::Microsecond, None),
            Clock::Date => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| DataFusionError::Execution(error.to_string()))?;
        Ok(ColumnarValue::Scalar(match self.clock {
            Clock::Now => ScalarValue::TimestampMicrosecond(i64::try_from(elapsed.as_micros()).ok(), None),
            Clock::Date => ScalarValue::Date32(i32::try_from(elapsed.as_secs() / 86_400).ok()),
        }))
    }
}
