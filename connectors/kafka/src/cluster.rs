//! Questions to a cluster that a start depends on: does a broker answer in time, does the topic exist, how many partitions has it, where do they end.
//! Asked by `enumerator`, `source` and `sink` when they open; every question has a deadline and watches the host's cancellation.

use crate::client::Callbacks;
use rdkafka::{
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    topic_partition_list::{Offset, TopicPartitionList},
};
use standpipe_sdk::{Error, Result, config::closest};
use std::time::{Duration, Instant};

/// The first attempt and the longest: events are served between attempts (a broker may want a token), a broker that comes up meanwhile is found soon, a cancellation heeded.
const FIRST_ATTEMPT: Duration = Duration::from_millis(200);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// How to ask: a client of either role, its callbacks, and what serves its events.
pub struct Asker<'a, C: rdkafka::ClientContext> {
    /// The client.
    pub client: &'a Client<C>,
    /// Its callbacks.
    pub callbacks: &'a Callbacks,
    /// Serves its events without waiting, so that the callbacks hear why a connection failed.
    pub serve: &'a dyn Fn(),
    /// The configured addresses, for messages.
    pub bootstrap: &'a str,
    /// When to give up.
    pub deadline: Instant,
}

impl<C: rdkafka::ClientContext> Asker<'_, C> {
    /// How many partitions the topic has.
    ///
    /// # Errors
    /// `external`, when no broker answers by the deadline, the topic does not exist or may not be seen.
    pub fn partitions(&self, topic: &str) -> Result<i32> {
        self.find(topic)?.ok_or_else(|| self.missing(topic))
    }

    /// How many partitions the topic has; `None`: it does not exist.
    ///
    /// # Errors
    /// `external`, when no broker answers by the deadline, or the topic may not be seen.
    pub fn find(&self, topic: &str) -> Result<Option<i32>> {
        loop {
            let metadata = self.metadata(Some(topic))?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
            match found.error().map(RDKafkaErrorCode::from) {
                None if !found.partitions().is_empty() => return Ok(Some(i32::try_from(found.partitions().len())?)),
                // The topic is being created, or its leaders are being elected.
                None | Some(RDKafkaErrorCode::LeaderNotAvailable) if Instant::now() < self.deadline => self.pause()?,
                None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {
                    return Err(Error::external(format!("no partition of topic {topic:?} on {} has a leader", self.bootstrap)).retryable());
                }
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
                Some(code) => return Err(Error::external(format!("topic {topic:?} on {}: {code}", self.bootstrap))),
            }
        }
    }

    /// Waits until a topic that has been created is known to the brokers; how many partitions it has.
    ///
    /// # Errors
    /// As [`Asker::partitions`].
    pub fn await_topic(&self, topic: &str) -> Result<i32> {
        loop {
            if let Some(partitions) = self.find(topic)? {
                return Ok(partitions);
            }
            if Instant::now() >= self.deadline {
                return Err(self.missing(topic).retryable());
            }
            self.pause()?;
        }
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        let begun = Instant::now();
        let mut attempt = FIRST_ATTEMPT;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            (self.serve)();
            let answer = self.client.fetch_metadata(topic, left.min(attempt));
            attempt = LONGEST_ATTEMPT.min(attempt * 2);
            (self.serve)();
            match answer {
                Ok(metadata) => return Ok(metadata),
                Err(_) if self.callbacks.host().cancelled() => return Err(Error::cancelled()),
                Err(error) if left.is_zero() || self.callbacks.refused() => return Err(self.unreachable(&error, begun.elapsed())),
                Err(_) => self.pause()?,
            }
        }
    }

    fn pause(&self) -> Result<()> {
        if self.callbacks.host().cancelled() {
            return Err(Error::cancelled());
        }
        std::thread::sleep(PAUSE.min(self.deadline.saturating_duration_since(Instant::now())));
        Ok(())
    }

    fn unreachable(&self, error: &KafkaError, waited: Duration) -> Error {
        let code = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
        let reason = self.callbacks.reason().unwrap_or(code);
        if self.callbacks.refused() {
            return Error::external(format!("the Kafka brokers at {} refuse the connection: {reason}", self.bootstrap));
        }
        let seconds = waited.as_secs_f32();
        Error::external(format!("no Kafka broker answers at {} within {seconds:.1} s: {reason}", self.bootstrap)).retryable()
    }

    /// The error for a topic that does not exist, with the one that may have been meant.
    #[must_use]
    pub fn missing(&self, topic: &str) -> Error {
        let all = self.metadata(None).ok();
        let names: Vec<&str> =
            all.iter().flat_map(|all| all.topics()).map(|topic| topic.name()).filter(|name| !name.starts_with("__")).collect();
        let meant = closest(topic, names.iter().copied());
        let error = Error::external(format!("there is no topic {topic:?} on {}", self.bootstrap));
        match meant {
            Some(meant) => error.with("suggestion", meant),
            None => error,
        }
    }
}

