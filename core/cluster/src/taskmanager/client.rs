//! The task manager's end of what is said with the manager.

use super::{
    collect::{self, Part},
    worker,
};
use crate::{
    blobs::Blobs,
    bundle::Hash,
    protocol::{Beat, Orders, Request, TaskManagerId, Version},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use std::{path::Path, time::Duration};
use ureq::{Agent, http::StatusCode, tls::TlsConfig};

/// Who does not take a connection by then does not take it.
const CONNECTING: Duration = Duration::from_secs(3);
/// Orders are held back until there is something to say.
const HELD: Duration = Duration::from_secs(40);
/// A blob that comes so slowly does not come.
const FETCHING: Duration = Duration::from_secs(600);

/// A process that does not show its rows by then, which waits for some 2 s at the most, does not.
const LOOKING: Duration = Duration::from_secs(5);
/// What ends a look is said; that it was heard is not waited for.
const CLOSING: Duration = Duration::from_millis(100);

/// Why something was not answered.
pub(super) enum Trouble {
    /// It may be another time.
    Passing(String),
    /// It will not.
    Refused(String),
}

pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
    id: TaskManagerId,
}

impl Client {
    pub(super) fn new(manager: &str, token: Option<String>, tls: TlsConfig, id: TaskManagerId) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).proxy(None).tls_config(tls).timeout_connect(Some(CONNECTING)).build();
        Self { agent: config.into(), base: format!("{}/v1", manager.trim_end_matches('/')), token, id }
    }

    fn authorization(&self) -> String {
        self.token.as_ref().map_or_else(String::new, |token| format!("Bearer {token}"))
    }

    pub(super) fn beat(&self, beat: &Beat, patience: Duration) -> Result<Orders, Trouble> {
        let text = serde_json::to_vec(beat).map_err(|error| Trouble::Refused(error.to_string()))?;
        let request = self.agent.post(format!("{}/taskmanagers/{}/beat", self.base, self.id));
        let request = request.config().timeout_global(Some(patience)).build();
        understand(request.header("Authorization", self.authorization()).header("Content-Type", "application/json").send(&text))
    }

    pub(super) fn orders(&self, seen: Option<Version>) -> Result<Orders, Trouble> {
        let Version { generation, number } = seen.unwrap_or_default();
        let request = self.agent.get(format!("{}/taskmanagers/{}/orders?generation={generation}&number={number}", self.base, self.id));
        let request = request.config().timeout_global(Some(HELD)).build();
        understand(request.header("Authorization", self.authorization()).call())
    }

    /// Sends the rows that somebody has asked for.
    pub(super) fn collect(&self, request: &Request, folder: &Path) -> Result<Vec<Value>, String> {
        let wanted = collect::Wanted::read(&request.ask).ok_or("the request for rows is not understood")?;
        let Part { next, gap, bytes } = collect::read(folder, &wanted).map_err(|error| format!("the rows cannot be read: {error}"))?;
        self.send_rows(request, &format!("next={next}&gap={gap}"), &bytes).map(|_| Vec::new())
    }

    /// Sends the rows that pass in a process of a job, as it says itself. One that is starting or stands still is not waited for: whoever looks asks again.
    pub(super) fn tap(&self, request: &Request, socket: &Path) -> Result<Vec<Value>, String> {
        let answers = worker::ask(socket, &request.ask, Some(LOOKING)).map_err(|error| {
            if !worker::is_not_there(&error) {
                close(socket, &request.ask);
            }
            format!("the job's process does not answer: {error}")
        })?;
        let Some(rows) = answers.iter().find_map(|answer| answer.get("rows")) else { return Ok(answers) };
        // That the process has ended is no end of the job: it may be started again.
        let dropped = rows.get("dropped").and_then(Value::as_u64).unwrap_or(0);
        let stream = rows.get("stream").and_then(Value::as_str).unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(stream).map_err(|error| format!("the rows are not understood: {error}"))?;
        let opened = rows.get("opened").and_then(Value::as_bool).unwrap_or(false);
        let sent = self.send_rows(request, &format!("next=0&gap=false&dropped={dropped}&opened={opened}"), &bytes);
        if !matches!(sent, Ok(true)) {
            close(socket, &request.ask);
        }
        sent.map(|_| Vec::new())
    }

    /// False: nobody waits for them any more.
    fn send_rows(&self, request: &Request, query: &str, bytes: &[u8]) -> Result<bool, String> {
        let url = format!("{}/taskmanagers/{}/collected/{}?{query}", self.base, self.id, request.id);
        let sent =
            self.agent.put(url).config().timeout_global(Some(FETCHING)).build().header("Authorization", self.authorization()).send(bytes);
        match sent {
            // Whoever has asked may have gone.
            Ok(answer) if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND => Ok(answer.status().is_success()),
            Ok(answer) => Err(format!("the job manager does not take the rows: {}", answer.status())),
            Err(error) => Err(format!("the rows cannot be sent: {error}")),
        }
    }

    /// Gets a blob.
    pub(super) fn fetch(&self, hash: Hash, blobs: &Blobs) -> Result<(), String> {
        let request = self.agent.get(format!("{}/blobs/{hash}", self.base)).config().timeout_global(Some(FETCHING)).build();
        let answered = request.header("Authorization", self.authorization()).call();
        let mut answer = answered.map_err(|error| format!("{hash} cannot be fetched from the job manager: {error}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the job manager does not give {hash}: {}", answer.status()));
        }
        blobs.put(hash, answer.body_mut().as_reader()).map(drop).map_err(|error| error.to_string())
    }
}

/// Rows of a look are lost: it is over, so that the next one begins anew and says so.
fn close(socket: &Path, look: &Value) {
    let mut over = look.clone();
    if let Some(over) = over.as_object_mut().filter(|over| over.get("rows").and_then(Value::as_u64) > Some(0)) {
        over.extend([("rows".to_owned(), 0.into()), ("wait".to_owned(), 0.into())]);
        // A process that is gone looks at nothing.
        drop(worker::ask(socket, &Value::Object(over.clone()), Some(CLOSING)));
    }
}

fn understand(answered: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Orders, Trouble> {
    let mut answer = answered.map_err(|error| Trouble::Passing(error.to_string()))?;
    let status = answer.status();
    let text = answer.body_mut().with_config().limit(1 << 28).read_to_vec().map_err(|error| Trouble::Passing(error.to_string()))?;
    match status {
        StatusCode::OK => serde_json::from_slice(&text).map_err(|error| Trouble::Refused(format!("its answer is not understood: {error}"))),
        status => {
            let why = format!("{status}: {}", String::from_utf8_lossy(&text));
            // A wrong token or another release does not get better by itself.
            Err(if status.is_client_error() { Trouble::Refused(why) } else { Trouble::Passing(why) })
        }
    }
}
