//! Example transforms and functions, one for each way to write one: [`split_words`] makes many rows of one, [`flag`] adds a column, [`run_length`] and [`pair_average`] keep a value
//! by key, [`running_sum`] a reduced one. And functions for expressions: [`names`] is scalar, [`weighted_avg`] aggregates.
//!
//! All are pure: their output depends on their input rows alone, so that what a pipeline must give can be computed elsewhere by plain code. The pipelines of
//! the repository's `examples/` use them.
#![deny(unsafe_code)]

pub mod flag;
pub mod names;
mod numbers;
pub mod pair_average;
pub mod run_length;
pub mod running_sum;
pub mod split_words;
pub mod weighted_avg;

pub use flag::Flag;
pub use names::Names;
pub use pair_average::PairAverage;
pub use run_length::RunLength;
pub use running_sum::RunningSum;
pub use split_words::SplitWords;
pub use weighted_avg::WeightedAvg;

standpipe_sdk::export_plugin! { transforms: [SplitWords, Flag, RunLength, PairAverage, RunningSum], scalars: [Names], aggregates: [WeightedAvg] }

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::take::take;
use standpipe_sdk::{
    Result, TransformDeclaration,
    config::closest,
    transform::{Capabilities, ChangeMode, InputStream, OutputDeclaration, StateDeclaration, StateKind, TypeClass},
    wire::Problem,
};
use std::sync::Arc;

/// All type classes, for transforms that pass other columns on as they are.
const ALL_TYPES: [TypeClass; 6] =
    [TypeClass::Dictionary, TypeClass::Large, TypeClass::View, TypeClass::ListView, TypeClass::RunEnd, TypeClass::Nested];

/// What is wrong with a configuration and its input.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into(), suggestion: None });
    }

    /// The column that a value of the configuration names.
    fn column<'a>(&mut self, path: &str, schema: &'a Schema, name: &str) -> Option<&'a Field> {
        let found = schema.field_with_name(name).ok();
        if found.is_none() {
            let suggestion = closest(name, schema.fields().iter().map(|field| field.name().as_str())).map(str::to_owned);
            let message = format!("the input has no column {name:?}");
            self.0.push(Problem { path: path.to_owned(), message, suggestion });
        }
        found
    }

    fn append_only(&mut self, input: &InputStream) {
        if input.mode != ChangeMode::Append {
            self.add("", format!("takes an append stream, but {} changes rows that it has given before", input.name));
        }
    }
}

/// The declaration of a transform by key that has one output and one state.
fn keyed(output: SchemaRef, state: &str, kind: StateKind, data_type: DataType, problems: Problems) -> TransformDeclaration {
    let field = Arc::new(Field::new(state, data_type, true));
    TransformDeclaration {
        outputs: vec![OutputDeclaration::main(output)],
        states: vec![StateDeclaration { name: state.to_owned(), kind, field, version: 1, time_to_live: None }],
        requires_key: true,
        capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
        types: ALL_TYPES.to_vec(),
        problems: problems.0,
        ..TransformDeclaration::default()
    }
}

/// Some rows of a batch with a new column: `before` of the input, the new one, `behind` of the input.
fn with_column(
    schema: &SchemaRef,
    batch: &RecordBatch,
    rows: Vec<u32>,
    before: &[usize],
    new: ArrayRef,
    behind: &[usize],
) -> Result<RecordBatch> {
    let rows = UInt32Array::from(rows);
    let at_rows = |column: &usize| take(batch.column(*column), &rows, None);
    let mut columns: Vec<ArrayRef> = before.iter().map(at_rows).collect::<Result<_, _>>()?;
    columns.push(new);
    for column in behind {
        columns.push(at_rows(column)?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
