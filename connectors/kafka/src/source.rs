//! The reader of the Kafka source: one consumer per subtask, with a queue of its own for each partition, so that splits are read in turns and a paused one costs nothing.
//! Partitions are assigned to it by the host; there is no group membership and so no rebalance. Messages go through `batch` into columns.

use crate::{
    batch::{self, Collector},
    client::{self, Callbacks, Role},
    cluster::Asker,
    config::{SourceConfig, Start},
    enumerator::KafkaEnumerator,
    lag::LagMonitor,
    prefetch,
    reading::{Reached, Reading, is_gone},
    signal::Signal,
    split::{self, Partition},
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
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

/// How long a connection takes, at most where all is well.
const CONNECTING: Duration = Duration::from_secs(1);

/// A batch's bytes at most before its last message, which has 10^9 at most: an Arrow column of binaries holds less than 2^31.
const MAX_BATCH_BYTES: usize = 1 << 30;

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
    /// How long a `poll` waits, beyond what it was asked to, while a partition has not answered: a connection and two fetches that find nothing.
    first_answer: Duration,
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

    /// What waits in the queue of one split, up to the limits or its end.
    fn take(&mut self, index: usize, limits: PollLimits) -> Result<Option<Poll>> {
        self.collect(index, limits)?;
        let split = &mut self.splits[index];
        if self.collector.rows() > 0 {
            return self.batch(index).map(Some);
        }
        if let Some(error) = split.failed.take() {
            return Err(error);
        }
        if split.ended {
            return Ok(Some(Poll::EndOfSplit(self.remove(index)?.id)));
        }
        if split.reached == Reached::End {
            split.reached = Reached::ToldEnd;
            return self.batch(index).map(Some);
        }
        Ok(None)
    }

    fn collect(&mut self, index: usize, limits: PollLimits) -> Result<()> {
        let max_bytes = limits.max_bytes.min(MAX_BATCH_BYTES);
        let (split, callbacks) = (&mut self.splits[index], self.consumer.context());
        let (mut reads, mut trouble) = (false, None);
        while !split.ended && split.failed.is_none() && self.collector.rows() < limits.max_rows && self.collector.bytes() < max_bytes {
            match split.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    (reads, trouble) = (true, None);
                    if split.is_beyond(message.offset()) {
                        split.ended = true;
                        break;
                    }
                    self.collector.push(&message);
                    let (offset, written) = (message.offset(), message.timestamp().to_millis());
                    drop(message);
                    split.took(offset, written);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    (reads, trouble) = (true, None);
                    split.arrived(callbacks.end_of_partition(), self.bounded);
                    break;
                }
                Some(Err(error)) if is_gone(&error) && split.position.is_none() => {
                    // The oldest message was deleted between the question for it and the fetch.
                    self.consumer.seek(&split.partition.topic, split.partition.partition, Offset::Beginning, Duration::ZERO)?;
                }
                Some(Err(error)) => match split.stumbled(&error) {
                    Ok(why) => trouble = Some(why),
                    Err(error) => split.failed = Some(error),
                },
            }
        }
        if reads {
            callbacks.answered();
        }
        self.note(index, reads, trouble);
        Ok(())
    }

    /// Tells why a split cannot be read: once, until it reads again or the reason is another one, and once for all splits that have the same reason.
    fn note(&mut self, index: usize, reads: bool, trouble: Option<String>) {
        let split = &mut self.splits[index];
        if split.trouble == trouble || (trouble.is_none() && !reads) {
            return;
        }
        let id = split.id.clone();
        split.trouble = None;
        match trouble {
            Some(why) => {
                if self.splits.iter().all(|split| split.trouble.as_ref() != Some(&why)) {
                    self.host.warn("cannot read now, trying again", &[("split", id.into()), ("reason", why.clone().into())]);
                }
                self.splits[index].trouble = Some(why);
            }
            None if self.splits.iter().all(|split| split.trouble.is_none()) => self.host.info("reading again", &[("split", id.into())]),
            None => {}
        }
    }

    /// What was collected from a split. Nothing: it has been read to where it ends now.
    fn batch(&mut self, index: usize) -> Result<Poll> {
        let split = &self.splits[index];
        let batch = self.collector.finish(&split.partition.topic, split.partition.partition)?;
        Ok(Poll::Batch { split: split.id.clone(), batch, position: split.position_text(), watermark: None })
    }

    /// What to say when there is nothing, after so long a wait. `Poll::Idle` would say of every split that it was read: while one has not answered, only those that have
    /// may be spoken of. `None`: it is too early to say anything.
    fn nothing(&mut self, waited: Duration) -> Result<Option<Poll>> {
        let mut silent = self.splits.iter().filter(|split| !split.paused && split.reached == Reached::Nothing);
        let Some(first) = silent.next() else { return Ok(Some(Poll::Idle)) };
        if waited < self.first_answer {
            return Ok(None);
        }
        match self.splits.iter().position(|split| !split.paused && split.reached != Reached::Nothing) {
            Some(other) => self.batch(other).map(Some),
            None => {
                let reason = self.consumer.context().reason().unwrap_or_else(|| "no answer".to_owned());
                let more = silent.count();
                let others = if more == 0 { String::new() } else { format!(" and {more} more") };
                Err(Error::external(format!("cannot read {}{others} yet: {reason}", first.id)).retryable())
            }
        }
    }
}

