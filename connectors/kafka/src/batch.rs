//! Collects messages into columns: `value`, then the metadata asked for. One batch is of one partition. Called by `source` for every message; the batches go to the
//! host, which decodes `value` by the format.

use crate::values::{Metadata, MetadataColumns};
use arrow_array::{
    ArrayRef, Int32Array, RecordBatch, StringArray,
    builder::{BinaryBuilder, Int64Builder, MapBuilder, StringBuilder, TimestampMillisecondBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use standpipe_sdk::{Result, wire};
use std::{collections::HashMap, sync::Arc};

/// The columns of a batch.
#[must_use]
pub fn schema(columns: &MetadataColumns) -> SchemaRef {
    let value = Field::new(wire::VALUE_COLUMN, DataType::Binary, true);
    let metadata = columns.0.iter().map(|(kind, name)| {
        let (data_type, nullable, role) = match kind {
            Metadata::Key => (DataType::Binary, true, Some(wire::ROLE_KEY)),
            Metadata::Headers => (headers_type(), false, Some(wire::ROLE_HEADERS)),
            Metadata::Timestamp => (DataType::Timestamp(TimeUnit::Millisecond, None), true, None),
            Metadata::Partition => (DataType::Int32, false, None),
            Metadata::Offset => (DataType::Int64, false, Some(wire::ROLE_POSITION)),
            Metadata::Topic => (DataType::Utf8, false, None),
        };
        let role = role.map(|role| (wire::ROLE.to_owned(), role.to_owned()));
        Field::new(name, data_type, nullable).with_metadata(HashMap::from_iter(role))
    });
    Arc::new(Schema::new(std::iter::once(value).chain(metadata).collect::<Vec<_>>()))
}

/// The type that `MapBuilder` gives.
fn headers_type() -> DataType {
    let entry = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Binary, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry.into()), false)), false)
}

enum Column {
    Key(BinaryBuilder),
    Headers(Box<MapBuilder<StringBuilder, BinaryBuilder>>),
    Timestamp(TimestampMillisecondBuilder),
    Offset(Int64Builder),
    /// The same in the whole batch.
    Partition,
    Topic,
}

/// Messages on their way into a batch.
pub struct Collector {
    schema: SchemaRef,
    value: BinaryBuilder,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl Collector {
    /// An empty one.
    #[must_use]
    pub fn new(metadata: &MetadataColumns) -> Self {
        let columns = metadata.0.iter().map(|(kind, _)| match kind {
            Metadata::Key => Column::Key(BinaryBuilder::new()),
            Metadata::Headers => Column::Headers(Box::new(MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new()))),
            Metadata::Timestamp => Column::Timestamp(TimestampMillisecondBuilder::new()),
            Metadata::Offset => Column::Offset(Int64Builder::new()),
            Metadata::Partition => Column::Partition,
            Metadata::Topic => Column::Topic,
        });
        Self { schema: schema(metadata), value: BinaryBuilder::new(), columns: columns.collect(), rows: 0, bytes: 0 }
    }

    /// Messages so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes so far, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a message. A tombstone is a null value.
    pub fn push(&mut self, message: &BorrowedMessage<'_>) {
        self.rows += 1;
        self.bytes += message.payload_len();
        self.value.append_option(message.payload());
        for column in &mut self.columns {
            match column {
                Column::Key(key) => {
                    self.bytes += message.key_len();
                    key.append_option(message.key());
                }
                Column::Headers(headers) => self.bytes += push_headers(headers, message),
                Column::Timestamp(timestamp) => timestamp.append_option(message.timestamp().to_millis()),
                Column::Offset(offset) => offset.append_value(message.offset()),
                Column::Partition | Column::Topic => {}
            }
        }
    }

    /// The batch, of that partition; the collector is empty again.
    ///
    /// # Errors
    /// Never, as far as the schema is that of the columns.
    pub fn finish(&mut self, topic: &str, partition: i32) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let bytes = std::mem::take(&mut self.bytes);
        // The next batch is about as large.
        let value = std::mem::replace(&mut self.value, BinaryBuilder::with_capacity(rows, bytes)).finish();
        let metadata = self.columns.iter_mut().map(|column| -> ArrayRef {
            match column {
                Column::Key(key) => Arc::new(key.finish()),
                Column::Headers(headers) => Arc::new(headers.finish()),
                Column::Timestamp(timestamp) => Arc::new(timestamp.finish()),
                Column::Offset(offset) => Arc::new(offset.finish()),
                Column::Partition => Arc::new(Int32Array::from_value(partition, rows)),
                Column::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
            }
        });
        let columns = std::iter::once(Arc::new(value) as ArrayRef).chain(metadata).collect();
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// Adds a row; the bytes of its headers.
fn push_headers(builder: &mut MapBuilder<StringBuilder, BinaryBuilder>, message: &BorrowedMessage<'_>) -> usize {
    let mut bytes = 0;
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
        builder.keys().append_value(header.key);
        builder.values().append_option(header.value);
    }
    // Cannot fail: keys and values have been appended in pairs.
    let _ = builder.append(true);
    bytes
}
