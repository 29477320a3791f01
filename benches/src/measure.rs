//! One run of a process, measured from outside: wall time, CPU time of it and its children, peak memory. And the table of all runs.

use crate::{generate::Input, process, workload::Contender};
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
    /// Peak resident memory of the process and its children, MB.
    pub(crate) peak_mb: u64,
}

/// Runs to the end; a failure shows the end of its output.
pub(crate) fn run(name: &str, command: &mut Command, log: &Path) -> Result<Run> {
    let out = File::create(log)?;
    command.stdout(out.try_clone()?).stderr(out);
    let before = process::children_cpu();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{name}: cannot start {}", command.get_program().display()))?;
    let done = Arc::new(AtomicBool::new(false));
    let sampler = sample_peak(&child, Arc::clone(&done));
    let status = child.wait()?;
    let wall = start.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let peak_mb = sampler.join().unwrap_or(0) >> 20;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        bail!("{name}: {status}: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" | "));
    }
    Ok(Run { wall, cpu: process::children_cpu() - before, peak_mb })
}

fn sample_peak(child: &Child, done: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let id = child.id();
    thread::spawn(move || {
        let mut peak = 0;
        while !done.load(Ordering::Relaxed) {
            peak = peak.max(process::tree(id).into_iter().filter_map(|process| process::memory(process, "VmHWM")).sum());
            thread::sleep(SAMPLE);
        }
        peak
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_upper_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
