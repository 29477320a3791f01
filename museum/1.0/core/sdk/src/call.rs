//! One call of a transform: where its batch came from, where its results go, the keys of its rows. The state behind the keys is in [`crate::state`].
//!
//! Methods take `&self`, so that handles of several states and `emit` can be used side by side. What is emitted and written takes effect when the call returns
//! `Ok`.
#![allow(unsafe_code, reason = "reads the host's key context")]

use crate::{Completion, Error, Host, Result, convert, transform::OutputDeclaration, transform::StateDeclaration};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use standpipe_abi::{
    ErrorCode, growing,
    state::{KeyContext, StateTable},
};
use std::{cell::OnceCell, marker::PhantomData, sync::Arc};

/// One call of a transform.
pub struct Call<'a> {
    pub(crate) input: usize,
    pub(crate) watermark: Option<i64>,
    pub(crate) host: &'a Host,
    pub(crate) outputs: &'a Arc<[OutputDeclaration]>,
    pub(crate) states: &'a [StateDeclaration],
    pub(crate) keys: Option<Keys<'a>>,
    pub(crate) later: Later,
}

/// Whether a call may end later, by the host's token of it.
pub(crate) enum Later {
    /// It is none of `process`.
    NotHere,
    /// The node has `key_by`.
    Keyed,
    /// The transform has not declared it.
    Undeclared,
    /// By that token.
    May(u64),
    /// The completion was taken.
    Will,
}

impl<'a> Call<'a> {
    /// The input that the call is about, from 0.
    #[must_use]
    pub const fn input(&self) -> usize {
        self.input
    }

    /// The lowest of the inputs' watermarks, microseconds since the epoch; `None` before all inputs have one.
    #[must_use]
    pub const fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// Gives a batch to the main output.
    ///
    /// # Errors
    /// When its columns are not those that were declared.
    pub fn emit(&self, batch: RecordBatch) -> Result<()> {
        self.emit_to(0, batch)
    }

    /// Gives a batch to an output by its position in the declaration.
    ///
    /// # Errors
    /// When there is no such output, or the batch's columns are not those that were declared.
    pub fn emit_to(&self, output: usize, batch: RecordBatch) -> Result<()> {
        check_emitted(self.outputs, output, &batch)?;
        self.host.emit(output as u32, &mut convert::export_batch(batch), 0)
    }

    /// Has the call end later than it returns, when [`Completion`] says so. What the call itself emits comes first.
    ///
    /// # Errors
    /// In a node with `key_by`, in any call but `process`, for a second time, and where [`crate::TransformDeclaration::asynchronous`] is not declared.
    pub fn completion(&mut self) -> Result<Completion> {
        let why = match std::mem::replace(&mut self.later, Later::Will) {
            Later::May(token) => return Ok(Completion::new(self.host.clone(), Arc::clone(self.outputs), token)),
            Later::Will => "the completion of this call was taken before",
            other => {
                self.later = other;
                match self.later {
                    Later::Keyed => "a call of a node with key_by cannot end later: its keyed state is of one call",
                    Later::Undeclared => "a call can end later if the transform has declared `asynchronous`",
                    _ => "only a call of `process` can end later",
                }
            }
        };
        Err(Error::unsupported(why))
    }

    /// The keys of the batch or of the timers; `None` in a node without `key_by`, and in `on_watermark` and `finish`.
    #[must_use]
    pub const fn keys(&self) -> Option<&Keys<'a>> {
        self.keys.as_ref()
    }

    /// The keys, or the error that a keyed transform would give.
    pub(crate) fn keyed(&self) -> Result<&Keys<'a>> {
        self.keys
            .as_ref()
            .ok_or_else(|| Error::unsupported("there is no keyed state in this call: the node has no key_by, or the call has no rows"))
    }
}

/// The distinct keys of a batch. A key is named by its ordinal, from 0, in this call.
pub struct Keys<'a> {
    context: KeyContext,
    pub(crate) state: StateTable,
    schema: SchemaRef,
    batch: OnceCell<RecordBatch>,
    call: PhantomData<&'a KeyContext>,
}

impl<'a> Keys<'a> {
    /// The keys that the host passed, or `None` for null.
    ///
    /// # Safety
    /// `context` must be null or point to a key context that is valid for `'a`.
    pub(crate) unsafe fn from_abi(context: *const KeyContext, schema: &SchemaRef) -> Result<Option<Self>> {
        // SAFETY: null or valid, by the caller's word; so are the tables that it points to.
        if context.is_null() {
            return Ok(None);
        }
        let context = unsafe { growing::read(context) }.map_err(Error::unusable("the host's key context"))?;
        let state = unsafe { growing::read(context.state) }.map_err(Error::unusable("the state table of the host's key context"))?;
        if context.key_of_row.is_null() && context.rows > 0 {
            return Err(Error::new(ErrorCode::OUT_OF_RANGE, "the host's key context has no ordinals"));
        }
        Ok(Some(Self { context, state, schema: schema.clone(), batch: OnceCell::new(), call: PhantomData }))
    }

    /// Distinct keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.context.n_keys as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.context.n_keys == 0
    }

    /// For each row of the batch, or each timer, the ordinal of its key.
    #[must_use]
    pub const fn key_of_row(&self) -> &'a [u32] {
        if self.context.rows == 0 {
            return &[];
        }
        // SAFETY: not null (checked in `from_abi`), `rows` ordinals, valid for the call.
        unsafe { std::slice::from_raw_parts(self.context.key_of_row, self.context.rows) }
    }

    /// The columns of `key_by`, one row per distinct key.
    ///
    /// # Errors
    /// When the host's batch is not what it said.
    pub fn batch(&self) -> Result<&RecordBatch> {
        if let Some(batch) = self.batch.get() {
            return Ok(batch);
        }
        // SAFETY: null or the host's batch of this call, which a plugin may move out; a second time finds it in the cell.
        let array = unsafe { standpipe_abi::Batch::take_from(self.context.keys) }.map_err(Error::unusable("the host's batch of keys"))?;
        // SAFETY: an array of the key's columns, by contract.
        let batch = unsafe { convert::import_batch(array, &self.schema) }?;
        Ok(self.batch.get_or_init(|| batch))
    }
}

/// Whether there is that output, and the batch is one of it.
pub(crate) fn check_emitted(outputs: &[OutputDeclaration], output: usize, batch: &RecordBatch) -> Result<()> {
    let Some(declared) = outputs.get(output) else {
        return Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no output {output}, only {}", outputs.len())));
    };
    check_columns(&format_args!("output {:?}", declared.name), &declared.schema, batch)
}

/// Whether a batch has the declared columns: it crosses without a schema, so the types must be the same.
pub(crate) fn check_columns(what: &dyn std::fmt::Display, declared: &SchemaRef, batch: &RecordBatch) -> Result<()> {
    let schema = batch.schema_ref();
    if std::sync::Arc::ptr_eq(declared, schema) {
        return Ok(());
    }
    if declared.fields.len() != schema.fields.len() {
        return Err(Error::data(format!("{what}: a batch has {} columns, {} are declared", schema.fields.len(), declared.fields.len())));
    }
    for (declared, field) in declared.fields.iter().zip(&schema.fields) {
        if declared.data_type() != field.data_type() || declared.name() != field.name() {
            return Err(Error::data(format!(
                "{what}: a batch has the column {:?} of type {} where {:?} of type {} is declared",
                field.name(),
                field.data_type(),
                declared.name(),
                declared.data_type()
            )));
        }
    }
    Ok(())
}
