//! The REST interface of a job manager, as far as a client needs it. No proxy is asked: a cluster is reached directly.

use serde_json::Value;
use standpipe_sdk::{Error, Result};
use std::{fs::File, io, path::Path, time::Duration};
use ureq::{Agent, Body, http::Response};

/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(5);
/// Until an answer begins: a job is checked as a whole before it is taken.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const MOST: u64 = 16 << 20;

/// Talks to one job manager.
pub(crate) struct Client {
    agent: Agent,
    /// `127.0.0.1:8081`.
    place: String,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Value,
}

impl Client {
    pub(crate) fn new(address: &str, port: u16) -> Self {
        let place = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(ANSWER))
            .build();
        Self { agent: config.into(), place }
    }

    /// Its address and port.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.read(self.agent.get(self.url(path)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Result<Answer> {
        self.read(self.agent.post(self.url(path)).header("content-type", "application/json").send(body))
    }

    pub(crate) fn patch(&self, path: &str) -> Result<Answer> {
        self.read(self.agent.patch(self.url(path)).send_empty())
    }

    /// Sends a file.
    pub(crate) fn put(&self, path: &str, file: &Path) -> Result<Answer> {
        let unreadable = |error: io::Error| Error::external(format!("{}: {error}", file.display()));
        let content = File::open(file).map_err(unreadable)?;
        let bytes = content.metadata().map_err(unreadable)?.len();
        let request = self.agent.put(self.url(path)).header("content-type", "application/octet-stream").header("content-length", bytes);
        self.read(request.send(content))
    }

    /// The body of an answer that is a good one; `what` is asked for.
    pub(crate) fn good(&self, answer: Answer, what: &str) -> Result<Value> {
        let Answer { status, body } = answer;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let errors: Vec<&str> = body.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let errors = if errors.is_empty() { format!("{what}: status {status}") } else { errors.join("\n") };
        match status {
            400 | 413 | 422 => Err(Error::config("", errors)),
            404 => Err(Error::external(format!("the job manager at {} does not know {what}: {errors}", self.place))),
            503 => Err(Error::external(format!("the job manager at {}: {errors}", self.place)).retryable()),
            _ => Err(Error::external(format!("the job manager at {} refuses: {errors}", self.place))),
        }
    }

    /// Something answers that is no job manager, or one of another version.
    pub(crate) fn strange(&self, what: &str) -> Error {
        Error::external(format!("what answers at {} is no job manager of this version: it {what}", self.place))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.place)
    }

    fn read(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Answer> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(MOST).read_to_string().map_err(|error| self.unreachable(&error))?;
        let is_good = (200..300).contains(&status);
        match serde_json::from_str(&text) {
            Ok(body) => Ok(Answer { status, body }),
            Err(_) if text.is_empty() || !is_good => Ok(Answer { status, body: Value::Null }),
            Err(_) => Err(self.strange("answers with something else than JSON")),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Error {
        Error::external(format!("no job manager can be reached at {} (rest.address, rest.port): {error}", self.place)).retryable()
    }
}
