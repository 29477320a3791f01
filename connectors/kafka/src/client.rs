//! What librdkafka is told and what it tells: the configuration of a client made of ours and the user's properties, the check of those properties, and the
//! callbacks that turn its log lines and error events into the host's log. Used by every kind of this plugin; connects to nothing by itself.

use crate::{config::problem, token, values::PropertyValue};
use rdkafka::{
    ClientConfig, ClientContext,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionList,
};
use standpipe_sdk::{Error, Host, LogLevel, Secret, is_reference, wire::Problem};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads.
    Consumer,
    /// Writes.
    Producer,
}

type Properties = BTreeMap<String, PropertyValue>;

/// Properties that the connector must own, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "is set by `bootstrap`"),
    ("metadata.broker.list", "is set by `bootstrap`"),
    ("test.mock.num.brokers", "belongs to the source `kafka-stand-in`"),
];
const OWNED_BY_SOURCE: &[(&str, &str)] = &[
    ("group.id", "is set by `group`"),
    ("enable.auto.commit", "is always false: offsets are committed when a checkpoint is durable"),
    ("enable.auto.offset.store", "is always false: offsets are committed when a checkpoint is durable"),
    ("enable.partition.eof", "is always true: the end of a partition is found by it"),
    ("partition.assignment.strategy", "has no effect: the job assigns partitions, not a consumer group"),
    ("group.instance.id", "has no effect: the job assigns partitions, not a consumer group"),
    ("group.protocol", "has no effect: the job assigns partitions, not a consumer group"),
];
const OWNED_BY_SINK: &[(&str, &str)] = &[
    ("enable.idempotence", "is always true: records keep their order and are not doubled by a retry"),
    ("acks", "is always `all`: a record that is acknowledged is on all in-sync replicas"),
    ("request.required.acks", "is always `all`: a record that is acknowledged is on all in-sync replicas"),
    ("delivery.report.only.error", "is always false: a record is acknowledged by its delivery report"),
    ("transactional.id", "is set by `transactional_id_prefix`, with `delivery: exactly-once`"),
];

/// Ours where librdkafka's own default does not fit; a user may change them.
const SOURCE_DEFAULTS: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    // A position that has been deleted is lost data: say so.
    ("auto.offset.reset", "error"),
    // A full local queue is looked at again soon, not after librdkafka's second: a reader empties it in a tenth of that.
    ("fetch.queue.backoff.ms", "10"),
];
const SINK_DEFAULTS: &[(&str, &str)] = &[
    // Java's partitioner.
    ("partitioner", "murmur2_random"),
    // Unreachable is not a failure: librdkafka keeps trying.
    ("message.timeout.ms", "0"),
    // Bounds what waits in memory for brokers that do not answer.
    ("queue.buffering.max.kbytes", "65536"),
    // A missing topic is an error, not a new topic.
    ("allow.auto.create.topics", "false"),
];

/// Names for "did you mean": what people set.
const COMMON_NAMES: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "api.version.request",
    "auto.offset.reset",
    "batch.num.messages",
    "batch.size",
    "bootstrap.servers",
    "broker.address.family",
    "broker.address.ttl",
    "check.crcs",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.idempotence",
    "enable.partition.eof",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "isolation.level",
    "linger.ms",
    "log.connection.close",
    "max.in.flight",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries",
    "retry.backoff.ms",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.config",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "statistics.interval.ms",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

const TRANSACTION_TIMEOUT: &str = "transaction.timeout.ms";
const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);
/// As long as a transaction waits for brokers that are silent.
const LEAST_TRANSACTION_TIMEOUT: Duration = crate::transaction::PATIENCE;
/// Names of one property.
const MESSAGE_TIMEOUT: [&str; 2] = ["message.timeout.ms", "delivery.timeout.ms"];

/// How librdkafka says that a property does not exist.
const UNKNOWN: &str = "No such configuration property";

