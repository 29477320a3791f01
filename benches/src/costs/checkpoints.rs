//! Checkpoints every second against none, at 100,000 updates a second: CPU of the same job with and without, in the same rounds.

use super::{Checkpoints, Costs, Keeper, median};
use crate::process;
use anyhow::{Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Updates a second.
const RATE: u64 = 100_000;
/// From the last new key to the measurement: the first checkpoint, which is a whole one, and what filling has left behind are over.
const SETTLE: Duration = Duration::from_secs(4);
/// What is measured, at full scale; at a smaller one less, but some checkpoints.
const WINDOW: f64 = 20.0;

/// One run.
struct Measured {
    /// CPU seconds per second.
    cpu: f64,
    /// Updates per second: at another rate than it was to be, the figures are of another load.
    rate: f64,
    /// Checkpoints per second.
    frequency: f64,
    /// Bytes that a checkpoint wrote, at the median.
    written: f64,
    /// From the trigger of one to its last file, at the median.
    took_millis: f64,
}

/// Runs those keepers whose names are wanted, as `checkpoints-memory`.
pub(super) fn run(costs: &Costs<'_>, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let wanted = |keeper: &Keeper| wanted(&format!("checkpoints-{}", keeper.name()));
    let keepers: Vec<Keeper> = Keeper::ALL.into_iter().filter(wanted).collect();
    let mut results: Vec<(Vec<Measured>, Vec<Measured>)> = keepers.iter().map(|_| Default::default()).collect();
    for round in 0..costs.rounds {
        for (keeper, (without, with)) in keepers.iter().zip(&mut results) {
            without.push(measure(costs, *keeper, false)?);
            with.push(measure(costs, *keeper, true)?);
            let cpu = |runs: &[Measured]| runs.last().map_or(0.0, |run| run.cpu * 100.0);
            eprintln!("round {round}: checkpoints-{}: {:.1} % of a core without, {:.1} % with", keeper.name(), cpu(without), cpu(with));
        }
    }
    if keepers.is_empty() {
        return Ok(());
    }
    println!("{} keys, {RATE} updates a second, checkpoints every second against none:\n", costs.keys());
    println!(
        "| state | CPU without, % of a core | with | added, % of a core | with / without | k updates/s without, with | checkpoints/s | written per checkpoint, MB | trigger to durable, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (keeper, (without, with)) in keepers.iter().zip(&results) {
        let of = |runs: &[Measured], value: fn(&Measured) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
        let pairs = |value: fn(f64, f64) -> f64| median(&without.iter().zip(with).map(|(a, b)| value(a.cpu, b.cpu)).collect::<Vec<_>>());
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1}, {:.1} | {:.2} | {:.1} | {:.0} |",
            keeper.title(),
            of(without, |run| run.cpu * 100.0),
            of(with, |run| run.cpu * 100.0),
            pairs(|without, with| (with - without) * 100.0),
            pairs(|without, with| with / without),
            of(without, |run| run.rate / 1e3),
            of(with, |run| run.rate / 1e3),
            of(with, |run| run.frequency),
            of(with, |run| run.written / 1e6),
            of(with, |run| run.took_millis),
        );
    }
    println!();
    Ok(())
}

fn measure(costs: &Costs<'_>, keeper: Keeper, with: bool) -> Result<Measured> {
    let keys = costs.keys();
    let (checkpoints, setting) = costs.checkpoints("1s")?;
    let settings = if with { vec![setting] } else { Vec::new() };
    let job = costs.start_stateful(&mut costs.stateful(keeper, keys, RATE, &settings), keys)?;
    thread::sleep(SETTLE);
    let now = || -> Result<_> { Ok((Instant::now(), process::cpu(job.id())?, job.ask(|sums| sums.updates())?, checkpoints.newest()?)) };
    let (begin, cpu, updates, first) = now()?;
    let seen = watch(&checkpoints, Duration::from_secs_f64((WINDOW * costs.scale).max(3.0)), first)?;
    let (end, cpu_after, updates_after, last) = now()?;
    job.stop()?;
    let seconds = (end - begin).as_secs_f64();
    let rate = (updates_after - updates) as f64 / seconds;
    let frequency = (last - first) as f64 / seconds;
    ensure!(!with || frequency > 0.0, "no checkpoint in {seconds:.0} s");
    let (written, took_millis) = seen;
    Ok(Measured { cpu: (cpu_after - cpu) / seconds, rate, frequency, written: median(&written), took_millis: median(&took_millis) })
}

/// Waits, and looks at the checkpoints that come, before they are removed.
fn watch(checkpoints: &Checkpoints, window: Duration, mut last: u64) -> Result<(Vec<f64>, Vec<f64>)> {
    let begin = Instant::now();
    let (mut written, mut took) = (Vec::new(), Vec::new());
    while let Some(left) = window.checked_sub(begin.elapsed()) {
        thread::sleep(left.min(Duration::from_millis(500)));
        let mut new = checkpoints.manifests()?;
        new.retain(|manifest| manifest.id > last);
        last = new.last().map_or(last, |manifest| manifest.id);
        written.extend(new.iter().map(|manifest| manifest.written as f64));
        took.extend(new.iter().map(|manifest| manifest.took_millis));
    }
    Ok((written, took))
}
