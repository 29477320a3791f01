//! The deployment mode `background`, an example: runs the job in a process of this machine that goes on when its client ends. All that it knows of a job is in the job's folder:
//! the bundle, `log`, `pid`, and `code` once the process has ended.

use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::bundle::Bundle;
use standpipe_sdk::deployment::{Deployment, Handle, JobStatus, LogLines};
use standpipe_sdk::{Error, Host, Result};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

standpipe_sdk::export_plugin! { deployments: [Background] }

/// Runs the job in the background of this machine.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackgroundConfig {
    /// Where jobs have their folders. It must be there.
    #[serde(rename = "background.folder")]
    pub folder: PathBuf,
    /// The distribution that runs them.
    pub standpipe_home: Option<PathBuf>,
}

/// See [`BackgroundConfig`].
pub struct Background(BackgroundConfig);

/// Ends with the job's exit code in the file `code`. `$0` is the binary, the rest its arguments. In `pid` is the process and when it began, for its number may come again.
const SCRIPT: &str =
    "\"$0\" \"$@\" --quiet > log 2>&1 & echo $! $(cut -d ' ' -f 22 /proc/$!/stat) > pid; wait $!; echo $? > code.new; mv code.new code";
/// How long the exit code of a process that is gone may take to be written.
const GRACE: Duration = Duration::from_secs(1);

impl Deployment for Background {
    const NAME: &'static str = "background";
    type Config = BackgroundConfig;

    fn open(config: BackgroundConfig, _: Host) -> Result<Self> {
        Ok(Self(config))
    }

    fn submit(&mut self, folder: &Path) -> Result<Handle> {
        let bundle = Bundle::read(folder)?;
        // The handle is to work from every directory.
        let jobs = self.0.folder.canonicalize().map_err(|error| outside(&self.0.folder, &error))?;
        let job = new_folder(&jobs)?;
        bundle.unpack(folder, &job)?;
        let binary = match &self.0.standpipe_home {
            None => PathBuf::from("standpipe"),
            Some(home) => home.canonicalize().map_err(|error| outside(home, &error))?.join("standpipe"),
        };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SCRIPT).arg(binary).args(bundle.run_arguments()).current_dir(&job);
        // In a group of its own: Ctrl-C in the client's terminal is not for the job.
        shell
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| outside(&job, &error))?;
        let job = job.display().to_string();
        Ok([("job", job), ("background.folder", jobs.display().to_string())]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect())
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        let job = job(handle)?;
        let Some(code) = code(&job) else { return Ok(JobStatus::new("RUNNING")) };
        let log = fs::read_to_string(job.join("log")).unwrap_or_default();
        let cause = log.lines().rev().find(|line| line.starts_with("error: ")).map(str::to_owned);
        Ok(match code.trim() {
            "0" if job.join("canceled").exists() => JobStatus::new("CANCELED"),
            "0" => JobStatus::new("FINISHED"),
            _ if job.join("canceled").exists() => JobStatus::new("CANCELED"),
            code => JobStatus { cause: cause.or_else(|| Some(format!("exit code {code}"))), ..JobStatus::new("FAILED") },
        })
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        let job = job(handle)?;
        if self.status(handle)?.is_terminal() {
            return Ok(());
        }
        let pid = process(&job).ok_or_else(|| Error::external("the job's process has not begun, or is gone").retryable())?;
        fs::write(job.join("canceled"), "").map_err(|error| outside(&job, &error))?;
        let killed = Command::new("kill").arg(&pid).status().map_err(|error| outside(&job, &error))?;
        if killed.success() { Ok(()) } else { Err(Error::external(format!("process {pid} cannot be ended"))) }
    }

    fn logs(&mut self, handle: &Handle, cursor: &str) -> Result<LogLines> {
        let path = job(handle)?.join("log");
        let log = fs::read_to_string(&path).map_err(|error| outside(&path, &error))?;
        let from = if cursor.is_empty() { 0 } else { cursor.parse().map_err(|_| Error::data(format!("{cursor:?} is no cursor")))? };
        let lines: Vec<String> = log.lines().map(str::to_owned).collect();
        Ok(LogLines { cursor: lines.len().to_string(), lines: lines.into_iter().skip(from).collect() })
    }

    fn cleanup(&mut self, handle: &Handle) -> Result<()> {
        let job = job(handle)?;
        fs::remove_dir_all(&job).map_err(|error| outside(&job, &error))
    }
}

/// A folder that nobody has.
fn new_folder(jobs: &Path) -> Result<PathBuf> {
    for number in 1_u32.. {
        let job = jobs.join(format!("job-{number}"));
        match fs::create_dir(&job) {
            Ok(()) => return Ok(job),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(outside(&job, &error)),
        }
    }
    Err(Error::external(format!("{}: it has too many jobs", jobs.display())))
}

/// The number of the job's process, while it runs: another one that has its number began at another time.
fn process(job: &Path) -> Option<String> {
    let noted = fs::read_to_string(job.join("pid")).ok()?;
    let (pid, begun) = noted.trim().split_once(' ')?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, the start time is the twentieth.
    let found = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?;
    (found == begun).then(|| pid.to_owned())
}

/// The job's exit code; none while it runs. One that was ended together with what waits for it has none: it counts as failed.
fn code(job: &Path) -> Option<String> {
    let read = || fs::read_to_string(job.join("code")).ok();
    if !job.join("pid").exists() || process(job).is_some() {
        return read();
    }
    let gone = Instant::now();
    loop {
        match read() {
            None if gone.elapsed() < GRACE => thread::sleep(GRACE / 20),
            None => return Some("unknown: its process is gone".to_owned()),
            code => return code,
        }
    }
}

/// The job's folder.
fn job(handle: &Handle) -> Result<PathBuf> {
    let job = handle.get("job").and_then(|job| job.as_str()).map(PathBuf::from);
    job.filter(|job| job.join("bundle.json").is_file()).ok_or_else(|| Error::config("job", "the handle has no folder of a job"))
}

fn outside(path: &Path, error: &io::Error) -> Error {
    Error::external(format!("{}: {error}", path.display()))
}