/// The configuration of a client.
#[must_use]
pub fn settings(role: Role, bootstrap: &str, properties: &Properties) -> ClientConfig {
    let mut settings = ClientConfig::new();
    let defaults = match role {
        Role::Consumer => SOURCE_DEFAULTS,
        Role::Producer => SINK_DEFAULTS,
    };
    settings.extend(defaults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    settings.extend(properties.iter().map(|(name, value)| (name.clone(), value.0.clone())));
    settings.set("bootstrap.servers", bootstrap);
    match role {
        Role::Consumer => {
            settings.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false").set("enable.partition.eof", "true")
        }
        Role::Producer => settings.set("enable.idempotence", "true").set("acks", "all"),
    };
    // OpenSSL is built in and knows no system folder: librdkafka looks for the certificates of the system in the usual places.
    let encrypted = properties.get("security.protocol").is_some_and(|value| value.0.to_ascii_lowercase().contains("ssl"));
    if encrypted && !properties.keys().any(|name| name.starts_with("ssl.ca.")) {
        settings.set("ssl.ca.location", "probe");
    }
    settings.set_log_level(RDKafkaLogLevel::Info);
    settings
}

/// The same for a producer with transactions, which give up a record when they time out themselves.
#[must_use]
pub fn transactional(mut settings: ClientConfig, properties: &Properties) -> ClientConfig {
    if !MESSAGE_TIMEOUT.iter().any(|name| properties.contains_key(*name)) {
        settings.remove(MESSAGE_TIMEOUT[0]);
    }
    settings
}

/// Checks what a sink's properties say of transactions.
pub fn check_transactions(exactly_once: bool, properties: &Properties, problems: &mut Vec<Problem>) {
    let number = |name: &str| properties.get(name).and_then(|value| value.0.parse::<u64>().ok()).map(Duration::from_millis);
    let path = |name: &str| format!("properties.{name}");
    if !exactly_once {
        if properties.contains_key(TRANSACTION_TIMEOUT) {
            problems.push(problem(&path(TRANSACTION_TIMEOUT), "needs `delivery: exactly-once`"));
        }
        return;
    }
    let timeout = number(TRANSACTION_TIMEOUT).unwrap_or(DEFAULT_TRANSACTION_TIMEOUT);
    if timeout < LEAST_TRANSACTION_TIMEOUT {
        let least = LEAST_TRANSACTION_TIMEOUT.as_millis();
        problems.push(problem(
            &path(TRANSACTION_TIMEOUT),
            format!("must be {least} at least: a transaction sends all records of a checkpoint"),
        ));
    }
    for name in MESSAGE_TIMEOUT {
        if number(name).is_some_and(|message| message.is_zero() || message > timeout) {
            let message = format!(
                "must be from 1 to {}, which transaction.timeout.ms is: a record cannot outlive its transaction",
                timeout.as_millis()
            );
            problems.push(problem(&path(name), message));
        }
    }
    if properties.get("allow.auto.create.topics").is_some_and(|value| value.0 == "true") {
        problems.push(problem(&path("allow.auto.create.topics"), "does not go with `delivery: exactly-once`: `create_topic` does"));
    }
}

/// Finds properties that do not exist, have wrong values or are ours.
pub fn check_properties(role: Role, properties: &Properties, problems: &mut Vec<Problem>) {
    let mine = match role {
        Role::Consumer => OWNED_BY_SOURCE,
        Role::Producer => OWNED_BY_SINK,
    };
    for (name, value) in properties {
        let path = format!("properties.{name}");
        if let Some((_, reason)) = OWNED.iter().chain(mine).find(|(owned, _)| owned == name) {
            problems.push(problem(&path, *reason));
        } else if let Err(message) = check_property(name, &value.0) {
            let unknown = message.contains(UNKNOWN);
            let suggestion = unknown.then(|| standpipe_sdk::config::closest(name, COMMON_NAMES.iter().copied())).flatten();
            let message = if unknown {
                "is no property of librdkafka".to_owned()
            } else if message.contains("libcurl") {
                format!("{message}; `oauth_token` takes a token from a file that something else renews")
            } else {
                message
            };
            problems.push(Problem { path, message, suggestion: suggestion.map(str::to_owned) });
        }
    }
}

fn check_property(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        // What stands behind a reference is not known yet: only the name is judged.
        Err(KafkaError::ClientConfig(_, message, _, _)) if is_reference(value) && !message.contains(UNKNOWN) => Ok(()),
        Err(KafkaError::ClientConfig(_, message, _, _)) => Err(message),
        Err(error) => Err(error.to_string()),
    }
}

