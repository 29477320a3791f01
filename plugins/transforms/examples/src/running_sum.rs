//! `running-sum`: the sum of a column so far, by key, beside each row: what each team has been paid after each payment.
//!
//! It keeps one number per key in the host's reducing state. Sums are exact: of whole numbers as int64 or uint64, of decimals with all 38 digits. One that does not fit
//! ends the job instead of wrapping.

use crate::{ALL_TYPES, Problems, numbers};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, Decimal128Array, PrimitiveArray, RecordBatch,
    cast::AsArray,
    types::{Decimal128Type, Float64Type, Int64Type, UInt64Type},
};
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Call, Context, Error, Keys, Result, Transform, TransformDeclaration, TransformInput,
    transform::{Capabilities, InputStream, OutputDeclaration, StateDeclaration, StateKind},
};
use std::{fmt::Display, sync::Arc};

/// The state's place in the declaration.
const SUM: u32 = 0;
/// The largest number of 38 digits.
const MOST_DECIMAL: i128 = 10_i128.pow(DECIMAL128_MAX_PRECISION as u32) - 1;

fn default_output() -> String {
    "running_sum".to_owned()
}

/// Gives every row with the sum of a column so far over the rows of its key.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct RunningSumConfig {
    /// What is added up: a whole number (the sum is int64, of uint64 it is uint64), a decimal of up to 38 digits (38 digits, the same scale), or a float (float64). A
    /// row where it is null leaves the sum as it is.
    pub column: String,
    /// The name of the new column. It is null until the key has had a value.
    #[serde(default = "default_output")]
    pub output: String,
}

/// Adds up.
pub struct RunningSum {
    column: usize,
    name: String,
    data_type: DataType,
    schema: SchemaRef,
}

impl Transform for RunningSum {
    const NAME: &'static str = "running-sum";
    type Config = RunningSumConfig;

    fn declare(config: &RunningSumConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let input = input.only()?;
        let mut problems = Problems::default();
        problems.append_only(input);
        let mut data_type = DataType::Int64;
        if let Some(field) = problems.column("column", &input.schema, &config.column) {
            match sum_type(field.data_type()) {
                Some(found) => data_type = found,
                None => problems.add(
                    "column",
                    format!(
                        "{:?} has the type {}; the sum is of whole numbers, decimals of up to 38 digits or floats",
                        config.column,
                        field.data_type()
                    ),
                ),
            }
        }
        if input.schema.field_with_name(&config.output).is_ok() {
            problems.add("output", format!("the input has a column {:?} already", config.output));
        }
        let sum = StateDeclaration {
            name: "sum".to_owned(),
            kind: StateKind::Reducing,
            field: Arc::new(Field::new("sum", data_type.clone(), true)),
            version: 1,
            time_to_live: None,
        };
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(output_schema(config, input, data_type))],
            states: vec![sum],
            requires_key: true,
            capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
            types: ALL_TYPES.to_vec(),
            problems: problems.0,
            ..TransformDeclaration::default()
        })
    }

    fn open(config: RunningSumConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let input = input.only()?;
        let column = input.schema.index_of(&config.column)?;
        let found = input.schema.field(column).data_type();
        let data_type = sum_type(found).ok_or_else(|| Error::config("column", format!("there is no sum of {found}")))?;
        Ok(Self { column, schema: output_schema(&config, input, data_type.clone()), data_type, name: config.column })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let sums = self.sums(batch.column(self.column), call)?;
        let columns = batch.columns().iter().cloned().chain([sums]).collect();
        call.emit(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl RunningSum {
    fn sums(&self, column: &ArrayRef, call: &Call<'_>) -> Result<ArrayRef> {
        Ok(match &self.data_type {
            DataType::Int64 => Arc::new(self.add_up::<Int64Type>(&numbers::as_int64(column)?, call, i64::checked_add)?),
            DataType::UInt64 => Arc::new(self.add_up::<UInt64Type>(column.as_primitive(), call, u64::checked_add)?),
            DataType::Float64 => {
                let add = |a: f64, b: f64| Some(a + b).filter(|sum| sum.is_finite() || !a.is_finite() || !b.is_finite());
                Arc::new(self.add_up::<Float64Type>(&numbers::as_float64(column)?, call, add)?)
            }
            _ => {
                let add = |a: i128, b: i128| a.checked_add(b).filter(|sum| sum.unsigned_abs() <= MOST_DECIMAL.unsigned_abs());
                let sums: Decimal128Array = self.add_up::<Decimal128Type>(column.as_primitive(), call, add)?;
                Arc::new(sums.with_data_type(self.data_type.clone()))
            }
        })
    }

    fn add_up<T: ArrowPrimitiveType<Native: Display>>(
        &self,
        values: &PrimitiveArray<T>,
        call: &Call<'_>,
        add: impl Fn(T::Native, T::Native) -> Option<T::Native>,
    ) -> Result<PrimitiveArray<T>> {
        let keys = call.keys().ok_or_else(|| Error::unsupported("running-sum needs key_by"))?;
        let too_large = || Error::data(String::new());
        let sums = call.reducing::<T, _>(SUM, |sum, value| add(sum, value).ok_or_else(too_large))?;
        let add = |(key, value): (&u32, Option<T::Native>)| match value {
            Some(value) => sums.add(*key, value).map(Some).map_err(|_| self.overflow(keys, *key)),
            None => Ok(sums.get(*key)),
        };
        keys.key_of_row().iter().zip(values).map(add).collect()
    }

    fn overflow(&self, keys: &Keys<'_>, key: u32) -> Error {
        let text = |column: &ArrayRef| array_value_to_string(column, key as usize).unwrap_or_else(|error| error.to_string());
        let key = keys.batch().map(|batch| batch.columns().iter().map(text).collect::<Vec<_>>().join(", "));
        let key = key.unwrap_or_else(|error| error.message);
        Error::data(format!("the sum of {:?} for the key ({key}) is more than {} holds", self.name, self.data_type))
    }
}

/// The type of the sum of a column; `None`: there is none.
fn sum_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::UInt64 => Some(DataType::UInt64),
        DataType::Float32 | DataType::Float64 => Some(DataType::Float64),
        DataType::Decimal128(_, scale) => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
        other if other.is_integer() => Some(DataType::Int64),
        _ => None,
    }
}

/// The input's columns and the sum.
fn output_schema(config: &RunningSumConfig, input: &InputStream, data_type: DataType) -> SchemaRef {
    let sum: FieldRef = Arc::new(Field::new(&config.output, data_type, true));
    let fields: Vec<FieldRef> = input.schema.fields().iter().cloned().chain([sum]).collect();
    Arc::new(Schema::new_with_metadata(fields, input.schema.metadata().clone()))
}
