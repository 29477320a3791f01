//! The deployment mode `session`: posts the job to the job manager of a cluster that is running already, by its REST interface, and asks it about the job later.
#![deny(unsafe_code)]

mod client;
mod collect;
mod config;

pub use config::{Port, SessionConfig};

use arrow_array::RecordBatchReader;
use client::{Answer, Client};
use serde_json::{Value, json};
use standpipe_sdk::{
    Deployment, DeploymentDeclaration, Error, Host, Result,
    bundle::{self, Bundle},
    deployment::{Collect, Handle, JobStatus, LogLines, Savepoint},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{self, Path},
    thread,
    time::Duration,
};

standpipe_sdk::export_plugin! { deployments: [Session] }

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

/// See [`SessionConfig`].
pub struct Session {
    config: SessionConfig,
    client: Client,
    host: Host,
}

impl Deployment for Session {
    const NAME: &'static str = "session";
    type Config = SessionConfig;

    fn declare(config: &SessionConfig) -> Result<DeploymentDeclaration> {
        Ok(DeploymentDeclaration { problems: config.problems() })
    }

    fn open(config: SessionConfig, host: Host) -> Result<Self> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(Error::config(problem.path, problem.message));
        }
        let client = Client::new(&config)?;
        Ok(Self { config, client, host })
    }

    fn submit(&mut self, folder: &Path) -> Result<Handle> {
        let bundle = Bundle::read(folder)?;
        let path = folder.join(bundle::DESCRIPTION);
        let description = fs::read(&path).map_err(|error| Error::external(format!("{}: {error}", path.display())))?;
        let id = random_id()?;
        for _ in 0..ATTEMPTS {
            self.send_missing(&bundle, folder)?;
            let answer = self.ask_to_take(&id, &description)?;
            // Another client's clean-up may have come between.
            if answer.status == 409 {
                continue;
            }
            let answer = self.client.good(answer, "the job")?;
            let id = answer.get("jobid").and_then(Value::as_str).filter(|id| is_job_id(id));
            let id = id.ok_or_else(|| self.client.strange("submits a job without an id"))?;
            return Ok(self.handle(id));
        }
        Err(Error::external(format!("the job manager at {} loses the files of the job while they are sent", self.client.place()))
            .retryable())
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        status(&self.client, &job_path(handle)?)
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        let job = job_path(handle)?;
        if self.status(handle)?.is_terminal() {
            return Ok(());
        }
        self.client.good(self.client.patch(&format!("{job}?mode=cancel"))?, "the job").map(|_| ())
    }

    fn stop(&mut self, handle: &Handle, savepoint: &str) -> Result<Savepoint> {
        let job = job_path(handle)?;
        let mut request = json!({"drain": false});
        if !savepoint.is_empty() {
            request["targetDirectory"] = savepoint.into();
        }
        let asked = self.client.post(&format!("{job}/stop"), request.to_string().as_bytes())?;
        self.taken(asked, &format!("{job}/savepoints"))
    }

    fn rescale(&mut self, handle: &Handle, parallelism: u32, _: &Host) -> Result<()> {
        let rescaling = format!("{}/rescaling", job_path(handle)?);
        let asked = self.client.patch(&format!("{rescaling}?parallelism={parallelism}"))?;
        self.taken(asked, &rescaling).map(|_| ())
    }

    /// The end of the log of each process, as the manager gives it, all at once.
    fn logs(&mut self, handle: &Handle, cursor: &str) -> Result<LogLines> {
        let job = job_path(handle)?;
        let mut lines = Vec::new();
        if cursor.is_empty() {
            let (_, text) = self.client.bytes(&format!("/v1{job}/logs"))?;
            lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        Ok(LogLines { lines, cursor: END_OF_LOG.to_owned() })
    }

    fn collect(&mut self, handle: &Handle, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        Ok(Box::new(collect::Rows::begin(self.client.clone(), self.host.clone(), &job_path(handle)?, wanted)?))
    }
}

