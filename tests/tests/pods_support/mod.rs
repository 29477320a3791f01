//! Jobs on a node: a cluster that has the image, and what is asked of a job there by its handle.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod demo;
pub(crate) mod drain;

use crate::{
    kubernetes_support::{Api, PATIENCE},
    services_support::Engine,
};
use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, all, kubernetes, kubernetes_node, repository, standpipe, wait_until};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

/// Counts numbers, with checkpoints in a folder that all pods share, until somebody ends it.
pub(crate) const ENDLESS: &str = "\
name: counts
checkpoint: {interval: 500ms, dir: /mnt/checkpoints}
restart: {strategy: fixed-delay, attempts: 100, delay: 500ms}
sources:
  numbers: {connector: generator, with: {rate: 200, fields: {n: {kind: sequence}}}}
transforms:
  counts: {input: numbers, aggregate: {n: 'count(*)', most: 'max(n)'}, emit: each}
sinks:
  out: {input: counts, connector: collect}
";

/// A cluster with a node that has the image.
pub(crate) struct Cluster {
    pub(crate) kubeconfig: String,
    image: String,
    /// Where its pods reach this machine.
    pub(crate) host: String,
    /// What it keeps.
    node: PathBuf,
    _engine: Engine,
}

impl Cluster {
    pub(crate) fn new() -> Option<Self> {
        if !all() {
            return None;
        }
        let (kubeconfig, node) = (kubernetes()?, kubernetes_node()?);
        let engine = Engine::start()?;
        let archive = engine.distribution.at("image.tar");
        engine.docker(&["save", "--output", &archive.display().to_string(), &engine.image]);
        let script = repository().join("tests/services/kubernetes.sh");
        let output = Command::new(script).arg("image").args([&node.folder, &archive]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let image = text.lines().find_map(|line| line.strip_prefix("image=")).expect("the image is on the node").to_owned();
        Some(Self { kubeconfig, image, host: node.host, node: node.folder, _engine: engine })
    }

    /// The log of a task manager's pod, as its node keeps it: open, it outlives the pod.
    pub(crate) fn log_of_task_manager(&self, api: &Api, pod: &str) -> fs::File {
        let (pods, own) = (self.node.join("state/pods"), format!("{}_{pod}_", api.namespace));
        let mut log = None;
        wait_until("a log", PATIENCE, || {
            let folders = fs::read_dir(&pods).unwrap().map(|entry| entry.unwrap().path());
            let folder = folders.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&own));
            log = folder.and_then(|folder| fs::File::open(folder.join("taskmanager/0.log")).ok());
            log.is_some()
        });
        log.unwrap()
    }

    /// Settings of a job of that id.
    pub(crate) fn settings(&self, api: &Api, id: &str) -> Vec<String> {
        let settings = [
            "deployment_mode=kubernetes-application".to_owned(),
            format!("kubernetes.config.file={}", self.kubeconfig),
            format!("kubernetes.namespace={}", api.namespace),
            format!("kubernetes.cluster.id={id}"),
            format!("kubernetes.image={}", self.image),
            "kubernetes.image.pull.policy=Never".to_owned(),
            "kubernetes.jobmanager.cpu=50m".to_owned(),
            "kubernetes.taskmanager.cpu=50m".to_owned(),
            "kubernetes.linger=5s".to_owned(),
        ];
        settings.into_iter().flat_map(|setting| ["-D".to_owned(), setting]).collect()
    }

    pub(crate) fn deploy(&self, api: &Api, folder: &Folder, id: &str, more: &[&str]) -> Run {
        let run = standpipe(["deploy", "job.yaml", "--handle", &format!("{id}.json")]).in_directory(folder.path()).timeout(2 * PATIENCE);
        run.args(self.settings(api, id)).args(more)
    }
}

/// `standpipe deployment COMMAND` for the job of that id.
pub(crate) fn deployment(folder: &Folder, command: &str, id: &str) -> Run {
    standpipe(["deployment", command, "--handle", &format!("{id}.json")]).in_directory(folder.path()).timeout(2 * PATIENCE)
}

pub(crate) fn status(folder: &Folder, id: &str) -> String {
    deployment(folder, "status", id).finish().code(0).stdout.trim().to_owned()
}

/// What a pod runs, to be sure that another one runs there later.
pub(crate) fn uid(pod: &Value) -> Value {
    pod["metadata"]["uid"].clone()
}

/// Settings by which pods have the folder `checkpoints` at /mnt/checkpoints. The node is this machine: where all pods are on it, a folder of it is what a shared claim is on others.
pub(crate) fn shared_checkpoints(folder: &Folder) -> [String; 6] {
    fs::create_dir(folder.at("checkpoints")).unwrap();
    fs::set_permissions(folder.at("checkpoints"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let volume = json!([{"name": "checkpoints", "hostPath": {"path": folder.at("checkpoints")}}]);
    let volumes = format!("kubernetes.volumes={volume}");
    let [mounts, node] = ["kubernetes.volume.mounts=checkpoints=/mnt/checkpoints", "kubernetes.node.selector=kubernetes.io/hostname=node"];
    ["-D", &volumes, "-D", mounts, "-D", node].map(str::to_owned)
}

/// Until the job of [`ENDLESS`] runs, and has made another checkpoint.
pub(crate) fn runs_on(folder: &Folder, id: &str, what: &str) {
    let checkpoints = || {
        let names = fs::read_dir(folder.at("checkpoints/counts/checkpoints")).into_iter().flatten();
        names.filter_map(|entry| Some(entry.ok()?.file_name())).max()
    };
    let before = checkpoints();
    wait_until(what, PATIENCE, || status(folder, id) == "RUNNING" && checkpoints() > before);
}

/// The first of these rows of [`ENDLESS`] has counted each number once, and so many at least.
pub(crate) fn assert_counted_once(rows: &str, least: u64) {
    let row: Vec<u64> = rows.lines().nth(1).unwrap().split(',').filter_map(|value| value.parse().ok()).collect();
    assert!(row[0] > least && row[0] == row[1] + 1, "each number was counted once: {rows}");
}
