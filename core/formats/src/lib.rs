//! Bytes to Arrow record batches and back: the formats `raw`, `json`, `csv` and `parquet`, and the text form of column types.
//!
//! A source that hands out encoded records (one per row) gets a [`Decoder`], a sink that takes encoded records an [`Encoder`]; both work on a
//! whole batch per call. A sink that writes files of a format that is more than its records (`parquet`, `csv` with a header) takes rows and a
//! [`FileEncoder`] of its own. A decoder never fails on a broken record: it reports it in [`Decoded::broken`] and leaves nothing of it in the batch;
//! what then happens (fail, skip, dead-letter) and the counting are the engine's. This crate does no I/O and knows no pipeline file: the
//! pipeline crate reads [`FormatSpec`] and the types ([`types::parse_field`]), the engine calls decoder and encoder.
//!
//! The Arrow type says what a column holds. How a timestamp is written is not part of it and travels in the field's metadata: see [`TEXT_KEY`].

#![forbid(unsafe_code)]

mod block;
mod csv;
pub mod ipc;
mod json;
mod parquet;
mod raw;
mod records;
mod spec;
pub mod template;
mod temporal;
pub mod time_format;
pub mod types;
mod whole;

pub use spec::{Compression, FormatKind, FormatSpec, OnError, OnNull};
pub use whole::{FileEncoder, file_encoder};

use arrow_array::{Array, BinaryArray, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, DataType, SchemaRef};

/// Field metadata key that says how a timestamp column is written as text. With the value [`TEXT_ISO`] it is ISO 8601 text; without the key it
/// is an epoch number in the unit of the Arrow type.
pub const TEXT_KEY: &str = "standpipe.text";

/// The value of [`TEXT_KEY`] for ISO 8601 text.
pub const TEXT_ISO: &str = "iso";

/// Why a decoder or encoder cannot be made, or a whole batch cannot be handled. A broken record is none of these.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// `raw` has exactly one column.
    #[error("the format raw has exactly one column, but the schema has {0}")]
    RawColumns(usize),
    /// The format has no form for a column's type.
    #[error("column {column:?}: the format {format} cannot hold the type {found}")]
    ColumnType {
        /// The format's name.
        format: &'static str,
        /// The column's path: `a.b` for a field of a struct.
        column: String,
        /// The type, as [`types::type_text`] writes it.
        found: String,
    },
    /// A row without columns has no form.
    #[error("the format {0} needs at least one column")]
    NoColumns(&'static str),
    /// An option of the format has no meaning.
    #[error("{option}: {message}")]
    Option {
        /// The format's name.
        format: &'static str,
        /// The option.
        option: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The format has no form for a record alone.
    #[error("the format {format} is one of whole files, not of records: {why}")]
    OfFiles {
        /// The format's name.
        format: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Records come as a binary or string column.
    #[error("encoded records must be a binary or string column, not {0}")]
    Records(DataType),
    /// A batch does not have the columns the encoder was made for.
    #[error("the encoder was made for {expected} columns, but the batch has {found}")]
    Columns {
        /// Columns of the encoder's schema.
        expected: usize,
        /// Columns of the batch.
        found: usize,
    },
    /// Arrow's offsets are 32-bit: a batch of records holds less than 2 GiB.
    #[error("a batch of encoded records must be smaller than 2 GiB: use smaller batches")]
    BatchTooLarge,
    /// Arrow refused an array.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The writer of Parquet files refused something.
    #[error(transparent)]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// The result of decoding one column of records.
#[derive(Debug)]
pub struct Decoded {
    /// The rows of the records that could be decoded, in their order.
    pub batch: RecordBatch,
    /// For each row of `batch` the row of the input it came from, ascending; `None` when it is all of them.
    pub kept: Option<UInt32Array>,
    /// The records that could not be decoded, in their order.
    pub broken: Vec<Broken>,
}

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The record's row in the input.
    pub row: u32,
    /// What is wrong, for people: `column "ts": expected an epoch number, found "abc" at byte 31`. Bytes count from 0.
    pub reason: String,
}

/// Decodes encoded records into batches of one schema. It keeps memory and what it learnt about the records' layout between calls.
pub trait Decoder: Send {
    /// Decodes a column of records (binary, string; plain, large or view), one record per row. What a null record (a tombstone) is, [`OnNull`] says.
    ///
    /// # Errors
    /// When `records` is of another type or holds 2 GiB or more; never because of a broken record.
    fn decode(&mut self, records: &dyn Array) -> Result<Decoded, FormatError>;
}

/// Encodes batches of one schema into records.
pub trait Encoder: Send {
    /// Encodes each row into one record. String columns may come in any of Arrow's forms (plain, large, view, dictionary).
    ///
    /// # Errors
    /// When the batch's columns are not those the encoder was made for, or the records would take 2 GiB or more.
    fn encode(&mut self, batch: &RecordBatch) -> Result<BinaryArray, FormatError>;
}

/// Makes the decoder of a source. Columns are nullable by default; a record without a value for a column that is not is broken.
///
/// # Errors
/// When the format cannot hold the schema.
pub fn decoder(spec: &FormatSpec, schema: SchemaRef) -> Result<Box<dyn Decoder>, FormatError> {
    Ok(match spec.kind {
        FormatKind::Raw => Box::new(raw::RawDecoder::new(schema, spec.on_null)?),
        FormatKind::Json => Box::new(json::JsonDecoder::new(schema, spec.on_null)?),
        FormatKind::Csv => Box::new(csv::CsvDecoder::new(spec, schema)?),
        FormatKind::Parquet => return Err(FormatError::OfFiles { format: "parquet", why: "a source gives records" }),
    })
}

/// Makes the encoder of a sink.
///
/// # Errors
/// When the format cannot hold the schema.
pub fn encoder(spec: &FormatSpec, schema: SchemaRef) -> Result<Box<dyn Encoder>, FormatError> {
    match (spec.kind, spec.of_files()) {
        (_, Some(why)) => Err(FormatError::OfFiles { format: spec.kind.name(), why }),
        (FormatKind::Raw, None) => Ok(Box::new(raw::RawEncoder::new(&schema)?)),
        (FormatKind::Csv, None) => Ok(Box::new(csv::CsvEncoder::new(spec, &schema)?)),
        // Parquet is of files always.
        (FormatKind::Json | FormatKind::Parquet, None) => Ok(Box::new(json::JsonEncoder::new(&schema)?)),
    }
}
