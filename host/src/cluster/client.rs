//! The user's end of a job manager's REST interface.

use crate::{
    cli::Remote,
    exit::{Code, Failure},
};
use serde_json::{Map, Value, json};
use standpipe_cluster::tls;
use std::{path::PathBuf, thread, time::Duration};
use ureq::{
    Agent, Body,
    http::{Response, Uri},
};

/// Who does not take a connection by then does not take it.
const CONNECTING: Duration = Duration::from_secs(5);
/// Until an answer is there: a pipeline may have to be planned for it.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at what has become of a request.
const LOOK: Duration = Duration::from_millis(100);
/// Of an answer.
const LONGEST: u64 = 64 << 20;

/// A job manager.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Client {
    /// The one that the command line names. It is not asked yet.
    ///
    /// # Errors
    /// When a file that is named with it cannot be used.
    pub(crate) fn new(remote: &Remote, url: &str) -> anyhow::Result<Self> {
        let tls = tls::client(remote.ca_file.as_deref()).map_err(|error| Failure::error(Code::Usage, error))?;
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).tls_config(tls);
        let config = config.timeout_connect(Some(CONNECTING)).timeout_global(Some(PATIENCE)).build();
        let token = super::token(remote.token_file.as_deref())?;
        super::warn_of_clear_token(url, token.is_some());
        let (token_file, ca_file) = (remote.token_file.clone(), remote.ca_file.clone());
        Ok(Self { agent: config.into(), base: url.trim_end_matches('/').to_owned(), token, token_file, ca_file })
    }

    /// A job of it as the deployment mode `session` knows it.
    ///
    /// # Errors
    /// When that mode cannot reach what the URL names.
    pub(crate) fn handle(&self, job: &str) -> anyhow::Result<Map<String, Value>> {
        let refused = |why: &str| Failure::error(Code::Usage, format!("--jobmanager {}: {why}", self.base));
        let url: Uri = self.base.parse().map_err(|_| refused("it is no URL"))?;
        let is_tls = url.scheme_str() == Some("https");
        if is_tls != self.ca_file.is_some() {
            return Err(refused("rows are collected over TLS with --ca-file FILE, in the clear without"));
        }
        let address = url.host().ok_or_else(|| refused("it names no host"))?.trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let mut handle = Map::from_iter([
            ("deployment_mode".to_owned(), json!("session")),
            ("jobid".to_owned(), json!(job)),
            ("rest.address".to_owned(), json!(address)),
            ("rest.port".to_owned(), json!(port)),
        ]);
        for (key, file) in [("rest.token.file", &self.token_file), ("rest.tls.ca", &self.ca_file)] {
            if let Some(file) = file {
                handle.insert(key.to_owned(), file.to_string_lossy().into());
            }
        }
        Ok(handle)
    }

    fn send(&self, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<String> {
        let unreachable = |error: ureq::Error| Failure::error(Code::Outside, format!("no job manager answers at {}: {error}", self.base));
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}/v1{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.header("Content-Type", "application/json").body(body);
        let request = request.map_err(|error| Failure::error(Code::Usage, format!("{}: {error}", self.base)))?;
        let mut answer: Response<Body> = self.agent.run(request).map_err(unreachable)?;
        let text = answer.body_mut().with_config().limit(LONGEST).read_to_string().map_err(unreachable)?;
        if answer.status().is_success() {
            return Ok(text);
        }
        let errors: Option<Vec<String>> =
            serde_json::from_str::<Value>(&text).ok().and_then(|mut value| serde_json::from_value(value.get_mut("errors")?.take()).ok());
        let why = errors.filter(|errors| !errors.is_empty()).map_or_else(|| format!("status {}", answer.status()), |all| all.join("\n"));
        let code = match answer.status().as_u16() {
            400 | 401 | 403 | 404 => Code::Usage,
            409 => Code::Failed,
            _ => Code::Outside,
        };
        Err(Failure::error(code, why))
    }

    /// Sends a file of a bundle.
    pub(crate) fn put(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        self.send("PUT", path, content.to_vec()).map(drop)
    }

    /// Asks for something that is done at once, or begun.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, Some(body))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let text = self.send(method, path, body.map_or_else(Vec::new, |body| body.to_string().into_bytes()))?;
        let strange = |error| Failure::error(Code::Outside, format!("what answers at {} is no job manager: {error}", self.base));
        serde_json::from_str(&text).map_err(strange)
    }

    /// What is there.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None)
    }

    /// Text that is there.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<String> {
        self.send("GET", path, Vec::new())
    }

    /// Asks for something that is done at once.
    pub(crate) fn patch(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("PATCH", path, Some(&json!({})))
    }

    /// Asks for something that takes its time, and waits for it; the answer is below the path `outcome`.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Value, outcome: &str) -> anyhow::Result<Value> {
        let asked = self.ask(method, path, Some(body))?;
        let id = asked.get("request-id").and_then(Value::as_str).unwrap_or_default().to_owned();
        loop {
            let found = self.get(&format!("{outcome}/{id}"))?;
            if found.pointer("/status/id").and_then(Value::as_str) != Some("COMPLETED") {
                thread::sleep(LOOK);
                continue;
            }
            if let Some(why) = found.pointer("/operation/failure-cause/stack-trace").and_then(Value::as_str) {
                return Err(Failure::error(Code::Failed, why.to_owned()));
            }
            return Ok(found.get("operation").cloned().unwrap_or_default());
        }
    }

    /// The id of the one job that a name or the beginning of an id means. One that is over is meant only if no other one is.
    pub(crate) fn find(&self, wanted: &str) -> anyhow::Result<String> {
        let all = self.get("/jobs/overview")?;
        let jobs = all.get("jobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let text = |job: &Value, key: &str| job.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_meant = |job: &&Value| text(job, "name") == wanted || (wanted.len() >= 4 && text(job, "jid").starts_with(wanted));
        let is_over = |job: &&Value| matches!(text(job, "state").as_str(), "FINISHED" | "FAILED" | "CANCELED");
        let named = |job: &Value| format!("{} ({})", text(job, "name"), text(job, "jid"));
        let meant: Vec<&Value> = jobs.iter().filter(is_meant).collect();
        let running: Vec<&Value> = meant.iter().copied().filter(|job| !is_over(job)).collect();
        let chosen = if running.is_empty() { meant } else { running };
        match chosen.as_slice() {
            [only] => Ok(text(only, "jid")),
            [] => {
                let known: Vec<String> = jobs.iter().take(20).map(named).collect();
                let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", known.join(", ")) };
                Err(Failure::error(Code::Usage, format!("no job {wanted:?} is known to {}; {known}", self.base)))
            }
            several => {
                let several: Vec<String> = several.iter().take(20).map(|job| named(job)).collect();
                let message = format!("several jobs are meant by {wanted:?}: name one by its id: {}", several.join(", "));
                Err(Failure::error(Code::Usage, message))
            }
        }
    }
}
