//! The workloads at parallelism 2 in one process and over two (`run --processes 2`), in the same rounds.

use super::Costs;
use crate::workload::{Contender, Workload};
use anyhow::Result;

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    println!("Parallelism 2 in one process and over two (`x2`, whose CPU is that of all; memory is the sum):\n");
    let workloads = Workload::all();
    crate::run_contenders(
        costs.standpipe,
        costs.root,
        costs.data,
        costs.scale,
        costs.rounds,
        &workloads,
        &Contender::processes(&workloads),
    )?;
    println!();
    Ok(())
}