/// The error for a client that librdkafka refuses to make. It never shows a property's value: at this point it may have been a secret.
#[must_use]
pub fn creation_error(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, message, name, value) => {
            let message = if value.is_empty() { message.clone() } else { message.replace(value.as_str(), "...") };
            Error::config(format!("properties.{name}"), message)
        }
        KafkaError::ClientCreation(message) => Error::config("properties", message.clone()),
        error => Error::config("properties", error.to_string()),
    }
}

/// The callbacks of a client: its log lines go to the host's log, and it knows whether the brokers can be reached.
pub struct Callbacks {
    host: Host,
    oauth_token: Option<Secret>,
    down: AtomicBool,
    /// Why a connection failed last.
    reason: Mutex<Option<String>>,
    /// The brokers refuse us for good: wrong credentials, a certificate that does not fit.
    refused: AtomicBool,
    /// The offset of the last end of a partition; negative: none.
    end_of_partition: AtomicI64,
}

impl Callbacks {
    /// Callbacks that log to that host, and give this token to brokers that want one.
    #[must_use]
    pub fn new(host: Host, oauth_token: Option<Secret>) -> Self {
        let (down, reason, refused, end_of_partition) =
            (AtomicBool::new(false), Mutex::new(None), AtomicBool::new(false), AtomicI64::new(-1));
        Self { host, oauth_token, down, reason, refused, end_of_partition }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Why a connection failed last.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether trying longer is of no use.
    pub fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The offset at which the partition ended whose `PartitionEOF` was given last. rdkafka's error has the partition alone; the event behind it, which is served by the
    /// same poll and on the same thread, says the offset in its text.
    pub fn end_of_partition(&self) -> Option<i64> {
        Some(self.end_of_partition.load(Ordering::Relaxed)).filter(|offset| *offset >= 0)
    }

    /// A broker has answered.
    pub fn answered(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            self.host.info("connected again", &[]);
        }
    }
}

impl ClientContext for Callbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        token::fetch(self.oauth_token.as_ref(), &self.host)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let level = match level {
            // Failed connections come as error events too, and those are counted; warnings of the configuration are about our own defaults; a transactional id that is not
            // free yet is waited for, and what is wrong with one is the answer to its claim.
            _ if matches!(facility, "FAIL" | "ERROR" | "CONFWARN" | "GETPID") => LogLevel::Debug,
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => LogLevel::Error,
            RDKafkaLogLevel::Warning => LogLevel::Warn,
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => LogLevel::Info,
            RDKafkaLogLevel::Debug => LogLevel::Debug,
        };
        self.host.log(level, message, &[("facility", facility.into())]);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => self.end_of_partition.store(offset_of_end(reason).unwrap_or(-1), Ordering::Relaxed),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                if !self.down.swap(true, Ordering::Relaxed) {
                    let last = self.reason().unwrap_or_else(|| reason.to_owned());
                    self.host.warn("no broker can be reached; going on when one comes back", &[("reason", last.into())]);
                }
            }
            code => {
                if matches!(
                    code,
                    Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::SSL)
                ) {
                    self.refused.store(true, Ordering::Relaxed);
                    self.host.warn(reason, &[]);
                }
                let before = self.reason.lock().unwrap_or_else(PoisonError::into_inner).replace(reason.to_owned());
                // An answer that is refused is asked for again for ever, and nothing else says so.
                if reason.contains(TOO_LARGE) && !before.is_some_and(|before| before.contains(TOO_LARGE)) {
                    self.host.warn("a record is larger than an answer may be, and is not read", &[("reason", reason.into())]);
                }
            }
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

