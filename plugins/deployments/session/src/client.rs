//! The REST interface of a job manager, as far as a client needs it. No proxy is asked: a cluster is reached directly.

use crate::SessionConfig;
use serde_json::Value;
use standpipe_sdk::{Error, Result};
use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};
use ureq::{
    Agent, Body, RequestBuilder,
    http::{HeaderMap, Response},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(5);
/// Until an answer begins: a job is checked as a whole before it is taken, for which the manager takes a minute at the most.
const ANSWER: Duration = Duration::from_secs(90);
/// Bytes of an answer.
const MOST: u64 = 16 << 20;
/// Bytes of an answer that has rows.
const MOST_ROWS: u64 = 1 << 30;

/// Talks to one job manager.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    scheme: &'static str,
    /// `127.0.0.1:8081`.
    place: String,
    /// `Bearer TOKEN`.
    authorization: Option<String>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Value,
}

impl Client {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// When the token or the certificates cannot be read.
    pub(crate) fn new(config: &SessionConfig) -> Result<Self> {
        let SessionConfig { address, port, .. } = config;
        let port = port.0;
        let place = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        let tls = config.tls_ca.as_deref().map(roots).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let authorization = config.read_token()?.map(|token| format!("Bearer {token}"));
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .tls_config(tls.unwrap_or_default())
            .http_status_as_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(ANSWER))
            .build();
        Ok(Self { agent: config.into(), scheme, place, authorization })
    }

    /// Its address and port.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.read(self.authorized(self.agent.get(self.url(path))).call())
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Result<Answer> {
        self.read(self.authorized(self.agent.post(self.url(path))).header("content-type", "application/json").send(body))
    }

    pub(crate) fn patch(&self, path: &str) -> Result<Answer> {
        self.read(self.authorized(self.agent.patch(self.url(path))).send_empty())
    }

    /// Sends a file.
    pub(crate) fn put(&self, path: &str, file: &Path) -> Result<Answer> {
        let unreadable = |error: io::Error| Error::external(format!("{}: {error}", file.display()));
        let content = File::open(file).map_err(unreadable)?;
        let bytes = content.metadata().map_err(unreadable)?.len();
        let request = self
            .authorized(self.agent.put(self.url(path)))
            .header("content-type", "application/octet-stream")
            .header("content-length", bytes);
        self.read(request.send(content))
    }

    /// Asks for what is no JSON.
    pub(crate) fn bytes(&self, path: &str) -> Result<(HeaderMap, Vec<u8>)> {
        let answer = self.authorized(self.agent.get(self.url(path))).call().map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            let answer = self.read(Ok(answer))?;
            return self.good(answer, "what is asked for").and(Err(self.strange("redirects")));
        }
        let (parts, mut body) = answer.into_parts();
        let bytes = body.with_config().limit(MOST_ROWS).read_to_vec().map_err(|error| self.unreachable(&error))?;
        Ok((parts.headers, bytes))
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
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
            401 if self.authorization.is_none() => {
                Err(Error::external(format!("the job manager at {} wants a token (rest.token.file or rest.token): {errors}", self.place)))
            }
            401 => Err(Error::external(format!("the job manager at {} does not take this token: {errors}", self.place))),
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
        format!("{}://{}{path}", self.scheme, self.place)
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

/// The certificates of a file.
fn roots(file: &Path) -> Result<TlsConfig> {
    let named = |why: String| Error::external(format!("rest.tls.ca: {}: {why}", file.display()));
    let pem = fs::read(file).map_err(|error| named(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| named(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(Error::config("rest.tls.ca", format!("{}: there is no certificate in it", file.display())));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::from(certificates)).build())
}
