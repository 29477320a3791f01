//! `validate`: the one call in which schemas cross. It does no I/O, so that `standpipe check` can make it anywhere.

use crate::{
    arrow_c::ArrowSchema,
    error::{Error, Status},
    value::{Buffer, Slice},
};

/// What a node would get.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ValidationInput {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// Inputs of the node; 0 for a source.
    pub n_inputs: u32,
    /// One struct-typed schema per input, borrowed for the call.
    pub inputs: *const *const ArrowSchema,
    /// A JSON object: `{"inputs": [{"name": "readings", "mode": "append", "key": ["host"]}], "keyed": true, "node": "runs"}`.
    pub details: Slice,
}

/// What the node will do with it. The schemas are moved to the host.
#[repr(C)]
pub struct Validation {
    /// Bytes of this struct that the host knows.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// A struct type with one struct-typed child per output, in order; the first is the main one. Empty for a sink.
    pub outputs: ArrowSchema,
    /// A struct type with one child per declared state, in order: the field of the value
    /// (value, reducing), of the items (list), or a struct of `key` and `value` (map).
    pub state: ArrowSchema,
    /// A JSON object: outputs' names and modes, states' kinds, capabilities, what a sink wants, and every error found at once. Its members are
    /// those of `standpipe_sdk::wire::ValidationDetails`; they evolve freely, an unknown one is ignored.
    pub details: Buffer,
}

impl Validation {
    /// An empty one, as the host passes it.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            reserved: 0,
            outputs: ArrowSchema::empty(),
            state: ArrowSchema::empty(),
            details: Buffer::EMPTY,
        }
    }
}

impl Default for Validation {
    fn default() -> Self {
        Self::empty()
    }
}

/// Checks a configuration (a JSON object) against the inputs. Wrong values are reported in `details.problems`, all at once; [`Status::ERROR`] is for what cannot go on.
pub type ValidateFn = unsafe extern "C" fn(config: Slice, input: *const ValidationInput, out: *mut Validation, error: *mut Error) -> Status;
