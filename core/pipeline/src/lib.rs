//! A pipeline file becomes a validated, typed plan; and a plan becomes text for people.
//!
//! ```text
//! PipelineFile::read   file -> tree with places -> overrides, ${substitution} -> typed file      (yaml/, substitute, file/)
//!   .plugin_paths()    for the host, which makes the Catalogue of plugins
//!   .plan(catalogue)   names -> graph, verbs -> nodes, expressions -> DataFusion, chains, hash   (resolve, planner/, expression/, chain, hash)
//! guarantee::of        what each sink may be relied on to hold after a failure, and what weakens it                               (guarantee/)
//! explain::text        the plan for people;  schema::json_schema: the file for editors
//! ```
//!
//! Every error has its place: `pipeline.yaml:12:5: sinks.out.with: unknown key "pth", did you mean "path"?`, and all that are found are shown at once. Nothing here
//! runs a pipeline or does I/O but for reading the file and what `${file:...}` names. The host calls; the engine takes the [`plan::Plan`].
#![forbid(unsafe_code)]

mod chain;
mod config_check;
mod config_settings;
pub mod deployment;
mod diagnostic;
pub mod explain;
mod expression;
mod file;
pub mod guarantee;
mod hash;
pub mod lock;
mod modes;
pub mod placement;
pub mod plan;
mod planner;
mod resolve;
pub mod schema;
pub mod substitute;
mod suggest;
mod text;
pub mod units;
mod yaml;

pub use diagnostic::{Class, Diagnostic, Diagnostics};
pub use file::{Checkpoint, DiskState, EngineSetting, LoadOptions, Overridden, PipelineFile, Restart, RestartStrategy, StateBackend};
pub use plan::Plan;
pub use planner::{Defaults, Planned};
