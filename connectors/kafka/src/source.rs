//! The reader of the Kafka source: one consumer per subtask, with a queue of its own for each partition, so that splits are read in turns and a paused one costs nothing.
//! Partitions are assigned to it by the host; there is no group membership and so no rebalance. Messages go through `batch` into columns.

use crate::{
    batch::{self, Collector},
    client::{self, Callbacks, Role},
    cluster::Asker,
    config::SourceConfig,
    enumerator::KafkaEnumerator,
    lag::LagMonitor,
    signal::Signal,
    split::{self, Partition},
};
use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
    topic_partition_list::{Offset, TopicPartitionList},
};
use standpipe_sdk::{
    Context, Error, Host, Poll, PollLimits, Result, Source, SourceDeclaration, Split,
    source::{Capabilities, Encoding, SplitLag},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The longest sleep of a reader without a look at the host's cancellation.
const NAP: Duration = Duration::from_millis(500);

/// A batch's bytes at most before its last message, which has 10^9 at most: an Arrow column of binaries holds less than 2^31.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// A partition that is being read.
struct Reading {
    id: String,
    partition: Partition,
    queue: PartitionQueue<Callbacks>,
    /// The offset after the last message taken, or where the host said to start; `None`: the oldest message.
    position: Option<i64>,
    /// When the last message taken was written, milliseconds since the epoch.
    written: Option<i64>,
    paused: bool,
    ended: bool,
    /// What the next call says: rows came before it.
    failed: Option<Error>,
}

impl Reading {
    fn is_at_end(&self) -> bool {
        self.partition.end.zip(self.position).is_some_and(|(end, position)| position >= end)
    }
}

/// The reader of the Kafka source.
pub struct KafkaSource {
    // The queues go before the consumer that they belong to.
    splits: Vec<Reading>,
    /// Whose turn it is.
    turn: usize,
    lag: LagMonitor,
    consumer: Arc<BaseConsumer<Callbacks>>,
    collector: Collector,
    arrived: Arc<Signal>,
    bounded: bool,
    commits: bool,
    host: Host,
}

impl KafkaSource {
    fn find(&self, id: &str) -> Result<usize> {
        self.splits
            .iter()
            .position(|split| split.id == id)
            .ok_or_else(|| Error::data(format!("split {id:?} is not assigned to this reader")))
    }

    fn start_fetching(&self, partition: &Partition, from: Option<i64>) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&partition.topic, partition.partition, from.map_or(Offset::Beginning, Offset::Offset))?;
        Ok(self.consumer.incremental_assign(&list)?)
    }

    fn stop_fetching(&self, partition: &Partition) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&partition.topic, partition.partition);
        Ok(self.consumer.incremental_unassign(&list)?)
    }

    fn remove(&mut self, index: usize) -> Result<Reading> {
        let split = self.splits.remove(index);
        if self.turn > index {
            self.turn -= 1;
        }
        self.stop_fetching(&split.partition)?;
        self.watch_lag();
        Ok(split)
    }

    fn watch_lag(&self) {
        let names = self.splits.iter().map(|split| (split.id.clone(), split.partition.topic.clone(), split.partition.partition));
        self.lag.watch(names.collect());
    }

    fn set_paused(&mut self, ids: &[String], paused: bool) -> Result<()> {
        for id in ids {
            let index = self.find(id)?;
            self.splits[index].paused = paused;
        }
        Ok(())
    }

    /// Serves log lines, errors and commits that librdkafka reports beside the messages.
    fn serve(&self) -> Result<()> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                Err(KafkaError::MessageConsumptionFatal(code)) => return Err(Error::external(format!("the Kafka client gave up: {code}"))),
                Err(error) => self.host.debug("an event of the Kafka client", &[("reason", error.to_string().into())]),
                Ok(message) => {
                    let at = format!("{}-{} {}", message.topic(), message.partition(), message.offset());
                    return Err(Error::external(format!("a message came outside its queue: {at}")));
                }
            }
        }
        Ok(())
    }

    /// Takes what waits in the queue of one split, up to the limits.
    fn take(&mut self, index: usize, limits: PollLimits) -> Result<Option<Poll>> {
        let max_bytes = limits.max_bytes.min(MAX_BATCH_BYTES);
        let split = &mut self.splits[index];
        while !split.ended && split.failed.is_none() && self.collector.rows() < limits.max_rows && self.collector.bytes() < max_bytes {
            match split.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    if split.partition.end.is_some_and(|end| message.offset() >= end) {
                        split.ended = true;
                        break;
                    }
                    self.collector.push(&message);
                    split.position = Some(message.offset() + 1);
                    split.written = message.timestamp().to_millis().or(split.written);
                    split.ended = split.is_at_end();
                }
                // The end as it is after the end was asked for: gaps that compaction and transactions leave before it are behind us.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.consumer.context().answered();
                    split.ended = self.bounded;
                }
                Some(Err(error)) if is_gone(&error) && split.position.is_none() => {
                    // The oldest message was deleted between the question for it and the fetch.
                    self.consumer.seek(&split.partition.topic, split.partition.partition, Offset::Beginning, Duration::ZERO)?;
                }
                Some(Err(error)) => split.failed = check(&self.host, split, &error).err(),
            }
        }
        if self.collector.rows() > 0 {
            self.consumer.context().answered();
            let batch = self.collector.finish(&split.partition.topic, split.partition.partition)?;
            let position = split.position.unwrap_or_default().to_string().into_bytes();
            return Ok(Some(Poll::Batch { split: split.id.clone(), batch, position, watermark: None }));
        }
        if let Some(error) = split.failed.take() {
            return Err(error);
        }
        if split.ended {
            return Ok(Some(Poll::EndOfSplit(self.remove(index)?.id)));
        }
        Ok(None)
    }
}

