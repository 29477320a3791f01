//! `flag`: adds an int32 column that is 0 or 1, about equally often, and looks random, but is a hash of where the record stands in its source. So a replay gives
//! the same flags, and anyone can recompute them:
//!
//! ```text
//! z = seed XOR partition * 0x9E3779B97F4A7C15 XOR offset * 0xD1B54A32D192ED03       (64 bits, wrapping; negative numbers in two's complement)
//! z = (z XOR z >> 30) * 0xBF58476D1CE4E5B9
//! z = (z XOR z >> 27) * 0x94D049BB133111EB
//! flag = lowest bit of (z XOR z >> 31)
//! ```
//!
//! The last three lines are the output function of splitmix64.

use crate::{ALL_TYPES, Problems};
use arrow_array::{
    Array, ArrayRef, Int32Array, RecordBatch,
    cast::AsArray,
    types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Call, Context, Error, Result, Transform, TransformDeclaration, TransformInput,
    transform::{Capabilities, OutputDeclaration},
};
use std::sync::Arc;

/// Adds a column that is 0 or 1: a hash of the seed and of the record's partition and offset.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct FlagConfig {
    /// Another seed gives other flags.
    #[serde(default)]
    pub seed: u64,
    /// The column with the number of the partition, an integer. Without it all records are of partition 0.
    pub partition: Option<String>,
    /// The column with the record's place in the partition, an integer.
    #[serde(default = "default_offset")]
    pub offset: String,
    /// The name of the new column.
    #[serde(default = "default_output")]
    pub output: String,
}

fn default_offset() -> String {
    "offset".to_owned()
}

fn default_output() -> String {
    "flag".to_owned()
}

/// The flag of a record, as the module's documentation defines it.
#[must_use]
pub const fn flag_of(seed: u64, partition: i64, offset: i64) -> i32 {
    let z = seed ^ (partition as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (offset as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) & 1) as i32
}

/// Adds a column of flags.
pub struct Flag {
    seed: u64,
    /// Its place in the input.
    partition: Option<usize>,
    offset: usize,
    schema: SchemaRef,
}

impl Transform for Flag {
    const NAME: &'static str = "flag";
    type Config = FlagConfig;

    fn declare(config: &FlagConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let input = input.only()?;
        let mut problems = Problems::default();
        for (path, name) in [("partition", config.partition.as_ref()), ("offset", Some(&config.offset))] {
            if let Some(name) = name
                && let Some(field) = problems.column(path, &input.schema, name)
                && !field.data_type().is_integer()
            {
                problems.add(path, format!("{name:?} has the type {}, which is no integer", field.data_type()));
            }
        }
        if input.schema.field_with_name(&config.output).is_ok() {
            problems.add("output", format!("the input has a column {:?} already", config.output));
        }
        let mut main = OutputDeclaration::main(output_schema(&input.schema, &config.output));
        main.mode = input.mode;
        Ok(TransformDeclaration {
            outputs: vec![main],
            capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
            types: ALL_TYPES.to_vec(),
            problems: problems.0,
            ..TransformDeclaration::default()
        })
    }

    fn open(config: FlagConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let input = &input.only()?.schema;
        let partition = config.partition.map(|name| input.index_of(&name)).transpose()?;
        Ok(Self { seed: config.seed, partition, offset: input.index_of(&config.offset)?, schema: output_schema(input, &config.output) })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let offsets = integers(&batch, self.offset)?;
        let flags: Int32Array = match self.partition {
            None => offsets.iter().map(|offset| flag_of(self.seed, 0, *offset)).collect::<Vec<_>>().into(),
            Some(partition) => {
                let rows = integers(&batch, partition)?.into_iter().zip(offsets);
                rows.map(|(partition, offset)| flag_of(self.seed, partition, offset)).collect::<Vec<_>>().into()
            }
        };
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(flags));
        call.emit(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

fn output_schema(input: &Schema, output: &str) -> SchemaRef {
    let mut fields = input.fields().to_vec();
    fields.push(Arc::new(Field::new(output, DataType::Int32, false)));
    Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()))
}

/// A column of integers of any width.
fn integers(batch: &RecordBatch, column: usize) -> Result<Vec<i64>> {
    macro_rules! widen {
        ($column:expr, $type:ty) => {
            $column.as_primitive::<$type>().values().iter().map(|value| *value as i64).collect()
        };
    }
    let values: &ArrayRef = batch.column(column);
    if values.null_count() > 0 {
        let name = batch.schema_ref().field(column).name().clone();
        return Err(Error::data(format!("column {name:?} is null in a row: its flag cannot be told")));
    }
    Ok(match values.data_type() {
        DataType::Int8 => widen!(values, Int8Type),
        DataType::Int16 => widen!(values, Int16Type),
        DataType::Int32 => widen!(values, Int32Type),
        DataType::Int64 => widen!(values, Int64Type),
        DataType::UInt8 => widen!(values, UInt8Type),
        DataType::UInt16 => widen!(values, UInt16Type),
        DataType::UInt32 => widen!(values, UInt32Type),
        DataType::UInt64 => widen!(values, UInt64Type),
        other => return Err(Error::data(format!("a column of type {other} holds no integers"))),
    })
}
