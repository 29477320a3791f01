//! Rows for people and for machines. A binary value that is text is shown as text, another one as `0x...`: positions and snapshots of plugins are bytes.

use super::tables::Listed;
use crate::{
    cli::StateFormat,
    exit::{Code, Failure},
    output::{columns, write},
};
use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    csv,
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
    util::display::{ArrayFormatter, FormatOptions},
};
use std::{fmt::Write, sync::Arc};

/// Prints the rows of a query as they come; a table for people when all are there, for its columns' widths.
pub(in crate::commands) struct Printer {
    format: StateFormat,
    header: Vec<String>,
    /// Of the text form.
    lines: Vec<Vec<String>>,
    has_begun: bool,
}

impl Printer {
    pub(in crate::commands) fn new(schema: &Schema, format: StateFormat) -> Self {
        let header = schema.fields().iter().map(|field| field.name().clone()).collect();
        Self { format, header, lines: Vec::new(), has_begun: false }
    }

    /// More rows; false: nobody reads them.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> anyhow::Result<bool> {
        Ok(write(&self.rows(batch)?)?)
    }

    /// What is printed of these rows now.
    pub(in crate::commands) fn rows(&mut self, batch: &RecordBatch) -> anyhow::Result<String> {
        let batch = readable(batch).map_err(|error| unprintable(&error))?;
        let text = match self.format {
            StateFormat::Text => {
                self.lines.extend(cells(&batch).map_err(|error| unprintable(&error))?);
                return Ok(String::new());
            }
            StateFormat::Json => json(&batch),
            StateFormat::Csv => {
                let header = !std::mem::replace(&mut self.has_begun, true);
                csv_text(&batch, header)
            }
        };
        text.map_err(|error| unprintable(&error))
    }

    /// There are no more.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        Ok(write(&self.rest()?).map(drop)?)
    }

    /// What is printed at the end.
    pub(in crate::commands) fn rest(self) -> anyhow::Result<String> {
        Ok(match self.format {
            StateFormat::Text => columns(&self.header, &self.lines),
            // A query without rows has columns all the same.
            StateFormat::Csv if !self.has_begun => {
                let fields: Vec<Field> = self.header.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
                let empty = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
                csv_text(&empty, true).map_err(|error| unprintable(&error))?
            }
            StateFormat::Csv | StateFormat::Json => String::new(),
        })
    }
}

/// The tables of a checkpoint.
pub(super) fn list(tables: &[Listed], format: StateFormat) -> anyhow::Result<()> {
    let of = |table: &Listed| {
        let of_column = |column: &super::tables::Column| format!("{} {}", column.name, column.r#type);
        let of_columns = table.columns.iter().map(of_column).collect::<Vec<_>>().join(", ");
        vec![table.table.clone(), table.rows.to_string(), table.bytes.to_string(), of_columns]
    };
    let text = match format {
        StateFormat::Text => columns(&["TABLE", "ROWS", "BYTES", "COLUMNS"].map(str::to_owned), &tables.iter().map(of).collect::<Vec<_>>()),
        StateFormat::Json => {
            let lines = tables.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            lines.iter().fold(String::new(), |text, line| text + line + "\n")
        }
        StateFormat::Csv => {
            let column =
                |at: usize| Arc::new(tables.iter().map(|table| Some(of(table).swap_remove(at))).collect::<StringArray>()) as ArrayRef;
            let names = ["table", "rows", "bytes", "columns"];
            let batch = RecordBatch::try_from_iter((0..names.len()).map(|at| (names[at], column(at))))?;
            csv_text(&batch, true)?
        }
    };
    write(&text)?;
    Ok(())
}

fn unprintable(error: &ArrowError) -> anyhow::Error {
    Failure::error(Code::Failed, format!("the rows cannot be printed: {error}"))
}

/// Binary columns as text.
fn readable(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let bytes = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => value.iter().fold("0x".to_owned(), |mut text, byte| {
            // Writing to a text does not fail.
            _ = write!(text, "{byte:02x}");
            text
        }),
    };
    let shown = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Binary => Arc::new(column.as_binary::<i32>().iter().map(|value| value.map(bytes)).collect::<StringArray>()),
            _ => Arc::clone(column),
        }
    };
    let columns: Vec<ArrayRef> = batch.columns().iter().map(shown).collect();
    let fields =
        batch.schema_ref().fields().iter().zip(&columns).map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

/// Every value as text; null is nothing.
fn formatters(batch: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>, ArrowError> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new();
    batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &OPTIONS)).collect()
}

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let formatters = formatters(batch)?;
    let line = |row: usize| formatters.iter().map(|column| column.value(row).try_to_string().map(|text| one_line(&text))).collect();
    (0..batch.num_rows()).map(line).collect()
}

/// A value may hold what a terminal would act upon.
fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

fn json(batch: &RecordBatch) -> Result<String, ArrowError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    String::from_utf8(writer.into_inner()).map_err(|error| ArrowError::JsonError(error.to_string()))
}

/// Lists, structs and maps are texts, too: CSV has nothing else for them.
fn csv_text(batch: &RecordBatch, header: bool) -> Result<String, ArrowError> {
    let formatters = formatters(batch)?;
    let text = |(column, formatter): (&ArrayRef, &ArrayFormatter<'_>)| -> Result<ArrayRef, ArrowError> {
        let value = |row: usize| column.is_valid(row).then(|| formatter.value(row).try_to_string()).transpose();
        Ok(Arc::new((0..column.len()).map(value).collect::<Result<StringArray, _>>()?))
    };
    let columns = batch.columns().iter().zip(&formatters).map(text).collect::<Result<Vec<_>, _>>()?;
    let fields = batch.schema_ref().fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let texts = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
    let mut out = Vec::new();
    csv::WriterBuilder::new().with_header(header).build(&mut out).write(&texts)?;
    String::from_utf8(out).map_err(|error| ArrowError::CsvError(error.to_string()))
}
