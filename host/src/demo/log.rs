//! The Kafka log as plain records, read through the Kafka source's own interface, without a pipeline and without the engine.

use super::{services::Kafka, truth::LogRecord};
use crate::exit::{Code, Failure};
use anyhow::Context;
use arrow_array::{
    RecordBatch,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use serde_json::json;
use standpipe_loader::{Catalogue, CloseReason, HostServices, InstanceContext, LogLevel, MetricKind, Polled, SplitPosition};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const BATCH_ROWS: u32 = 8_192;
const BATCH_BYTES: u64 = 8 << 20;
const WAIT: Duration = Duration::from_millis(500);
/// Empty polls in a row after which the log is given up.
const PATIENCE: u32 = 40;

/// Reads a topic from beginning to end, sorted by partition and offset.
pub(super) fn read(kafka: &Kafka, catalogue: &Catalogue, topic: &str) -> anyhow::Result<Vec<LogRecord>> {
    let kind = catalogue.source("kafka").map_err(|error| Failure::error(Code::Usage, error))?;
    let config = json!({ "bootstrap": kafka.bootstrap, "topic": topic, "bounded": true, "metadata": ["partition", "offset"] });
    let context =
        InstanceContext { node: "the log".to_owned(), parallelism: 1, max_parallelism: 1, generation: 1, ..InstanceContext::default() };
    let host: Arc<dyn HostServices> = Arc::new(PluginHost);
    let mut enumerator = kind.enumerator(&config, &context, Arc::clone(&host))?;
    enumerator.open()?;
    let mut splits = Vec::new();
    while splits.is_empty() {
        let found = enumerator.discover(WAIT)?;
        splits.extend(found.added.into_iter().map(|split| SplitPosition { split: split.split, details: split.details, position: None }));
    }
    enumerator.close(CloseReason::Finished)?;

    let mut reader = kind.reader(&config, &context, host)?;
    reader.open()?;
    reader.assign(&splits)?;
    let (mut records, mut open, mut empty) = (Vec::new(), splits.len(), 0);
    while open > 0 {
        match reader.poll(BATCH_ROWS, BATCH_BYTES, WAIT)? {
            Polled::Batch { batch, .. } => {
                append(&mut records, &batch)?;
                empty = 0;
            }
            Polled::EndOfSplit(_) => open -= 1,
            Polled::Idle if empty == PATIENCE => {
                return Err(Failure::error(
                    Code::Outside,
                    format!("the end of {topic} cannot be read: no record for {:?}", WAIT * PATIENCE),
                ));
            }
            Polled::Idle => empty += 1,
        }
    }
    reader.close(CloseReason::Finished)?;
    records.sort_unstable_by_key(|record: &LogRecord| record.position);
    Ok(records)
}

fn append(records: &mut Vec<LogRecord>, batch: &RecordBatch) -> anyhow::Result<()> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("the Kafka source gave no column {name}"));
    let values = column("value")?.as_binary_opt::<i32>().context("the column value is not binary")?;
    let partitions = column("partition")?.as_primitive_opt::<Int32Type>().context("the column partition is not int32")?;
    let offsets = column("offset")?.as_primitive_opt::<Int64Type>().context("the column offset is not int64")?;
    for (row, (partition, offset)) in partitions.values().iter().zip(offsets.values()).enumerate() {
        records.push(LogRecord { position: (*partition, *offset), value: values.value(row).to_vec() });
    }
    Ok(())
}

/// What a plugin may ask of the host outside of a job.
pub(super) struct PluginHost;

impl HostServices for PluginHost {
    fn log(&self, level: LogLevel, json: &str) {
        match level {
            LogLevel::Error => tracing::error!("{json}"),
            LogLevel::Warn => tracing::warn!("{json}"),
            _ => tracing::debug!("{json}"),
        }
    }

    fn register_metric(&self, _: &str, _: MetricKind, _: &str) -> u64 {
        0
    }

    fn update_metric(&self, _: u64, _: f64) {}

    fn cancelled(&self) -> bool {
        false
    }

    fn wake(&self) {}

    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        standpipe_pipeline::substitute::resolve(reference)
    }

    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
    }
}