/// Where partitions begin (`Offset::Beginning`) or end (`Offset::End`): the offset of the oldest record; that of the next record, or under `read_committed` of the first one
/// that is still in an open transaction.
///
/// # Errors
/// `external`, when a leader does not answer in time.
pub fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(&str, i32)],
    which: Offset,
    wait: Duration,
) -> Result<Vec<i64>> {
    // As a time, -2 and -1 ask for the beginning and the end (Kafka protocol, ListOffsets): one request to each leader.
    let found = offsets_at(consumer, partitions, which, wait)?;
    let missing =
        |(topic, partition): &(&str, i32)| Error::external(format!("no broker tells the offsets of {topic}-{partition}")).retryable();
    found.into_iter().zip(partitions).map(|(offset, partition)| offset.ok_or_else(|| missing(partition))).collect()
}

/// The offset of each partition's first record that is not older than a time, which is given as an offset: milliseconds since the epoch. `None`: there is none.
///
/// # Errors
/// `external`, when a leader does not answer in time.
pub fn offsets_at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(&str, i32)],
    time: Offset,
    wait: Duration,
) -> Result<Vec<Option<i64>>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, time)?;
    }
    let answer = consumer.offsets_for_times(list, wait).map_err(|error| unanswered("partitions", &error))?;
    partitions.iter().map(|partition| offset_in(&answer, partition)).collect()
}

/// What the consumer's group has committed for each partition. `None`: nothing.
///
/// # Errors
/// `external`, when its coordinator does not answer in time.
pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(&str, i32)],
    deadline: Instant,
) -> Result<Vec<Option<i64>>> {
    loop {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        // A broker may want a token.
        while consumer.poll(Duration::ZERO).is_some() {}
        match consumer.committed_offsets(list, LONGEST_ATTEMPT.min(deadline.saturating_duration_since(Instant::now()))) {
            Ok(answer) => return partitions.iter().map(|partition| offset_in(&answer, partition)).collect(),
            Err(error) if Instant::now() >= deadline => return Err(unanswered("the group", &error)),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn offset_in(answer: &TopicPartitionList, (topic, partition): &(&str, i32)) -> Result<Option<i64>> {
    let found = answer.find_partition(topic, *partition);
    match found.as_ref().map(|found| (found.error(), found.offset())) {
        Some((Ok(()), Offset::Offset(offset))) => Ok(Some(offset)),
        Some((Ok(()), _)) => Ok(None),
        Some((Err(error), _)) => Err(unanswered(&format!("{topic}-{partition}"), &error)),
        None => Err(Error::external(format!("no broker tells the offsets of {topic}-{partition}")).retryable()),
    }
}

fn unanswered(what: &str, error: &KafkaError) -> Error {
    Error::external(format!("asking for the offsets of {what}: {error}")).retryable()
}
