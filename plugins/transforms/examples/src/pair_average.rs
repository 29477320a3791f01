//! `pair-average`: the average of each two consecutive values of a key. Pairs do not overlap: the first and the second value make one, the third and the fourth the
//! next; with `sliding` every value makes a pair with the one before it.
//!
//! It keeps the value that waits for its partner, one number per key, in the host's state.

use crate::{ALL_TYPES, Problems, numbers};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, UInt32Array, types::Float64Type};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow_select::take::take;
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Call, Context, Error, Result, Transform, TransformDeclaration, TransformInput,
    transform::{Capabilities, InputStream, OutputDeclaration, StateDeclaration, StateKind},
};
use std::{collections::HashSet, sync::Arc};

/// The state's place in the declaration.
const BEFORE: u32 = 0;
const PAIR_AVERAGE: &str = "pair_average";

/// Gives the average of each two consecutive values per key: the key, `pair_average` (float64), and the columns of `keep`.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct PairAverageConfig {
    /// The value: a number. A row where it is null is passed over.
    pub column: String,
    /// Whether pairs overlap: then every value but the first makes a pair with the one before it.
    #[serde(default)]
    pub sliding: bool,
    /// Further columns of the row that completes the pair.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// Averages pairs.
pub struct PairAverage {
    /// Places in the input.
    column: usize,
    keys: Vec<usize>,
    keep: Vec<usize>,
    sliding: bool,
    schema: SchemaRef,
}

impl Transform for PairAverage {
    const NAME: &'static str = "pair-average";
    type Config = PairAverageConfig;

    fn declare(config: &PairAverageConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let input = input.only()?;
        let mut problems = Problems::default();
        problems.append_only(input);
        if let Some(field) = problems.column("column", &input.schema, &config.column)
            && !numbers::is_number(field.data_type())
        {
            problems.add("column", format!("{:?} has the type {}, which is no number", config.column, field.data_type()));
        }
        for (index, name) in config.keep.iter().enumerate() {
            problems.column(&format!("keep[{index}]"), &input.schema, name);
        }
        let main = output_schema(config, input);
        let mut names = HashSet::new();
        for field in main.fields().iter().filter(|field| !names.insert(field.name())) {
            problems.add("", format!("two columns of the output would be called {:?}", field.name()));
        }
        let before = StateDeclaration {
            name: "before".to_owned(),
            kind: StateKind::Value,
            field: Arc::new(Field::new("before", DataType::Float64, true)),
            version: 1,
            time_to_live: None,
        };
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(main)],
            states: vec![before],
            requires_key: true,
            capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
            types: ALL_TYPES.to_vec(),
            problems: problems.0,
            ..TransformDeclaration::default()
        })
    }

    fn open(config: PairAverageConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let input = input.only()?;
        let place = |name: &String| input.schema.index_of(name);
        Ok(Self {
            column: place(&config.column)?,
            keys: input.key.iter().map(place).collect::<Result<_, _>>()?,
            keep: config.keep.iter().map(place).collect::<Result<_, _>>()?,
            sliding: config.sliding,
            schema: output_schema(&config, input),
        })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let values = numbers::as_float64(batch.column(self.column))?;
        let keys = call.keys().ok_or_else(|| Error::unsupported("pair-average needs key_by"))?;
        let before = call.value::<Float64Type>(BEFORE)?;
        let (mut rows, mut averages) = (Vec::new(), Vec::new());
        for ((row, key), value) in (0_u32..).zip(keys.key_of_row()).zip(&values) {
            let Some(value) = value else { continue };
            let first = before.get(*key);
            if let Some(first) = first {
                rows.push(row);
                // Halved first: the sum of two large values may be too large.
                averages.push(first / 2.0 + value / 2.0);
            }
            if first.is_none() || self.sliding {
                before.set(*key, value);
            } else {
                before.clear(*key);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(rows);
        let at_rows = |column: &usize| take(batch.column(*column), &rows, None);
        let mut columns: Vec<ArrayRef> = self.keys.iter().map(at_rows).collect::<Result<_, _>>()?;
        columns.push(Arc::new(Float64Array::from(averages)));
        for column in &self.keep {
            columns.push(at_rows(column)?);
        }
        call.emit(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// The key, the average, what is kept.
fn output_schema(config: &PairAverageConfig, input: &InputStream) -> SchemaRef {
    let field = |name: &String| input.schema.fields().find(name).map(|(_, field)| field.clone());
    let mut fields: Vec<FieldRef> = input.key.iter().filter_map(field).collect();
    fields.push(Arc::new(Field::new(PAIR_AVERAGE, DataType::Float64, false)));
    fields.extend(config.keep.iter().filter_map(field));
    Arc::new(Schema::new(fields))
}
