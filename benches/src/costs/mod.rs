//! What plugins cost, and what it costs to lose nothing (`--costs`): calls, plugins in processes of their own, checkpoints against none, recovery, snapshots against the disk, memory per key, several
//! processes against one, a session cluster, real services.
//! One file per subject; each is a whole process of the binary, its output is checked, and variants take turns in the same rounds.

mod calls;
mod checkpoints;
mod cluster;
mod elasticsearch;
mod isolation;
mod job;
mod kafka;
mod memory;
mod processes;
mod recovery;
mod snapshots;
mod stateful;

use anyhow::{Context, Result};
use job::Job;
use serde_json::Value;
use stateful::{Keeper, Sums};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What nothing takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Keys at full scale.
const KEYS: f64 = 1_000_000.0;
/// The name of the job with state, under which its checkpoints are.
const STATEFUL: &str = "bench-stateful";

/// What all subjects need.
pub(crate) struct Costs<'a> {
    pub(crate) standpipe: &'a Path,
    pub(crate) root: &'a Path,
    /// Outputs, checkpoints and scratch; inputs that are kept.
    pub(crate) data: &'a Path,
    pub(crate) rounds: usize,
    pub(crate) scale: f64,
    /// The bootstrap address of a Kafka that is there for this.
    pub(crate) kafka: Option<&'a str>,
    /// The URL of an Elasticsearch or OpenSearch that is there for this.
    pub(crate) elasticsearch: Option<&'a str>,
}

impl Costs<'_> {
    /// Runs all subjects, or those whose names have the text that is wanted, and prints their tables.
    pub(crate) fn run(&self, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        fs::create_dir_all(self.folder())?;
        if wanted("plugin-calls") {
            calls::run(self)?;
        }
        checkpoints::run(self, wanted)?;
        if wanted("memory-per-key") {
            memory::run(self)?;
        }
        recovery::run(self, wanted)?;
        if wanted("snapshots") {
            snapshots::run(self)?;
        }
        if wanted("processes") {
            processes::run(self)?;
        }
        if wanted("isolation") {
            isolation::run(self)?;
        }
        cluster::run(self, wanted)?;
        for (name, run) in [("kafka", kafka::run as fn(&Costs<'_>, &str) -> Result<()>), ("elasticsearch", elasticsearch::run)] {
            if wanted(name) {
                match self.kafka {
                    Some(bootstrap) => run(self, bootstrap)?,
                    None => println!("{name}: skipped, there is no Kafka (--kafka HOST:PORT; `cargo xtask bench --costs` starts one)\n"),
                }
            }
        }
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.data.join("costs")
    }

    /// Keys of the job with state.
    fn keys(&self) -> usize {
        ((KEYS * self.scale) as usize).max(100)
    }

    /// A command of the binary; sockets of running jobs are among ours alone.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.standpipe);
        command.args(arguments).env("STANDPIPE_RUN_DIR", self.folder().join("run")).env_remove("STANDPIPE_LOG");
        command
    }

    fn pipeline(&self, name: &str) -> PathBuf {
        self.root.join(format!("benches/pipelines/{name}.yaml"))
    }

    /// A pipeline with settings, without progress.
    fn run_command(&self, pipeline: &str, settings: &[String]) -> Command {
        let mut command = self.command(&["run", "--quiet"]);
        command.args(settings.iter().map(|setting| format!("--set={setting}"))).arg(self.pipeline(pipeline));
        command
    }

    /// The job with state, with so many keys and so many updates a second.
    fn stateful(&self, keeper: Keeper, keys: usize, rate: u64, settings: &[String]) -> Command {
        let scratch = self.folder().join("scratch");
        let mut all = keeper.settings(&scratch.to_string_lossy());
        all.push(format!("sources.fill.with.count={keys}"));
        all.push(format!("sources.updates.with.fields.id.max={}", keys - 1));
        all.push(format!("sources.updates.with.rate={rate}"));
        all.extend_from_slice(settings);
        self.run_command("stateful", &all)
    }

    /// Starts it and waits until every key has come and updates follow.
    fn start_stateful(&self, command: &mut Command, keys: usize) -> Result<Job<Sums>> {
        let mut job = Job::start(command, &self.folder().join("stateful.log"), Sums::new(keys))?;
        job.wait_until("all keys", PATIENCE, |sums| sums.filled == keys && sums.updates() > 0)?;
        Ok(job)
    }

    /// An empty folder for checkpoints, and the setting for it.
    fn checkpoints(&self, interval: &str) -> Result<(Checkpoints, String)> {
        let folder = self.folder().join("checkpoints");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let setting = format!("checkpoint={{interval: {interval}, dir: {folder:?}}}");
        Ok((Checkpoints { folder: folder.join(STATEFUL) }, setting))
    }
}

/// The durable checkpoints of the job with state.
struct Checkpoints {
    folder: PathBuf,
}

/// What a manifest says.
struct Manifest {
    id: u64,
    /// Of the files that were written for it, and of all that it needs.
    written: u64,
    bytes: u64,
    paths: Vec<PathBuf>,
    /// From its trigger to its last file, milliseconds.
    took_millis: f64,
}

impl Checkpoints {
    /// All that are there, oldest first. One that is removed meanwhile is passed over.
    fn manifests(&self) -> Result<Vec<Manifest>> {
        let Ok(entries) = fs::read_dir(self.folder.join("checkpoints")) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in entries {
            let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
            // It is created in one step, but another file of the library may be beside it.
            if let Ok(manifest) = serde_json::from_str::<Value>(&text) {
                found.push(self.manifest(&manifest).context("a manifest is not as it should be")?);
            }
        }
        found.sort_by_key(|manifest| manifest.id);
        Ok(found)
    }

    fn manifest(&self, value: &Value) -> Option<Manifest> {
        let (mut written, mut bytes, mut paths) = (0, 0, Vec::new());
        let id = value.get("id")?.as_u64()?;
        let nodes = value.get("nodes")?.as_object()?.values();
        let tables = nodes.filter_map(|node| node.get("tables")?.as_object()).flat_map(|tables| tables.values());
        for file in tables.filter_map(Value::as_array).flatten() {
            let length = file.get("bytes")?.as_u64()?;
            bytes += length;
            if file.get("checkpoint")?.as_u64()? == id {
                written += length;
            }
            paths.push(self.folder.join(file.get("path")?.as_str()?));
        }
        Some(Manifest { id, written, bytes, paths, took_millis: value.get("took_micros")?.as_i64()? as f64 / 1e3 })
    }

    /// The number of the newest; 0: there is none.
    fn newest(&self) -> Result<u64> {
        Ok(self.manifests()?.last().map_or(0, |manifest| manifest.id))
    }
}

/// The median, to print.
fn median(values: &[f64]) -> f64 {
    crate::measure::median(values.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_wrote_is_told_from_what_it_refers_to() {
        let text = r#"{"id": 7, "took_micros": 2500, "nodes": {"a": {"tables": {"t": [{"path": "data/x", "checkpoint": 6, "bytes": 100},
            {"path": "data/y", "checkpoint": 7, "bytes": 20}]}}, "b": {"tables": {}}}}"#;
        let checkpoints = Checkpoints { folder: PathBuf::from("f") };
        let manifest = checkpoints.manifest(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((manifest.id, manifest.written, manifest.bytes, manifest.took_millis), (7, 20, 120, 2.5));
        assert_eq!(manifest.paths, [Path::new("f/data/x"), Path::new("f/data/y")]);
        assert!(checkpoints.manifest(&serde_json::from_str("{}").unwrap()).is_none());
    }
}
