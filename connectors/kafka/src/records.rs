//! Batches as records: for every row its key, value, partition, timestamp and headers. Both ways of delivery read batches through it; the host has encoded the values.

use crate::{
    headers::{HeaderColumn, RowHeaders},
    key::Keys,
};
use arrow_array::{
    Array, BinaryArray, RecordBatch, StringArray,
    cast::AsArray,
    types::{
        Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer},
};
use standpipe_sdk::{Error, Result, wire::VALUE_COLUMN};

/// The largest that a record of so many bytes becomes in a batch of its own: Kafka's batch header (61 bytes), the record's own lengths and deltas (5 + 1 + 10 + 5 + 5 + 5
/// + 5 at most). A little more, for the lengths in front of the headers.
const OVERHEAD: usize = 128;

/// Which columns of a batch make its records, beside `value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Of the key; none: no record has one.
    pub key: Vec<String>,
    /// See [`crate::SinkConfig::partition`].
    pub partition: Option<String>,
    /// See [`crate::SinkConfig::timestamp`].
    pub timestamp: Option<String>,
    /// See [`crate::SinkConfig::headers`].
    pub headers: Option<String>,
    /// The row kind, where deletes are to be tombstones.
    pub row_kind: Option<String>,
}

impl Columns {
    /// All names, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let single = [&self.partition, &self.timestamp, &self.headers, &self.row_kind];
        let mut names: Vec<String> = Vec::new();
        for name in self.key.iter().chain(single.into_iter().flatten()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

/// A row on its way to librdkafka.
pub struct Record<'a> {
    /// `None`: no key.
    pub key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// `None`: the key decides.
    pub partition: Option<i64>,
    /// Milliseconds since the epoch; `None`: the time of sending.
    pub timestamp: Option<i64>,
    /// `None`: it has none.
    pub headers: Option<RowHeaders<'a>>,
}

/// What librdkafka said to a record.
pub enum Sent {
    /// Taken.
    Taken,
    /// Its queue is full.
    Full,
    /// Never: the record is at fault.
    Refused(String),
}

impl Record<'_> {
    /// The bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// The most that it can be in a request, before compression.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.bytes() + self.headers.as_ref().map_or(0, RowHeaders::largest) + OVERHEAD
    }

    /// Gives it to a producer.
    ///
    /// # Errors
    /// The producer takes no record at all.
    pub fn send<C>(&self, producer: &ThreadedProducer<C>, topic: &str, tag: usize) -> Result<Sent, KafkaError>
    where
        C: ProducerContext<NoCustomPartitioner, DeliveryOpaque = usize> + 'static,
    {
        let mut sent = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, tag);
        sent.key = self.key;
        sent.payload = self.value;
        sent.timestamp = self.timestamp;
        sent.headers = self.headers.as_ref().map(RowHeaders::owned);
        sent.partition = match self.partition.map(i32::try_from) {
            None => None,
            Some(Ok(partition)) if partition >= 0 => Some(partition),
            Some(_) => return Ok(Sent::Refused(self.no_partition())),
        };
        let Err((error, _)) = producer.send(sent) else { return Ok(Sent::Taken) };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Ok(Sent::Full),
            Some(code) if is_record_at_fault(code) => Ok(Sent::Refused(self.blame(code))),
            _ => Err(error),
        }
    }

    /// Why there is no such partition.
    #[must_use]
    pub fn no_partition(&self) -> String {
        format!("there is no partition {}", self.partition.unwrap_or_default())
    }

    fn blame(&self, code: RDKafkaErrorCode) -> String {
        match (code, self.partition) {
            (RDKafkaErrorCode::UnknownPartition, Some(_)) => self.no_partition(),
            (RDKafkaErrorCode::MessageSizeTooLarge, _) => {
                format!("the record of {} bytes is larger than the property message.max.bytes allows", self.bytes())
            }
            (code, _) => code.to_string(),
        }
    }
}

/// Whether the record itself is at fault, so that it is refused alone, for good.
#[must_use]
pub fn is_record_at_fault(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge, UnknownPartition};
    matches!(code, MessageSizeTooLarge | InvalidMessage | InvalidMessageSize | InvalidRecord | InvalidTimestamp | UnknownPartition)
}

