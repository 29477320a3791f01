//! A transactional id: the producer that has claimed it, and its marker, which says what it has committed. Used by `exactly_once` alone.
//!
//! The marker is the offset of a private group, named like the transactional id, for partition 0 of the topic: the last checkpoint committed, with the start of the job that
//! had prepared it and the one that owns the id now. It is written by the same transaction as the records, so it says what is there, whatever was lost on the way.
//!
//! Claiming fences: `init_transactions` ends the transactions of whoever had the id before, the marker then names the new owner. An owner whose producer was fenced looks who
//! owns the id now: itself, if the brokers had only given up a transaction that took too long; another one, and it must stop for good.

use crate::{
    client::{self, Callbacks},
    epoch::Epoch,
    records::{Record, Records, Sent, undelivered},
};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::{DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};
use serde::{Deserialize, Serialize};
use standpipe_sdk::{Error, Host, Result, Secret};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a call that can be resumed waits, between two looks at the host's cancellation.
const STEP: Duration = Duration::from_millis(200);
/// How long the brokers may be silent before a transaction is given up, to be made again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The same for ending a transaction that is given up: if it does not, the next claim does.
const LAST_WORDS: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);

/// What a claim needs besides the id.
pub(crate) struct Wiring {
    /// Of the producer, without its id.
    pub(crate) producer: ClientConfig,
    /// Of the client that reads the marker.
    pub(crate) consumer: ClientConfig,
    pub(crate) oauth_token: Option<Secret>,
    /// This start of the job.
    pub(crate) run: String,
    pub(crate) host: Host,
}

/// What is expected of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    /// Whatever it says.
    New,
    /// It must be there: what it does not say would be written twice.
    Recover,
    /// It must be this start's own.
    Again,
}

/// What is known of a transactional id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    checkpoint: u64,
    words: Words,
}

/// The part of the marker that is text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Words {
    /// The start of the job that had prepared `checkpoint`.
    run: String,
    /// The start of the job that owns the id.
    owner: String,
}

impl Marker {
    /// Whether it says that this was committed.
    pub(crate) fn covers(&self, run: &str, checkpoint: u64) -> bool {
        self.words.run == run && self.checkpoint >= checkpoint
    }

    fn read(list: &TopicPartitionList, topic: &str) -> Result<Option<Self>> {
        let Some(found) = list.find_partition(topic, 0) else { return Ok(None) };
        found.error()?;
        let Offset::Offset(offset) = found.offset() else { return Ok(None) };
        let words = serde_json::from_str(found.metadata())
            .map_err(|error| Error::data(format!("a group's offset is no marker of an exactly-once sink: {error}")))?;
        Ok(Some(Self { checkpoint: u64::try_from(offset)?, words }))
    }

    fn list(&self, topic: &str) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, 0, Offset::Offset(i64::try_from(self.checkpoint)?))?;
        if let Some(mut only) = list.find_partition(topic, 0) {
            only.set_metadata(serde_json::to_string(&self.words)?);
        }
        Ok(list)
    }
}

/// Callbacks of a transactional producer: it keeps why the first record failed.
struct Reports {
    callbacks: Callbacks,
    failed: Mutex<Option<String>>,
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.callbacks.generate_oauth_token(config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.callbacks.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.callbacks.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _: usize) {
        match undelivered(result) {
            None => self.callbacks.answered(),
            Some(reason) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            }
        }
    }
}

/// A transactional id that this start of the job owns. After an error it must not be used again.
pub(crate) struct Session {
    id: String,
    topic: String,
    producer: ThreadedProducer<Reports>,
    group: ConsumerGroupMetadata,
    marker: Marker,
    /// When the marker was written: brokers forget a group's offset after some days.
    pub(crate) written: Instant,
    host: Host,
}

