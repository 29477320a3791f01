//! Example transforms, one for each way to write one: [`split_words`] makes many rows of one, [`flag`] adds a column, [`run_length`] and [`pair_average`] keep a value
//! by key, [`running_sum`] a reduced one.
//!
//! All are pure: their output depends on their input rows alone, so that what a pipeline must give can be computed elsewhere by plain code. The pipelines of
//! the repository's `examples/` use them.
#![deny(unsafe_code)]

pub mod flag;
mod numbers;
pub mod pair_average;
pub mod run_length;
pub mod running_sum;
pub mod split_words;

pub use flag::Flag;
pub use pair_average::PairAverage;
pub use run_length::RunLength;
pub use running_sum::RunningSum;
pub use split_words::SplitWords;

standpipe_sdk::export_plugin! { transforms: [SplitWords, Flag, RunLength, PairAverage, RunningSum] }

use arrow_schema::{Field, Schema};
use standpipe_sdk::{
    config::closest,
    transform::{ChangeMode, InputStream, TypeClass},
    wire::Problem,
};

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
