//! The demo's two jobs: the producer, and the pipeline of `examples/signal-quality.yaml` with the addresses and names of this run.

use super::services::{Elasticsearch, Kafka, PARTITIONS};
use crate::{cli::DemoArguments, commands::run::failure, load, secrets};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use standpipe_engine::{JobControl, JobHandle, Metrics, RunOptions};
use standpipe_pipeline::{LoadOptions, PipelineFile};
use std::{cell::Cell, path::Path, sync::Arc, time::Duration};

pub(super) const MAIN: &str = include_str!("../../../examples/signal-quality.yaml");
const PRODUCER: &str = include_str!("producer.yaml");

/// What this run calls its topic and indices: names of its own, so that what an earlier run left behind is neither touched nor compared.
pub(super) struct Names {
    /// When it started, `20261121-071530`.
    pub(super) run: String,
    /// The topic.
    pub(super) topic: String,
}

impl Names {
    /// Names that no other run has, unless two start in the same second.
    pub(super) fn of_this_run() -> Self {
        let run = Utc::now().format("%Y%m%d-%H%M%S").to_string();
        Self { topic: format!("baseline_signal-{run}"), run }
    }

    /// The index of a sink of the pipeline.
    pub(super) fn index(&self, sink: &str) -> String {
        format!("standpipe-{sink}-{}", self.run)
    }

    /// All indices.
    pub(super) fn indices(&self) -> Vec<String> {
        SINKS.iter().map(|sink| self.index(sink)).collect()
    }
}

/// The sinks of the pipeline.
pub(super) const SINKS: [&str; 4] = ["signal-windows", "flag-runs", "current-flag", "late-signals"];

/// A running job.
pub(super) struct Job {
    handle: JobHandle,
    /// `ended` has found that it has: the handle says it once.
    ended: Cell<bool>,
}

impl Job {
    /// Kafka -> windows, runs, flags -> Elasticsearch.
    pub(super) fn main(arguments: &DemoArguments, kafka: &Kafka, elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<Self> {
        let mut set = vec![
            ("sources.signals.with.bootstrap".to_owned(), json!(kafka.bootstrap)),
            ("sources.signals.with.topic".to_owned(), json!(names.topic)),
        ];
        for sink in SINKS {
            let key = |name: &str| format!("sinks.{sink}.with.{name}");
            set.push((key("hosts"), json!([elasticsearch.url])));
            set.push((key("index"), json!(names.index(sink))));
            if let Some((user, password)) = &elasticsearch.login {
                set.push((key("username"), json!(user)));
                set.push((key("password"), json!(password.replace("${", "$${"))));
            }
        }
        start(Path::new("signal-quality.yaml"), MAIN, arguments, Some(arguments.parallelism), set)
    }

    /// Generator -> Kafka: `count` signals whose time ends about now.
    pub(super) fn producer(arguments: &DemoArguments, kafka: &Kafka, names: &Names, count: u64) -> anyhow::Result<Self> {
        let step = f64::from(arguments.speed) / f64::from(arguments.rate);
        let before = Duration::from_secs_f64(step * count as f64);
        let begin: DateTime<Utc> = Utc::now() + TimeDelta::from_std(arguments.duration)? - TimeDelta::from_std(before)?;
        let mut set = vec![
            ("sources.generator.with.rate".to_owned(), json!(arguments.rate)),
            ("sources.generator.with.count".to_owned(), json!(count)),
            ("sources.generator.with.step".to_owned(), json!(format!("{}us", (step * 1e6).round().max(1.0)))),
            ("sources.generator.with.start".to_owned(), json!(begin.format("%Y-%m-%d %H:%M:%S").to_string())),
            ("sinks.topic.with.bootstrap".to_owned(), json!(kafka.bootstrap)),
            ("sinks.topic.with.topic".to_owned(), json!(names.topic)),
        ];
        // The stand-in has the topic and lets no client create one.
        if !kafka.is_stand_in() {
            set.push(("sinks.topic.with.create_topic".to_owned(), json!({ "partitions": PARTITIONS })));
        }
        start(Path::new("producer.yaml"), PRODUCER, arguments, None, set)
    }

    /// Stops it.
    pub(super) fn control(&self) -> JobControl {
        self.handle.control()
    }

    /// Its numbers.
    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.handle.metrics()
    }

    /// Whether it has ended without a failure.
    pub(super) fn ended(&self) -> anyhow::Result<bool> {
        if !self.ended.get()
            && let Some(result) = self.handle.wait_for(Duration::ZERO)
        {
            result.map_err(|error| failure(&error))?;
            self.ended.set(true);
        }
        Ok(self.ended.get())
    }
}

fn start(path: &Path, text: &str, arguments: &DemoArguments, parallelism: Option<u32>, set: Vec<(String, Value)>) -> anyhow::Result<Job> {
    let set = set.into_iter().map(|(key, value)| (key, value.to_string())).collect();
    let pipeline = PipelineFile::parse(path, text, &LoadOptions { parallelism, set, settings: Vec::new() })
        .map_err(|problems| load::failure(&problems))?;
    let plan = load::plan(&pipeline, &arguments.plugins.plugin_path, None)?;
    let options = RunOptions { secrets: secrets::resolver(), ..RunOptions::new() };
    let handle = standpipe_engine::run(Arc::new(plan), options).map_err(|error| failure(&error))?;
    Ok(Job { handle, ended: Cell::new(false) })
}
