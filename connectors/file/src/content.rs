//! What a sink gets, and what becomes of it: records, which are written as they are, or rows of a format of whole files, which it encodes itself.

use arrow_array::{Array, BinaryArray, RecordBatch, cast::AsArray};
use arrow_schema::{Schema, SchemaRef};
use standpipe_formats::{FileEncoder, FormatKind, FormatSpec, file_encoder};
use standpipe_sdk::{Error, Result, SinkInput};

/// What a sink writes.
pub(crate) enum Content {
    /// The first column of a batch, each record with a newline behind it or not.
    Records { newline: bool },
    /// All columns.
    Rows { spec: FormatSpec, schema: SchemaRef },
}

/// The pipeline's `format`.
pub(crate) fn format_of(input: &SinkInput) -> Result<FormatSpec> {
    match &input.format {
        None => Ok(FormatKind::Json.into()),
        Some(format) => serde_json::from_value(format.clone())
            .map_err(|error| Error::unsupported(format!("a format that this plugin does not know: {error}"))),
    }
}

/// The columns of the rows, in `open`: of records the first column is the record, and none of the row's.
pub(crate) fn columns(input: &SinkInput, spec: &FormatSpec) -> Schema {
    let records = usize::from(spec.of_files().is_none());
    Schema::new(input.schema.fields().iter().skip(records).cloned().collect::<Vec<_>>())
}

impl Content {
    pub(crate) fn new(input: &SinkInput, newline: bool) -> Result<Self> {
        let spec = format_of(input)?;
        Ok(match spec.of_files() {
            Some(_) => Self::Rows { spec, schema: input.schema.clone() },
            None => Self::Records { newline },
        })
    }

    /// What encodes the rows of one file; records are encoded already.
    pub(crate) fn encoder(&self) -> Result<Option<Box<dyn FileEncoder>>> {
        match self {
            Self::Records { .. } => Ok(None),
            Self::Rows { spec, schema } => Ok(Some(file_encoder(spec, schema)?)),
        }
    }

    /// Whether a file that was cut somewhere between two rows can be written on.
    pub(crate) fn is_text(&self) -> bool {
        match self {
            Self::Records { .. } => true,
            Self::Rows { spec, .. } => spec.kind != FormatKind::Parquet,
        }
    }

    /// What stands behind each record.
    pub(crate) fn newline(&self) -> &'static [u8] {
        if matches!(self, Self::Records { newline: true }) { b"\n" } else { b"" }
    }
}

/// Appends the records of a batch, or some of them, each with `newline` behind it.
pub(crate) fn append_records(batch: &RecordBatch, rows: Option<&[u32]>, newline: &[u8], to: &mut Vec<u8>) -> Result<()> {
    let records = records(batch)?;
    let mut add = |record: Option<&[u8]>| {
        // A record that is null (a tombstone) has no bytes; its line stays empty.
        to.extend_from_slice(record.unwrap_or_default());
        to.extend_from_slice(newline);
    };
    match rows {
        None => records.iter().for_each(add),
        Some(rows) => rows.iter().map(|row| *row as usize).for_each(|row| add(records.is_valid(row).then(|| records.value(row)))),
    }
    Ok(())
}

/// The records of a batch.
fn records(batch: &RecordBatch) -> Result<&BinaryArray> {
    let values = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
    values.ok_or_else(|| Error::data("a batch of records must begin with a binary column"))
}
