//! The processes of one job, as they find each other: [`Cluster::join`] gives every process a connection for timely to every other one, and one for control between
//! the first process and each of the others, all behind a handshake of our own (`handshake`, `join`). What then goes over the connections for control is in `frame`;
//! `runtime::peers` talks over them, `link` lends the others to timely; both have them as a `wire`, in the clear or over TLS.
//!
//! A process listens only until all others are connected. Whoever knocks meanwhile and is not one of them is dropped: a connection without an answer to the challenge
//! changes nothing, however many there are. With TLS (`tls`) whoever has no certificate of the job does not get as far as that, and what is sent is encrypted. Without, it is
//! authenticated at its beginning alone: addresses are to be of this machine or of a network that is trusted.

pub(crate) mod frame;
mod handshake;
mod join;
pub(crate) mod link;
mod tls;
mod wire;

pub use tls::Identity;
pub(crate) use wire::Wire;

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use standpipe_pipeline::plan::PlanHash;
use std::io;

/// What the processes of one start of a job have in common and nobody else knows. It never goes over a connection, and is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> io::Result<Self> {
        Ok(Self(random()?))
    }

    /// As 64 hexadecimal digits, to be handed to a process over a private way.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From what [`Self::to_hex`] gave; `None`: it is something else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(bytes)
}

/// One of the processes of a job, and what all of them agree on.
#[derive(Debug, Clone)]
pub struct Membership {
    /// 32 hexadecimal digits.
    pub job_id: String,
    /// How often the job has been started before; connections of another start are refused.
    pub attempt: u64,
    /// Of the plan that all processes build.
    pub plan: PlanHash,
    /// Which of them this is, from 0.
    pub process: u32,
    /// How many there are.
    pub processes: u32,
    /// See there.
    pub secret: Secret,
    /// What this process is known by over TLS, if the processes speak it; all do, or none.
    pub tls: Option<Identity>,
}

/// Why a process does not find the others.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The system refused.
    #[error("process {process} cannot find the others: {source}")]
    System {
        /// This one.
        process: u32,
        /// What it said.
        source: io::Error,
    },
    /// Some have not come.
    #[error("process {process} has waited {seconds} s in vain for process {missing}")]
    Missing {
        /// This one.
        process: u32,
        /// The first of those that are not there.
        missing: u32,
        /// For how long.
        seconds: u64,
    },
    /// Another process has this one refused, or is none of this job.
    #[error("process {process} is refused by process {by}: {reason}")]
    Refused {
        /// This one.
        process: u32,
        /// That one.
        by: u32,
        /// One line.
        reason: String,
    },
}

/// The connections of a process to the others of its job, as [`Cluster::join`] has made them. A job takes them when it starts.
#[derive(Debug)]
pub struct Cluster {
    process: u32,
    processes: u32,
    connections: Mutex<Option<Connections>>,
}

/// What a job takes.
#[derive(Debug)]
pub(crate) struct Connections {
    /// For timely, by process; none to this one.
    pub(crate) data: Vec<Option<Wire>>,
    /// For control: of the first process to each other one; of another one to the first.
    pub(crate) control: Vec<Control>,
}

/// A connection for control.
#[derive(Debug)]
pub(crate) struct Control {
    /// The process at its other end, by number and by the system's id.
    pub(crate) process: u32,
    pub(crate) id: u32,
    pub(crate) stream: Wire,
}

impl Cluster {
    /// Which process this is, from 0.
    #[must_use]
    pub const fn process(&self) -> u32 {
        self.process
    }

    /// How many there are.
    #[must_use]
    pub const fn processes(&self) -> u32 {
        self.processes
    }

    /// Hands the connections over, once.
    pub(crate) fn take(&self) -> Option<Connections> {
        self.connections.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_handed_over_as_text_and_is_not_printed() {
        let secret = Secret::random().unwrap();
        let text = secret.to_hex();
        assert_eq!(Secret::from_hex(&text), Some(secret.clone()));
        assert_ne!(Secret::random().unwrap(), secret);
        assert!(!format!("{secret:?}").contains(&text[..8]));
        for broken in ["", &text[1..], &"ä".repeat(32), &"x".repeat(64)] {
            assert_eq!(Secret::from_hex(broken), None, "{broken}");
        }
    }
}
