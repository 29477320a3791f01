//! The Kafka sink: what it declares and how it opens. Records go out as they come (`live`) or once their checkpoint is durable (`exactly_once`). The host encodes the rows
//! by the format and passes the key, partition, timestamp and headers columns beside them.

use crate::{
    admin::{self, TopicLimits},
    client::{self, Callbacks, Role},
    cluster::Asker,
    config::{Deletes, Delivery, SinkConfig, problem},
    delivery::Deliveries,
    exactly_once::{Epochs, Limits},
    headers,
    live::Live,
    records::Columns,
    transaction::Wiring,
};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};
use rdkafka::{
    ClientConfig,
    producer::{Producer, ThreadedProducer},
};
use standpipe_sdk::{
    CloseReason, Committable, Context, Recovered, Result, Sink, SinkDeclaration, SinkInput, Written,
    config::closest,
    sink::{Capabilities, ChangeMode, Encoding, TypeClass},
    wire::{Problem, ROLE, ROLE_ROW_KIND},
};
use std::time::{Duration, Instant};

/// How long the brokers may take to tell the topic's largest record: so many times what they took to tell that it exists, within bounds.
const LIMIT_ANSWER_FACTOR: u32 = 5;
const LIMIT_ANSWER: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(3);

/// librdkafka's `message.max.bytes`.
const DEFAULT_LARGEST: usize = 1_000_000;

/// The Kafka sink.
pub struct KafkaSink(Way);

enum Way {
    Live(Live),
    Epochs(Box<Epochs>),
}

impl Sink for KafkaSink {
    const NAME: &'static str = "kafka";
    type Config = SinkConfig;

    fn declare(config: &SinkConfig, input: &SinkInput) -> Result<SinkDeclaration> {
        let mut problems = config.problems();
        let columns = columns(config, input);
        for (index, name) in columns.key.iter().enumerate() {
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
        if config.deletes == Deletes::Tombstone {
            if input.mode == ChangeMode::Append {
                problems.push(problem("deletes", "nothing is ever deleted in this input: its rows stand for themselves"));
            } else if columns.key.is_empty() {
                problems.push(problem("deletes", "a tombstone needs a `key`"));
            }
        }
        let exactly_once = config.delivery == Delivery::ExactlyOnce;
        let capabilities = Capabilities { ordered: true, transactional: exactly_once, needs_log: exactly_once, ..Capabilities::default() };
        Ok(SinkDeclaration {
            encoding: Encoding::Records,
            columns: columns.names(),
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract],
            capabilities,
            types: vec![TypeClass::Nested],
            problems,
            ..SinkDeclaration::default()
        })
    }

    fn open(config: SinkConfig, input: &SinkInput, context: Context) -> Result<Self> {
        let mut settings = client::settings(Role::Producer, &config.bootstrap, &config.properties);
        let make = |settings: &ClientConfig| -> Result<ThreadedProducer<Deliveries>> {
            let callbacks = Callbacks::new(context.host.clone(), config.oauth_token.clone());
            settings.create_with_context(Deliveries::new(callbacks)).map_err(|error| client::creation_error(&error))
        };
        let producer = make(&settings)?;
        let begun = Instant::now();
        let partitions = find_topic(&producer, &settings, &config)?;
        let wait = (begun.elapsed() * LIMIT_ANSWER_FACTOR).clamp(*LIMIT_ANSWER.start(), *LIMIT_ANSWER.end());
        let limits = admin::topic_limits(&settings, &config.topic, wait);
        let is_new = settings.get("message.max.bytes").is_none() && limits.max_message_bytes.is_some();
        if let (true, Some(limit)) = (is_new, limits.max_message_bytes) {
            settings.set("message.max.bytes", limit.to_string());
        }
        if config.delivery == Delivery::ExactlyOnce {
            return exactly_once(config, input, &context, &settings, producer, limits, partitions);
        }
        let producer = if is_new { make(&settings)? } else { producer };
        let columns = columns(&config, input);
        Ok(Self(Way::Live(Live::new(config.topic, columns, producer, context.host))))
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        match &mut self.0 {
            Way::Live(live) => live.write(seq, batch),
            Way::Epochs(epochs) => epochs.write(seq, batch),
        }
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        match &self.0 {
            Way::Live(live) => live.flush(),
            // What is delivered is for `commit` to say.
            Way::Epochs(_) => Ok(()),
        }
    }

    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        match &mut self.0 {
            Way::Live(live) => live.flush().map(|()| Vec::new()),
            Way::Epochs(epochs) => epochs.prepare(checkpoint),
        }
    }

    fn commit(&mut self, up_to: u64, prepared: &[Committable]) -> Result<()> {
        match &mut self.0 {
            Way::Live(_) => Ok(()),
            Way::Epochs(epochs) => epochs.commit(up_to, prepared),
        }
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        match &mut self.0 {
            Way::Live(_) => Ok(vec![Recovered::Committed; prepared.len()]),
            Way::Epochs(epochs) => epochs.recover(prepared),
        }
    }

    fn finish(&mut self) -> Result<()> {
        match &self.0 {
            Way::Live(live) => live.flush(),
            Way::Epochs(epochs) => epochs.finish(),
        }
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        match &self.0 {
            Way::Live(live) => live.close(reason),
            Way::Epochs(_) => Ok(()),
        }
    }
}

