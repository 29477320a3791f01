//! A worker process: `standpipe run` in a folder of its own, which finds in its folder of sockets who tells it of the other processes of its job (`launch`), and serves
//! there who asks the job how it does (`child`).

use super::{Event, WorkerSpec, limits::Group};
use crate::protocol::{Attempt, Go};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::{
        fs::OpenOptionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

/// Between two looks at how a job does.
const LOOK: Duration = Duration::from_secs(1);
/// While it is starting.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// A process that does not say by then how it does is asked another time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a process that has come to be ready.
const KNOCK: Duration = Duration::from_millis(5);
/// Of a log, for its last words.
const TAIL: u64 = 16 << 10;
/// Of a log that is written to: what is before is kept once.
const LONGEST_LOG: u64 = 64 << 20;
/// Of what a process answers.
const LONGEST_ANSWER: u64 = 16 << 20;
/// Looks at a job that is starting, before it is looked at less often.
const FIRST_LOOKS: u32 = 500;
/// Lines of last words.
const MOST_LINES: usize = 20;

/// Where the socket is that a job's process is asked on.
pub(super) fn control_socket(sockets: &Path, job: &str) -> PathBuf {
    sockets.join(job).with_extension("child")
}

fn launch_socket(sockets: &Path, job: &str) -> PathBuf {
    sockets.join(job).with_extension("launch")
}

/// Asks a job's process, and gives all that it answers.
pub(super) fn ask(socket: &Path, request: &Value, patience: Option<Duration>) -> io::Result<Vec<Value>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(patience)?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    BufReader::new(stream.take(LONGEST_ANSWER)).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// Asks a process that may be starting: it is waited for while it has no socket and has not ended.
pub(super) fn ask_when_it_listens(socket: &Path, request: &Value, over: &AtomicBool) -> io::Result<Vec<Value>> {
    loop {
        match ask(socket, request, None) {
            Err(error) if is_not_there(&error) && !over.load(SeqCst) => thread::sleep(FIRST_LOOK),
            other => return other,
        }
    }
}

pub(super) fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The end of a file, from that place on, at most so many bytes.
pub(super) fn tail(path: &Path, from: u64, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most).max(from)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) struct Worker {
    pid: rustix::process::Pid,
    killed: bool,
    over: Arc<AtomicBool>,
    introduced: Arc<Mutex<Option<UnixStream>>>,
    log: PathBuf,
    /// Where its own part of the log begins.
    from: u64,
    sockets: [PathBuf; 2],
    last_status: PathBuf,
    group: Option<Group>,
}

