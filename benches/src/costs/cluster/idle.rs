//! What a cluster costs that has nothing to do, and one with a hundred jobs of a row a second.

use super::{Costs, Session, state, trickle};
use crate::process;
use anyhow::{Context, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

/// At full scale.
const JOBS: f64 = 100.0;
/// What is looked at is so long, at full scale.
const WINDOW: Duration = Duration::from_secs(20);
/// What has begun has settled by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Some processes over the window.
struct Usage {
    /// Per cent of a core.
    cpu: f64,
    /// MB that they have in memory, each for itself.
    resident: f64,
    /// MB, what they share with others divided among those.
    own: f64,
}

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let jobs = ((JOBS * costs.scale) as usize).max(2);
    let mut session = Session::start(costs, "15s")?;
    session.join(u32::try_from(jobs)?)?;
    let window = WINDOW.mul_f64(costs.scale.clamp(0.05, 1.0));
    let (manager, task_manager) = (session.manager.id(), session.task_managers.first().context("it has joined")?.id());
    println!(
        "Without anything to do, over {:.0} s; memory is resident (each for itself) and proportional (what is shared, divided):\n",
        window.as_secs_f64()
    );
    println!("| processes | jobs | CPU, % of a core | resident MB | proportional MB |");
    println!("|---|---|---|---|---|");
    let parts = |workers: Vec<u32>| vec![("manager", vec![manager]), ("task manager", vec![task_manager]), ("workers", workers)];
    thread::sleep(SETTLE.mul_f64(costs.scale.clamp(0.05, 1.0)));
    for (name, usage) in measure(&parts(Vec::new()), window)? {
        if name != "workers" {
            print(name, 0, &usage);
        }
    }
    let begun = Instant::now();
    let mut ids = Vec::new();
    for i in 0..jobs {
        let name = format!("idle-{i}");
        ids.push(session.submit(&name, &trickle(&name, 1, "", "connector: print"), 1)?);
    }
    for id in &ids {
        session.wait_for(id, "RUNNING", |job| state(job) == "RUNNING")?;
    }
    let took = begun.elapsed().as_secs_f64();
    thread::sleep(SETTLE.mul_f64(costs.scale.clamp(0.05, 1.0)));
    for (name, usage) in measure(&parts(process::children(task_manager)), window)? {
        print(name, jobs, &usage);
    }
    println!("\n{jobs} jobs submitted one after the other by REST: all RUNNING after {took:.1} s.\n");
    Ok(())
}

fn print(name: &str, jobs: usize, usage: &Usage) {
    println!("| {name} | {jobs} | {:.2} | {:.0} | {:.0} |", usage.cpu, usage.resident, usage.own);
}

/// All at the same time.
fn measure<'n>(parts: &[(&'n str, Vec<u32>)], window: Duration) -> Result<Vec<(&'n str, Usage)>> {
    let cpu = |ids: &[u32]| ids.iter().map(|id| process::cpu(*id)).sum::<Result<f64>>();
    let before = parts.iter().map(|(_, ids)| cpu(ids)).collect::<Result<Vec<f64>>>()?;
    let begun = Instant::now();
    thread::sleep(window);
    let seconds = begun.elapsed().as_secs_f64();
    let mut all = Vec::new();
    for ((name, ids), before) in parts.iter().zip(before) {
        let cpu = (cpu(ids)? - before) / seconds * 100.0;
        let sum = |of: fn(u32) -> Option<u64>| ids.iter().filter_map(|id| of(*id)).sum::<u64>() as f64 / f64::from(1 << 20);
        all.push((*name, Usage { cpu, resident: sum(|id| process::memory(id, "VmRSS")), own: sum(process::proportional) }));
    }
    Ok(all)
}
