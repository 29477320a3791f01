//! A stand-in for a Kafka cluster: librdkafka's mock brokers in this process, started by a source that gives their address as its only row. For demonstrations and tests
//! without a server; the real protocol, but no claim about transactions, rebalancing or retention rests on it. The demo of the host opens this source and keeps it open.

use crate::{client, config::StandInConfig, config::problem};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    producer::{BaseProducer, DefaultProducerContext, Producer},
};
use standpipe_sdk::{
    CloseReason, Context, Error, Host, Poll, PollLimits, Result, SingleSplit, Source, SourceDeclaration, Split,
    source::{Capabilities, Encoding},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

const REMARK: &str = "a stand-in for a Kafka cluster, in memory, inside this process: librdkafka's mock brokers. Records are gone when it ends, and the oldest are dropped \
                      silently beyond some 5 MB in a partition";
const NAP: Duration = Duration::from_millis(100);

/// The source that runs the stand-in.
pub struct KafkaStandIn {
    /// The client that owns the mock brokers.
    cluster: Option<BaseProducer<DefaultProducerContext>>,
    bootstrap: String,
    address_file: Option<PathBuf>,
    /// The split to give the row for.
    announced: Option<String>,
    host: Host,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("bootstrap", DataType::Utf8, false), Field::new("message", DataType::Utf8, false)]))
}

impl Source for KafkaStandIn {
    const NAME: &'static str = "kafka-stand-in";
    type Config = StandInConfig;
    type Enumerator = SingleSplit<StandInConfig>;

    fn declare(config: &StandInConfig) -> Result<SourceDeclaration> {
        let empty = config
            .topics
            .iter()
            .filter(|(_, partitions)| **partitions == 0)
            .map(|(topic, _)| problem(&format!("topics.{topic}"), "needs a partition"));
        let brokers = (config.brokers == 0).then(|| problem("brokers", "must be 1 at least"));
        Ok(SourceDeclaration {
            encoding: Encoding::Rows,
            schema: schema(),
            capabilities: Capabilities { ordered: true, ..Capabilities::default() },
            problems: empty.chain(brokers).collect(),
        })
    }

    fn open(config: StandInConfig, context: Context) -> Result<Self> {
        let mut settings = ClientConfig::new();
        settings.set("test.mock.num.brokers", config.brokers.to_string()).set_log_level(RDKafkaLogLevel::Critical);
        let cluster: BaseProducer = settings.create().map_err(|error| client::creation_error(&error))?;
        let mock = cluster.client().mock_cluster().ok_or_else(|| Error::external("librdkafka started no mock brokers"))?;
        for (topic, partitions) in &config.topics {
            mock.create_topic(topic, i32::from(*partitions), 1)?;
        }
        let bootstrap = mock.bootstrap_servers();
        drop(mock);
        if let Some(file) = &config.address_file {
            announce(file, &bootstrap).map_err(|error| Error::external(format!("{}: {error}", file.display())))?;
        }
        context.host.info(format!("at {bootstrap}: {REMARK}"), &[]);
        Ok(Self { cluster: Some(cluster), bootstrap, address_file: config.address_file, announced: None, host: context.host })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        // After a restart the cluster is a new one: its address is given again, whatever the position.
        self.announced = splits.into_iter().next().map(|split| split.id);
        Ok(())
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        if let Some(split) = self.announced.take() {
            let text = |text: &str| Arc::new(StringArray::from_iter_values([text])) as ArrayRef;
            let batch = RecordBatch::try_new(schema(), vec![text(&self.bootstrap), text(REMARK)])?;
            return Ok(Poll::Batch { split, batch, position: b"up".to_vec(), watermark: None });
        }
        let deadline = Instant::now() + limits.wait;
        while Instant::now() < deadline && !self.host.cancelled() {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()).min(NAP));
        }
        Ok(Poll::Idle)
    }

    fn close(&mut self, _: CloseReason) -> Result<()> {
        self.cluster = None;
        if let Some(file) = self.address_file.take() {
            std::fs::remove_file(&file).map_err(|error| Error::external(format!("{}: {error}", file.display())))?;
        }
        Ok(())
    }
}

/// Writes the address so that a reader of the file sees all of it or no file.
fn announce(file: &Path, bootstrap: &str) -> std::io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, bootstrap)?;
    std::fs::rename(&new, file)
}