fn exactly_once(
    config: SinkConfig,
    input: &SinkInput,
    context: &Context,
    settings: &ClientConfig,
    producer: ThreadedProducer<Deliveries>,
    limits: TopicLimits,
    partitions: Option<i32>,
) -> Result<KafkaSink> {
    let number = |name: &str| settings.get(name).and_then(|value| value.parse::<usize>().ok());
    // A record that is larger than the producer's queue would wait for room for ever.
    let queue = number("queue.buffering.max.kbytes").map_or(usize::MAX, |size| size.saturating_mul(1_024));
    let limits = Limits {
        bytes: number("message.max.bytes").unwrap_or(DEFAULT_LARGEST).min(queue),
        partitions: partitions.unwrap_or_default(),
        needs_keys: limits.is_compacted,
    };
    let mut consumer = client::settings(Role::Consumer, &config.bootstrap, &config.properties);
    consumer.set("isolation.level", "read_committed");
    let wiring = Wiring {
        producer: client::transactional(settings.clone(), &config.properties),
        consumer,
        oauth_token: config.oauth_token.clone(),
        run: format!("{}-{}", context.job_id, context.generation),
        host: context.host.clone(),
    };
    let columns = columns(&config, input);
    let headers = columns.headers.as_ref().and_then(|name| input.schema.field_with_name(name).ok()).map(|field| field.data_type().clone());
    let asked = config.clone();
    let count = Box::new(move || {
        let found = asker(&producer, &asked).find(&asked.topic)?;
        found.ok_or_else(|| asker(&producer, &asked).missing(&asked.topic))
    });
    let epochs = Epochs::open(&config, columns, headers.as_ref(), limits, wiring, count, context)?;
    Ok(KafkaSink(Way::Epochs(Box::new(epochs))))
}

fn asker<'a>(producer: &'a ThreadedProducer<Deliveries>, config: &'a SinkConfig) -> Asker<'a, Deliveries> {
    Asker {
        client: producer.client(),
        callbacks: producer.client().context().callbacks(),
        // It has a thread of its own for that.
        serve: &|| {},
        bootstrap: &config.bootstrap,
        deadline: Instant::now() + config.connect_timeout.0,
    }
}

/// Makes sure that the topic is there, unless the brokers make one by themselves. How many partitions it has, where that was asked.
fn find_topic(producer: &ThreadedProducer<Deliveries>, settings: &ClientConfig, config: &SinkConfig) -> Result<Option<i32>> {
    let mut asker = asker(producer, config);
    if config.create_topic.is_none() && settings.get("allow.auto.create.topics") != Some("false") {
        return Ok(None);
    }
    match (&config.create_topic, asker.find(&config.topic)?) {
        (_, Some(partitions)) => Ok(Some(partitions)),
        (Some(create), None) => {
            admin::create_topic(settings, &config.topic, create, config.connect_timeout.0)?;
            asker.callbacks.host().info("created the topic", &[("topic", config.topic.as_str().into())]);
            asker.deadline = Instant::now() + config.connect_timeout.0;
            asker.await_topic(&config.topic).map(Some)
        }
        (None, None) => {
            let mut error = asker.missing(&config.topic);
            error.message.push_str(" (`create_topic: {partitions: N}` would create it)");
            Err(error)
        }
    }
}

fn columns(config: &SinkConfig, input: &SinkInput) -> Columns {
    let key = if config.key.0.is_empty() { input.key.clone() } else { config.key.0.clone() };
    let row_kind = row_kind(&input.schema).filter(|_| config.deletes == Deletes::Tombstone);
    let (partition, timestamp, headers) = (config.partition.clone(), config.timestamp.clone(), config.headers.clone());
    Columns { key, partition, timestamp, headers, row_kind }
}

fn row_kind(schema: &Schema) -> Option<String> {
    let is_kind = |role: Option<&String>| role.is_some_and(|role| role == ROLE_ROW_KIND);
    schema.fields().iter().find(|field| is_kind(field.metadata().get(ROLE))).map(|field| field.name().clone())
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
