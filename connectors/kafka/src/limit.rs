//! The largest record that a topic takes. The producer must know it: brokers refuse a whole batch that is larger than the topic's `max.message.bytes`, and with it records
//! that are small enough. Asked once by `sink` when it opens; brokers that do not tell leave librdkafka's default.

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
};
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

/// The topic's `max.message.bytes`, if the brokers tell it in time.
#[must_use]
pub fn max_message_bytes(settings: &ClientConfig, topic: &str, wait: Duration) -> Option<u32> {
    let mut settings = settings.clone();
    settings.set_log_level(RDKafkaLogLevel::Critical);
    let admin: AdminClient<DefaultClientContext> = settings.create().ok()?;
    let asked = [ResourceSpecifier::Topic(topic)];
    let options = AdminOptions::new().request_timeout(Some(wait));
    let answer = block_on(admin.describe_configs(&asked, &options), wait)?.ok()?.into_iter().next()?.ok()?;
    let limit: u32 = answer.get("max.message.bytes")?.value.as_ref()?.parse().ok()?;
    Some(limit.clamp(*ALLOWED.start(), *ALLOWED.end()))
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