fn is_gone(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}

/// Whether reading can go on after an error of a split: librdkafka itself tries again after most.
fn check(host: &Host, split: &Reading, error: &KafkaError) -> Result<()> {
    if is_gone(error) {
        return Err(Error::external(format!(
            "position {} of {} is not in Kafka: its records were deleted before they were read (retention), or the topic was created anew; the property \
             auto.offset.reset can skip to `earliest` or `latest`",
            split.position.unwrap_or_default(),
            split.id
        )));
    }
    match error {
        KafkaError::MessageConsumptionFatal(_) => Err(Error::external(format!("the Kafka client gave up on {}: {error}", split.id))),
        _ => {
            host.warn("cannot read now, trying again", &[("split", split.id.clone().into()), ("reason", error.to_string().into())]);
            Ok(())
        }
    }
}

impl Source for KafkaSource {
    const NAME: &'static str = "kafka";
    type Config = SourceConfig;
    type Enumerator = KafkaEnumerator;

    fn declare(config: &SourceConfig) -> Result<SourceDeclaration> {
        Ok(SourceDeclaration {
            encoding: Encoding::Records,
            schema: batch::schema(&config.metadata),
            capabilities: Capabilities { bounded: config.bounded, replayable: true, ordered: true, ..Capabilities::default() },
            problems: config.problems(),
        })
    }

    fn open(config: SourceConfig, context: Context) -> Result<Self> {
        let mut settings = client::settings(Role::Consumer, &config.bootstrap, &config.properties);
        // librdkafka assigns nothing without a group; one that was not asked for is never committed to.
        let group = config.group.clone().unwrap_or_else(|| format!("standpipe-{}-{}", context.job_name, context.node));
        settings.set("group.id", group);
        let consumer = settings.create_with_context(Callbacks::new(context.host.clone(), config.oauth_token.clone()));
        let mut consumer: BaseConsumer<Callbacks> = consumer.map_err(|error| client::creation_error(&error))?;
        let arrived = Arc::new(Signal::default());
        let theirs = arrived.clone();
        consumer.set_nonempty_callback(move || theirs.raise());
        let asker = Asker {
            client: consumer.client(),
            callbacks: consumer.context(),
            serve: &|| while consumer.poll(Duration::ZERO).is_some() {},
            bootstrap: &config.bootstrap,
            deadline: Instant::now() + config.connect_timeout.0,
        };
        for topic in config.topics() {
            asker.partitions(topic)?;
        }
        let consumer = Arc::new(consumer);
        Ok(Self {
            splits: Vec::new(),
            turn: 0,
            lag: LagMonitor::start(consumer.clone())?,
            consumer,
            collector: Collector::new(&config.metadata),
            arrived,
            bounded: config.bounded,
            commits: config.group.is_some(),
            host: context.host,
        })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let partition = Partition::of(&split)?;
            let position = split.position.as_deref().map(|position| split::offset(&split.id, position)).transpose()?.flatten();
            let position = position.or(partition.start);
            // The queue is taken before the fetching starts: no message can go past it.
            let queue = self.consumer.split_partition_queue(&partition.topic, partition.partition);
            let mut queue = queue.ok_or_else(|| Error::data(format!("split {:?} names no partition", split.id)))?;
            let arrived = self.arrived.clone();
            queue.set_nonempty_callback(move || arrived.raise());
            self.start_fetching(&partition, position)?;
            let mut reading =
                Reading { id: split.id, partition, queue, position, written: None, paused: false, ended: false, failed: None };
            reading.ended = reading.is_at_end();
            self.splits.push(reading);
        }
        self.watch_lag();
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let mut positions = Vec::with_capacity(splits.len());
        for id in splits {
            let index = self.find(id)?;
            let split = self.remove(index)?;
            positions.push(split.position.map(|position| position.to_string().into_bytes()).unwrap_or_default());
        }
        Ok(positions)
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let deadline = Instant::now() + limits.wait;
        loop {
            self.serve()?;
            for _ in 0..self.splits.len() {
                let index = self.turn % self.splits.len();
                self.turn = index + 1;
                if self.splits[index].paused {
                    continue;
                }
                if let Some(found) = self.take(index, limits)? {
                    return Ok(found);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.host.cancelled() {
                return Ok(Poll::Idle);
            }
            self.arrived.wait(left.min(NAP));
        }
    }

    fn pause(&mut self, splits: &[String]) -> Result<()> {
        self.set_paused(splits, true)
    }

    fn resume(&mut self, splits: &[String]) -> Result<()> {
        self.set_paused(splits, false)
    }

    fn checkpoint_committed(&mut self, _: u64, positions: &[(String, Vec<u8>)]) -> Result<()> {
        if !self.commits {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (id, position) in positions {
            let split = Split { id: id.clone(), details: String::new(), position: None };
            let Partition { topic, partition, .. } = Partition::of(&split)?;
            if let Some(offset) = split::offset(id, position)? {
                list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        Ok(self.consumer.commit(&list, CommitMode::Async)?)
    }

    fn lag(&self) -> Vec<SplitLag> {
        let now = self.host.now() / 1_000;
        let lag = self.splits.iter().map(|split| {
            let end = self.lag.end(&split.id);
            let records = end.zip(split.position).map(|(end, position)| u64::try_from(end - position).unwrap_or(0));
            let age = split.written.map(|written| u64::try_from(now - written).unwrap_or(0));
            let millis = if records == Some(0) { Some(0) } else { records.and(age) };
            SplitLag { split: split.id.clone(), records, millis }
        });
        lag.collect()
    }
}
