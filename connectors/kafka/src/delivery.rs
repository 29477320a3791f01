//! What has become of the records that `live` handed to librdkafka: counts them per batch, acknowledges batches in order, passes refused rows to the host, wakes it when
//! there is room again. Filled by the delivery reports on the producer's thread, asked by `live` on the host's.

use crate::{
    client::Callbacks,
    records::{is_record_at_fault, undelivered},
};
use rdkafka::{
    ClientContext, Message,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{NoCustomPartitioner, ProducerContext},
};
use standpipe_sdk::{Error, Rejection};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const _: () = assert!(usize::BITS == 64, "a record's tag holds the batch and the row");

/// The tag of a record: the lower half of its batch's number, and its row.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "fewer than 2^32 batches are on their way, and a batch has fewer than 2^32 rows")]
pub fn tag(seq: u64, row: usize) -> usize {
    ((seq as u32 as usize) << 32) | (row as u32 as usize)
}

struct Batch {
    seq: u64,
    /// Rows that are neither delivered nor refused.
    open: usize,
    refused: Vec<Rejection>,
}

#[derive(Default)]
struct State {
    /// In order; the first is not settled.
    batches: VecDeque<Batch>,
    /// Rows of all batches that are open.
    open: usize,
    /// Wake the host when so many rows are open.
    wake_at: Option<usize>,
    failed: Option<Error>,
}

/// The books of a producer, and its callbacks.
pub struct Deliveries {
    callbacks: Callbacks,
    state: Mutex<State>,
    settled: Condvar,
}

impl Deliveries {
    /// Empty books.
    #[must_use]
    pub fn new(callbacks: Callbacks) -> Self {
        Self { callbacks, state: Mutex::default(), settled: Condvar::new() }
    }

    /// The connection's callbacks.
    pub fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the books of a batch.
    pub fn begin(&self, seq: u64, rows: usize) {
        let mut state = self.lock();
        state.batches.push_back(Batch { seq, open: rows, refused: Vec::new() });
        state.open += rows;
        self.settle(&mut state);
    }

    /// A row of the batch cannot be delivered, whatever is tried.
    pub fn refuse(&self, tag: usize, reason: String) {
        self.close_row(tag, Some(reason));
    }

    /// A row of the batch is not written.
    pub fn pass_over(&self, tag: usize) {
        self.close_row(tag, None);
    }

    /// The failure that ends the sink.
    pub fn failure(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// librdkafka's queue is full while `waiting` rows of the batch are not in it: wakes the host when it is half empty. False if there is nothing in it, so that the
    /// caller must try again by itself.
    pub fn wake_at_half(&self, waiting: usize) -> bool {
        let mut state = self.lock();
        let queued = state.open - waiting;
        state.wake_at = (queued > 0).then_some(waiting + queued / 2);
        queued > 0
    }

    /// Waits until every row is settled or something failed, `limit` at most; whether every row is settled.
    pub fn wait(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| !state.batches.is_empty() && state.failed.is_none();
        let state = self.settled.wait_timeout_while(self.lock(), limit, waiting).unwrap_or_else(PoisonError::into_inner).0;
        state.batches.is_empty()
    }

    #[allow(clippy::cast_possible_truncation, reason = "takes a tag apart")]
    fn close_row(&self, tag: usize, refused: Option<String>) {
        let mut state = self.lock();
        let Some(first) = state.batches.front().map(|batch| batch.seq) else { return };
        let index = ((tag >> 32) as u32).wrapping_sub(first as u32) as usize;
        let Some(batch) = state.batches.get_mut(index) else { return };
        batch.open -= 1;
        batch.refused.extend(refused.map(|reason| Rejection { row: tag as u32, reason, details: String::new() }));
        let done = batch.open == 0;
        state.open -= 1;
        if state.wake_at.is_some_and(|wake_at| state.open <= wake_at) {
            state.wake_at = None;
            self.callbacks.host().wake();
        }
        if done && index == 0 {
            self.settle(&mut state);
        }
    }

    /// Closes the books of the first batches that have no open row: refused rows first, then the acknowledgement. Under the lock, so that the order holds.
    fn settle(&self, state: &mut State) {
        let mut up_to = None;
        while state.batches.front().is_some_and(|batch| batch.open == 0) {
            let Some(mut batch) = state.batches.pop_front() else { break };
            if !batch.refused.is_empty() {
                batch.refused.sort_by_key(|refused| refused.row);
                if let Err(error) = self.callbacks.host().reject(batch.seq, &batch.refused) {
                    self.fail(state, error);
                    return;
                }
            }
            up_to = Some(batch.seq);
        }
        if let Some(seq) = up_to {
            self.callbacks.host().ack(seq);
        }
        if state.batches.is_empty() {
            self.settled.notify_all();
        }
    }

    fn fail(&self, state: &mut State, error: Error) {
        if state.failed.is_none() {
            state.failed = Some(error);
            self.settled.notify_all();
            self.callbacks.host().wake();
        }
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.callbacks.generate_oauth_token(config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.callbacks.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fail(&mut self.lock(), Error::external(format!("the Kafka producer gave up: {reason}")));
        }
        self.callbacks.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            Ok(_) => {
                self.callbacks.answered();
                self.close_row(tag, None);
            }
            Err((error, message)) => match error.rdkafka_error_code() {
                Some(code) if is_record_at_fault(code) => self.close_row(tag, Some(code.to_string())),
                _ => {
                    let reason = undelivered(result).unwrap_or_default();
                    let error = Error::external(format!("a record for topic {:?} was not delivered: {reason}", message.topic()));
                    // It stays: what librdkafka itself retries it has retried.
                    self.fail(&mut self.lock(), error);
                }
            },
        }
    }
}
