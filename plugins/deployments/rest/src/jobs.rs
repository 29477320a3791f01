//! What a deployment mode does with a job: sends what it is made of, asks how it does, ends it. Each call is one question to the manager, or some until it has answered.

use crate::{
    client::{Answer, Client},
    collect::Rows,
};
use arrow_array::RecordBatchReader;
use serde_json::{Value, json};
use standpipe_sdk::{
    Error, Host, Result,
    bundle::{self, Bundle, BundleFile},
    deployment::{Collect, Handle, JobStatus, LogLines, Savepoint},
};
use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::Read,
    path::Path,
    thread,
    time::Duration,
};

/// How often files that have gone missing meanwhile are sent again.
const ATTEMPTS: usize = 3;
/// Nothing is behind it.
const END_OF_LOG: &str = "end";
/// How often the manager is asked to take the job, of which the answer may be lost on its way.
const QUESTIONS: usize = 3;
/// Before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// From one look at a savepoint to the next.
const LOOK: Duration = Duration::from_millis(200);

/// A job's id: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobId(String);

impl JobId {
    /// One that nobody else has.
    ///
    /// # Errors
    /// When this machine has no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
        read.map_err(|error| Error::external(format!("/dev/urandom: {error}")))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The id, if it is one.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Self(id.to_owned()))
    }

    /// The job of a handle.
    ///
    /// # Errors
    /// When it has none.
    pub fn of(handle: &Handle) -> Result<Self> {
        let id = handle.get("jobid").and_then(Value::as_str).and_then(Self::parse);
        id.ok_or_else(|| Error::config("jobid", "the handle has no id of 32 hexadecimal digits"))
    }

    /// Its path in the REST interface.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/jobs/{}", self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The jobs of one manager.
pub struct Jobs {
    client: Client,
    host: Host,
}

impl Jobs {
    /// Connects to nobody yet.
    #[must_use]
    pub fn new(client: Client, host: Host) -> Self {
        Self { client, host }
    }

    /// Submits the bundle in that folder.
    ///
    /// # Errors
    /// What is wrong with the job, or with the way to the manager.
    pub fn submit(&self, folder: &Path) -> Result<JobId> {
        let bundle = Bundle::read(folder)?;
        let path = folder.join(bundle::DESCRIPTION);
        let description = fs::read(&path).map_err(|error| Error::external(format!("{}: {error}", path.display())))?;
        let id = JobId::random()?;
        for _ in 0..ATTEMPTS {
            self.send_missing(&bundle, folder)?;
            let answer = self.ask_to_take(&id, &description)?;
            // Another client's clean-up may have come between. A manager of one job says 409, too, and lacks nothing.
            if answer.status == 409 && answer.body.get("missing").is_some() {
                continue;
            }
            let answer = self.client.good(answer, "the job")?;
            let id = answer.get("jobid").and_then(Value::as_str).and_then(JobId::parse);
            return id.ok_or_else(|| self.client.strange("submits a job without an id"));
        }
        Err(Error::external(format!("{} loses the files of the job while they are sent", self.client.peer().name)).retryable())
    }

    /// What `submit` would send now; the manager is asked which files it lacks, and is told nothing.
    ///
    /// # Errors
    /// When the manager cannot be asked.
    pub fn preview(&self, folder: &Path) -> Result<String> {
        let bundle = Bundle::read(folder)?;
        let missing = self.missing(&bundle)?;
        let line = |file: &BundleFile| {
            let known = if missing.contains(&file.hash) { "" } else { ", which is there already" };
            format!("  {} ({} bytes{known})\n", file.path, file.bytes)
        };
        let files: Vec<String> = bundle.files().map(line).collect();
        Ok(format!("{} to {}:\n{}", bundle.name, self.client.peer().name, files.concat()))
    }

    /// How the job does.
    ///
    /// # Errors
    /// When the manager cannot be asked, or does not know it.
    pub fn status(&self, id: &JobId) -> Result<JobStatus> {
        status(&self.client, &id.path())
    }

    /// Ends the job without a savepoint; one that has ended stays as it is.
    ///
    /// # Errors
    /// When the manager cannot be asked, or does not know it.
    pub fn cancel(&self, id: &JobId) -> Result<()> {
        if self.status(id)?.is_terminal() {
            return Ok(());
        }
        self.client.good(self.client.patch(&format!("{}?mode=cancel", id.path()))?, "the job").map(|_| ())
    }

    /// Ends the job with a savepoint in that place; empty: where it keeps its checkpoints. With `drain` its open windows fire.
    ///
    /// # Errors
    /// When none was taken: the job runs on.
    pub fn stop(&self, id: &JobId, savepoint: &str, drain: bool) -> Result<Savepoint> {
        let mut request = json!({"drain": drain});
        if !savepoint.is_empty() {
            request["targetDirectory"] = savepoint.into();
        }
        let job = id.path();
        let asked = self.client.post(&format!("{job}/stop"), request.to_string().as_bytes())?;
        self.taken(asked, &format!("{job}/savepoints"))
    }

    /// Lets the job go on with another parallelism.
    ///
    /// # Errors
    /// When it cannot: the job runs on as it is.
    pub fn rescale(&self, id: &JobId, parallelism: u32) -> Result<()> {
        let rescaling = format!("{}/rescaling", id.path());
        let asked = self.client.patch(&format!("{rescaling}?parallelism={parallelism}"))?;
        self.taken(asked, &rescaling).map(|_| ())
    }

