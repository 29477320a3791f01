//! A running job: the binary on a pipeline, its standard output read as it comes, signals, and its end. Dropped, it is killed.

use crate::process;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(5);

/// Takes the lines of a job's standard output.
pub(crate) trait Reader: Send + 'static {
    /// A line without its newline, and when it came. An error ends the benchmark.
    fn line(&mut self, line: &[u8], at: Instant) -> Result<()>;
}

/// See the module's documentation.
pub(crate) struct Job<R> {
    child: Child,
    log: PathBuf,
    /// What reads, and the first error.
    reader: Arc<Mutex<(R, Result<()>)>>,
    thread: Option<JoinHandle<()>>,
    /// When it was started.
    pub(crate) begun: Instant,
}

impl<R: Reader> Job<R> {
    /// Starts a command of which standard output goes to the reader and standard error to a log.
    pub(crate) fn start(command: &mut Command, log: &Path, reader: R) -> Result<Self> {
        let begun = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log)?);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let output = child.stdout.take().context("standard output is piped")?;
        let reader = Arc::new(Mutex::new((reader, Ok(()))));
        let shared = Arc::clone(&reader);
        let thread = thread::spawn(move || {
            let result = read(output, &shared);
            let mut reader = lock(&shared);
            // The error of the reader itself stands before the one of the pipe that it causes.
            if reader.1.is_ok() {
                reader.1 = result;
            }
        });
        Ok(Self { child, log: log.to_path_buf(), reader, thread: Some(thread), begun })
    }

    /// The process that was started; of a job that is supervised, its supervisor.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the reader; fails with its error, if it has met one.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&mut R) -> T) -> Result<T> {
        let mut reader = lock(&self.reader);
        if reader.1.is_err() {
            return Err(std::mem::replace(&mut reader.1, Ok(())).err().context("it is an error")?.context(self.tail()));
        }
        Ok(question(&mut reader.0))
    }

    /// Waits until something holds of the reader.
    pub(crate) fn wait_until(&mut self, what: &str, patience: Duration, mut holds: impl FnMut(&mut R) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            if self.ask(&mut holds)? {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("the job has ended ({status}), waiting was for {what}: {}", self.tail());
            }
            ensure!(begin.elapsed() < patience, "waited {patience:?} in vain for {what}: {}", self.tail());
            thread::sleep(PERIOD);
        }
    }

    /// Sends a signal to the process that was started.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills the process in which a supervised job runs.
    pub(crate) fn kill_worker(&self) -> Result<()> {
        let worker = process::children(self.id()).first().copied().context("the job has no process of its own")?;
        let worker = i32::try_from(worker).ok().and_then(Pid::from_raw).context("a process has a number")?;
        Ok(kill_process(worker, Signal::KILL)?)
    }

    /// Stops the job and waits until it has ended well and all of its output has been read.
    pub(crate) fn stop(mut self) -> Result<R> {
        self.signal(Signal::INT)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the job ended with {status}: {}", self.tail());
        self.finish()
    }

    /// Kills the job, which is not supervised, and gives all that has come of it.
    pub(crate) fn kill(mut self) -> Result<R> {
        self.child.kill()?;
        self.child.wait()?;
        self.finish()
    }

    fn finish(mut self) -> Result<R> {
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the thread that reads has panicked"))?;
        }
        self.ask(|_| ())?;
        let reader = Arc::clone(&self.reader);
        drop(self);
        let reader = Arc::into_inner(reader).context("its thread has ended")?;
        Ok(reader.into_inner().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The end of its log.
    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl<R> Drop for Job<R> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may end in this very moment. A supervised job dies with its supervisor.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives whole lines to the reader, all that have come at once under one lock; at the end also what is left of one.
fn read<R: Reader>(mut output: impl Read, reader: &Mutex<(R, Result<()>)>) -> Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut held = 0;
    loop {
        let count = output.read(&mut buffer[held..])?;
        let at = Instant::now();
        held += count;
        let whole = if count == 0 { held } else { buffer[..held].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1) };
        let mut reader = lock(reader);
        for line in buffer[..whole].split_inclusive(|byte| *byte == b'\n') {
            reader.0.line(line.strip_suffix(b"\n").unwrap_or(line), at)?;
        }
        if count == 0 {
            return Ok(());
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
        ensure!(held < buffer.len(), "a line of more than {held} bytes");
    }
}
