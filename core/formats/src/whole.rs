//! The bytes of whole files, for a sink that writes files: what stands before the first row, rows, what stands behind the last one. The sink cuts files when it wants,
//! with an encoder for each. Called by sinks, not by the engine, which knows records alone.

use arrow_array::{Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef};

use crate::{Encoder, FormatError, FormatKind, FormatSpec, csv, encoder, parquet::ParquetEncoder};

/// Encodes the rows of one file.
pub trait FileEncoder: Send {
    /// Appends what stands before the first row.
    ///
    /// # Errors
    /// When it has no form in the format.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), FormatError>;

    /// Takes rows, and appends what there is of the file now; the rest comes later.
    ///
    /// # Errors
    /// When the batch's columns are not those that the encoder was made for.
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError>;

    /// Bytes that the rows in memory will take, about.
    fn buffered(&self) -> usize;

    /// Appends the rest of the file. Nothing follows.
    ///
    /// # Errors
    /// When something does not fit the format.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), FormatError>;
}

/// Makes the encoder of a file. The records of a format that has records are lines of it.
///
/// # Errors
/// When the format cannot hold the schema.
pub fn file_encoder(spec: &FormatSpec, schema: &SchemaRef) -> Result<Box<dyn FileEncoder>, FormatError> {
    Ok(match spec.kind {
        FormatKind::Parquet => Box::new(ParquetEncoder::new(spec, schema)?),
        FormatKind::Raw | FormatKind::Json | FormatKind::Csv => Box::new(Lines::new(spec, schema)?),
    })
}

/// Records, each with a newline behind it.
struct Lines {
    head: Vec<u8>,
    encoder: Box<dyn Encoder>,
}

impl Lines {
    fn new(spec: &FormatSpec, schema: &SchemaRef) -> Result<Self, FormatError> {
        let head = head(spec, schema)?;
        Ok(Self { head, encoder: encoder(&FormatSpec { header: None, ..spec.clone() }, schema.clone())? })
    }
}

fn head(spec: &FormatSpec, schema: &Schema) -> Result<Vec<u8>, FormatError> {
    if spec.kind != FormatKind::Csv || spec.header != Some(true) {
        return Ok(Vec::new());
    }
    let mut head = csv::header(spec, schema)?;
    head.push(b'\n');
    Ok(head)
}

impl FileEncoder for Lines {
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        out.extend_from_slice(&self.head);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let records = self.encoder.encode(batch)?;
        out.reserve(records.value_data().len() + records.len());
        for record in &records {
            out.extend_from_slice(record.unwrap_or_default());
            out.push(b'\n');
        }
        Ok(())
    }

    fn buffered(&self) -> usize {
        0
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), FormatError> {
        Ok(())
    }
}
