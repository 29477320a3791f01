//! SIGINT and SIGTERM: the first stops the job cleanly, a second ends the process at once with exit code 130.

use crate::{exit::Code, output::say, supervise};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// See [`Unfinished`].
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A file that means nothing yet: one that ends the process at once removes it. There is one at a time.
pub(crate) struct Unfinished(());

impl Unfinished {
    /// Until the value is dropped.
    pub(crate) fn note(path: &Path) -> Self {
        set(Some(path.to_owned()));
        Self(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        set(None);
    }
}

fn set(path: Option<PathBuf>) -> Option<PathBuf> {
    // What is in it holds also after a panic.
    std::mem::replace(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner), path)
}

/// Listens until it is dropped.
pub(crate) struct Listener {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
    at_once: Arc<AtomicBool>,
}

impl Listener {
    /// Calls `stop` at the first signal, and says what happens then.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub(crate) fn start(then: &'static str, stop: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        // The terminal tells a child and its supervisor at the same time, and the supervisor passes it on: that is one signal.
        let heard: &[i32] = if supervise::attempt().is_some() { &[SIGTERM] } else { &[SIGINT, SIGTERM] };
        let mut signals = Signals::new(heard)?;
        let handle = signals.handle();
        let at_once = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&at_once);
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut stop = Some(stop);
            for _ in signals.forever() {
                match stop.take().filter(|_| !ends.load(SeqCst)) {
                    Some(stop) => {
                        stop();
                        say!("stopping: {then}; a second signal ends at once");
                    }
                    None => {
                        // It may have been finished, or removed, a moment ago.
                        drop(set(None).map(fs::remove_file));
                        std::process::exit(Code::Interrupted as i32)
                    }
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread), at_once })
    }

    /// From now on the first signal ends the process: there is nothing left to stop.
    pub(crate) fn end_at_once(&self) {
        self.at_once.store(true, SeqCst);
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