/// Why a record was not delivered, if it was not.
#[must_use]
pub fn undelivered(result: &DeliveryResult<'_>) -> Option<String> {
    let (error, _) = result.as_ref().err()?;
    Some(error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()))
}

/// The records of a batch.
pub struct Records<'a> {
    values: Values<'a>,
    keys: Keys<'a>,
    partitions: Numbers,
    timestamps: Numbers,
    headers: HeaderColumn<'a>,
    kinds: Option<&'a StringArray>,
}

impl<'a> Records<'a> {
    /// Those that these columns make.
    ///
    /// # Errors
    /// When the batch is not what was declared.
    pub fn of(batch: &'a RecordBatch, columns: &Columns) -> Result<Self> {
        let kinds = columns.row_kind.as_ref().map(|name| {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or_else(|| Error::data(format!("a batch has no row kind {name:?}")))
        });
        Ok(Self {
            values: Values::of(batch)?,
            keys: Keys::of(batch, &columns.key)?,
            partitions: Numbers::of(batch, columns.partition.as_deref())?,
            timestamps: Numbers::of(batch, columns.timestamp.as_deref())?,
            headers: HeaderColumn::of(batch, columns.headers.as_deref())?,
            kinds: kinds.transpose()?,
        })
    }

    /// The record of a row; `None`: the row is written by another one, of its new value.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<Record<'_>> {
        let value = match self.kinds.map(|kinds| kinds.value(row)) {
            Some("-U") => return None,
            Some("-D") => None,
            _ => self.values.get(row),
        };
        let (partition, timestamp) = (self.partitions.get(row), self.timestamps.get(row));
        Some(Record { key: self.keys.get(row), value, partition, timestamp, headers: self.headers.get(row) })
    }
}

/// The encoded records of a batch.
enum Values<'a> {
    Binary(&'a BinaryArray),
    Text(&'a StringArray),
}

impl<'a> Values<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let column = batch.column_by_name(VALUE_COLUMN).ok_or_else(|| Error::data("a batch has no column \"value\""))?;
        match column.data_type() {
            DataType::Binary => Ok(Self::Binary(column.as_binary())),
            DataType::Utf8 => Ok(Self::Text(column.as_string())),
            other => Err(Error::unsupported(format!("records of type {other}"))),
        }
    }

    /// `None`: a tombstone.
    fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Binary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Text(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
        }
    }
}

/// A column of integers, or of timestamps as milliseconds.
struct Numbers(Vec<Option<i64>>);

impl Numbers {
    fn of(batch: &RecordBatch, column: Option<&str>) -> Result<Self> {
        let Some(name) = column else { return Ok(Self(Vec::new())) };
        let column = batch.column_by_name(name).ok_or_else(|| Error::data(format!("a batch has no column {name:?}")))?;
        macro_rules! numbers {
            ($type:ty, $convert:expr) => {
                column.as_primitive::<$type>().iter().map(|value| value.map($convert)).collect()
            };
        }
        Ok(Self(match column.data_type() {
            DataType::Int8 => numbers!(Int8Type, i64::from),
            DataType::Int16 => numbers!(Int16Type, i64::from),
            DataType::Int32 => numbers!(Int32Type, i64::from),
            DataType::Int64 => numbers!(Int64Type, |value| value),
            DataType::UInt8 => numbers!(UInt8Type, i64::from),
            DataType::UInt16 => numbers!(UInt16Type, i64::from),
            DataType::UInt32 => numbers!(UInt32Type, i64::from),
            DataType::UInt64 => numbers!(UInt64Type, |value| i64::try_from(value).unwrap_or(i64::MAX)),
            DataType::Timestamp(TimeUnit::Second, _) => numbers!(TimestampSecondType, |value| value.saturating_mul(1_000)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => numbers!(TimestampMillisecondType, |value| value),
            DataType::Timestamp(TimeUnit::Microsecond, _) => numbers!(TimestampMicrosecondType, |value| value.div_euclid(1_000)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers!(TimestampNanosecondType, |value| value.div_euclid(1_000_000)),
            other => return Err(Error::unsupported(format!("column {name:?} of type {other}"))),
        }))
    }

    fn get(&self, row: usize) -> Option<i64> {
        self.0.get(row).copied().flatten()
    }
}
