//! `validate`: the question as an author sees it, and the answer as the host reads it.

use super::{fill, guard, items};
use crate::{Config, Error, ErrorCode, Result, config, convert, wire, words};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use standpipe_abi::{self as abi, ArrowSchema, Buffer, Slice, Status, Validation, ValidationInput};

/// What a kind says about a configuration.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) details: wire::ValidationDetails,
    pub(super) outputs: Vec<SchemaRef>,
    pub(super) states: Vec<FieldRef>,
}

/// Reads the configuration as it is written, asks the author and writes the answer. What is wrong with the configuration becomes problems, not a failure.
///
/// # Safety
/// The pointers must be null or what [`abi::validate::ValidateFn`] says.
pub(super) unsafe fn validate<C: Config>(
    config: Slice,
    out: *mut Validation,
    error: *mut abi::Error,
    declare: impl FnOnce(&C) -> Result<Answer>,
) -> Status {
    let ask = || {
        // SAFETY: by the caller's word.
        let value = config::read(unsafe { config.as_bytes() })?;
        let answer = match config::parse::<C>(value) {
            Ok(config) => declare(&config).or_else(as_problem)?,
            Err(problems) => Answer { details: wire::ValidationDetails { problems, ..Default::default() }, ..Default::default() },
        };
        let outputs = answer.details.outputs.iter().map(|output| output.name.as_str()).zip(answer.outputs.iter().map(AsRef::as_ref));
        let outputs = convert::export_schemas(outputs)?;
        let state = if answer.states.is_empty() { ArrowSchema::empty() } else { convert::export_schema(&Schema::new(answer.states))? };
        let details = Buffer::from_vec(serde_json::to_vec(&answer.details)?);
        // SAFETY: as above.
        unsafe { fill(out, Validation { outputs, state, details, ..Validation::empty() }) }
    };
    guard("validate", error, ask).0
}

/// An error about the configuration is a problem like the others.
fn as_problem(error: Error) -> Result<Answer> {
    if error.code != ErrorCode::CONFIG {
        return Err(error);
    }
    let problems = vec![wire::Problem::from(error)];
    Ok(Answer { details: wire::ValidationDetails { problems, ..Default::default() }, ..Default::default() })
}

/// The inputs as the host passed them.
///
/// # Safety
/// `input` must be null or point to a [`ValidationInput`] whose schemas and slices are alive.
pub(super) unsafe fn inputs(input: *const ValidationInput) -> Result<(wire::ValidationInputDetails, Vec<SchemaRef>)> {
    // SAFETY: by the caller's word.
    let input = unsafe { abi::growing::read(input) }.map_err(Error::unusable("the host's validation input"))?;
    // SAFETY: as above.
    let details = unsafe { input.details.as_bytes() };
    let mut details = if details.is_empty() { wire::ValidationInputDetails::default() } else { words::input(details)? };
    // SAFETY: as above.
    let schemas = unsafe { items(input.inputs, input.n_inputs as usize) }?;
    let schemas = schemas.iter().map(|schema| unsafe { convert::import_schema(*schema) }).collect::<Result<Vec<_>>>()?;
    details.inputs.resize_with(schemas.len(), wire::InputDetails::default);
    Ok((details, schemas))
}
