//! One start of a job over several processes: how those that `supervise` starts come to know of each other. Each listens for the others on this machine, says so on a
//! socket of the supervisor in a folder that only its user may enter, and hears there, once all are ready, where the others are, what the first one goes on from, and
//! the secret by which they know each other (`standpipe_engine::Cluster`); with `--tls` also a certificate and its key. Nothing of it is on a command line or in an environment.

use crate::{
    control,
    exit::{Code, Failure},
    output::say,
    supervise, traces,
};
use serde::{Serialize, de::DeserializeOwned};
use standpipe_checkpoint::TakenOver;
use standpipe_cluster::protocol::{Go, Ready};
use standpipe_engine::{Cluster, Identity, Membership, Secret};
use standpipe_pipeline::Plan;
use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// Set in a process that is one of several: which, and of how many: `1/3`.
pub(crate) const PROCESS: &str = "STANDPIPE_PROCESS";
/// Set there by a task manager: slots of all processes, `3,2`.
pub(crate) const SLOTS: &str = "STANDPIPE_PROCESS_SLOTS";
/// Set there by a task manager: the name or address on which other processes reach this one.
pub(crate) const HOST: &str = "STANDPIPE_PROCESS_HOST";
/// Between two looks for processes that have come to be ready.
const LOOK: Duration = Duration::from_millis(5);
/// How long a process that has come may take to say what it has to.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long processes that are all ready may take to connect.
const CONNECTING: Duration = Duration::from_secs(30);

fn write_line(stream: &mut UnixStream, line: &impl Serialize) -> io::Result<()> {
    stream.write_all(&[serde_json::to_vec(line)?.as_slice(), b"\n"].concat())
}

fn read_line<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// The supervisor's end, for one start of the job; dropped, it is over.
pub(crate) struct Launch {
    socket: PathBuf,
    over: Arc<AtomicBool>,
}

impl Launch {
    /// Waits for so many processes, on a thread of its own; with `tls` they are given what they need to speak it.
    ///
    /// # Errors
    /// When there can be no socket, no secret, or no certificates.
    pub(crate) fn start(job_id: &str, processes: u32, tls: bool) -> io::Result<Self> {
        let socket = control::socket_of_launch(job_id)?;
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener =
            UnixListener::bind(&socket).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", socket.display())))?;
        listener.set_nonblocking(true)?;
        let secret = Secret::random()?;
        let identities = if tls { Identity::of_processes(processes)? } else { Vec::new() };
        let launch = Self { socket, over: Arc::default() };
        let over = Arc::clone(&launch.over);
        thread::Builder::new().name("launch".to_owned()).spawn(move || {
            let mut ready: Vec<Option<(UnixStream, Ready)>> = (0..processes).map(|_| None).collect();
            while ready.iter().any(Option::is_none) {
                if over.load(SeqCst) {
                    return;
                }
                match listener.accept().and_then(|(stream, _)| hear(stream)) {
                    Ok(one) => {
                        if let Some(place) = ready.get_mut(one.1.process as usize) {
                            *place = Some(one);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOOK),
                    // It has ended before it has said anything, and its end is seen.
                    Err(error) => tracing::debug!("a process of the job is not understood: {error}"),
                }
            }
            go(ready.into_iter().flatten().collect(), &secret, identities);
        })?;
        Ok(launch)
    }
}

impl Launch {
    /// One has ended before all were ready: those that wait hear that it comes to nothing.
    pub(crate) fn give_up(&self) {
        self.over.store(true, SeqCst);
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.give_up();
        drop(fs::remove_file(&self.socket));
    }
}

fn hear(stream: UnixStream) -> io::Result<(UnixStream, Ready)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let ready = read_line(&stream)?;
    Ok((stream, ready))
}

/// Tells all; `identities` are theirs, in order, or none.
fn go(ready: Vec<(UnixStream, Ready)>, secret: &Secret, identities: Vec<Identity>) {
    let mut go = Go {
        secret: secret.to_hex(),
        addresses: ready.iter().map(|(_, ready)| ready.address).collect(),
        taken_over: ready.first().and_then(|(_, first)| first.taken_over.clone()),
        tls: None,
    };
    let mut identities = identities.into_iter();
    for (mut stream, _) in ready {
        // Without it, a process that is to speak TLS says so and ends.
        go.tls = identities.next().and_then(|identity| serde_json::to_value(identity).ok());
        // One that has ended meanwhile is seen to end.
        if let Err(error) = write_line(&mut stream, &go) {
            tracing::debug!("a process of the job has gone: {error}");
        }
    }
}

