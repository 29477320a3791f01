//! What a job costs that has next to nothing to do: start-up of a minimal job, CPU while nothing comes, and the time a row takes from a pipe to standard output.
//! All by `pipelines/live.yaml` (file source, filter, print) on the binary; the pipe's other end and the job's output are held here.

use crate::measure::median;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const STARTS: usize = 20;
const ROWS: usize = 100;
/// Between two rows of the trickle.
const PAUSE: Duration = Duration::from_millis(100);
/// A job is idle from this long after its last row on: `idle_timeout` and the like are over.
const SETTLE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);

/// The binary, the pipeline, and where to put files.
pub(crate) struct Live<'a> {
    pub(crate) standpipe: &'a Path,
    pub(crate) root: &'a Path,
    pub(crate) folder: PathBuf,
}

impl Live<'_> {
    fn command(&self, input: &Path, parallelism: u32) -> Command {
        let mut command = Command::new(self.standpipe);
        command
            .args(["run", "--quiet", "--parallelism", &parallelism.to_string()])
            .arg(format!("--set=sources.input.with.path={}", input.display()))
            .arg(self.root.join("benches/pipelines/live.yaml"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        command
    }

    /// Prints how long a job of one row takes as a whole process.
    pub(crate) fn start(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let input = self.folder.join("one.jsonl");
        fs::write(&input, row(1))?;
        let mut walls = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let begin = Instant::now();
            let output = self.command(&input, 1).output().context("cannot start standpipe")?;
            walls.push(begin.elapsed().as_secs_f64() * 1e3);
            ensure!(output.status.success() && output.stdout == row(1), "the minimal job gave {:?} and {}", output.stdout, output.status);
        }
        let best = walls.iter().copied().fold(f64::INFINITY, f64::min);
        println!("start-up of a minimal job, {STARTS} runs: best {best:.0} ms, median {:.0} ms", median(walls));
        Ok(())
    }

    /// Prints what an idle job costs and how long a row takes through one that gets a row every [`PAUSE`].
    pub(crate) fn trickle(&self, parallelism: u32) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let pipe = self.folder.join("trickle");
        if pipe.exists() {
            fs::remove_file(&pipe)?;
        }
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let mut child = self.command(&pipe, parallelism).stdout(Stdio::piped()).spawn().context("cannot start standpipe")?;
        let measured = measure_trickle(&mut child, &pipe, parallelism);
        if measured.is_err() {
            // It may have ended already.
            drop(child.kill());
        }
        let status = child.wait()?;
        measured?;
        ensure!(status.success(), "the job on a pipe ended with {status}");
        Ok(())
    }
}

/// A record that passes the filter; the sink prints it as it is.
fn row(n: usize) -> Vec<u8> {
    format!("{{\"n\":{n},\"value\":60.5}}\n").into_bytes()
}

fn measure_trickle(child: &mut Child, pipe: &Path, parallelism: u32) -> Result<()> {
    let mut output = BufReader::new(child.stdout.take().context("standard output is piped")?);
    // Opening waits for the reader.
    let mut input = OpenOptions::new().write(true).open(pipe)?;
    let first = pass(&mut input, &mut output, 0)?;
    let mut times = Vec::with_capacity(ROWS);
    for n in 1..=ROWS {
        thread::sleep(PAUSE);
        times.push(pass(&mut input, &mut output, n)?);
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[ROWS / 2], times[ROWS * 99 / 100]);
    println!(
        "a row every {} ms through source, filter, print, p{parallelism}: p50 {p50:.2} ms, p99 {p99:.2} ms (the first one {first:.1} ms)",
        PAUSE.as_millis()
    );
    thread::sleep(SETTLE);
    let (cpu, wakeups) = cost(child.id())?;
    thread::sleep(IDLE);
    let (cpu_after, wakeups_after) = cost(child.id())?;
    let seconds = IDLE.as_secs_f64();
    println!(
        "the same job idle for {seconds:.0} s: {:.1} ms of CPU and {:.1} wake-ups a second",
        (cpu_after - cpu) * 1e3 / seconds,
        (wakeups_after - wakeups) as f64 / seconds
    );
    Ok(())
}

/// Sends a row and waits until it has come out: milliseconds.
fn pass(input: &mut File, output: &mut BufReader<ChildStdout>, n: usize) -> Result<f64> {
    let begin = Instant::now();
    input.write_all(&row(n))?;
    let mut line = Vec::new();
    output.read_until(b'\n', &mut line)?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    if line != row(n) {
        bail!("row {n} came out as {:?}", String::from_utf8_lossy(&line));
    }
    Ok(took)
}

/// CPU seconds of a process so far, to the nanosecond, and how often one of its threads has gone to sleep, from `/proc/PID/task/*`.
fn cost(process: u32) -> Result<(f64, u64)> {
    let (mut cpu, mut sleeps) = (0.0, 0);
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        // A thread may have ended since.
        let (Ok(schedstat), Ok(status)) = (fs::read_to_string(task.join("schedstat")), fs::read_to_string(task.join("status"))) else {
            continue;
        };
        let nanos: u64 = schedstat.split_whitespace().next().context("schedstat is empty")?.parse()?;
        cpu += nanos as f64 / 1e9;
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps += switches.context("status has no switches")?.trim().parse::<u64>()?;
    }
    Ok((cpu, sleeps))
}
