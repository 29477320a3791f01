//! A partition that a reader reads: its queue, how far it is, and what has gone wrong with it. `source` owns one for each of its splits and polls their queues in turns.

use crate::{client::Callbacks, split::Partition};
use rdkafka::{
    consumer::base_consumer::PartitionQueue,
    error::{KafkaError, RDKafkaErrorCode},
};
use standpipe_sdk::{Error, Result};

/// What is known of a partition since it was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// No fetch has been answered.
    Nothing,
    /// Some records; there may be more.
    Records,
    /// Its end, and the host is to be told.
    End,
    /// Its end, as the host knows.
    ToldEnd,
}

/// A partition that is being read.
pub(crate) struct Reading {
    pub(crate) id: String,
    pub(crate) partition: Partition,
    pub(crate) queue: PartitionQueue<Callbacks>,
    /// The offset after the last message taken, or behind it where there is nothing to take, or where the host said to start; `None`: the oldest message.
    pub(crate) position: Option<i64>,
    /// When the last message taken was written, milliseconds since the epoch.
    pub(crate) written: Option<i64>,
    pub(crate) reached: Reached,
    pub(crate) paused: bool,
    pub(crate) ended: bool,
    /// What the next call says: rows came before it.
    pub(crate) failed: Option<Error>,
    /// Why it cannot be read now.
    pub(crate) trouble: Option<String>,
}

impl Reading {
    pub(crate) fn new(id: String, partition: Partition, queue: PartitionQueue<Callbacks>, position: Option<i64>) -> Self {
        let (reached, paused, failed, trouble) = (Reached::Nothing, false, None, None);
        let mut reading = Self { id, partition, queue, position, written: None, reached, paused, ended: false, failed, trouble };
        reading.ended = reading.is_at_its_last();
        reading
    }

    /// Whether a bounded read has all that it was to read.
    fn is_at_its_last(&self) -> bool {
        self.partition.end.zip(self.position).is_some_and(|(end, position)| position >= end)
    }

    /// Whether a message is behind the last that a bounded read wants.
    pub(crate) fn is_beyond(&self, offset: i64) -> bool {
        self.partition.end.is_some_and(|end| offset >= end)
    }

    /// A message was taken.
    pub(crate) fn took(&mut self, offset: i64, written: Option<i64>) {
        self.position = Some(offset + 1);
        self.written = written.or(self.written);
        self.reached = Reached::Records;
        self.ended = self.is_at_its_last();
    }

    /// The broker that is read from has nothing behind the offset `at`. All before it has come; what has not are marks of transactions and what compaction removed. A
    /// broker may know less than the one that told the end of a bounded read: a follower, or a new leader. Then the rest is still to come.
    pub(crate) fn arrived(&mut self, at: Option<i64>, bounded: bool) {
        self.position = self.position.max(at);
        self.reached = Reached::End;
        self.ended = bounded && (self.partition.end.is_none() || self.is_at_its_last());
    }

    /// An error came instead of a message. librdkafka itself tries again after most; why it must is given back.
    ///
    /// # Errors
    /// When there is no going on.
    pub(crate) fn stumbled(&mut self, error: &KafkaError) -> Result<String> {
        if is_gone(error) {
            return Err(Error::external(format!(
                "position {} of {} is not in Kafka: its records were deleted before they were read (retention), or the topic was created anew; the property \
                 auto.offset.reset can skip to `earliest` or `latest`",
                self.position.unwrap_or_default(),
                self.id
            )));
        }
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Err(Error::external(format!("the Kafka client gave up on {}: {error}", self.id)));
        }
        Ok(match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                "the brokers do not know the topic or partition any more".to_owned()
            }
            Some(code) => code.to_string(),
            None => error.to_string(),
        })
    }

    /// The position as the host keeps it; empty: the oldest message.
    pub(crate) fn position_text(&self) -> Vec<u8> {
        self.position.map(|position| position.to_string().into_bytes()).unwrap_or_default()
    }
}

/// Whether an error says that a position is not there any more.
pub(crate) fn is_gone(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}
