//! A request, and what of its failures is tried again.

use crate::{HttpEnrichConfig, Retry};
use standpipe_sdk::{Error, ErrorCode, Result};
use std::{
    thread,
    time::{Duration, Instant},
};
use ureq::{
    Agent,
    http::{HeaderName, HeaderValue},
};

/// An answer may have that many bytes.
const MOST: u64 = 256 << 20;
/// Of an answer that is no good so much is shown.
const SHOWN: usize = 200;
/// A wait looks so often whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Whether a header can be sent. A value that is not known yet is not looked at.
pub(crate) fn check_header(name: &str, value: Option<&str>) -> Result<(), String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no name of a header"))?;
    match value.map(HeaderValue::from_str) {
        Some(Err(_)) => Err("the value has characters that a header cannot have".to_owned()),
        _ => Ok(()),
    }
}

/// See the module's documentation.
pub(crate) struct Client {
    agent: Agent,
    url: String,
    headers: Vec<(String, HeaderValue)>,
    retry: Retry,
}

/// A request that failed.
struct Failed {
    message: String,
    may_pass: bool,
}

impl Client {
    pub(crate) fn new(config: &HttpEnrichConfig) -> Result<Self> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(config.timeout.0))
            .max_idle_connections(1024)
            .max_idle_connections_per_host(1024)
            .build()
            .into();
        let header = |(name, value): (&String, &standpipe_sdk::Secret)| match HeaderValue::from_str(value.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Ok((name.clone(), value))
            }
            Err(_) => Err(Error::config(format!("headers.{name}"), "the value has characters that a header cannot have")),
        };
        let headers = config.headers.iter().map(header).collect::<Result<_>>()?;
        Ok(Self { agent, url: config.url.clone(), headers, retry: config.retry.clone() })
    }

    /// Asks until there is an answer, or there will be none.
    pub(crate) fn ask(&self, body: &[u8], cancelled: &dyn Fn() -> bool) -> Result<Vec<u8>> {
        let mut attempt = 1;
        loop {
            let failed = match self.post(body) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if cancelled() {
                return Err(Error::cancelled());
            }
            if !failed.may_pass {
                return Err(Error::external(failed.message));
            }
            if attempt >= self.retry.attempts {
                let times = if attempt == 1 { String::new() } else { format!(", {attempt} times") };
                return Err(Error::external(format!("{}{times}", failed.message)).retryable());
            }
            wait(self.retry.wait(attempt), cancelled)?;
            attempt += 1;
        }
    }

    fn post(&self, body: &[u8]) -> Result<Vec<u8>, Failed> {
        // Whatever it says is without the address, which may hold a secret.
        let unreachable = |error: ureq::Error| Failed { message: format!("the service does not answer: {error}"), may_pass: true };
        let mut request = self.agent.post(&self.url).content_type("application/json").header("accept", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(unreachable)?;
        let status = response.status();
        let answer = response.body_mut().with_config().limit(MOST).read_to_vec().map_err(unreachable)?;
        if status.is_success() {
            return Ok(answer);
        }
        let said = String::from_utf8_lossy(&answer[..answer.len().min(SHOWN)]);
        let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let message =
            if said.is_empty() { format!("the service answers {status}") } else { format!("the service answers {status}: {said}") };
        Err(Failed { message, may_pass: status.is_server_error() || status.as_u16() == 429 })
    }
}

fn wait(time: Duration, cancelled: &dyn Fn() -> bool) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        if cancelled() {
            return Err(Error::new(ErrorCode::CANCELLED, "cancelled"));
        }
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return Ok(()),
            left => thread::sleep(left.min(LOOK)),
        }
    }
}
