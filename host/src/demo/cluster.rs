//! `demo --cluster`: the pipeline on a session cluster of two task managers, in processes that end with this one, so that the dashboard shows what happens in it. The generator,
//! and the stand-ins where there are any, stay in this process.

use super::{
    jobs::{MAIN, Names, SINKS},
    services::{Elasticsearch, Kafka},
};
use crate::{
    cli::{DemoArguments, Remote},
    cluster::{Client, is_ready, spawn},
    exit::{Code, Failure},
};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    path::Path,
    process::Child,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Until the cluster is there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(20);
/// What is known of the job is asked for anew after so long.
const FRESH: Duration = Duration::from_millis(250);
/// How many task managers share the job.
const TASK_MANAGERS: u32 = 2;
/// A login has no place in a pipeline that others may look at: the processes of the cluster have it in their environment.
const USER: &str = "STANDPIPE_DEMO_USER";
const PASSWORD: &str = "STANDPIPE_DEMO_PASSWORD";
/// Where plugins are that this process was told of.
const PLUGIN_PATH: &str = "STANDPIPE_PLUGIN_PATH";

/// A cluster of this machine; ended with the value.
pub(super) struct Cluster {
    /// The task managers, then the job manager: who ends first.
    processes: Vec<(String, Child)>,
    client: Client,
    /// Where its job manager and the dashboard are.
    pub(super) url: String,
    data: TempDir,
}

impl Cluster {
    /// Starts it, with slots for the demo's parallelism.
    pub(super) fn start(arguments: &DemoArguments, elasticsearch: &Elasticsearch) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new().prefix("standpipe-demo-").tempdir()?;
        let address = format!("127.0.0.1:{}", arguments.port);
        let url = format!("http://{address}");
        // Else the manager of another cluster that has the port would be taken for ours.
        drop(
            TcpListener::bind(&address)
                .map_err(|error| Failure::error(Code::Outside, format!("{address}: {error}; give another --port")))?,
        );
        let client = Client::new(&Remote { jobmanager: None, token_file: None, ca_file: None }, &url)?;
        let mut cluster = Self { processes: Vec::new(), client, url, data };
        let environment = environment(arguments, elasticsearch)?;
        let parent = std::process::id().to_string();
        let slots = arguments.parallelism.div_ceil(TASK_MANAGERS).to_string();
        cluster.spawn("jobmanager", &["jobmanager", "--bind", &address, "--parent", &parent], &environment)?;
        for number in 1..=TASK_MANAGERS {
            let url = cluster.url.clone();
            let task_manager = ["taskmanager", "--slots", &slots, "--jobmanager", &url, "--parent", &parent];
            cluster.spawn(&format!("taskmanager-{number}"), &task_manager, &environment)?;
        }
        cluster.wait()?;
        Ok(cluster)
    }

    fn spawn(&mut self, name: &str, arguments: &[&str], environment: &[(String, String)]) -> anyhow::Result<()> {
        let child = spawn(self.data.path(), name, arguments, environment)?;
        self.processes.insert(0, (name.to_owned(), child));
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(&self.url, TASK_MANAGERS.into()) {
            for (name, child) in &mut self.processes {
                if child.try_wait()?.is_some() || Instant::now() >= deadline {
                    let said = fs::read_to_string(self.data.path().join(&*name).with_extension("log")).unwrap_or_default();
                    let last = said.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it does not answer");
                    return Err(Failure::error(Code::Outside, format!("{name}: {last}")));
                }
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Submits the pipeline of `examples/signal-quality.yaml` with the addresses and names of this run.
    pub(super) fn submit(
        self: &Rc<Self>,
        arguments: &DemoArguments,
        kafka: &Kafka,
        elasticsearch: &Elasticsearch,
        names: &Names,
    ) -> anyhow::Result<Deployed> {
        let text = pipeline(kafka, elasticsearch, names)?;
        let file = File { path: "signal-quality.yaml".to_owned(), hash: Hash::of(text.as_bytes()), bytes: text.len() as u64 };
        self.client.put(&format!("/blobs/{}", file.hash), text.as_bytes())?;
        let checkpoints = self.data.path().join("checkpoints");
        let bundle = Bundle {
            standpipe: env!("CARGO_PKG_VERSION").to_owned(),
            name: "signal-quality".to_owned(),
            pipeline: file,
            plugins: Vec::new(),
            resources: Vec::new(),
            configuration: BTreeMap::from([
                ("engine.checkpoint.interval".to_owned(), "2s".to_owned()),
                ("engine.checkpoint.dir".to_owned(), checkpoints.display().to_string()),
            ]),
            options: Options { parallelism: Some(arguments.parallelism), ..Options::default() },
        };
        let submitted = self.client.post("/jobs", &serde_json::to_value(&bundle)?)?;
        let id = submitted.get("jobid").and_then(Value::as_str).context("the job manager gives the job no id")?.to_owned();
        Ok(Deployed { cluster: Rc::clone(self), id, seen: RefCell::new(None) })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It has not been waited for: the number is its own.
                _ = kill_process(pid, Signal::TERM);
            }
            drop(child.wait());
        }
    }
}

