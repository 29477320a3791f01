//! W1 to W4 on a session cluster of one task manager against `run`, in the same rounds, at the same parallelism.

use super::{Costs, Session, state};
use crate::{
    costs::median,
    digest, generate,
    measure::Run,
    reference,
    workload::{Contender, Workload},
};
use anyhow::{Result, ensure};
use std::{fs, path::Path, time::Instant};

/// As many as the machine of the figures has cores.
const SLOTS: u32 = 2;

/// What a run on the cluster took.
struct OnCluster {
    /// Seconds from its submission to its end, as a client sees it.
    wall: f64,
    /// Of these from RUNNING on.
    running: f64,
    /// CPU seconds of the worker.
    worker: f64,
    /// Of the task manager, the manager and what plans for it, as far as they had to do meanwhile.
    others: f64,
}

/// What the rounds of a workload took at a parallelism, here and there.
struct Rounds {
    workload: Workload,
    parallelism: u32,
    pairs: Vec<(Run, OnCluster)>,
}

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let input = generate::prepare(costs.data, costs.scale)?;
    let mut session = Session::start(costs, "15s")?;
    session.join(SLOTS)?;
    let output = costs.data.join("out");
    let mut results = Vec::new();
    for workload in Workload::all() {
        let truth = reference::digest(workload, &input)?;
        for parallelism in [1, SLOTS] {
            let contender = Contender::standpipe(workload, parallelism);
            let mut pairs = Vec::new();
            for round in 0..costs.rounds {
                let here = contender.run(costs.standpipe, costs.root, &input, &output)?;
                ensure!(digest::of(workload, &output)? == truth, "wrong output: {}", contender.name());
                let there = on_cluster(&session, workload, parallelism, &input.folder(workload, parallelism), &output)?;
                ensure!(digest::of(workload, &output)? == truth, "wrong output: {} on the cluster", contender.name());
                eprintln!(
                    "round {round}: {} p{parallelism}: run {:.2} s, CPU {:.2}; cluster {:.2} s, from RUNNING {:.2} s, CPU {:.2}",
                    workload.name(),
                    here.wall,
                    here.cpu,
                    there.wall,
                    there.running,
                    there.worker
                );
                pairs.push((here, there));
            }
            results.push(Rounds { workload, parallelism, pairs });
        }
    }
    print(&results);
    Ok(())
}

fn print(results: &[Rounds]) {
    println!("On a cluster against `run`; ratios are medians of the rounds' ratios:\n");
    println!(
        "| workload | `run`: wall s | CPU s | cluster: wall s | from RUNNING s | worker's CPU s | others' CPU s | wall: ratio | from RUNNING: ratio | CPU: ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for Rounds { workload, parallelism, pairs } in results {
        let of = |figure: fn(&(Run, OnCluster)) -> f64| median(&pairs.iter().map(figure).collect::<Vec<_>>());
        println!(
            "| {} p{parallelism} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            workload.name().to_uppercase(),
            of(|(here, _)| here.wall),
            of(|(here, _)| here.cpu),
            of(|(_, there)| there.wall),
            of(|(_, there)| there.running),
            of(|(_, there)| there.worker),
            of(|(_, there)| there.others),
            of(|(here, there)| there.wall / here.wall),
            of(|(here, there)| there.running / here.wall),
            of(|(here, there)| there.worker / here.cpu.max(0.01)),
        );
    }
    println!();
}

fn on_cluster(session: &Session<'_>, workload: Workload, parallelism: u32, input: &Path, output: &Path) -> Result<OnCluster> {
    if output.exists() {
        fs::remove_dir_all(output)?;
    }
    fs::create_dir_all(output)?;
    let file = session.costs.pipeline(workload.name());
    let text = fs::read_to_string(&file)?;
    let mut lines: Vec<String> = Vec::new();
    // The same file with the paths that the benchmark sets.
    for line in text.lines() {
        let words = line.replace("path: \"words/*.txt\"", &format!("path: \"{}/*\"", input.display()));
        let metrics = words.replace("path: \"metrics/*.jsonl\"", &format!("path: \"{}/*\"", input.display()));
        lines.push(metrics.replace("path: out.jsonl", &format!("path: \"{}/out.jsonl\"", output.display())));
    }
    let pipeline = lines.join("\n");
    let is_set = pipeline.contains(&*input.to_string_lossy()) && pipeline.contains(&*output.to_string_lossy());
    ensure!(is_set, "{}: its paths are not those that the benchmark sets", file.display());
    let (worker, others) = (session.workers_cpu()?, session.others_cpu()?);
    let begun = Instant::now();
    let job = session.submit(&format!("bench-{}", workload.name()), &pipeline, parallelism)?;
    let mut running = None;
    session.wait_for(&job, "its end", |job| {
        if ["RUNNING", "FINISHED"].contains(&state(job)) && running.is_none() {
            running = Some(Instant::now());
        }
        state(job) == "FINISHED"
    })?;
    let wall = begun.elapsed().as_secs_f64();
    let running = running.map_or(0.0, |since| since.elapsed().as_secs_f64());
    Ok(OnCluster { wall, running, worker: session.workers_cpu()? - worker, others: session.others_cpu()? - others })
}