/// Whether nobody listens any more for those that become ready.
fn is_given_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound)
}

/// Which of several processes this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) process: u32,
    pub(crate) processes: u32,
}

impl Member {
    /// If it is one.
    pub(crate) fn of_environment() -> Option<Self> {
        supervise::attempt()?;
        Self::parse(&env::var(PROCESS).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (process, processes) = text.split_once('/')?;
        let member = Self { process: process.parse().ok()?, processes: processes.parse().ok()? };
        (member.process < member.processes).then_some(member)
    }

    /// The text that makes a process this one.
    pub(crate) fn to_text(self) -> String {
        format!("{}/{}", self.process, self.processes)
    }

    /// The one that the user sees and talks with.
    pub(crate) const fn is_first(self) -> bool {
        self.process == 0
    }

    /// Slots of each process, so that all together are enough: as a task manager has said, or the same for all.
    pub(crate) fn slots(self, plan: &Plan) -> Vec<u32> {
        let said: Option<Vec<u32>> = env::var(SLOTS).ok().and_then(|text| text.split(',').map(|slots| slots.parse().ok()).collect());
        if let Some(said) = said.filter(|said| said.len() == self.processes as usize) {
            return said;
        }
        vec![plan.slots().div_ceil(self.processes); self.processes as usize]
    }

    /// Connects this process with the others, over TLS if it is to be; `taken_over` is what the first one goes on from, and what is given is that for all.
    ///
    /// # Errors
    /// When another one does not come, or the supervisor is gone.
    pub(crate) fn join(
        self,
        plan: &Plan,
        job_id: &str,
        taken_over: Option<TakenOver>,
        tls: bool,
    ) -> anyhow::Result<(Cluster, Option<TakenOver>)> {
        let listener = match env::var(HOST) {
            Ok(host) => TcpListener::bind((host.as_str(), 0))
                .map_err(|error| Failure::error(Code::Outside, format!("{host}: this machine cannot be reached by that: {error}")))?,
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        };
        let taken_over = taken_over.map(serde_json::to_value).transpose()?;
        let ready = Ready { process: self.process, address: listener.local_addr()?, taken_over };
        let socket = control::socket_of_launch(job_id)?;
        let introduce = || UnixStream::connect(&socket).and_then(|mut supervisor| write_line(&mut supervisor, &ready).map(|()| supervisor));
        // Until all are ready, however long one of them takes: this one ends with the supervisor.
        let go = match introduce().map(|supervisor| read_line::<Go>(&supervisor)) {
            Ok(Ok(go)) => go,
            Err(error) if !is_given_up(&error) => return Err(error.into()),
            // Another one has ended before it was ready, and has said why.
            _ => traces::exit(Code::Failed),
        };
        let secret = Secret::from_hex(&go.secret).ok_or_else(|| Failure::error(Code::Failed, "the supervisor has given no secret"))?;
        if tls && go.tls.is_none() {
            // Rather not at all than in the clear.
            return Err(Failure::error(Code::Failed, "the supervisor has given no certificate for --tls"));
        }
        let membership = Membership {
            job_id: job_id.to_owned(),
            attempt: supervise::attempt().unwrap_or(0).into(),
            plan: plan.hash,
            process: self.process,
            processes: self.processes,
            secret,
            tls: go.tls.map(serde_json::from_value).transpose()?,
        };
        let cluster =
            Cluster::join(listener, &go.addresses, &membership, CONNECTING).map_err(|error| Failure::error(Code::Failed, error))?;
        Ok((cluster, go.taken_over.map(serde_json::from_value).transpose()?))
    }
}

/// Says, once, where slots are more than the plan can use.
pub(crate) fn warn_of_idle(plan: &Plan, processes: u32) {
    let needed = plan.slots();
    if needed < processes {
        say!("{}: warning: a parallelism of {needed} leaves some of {processes} processes without work", plan.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_which_it_is() {
        let member = Member { process: 1, processes: 3 };
        assert_eq!(Member::parse(&member.to_text()), Some(member));
        for text in ["", "1", "3/3", "x/2", "-1/2", "0/"] {
            assert_eq!(Member::parse(text), None, "{text}");
        }
    }
}
