//! `exhibit-serial`: unkeyed, with a snapshot, and an output besides the main one.

use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::transform::{Capabilities, ChangeMode, OutputDeclaration};
use standpipe_sdk::{Call, Context, Result, Transform, TransformDeclaration, TransformInput};
use std::sync::Arc;

/// Numbers the rows; those whose column is null go to the output `without`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialConfig {
    /// The column.
    pub column: String,
}

pub struct Serial {
    column: usize,
    next: i64,
    main: SchemaRef,
}

fn main_schema(input: &Schema) -> SchemaRef {
    let serial = Arc::new(Field::new("serial", DataType::Int64, false));
    Arc::new(Schema::new(input.fields().iter().cloned().chain([serial]).collect::<Vec<_>>()))
}

impl Transform for Serial {
    const NAME: &'static str = "exhibit-serial";
    type Config = SerialConfig;

    fn declare(config: &SerialConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let schema = &input.only()?.schema;
        schema.index_of(&config.column)?;
        let without = OutputDeclaration { name: "without".to_owned(), schema: Arc::clone(schema), mode: ChangeMode::Append };
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(main_schema(schema)), without],
            capabilities: Capabilities::default(),
            ..TransformDeclaration::default()
        })
    }

    fn open(config: SerialConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let schema = &input.only()?.schema;
        Ok(Self { column: schema.index_of(&config.column)?, next: 0, main: main_schema(schema) })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let column = batch.column(self.column);
        let (with, without): (Vec<bool>, Vec<bool>) = (0..batch.num_rows()).map(|row| (column.is_valid(row), column.is_null(row))).unzip();
        let without = filter_record_batch(&batch, &BooleanArray::from(without))?;
        if without.num_rows() > 0 {
            call.emit_to(1, without)?;
        }
        let with = filter_record_batch(&batch, &BooleanArray::from(with))?;
        let rows = with.num_rows() as i64;
        let mut columns = with.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(self.next..self.next + rows)) as ArrayRef);
        self.next += rows;
        call.emit(RecordBatch::try_new(Arc::clone(&self.main), columns)?)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(self.next.to_string().into_bytes())
    }

    fn restore(&mut self, parts: &[&[u8]]) -> Result<()> {
        for part in parts {
            self.next = self.next.max(String::from_utf8_lossy(part).parse()?);
        }
        Ok(())
    }
}
