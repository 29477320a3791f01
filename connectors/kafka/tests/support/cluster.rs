//! A cluster to test against, and plain rdkafka clients to write to it and look into it beside the connector.

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use standpipe_connector_kafka::admin::block_on;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::PATIENCE;

/// A record to write as it is.
#[derive(Default, Clone)]
pub(crate) struct Message {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: Vec<(String, Option<String>)>,
}

impl Message {
    pub(crate) fn new(partition: i32, value: impl Into<String>) -> Self {
        Self { partition, value: Some(value.into()), ..Self::default() }
    }
}

pub(crate) struct Cluster {
    pub(crate) bootstrap: String,
    pub(crate) mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Cluster {
    pub(crate) fn mock() -> Self {
        Self::mock_of(1)
    }

    pub(crate) fn mock_of(brokers: i32) -> Self {
        let mock = MockCluster::new(brokers).unwrap();
        Self { bootstrap: mock.bootstrap_servers(), mock: Some(mock) }
    }

    /// `None`: there is none, and the test has been noted as skipped.
    pub(crate) fn real() -> Option<Self> {
        standpipe_sdk::testing::service("STANDPIPE_TEST_KAFKA").map(|bootstrap| Self { bootstrap, mock: None })
    }

    /// A new topic, its name like no other.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> String {
        self.topic_with(name, partitions, &[])
    }

    pub(crate) fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let topic = format!("{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        match &self.mock {
            Some(mock) => mock.create_topic(&topic, partitions, 1).unwrap(),
            None => {
                let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
                let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
                let made = block_on(self.admin().create_topics([&new], &AdminOptions::new()), PATIENCE).unwrap().unwrap();
                made.into_iter().for_each(|made| drop(made.unwrap()));
            }
        }
        topic
    }

    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        let grown = NewPartitions::new(topic, partitions);
        let made = block_on(self.admin().create_partitions([&grown], &AdminOptions::new()), PATIENCE).unwrap().unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    pub(crate) fn delete(&self, topic: &str) {
        let gone = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new()), PATIENCE).unwrap().unwrap();
        gone.into_iter().for_each(|gone| drop(gone.unwrap()));
    }

    /// One of a topic's own properties.
    pub(crate) fn topic_setting(&self, topic: &str, name: &str) -> String {
        let asked = [ResourceSpecifier::Topic(topic)];
        let answer = block_on(self.admin().describe_configs(&asked, &AdminOptions::new()), PATIENCE).unwrap().unwrap();
        answer[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap()
    }

    pub(crate) fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    /// Writes records past the connector.
    pub(crate) fn produce(&self, topic: &str, messages: impl IntoIterator<Item = Message>) {
        let producer = self.producer(&[]);
        send(&producer, topic, messages);
        producer.flush(PATIENCE).unwrap();
    }

    /// What a group has committed for partition 0.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> Offset {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.bootstrap).set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let list = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
        list.find_partition(topic, 0).unwrap().offset()
    }
}

pub(crate) fn send(producer: &BaseProducer, topic: &str, messages: impl IntoIterator<Item = Message>) {
    for message in messages {
        let mut record = BaseRecord::<str, str>::to(topic).partition(message.partition);
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        record.timestamp = message.timestamp;
        if !message.headers.is_empty() {
            let add =
                |headers: OwnedHeaders, (key, value): &(String, Option<String>)| headers.insert(Header { key, value: value.as_deref() });
            record.headers = Some(message.headers.iter().fold(OwnedHeaders::new(), add));
        }
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
}
