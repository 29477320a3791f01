//! One run of a process, measured from outside: wall time, CPU time of it and its children, peak memory. And the table of all runs.

use crate::{generate::Input, workload::Contender};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often peak memory is read; the kernel keeps the peak itself, so that only growth in the last moment can be missed.
const SAMPLE: Duration = Duration::from_millis(10);

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Seconds.
    pub(crate) wall: f64,
    /// User and system seconds of the process and its children.
    pub(crate) cpu: f64,
    /// Peak resident memory of the process, MB.
    pub(crate) peak_mb: u64,
}

/// Runs to the end; a failure shows the end of its output.
pub(crate) fn run(name: &str, command: &mut Command, log: &Path) -> Result<Run> {
    let out = File::create(log)?;
    command.stdout(out.try_clone()?).stderr(out);
    let before = children_cpu();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{name}: cannot start {}", command.get_program().display()))?;
    let done = Arc::new(AtomicBool::new(false));
    let sampler = sample_peak(&child, Arc::clone(&done));
    let status = child.wait()?;
    let wall = start.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let peak_mb = sampler.join().unwrap_or(0) / 1024;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        bail!("{name}: {status}: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" | "));
    }
    Ok(Run { wall, cpu: children_cpu() - before, peak_mb })
}

fn sample_peak(child: &Child, done: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let path = format!("/proc/{}/status", child.id());
    thread::spawn(move || {
        let mut peak = 0;
        while !done.load(Ordering::Relaxed) {
            if let Ok(text) = fs::read_to_string(&path) {
                let kilobytes =
                    text.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
                peak = peak.max(kilobytes.unwrap_or(0));
            }
            thread::sleep(SAMPLE);
        }
        peak
    })
}

/// CPU seconds of all children that have ended, from the clock ticks in `/proc/self/stat` (fields 16 and 17).
fn children_cpu() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The upper median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Medians of some runs.
struct Medians {
    wall: f64,
    cpu: f64,
}

impl Medians {
    fn of(runs: &[Run]) -> Self {
        Self { wall: median(runs.iter().map(|run| run.wall).collect()), cpu: median(runs.iter().map(|run| run.cpu).collect()) }
    }
}

/// Prints one row per contender: medians, the best wall, rates, and how many times as long the peer took in the same rounds.
pub(crate) fn print_table(contenders: &[Contender], results: &BTreeMap<String, Vec<Run>>, input: &Input) {
    println!("| run | wall s (min, median) | CPU s (median) | M records/s | M records/CPU-s | peak MB | peer's wall, CPU / ours |");
    println!("|---|---|---|---|---|---|---|");
    for contender in contenders {
        let Some(runs) = results.get(&contender.name()) else { continue };
        let records = input.records(contender.workload) as f64 / 1e6;
        let best = runs.iter().map(|run| run.wall).fold(f64::INFINITY, f64::min);
        let Medians { wall, cpu } = Medians::of(runs);
        let peak = runs.iter().map(|run| run.peak_mb).max().unwrap_or(0);
        let peer = contender.peer().and_then(|peer| results.get(&peer)).map(|runs| Medians::of(runs));
        let ratios = peer.map_or_else(|| "-".to_owned(), |peer| format!("{:.1}, {:.1}", peer.wall / wall, peer.cpu / cpu.max(0.01)));
        println!(
            "| {} | {best:.2}, {wall:.2} | {cpu:.2} | {:.2} | {:.2} | {peak} | {ratios} |",
            contender.name(),
            records / wall,
            records / cpu.max(0.01)
        );
    }
}
