//! What a session cluster costs: a manager and task managers of the binary, asked by REST. From submission to the first row (`submit`), with nothing to do (`idle`), the workloads
//! against `run` (`workloads`), and from the loss of a process to the first new row (`recovery`).

mod idle;
mod recovery;
mod submit;
mod workloads;

use super::{Costs, PATIENCE};
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Between two looks at a job; seldom enough that the manager has not much to do for it.
const PERIOD: Duration = Duration::from_millis(10);

type Subject = fn(&Costs<'_>) -> Result<()>;

const SUBJECTS: [(&str, Subject); 4] = [
    ("cluster-submit", submit::run),
    ("cluster-idle", idle::run),
    ("cluster-workloads", workloads::run),
    ("cluster-recovery", recovery::run),
];

/// Runs those subjects whose names are wanted.
pub(super) fn run(costs: &Costs<'_>, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    for (name, run) in SUBJECTS {
        if wanted(name) {
            run(costs)?;
        }
    }
    Ok(())
}

/// A cluster of this machine. Dropped, it is killed, and its workers with it.
struct Session<'a> {
    costs: &'a Costs<'a>,
    folder: PathBuf,
    port: u16,
    manager: Child,
    task_managers: Vec<TaskManager>,
    joined: usize,
    agent: ureq::Agent,
}

/// A task manager and its data.
struct TaskManager {
    process: Child,
    folder: PathBuf,
}

impl TaskManager {
    fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the processes of a job have printed here.
    fn log(&self, job: &str) -> PathBuf {
        self.folder.join("jobs").join(format!("{job}.log"))
    }

    fn end(mut self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.process), signal)?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for TaskManager {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        end(&mut self.manager);
    }
}

fn end(process: &mut Child) {
    if let Ok(None) = process.try_wait() {
        // It may end in this very moment.
        drop(process.kill());
        drop(process.wait());
    }
}

impl<'a> Session<'a> {
    /// A manager without task managers, in an empty folder.
    fn start(costs: &'a Costs<'a>, lease: &str) -> Result<Self> {
        let folder = costs.folder().join("cluster");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        // Nobody else takes it in this moment.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(folder.join("manager.log"))?;
        let mut command = costs.command(&["jobmanager", "--bind", &format!("127.0.0.1:{port}"), "--lease", lease, "--data"]);
        command.arg(folder.join("manager")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let manager = command.spawn().context("the job manager cannot be started")?;
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(PATIENCE)).build().into();
        let mut session = Self { costs, folder, port, manager, task_managers: Vec::new(), joined: 0, agent };
        session.wait("the job manager", |session| session.ask("GET", "/overview", &[]).is_ok())?;
        Ok(session)
    }

    /// Waits until something holds of a cluster of which the manager has not ended.
    fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            if let Some(status) = self.manager.try_wait()? {
                let log = fs::read_to_string(self.folder.join("manager.log")).unwrap_or_default();
                bail!("the job manager has ended ({status}), waiting was for {what}: {}", log.trim());
            }
            ensure!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
            thread::sleep(PERIOD);
        }
        Ok(())
    }

    /// Another task manager, with so many slots.
    fn join(&mut self, slots: u32) -> Result<()> {
        self.joined += 1;
        let folder = self.folder.join(format!("task-manager-{}", self.joined));
        let log = fs::File::create(folder.with_extension("log"))?;
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut command = self.costs.command(&["taskmanager", "--slots", &slots.to_string(), "--jobmanager", &url, "--data"]);
        command.arg(&folder).current_dir(self.costs.root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().context("a task manager cannot be started")?;
        let id = process.id();
        self.task_managers.push(TaskManager { process, folder });
        self.wait("a task manager", |session| session.task_manager_ids().is_ok_and(|known| known.values().any(|pid| *pid == id)))
    }

    /// Those that the manager knows, and their processes.
    fn task_manager_ids(&self) -> Result<BTreeMap<String, u32>> {
        let answer = self.ask("GET", "/taskmanagers", &[])?;
        let known = answer.get("taskmanagers").and_then(Value::as_array).context("no task managers are listed")?;
        let one = |one: &Value| Some((one.get("id")?.as_str()?.to_owned(), u32::try_from(one.get("pid")?.as_u64()?).ok()?));
        Ok(known.iter().filter_map(one).collect())
    }

    /// Asks for what must succeed.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Value> {
        let request = ureq::http::Request::builder().method(method).uri(format!("http://127.0.0.1:{}/v1{path}", self.port));
        let mut answer = self.agent.run(request.body(body)?)?;
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().is_success(), "{method} {path}: {}: {text}", answer.status());
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Submits a pipeline with the plugins that the binary has; the job's id.
    fn submit(&self, name: &str, pipeline: &str, parallelism: u32) -> Result<String> {
        let (hash, bytes) = (Hash::of(pipeline.as_bytes()), pipeline.len() as u64);
        self.ask("PUT", &format!("/blobs/{hash}"), pipeline.as_bytes())?;
        let bundle = Bundle {
            standpipe: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.to_owned(),
            pipeline: File { path: "pipeline.yaml".to_owned(), hash, bytes },
            plugins: Vec::new(),
            resources: Vec::new(),
            configuration: BTreeMap::new(),
            options: Options { parallelism: Some(parallelism), ..Options::default() },
        };
        let answer = self.ask("POST", "/jobs", &serde_json::to_vec(&bundle)?)?;
        Ok(answer.get("jobid").and_then(Value::as_str).context("the job has no id")?.to_owned())
    }

    /// Waits until a job is as it is to be; fails when it has ended otherwise.
    fn wait_for(&self, job: &str, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let found = self.ask("GET", &format!("/jobs/{job}"), &[])?;
            if holds(&found) {
                return Ok(found);
            }
            let is_over = ["FINISHED", "FAILED", "CANCELED"].contains(&state(&found));
            ensure!(!is_over, "waiting was for {what}, and the job is {}: {:?}", state(&found), found.get("why"));
            ensure!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
            thread::sleep(PERIOD);
        }
    }

    fn cancel(&self, job: &str) -> Result<()> {
        self.ask("PATCH", &format!("/jobs/{job}?mode=cancel"), &[])?;
        self.wait_for(job, "its end", |job| state(job) == "CANCELED").map(drop)
    }

    /// CPU seconds of all workers that have ended.
    fn workers_cpu(&self) -> Result<f64> {
        self.task_managers.iter().map(|one| process::cpu_of_ended_children(one.id())).sum()
    }

    /// CPU seconds of the manager, of what has planned for it, and of the task managers.
    fn others_cpu(&self) -> Result<f64> {
        let manager = process::cpu(self.manager.id())? + process::cpu_of_ended_children(self.manager.id())?;
        self.task_managers.iter().try_fold(manager, |sum, one| Ok(sum + process::cpu(one.id())?))
    }
}

fn state(job: &Value) -> &str {
    job.get("state").and_then(Value::as_str).unwrap_or_default()
}

/// A pipeline that has next to nothing to do: a row a second, or so many, to a sink with these keys.
fn trickle(name: &str, rate: u32, more: &str, sink: &str) -> String {
    format!(
        "name: {name}\n{more}sources:\n  ticks: {{connector: generator, with: {{rate: {rate}, fields: {{n: {{kind: sequence}}}}}}}}\n\
         sinks:\n  out: {{input: ticks, {sink}, format: json}}\n"
    )
}

/// The value below which so many hundredths of them are.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!([0, 50, 95, 100].map(|percent| percentile(&values, percent)), [1.0, 11.0, 20.0, 20.0]);
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
