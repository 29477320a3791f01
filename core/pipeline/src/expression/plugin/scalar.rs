//! Scalar functions.

use super::{Callable, refused, signature, untold};
use arrow_schema::{DataType, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use serde_json::Value;
use standpipe_loader::{ScalarFunction, ScalarKind, Volatility as Told};
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A function by the name that it has in the pipeline.
#[derive(Debug, Clone)]
pub(in crate::expression) struct PluginScalar {
    name: String,
    kind: ScalarKind,
    config: Arc<Value>,
    bound: Option<Arc<ScalarFunction>>,
    signature: Signature,
}

impl PluginScalar {
    pub(in crate::expression) fn new(name: &str, kind: &ScalarKind, config: &Value) -> Self {
        let signature = signature(Volatility::Volatile);
        Self { name: name.to_owned(), kind: kind.clone(), config: Arc::new(config.clone()), bound: None, signature }
    }

    fn bind(&self, arguments: &[FieldRef]) -> Result<Arc<ScalarFunction>> {
        match &self.bound {
            Some(bound) => Ok(Arc::clone(bound)),
            None => self.kind.bind(&self.config, arguments).map(Arc::new).map_err(|error| refused(&self.name, error)),
        }
    }

    /// The function for arguments of these types, which is as volatile as it says.
    pub(super) fn bound(&self, arguments: &[FieldRef]) -> Result<Self> {
        let bound = self.bind(arguments)?;
        // DataFusion computes what is stable when it plans; here each process and each start of a job plans for itself.
        let volatility = match bound.volatility() {
            Told::Immutable => Volatility::Immutable,
            Told::Stable | Told::Volatile => Volatility::Volatile,
        };
        let signature = signature(volatility);
        Ok(Self { bound: Some(bound), signature, ..self.clone() })
    }
}

impl Callable for PluginScalar {
    fn name(&self) -> &str {
        &self.name
    }

    fn wanted(&self) -> Vec<DataType> {
        self.bound.iter().flat_map(|bound| bound.arguments()).cloned().collect()
    }
}

impl PartialEq for PluginScalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.config == other.config
            && self.bound.as_ref().map(Arc::as_ptr) == other.bound.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for PluginScalar {}

impl Hash for PluginScalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for PluginScalar {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(self.bind(&untold(types))?.arguments().cloned().collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.bind(&untold(types))?.result().data_type().clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(self.bind(arguments.arg_fields)?.result().clone()))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let function = self.bind(&arguments.arg_fields)?;
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let computed = function.invoke(&columns, rows).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(ColumnarValue::Array(computed))
    }
}
