//! Workloads W1-W4 on the release binary: generates the input, runs the pipelines in `benches/pipelines/`, checks every output against plain Rust code by an
//! order-independent digest, and reports rows a second, rows per CPU second and peak memory. With `--peers DIR` Flink runs on the same input in the same rounds.
//! Then what a job with next to nothing to do costs (`live`). With `--costs`, instead: what state, checkpoints, recovery, processes and real services cost ([`costs`]).
//!
//! Called by `cargo xtask bench`. It measures whole processes, start-up included, and asserts nothing but the outputs.
#![forbid(unsafe_code)]

mod costs;
mod digest;
mod generate;
mod live;
mod measure;
mod process;
mod reference;
mod workload;

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use workload::{Contender, Workload};

#[derive(Parser)]
struct Options {
    /// The standpipe binary
    #[arg(long)]
    standpipe: PathBuf,
    /// The repository's root: pipelines are relative to it
    #[arg(long)]
    root: PathBuf,
    /// Where inputs and outputs are; 3 GB at full scale
    #[arg(long)]
    data: PathBuf,
    /// Rounds; each runs every contender once, so that noise is spread
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only what has this in its name: w1, w2, w3, w4, live; with --costs plugin-calls, checkpoints-memory, checkpoints-disk, checkpoints-aggregate, memory-per-key, recovery-memory (-disk,
    /// -aggregate), snapshots, processes, cluster-submit, cluster-idle, cluster-workloads, cluster-recovery, kafka, elasticsearch
    #[arg(long)]
    only: Option<String>,
    /// Input size: 1.0 is 200 MB of words and 5 M metrics
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// A folder with the peers' harness set up (scripts/setup.sh): Flink joins
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Measure what checkpoints, recovery, state, processes and services cost, instead of the workloads
    #[arg(long, conflicts_with = "peers")]
    costs: bool,
    /// With --costs: the bootstrap address of a Kafka for it
    #[arg(long, requires = "costs")]
    kafka: Option<String>,
    /// With --costs: the URL of an Elasticsearch or OpenSearch for it
    #[arg(long, requires = "costs")]
    elasticsearch: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    fs::create_dir_all(&options.data).with_context(|| format!("{}", options.data.display()))?;
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    if options.costs {
        let costs = costs::Costs {
            standpipe: &options.standpipe,
            root: &options.root,
            data: &options.data,
            rounds: options.rounds,
            scale: options.scale,
            kafka: options.kafka.as_deref(),
            elasticsearch: options.elasticsearch.as_deref(),
        };
        return costs.run(&wanted);
    }
    run_workloads(&options, &wanted)?;
    if wanted("live") {
        let live = live::Live { standpipe: &options.standpipe, root: &options.root, folder: options.data.join("live") };
        live.start()?;
        live.trickle(1)?;
        live.trickle(2)?;
    }
    Ok(())
}

fn run_workloads(options: &Options, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let workloads: Vec<Workload> = Workload::all().into_iter().filter(|workload| wanted(workload.name())).collect();
    if workloads.is_empty() {
        return Ok(());
    }
    let contenders = Contender::all(&workloads, options.peers.as_deref());
    run_contenders(&options.standpipe, &options.root, &options.data, options.scale, options.rounds, &workloads, &contenders)
}

/// Runs all contenders in each round, compares what they give with the truth, and prints the table.
fn run_contenders(
    standpipe: &Path,
    root: &Path,
    data: &Path,
    scale: f64,
    rounds: usize,
    workloads: &[Workload],
    contenders: &[Contender],
) -> Result<()> {
    let input = generate::prepare(data, scale)?;
    let mut truths = BTreeMap::new();
    for workload in workloads {
        eprintln!("truth of {}", workload.name());
        truths.insert(workload.name(), reference::digest(*workload, &input)?);
    }
    let mut results: BTreeMap<String, Vec<measure::Run>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for round in 0..rounds {
        for contender in contenders {
            let output = data.join("out");
            let run = contender.run(standpipe, root, &input, &output)?;
            let found = digest::of(contender.workload, &output)?;
            let truth = truths.get(contender.workload.name()).context("a workload without truth")?;
            if found != *truth {
                wrong.push(format!("{}, round {round}: {found:?}, expected {truth:?}", contender.name()));
            }
            eprintln!("round {round}: {:<18} {:.2} s wall, {:.2} s CPU, {} MB", contender.name(), run.wall, run.cpu, run.peak_mb);
            results.entry(contender.name()).or_default().push(run);
        }
    }
    measure::print_table(contenders, &results, &input);
    if !wrong.is_empty() {
        bail!("wrong output: {}", wrong.join("; "));
    }
    Ok(())
}
