//! An application cluster of processes, for tests: the manager of one job with the bundle's folder, what it writes at its end, and what the job's mode is asked.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "a test fails by a panic, and no test file uses all of it")]

use crate::cluster_support::{Cluster, PATIENCE};
use serde_json::{Value, json};
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use standpipe_tests::{Finished, Folder, Run, Running, fixture_plugin, free_port, standpipe};
use std::{collections::BTreeMap, fs};

pub(crate) const JOB: &str = "0123456789abcdef0123456789abcdef";

/// The manager of one job, as [`Cluster`] knows managers; its folder holds everything.
pub(crate) struct Application {
    pub(crate) cluster: Cluster,
    /// What the manager is started with beside what it always is.
    arguments: Vec<String>,
}

impl Application {
    /// The bundle of a pipeline in a folder, with its files; no manager yet. `DIR` in the pipeline is the test's folder.
    pub(crate) fn new(pipeline: &str, parallelism: u32) -> Self {
        let cluster = Cluster { folder: Folder::new(), port: free_port(), manager: None };
        fs::create_dir_all(cluster.folder.at("bundle/blobs")).unwrap();
        fs::create_dir(cluster.folder.at("ckpt")).unwrap();
        let application = Self { cluster, arguments: Vec::new() };
        let text = pipeline.replace("DIR", application.cluster.folder.path().to_str().unwrap());
        application.describe(&Bundle {
            standpipe: "0.1.0".to_owned(),
            name: text.lines().find_map(|line| line.strip_prefix("name: ")).unwrap().to_owned(),
            pipeline: application.blob("pipeline.yaml", text.as_bytes()),
            plugins: Vec::new(),
            resources: Vec::new(),
            configuration: BTreeMap::new(),
            options: Options { parallelism: Some(parallelism), ..Options::default() },
        });
        application
    }

    /// With these arguments of the manager.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.cluster.folder
    }

    /// A file of the bundle, among its blobs.
    pub(crate) fn blob(&self, path: &str, content: &[u8]) -> File {
        let file = file(path, content);
        fs::write(self.folder().at(&format!("bundle/blobs/{}", file.hash.digits())), content).unwrap();
        file
    }

    pub(crate) fn bundle(&self) -> Bundle {
        serde_json::from_str(&self.folder().read("bundle/bundle.json")).unwrap()
    }

    pub(crate) fn describe(&self, bundle: &Bundle) {
        self.folder().write("bundle/bundle.json", serde_json::to_vec(bundle).unwrap());
    }

    /// The handle of the mode that writes down what it is asked, with more members.
    pub(crate) fn handle(&self, more: &[(&str, Value)]) {
        let mode = format!("{}#record", fixture_plugin().display());
        let mut handle = json!({"deployment_mode": mode, "jobid": JOB, "record.file": self.folder().at("asked"), "kept": [1, {"a": null}]});
        more.iter().for_each(|(key, value)| handle[*key] = value.clone());
        self.folder().write("handle.json", handle.to_string());
    }

    /// The command of the manager, with its data in a folder of that name.
    pub(crate) fn manager(&self, data: &str) -> Run {
        let bind = format!("127.0.0.1:{}", self.cluster.port);
        let run = standpipe(["jobmanager", "--log-level", "info", "--lease", "3s", "--jobid", JOB, "--bind", &bind]);
        let folder = self.folder();
        let files = [("--data", data), ("--application", "bundle"), ("--handle", "handle.json"), ("--termination-file", "ended.json")];
        let run = files.iter().fold(run, |run, (key, name)| run.args([(*key).into(), folder.at(name)]));
        run.args(&self.arguments).timeout(4 * PATIENCE)
    }

    /// Starts the manager with that data; it listens.
    pub(crate) fn start(&mut self, data: &str) {
        if !self.folder().at("handle.json").exists() {
            self.handle(&[]);
        }
        let mut manager = self.manager(data).start();
        manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http"));
        self.cluster.manager = Some(manager);
    }

    pub(crate) fn running(&mut self) -> &mut Running {
        self.cluster.manager.as_mut().unwrap()
    }

    /// What is known of the job; none: the manager does not have it yet.
    pub(crate) fn job(&self) -> Option<Value> {
        // It may have ended.
        let mut answer = ureq::get(format!("http://127.0.0.1:{}/v1/jobs/{JOB}", self.cluster.port)).call().ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    pub(crate) fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let (mut found, mut manager) = (Value::Null, self.cluster.manager.take().unwrap());
        manager.wait_until(what, PATIENCE, |_| {
            found = self.job().unwrap_or_default();
            condition(&found)
        });
        self.cluster.manager = Some(manager);
        found
    }

    pub(crate) fn runs(&mut self) {
        self.wait_for("RUNNING", |job| job["state"] == "RUNNING");
    }

    pub(crate) fn taken(&mut self, checkpoints: u64) {
        self.wait_for("checkpoints", |job| job["status"]["checkpoints"]["completed"].as_u64().is_some_and(|taken| taken >= checkpoints));
    }

    /// Waits for the end of the manager, and gives what it has written of that of the job; its mode was told the same, once.
    pub(crate) fn ends(&mut self, code: i32, state: &str) -> (Finished, Value) {
        let finished = self.cluster.manager.take().unwrap().wait().code(code);
        let ended = self.ended();
        assert_eq!((&ended["state"], &ended["jobid"]), (&json!(state), &json!(JOB)), "{ended:#}");
        assert!(ended["ended"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{ended:#}");
        let asked = self.asked();
        let [asked] = asked.as_slice() else { panic!("the mode was asked {} times: {}", asked.len(), finished.stderr) };
        assert_eq!((&asked["ended"], &asked["kept"], &asked["jobid"]), (&ended, &json!([1, {"a": null}]), &json!(JOB)));
        (finished, ended)
    }

    pub(crate) fn ended(&self) -> Value {
        let text = self.folder().read("ended.json");
        assert!(text.len() <= 4_096, "{} bytes", text.len());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The handles that the mode was to clean up.
    pub(crate) fn asked(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder().at("asked")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A file of a bundle that is nowhere yet.
pub(crate) fn file(path: &str, content: &[u8]) -> File {
    File { path: path.to_owned(), hash: Hash::of(content), bytes: content.len() as u64 }
}