impl Session {
    /// Takes the id over from whoever has it.
    ///
    /// # Errors
    /// `external`, retryable unless another start of the job has taken it, or the marker is not there that must be.
    pub(crate) fn claim(wiring: &Wiring, id: &str, topic: &str, stance: Stance) -> Result<Self> {
        let callbacks = || Callbacks::new(wiring.host.clone(), wiring.oauth_token.clone());
        let mut settings = wiring.producer.clone();
        settings.set("transactional.id", id);
        let reports = Reports { callbacks: callbacks(), failed: Mutex::new(None) };
        let producer = settings.create_with_context(reports).map_err(|error| client::creation_error(&error))?;
        let mut settings = wiring.consumer.clone();
        settings.set("group.id", id);
        let consumer: BaseConsumer<Callbacks> =
            settings.create_with_context(callbacks()).map_err(|error| client::creation_error(&error))?;
        let group = consumer.group_metadata().ok_or_else(|| Error::external(format!("librdkafka gives no group {id:?}")))?;
        let (id, topic, host) = (id.to_owned(), topic.to_owned(), wiring.host.clone());
        let mut session = Self { id, topic, producer, group, marker: Marker::default(), written: Instant::now(), host };
        session.until_answered("claim the transactional id", || session.producer.init_transactions(STEP))?;
        let found = session.look(&consumer)?;
        drop(consumer);
        let before = match (stance, found) {
            (Stance::Recover, None) => return Err(session.forgotten()),
            (Stance::Again, Some(found)) if found.words.owner == wiring.run => found,
            (Stance::Again, _) => return Err(session.superseded()),
            (_, found) => found.unwrap_or_default(),
        };
        let words = Words { owner: wiring.run.clone(), ..before.words };
        session.transact(Marker { words, ..before }, |_| Ok(()))?;
        Ok(session)
    }

    pub(crate) fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Commits the records of a checkpoint, and that it has.
    ///
    /// # Errors
    /// Retryable: nothing of it is there, or all of it, as the marker will say.
    pub(crate) fn commit(&mut self, checkpoint: u64, epoch: Epoch<'_>) -> Result<()> {
        let words = Words { run: epoch.address.run.clone(), owner: self.marker.words.owner.clone() };
        self.transact(Marker { checkpoint, words }, |session| session.send(epoch))
    }