/// 32 hexadecimal digits that nobody else has.
fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|error| Error::external(format!("/dev/urandom: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How the job does that has this path.
fn status(client: &Client, job: &str) -> Result<JobStatus> {
    let answer = client.good(client.get(job)?, "the job")?;
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

impl Session {
    /// What all later commands need, and no secret.
    fn handle(&self, id: &str) -> Handle {
        let SessionConfig { address, port, token_file, tls_ca, .. } = &self.config;
        let mut handle = Handle::new();
        handle.insert("jobid".to_owned(), id.into());
        handle.insert("rest.address".to_owned(), address.as_str().into());
        handle.insert("rest.port".to_owned(), port.0.into());
        for (key, file) in [("rest.token.file", token_file), ("rest.tls.ca", tls_ca)] {
            // A later command may be in another folder.
            if let Some(file) = file {
                handle.insert(key.to_owned(), path::absolute(file).as_ref().unwrap_or(file).to_string_lossy().into());
            }
        }
        handle
    }

    /// Asks the manager to take the job under that id. Whether it has is not known where its answer does not come: asked again, it takes it once.
    fn ask_to_take(&self, id: &str, description: &[u8]) -> Result<Answer> {
        let mut questions = 1;
        loop {
            self.go_on()?;
            match self.client.post(&format!("/v1/jobs?jobid={id}"), description) {
                Err(error) if error.retryable && questions < QUESTIONS => questions += 1,
                answered => return answered,
            }
            thread::sleep(PAUSE);
        }
    }

    /// Unless the user has had enough.
    fn go_on(&self) -> Result<()> {
        if self.host.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Sends the files that the cluster does not have.
    fn send_missing(&self, bundle: &Bundle, folder: &Path) -> Result<()> {
        let hashes: BTreeSet<&str> = bundle.files().map(|file| file.hash.as_str()).collect();
        let asked = self.client.post("/v1/blobs/missing", json!({ "hashes": hashes }).to_string().as_bytes())?;
        let answer = self.client.good(asked, "the files of the job")?;
        let missing =
            answer.get("missing").and_then(Value::as_array).ok_or_else(|| self.client.strange("does not say which files it lacks"))?;
        for file in bundle.files() {
            if missing.iter().any(|hash| *hash == file.hash.as_str()) {
                self.go_on()?;
                let answer = self.client.put(&format!("/v1/blobs/{}", file.hash), &bundle::blob(folder, file))?;
                self.client.good(answer, &file.path)?;
            }
        }
        Ok(())
    }

    /// Waits for the savepoint that was asked for; `requests` is the path of those that are like it.
    fn taken(&self, asked: Answer, requests: &str) -> Result<Savepoint> {
        let asked = self.client.good(asked, "the job")?;
        let trigger = asked.get("request-id").and_then(Value::as_str).filter(|id| is_job_id(id));
        let trigger = trigger.ok_or_else(|| self.client.strange("takes a savepoint without an id"))?;
        loop {
            let answer = self.client.good(self.client.get(&format!("{requests}/{trigger}"))?, "the savepoint")?;
            if answer.pointer("/status/id").and_then(Value::as_str) == Some("COMPLETED") {
                return self.savepoint(&answer);
            }
            self.go_on()?;
            thread::sleep(LOOK);
        }
    }

    /// Of a savepoint that is finished, one way or the other.
    fn savepoint(&self, answer: &Value) -> Result<Savepoint> {
        if let Some(location) = answer.pointer("/operation/location").and_then(Value::as_str) {
            return Ok(Savepoint { location: location.to_owned() });
        }
        let cause = ["/operation/failure-cause/stack-trace", "/operation/failure-cause/class"];
        let cause = cause.iter().find_map(|path| answer.pointer(path).and_then(Value::as_str)).unwrap_or("it does not say why");
        Err(Error::external(format!("no savepoint was taken, the job runs on: {}", cause.lines().next().unwrap_or_default())))
    }
}

/// The job's path in the REST interface.
fn job_path(handle: &Handle) -> Result<String> {
    match handle.get("jobid").and_then(Value::as_str) {
        Some(id) if is_job_id(id) => Ok(format!("/jobs/{id}")),
        _ => Err(Error::config("jobid", "the handle has no id of 32 hexadecimal digits")),
    }
}

fn is_job_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}
