//! Delivery at least once: records go to librdkafka's idempotent producer as they come, which batches, sends, retries and keeps their order. What becomes of them is in
//! `delivery`.

use crate::{
    delivery::{self, Deliveries},
    records::{Columns, Record, Records, Sent},
};
use arrow_array::RecordBatch;
use rdkafka::producer::{Producer, ThreadedProducer};
use standpipe_sdk::{CloseReason, Error, Host, Result, Written};
use std::time::Duration;

/// How often a flush looks at the host's cancellation, and makes librdkafka send what it holds back to fill a batch.
const FLUSH_STEP: Duration = Duration::from_millis(10);

/// A batch that librdkafka took in part.
struct Partial {
    seq: u64,
    next_row: usize,
}

/// A sink that delivers at least once.
pub(crate) struct Live {
    topic: String,
    columns: Columns,
    producer: ThreadedProducer<Deliveries>,
    partial: Option<Partial>,
    host: Host,
}

impl Live {
    pub(crate) fn new(topic: String, columns: Columns, producer: ThreadedProducer<Deliveries>, host: Host) -> Self {
        Self { topic, columns, producer, partial: None, host }
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }

    fn check(&self) -> Result<()> {
        self.deliveries().failure().map_or(Ok(()), Err)
    }

    pub(crate) fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.check()?;
        let rows = batch.num_rows();
        let first = match self.partial.take() {
            Some(partial) if partial.seq == seq => partial.next_row,
            _ => {
                self.deliveries().begin(seq, rows);
                0
            }
        };
        let records = Records::of(batch, &self.columns)?;
        for row in first..rows {
            let tag = delivery::tag(seq, row);
            match records.get(row) {
                None => self.deliveries().pass_over(tag),
                Some(record) if self.offer(tag, &record, rows - row)? => {}
                Some(_) => {
                    self.partial = Some(Partial { seq, next_row: row });
                    return Ok(Written::Busy);
                }
            }
        }
        Ok(Written::Taken)
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
        match record.send(&self.producer, &self.topic, tag) {
            Ok(Sent::Taken) => Ok(true),
            Ok(Sent::Full) => Ok(false),
            Ok(Sent::Refused(reason)) => {
                self.deliveries().refuse(tag, reason);
                Ok(true)
            }
            Err(error) => Err(Error::external(format!("the Kafka producer takes no record for topic {:?}: {error}", self.topic))),
        }
    }

    pub(crate) fn flush(&self) -> Result<()> {
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

    pub(crate) fn close(&self, reason: CloseReason) -> Result<()> {
        // What is still on its way is dropped with the producer; after a failure that is what the host wants.
        if reason == CloseReason::Finished && !self.deliveries().wait(Duration::ZERO) {
            return Err(Error::external("records were written that are not delivered"));
        }
        Ok(())
    }
}
