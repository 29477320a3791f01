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
/// Requests at a time: those who look, those who wait for the end, and as many of all others, which must not be crowded out.
const MOST: usize = 3 * MOST_LOOKS;
/// Looks at rows at a time, and those who wait for the end.
const MOST_LOOKS: usize = 16;
/// Between two glances whether who waits for the end is still there.
const GLANCE: Duration = Duration::from_millis(500);
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
    /// Looks among them, and those that wait for the end.
    looks: usize,
    waiting: usize,
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
    let counted = match request {
        Request::Tap(_) => Counted::start(shared, |state| &mut state.looks),
        Request::End => Counted::start(shared, |state| &mut state.waiting),
        _ => Some(Counted { shared, of: None }),
    };
    let Some(_counted) = counted else {
        send(Answer::Busy(format!("{MOST_LOOKS} others look at rows of this job at this moment")));
        return Ok(());
    };
    if request == Request::End {
        if let Some(end) = end_while_heard(stream, shared)? {
            send(end);
        }
        return Ok(());
    }
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

/// A request of a kind of which there may be so many.
struct Counted<'a> {
    shared: &'a Shared,
    of: Option<fn(&mut State) -> &mut usize>,
}

impl<'a> Counted<'a> {
    /// None: there are enough.
    fn start(shared: &'a Shared, of: fn(&mut State) -> &mut usize) -> Option<Self> {
        let mut state = shared.state();
        let count = of(&mut state);
        (*count < MOST_LOOKS).then(|| *count += 1)?;
        Some(Self { shared, of: Some(of) })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(of) = self.of {
            *of(&mut self.shared.state()) -= 1;
        }
    }
}

/// How the job ends, when it does; none: whoever waited for that has gone before.
fn end_while_heard(mut stream: &UnixStream, shared: &Shared) -> io::Result<Option<Answer>> {
    let mut state = shared.state();
    loop {
        if let Some(end) = &state.end {
            return Ok(Some(end.clone()));
        }
        state = shared.changed.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        stream.set_nonblocking(true)?;
        // It says nothing more: that there is nothing to read means that it is there.
        let is_gone = !matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false)?;
        if is_gone {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Look, Rows, client};
    use std::sync::mpsc;

    const WAIT: Option<Duration> = Some(Duration::from_secs(60));

    fn ask(socket: &Path, request: &Request) -> Vec<Answer> {
        let mut answers = Vec::new();
        client::ask(socket, request, WAIT, |answer| answers.push(answer)).unwrap();
        answers
    }

    #[test]
    fn looks_do_not_crowd_out_other_requests() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("job.sock");
        let (go, gate) = mpsc::channel::<()>();
        let (gate, begun) = (Mutex::new(gate), mpsc::channel());
        let handler: Handler = Box::new(move |request, send| match request {
            Request::Tap(_) => {
                begun.0.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap();
                send(Answer::Rows(Rows::default()));
            }
            _ => send(Answer::Refused("no savepoint".to_owned())),
        });
        let server = Server::start(socket.clone(), handler).unwrap();
        let look = Request::Tap(Look { tap: "a".to_owned(), node: "stats".to_owned(), rows: 1, newest: false, wait: 0 });
        thread::scope(|scope| {
            let looks: Vec<_> = (0..MOST_LOOKS).map(|_| scope.spawn(|| ask(&socket, &look))).collect();
            looks.iter().for_each(|_| begun.1.recv().unwrap());
            let ends: Vec<_> = (0..MOST_LOOKS).map(|_| scope.spawn(|| ask(&socket, &Request::End))).collect();
            assert!(matches!(ask(&socket, &look)[..], [Answer::Busy(_)]), "there are enough");
            assert_eq!(ask(&socket, &Request::Checkpoint), [Answer::Refused("no savepoint".to_owned())]);
            looks.iter().for_each(|_| go.send(()).unwrap());
            looks.into_iter().for_each(|look| assert_eq!(look.join().unwrap(), [Answer::Rows(Rows::default())]));
            while server.shared.state().waiting < MOST_LOOKS {
                thread::yield_now();
            }
            assert_eq!(server.shared.state().looks, 0);
            server.finish(Answer::Failed("disk full".to_owned()));
            ends.into_iter().for_each(|end| assert_eq!(end.join().unwrap(), [Answer::Failed("disk full".to_owned())]));
        });
    }

    #[test]
    fn who_waits_for_the_end_and_goes_leaves_the_place_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("job.sock");
        let server = Server::start(socket.clone(), Box::new(|_, _| ())).unwrap();
        let until = |waiting: usize| {
            while server.shared.state().waiting != waiting {
                thread::yield_now();
            }
        };
        let mut gone = UnixStream::connect(&socket).unwrap();
        gone.write_all(b"{\"do\":\"end\"}\n").unwrap();
        until(1);
        drop(gone);
        until(0);
    }
}
