//! A plugin's process: it loads the file that its parent has loaded, makes one instance, and calls it as it is told, all on its main thread, as a plugin is promised. It ends with
//! its parent, however that ends, and hears of no signal but SIGKILL: what is to be done about a Ctrl-C is the parent's business.

mod calls;
mod host;

use crate::{
    memory::{Mapped, Pool},
    wire::{self, Received, Wire, WireError, patiently},
    words::{Create, Envelope, Failure, Reply, Request},
};
use calls::{Calls, Given};
use host::Link;
use rustix::{
    event::PollFlags,
    fd::OwnedFd,
    process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal},
    stdio::{dup2_stdin, stdin},
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{io, os::fd::BorrowedFd, process::exit, sync::Arc};

/// What parent and child must have in common: they are one program.
pub(crate) const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " 1");

/// Why a plugin's process cannot do its work. It says so where its parent hears it.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It is for the program itself.
    #[error("plugin-process is what standpipe starts by itself for a node with `isolation: process`")]
    NotAChild,
    /// The system.
    #[error("{0}")]
    System(#[from] io::Error),
    /// What its parent says.
    #[error("the process that started it: {0}")]
    Parent(String),
}

impl From<WireError> for ChildError {
    fn from(error: WireError) -> Self {
        Self::Parent(error.to_string())
    }
}

impl From<rustix::io::Errno> for ChildError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

/// Does the work of a plugin's process, whose parent is the process of that number, until there is none. Called by the program's main function before anything else: standard input
/// is the socket on which the parent speaks.
///
/// # Errors
/// When it was not started by such a parent, or cannot speak with it.
pub fn run(parent: u32) -> Result<(), ChildError> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != i32::try_from(parent).ok().and_then(Pid::from_raw) {
        return Err(ChildError::NotAChild);
    }
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    // Where memory is short, it is the first to go, not the job. Not allowed everywhere, and no reason to end.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    let mut calls = Wire::new(rustix::io::fcntl_dupfd_cloexec(stdin(), 3)?);
    let Received { envelope: Envelope { message, .. }, .. } = calls.receive::<Request<'_>>(&mut patiently)?;
    let (Request::Create(create), Some(news), Some(input)) = (message, calls.files.pop_front(), calls.files.pop_front()) else {
        return Err(ChildError::NotAChild);
    };
    dup2_stdin(&input)?;
    drop(input);
    if create.build != BUILD {
        return Err(ChildError::Parent(format!("is {}, and this is {BUILD}", create.build)));
    }
    begin(calls, news, *create)
}

/// Makes the instance, and serves it.
fn begin(calls: Wire, news: OwnedFd, create: Create) -> Result<(), ChildError> {
    // While there is one thread: it goes for those that come of it.
    let entered = create.sandbox.as_ref().map_or(Ok(()), |sandbox| sandbox.enter(create.file.as_ref()));
    let link = Link::start(news)?;
    let mut child = Child { calls, pool: Pool::default(), mapped: Mapped::default(), link };
    let made = entered.map_err(Failure::from).and_then(|()| Calls::make(&create, Arc::clone(&child.link) as _));
    match made {
        Ok((mut instance, reply)) => {
            child.reply(Given { reply, ..Given::default() })?;
            child.serve(&mut instance)?;
        }
        Err(failure) => {
            child.reply(Given { reply: Reply::Failed(failure), ..Given::default() })?;
            // An end that nobody has asked for would be told instead of the failure.
            drop(child.calls.receive::<Request<'_>>(&mut patiently)?);
        }
    }
    child.reply(Given::default())?;
    // Runs what libraries do at the end, as the end of a program does. Whatever hangs there is killed by the parent.
    exit(0)
}

struct Child {
    calls: Wire,
    pool: Pool,
    mapped: Mapped,
    link: Arc<Link>,
}

impl Child {
    /// Does what it is told, until it is told to end.
    fn serve(&mut self, instance: &mut Calls) -> Result<(), ChildError> {
        loop {
            let Some(Received { envelope, inline }) = self.next(instance)? else { continue };
            self.pool.release(&envelope.released);
            self.mapped.forget(&envelope.gone);
            if matches!(envelope.message, Request::Destroy) {
                return Ok(());
            }
            let given = instance.call(envelope.message, &inline, &mut self.calls.files, &mut self.mapped, &mut self.pool);
            self.reply(given)?;
            self.tell_ended(instance)?;
        }
    }

    /// The next request. `None`: something else was to be done.
    fn next(&mut self, instance: &mut Calls) -> Result<Option<Received<Request<'static>>>, ChildError> {
        let link = Arc::clone(&self.link);
        let mut is_woken = false;
        let mut wait = |socket: BorrowedFd<'_>, what: PollFlags| {
            is_woken = link.wait(socket, what)?;
            if is_woken { Err(WireError::GivenUp) } else { Ok(()) }
        };
        match self.calls.receive(&mut wait) {
            Ok(received) => Ok(Some(received)),
            Err(WireError::GivenUp) if is_woken => {
                self.link.tell_metrics();
                self.tell_ended(instance)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Tells of calls that were pending and have ended.
    fn tell_ended(&mut self, instance: &mut Calls) -> Result<(), ChildError> {
        for (news, parcel) in instance.ended(&mut self.pool) {
            let released = self.mapped.take_released();
            let gone = self.pool.take_gone();
            self.link.tell_with(news, parcel, released, gone);
        }
        Ok(())
    }

    fn reply(&mut self, Given { reply, parcel }: Given) -> Result<(), ChildError> {
        self.link.tell_metrics();
        let (released, gone) = (self.mapped.take_released(), self.pool.take_gone());
        let envelope = Envelope { released, gone, told: self.link.told(), message: reply };
        Ok(wire::send(self.calls.socket(), &envelope, &parcel.inline, &parcel.files, &mut patiently)?)
    }
}

/// Ends this process at once, and runs nothing of it: its parent is gone, or has no use for it.
fn die() -> ! {
    // Of itself it may be killed.
    _ = kill_process(getpid(), Signal::KILL);
    exit(1)
}