    /// The end of the log of each process, as the manager gives it, all at once.
    ///
    /// # Errors
    /// When the manager cannot be asked, or does not know the job.
    pub fn logs(&self, id: &JobId, cursor: &str) -> Result<LogLines> {
        let mut lines = Vec::new();
        if cursor.is_empty() {
            let (_, text) = self.client.bytes(&format!("/v1{}/logs", id.path()))?;
            lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        Ok(LogLines { lines, cursor: END_OF_LOG.to_owned() })
    }

    /// Rows of a node.
    ///
    /// # Errors
    /// When there is no such node, when it would never end, or when the job has ended without it.
    pub fn collect(&self, id: &JobId, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        Ok(Box::new(Rows::begin(self.client.clone(), self.host.clone(), &id.path(), wanted)?))
    }

    /// Sends the files of a bundle that the manager does not have.
    ///
    /// # Errors
    /// When the manager cannot be asked, or a file cannot be read.
    pub fn send_missing(&self, bundle: &Bundle, folder: &Path) -> Result<()> {
        let missing = self.missing(bundle)?;
        for file in bundle.files().filter(|file| missing.contains(&file.hash)) {
            self.go_on()?;
            let answer = self.client.put(&format!("/v1/blobs/{}", file.hash), &bundle::blob(folder, file))?;
            self.client.good(answer, &file.path)?;
        }
        Ok(())
    }

    /// The hashes of the files that the manager does not have.
    fn missing(&self, bundle: &Bundle) -> Result<BTreeSet<String>> {
        let hashes: BTreeSet<&str> = bundle.files().map(|file| file.hash.as_str()).collect();
        let asked = self.client.post("/v1/blobs/missing", json!({ "hashes": hashes }).to_string().as_bytes())?;
        let answer = self.client.good(asked, "the files of the job")?;
        let missing = answer.get("missing").and_then(Value::as_array);
        let missing = missing.ok_or_else(|| self.client.strange("does not say which files it lacks"))?;
        Ok(missing.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Asks the manager to take the job under that id. Whether it has is not known where its answer does not come: asked again, it takes it once.
    fn ask_to_take(&self, id: &JobId, description: &[u8]) -> Result<Answer> {
        let mut questions = 1;
        loop {
            self.go_on()?;
            match self.client.post(&format!("/v1/jobs?jobid={id}"), description) {
                Err(error) if error.retryable && questions < QUESTIONS => questions += 1,
                // It ends, or has too much to do.
                Ok(Answer { status: 503, .. }) if questions < QUESTIONS => questions += 1,
                answered => return answered,
            }
            thread::sleep(PAUSE);
        }
    }

    /// Unless the user has had enough.
    fn go_on(&self) -> Result<()> {
        if self.host.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Waits for the savepoint that was asked for; `requests` is the path of those that are like it.
    fn taken(&self, asked: Answer, requests: &str) -> Result<Savepoint> {
        let asked = self.client.good(asked, "the job")?;
        let trigger = asked.get("request-id").and_then(Value::as_str).and_then(JobId::parse);
        let trigger = trigger.ok_or_else(|| self.client.strange("takes a savepoint without an id"))?;
        loop {
            let answer = self.client.good(self.client.get(&format!("{requests}/{trigger}"))?, "the savepoint")?;
            if answer.pointer("/status/id").and_then(Value::as_str) == Some("COMPLETED") {
                return savepoint(&answer);
            }
            self.go_on()?;
            thread::sleep(LOOK);
        }
    }
}

/// Of a savepoint that is finished, one way or the other.
fn savepoint(answer: &Value) -> Result<Savepoint> {
    if let Some(location) = answer.pointer("/operation/location").and_then(Value::as_str) {
        return Ok(Savepoint { location: location.to_owned() });
    }
    let cause = ["/operation/failure-cause/stack-trace", "/operation/failure-cause/class"];
    let cause = cause.iter().find_map(|path| answer.pointer(path).and_then(Value::as_str)).unwrap_or("it does not say why");
    Err(Error::external(format!("no savepoint was taken, the job runs on: {}", cause.lines().next().unwrap_or_default())))
}

/// How the job does that has this path.
pub(crate) fn status(client: &Client, job: &str) -> Result<JobStatus> {
    let answer = match client.get(job) {
        Err(error) if error.retryable => return client.peer().afterwards.as_ref().and_then(|afterwards| afterwards()).ok_or(error),
        answer => client.good(answer?, "the job")?,
    };
    let state = answer.get("state").and_then(Value::as_str).ok_or_else(|| client.strange("tells of a job without its state"))?;
    let mut status = JobStatus::new(state);
    match state {
        "FAILED" | "FAILING" | "RESTARTING" => {
            let told = client.good(client.get(&format!("{job}/exceptions"))?, "the job's exceptions")?;
            status.cause = told.get("root-exception").and_then(Value::as_str).map(str::to_owned);
        }
        // It may be waiting for slots.
        "CREATED" => status.cause = answer.get("waits").and_then(Value::as_str).map(str::to_owned),
        _ => {}
    }
    Ok(status)
}
