//! The job's end of its control socket: a thread that listens, and one for each request while it is answered. It costs nothing while nobody asks, and a job whose socket
//! cannot be made runs all the same.

use super::{Answer, Request};
use crate::output::say;
use std::{
    cell::Cell,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Does what is asked, and answers as often as there is something to say.
pub(crate) type Handler = Box<dyn Fn(Request, &mut dyn FnMut(Answer)) + Send + Sync>;

/// A request is one short line; whoever does not send it soon has gone.
const LONGEST_REQUEST: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at a time.
const MOST: usize = 32;
/// Between two attempts to take a request.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an ending job waits for its last answers to be read.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves until it is dropped.
pub(crate) struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Handler,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Requests that are being answered.
    open: usize,
    /// How the job has ended.
    end: Option<Answer>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is in it holds also after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Begins to listen; a socket that is there already is of a process that is no more.
    ///
    /// # Errors
    /// When there can be no socket.
    pub(crate) fn start(path: PathBuf, handler: Handler) -> io::Result<Self> {
        // It has its name when somebody listens: one with that name that nobody listens to is of a process that is no more.
        let mut unnamed = path.clone().into_os_string();
        unnamed.push(".new");
        let unnamed = PathBuf::from(unnamed);
        match fs::remove_file(&unnamed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&unnamed).map_err(|error| at(&unnamed, &error))?;
        fs::rename(&unnamed, &path).map_err(|error| at(&path, &error))?;
        let shared = Arc::new(Shared { handler, state: Mutex::default(), changed: Condvar::new() });
        let server = Self { path, shared: Arc::clone(&shared) };
        thread::Builder::new().name("control".to_owned()).spawn(move || listen(&listener, &shared))?;
        Ok(server)
    }

    /// As [`Self::start`]; where there can be no socket, it says so and the job runs without one.
    pub(crate) fn start_if_possible(path: io::Result<PathBuf>, handler: Handler) -> Option<Self> {
        let started = path.and_then(|path| Self::start(path, handler));
        started.map_err(|error| say!("warning: `standpipe job` will not see this job: {error}")).ok()
    }

    /// The job has ended: whoever waits for that hears how.
    pub(crate) fn finish(self, end: Answer) {
        // Nobody new.
        drop(fs::remove_file(&self.path));
        let mut state = self.shared.state();
        state.end = Some(end);
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(state, LAST_ANSWERS, |state| state.open > 0);
        drop(waited);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn listen(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        // There may be too many files open, for now.
        let Ok(stream) = stream else {
            thread::sleep(PAUSE);
            continue;
        };
        {
            let mut state = shared.state();
            if state.open >= MOST {
                continue;
            }
            state.open += 1;
        }
        let own = Arc::clone(shared);
        let answered = thread::Builder::new().name("control".to_owned()).spawn(move || {
            // Whoever asked may have gone.
            drop(answer(&stream, &own));
            // The last answer is on its way before this one counts as done.
            drop(stream);
            own.state().open -= 1;
            own.changed.notify_all();
        });
        if answered.is_err() {
            shared.state().open -= 1;
        }
    }
}

fn answer(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_REQUEST)).read_line(&mut line)?;
    let mut out = stream;
    let ended = Cell::new(false);
    let mut send = |answer: Answer| {
        ended.set(ended.get() || matches!(answer, Answer::Ended(_) | Answer::Failed(_)));
        // There is nobody to tell that it failed.
        drop(serde_json::to_vec(&answer).map(|text| out.write_all(&[text.as_slice(), b"\n"].concat())));
    };
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            send(Answer::Refused(format!("no request: {error}")));
            return Ok(());
        }
    };
    let mut stopping = false;
    (shared.handler)(request, &mut |answer| {
        stopping |= matches!(answer, Answer::Stopping);
        send(answer);
    });
    if stopping && !ended.get() {
        let state = shared.changed.wait_while(shared.state(), |state| state.end.is_none());
        let end = state.map(|state| state.end.clone()).unwrap_or_default();
        end.into_iter().for_each(&mut send);
    }
    Ok(())
}
