//! The Kafka sink: hands encoded records to librdkafka's idempotent producer, which batches, sends, retries and keeps their order. What becomes of them is in `delivery`;
//! the host encodes the rows by the format and passes the key, partition, timestamp and headers columns beside them.

use crate::{
    admin,
    client::{self, Callbacks, Role},
    cluster::Asker,
    config::{SinkConfig, problem},
    delivery::{self, Deliveries},
    headers::{self, HeaderColumn},
    key::Keys,
};
use arrow_array::{
    Array, BinaryArray, RecordBatch, StringArray,
    cast::AsArray,
    types::{
        Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use rdkafka::{
    ClientConfig,
    error::RDKafkaErrorCode,
    message::OwnedHeaders,
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use standpipe_sdk::{
    CloseReason, Context, Error, Host, Result, Sink, SinkDeclaration, SinkInput, Written,
    config::closest,
    sink::{Capabilities, ChangeMode, Encoding, TypeClass},
    wire::{Problem, VALUE_COLUMN},
};
use std::time::{Duration, Instant};

/// How often a flush looks at the host's cancellation, and makes librdkafka send what it holds back to fill a batch.
const FLUSH_STEP: Duration = Duration::from_millis(10);

/// How long the brokers may take to tell the topic's largest record: so many times what they took to tell that it exists, within bounds.
const LIMIT_ANSWER_FACTOR: u32 = 5;
const LIMIT_ANSWER: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(3);

/// A batch that librdkafka took in part.
struct Partial {
    seq: u64,
    next_row: usize,
}

/// The Kafka sink.
pub struct KafkaSink {
    config: SinkConfig,
    key: Vec<String>,
    producer: ThreadedProducer<Deliveries>,
    partial: Option<Partial>,
    host: Host,
}

impl KafkaSink {
    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }

    fn check(&self) -> Result<()> {
        self.deliveries().failure().map_or(Ok(()), Err)
    }

    /// Sends a record; false when the queue is full, which is reported to the host when there is room again. `waiting` rows of the batch are not in the queue.
    fn offer(&self, tag: usize, record: &Record<'_>, waiting: usize) -> Result<bool> {
        loop {
            if self.send(tag, record)? {
                return Ok(true);
            }
            if self.producer.in_flight_count() == 0 {
                if self.send(tag, record)? {
                    return Ok(true);
                }
                self.deliveries().refuse(
                    tag,
                    format!("the record of {} bytes is larger than the property queue.buffering.max.kbytes allows", record.bytes()),
                );
                return Ok(true);
            }
            if self.deliveries().wake_at_half(waiting) {
                return Ok(false);
            }
            // Everything is delivered, and librdkafka is about to count it.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a record; false when the queue is full.
    fn send(&self, tag: usize, record: &Record<'_>) -> Result<bool> {
        let mut sent = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.config.topic, tag);
        sent.key = record.key;
        sent.payload = record.value;
        sent.timestamp = record.timestamp;
        sent.headers = record.headers.clone();
        sent.partition = match record.partition.map(i32::try_from) {
            None => None,
            Some(Ok(partition)) if partition >= 0 => Some(partition),
            Some(_) => {
                self.deliveries().refuse(tag, format!("there is no partition {}", record.partition.unwrap_or_default()));
                return Ok(true);
            }
        };
        let Err((error, _)) = self.producer.send(sent) else { return Ok(true) };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Ok(false),
            Some(code) if delivery::is_record_at_fault(code) => {
                self.deliveries().refuse(tag, record.blame(code));
                Ok(true)
            }
            _ => Err(Error::external(format!("the Kafka producer takes no record for topic {:?}: {error}", self.config.topic))),
        }
    }
}

/// A row on its way to librdkafka.
struct Record<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    partition: Option<i64>,
    timestamp: Option<i64>,
    headers: Option<OwnedHeaders>,
}

impl Record<'_> {
    fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    fn blame(&self, code: RDKafkaErrorCode) -> String {
        match (code, self.partition) {
            (RDKafkaErrorCode::UnknownPartition, Some(partition)) => format!("there is no partition {partition}"),
            (RDKafkaErrorCode::MessageSizeTooLarge, _) => {
                format!("the record of {} bytes is larger than the property message.max.bytes allows", self.bytes())
            }
            (code, _) => code.to_string(),
        }
    }
}

impl Sink for KafkaSink {
    const NAME: &'static str = "kafka";
    type Config = SinkConfig;

