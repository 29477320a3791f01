//! One run of the `standpipe` binary: started with arguments and input, watched while it runs, ended by signals, and killed, by its own id, if the test fails.

use crate::{binary, repository, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::{OsStr, OsString},
    io::{Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What a run takes at most, unless the test says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A run to be: `standpipe(["run", "examples/word-count.yaml"]).finish()`. In the repository's root, with nothing on stdin.
pub fn standpipe<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Run {
    let mut command = Command::new(binary());
    command.current_dir(repository());
    let ours = ["STANDPIPE_PLUGIN_PATH", "STANDPIPE_LOG", "STANDPIPE_LOG_FORMAT"];
    for name in ours.into_iter().chain(["TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"]) {
        command.env_remove(name);
    }
    Run { command, input: Input::None, is_read: true, stderr_is_gone: false, timeout: TIMEOUT }.args(arguments)
}

enum Input {
    None,
    Bytes(Vec<u8>),
    Open,
}

/// What is to be run, and how.
pub struct Run {
    pub(crate) command: Command,
    input: Input,
    is_read: bool,
    stderr_is_gone: bool,
    timeout: Duration,
}

impl Run {
    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// `--set KEY=VALUE`.
    #[must_use]
    pub fn set(self, key: &str, value: impl AsRef<OsStr>) -> Self {
        let mut argument = OsString::from(format!("{key}="));
        argument.push(value);
        self.args([OsString::from("--set"), argument])
    }

    /// `--plugin-path PATH`.
    #[must_use]
    pub fn plugin_path(self, path: impl AsRef<Path>) -> Self {
        self.args([OsStr::new("--plugin-path"), path.as_ref().as_os_str()])
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Another current directory.
    #[must_use]
    pub fn in_directory(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// All of stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Stdin stays open: the test writes to it with [`Running::write`].
    #[must_use]
    pub fn stdin_open(mut self) -> Self {
        self.input = Input::Open;
        self
    }

    /// Nobody reads stdout, but it stays open: a pipe that gets full.
    #[must_use]
    pub fn stdout_unread(mut self) -> Self {
        self.is_read = false;
        self
    }

    /// The other end of stderr is closed, as when the terminal is gone.
    #[must_use]
    pub fn stderr_gone(mut self) -> Self {
        self.stderr_is_gone = true;
        self
    }

    /// What the run takes at most, from start to end; then it is killed and the test fails.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        self.command.stdin(if matches!(self.input, Input::None) { Stdio::null() } else { Stdio::piped() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = self.command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take();
        if let Input::Bytes(bytes) = self.input {
            let mut pipe = stdin.take().expect("stdin is a pipe");
            // The run may end before it has read everything: then nobody wants the rest.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        let pipe = child.stdout.take().expect("stdout is a pipe");
        let (stdout, unread) = if self.is_read { (Capture::start(pipe), None) } else { (Capture::none(), Some(pipe)) };
        let pipe = child.stderr.take().expect("stderr is a pipe");
        let stderr = if self.stderr_is_gone { Capture::none() } else { Capture::start(pipe) };
        Running { child, stdin, stdout, stderr, unread, started, timeout: self.timeout, status: None }
    }

    /// Starts it and waits for its end.
    pub fn finish(self) -> Finished {
        self.start().wait()
    }
}

/// A run that has been started. Dropped, it is killed.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    unread: Option<ChildStdout>,
    started: Instant,
    timeout: Duration,
    status: Option<ExitStatus>,
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `Signal::INT`, `Signal::TERM`.
    pub fn signal(&mut self, signal: Signal) {
        assert!(!self.has_ended(), "no signal can be sent, the run has ended:\n{}", self.output());
        kill_process(Pid::from_child(&self.child), signal).expect("our child takes a signal");
    }

    /// Writes to stdin (see [`Run::stdin_open`]).
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush()).expect("the run reads its stdin");
    }

    /// Ends stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes stdout's other end (see [`Run::stdout_unread`]), as `| head` does.
    pub fn close_stdout(&mut self) {
        self.unread = None;
    }

    /// What has come to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What has come to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our child can be waited for");
        }
        self.status.is_some()
    }

    /// Waits until the condition holds; fails with all output when the run has ended before or the time is over.
    pub fn wait_until(&mut self, what: &str, timeout: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        wait_until(what, timeout + Duration::from_secs(1), || {
            // Asked before the condition, so that what the run did just before its end is seen.
            let has_ended = self.has_ended();
            let holds = condition(self);
            assert!(holds || !has_ended, "the run has ended, waiting was for: {what}\n{}", self.output());
            assert!(holds || start.elapsed() < timeout, "waited {timeout:?} in vain: {what}\n{}", self.output());
            holds
        });
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Finished {
        while !self.has_ended() {
            if self.started.elapsed() > self.timeout {
                panic!("the run has not ended within {:?} and is killed:\n{}", self.timeout, self.output());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let elapsed = self.started.elapsed();
        self.stdin = None;
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        Finished { code: self.status.and_then(|status| status.code()), stdout, stderr, elapsed }
    }

    fn output(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", tail(&self.stdout()), tail(&self.stderr()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It may end in this very moment: then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
}

impl Finished {
    /// Fails, with all output, if the exit code is another.
    #[must_use]
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        let (found, stdout, stderr) = (self.code, tail(&self.stdout), tail(&self.stderr));
        assert!(found == Some(code), "exit code {found:?}, expected {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    /// Fails, with all output, unless it ended with 0.
    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// Fails unless the exit code is this one, stdout is empty and stderr is exactly one line, `error: ...`; gives what is behind `error: `.
    #[must_use]
    #[track_caller]
    pub fn one_error(self, code: i32) -> String {
        let finished = self.code(code);
        assert!(finished.stdout.is_empty(), "something is on stdout:\n{}", tail(&finished.stdout));
        let lines: Vec<&str> = finished.stderr.lines().collect();
        let [line] = lines[..] else { panic!("not one line on stderr:\n{}", tail(&finished.stderr)) };
        line.strip_prefix("error: ").unwrap_or_else(|| panic!("no error: {line}")).to_owned()
    }
}

/// What a pipe has given so far.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn none() -> Self {
        Self { bytes: Arc::default(), thread: None }
    }

    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let target = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                target.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, thread: Some(thread) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn finish(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("reading a pipe does not panic");
        }
        self.text()
    }
}

/// The end of a text that may be very long.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(4000);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
