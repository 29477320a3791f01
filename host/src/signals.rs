//! SIGINT and SIGTERM: the first stops the job cleanly, a second ends the process at once with exit code 130.

use crate::exit::Code;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};
use std::thread;

/// Listens until it is dropped.
pub(crate) struct Listener {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Listener {
    /// Calls `stop` at the first signal, and says what happens then.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub(crate) fn start(then: &'static str, stop: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut stop = Some(stop);
            for _ in signals.forever() {
                match stop.take() {
                    Some(stop) => {
                        eprintln!("stopping: {then}; a second signal ends at once");
                        stop();
                    }
                    None => std::process::exit(Code::Interrupted as i32),
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It only ends by `close`; a panic in it has been printed.
            drop(thread.join());
        }
    }
}
