//! What `sink` asks of a cluster's administration when it opens: the largest record that a topic takes, and a topic that is missing. Nothing here is asked again later.
//!
//! The producer must know the largest record: brokers refuse a whole batch that is larger than the topic's `max.message.bytes`, and with it records that are small enough.
//! Brokers that do not tell leave librdkafka's default.

use crate::config::CreateTopic;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaResult, RDKafkaErrorCode},
};
use standpipe_sdk::{Error, Result};
use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// What librdkafka takes as `message.max.bytes`.
const ALLOWED: std::ops::RangeInclusive<u32> = 1_000..=1_000_000_000;

/// "As the broker's configuration says" (KIP-464, Kafka 2.4).
const BROKERS_DEFAULT: i32 = -1;

/// A client with the producer's settings; what it logs is seen by the producer's too.
fn client(settings: &ClientConfig) -> KafkaResult<AdminClient<DefaultClientContext>> {
    let mut settings = settings.clone();
    settings.set_log_level(RDKafkaLogLevel::Critical);
    settings.create()
}

/// Creates a topic. One that is there, because another subtask was faster, is as good.
///
/// # Errors
/// `external`, when the brokers refuse or do not answer in time.
pub fn create_topic(settings: &ClientConfig, topic: &str, create: &CreateTopic, wait: Duration) -> Result<()> {
    let bootstrap = settings.get("bootstrap.servers").unwrap_or_default();
    let failed = |reason: String| Error::external(format!("cannot create topic {topic:?} on {bootstrap}: {reason}"));
    let admin = client(settings).map_err(|error| failed(error.to_string()))?;
    let replication = TopicReplication::Fixed(create.replication.map_or(BROKERS_DEFAULT, i32::from));
    let new = NewTopic::new(topic, create.partitions.unwrap_or(BROKERS_DEFAULT), replication);
    let new = create.properties.iter().fold(new, |new, (name, value)| new.set(name, &value.0));
    let options = AdminOptions::new().request_timeout(Some(wait)).operation_timeout(Some(wait));
    let answer = block_on(admin.create_topics([&new], &options), wait).ok_or_else(|| failed(format!("no answer within {wait:?}")))?;
    match answer.map_err(|error| failed(error.to_string()))?.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(failed(code.to_string())),
        _ => Ok(()),
    }
}

/// What a topic says of itself, if the brokers tell it in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// Its `max.message.bytes`.
    pub max_message_bytes: Option<u32>,
    /// Its `cleanup.policy` is `compact` alone or among others: a record without a key is refused.
    pub is_compacted: bool,
}

/// Asks for them.
#[must_use]
pub fn topic_limits(settings: &ClientConfig, topic: &str, wait: Duration) -> TopicLimits {
    let ask = || {
        let admin = client(settings).ok()?;
        let asked = [ResourceSpecifier::Topic(topic)];
        let options = AdminOptions::new().request_timeout(Some(wait));
        block_on(admin.describe_configs(&asked, &options), wait)?.ok()?.into_iter().next()?.ok()
    };
    let Some(answer) = ask() else { return TopicLimits::default() };
    let value = |name: &str| answer.get(name).and_then(|entry| entry.value.as_deref());
    let bytes = value("max.message.bytes").and_then(|bytes| bytes.parse::<u32>().ok());
    TopicLimits {
        max_message_bytes: bytes.map(|bytes| bytes.clamp(*ALLOWED.start(), *ALLOWED.end())),
        is_compacted: value("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The future's result, if it comes in time. rdkafka's administration knows futures only; one of them is no reason for a runtime.
pub fn block_on<F: Future>(future: F, wait: Duration) -> Option<F::Output> {
    let deadline = Instant::now() + wait;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
