//! How a plugin's process ends, in words: what the system says of it, what this process has done to it, and what it has said last.

use rustix::{
    event::PollFlags,
    param::page_size,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Why this process has killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// Nobody has a use for it.
    Unused,
    /// Its job was cancelled, and its call did not come back.
    Cancelled,
    /// It had so many bytes, more than it may have.
    Memory(u64),
}

/// A process until its end and beyond.
pub(super) struct Death {
    /// Readable once the process has ended.
    signal: OwnedFd,
    id: u32,
    /// Bytes that it may have.
    limit: Option<u64>,
    state: Mutex<State>,
}

struct State {
    child: Child,
    status: Option<ExitStatus>,
    killed: Option<Killed>,
    /// The last line on its standard error.
    words: String,
}

impl Death {
    pub(super) fn of(mut child: Child, limit: Option<u64>) -> io::Result<Self> {
        let signal = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(signal) => signal,
            Err(error) => {
                child.kill().and_then(|()| child.wait())?;
                return Err(error.into());
            }
        };
        let (id, state) = (child.id(), State { child, status: None, killed: None, words: String::new() });
        Ok(Self { signal, id, limit, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be polled: readable once the process has ended.
    pub(super) fn signal(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.state().reap()
    }

    /// Waits for its end.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        if !self.is_over() {
            // What cannot be polled is killed by whoever waits.
            drop(crate::wire::wait(&[(self.signal(), PollFlags::IN)], Some(at_most)));
        }
        self.is_over()
    }

    /// Kills it, if it has not ended, and waits until it has.
    pub(super) fn kill(&self, why: Killed) {
        let mut state = self.state();
        if state.reap() {
            return;
        }
        state.killed.get_or_insert(why);
        // It is ours, and was not waited for: both can only fail if it has ended.
        drop(state.child.kill());
        state.status = state.child.wait().ok().or(state.status);
    }

    /// Notes what it has said.
    pub(super) fn said(&self, line: &str) {
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut self.state().words);
        }
    }

    /// Bytes of memory of its own, if they are more than it may have. Files that are mapped and shared memory do not count.
    pub(super) fn too_much(&self) -> Option<u64> {
        let limit = self.limit?;
        let text = fs::read_to_string(format!("/proc/{}/statm", self.id)).ok()?;
        let mut pages = text.split(' ').skip(1).map_while(|number| number.parse::<u64>().ok());
        let (resident, shared) = (pages.next()?, pages.next()?);
        let own = resident.saturating_sub(shared) * page_size() as u64;
        (own > limit).then_some(own)
    }

    /// What happened to it: `was killed by signal 11 (SIGSEGV)`.
    pub(super) fn describe(&self) -> String {
        let mut state = self.state();
        state.reap();
        describe(state.status, state.killed, self.limit, &state.words)
    }
}

impl State {
    /// Whether it has ended; nothing is left of it then.
    fn reap(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status.is_some()
    }
}

fn describe(status: Option<ExitStatus>, killed: Option<Killed>, limit: Option<u64>, words: &str) -> String {
    let what = match (killed, status.map(|status| (status.code(), status.signal()))) {
        (Some(Killed::Memory(bytes)), _) => {
            let of = limit.map_or(String::new(), |limit| format!(", {} MiB", limit >> 20));
            return format!("had {} MiB of memory, more than the limit of its isolation{of}, and was killed", bytes >> 20);
        }
        (Some(Killed::Cancelled), _) => return "did not come back when its job was cancelled, and was killed".to_owned(),
        (_, Some((Some(code), _))) => format!("has ended by itself, with exit code {code}"),
        (None, Some((_, Some(9)))) => "was killed by signal 9 (SIGKILL): by somebody, or by the kernel for want of memory".to_owned(),
        (_, Some((_, Some(signal)))) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        _ => "is gone".to_owned(),
    };
    // What it said may be about something else, so it is quoted.
    if words.is_empty() { what } else { format!("{what}; it has said last: {words:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let told = |raw: i32, words: &str| describe(Some(ExitStatus::from_raw(raw)), None, None, words);
        assert_eq!(told(7 << 8, ""), "has ended by itself, with exit code 7");
        assert_eq!(told(11, ""), "was killed by signal 11 (SIGSEGV)");
        assert_eq!(told(9, ""), "was killed by signal 9 (SIGKILL): by somebody, or by the kernel for want of memory");
        assert_eq!(told(6, "it has \"overflowed\""), "was killed by signal 6 (SIGABRT); it has said last: \"it has \\\"overflowed\\\"\"");
        let limited = describe(Some(ExitStatus::from_raw(9)), Some(Killed::Memory(600 << 20)), Some(512 << 20), "x");
        assert_eq!(limited, "had 600 MiB of memory, more than the limit of its isolation, 512 MiB, and was killed");
        assert_eq!(describe(None, None, None, ""), "is gone");
    }

    #[test]
    fn a_process_that_has_ended_is_waited_for_once() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let death = Death::of(child, Some(1 << 40)).unwrap();
        assert!(death.wait(Duration::from_secs(10)) && death.is_over());
        death.kill(Killed::Unused);
        assert_eq!(death.describe(), "has ended by itself, with exit code 0");
    }
}
