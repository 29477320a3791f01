//! What checks of scalar and aggregate functions have in common: arguments that the function takes, and columns of them.

use crate::{
    check::{Outcome, Stop, refused_or_taken},
    configuration as config,
    data::{Random, column},
    suite::{Settings, Unusable},
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use serde_json::Value;
use standpipe_sdk::{ErrorCode, hosting::PluginError, wire::Problem};
use std::sync::Arc;

/// Arguments at most that are tried.
const MOST: usize = 3;

/// Types that are tried for arguments, the likeliest first.
fn types() -> Vec<DataType> {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    vec![
        DataType::Float64,
        DataType::Int64,
        DataType::Utf8,
        timestamp,
        DataType::Boolean,
        DataType::Date32,
        DataType::Binary,
        DataType::Int32,
    ]
}

/// Arguments as an expression has them.
pub(crate) fn fields(types: &[DataType]) -> Vec<FieldRef> {
    let field = |(at, data_type): (usize, &DataType)| Arc::new(Field::new(format!("argument{at}"), data_type.clone(), true));
    types.iter().enumerate().map(field).collect()
}

/// Types of arguments that the function takes: those asked for, or the first that it does.
pub(crate) fn arguments<T>(
    settings: &Settings,
    bind: impl Fn(&[FieldRef]) -> Result<T, PluginError>,
) -> Result<(Vec<DataType>, T), Unusable> {
    if let Some(types) = &settings.arguments {
        let bound = bind(&fields(types)).map_err(|error| Unusable(error.to_string()))?;
        return Ok((types.clone(), bound));
    }
    let mut last = None;
    for count in [1, 2, 3, 0].into_iter().filter(|count| *count <= MOST) {
        for types in combinations(&types(), count) {
            match bind(&fields(&types)) {
                Ok(bound) => return Ok((types, bound)),
                Err(error) => last = Some(error),
            }
        }
    }
    let why = last.map_or_else(String::new, |error| error.to_string());
    Err(Unusable(format!(
        "takes none of the arguments that were tried: name their types (--arguments int64,string); the last it said is: {why}"
    )))
}

fn combinations(types: &[DataType], count: usize) -> Vec<Vec<DataType>> {
    (0..count).fold(vec![Vec::new()], |before, _| {
        before.iter().flat_map(|taken| types.iter().map(|next| taken.iter().cloned().chain([next.clone()]).collect())).collect()
    })
}

/// Columns of the types that a function wants, of that many rows.
pub(crate) fn columns<'a>(wanted: impl Iterator<Item = &'a DataType>, rows: usize, random: &mut Random) -> Result<Vec<ArrayRef>, Stop> {
    wanted.enumerate().map(|(at, data_type)| column(&Field::new(format!("argument{at}"), data_type.clone(), true), rows, random)).collect()
}

/// Columns of nulls.
pub(crate) fn null_columns<'a>(wanted: impl Iterator<Item = &'a DataType>, rows: usize) -> Vec<ArrayRef> {
    wanted.map(|data_type| arrow_array::new_null_array(data_type, rows)).collect()
}

/// Rows of columns, cut out.
pub(crate) fn cut(columns: &[ArrayRef], from: usize, rows: usize) -> Vec<ArrayRef> {
    columns.iter().map(|column| column.slice(from, rows)).collect()
}

/// The check `configuration` of a function: its `bind` is what reads it.
pub(crate) fn configuration<T>(
    settings: &Settings,
    schema: &Value,
    types: &[DataType],
    bind: impl Fn(&Value, &[FieldRef]) -> Result<T, PluginError>,
) -> Outcome {
    let given = fields(types);
    let problems = |bytes: &[u8]| -> Result<Vec<Problem>, PluginError> {
        let config: Value = serde_json::from_slice(bytes).unwrap_or_default();
        match bind(&config, &given) {
            Ok(_) => Ok(Vec::new()),
            // A function has no list of problems: the first one is its error.
            Err(error) if error.code == ErrorCode::PANIC => Err(error),
            Err(error) => Ok(vec![Problem { message: error.message, ..Problem::default() }]),
        }
    };
    config::wrong_ones(&settings.config, schema, false, &problems)
}

/// Whether a column is what was bound: its type, and no nulls where there may be none. The host has checked its length.
pub(crate) fn honest(what: &str, result: &Field, column: &ArrayRef) -> Result<(), Stop> {
    let data = column.to_data();
    data.validate_full().map_err(|error| Stop::fail(format!("{what} is no valid Arrow: {error}")))?;
    if column.data_type() != result.data_type() {
        return Err(Stop::fail(format!("{what} is {}, and {} was bound", column.data_type(), result.data_type())));
    }
    if !result.is_nullable() && column.null_count() > 0 {
        return Err(Stop::fail(format!("{what} has {} nulls, and was bound as never null", column.null_count())));
    }
    Ok(())
}

/// Arguments of which hardly any function takes all: an answer, or an error.
pub(crate) fn odd_arguments<T>(settings: &Settings, bind: impl Fn(&Value, &[FieldRef]) -> Result<T, PluginError>) -> Outcome {
    let odd = [
        Vec::new(),
        vec![DataType::Null],
        vec![DataType::Int64; 40],
        vec![DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))],
        vec![DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))],
        vec![DataType::Struct(fields(&[DataType::Int8, DataType::Utf8]).into())],
        vec![DataType::Decimal128(38, 10), DataType::Utf8View, DataType::LargeBinary],
    ];
    let mut taken = 0;
    for types in &odd {
        let shown = types.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        taken += usize::from(refused_or_taken(&format!("bind to ({shown})"), bind(&settings.config, &fields(types)))?.is_some());
    }
    Ok(format!("{} odd lists of arguments: {taken} taken, the others refused with a line", odd.len()))
}

/// A column as texts.
pub(crate) fn texts(column: &ArrayRef) -> Result<Vec<String>, Stop> {
    let batch = arrow_array::RecordBatch::try_from_iter([("result", Arc::clone(column))]);
    crate::rows::texts(&batch.map_err(|error| Stop::fail(error.to_string()))?)
}
