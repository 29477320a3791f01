//! Kafka to windows to Kafka: W2 with a topic before and one behind it, on a real broker. The result is read back and compared with the truth of W2.

use super::{Costs, median};
use crate::{digest, generate, measure, reference, workload::Workload};
use anyhow::{Result, ensure};
use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// How records are delivered.
const DELIVERIES: [(&str, &str); 3] = [
    ("at least once, no checkpoints", ""),
    ("at least once, checkpoints every second", "at-least-once"),
    ("exactly once, checkpoints every second", "exactly-once"),
];

pub(super) fn run(costs: &Costs<'_>, bootstrap: &str) -> Result<()> {
    let input = generate::prepare(costs.data, costs.scale)?;
    let truth = reference::digest(Workload::Windows, &input)?;
    let topic = unique("metrics");
    fill(costs, bootstrap, &topic, &input.folder(Workload::Windows, 1))?;
    let records = input.records(Workload::Windows) as f64 / 1e6;
    let mut results = vec![(Vec::new(), Vec::new()); DELIVERIES.len()];
    for round in 0..costs.rounds {
        for ((name, delivery), (walls, cpus)) in DELIVERIES.into_iter().zip(&mut results) {
            let output = unique("windows");
            let mut settings = vec![
                format!("sources.input.with.bootstrap={bootstrap:?}"),
                format!("sources.input.with.topic={topic}"),
                format!("sinks.output.with.bootstrap={bootstrap:?}"),
                format!("sinks.output.with.topic={output}"),
            ];
            if !delivery.is_empty() {
                settings.push(costs.checkpoints("1s")?.1);
                settings.push(format!("sinks.output.with.delivery={delivery}"));
            }
            let run = measure::run("kafka", &mut costs.run_command("kafka", &settings), &costs.folder().join("kafka.log"))?;
            let found = read(costs, bootstrap, &output)?;
            ensure!(found == truth, "kafka, {name}, round {round}: {found:?}, expected {truth:?}");
            eprintln!("round {round}: kafka, {name}: {:.2} s wall, {:.2} s CPU, {} MB", run.wall, run.cpu, run.peak_mb);
            walls.push(records / run.wall);
            cpus.push(records / run.cpu.max(0.01));
        }
    }
    println!("Kafka -> W2's windows -> Kafka, parallelism 1, {records:.2} M records of two partitions, broker on the same machine:\n");
    println!("| delivery | M records/s | M records per CPU second (ours) |");
    println!("|---|---|---|");
    for ((name, _), (walls, cpus)) in DELIVERIES.iter().zip(&results) {
        println!("| {name} | {:.2} | {:.2} |", median(walls), median(cpus));
    }
    println!();
    Ok(())
}

/// Puts all lines of a folder's files into a new topic of two partitions.
pub(super) fn fill(costs: &Costs<'_>, bootstrap: &str, topic: &str, folder: &Path) -> Result<()> {
    let settings = [
        format!("sources.input.with.path={}/*", folder.display()),
        format!("sinks.output.with.bootstrap={bootstrap:?}"),
        format!("sinks.output.with.topic={topic}"),
    ];
    measure::run("kafka-fill", &mut costs.run_command("kafka-fill", &settings), &costs.folder().join("kafka.log")).map(drop)
}

fn read(costs: &Costs<'_>, bootstrap: &str, topic: &str) -> Result<digest::Digest> {
    let folder = costs.folder().join("windows");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let settings = [
        format!("sources.input.with.bootstrap={bootstrap:?}"),
        format!("sources.input.with.topic={topic}"),
        format!("sinks.output.with.path={}/out.jsonl", folder.display()),
    ];
    measure::run("kafka-read", &mut costs.run_command("kafka-read", &settings), &costs.folder().join("kafka.log"))?;
    digest::of(Workload::Windows, &folder)
}

/// A name that nothing on the server has: it keeps what earlier rounds have left.
pub(super) fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    format!("bench-{name}-{now}")
}