impl Worker {
    /// Starts it, and the threads that hear of it.
    pub(super) fn start(mut command: Command, spec: &WorkerSpec<'_>, group: Option<Group>, events: &Sender<Event>) -> io::Result<Self> {
        let attempt = spec.order.attempt.clone();
        let sockets = [launch_socket(spec.sockets, &attempt.job), control_socket(spec.sockets, &attempt.job)];
        sockets.iter().for_each(|socket| drop(fs::remove_file(socket)));
        let last_status = spec.sockets.join(&attempt.job).with_extension(super::LAST_STATUS);
        drop(fs::remove_file(&last_status));
        let (over, introduced) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let log = spec.folder.with_extension("log");
        let to = File::options().append(true).create(true).mode(0o600).open(&log)?;
        let from = to.metadata()?.len();
        command.current_dir(spec.folder).stdin(Stdio::null()).stdout(to.try_clone()?).stderr(to);
        // Whoever listens to it ends with it, also if it never begins.
        let mut starting = Starting(Some(Arc::clone(&over)));
        if spec.order.slots.len() > 1 {
            let listener = UnixListener::bind(&sockets[0])?;
            listener.set_nonblocking(true)?;
            hear(listener, attempt.clone(), Arc::clone(&over), Arc::clone(&introduced), events.clone())?;
        }
        if spec.order.process == 0 {
            look(sockets[1].clone(), attempt.clone(), Arc::clone(&over), events.clone())?;
        }
        let mut child = command.spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        // Before it has had the time to load a plugin.
        if let Some(Err(error)) = group.as_ref().map(|group| group.add(child.id())) {
            drop(child.kill().and_then(|()| child.wait()));
            return Err(io::Error::other(error));
        }
        wait(child, attempt, events.clone()).inspect_err(|_| _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL))?;
        starting.0 = None;
        Ok(Self { pid, killed: false, over, introduced, log, from, sockets, last_status, group })
    }

    /// Tells it where the others are.
    pub(super) fn introduce(&mut self, go: &Go) {
        let stream = self.introduced.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that has ended meanwhile is seen to end.
        if let (Some(mut stream), Ok(text)) = (stream, serde_json::to_string(go)) {
            drop(stream.write_all(format!("{text}\n").as_bytes()));
        }
    }

    /// Ends it at once. It is waited for elsewhere, and its number is its own until its end is heard of here.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
    }

    /// Why the kernel has killed it, if it has.
    pub(super) fn verdict(&self) -> Option<String> {
        self.group.as_ref().and_then(Group::verdict)
    }

    /// Set when it has ended.
    pub(super) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    pub(super) const fn is_killed(&self) -> bool {
        self.killed
    }

    /// A log that has become too long begins anew; what was in it is kept once. What is written meanwhile may be lost.
    pub(super) fn trim_log(&mut self) {
        let is_long = |found: fs::Metadata| found.len() > LONGEST_LOG;
        if !fs::metadata(&self.log).is_ok_and(is_long) {
            return;
        }
        // The process has it open, and writes to its end, wherever that is.
        let file = File::options().write(true).open(&self.log);
        let trimmed = fs::copy(&self.log, self.log.with_extension("before")).and_then(|_| file?.set_len(0));
        if let Err(error) = trimmed {
            tracing::warn!("{}: it cannot be cut: {error}", self.log.display());
        }
        self.from = 0;
    }

    /// What it has said of its errors.
    pub(super) fn last_words(&self) -> Option<String> {
        let text = tail(&self.log, self.from, TAIL).ok()?;
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        let last = errors.get(errors.len().saturating_sub(MOST_LINES)..).unwrap_or_default();
        (!last.is_empty()).then(|| last.join("\n"))
    }

    /// How its job did at its end, if it is the job's first process and has come to say it.
    pub(super) fn last_status(&self) -> Option<Value> {
        let file = File::open(&self.last_status).ok()?;
        serde_json::from_reader(file.take(LONGEST_ANSWER)).ok()
    }

    /// Nothing of it is left but its log.
    pub(super) fn tidy(self) {
        self.over.store(true, SeqCst);
        self.sockets.iter().chain([&self.last_status]).for_each(|file| drop(fs::remove_file(file)));
    }
}

/// Ends the threads that wait for a process, unless it has begun.
struct Starting(Option<Arc<AtomicBool>>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.iter().for_each(|over| over.store(true, SeqCst));
    }
}

/// Waits for its end. If it cannot be waited for, it is still the caller's to kill.
fn wait(mut child: Child, attempt: Attempt, events: Sender<Event>) -> io::Result<()> {
    let wait = move || drop(events.send(Event::Ended(attempt, child.wait())));
    thread::Builder::new().name("worker".to_owned()).spawn(wait).map(drop)
}

/// Waits until the process says that it is ready.
fn hear(
    listener: UnixListener,
    attempt: Attempt,
    over: Arc<AtomicBool>,
    introduced: Arc<Mutex<Option<UnixStream>>>,
    events: Sender<Event>,
) -> io::Result<()> {
    let wait = move || {
        while !over.load(SeqCst) {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(KNOCK);
                continue;
            };
            let heard = stream.set_nonblocking(false).and_then(|()| {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line)?;
                Ok(serde_json::from_str(&line)?)
            });
            match heard {
                Ok(ready) => {
                    *introduced.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
                    drop(events.send(Event::Ready(attempt, ready)));
                    return;
                }
                // It has ended before it has said anything, and its end is seen.
                Err(error) => tracing::debug!(job = attempt.job, "a process of it is not understood: {error}"),
            }
        }
    };
    thread::Builder::new().name("launch".to_owned()).spawn(wait).map(drop)
}

/// Asks a job how it does, from time to time.
fn look(socket: PathBuf, attempt: Attempt, over: Arc<AtomicBool>, events: Sender<Event>) -> io::Result<()> {
    let ask_again = move || {
        let mut looks = 0_u32;
        while !over.load(SeqCst) {
            let answers = ask(&socket, &json!({"do": "status"}), Some(PATIENCE)).unwrap_or_default();
            for status in answers.iter().filter_map(|answer| answer.get("status")) {
                if events.send(Event::Status(attempt.clone(), status.clone())).is_err() {
                    return;
                }
            }
            let is_starting = |answer: &Value| answer.pointer("/status/state").and_then(Value::as_str) == Some("starting");
            looks = looks.saturating_add(1);
            thread::sleep(if looks < FIRST_LOOKS && answers.iter().all(is_starting) { FIRST_LOOK } else { LOOK });
        }
    };
    thread::Builder::new().name("status".to_owned()).spawn(ask_again).map(drop)
}
