//! The REST interface of a job manager, as far as a client needs it. No proxy is asked: a cluster is reached directly.

use serde_json::Value;
use standpipe_sdk::{Error, Result, deployment::JobStatus};
use std::{fmt, fs::File, io, path::Path, sync::Arc, time::Duration};
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

/// The certificates that a manager's own is known by.
#[derive(Clone)]
pub struct Roots(TlsConfig);

impl Roots {
    /// The certificates of a text (PEM).
    ///
    /// # Errors
    /// When there is none in it, or one is broken: what is wrong with it.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for item in parse_pem(pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        Ok(Self(TlsConfig::builder().root_certs(RootCerts::from(certificates)).build()))
    }
}

/// The detail of an error of a manager that does not know what is asked for.
const UNKNOWN: &str = "unknown";

/// Whether it is the error of a manager that does not know what was asked for.
#[must_use]
pub fn is_unknown(error: &Error) -> bool {
    error.details.contains_key(UNKNOWN)
}

/// Why a connection came to nothing, where somebody between knows better.
type Why = Arc<dyn Fn() -> Option<String> + Send + Sync>;
/// How the job of a manager ended that does not answer any more.
type Afterwards = Arc<dyn Fn() -> Option<JobStatus> + Send + Sync>;

/// A job manager, and how messages name it: each mode finds it by other keys.
#[derive(Clone)]
pub struct Peer {
    /// The host name or address to connect to.
    pub address: String,
    /// The port of its REST interface.
    pub port: u16,
    /// Set: it is spoken to over TLS, and nobody else is.
    pub roots: Option<Roots>,
    /// The token that it wants.
    pub token: Option<String>,
    /// `the job manager at 127.0.0.1:8081`.
    pub name: String,
    /// Where it answers: `127.0.0.1:8081`.
    pub place: String,
    /// What is said before the cause when it does not: `no job manager can be reached at 127.0.0.1:8081 (rest.address, rest.port)`.
    pub unreachable: String,
    /// Where a token would be from: `rest.token.file or rest.token`.
    pub token_from: String,
    /// Asked when a connection came to nothing.
    pub why: Option<Why>,
    /// Asked how the job is when the manager does not answer: one of a single job ends with it.
    pub afterwards: Option<Afterwards>,
}

impl fmt::Debug for Peer {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.address, self.port)
    }
}

/// Talks to one job manager.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    peer: Arc<Peer>,
    /// `https://127.0.0.1:8081`.
    url: String,
    /// `Bearer TOKEN`.
    authorization: Option<String>,
}

/// What came back.
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    pub(crate) body: Value,
}

impl Client {
    /// Connects to nobody yet.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        let Peer { address, port, .. } = &peer;
        let scheme = if peer.roots.is_some() { "https" } else { "http" };
        let url = if address.contains(':') { format!("{scheme}://[{address}]:{port}") } else { format!("{scheme}://{address}:{port}") };
        let authorization = peer.token.as_ref().map(|token| format!("Bearer {token}"));
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .tls_config(peer.roots.clone().map(|roots| roots.0).unwrap_or_default())
            .http_status_as_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(ANSWER))
            .build();
        Self { agent: config.into(), peer: Arc::new(peer), url, authorization }
    }

    /// Who is spoken to.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// When nobody answers, or somebody else.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.read(self.authorized(self.agent.get(self.url(path))).call())
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// As `get`.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Answer> {
        self.read(self.authorized(self.agent.post(self.url(path))).header("content-type", "application/json").send(body))
    }

    /// Asks for the change that a path names.
    ///
    /// # Errors
    /// As `get`.
    pub fn patch(&self, path: &str) -> Result<Answer> {
        self.read(self.authorized(self.agent.patch(self.url(path))).send_empty())
    }

    /// Sends a file.
    ///
    /// # Errors
    /// As `get`, and when the file cannot be read.
    pub fn put(&self, path: &str, file: &Path) -> Result<Answer> {
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
    ///
    /// # Errors
    /// As `get` and `good`.
    pub fn bytes(&self, path: &str) -> Result<(HeaderMap, Vec<u8>)> {
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
    ///
    /// # Errors
    /// What a manager refuses, in its words.
    pub fn good(&self, answer: Answer, what: &str) -> Result<Value> {
        let Answer { status, body } = answer;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let errors: Vec<&str> = body.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let errors = if errors.is_empty() { format!("{what}: status {status}") } else { errors.join("\n") };
        let name = &self.peer.name;
        match status {
            400 | 413 | 422 => Err(Error::config("", errors)),
            401 if self.authorization.is_none() => {
                Err(Error::external(format!("{name} wants a token ({}): {errors}", self.peer.token_from)))
            }
            401 => Err(Error::external(format!("{name} does not take this token: {errors}"))),
            404 => Err(Error::external(format!("{name} does not know {what}: {errors}")).with(UNKNOWN, true)),
            503 => Err(Error::external(format!("{name}: {errors}")).retryable()),
            _ => Err(Error::external(format!("{name} refuses: {errors}"))),
        }
    }

    /// Something answers that is no job manager, or one of another version.
    #[must_use]
    pub fn strange(&self, what: &str) -> Error {
        Error::external(format!("what answers at {} is no job manager of this version: it {what}", self.peer.place))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
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
        let why = self.peer.why.as_ref().and_then(|why| why()).unwrap_or_else(|| error.to_string());
        Error::external(format!("{}: {why}", self.peer.unreachable)).retryable()
    }
}