    fn declare(config: &SinkConfig, input: &SinkInput) -> Result<SinkDeclaration> {
        let mut problems = config.problems();
        let key = key_columns(config, input);
        for (index, name) in key.iter().enumerate() {
            check_column(&format!("key[{index}]"), name, input, |_| true, "", &mut problems);
        }
        if let Some(name) = &config.partition {
            check_column("partition", name, input, DataType::is_integer, "an integer", &mut problems);
        }
        if let Some(name) = &config.timestamp {
            let fits = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..)) || data_type.is_integer();
            check_column("timestamp", name, input, fits, "a timestamp or an integer of milliseconds", &mut problems);
        }
        if let Some(name) = &config.headers {
            check_column("headers", name, input, headers::is_map, "a map from text to text or binary", &mut problems);
        }
        let mut columns: Vec<String> = Vec::new();
        for name in key.into_iter().chain([&config.partition, &config.timestamp, &config.headers].into_iter().flatten().cloned()) {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
        Ok(SinkDeclaration {
            encoding: Encoding::Records,
            columns,
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract],
            capabilities: Capabilities { ordered: true, ..Capabilities::default() },
            types: vec![TypeClass::Nested],
            problems,
            ..SinkDeclaration::default()
        })
    }

    fn open(config: SinkConfig, input: &SinkInput, context: Context) -> Result<Self> {
        let mut settings = client::settings(Role::Producer, &config.bootstrap, &config.properties);
        let callbacks = || Callbacks::new(context.host.clone(), config.oauth_token.clone());
        let mut producer: ThreadedProducer<Deliveries> =
            settings.create_with_context(Deliveries::new(callbacks())).map_err(|error| client::creation_error(&error))?;
        let begun = Instant::now();
        find_topic(&producer, &settings, &config)?;
        let wait = (begun.elapsed() * LIMIT_ANSWER_FACTOR).clamp(*LIMIT_ANSWER.start(), *LIMIT_ANSWER.end());
        if settings.get("message.max.bytes").is_none()
            && let Some(limit) = admin::max_message_bytes(&settings, &config.topic, wait)
        {
            settings.set("message.max.bytes", limit.to_string());
            producer = settings.create_with_context(Deliveries::new(callbacks())).map_err(|error| client::creation_error(&error))?;
        }
        Ok(Self { key: key_columns(&config, input), config, producer, partial: None, host: context.host })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.check()?;
        let rows = batch.num_rows();
        let first = match self.partial.take() {
            Some(partial) if partial.seq == seq => partial.next_row,
            _ => {
                self.deliveries().begin(seq, rows);
                0
            }
        };
        let values = Values::of(batch)?;
        let keys = Keys::of(batch, &self.key)?;
        let partitions = Numbers::of(batch, self.config.partition.as_deref())?;
        let timestamps = Numbers::of(batch, self.config.timestamp.as_deref())?;
        let headers = HeaderColumn::of(batch, self.config.headers.as_deref())?;
        for row in first..rows {
            let (partition, timestamp) = (partitions.get(row), timestamps.get(row));
            let record = Record { key: keys.get(row), value: values.get(row), partition, timestamp, headers: headers.get(row) };
            if !self.offer(delivery::tag(seq, row), &record, rows - row)? {
                self.partial = Some(Partial { seq, next_row: row });
                return Ok(Written::Busy);
            }
        }
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        loop {
            if self.deliveries().wait(Duration::ZERO) {
                return Ok(());
            }
            self.check()?;
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            // Not yet is no failure: the brokers may be unreachable for a while.
            let _ = self.producer.flush(Duration::from_millis(1));
            self.deliveries().wait(FLUSH_STEP);
        }
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        // What is still on its way is dropped with the producer; after a failure that is what the host wants.
        if reason == CloseReason::Finished && !self.deliveries().wait(Duration::ZERO) {
            return Err(Error::external("records were written that are not delivered"));
        }
        Ok(())
    }
}

/// Makes sure that the topic is there, unless the brokers make one by themselves.
fn find_topic(producer: &ThreadedProducer<Deliveries>, settings: &ClientConfig, config: &SinkConfig) -> Result<()> {
    let wait = config.connect_timeout.0;
    let mut asker = Asker {
        client: producer.client(),
        callbacks: producer.client().context().callbacks(),
        serve: &|| producer.poll(Duration::ZERO),
        bootstrap: &config.bootstrap,
        deadline: Instant::now() + wait,
    };
    match &config.create_topic {
        Some(create) if asker.find(&config.topic)?.is_none() => {
            admin::create_topic(settings, &config.topic, create, wait)?;
            asker.callbacks.host().info("created the topic", &[("topic", config.topic.as_str().into())]);
            asker.deadline = Instant::now() + wait;
            asker.await_topic(&config.topic)
        }
        Some(_) => Ok(()),
        None if settings.get("allow.auto.create.topics") != Some("false") => Ok(()),
        None => match asker.find(&config.topic)? {
            Some(_) => Ok(()),
            None => {
                let mut error = asker.missing(&config.topic);
                error.message.push_str(" (`create_topic: {partitions: N}` would create it)");
                Err(error)
            }
        },
    }
}

fn key_columns(config: &SinkConfig, input: &SinkInput) -> Vec<String> {
    if config.key.0.is_empty() { input.key.clone() } else { config.key.0.clone() }
}

fn check_column(path: &str, name: &str, input: &SinkInput, fits: impl Fn(&DataType) -> bool, wanted: &str, problems: &mut Vec<Problem>) {
    match input.schema.field_with_name(name) {
        Ok(field) if fits(field.data_type()) => {}
        Ok(field) => problems.push(problem(path, format!("column {name:?} is {}, not {wanted}", field.data_type()))),
        Err(_) => {
            let meant = closest(name, input.schema.fields().iter().map(|field| field.name().as_str()));
            let message = format!("the input has no column {name:?}");
            problems.push(Problem { path: path.to_owned(), message, suggestion: meant.map(str::to_owned) });
        }
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
            DataType::UInt64 => numbers!(arrow_array::types::UInt64Type, |value| i64::try_from(value).unwrap_or(i64::MAX)),
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
