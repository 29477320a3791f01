//! Memory per key: resident memory of the job with all keys less that of the job with a thousand, for each keeper.

use super::{Costs, Keeper, median};
use crate::process;
use anyhow::{Context, Result};
use std::{thread, time::Duration};

/// Of the job it is compared with.
const FEW: usize = 1000;
/// Few updates, so that the job is there to be looked at.
const RATE: u64 = 100;
/// What filling has left behind is freed by then.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let many = costs.keys().max(10 * FEW);
    let mut results = vec![(Vec::new(), Vec::new(), Vec::new()); Keeper::ALL.len()];
    for round in 0..costs.rounds {
        for (keeper, (few, all, per_key)) in Keeper::ALL.into_iter().zip(&mut results) {
            let (without, with) = (resident(costs, keeper, FEW)?, resident(costs, keeper, many)?);
            let bytes = (with - without) / (many - FEW) as f64;
            eprintln!("round {round}: memory-per-key, {}: {bytes:.0} bytes", keeper.name());
            few.push(without / 1e6);
            all.push(with / 1e6);
            per_key.push(bytes);
        }
    }
    println!(
        "A key of int64 with a sum of int64, {many} keys against {FEW} (an aggregate keeps three numbers and whether they are there):\n"
    );
    println!("| state | resident, MB: {FEW} keys | {many} keys | bytes per key |");
    println!("|---|---|---|---|");
    for (keeper, (few, all, per_key)) in Keeper::ALL.into_iter().zip(&results) {
        println!("| {} | {:.0} | {:.0} | {:.0} |", keeper.title(), median(few), median(all), median(per_key));
    }
    println!();
    Ok(())
}

fn resident(costs: &Costs<'_>, keeper: Keeper, keys: usize) -> Result<f64> {
    let job = costs.start_stateful(&mut costs.stateful(keeper, keys, RATE, &[]), keys)?;
    thread::sleep(SETTLE);
    let bytes = process::memory(job.id(), "VmRSS").context("the job has ended")?;
    job.stop()?;
    Ok(bytes as f64)
}
