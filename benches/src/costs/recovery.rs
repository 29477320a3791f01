//! From SIGKILL of a supervised job's process to its first output, and to the first that had not come before, with little state and with much.

use super::{Costs, Keeper, PATIENCE, median};
use anyhow::{Context, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

const RATE: u64 = 100_000;
/// Keys of the small state.
const FEW: usize = 1000;
/// Kills in each run.
const KILLS: u32 = 3;
/// The delay of `restart:`, which is in the figures.
const DELAY: &str = "10ms";

/// Runs those keepers whose names are wanted, as `recovery-memory`.
pub(super) fn run(costs: &Costs<'_>, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let keepers = Keeper::ALL.into_iter().filter(|keeper| wanted(&format!("recovery-{}", keeper.name())));
    let variants: Vec<(Keeper, usize)> = keepers.flat_map(|keeper| [(keeper, FEW), (keeper, costs.keys().max(10 * FEW))]).collect();
    let mut results = vec![(Vec::new(), Vec::new()); variants.len()];
    for round in 0..costs.rounds {
        for ((keeper, keys), (first, new)) in variants.iter().zip(&mut results) {
            for (to_first, to_new) in kills(costs, *keeper, *keys)? {
                eprintln!("round {round}: recovery-{}, {keys} keys: {to_first:.0} ms, first new row {to_new:.0} ms", keeper.name());
                first.push(to_first);
                new.push(to_new);
            }
        }
    }
    if variants.is_empty() {
        return Ok(());
    }
    println!(
        "SIGKILL to output, {RATE} updates a second, checkpoints every second, restart delay {DELAY}, {} kills:\n",
        KILLS as usize * costs.rounds
    );
    println!("| state | keys | first row, ms: median | worst | first new row, ms: median | worst |");
    println!("|---|---|---|---|---|---|");
    for ((keeper, keys), (first, new)) in variants.iter().zip(&results) {
        let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
        println!("| {} | {keys} | {:.0} | {:.0} | {:.0} | {:.0} |", keeper.title(), median(first), worst(first), median(new), worst(new));
    }
    println!();
    Ok(())
}

/// Milliseconds to the first row and to the first new one, for each kill.
fn kills(costs: &Costs<'_>, keeper: Keeper, keys: usize) -> Result<Vec<(f64, f64)>> {
    let (checkpoints, setting) = costs.checkpoints("1s")?;
    let restart = format!("restart={{strategy: fixed-delay, attempts: {KILLS}, delay: {DELAY}}}");
    let mut job = costs.start_stateful(&mut costs.stateful(keeper, keys, RATE, &[setting, restart]), keys)?;
    let mut times = Vec::new();
    for kill in 0..KILLS {
        // The first that is begun from now on has all keys, and is durable when the second is there.
        let now = checkpoints.newest()?;
        job.wait_until("two checkpoints", PATIENCE, |_| checkpoints.newest().is_ok_and(|newest| newest >= now + 2))?;
        // Spread over the time between two checkpoints: what has come since the last comes again, at the rate of the source.
        thread::sleep(Duration::from_secs(1) * (2 * kill + 1) / (2 * KILLS));
        job.ask(|sums| sums.kill(Instant::now()))?;
        job.kill_worker()?;
        job.wait_until("output after the kill", PATIENCE, |sums| sums.recovered().is_some())?;
        let (first, new) = job.ask(|sums| sums.recovered())?.context("waited for above")?;
        times.push((first.as_secs_f64() * 1e3, new.as_secs_f64() * 1e3));
    }
    job.stop()?;
    Ok(times)
}
