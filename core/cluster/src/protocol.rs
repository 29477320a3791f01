//! What the job manager and its task managers say to each other, as JSON over HTTP. A task manager tells all that it runs, the manager all that it is to run: whoever has
//! missed something, or has been started again, knows it from the next message.

use crate::{bundle::Bundle, ends::Ended};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};

/// 32 hexadecimal digits.
pub type JobId = String;
/// 32 hexadecimal digits, of one start of a task manager.
pub type TaskManagerId = String;

/// A job id or task manager id that can be a file's name.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Which orders of which manager: a manager that is started again has a higher generation, and its orders begin anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// How often the manager has been started on its data.
    pub generation: u64,
    /// Grows with every change of what is to run.
    pub number: u64,
}

/// One start of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// The generation of the manager that took the job: where its data are lost, the next one takes it again and counts anew.
    #[serde(default)]
    pub term: u64,
    /// How often it was started before.
    pub number: u32,
}

/// What a process of a job of several says when it listens for the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Which of them it is, from 0.
    pub process: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// What the first one goes on from; the manager only passes it on.
    pub taken_over: Option<Value>,
}

/// What it hears when all do.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Go {
    /// By which they know each other.
    pub secret: String,
    /// Where they listen, by process.
    pub addresses: Vec<SocketAddr>,
    /// Of the first one.
    pub taken_over: Option<Value>,
    /// With which the process that hears it speaks TLS; none: in the clear.
    pub tls: Option<Value>,
}

impl std::fmt::Debug for Go {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Go({:?})", self.addresses)
    }
}

/// What a worker process is at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It was ordered: files are fetched, the process begins.
    Starting,
    /// It waits for the others of its job.
    Ready(Ready),
    /// It has heard where the others are, or is alone.
    Running,
    /// It was killed and has not ended yet.
    Ending,
    /// It is no more.
    Ended(Ended),
}

/// A worker process of a task manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Of what.
    pub attempt: Attempt,
    /// Which of the job's processes.
    pub process: u32,
    /// See there.
    pub phase: Phase,
    /// How the job does, of its first process, as `job show --format json` has it.
    #[serde(default)]
    pub status: Option<Value>,
}

/// What a task manager says, at every change and at least a few times per lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beat {
    /// Its slots.
    pub slots: u32,
    /// Where its workers listen: a name or an address for people.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The newest orders that it has followed.
    pub seen: Version,
    /// All that it runs.
    pub workers: Vec<Worker>,
    /// It goes, has ended all that it ran, and will not be heard of again.
    #[serde(default)]
    pub leaving: bool,
    /// To requests of the manager, once each.
    #[serde(default)]
    pub answers: Vec<Answered>,
}

/// What is asked of a job's first process, in the words of its control socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Names it in the answer.
    pub id: String,
    /// Whom.
    pub attempt: Attempt,
    /// What.
    pub ask: Value,
}

/// What `do` of a request is that the task manager answers itself: the end of what the job's workers have written there.
pub const LOG: &str = "log";

/// What `do` of a request is that a task manager answers with rows that a sink has collected: it sends them for themselves, and only then says that it has.
pub const COLLECT: &str = "collect";

/// What `do` of a request is that each process of a job answers with rows that pass there; its task manager sends them as those of a sink.
pub const TAP: &str = "tap";

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Of the request.
    pub id: String,
    /// One line each, or why nobody has answered.
    pub answers: Result<Vec<Value>, String>,
}

/// A worker that is to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Of what.
    pub attempt: Attempt,
    /// How often the job was started again after a failure; the other attempts before were given another place or parallelism.
    #[serde(default)]
    pub restarts: u32,
    /// Another manager, whose data are lost, may have begun it before: it looks for itself, and then goes on from the newest checkpoint of its own.
    #[serde(default)]
    pub resumes: bool,
    /// Which process it is.
    pub process: u32,
    /// Slots of all processes of the job, in order.
    pub slots: Vec<u32>,
    /// What it is made of.
    #[serde(with = "crate::bundle::shared")]
    pub bundle: Arc<Bundle>,
    /// Once all are ready.
    pub go: Option<Go>,
}

/// What a task manager is to run: all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// Older ones are not followed.
    pub version: Version,
    /// How long the task manager may run anything without having been answered, in milliseconds.
    pub lease_millis: u64,
    /// See there.
    pub workers: Vec<Order>,
    /// Not answered yet.
    pub requests: Vec<Request>,
}
