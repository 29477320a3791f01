//! `cluster start` and `stop`: a job manager and a task manager of this machine, for a laptop.

use super::default_data;
use crate::{
    cli::{ClusterCommand, ClusterStart},
    exit::{Code, Failure},
    output::{print, say},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Until both are there, or gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// The manager's own answer takes no longer.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A process that was started, so that no other one of the same number is ended in its place.
#[derive(Serialize, Deserialize)]
struct Started {
    pid: i32,
    /// As the kernel counts.
    since: String,
}

#[derive(Serialize, Deserialize)]
struct Running {
    task_manager: Started,
    job_manager: Started,
}

/// `standpipe cluster ...`.
pub(crate) fn cluster(command: &ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Start(arguments) => start(arguments),
        ClusterCommand::Stop { data } => stop(&folder(data.as_ref())?),
    }
}

fn folder(data: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    data.cloned().map_or_else(|| default_data("cluster"), Ok)
}

fn file(folder: &Path) -> PathBuf {
    folder.join("cluster.json")
}

/// When a process began; none: there is none of that number.
fn since(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // One that has ended and was not waited for has this state.
    (*fields.first()? != "Z").then_some(())?;
    fields.get(19).map(|since| (*since).to_owned())
}

impl Started {
    fn of(child: &Child) -> anyhow::Result<Self> {
        let pid = i32::try_from(child.id())?;
        let gone = || Failure::error(Code::Outside, "a process of the cluster has ended at once");
        Ok(Self { pid, since: since(pid).ok_or_else(gone)? })
    }

    fn runs(&self) -> bool {
        since(self.pid).is_some_and(|since| since == self.since)
    }

    fn end(&self) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.runs()) {
            _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// A process of the cluster that is ended unless the whole cluster has begun.
struct Starting(Option<Child>);

impl Starting {
    fn started(&self) -> anyhow::Result<Started> {
        self.0.as_ref().map(Started::of).transpose()?.ok_or_else(|| Failure::error(Code::Outside, "a process of the cluster is gone"))
    }

    fn has_ended(&mut self) -> std::io::Result<bool> {
        Ok(self.0.as_mut().map(Child::try_wait).transpose()?.flatten().is_some())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(Ok(started)) = self.0.as_ref().map(Started::of) {
            started.end();
        }
    }
}

fn read(folder: &Path) -> Option<Running> {
    let running: Running = serde_json::from_slice(&fs::read(file(folder)).ok()?).ok()?;
    (running.job_manager.runs() || running.task_manager.runs()).then_some(running)
}

fn start(arguments: &ClusterStart) -> anyhow::Result<()> {
    let folder = folder(arguments.data.as_ref())?;
    let outside = |error: std::io::Error| Failure::error(Code::Outside, format!("{}: {error}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(outside)?;
    if read(&folder).is_some() {
        return Err(Failure::error(Code::Usage, format!("a cluster runs already, with its data in {}", folder.display())));
    }
    let address = format!("127.0.0.1:{}", arguments.port);
    let url = format!("http://{address}");
    // Else the manager of another cluster that has the port would be taken for ours.
    drop(TcpListener::bind(&address).map_err(|error| Failure::error(Code::Outside, format!("{address}: {error}")))?);
    let mut manager = Starting(Some(spawn(&folder, "jobmanager", &["jobmanager", "--bind", &address], &[])?));
    let slots = arguments.slots.to_string();
    let metrics = arguments.metrics.map(|address| address.to_string());
    let mut of_worker = vec!["taskmanager", "--slots", &slots, "--jobmanager", &url];
    of_worker.extend(metrics.iter().flat_map(|address| ["--metrics", address]));
    let mut worker = Starting(Some(spawn(&folder, "taskmanager", &of_worker, &[])?));
    let running = Running { task_manager: worker.started()?, job_manager: manager.started()? };
    fs::write(file(&folder), serde_json::to_vec(&running)?).map_err(outside)?;
    let deadline = Instant::now() + PATIENCE;
    while !is_ready(&url, 1) {
        for (child, name) in [(&mut manager, "jobmanager"), (&mut worker, "taskmanager")] {
            if child.has_ended()? || Instant::now() >= deadline {
                let said = fs::read_to_string(folder.join(name).with_extension("log")).unwrap_or_default();
                let last = said.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it does not answer");
                return Err(Failure::error(Code::Outside, format!("{name}: {last}")));
            }
        }
        thread::sleep(LOOK);
    }
    // They stay.
    (manager.0, worker.0) = (None, None);
    say!("a job manager and a task manager with {slots} slots run; their data and logs are in {}", folder.display());
    Ok(print(&format!("{url}\n"))?)
}

/// In the background, apart from this terminal.
pub(crate) fn spawn(folder: &Path, name: &str, arguments: &[&str], environment: &[(String, String)]) -> anyhow::Result<Child> {
    let log = fs::File::options().append(true).create(true).open(folder.join(name).with_extension("log"))?;
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).arg("--data").arg(folder.join(name)).envs(environment.iter().cloned()).process_group(0);
    Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// So many task managers are with the manager.
pub(crate) fn is_ready(url: &str, task_managers: u64) -> bool {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).timeout_global(Some(ANSWER)).build().into();
    let answer = agent.get(format!("{url}/overview")).call().ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
    let overview: Option<serde_json::Value> = answer.and_then(|text| serde_json::from_str(&text).ok());
    overview.and_then(|overview| overview.get("taskmanagers")?.as_u64()).is_some_and(|there| there >= task_managers)
}

fn stop(folder: &Path) -> anyhow::Result<()> {
    let Some(running) = read(folder) else {
        return Err(Failure::error(Code::Usage, format!("no cluster runs that was started with its data in {}", folder.display())));
    };
    // The task manager first: it tells the manager what has ended.
    for process in [&running.task_manager, &running.job_manager] {
        process.end();
        let deadline = Instant::now() + PATIENCE;
        while process.runs() {
            if Instant::now() >= deadline {
                return Err(Failure::error(Code::Failed, format!("process {} of the cluster does not end", process.pid)));
            }
            thread::sleep(LOOK);
        }
    }
    drop(fs::remove_file(file(folder)));
    say!("the cluster has ended; jobs with checkpoints that ran go on when it is started again");
    Ok(())
}
