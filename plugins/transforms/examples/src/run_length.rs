//! `run-length`: how long each run of flags is, by key. A run is a longest sequence of rows of one key whose flag is set; it is given when it ends, that is with the
//! first row whose flag is not set. A run that has not ended yet is not given.
//!
//! It keeps one number per key, in the host's state: the length of the run so far. So it survives restarts and changes of parallelism.

use crate::Problems;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Call, Context, Error, Result, Transform, TransformDeclaration, TransformInput,
    transform::{InputStream, StateKind},
};
use std::{collections::HashSet, sync::Arc};

/// The state's place in the declaration.
const LENGTH: u32 = 0;
/// The names of the columns after the key's.
const RUN_LENGTH: &str = "run_length";
const END_TIME: &str = "end_time";

/// Gives the length of each run of set flags per key, when it ends: the key, `run_length` (int64), with `time` also `end_time`, and the columns of `keep`.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct RunLengthConfig {
    /// The flag: a boolean, or a number, which is set if it is not 0. A row where it is null is passed over.
    pub column: String,
    /// A timestamp column; `end_time` is that of the row that ends the run.
    pub time: Option<String>,
    /// Further columns of the row that ends the run, such as its place in the source, which makes an id for the run.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// Measures runs.
pub struct RunLength {
    /// Places in the input.
    column: usize,
    keys: Vec<usize>,
    /// The time, then what is kept.
    behind: Vec<usize>,
    schema: SchemaRef,
}

impl Transform for RunLength {
    const NAME: &'static str = "run-length";
    type Config = RunLengthConfig;

    fn declare(config: &RunLengthConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let input = input.only()?;
        let mut problems = Problems::default();
        problems.append_only(input);
        if let Some(field) = problems.column("column", &input.schema, &config.column)
            && !is_flag(field.data_type())
        {
            problems
                .add("column", format!("{:?} has the type {}, which is neither a boolean nor a number", config.column, field.data_type()));
        }
        if let Some(name) = &config.time
            && let Some(field) = problems.column("time", &input.schema, name)
            && !matches!(field.data_type(), DataType::Timestamp(..))
        {
            problems.add("time", format!("{name:?} has the type {}, which is no timestamp", field.data_type()));
        }
        for (index, name) in config.keep.iter().enumerate() {
            problems.column(&format!("keep[{index}]"), &input.schema, name);
        }
        let main = output_schema(config, input);
        let mut names = HashSet::new();
        for field in main.fields().iter().filter(|field| !names.insert(field.name())) {
            problems.add("", format!("two columns of the output would be called {:?}", field.name()));
        }
        Ok(crate::keyed(main, "length", StateKind::Value, DataType::Int64, problems))
    }

    fn open(config: RunLengthConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let input = input.only()?;
        let place = |name: &String| input.schema.index_of(name);
        Ok(Self {
            column: place(&config.column)?,
            keys: input.key.iter().map(place).collect::<Result<_, _>>()?,
            behind: config.time.iter().chain(&config.keep).map(place).collect::<Result<_, _>>()?,
            schema: output_schema(&config, input),
        })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let flags = flags(batch.column(self.column))?;
        let keys = call.keys().ok_or_else(|| Error::unsupported("run-length needs key_by"))?;
        let runs = call.value::<Int64Type>(LENGTH)?;
        let (mut ends, mut lengths) = (Vec::new(), Vec::new());
        for ((row, key), flag) in (0_u32..).zip(keys.key_of_row()).zip(&flags) {
            match (flag, runs.get(*key)) {
                (Some(true), length) => runs.set(*key, length.unwrap_or(0) + 1),
                (Some(false), Some(length)) => {
                    ends.push(row);
                    lengths.push(length);
                    runs.clear(*key);
                }
                (Some(false), None) | (None, _) => {}
            }
        }
        if ends.is_empty() {
            return Ok(());
        }
        let lengths = Arc::new(Int64Array::from(lengths));
        call.emit(crate::with_column(&self.schema, &batch, ends, &self.keys, lengths, &self.behind)?)
    }
}

/// The key, the length, the time, what is kept.
fn output_schema(config: &RunLengthConfig, input: &InputStream) -> SchemaRef {
    let field = |name: &String| input.schema.fields().find(name).map(|(_, field)| field.clone());
    let mut fields: Vec<FieldRef> = input.key.iter().filter_map(field).collect();
    fields.push(Arc::new(Field::new(RUN_LENGTH, DataType::Int64, false)));
    if let Some(time) = config.time.as_ref().and_then(field) {
        fields.push(Arc::new(time.as_ref().clone().with_name(END_TIME)));
    }
    fields.extend(config.keep.iter().filter_map(field));
    Arc::new(Schema::new(fields))
}

fn is_flag(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Boolean | DataType::Float32 | DataType::Float64) || data_type.is_integer()
}

/// Which flags are set.
fn flags(column: &ArrayRef) -> Result<BooleanArray> {
    macro_rules! is_not_zero {
        ($type:ty, $zero:expr) => {
            BooleanArray::from_unary(column.as_primitive::<$type>(), |value| value != $zero)
        };
    }
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().clone(),
        DataType::Int8 => is_not_zero!(Int8Type, 0),
        DataType::Int16 => is_not_zero!(Int16Type, 0),
        DataType::Int32 => is_not_zero!(Int32Type, 0),
        DataType::Int64 => is_not_zero!(Int64Type, 0),
        DataType::UInt8 => is_not_zero!(UInt8Type, 0),
        DataType::UInt16 => is_not_zero!(UInt16Type, 0),
        DataType::UInt32 => is_not_zero!(UInt32Type, 0),
        DataType::UInt64 => is_not_zero!(UInt64Type, 0),
        DataType::Float32 => is_not_zero!(Float32Type, 0.0),
        DataType::Float64 => is_not_zero!(Float64Type, 0.0),
        other => return Err(Error::data(format!("a column of type {other} holds no flags"))),
    })
}
