//! What the author of a Standpipe plugin depends on: ordinary Rust traits over Arrow batches, and one macro that exports them.
//!
//! ```
//! use standpipe_sdk::{Call, Context, Error, Result, Transform, TransformDeclaration, TransformInput};
//! use standpipe_sdk::transform::OutputDeclaration;
//!
//! /// Passes rows on as they are.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct PassConfig {}
//! struct Pass;
//!
//! impl Transform for Pass {
//!     const NAME: &'static str = "pass";
//!     type Config = PassConfig;
//!     fn declare(_: &PassConfig, input: &TransformInput) -> Result<TransformDeclaration> {
//!         let main = OutputDeclaration::main(input.only()?.schema.clone());
//!         Ok(TransformDeclaration { outputs: vec![main], ..Default::default() })
//!     }
//!     fn open(_: PassConfig, _: &TransformInput, _: Context) -> Result<Self> {
//!         Ok(Self)
//!     }
//!     fn process(&mut self, batch: arrow_array::RecordBatch, call: &mut Call<'_>) -> Result<()> {
//!         call.emit(batch)
//!     }
//! }
//!
//! standpipe_sdk::export_plugin! { transforms: [Pass] }
//! # fn main() {}
//! ```
//!
//! A panic in any of an author's functions becomes an error of that call with message and place; the instance is not called again. The traits are in [`source`],
//! [`transform`], [`sink`], [`function`] and [`deployment`]; [`testing`] runs them as the host would. [`glue`] turns them into the tables of `standpipe-abi` and [`hosting`] calls such tables:
//! the loader stands on it, and so do an author's tests.
#![deny(missing_docs)]

pub mod bundle;
pub mod call;
pub mod completion;
pub mod config;
pub mod context;
pub mod convert;
pub mod deployment;
pub mod error;
pub mod export;
pub mod function;
pub mod glue;
pub mod host;
pub mod hosting;
pub mod reducing;
pub mod sink;
pub mod source;
pub mod state;
pub mod testing;
pub mod transform;
pub mod units;
pub mod wire;
mod words;

pub use call::{Call, Keys};
pub use completion::Completion;
pub use config::{Config, Secret, is_reference};
pub use context::{CloseReason, Context};
pub use deployment::{Deployment, DeploymentDeclaration};
pub use error::{Error, Result};
pub use function::{Accumulator, AggregateFunction, Bound, ScalarFunction, Volatility};
pub use host::{Counter, Gauge, Histogram, Host, LogLevel, MetricKind, Rejection};
pub use reducing::ReducingState;
pub use sink::{Committable, Recovered, Sink, SinkDeclaration, SinkInput, Written};
pub use source::{Enumerator, Poll, PollLimits, SingleSplit, Source, SourceDeclaration, Split};
pub use standpipe_abi::{self as abi, ErrorCode};
pub use state::{BooleanState, ValueState};
pub use transform::{TimeDomain, Timer, Transform, TransformDeclaration, TransformInput};
