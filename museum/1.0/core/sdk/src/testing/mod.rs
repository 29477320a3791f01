//! Runs an author's types as the host would, for unit tests: through the same C tables and the same checks, with a host that records, keyed state in memory, and
//! a clock that stands still until it is told to move.
//!
//! ```
//! # use standpipe_sdk::{Call, Context, Result, Transform, TransformDeclaration, TransformInput, transform::OutputDeclaration};
//! # use std::sync::Arc;
//! # #[derive(serde::Deserialize, schemars::JsonSchema)]
//! # struct PassConfig {}
//! # struct Pass;
//! # impl Transform for Pass {
//! #     const NAME: &'static str = "pass";
//! #     type Config = PassConfig;
//! #     fn declare(_: &PassConfig, input: &TransformInput) -> Result<TransformDeclaration> {
//! #         Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(input.only()?.schema.clone())], ..Default::default() })
//! #     }
//! #     fn open(_: PassConfig, _: &TransformInput, _: Context) -> Result<Self> { Ok(Self) }
//! #     fn process(&mut self, batch: arrow_array::RecordBatch, call: &mut Call<'_>) -> Result<()> { call.emit(batch) }
//! # }
//! use standpipe_sdk::testing::Harness;
//!
//! # fn main() -> Result<()> {
//! let numbers: arrow_array::ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![1, 2, 3]));
//! let batch = arrow_array::RecordBatch::try_from_iter([("number", numbers)])?;
//! let mut pass = Harness::transform::<Pass>(serde_json::json!({}), batch.schema());
//! assert_eq!(pass.process(&batch)?, [batch]);
//! # Ok(())
//! # }
//! ```

mod host;
mod memory;
mod service;
mod sink;
mod source;
mod transform;

pub use host::TestHost;
pub use memory::{Grouped, MemoryState};
pub use service::service;
pub use sink::SinkHarness;
pub use source::SourceHarness;
pub use transform::{BegunCall, TransformHarness};

use crate::{
    AggregateFunction, Deployment, ScalarFunction, Sink, Source, Transform,
    export::{self, Kind},
    hosting::{
        self, AggregateKind, DeploymentKind, InstanceContext, NodeInput, PluginError, ScalarKind, SinkKind, SourceKind, Tables,
        TransformKind,
    },
    wire::{InputDetails, KindDescription},
};
use arrow_schema::{DataType, Field, FieldRef, SchemaRef};
use serde_json::Value;
use std::sync::Arc;

/// Where a test begins.
pub struct Harness;

impl Harness {
    /// A source with its enumerator.
    #[must_use]
    pub fn source<S: Source>(config: Value) -> SourceHarness {
        SourceHarness::new(Self::source_kind::<S>(), config)
    }

    /// A transform with one input.
    #[must_use]
    pub fn transform<T: Transform>(config: Value, input: SchemaRef) -> TransformHarness {
        TransformHarness::new(Self::transform_kind::<T>(), config, input)
    }

    /// A sink for rows of that schema.
    #[must_use]
    pub fn sink<S: Sink>(config: Value, input: SchemaRef) -> SinkHarness {
        SinkHarness::new(Self::sink_kind::<S>(), config, input)
    }

    /// A scalar function, bound to arguments of these types. It is called with columns of the types that it wants: no host casts here.
    ///
    /// # Errors
    /// As the function says.
    pub fn scalar<F: ScalarFunction>(config: &Value, arguments: &[DataType]) -> Result<hosting::ScalarFunction, PluginError> {
        Self::scalar_kind::<F>().bind(config, &fields(arguments))
    }

    /// An aggregate function, as [`Harness::scalar`].
    ///
    /// # Errors
    /// As the function says.
    pub fn aggregate<F: AggregateFunction>(config: &Value, arguments: &[DataType]) -> Result<hosting::AggregateFunction, PluginError> {
        Self::aggregate_kind::<F>().bind(config, &fields(arguments))
    }

    /// A deployment mode: its kind, which makes instances with a [`TestHost`].
    #[must_use]
    pub fn deployment<D: Deployment>() -> DeploymentKind {
        made(Kind::deployment::<D>(), |description, tables| DeploymentKind::new("test", description, tables))
    }
}

impl Harness {
    /// The kind of a source, as a host has it.
    #[must_use]
    pub fn source_kind<S: Source>() -> SourceKind {
        made(Kind::source::<S>(), |description, tables| SourceKind::new("test", description, tables))
    }

    /// The kind of a transform.
    #[must_use]
    pub fn transform_kind<T: Transform>() -> TransformKind {
        made(Kind::transform::<T>(), |description, tables| TransformKind::new("test", description, tables))
    }

    /// The kind of a sink.
    #[must_use]
    pub fn sink_kind<S: Sink>() -> SinkKind {
        made(Kind::sink::<S>(), |description, tables| SinkKind::new("test", description, tables))
    }

    /// The kind of a scalar function.
    #[must_use]
    pub fn scalar_kind<F: ScalarFunction>() -> ScalarKind {
        made(Kind::scalar::<F>(), |description, tables| ScalarKind::new("test", description, tables))
    }

    /// The kind of an aggregate function.
    #[must_use]
    pub fn aggregate_kind<F: AggregateFunction>() -> AggregateKind {
        made(Kind::aggregate::<F>(), |description, tables| AggregateKind::new("test", description, tables))
    }
}

fn fields(types: &[DataType]) -> Vec<FieldRef> {
    let field = |(at, data_type): (usize, &DataType)| Arc::new(Field::new(format!("argument{at}"), data_type.clone(), true));
    types.iter().enumerate().map(field).collect()
}

#[allow(unsafe_code, clippy::expect_used, reason = "the tables of a Rust type are constants of this library, all members set")]
fn made<K>(kind: Kind, make: impl FnOnce(&KindDescription, &Tables<'_>) -> Result<K, String>) -> K {
    let kinds = [kind];
    let description = kinds[0].description();
    let find = |id: &str| export::table(&kinds, &description.name, id);
    // SAFETY: the tables are constants.
    make(&description, &unsafe { Tables::new(&find) }).expect("the tables of a Rust type are complete")
}

/// A subtask alone.
fn context() -> InstanceContext {
    InstanceContext {
        job_id: "0".repeat(32),
        job_name: "test".to_owned(),
        node: "node".to_owned(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        generation: 1,
        restored: false,
    }
}

fn input(schema: SchemaRef) -> NodeInput {
    NodeInput { schema, details: InputDetails { name: "input".to_owned(), ..Default::default() } }
}