    /// Writes the marker again, so that it is not forgotten.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.transact(self.marker.clone(), |_| Ok(()))
    }

    fn transact(&mut self, marker: Marker, send: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let begun = self.producer.begin_transaction().map_err(|error| self.failure("begin", &error));
        let result = begun.and_then(|()| send(self)).and_then(|()| self.end(&marker));
        match result {
            Ok(()) => {
                (self.marker, self.written) = (marker, Instant::now());
                Ok(())
            }
            Err(error) => {
                // What cannot be ended now is ended by the next claim, or by the brokers after transaction.timeout.ms.
                let _ = self.producer.abort_transaction(LAST_WORDS);
                Err(error)
            }
        }
    }

    fn send(&self, epoch: Epoch<'_>) -> Result<()> {
        let (columns, topic) = (epoch.columns(), epoch.address.topic.clone());
        for batch in epoch {
            let batch = batch?;
            let records = Records::of(&batch, &columns)?;
            (0..batch.num_rows()).filter_map(|row| records.get(row)).try_for_each(|record| self.offer(&topic, &record))?;
        }
        Ok(())
    }

    /// Sends a record, waiting while the queue is full.
    fn offer(&self, topic: &str, record: &Record<'_>) -> Result<()> {
        let mut progress = None;
        loop {
            match record.send(&self.producer, topic, 0).map_err(|error| self.failure("write", &error))? {
                Sent::Taken => return Ok(()),
                Sent::Refused(reason) => return Err(self.refused(&reason)),
                Sent::Full => {}
            }
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            let waiting = self.producer.in_flight_count();
            if progress.get_or_insert_with(|| Progress::new(waiting)).stalls(waiting) {
                return Err(self.silent());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until all records are delivered, adds the marker, commits.
    fn end(&self, marker: &Marker) -> Result<()> {
        let mut progress = Progress::new(self.producer.in_flight_count());
        while self.producer.flush(STEP).is_err() {
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            if progress.stalls(self.producer.in_flight_count()) {
                return Err(self.silent());
            }
        }
        if let Some(reason) = self.producer.client().context().failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(self.refused(&reason));
        }
        let list = marker.list(&self.topic)?;
        let added = self.producer.send_offsets_to_transaction(&list, &self.group, PATIENCE);
        added.map_err(|error| self.failure("mark", &error))?;
        self.until_answered("commit", || self.producer.commit_transaction(STEP))
    }

    fn look(&self, consumer: &BaseConsumer<Callbacks>) -> Result<Option<Marker>> {
        let mut found = None;
        self.until_answered("read the marker of", || {
            // A broker may want a token.
            while consumer.poll(Duration::ZERO).is_some() {}
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(&self.topic, 0);
            found = Some(consumer.committed_offsets(list, Duration::from_secs(1))?);
            Ok(())
        })?;
        found.map_or(Ok(None), |list| Marker::read(&list, &self.topic))
    }

    /// Makes a call again, as long as the only answer is that there is none.
    fn until_answered(&self, doing: &str, mut call: impl FnMut() -> KafkaResult<()>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = call() else { return Ok(()) };
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            if !is_silence(&error) || begun.elapsed() >= PATIENCE {
                return Err(self.failure(doing, &error));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn failure(&self, doing: &str, error: &KafkaError) -> Error {
        let words = match error {
            KafkaError::Transaction(error) => error.string(),
            error => error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()),
        };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidTransactionTimeout) {
            let message = "is longer than the brokers allow (transaction.max.timeout.ms, 15 minutes unless changed)";
            return Error::config("properties.transaction.timeout.ms", message);
        }
        let reason = self.producer.client().context().callbacks.reason().filter(|_| is_silence(error)).unwrap_or(words);
        Error::external(format!("cannot {doing} {}: {reason}", self.named())).retryable()
    }

    fn silent(&self) -> Error {
        let reason = self.producer.client().context().callbacks.reason().unwrap_or_else(|| "no answer".to_owned());
        Error::external(format!("the records of {} are not delivered: {reason}", self.named())).retryable()
    }

    fn refused(&self, reason: &str) -> Error {
        Error::external(format!("a record of {} was not delivered: {reason}", self.named())).retryable()
    }

    fn superseded(&self) -> Error {
        let text = "another job, or a later start of this one, has taken over";
        Error::external(format!("{text} {}; two jobs need different transactional_id_prefix", self.named()))
    }

    fn forgotten(&self) -> Error {
        Error::external(format!(
            "whether the last checkpoint was committed is not known any more: the brokers have no offset of the group {:?} for topic {:?} (they forget it after \
             offsets.retention.minutes, and with the topic); if it was, give the sink another name and restore with --allow-non-restored-state",
            self.id, self.topic
        ))
    }

    fn named(&self) -> String {
        format!("transactional id {:?}", self.id)
    }
}

/// Whether there has been no answer yet.
fn is_silence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        BrokerTransportFailure, CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator, OperationTimedOut, RequestTimedOut,
        UnstableOffsetCommit, WaitingForCoordinator,
    };
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort(),
        // A group's coordinator may be on its way to another broker, or not be there yet.
        error => matches!(
            error.rdkafka_error_code(),
            Some(
                OperationTimedOut
                    | RequestTimedOut
                    | BrokerTransportFailure
                    | WaitingForCoordinator
                    | CoordinatorNotAvailable
                    | CoordinatorLoadInProgress
                    | NotCoordinator
                    | UnstableOffsetCommit
            )
        ),
    }
}

/// Whether a queue becomes shorter.
struct Progress {
    waiting: i32,
    since: Instant,
}

impl Progress {
    fn new(waiting: i32) -> Self {
        Self { waiting, since: Instant::now() }
    }

    fn stalls(&mut self, waiting: i32) -> bool {
        if waiting != self.waiting {
            *self = Self::new(waiting);
        }
        self.since.elapsed() >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(checkpoint: u64, run: &str) -> Marker {
        Marker { checkpoint, words: Words { run: run.to_owned(), owner: "o".to_owned() } }
    }

    #[test]
    fn a_marker_speaks_of_the_start_that_prepared() {
        let marker = marker(7, "r1");
        assert!(marker.covers("r1", 7) && marker.covers("r1", 3));
        // A later checkpoint, or the same number of another start: the folder of checkpoints may be a new one.
        assert!(!marker.covers("r1", 8) && !marker.covers("r2", 3));
        assert!(!Marker::default().covers("r1", 1));
    }

    #[test]
    fn a_marker_is_an_offset_with_words() {
        let list = marker(7, "r1").list("t").unwrap();
        assert_eq!(Marker::read(&list, "t").unwrap(), Some(marker(7, "r1")));
        assert_eq!(Marker::read(&list, "other").unwrap(), None);
        let mut none = TopicPartitionList::new();
        none.add_partition("t", 0);
        assert_eq!(Marker::read(&none, "t").unwrap(), None);
        none.set_partition_offset("t", 0, Offset::Offset(3)).unwrap();
        assert!(Marker::read(&none, "t").unwrap_err().message.contains("no marker"));
    }
}
