//! Whole files of Apache Parquet, by the parquet crate's Arrow writer: rows are collected and encoded in memory, and written out one row group at a time.
//!
//! Timestamps are instants: they are marked as adjusted to UTC, and those in seconds, which Parquet has not, are written in milliseconds.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic;
use parquet::file::properties::WriterProperties;

use crate::{Compression, FileEncoder, FormatError, FormatSpec, types};

/// A row group ends with so many bytes, as far as the writer can tell beforehand: readers take one at a time, and it is what a writer holds in memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// A value that does not fit is an error, never a null.
const STRICT: CastOptions = CastOptions { safe: false, format_options: arrow_cast::display::FormatOptions::new() };

/// Encodes one file.
pub(crate) struct ParquetEncoder {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl ParquetEncoder {
    pub(crate) fn new(spec: &FormatSpec, schema: &Schema) -> Result<Self, FormatError> {
        if schema.fields().is_empty() {
            return Err(FormatError::NoColumns("parquet"));
        }
        let fields = schema.fields().iter().map(|field| storable(field)).collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(Schema::new(fields));
        let compression = match spec.compression.unwrap_or_default() {
            Compression::None => basic::Compression::UNCOMPRESSED,
            Compression::Snappy => basic::Compression::SNAPPY,
            Compression::Zstd => basic::Compression::ZSTD(basic::ZstdLevel::default()),
        };
        let created_by = concat!("standpipe ", env!("CARGO_PKG_VERSION")).to_owned();
        let properties = WriterProperties::builder().set_compression(compression).set_created_by(created_by);
        let properties = properties.set_max_row_group_bytes(Some(ROW_GROUP_BYTES)).build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        Ok(Self { schema, writer })
    }

    /// Hands over what is written out.
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(self.writer.inner_mut());
    }
}

/// The field as the file has it.
fn storable(field: &Field) -> Result<Field, FormatError> {
    let data_type = match field.data_type() {
        DataType::Timestamp(unit, _) => {
            let unit = if *unit == TimeUnit::Second { TimeUnit::Millisecond } else { *unit };
            DataType::Timestamp(unit, Some("UTC".into()))
        }
        DataType::Interval(_) | DataType::Duration(_) | DataType::Union(..) | DataType::Null | DataType::RunEndEncoded(..) => {
            return Err(FormatError::ColumnType { format: "parquet", column: field.name().clone(), found: types::type_text(field) });
        }
        other => other.clone(),
    };
    // What a column is for in a pipeline means nothing in a file.
    Ok(Field::new(field.name(), data_type, field.is_nullable()))
}

/// A column in the type that the file has.
fn stored(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    match (column.data_type(), data_type) {
        // An instant is one whatever the zone is that it is shown in; a cast between zones would read it as a time of the calendar.
        (DataType::Timestamp(unit, _), DataType::Timestamp(stored, _)) => {
            let plain = retyped(column, DataType::Timestamp(*unit, None))?;
            retyped(&cast_with_options(&plain, &DataType::Timestamp(*stored, None), &STRICT)?, data_type.clone())
        }
        _ => cast_with_options(column, data_type, &STRICT),
    }
}

/// The same values under another type of the same layout.
fn retyped(column: &ArrayRef, data_type: DataType) -> Result<ArrayRef, ArrowError> {
    Ok(make_array(column.to_data().into_builder().data_type(data_type).build()?))
}

impl FileEncoder for ParquetEncoder {
    fn begin(&mut self, _: &mut Vec<u8>) -> Result<(), FormatError> {
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError> {
        if batch.num_columns() != self.schema.fields().len() {
            return Err(FormatError::Columns { expected: self.schema.fields().len(), found: batch.num_columns() });
        }
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| stored(column, field.data_type()));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_, _>>()?)?;
        self.writer.write(&batch)?;
        self.drain(out);
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.writer.in_progress_size()
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.writer.finish()?;
        self.drain(out);
        Ok(())
    }
}