/// In librdkafka's `Invalid response size 8000123 (0..1000000): increase receive.message.max.bytes` (`rd_kafka_recv`).
const TOO_LARGE: &str = "increase receive.message.max.bytes";

/// From librdkafka's `Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 43)` (`rd_kafka_fetch_reply_handle_partition_error`).
fn offset_of_end(reason: &str) -> Option<i64> {
    let (_, offset) = reason.split_once(" at offset ")?;
    offset.split(' ').next()?.parse().ok()
}

impl ConsumerContext for Callbacks {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            self.host
                .warn("the group's offsets were not committed; the job's own positions are safe", &[("reason", error.to_string().into())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(role: Role, properties: &[(&str, &str)]) -> Vec<Problem> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), PropertyValue((*value).to_owned()))).collect();
        let mut problems = Vec::new();
        check_properties(role, &properties, &mut problems);
        problems
    }

    #[test]
    fn a_wrong_property_is_named_with_what_was_meant() {
        let found = problems(Role::Consumer, &[("isolation.levle", "read_committed"), ("session.timeout.ms", "soon"), ("client.id", "me")]);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].path.as_str(), found[0].suggestion.as_deref()), ("properties.isolation.levle", Some("isolation.level")));
        assert_eq!(found[1].path, "properties.session.timeout.ms");
        assert!(found[1].message.contains("session.timeout.ms"), "{}", found[1].message);
    }

    #[test]
    fn a_property_that_is_ours_is_refused_with_the_reason() {
        let found = problems(Role::Consumer, &[("enable.auto.commit", "true"), ("acks", "all")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("checkpoint is durable"), "{}", found[0].message);
        assert_eq!(problems(Role::Producer, &[("acks", "1")])[0].path, "properties.acks");
    }

    #[test]
    fn a_reference_is_checked_by_its_name_alone() {
        assert_eq!(problems(Role::Producer, &[("sasl.password", "${file:p}"), ("partitioner", "${env:P}")]), []);
        assert_eq!(problems(Role::Producer, &[("sasl.passwort", "${file:p}")])[0].suggestion.as_deref(), Some("sasl.password"));
    }

    #[test]
    fn the_end_of_a_partition_has_its_offset() {
        assert_eq!(offset_of_end("Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 43)"), Some(42));
        assert_eq!(offset_of_end("Broker: No more messages"), None);
    }

    #[test]
    fn compression_is_built_in() {
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            assert_eq!(problems(Role::Producer, &[("compression.type", codec)]), [], "{codec}");
        }
    }

    #[test]
    fn security_is_built_in() {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
            let properties =
                [("security.protocol", "SASL_SSL"), ("sasl.mechanisms", mechanism), ("sasl.username", "u"), ("sasl.password", "p")];
            let properties = properties.map(|(name, value)| (name.to_owned(), PropertyValue(value.to_owned()))).into();
            let made = settings(Role::Consumer, "127.0.0.1:1", &properties).create::<rdkafka::consumer::BaseConsumer>();
            assert!(made.is_ok(), "{mechanism}: {:?}", made.err());
        }
    }

    #[test]
    fn a_secret_is_not_shown_when_librdkafka_refuses_it() {
        let refused = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"hunter2\" for \"x\"".to_owned(),
            "x".to_owned(),
            "hunter2".to_owned(),
        );
        let error = creation_error(&refused);
        assert_eq!(error.message, "Invalid value \"...\" for \"x\"");
    }
}
