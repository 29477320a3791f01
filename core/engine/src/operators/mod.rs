//! What the nodes of a plan do with batches, watermarks and time: deterministic, without threads, clocks or timely. The dataflow makes them here and drives them
//! ([`crate::operator::Operator`]); tests drive them alone.
//!
//! `stateless`: filter, project, encode, union; `decode` behind a source's reader; [`window`] and [`aggregate`] keyed, on the worker; `transform` a plugin's, on
//! its task thread. Keys and state are `standpipe_state`'s.

pub mod aggregate;
pub(crate) mod decode;
pub(crate) mod stateless;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod transform;
pub mod window;

use crate::operator::{Operator, OperatorError, Snapshot};
use arrow::{
    datatypes::{Fields, SchemaRef},
    error::ArrowError,
};
use datafusion_common::DataFusionError;
use decode::Decode;
use standpipe_isolation::{Launcher, Maker};
use standpipe_loader::{HostServices, InstanceContext};
use standpipe_pipeline::plan::{Node, Operator as Kind, Plan, SourceNode, StateBackend};
use standpipe_state::{KeyGroupRange, KeyedStates, scratch::Scratch};
use stateless::{Encode, Filter, Project, Stateless, Union};
use std::sync::Arc;

/// The decoding of a source, if it gives records.
///
/// # Errors
/// When the format cannot hold the columns.
pub(crate) fn decode(node: &Node, source: &SourceNode) -> Result<Option<Decode>, OperatorError> {
    let Some(step) = &source.decode else { return Ok(None) };
    Decode::new(&node.path, step, output(node, 0)?, output(node, 1)?).map(Some)
}

/// A step without state, as it is fused behind another node.
///
/// # Errors
/// When the node is no such step.
pub(crate) fn stateless(node: &Node) -> Result<Box<dyn Operator>, OperatorError> {
    Ok(match &node.operator {
        Kind::Filter(filter) => Box::new(Stateless(Filter::new(&node.path, filter))),
        Kind::Project(project) => Box::new(Stateless(Project::new(&node.path, project, output(node, 0)?))),
        Kind::Encode(encode) => Box::new(Stateless(Encode::new(&node.path, encode, output(node, 0)?))),
        Kind::Union => Box::new(Stateless(Union)),
        Kind::Source(_) | Kind::Transform(_) | Kind::Window(_) | Kind::Aggregate(_) | Kind::Sink(_) => {
            return Err(data_error(&node.path, "it cannot be fused behind another node"));
        }
    })
}

/// An operator that runs on an engine worker.
///
/// # Errors
/// When the node is a source, a sink or a plugin's transform, or cannot work.
pub(crate) fn operator(plan: &Plan, node: &Node) -> Result<Box<dyn Operator>, OperatorError> {
    let settings = &plan.settings;
    Ok(match &node.operator {
        Kind::Window(window) => Box::new(window::Window::new(&node.path, window, &input(plan, node)?, output(node, 0)?, settings)?),
        Kind::Aggregate(aggregate) => {
            Box::new(aggregate::Aggregate::new(&node.path, aggregate, &input(plan, node)?, output(node, 0)?, settings)?)
        }
        _ => return stateless(node),
    })
}

/// A plugin's transform, created and opened, for the subtask that `context` names; `scratch` is for its keyed state, where the plan wants that on disk, `launcher` for its
/// process, where it wants one. To be called on its task thread.
///
/// # Errors
/// As the plugin says, and when its keyed state cannot be held.
pub(crate) fn transform(
    plan: &Plan,
    node: &Node,
    context: &InstanceContext,
    host: Arc<dyn HostServices>,
    launcher: &Launcher,
    scratch: Option<Arc<Scratch>>,
) -> Result<transform::Transform, OperatorError> {
    let Kind::Transform(transform) = &node.operator else { return Err(data_error(&node.path, "it is no transform")) };
    let keyed = !transform.keys.is_empty();
    let apart = transform.isolation.as_ref().map(|limits| (launcher, limits));
    let maker = Maker { apart, config: &transform.config, context, host: Arc::clone(&host) };
    let mut instance = maker.transform(&transform.kind, &node.path, &transform.inputs, keyed)?;
    instance.open()?;
    let schema = if keyed { Some(input(plan, node)?) } else { None };
    let on_disk = match (&plan.state, scratch) {
        (StateBackend::Disk(disk), Some(scratch)) => {
            let cache = usize::try_from(disk.cache).unwrap_or(usize::MAX);
            Some(transform::OnDisk { scratch, name: format!("{}-{}", node.path, context.subtask), cache })
        }
        _ => None,
    };
    transform::Transform::new(&node.path, instance, schema, &transform.keys, host, plan.settings.max_parallelism, on_disk)
}

/// Whether a plugin's transform takes this keyed state, without the plugin.
///
/// # Errors
/// When it does not.
pub(crate) fn try_out(plan: &Plan, node: &Node, parts: &[Snapshot], owned: KeyGroupRange) -> Result<(), OperatorError> {
    let Kind::Transform(transform) = &node.operator else { return Err(data_error(&node.path, "it is no transform")) };
    if transform.keys.is_empty() {
        return Ok(());
    }
    let schema = input(plan, node)?;
    let fields: Fields = transform.keys.iter().map(|key| Arc::clone(&schema.fields()[*key])).collect();
    let states = KeyedStates::new(fields, &transform.validation.states, plan.settings.max_parallelism);
    let mut states = states.map_err(|error| data_error(&node.path, error))?;
    parts.iter().try_for_each(|part| states.restore(&part.tables, owned, 0).map(drop)).map_err(|error| data_error(&node.path, error))
}

/// The schema of an output.
fn output(node: &Node, at: usize) -> Result<SchemaRef, OperatorError> {
    let output = node.outputs.get(at).map(|output| Arc::clone(&output.schema));
    output.ok_or_else(|| data_error(&node.path, format!("the plan gives it no output {at}")))
}

/// The schema of what a node reads.
fn input(plan: &Plan, node: &Node) -> Result<SchemaRef, OperatorError> {
    let edge = plan.inputs(node.id).next().ok_or_else(|| data_error(&node.path, "the plan gives it no input"))?;
    output(plan.node(edge.from), edge.output as usize)
}

fn data_error(node: &str, message: impl ToString) -> OperatorError {
    OperatorError::Data { node: node.to_owned(), message: message.to_string() }
}

fn arrow_error(node: &str, source: ArrowError) -> OperatorError {
    OperatorError::Arrow { node: node.to_owned(), source }
}

fn expression_error(node: &str, source: DataFusionError) -> OperatorError {
    OperatorError::Expression { node: node.to_owned(), source }
}