/// What the processes of the cluster are told by their environment.
fn environment(arguments: &DemoArguments, elasticsearch: &Elasticsearch) -> anyhow::Result<Vec<(String, String)>> {
    let mut environment = Vec::new();
    if let Some((user, password)) = &elasticsearch.login {
        environment.extend([(USER.to_owned(), user.clone()), (PASSWORD.to_owned(), password.clone())]);
    }
    if !arguments.plugins.plugin_path.is_empty() {
        let known = env::var_os(PLUGIN_PATH).unwrap_or_default();
        let own = arguments.plugins.plugin_path.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
        let paths = env::join_paths(own.into_iter().chain(env::split_paths(&known)).filter(|path| path != Path::new("")))?;
        environment
            .push((PLUGIN_PATH.to_owned(), paths.into_string().map_err(|_| Failure::error(Code::Usage, "--plugin-path: it is no text"))?));
    }
    Ok(environment)
}

/// The pipeline file of this run.
pub(super) fn pipeline(kafka: &Kafka, elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<String> {
    let mut text = MAIN.to_owned();
    let mut set = |from: &str, to: String| {
        let is_there = text.matches(from).count() == 1;
        text = text.replace(from, &to);
        is_there.then_some(()).with_context(|| format!("the demo's pipeline has no {from:?}"))
    };
    // JSON is YAML.
    set("bootstrap: \"127.0.0.1:9092\"", format!("bootstrap: {}", json!(kafka.bootstrap)))?;
    set("topic: baseline_signal\n", format!("topic: {}\n", json!(names.topic)))?;
    let login =
        elasticsearch.login.as_ref().map_or_else(String::new, |_| format!(" username: \"${{{USER}}}\", password: \"${{{PASSWORD}}}\","));
    for sink in SINKS {
        let index = json!(names.index(sink));
        set(
            &format!("hosts: [\"http://127.0.0.1:9200\"], index: standpipe-{sink},"),
            format!("hosts: [{}],{login} index: {index},", json!(elasticsearch.url)),
        )?;
    }
    Ok(text)
}

/// The pipeline on the cluster.
pub(super) struct Deployed {
    cluster: Rc<Cluster>,
    pub(super) id: String,
    /// The job as it was when it was looked at last.
    seen: RefCell<Option<(Instant, Rc<Value>)>>,
}

impl Deployed {
    fn look(&self) -> anyhow::Result<Rc<Value>> {
        if let Some((at, job)) = &*self.seen.borrow()
            && at.elapsed() < FRESH
        {
            return Ok(Rc::clone(job));
        }
        let job = Rc::new(self.cluster.client.get(&format!("/jobs/{}", self.id))?);
        *self.seen.borrow_mut() = Some((Instant::now(), Rc::clone(&job)));
        Ok(job)
    }

    /// Where people see the job.
    pub(super) fn page(&self) -> String {
        format!("{}/#/jobs/{}", self.cluster.url, self.id)
    }

    /// A count of the job as a whole: `rows_in`, `rows_out`.
    pub(super) fn total(&self, of: &str) -> anyhow::Result<u64> {
        Ok(self.look()?.pointer(&format!("/status/totals/{of}")).and_then(Value::as_u64).unwrap_or(0))
    }

    /// Rows that a node has given.
    pub(super) fn given(&self, node: &str) -> anyhow::Result<u64> {
        let job = self.look()?;
        let vertices = job.get("vertices").and_then(Value::as_array).into_iter().flatten();
        let found = vertices.into_iter().find(|vertex| vertex.get("name").and_then(Value::as_str) == Some(node));
        Ok(found.and_then(|vertex| vertex.pointer("/metrics/write-records")?.as_u64()).unwrap_or(0))
    }

    /// Whether it has ended; fails if it has failed.
    pub(super) fn ended(&self) -> anyhow::Result<bool> {
        let job = self.look()?;
        match job.get("state").and_then(Value::as_str) {
            Some("FINISHED") => Ok(true),
            Some(state @ ("FAILED" | "CANCELED")) => {
                let why = job.get("why").and_then(Value::as_str).unwrap_or(state);
                Err(Failure::error(Code::Failed, format!("the pipeline has ended on the cluster: {why}")))
            }
            _ => Ok(false),
        }
    }

    /// Stops it; open windows fire.
    pub(super) fn drain(&self) -> anyhow::Result<()> {
        self.cluster.client.post(&format!("/jobs/{}/stop", self.id), &json!({"drain": true})).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipeline_has_the_addresses_of_this_run_and_no_password() {
        let kafka = Kafka::named("kafka:9092");
        let elasticsearch = Elasticsearch::provide(Some("http://me:pass%22word@es:9200")).unwrap();
        let names = Names { run: "7".to_owned(), topic: "signals-7".to_owned() };
        let text = pipeline(&kafka, &elasticsearch, &names).unwrap();
        for word in
            ["bootstrap: \"kafka:9092\"", "topic: \"signals-7\"", "index: \"standpipe-late-signals-7\"", "${STANDPIPE_DEMO_PASSWORD}"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(
            !text.contains("word\"") && !text.lines().filter(|line| !line.starts_with('#')).any(|line| line.contains("127.0.0.1")),
            "{text}"
        );
    }
}