/// How many partitions the topics have.
fn count_partitions(consumer: &BaseConsumer<Callbacks>, config: &SourceConfig) -> Result<usize> {
    let asker = Asker {
        client: consumer.client(),
        callbacks: consumer.context(),
        serve: &|| while consumer.poll(Duration::ZERO).is_some() {},
        bootstrap: &config.bootstrap,
        deadline: Instant::now() + config.connect_timeout.0,
    };
    let mut partitions = 0;
    for topic in config.topics() {
        partitions += usize::try_from(asker.partitions(topic)?)?;
    }
    Ok(partitions)
}

impl Source for KafkaSource {
    const NAME: &'static str = "kafka";
    type Config = SourceConfig;
    type Enumerator = KafkaEnumerator;

    fn declare(config: &SourceConfig) -> Result<SourceDeclaration> {
        Ok(SourceDeclaration {
            encoding: Encoding::Records,
            schema: batch::schema(&config.metadata),
            capabilities: Capabilities {
                bounded: config.bounded,
                replayable: true,
                rewinds: !matches!(config.start, Start::Latest),
                ordered: true,
                ..Capabilities::default()
            },
            problems: config.problems(),
        })
    }

    fn open(config: SourceConfig, context: Context) -> Result<Self> {
        let mut settings = client::settings(Role::Consumer, &config.bootstrap, &config.properties);
        let make = |settings: &ClientConfig| {
            let made = settings.create_with_context(Callbacks::new(context.host.clone(), config.oauth_token.clone()));
            made.map_err(|error| client::creation_error(&error))
        };
        // Asked by a client of its own: how much a consumer fetches ahead must be known when it is made.
        let partitions = count_partitions(&make(&settings)?, &config)?;
        let subtasks = usize::try_from(context.parallelism.max(1))?;
        prefetch::bound(&mut settings, partitions.div_ceil(subtasks), &config.properties);
        // librdkafka assigns nothing without a group; one that was not asked for is never committed to.
        let group = config.group.clone().unwrap_or_else(|| format!("standpipe-{}-{}", context.job_name, context.node));
        settings.set("group.id", group);
        let mut consumer: BaseConsumer<Callbacks> = make(&settings)?;
        let arrived = Arc::new(Signal::default());
        let theirs = arrived.clone();
        consumer.set_nonempty_callback(move || theirs.raise());
        // It must know the topics before it is assigned partitions of them, or it looks for their leaders a second later.
        count_partitions(&consumer, &config)?;
        let consumer = Arc::new(consumer);
        let fetch_wait = prefetch::fetch_wait(&settings);
        Ok(Self {
            splits: Vec::new(),
            turn: 0,
            lag: LagMonitor::start(consumer.clone(), fetch_wait)?,
            consumer,
            collector: Collector::new(&config.metadata),
            arrived,
            first_answer: CONNECTING + 2 * fetch_wait,
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
            self.splits.push(Reading::new(split.id, partition, queue, position));
        }
        self.watch_lag();
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let mut positions = Vec::with_capacity(splits.len());
        for id in splits {
            let index = self.find(id)?;
            positions.push(self.remove(index)?.position_text());
        }
        Ok(positions)
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let start = Instant::now();
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
            if self.host.cancelled() {
                return Ok(Poll::Idle);
            }
            let waited = start.elapsed();
            if waited >= limits.wait
                && let Some(answer) = self.nothing(waited)?
            {
                return Ok(answer);
            }
            let until = if waited < limits.wait { limits.wait } else { self.first_answer };
            self.arrived.wait(until.saturating_sub(waited).min(NAP));
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
            let records = end.zip(split.position).map(|(end, position)| u64::try_from(end.saturating_sub(position)).unwrap_or(0));
            let age = split.written.map(|written| u64::try_from(now.saturating_sub(written)).unwrap_or(0));
            let millis = if records == Some(0) { Some(0) } else { records.and(age) };
            SplitLag { split: split.id.clone(), records, millis }
        });
        lag.collect()
    }
}
