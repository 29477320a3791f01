//! What a process of its own costs a plugin (`isolation: process`): a batch to the transform `flag` and back, in this process and in one of its own, in the same rounds; and W1, whose
//! words a plugin makes, as whole processes with it and without.

use super::{Costs, median};
use crate::{
    digest, generate,
    measure::{self, Run},
    reference,
    workload::Workload,
};
use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;
use standpipe_isolation::{Launcher, Limits, Maker, Transform};
use standpipe_loader::{FileKinds, HostServices, InstanceContext, LogLevel, MetricKind, NodeInput, TransformKind, wire::InputDetails};
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

/// Rows of a batch.
const ROWS: [usize; 4] = [1, 1000, 8192, 65_536];
/// Of each size, calls of a round at full scale.
const CALLS: f64 = 2000.0;
/// Calls before the first that counts.
const WARM: usize = 50;

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    calls(costs)?;
    workload(costs)
}

/// A host that wants nothing.
struct Nobody;

impl HostServices for Nobody {
    fn log(&self, _: LogLevel, json: &str) {
        eprintln!("{json}");
    }
    fn register_metric(&self, _: &str, _: MetricKind, _: &str) -> u64 {
        0
    }
    fn update_metric(&self, _: u64, _: f64) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn wake(&self) {}
    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        Err(reference.to_owned())
    }
    fn now(&self) -> i64 {
        0
    }
}

fn batch(rows: usize) -> Result<RecordBatch> {
    let columns: [(&str, ArrayRef); 3] = [
        ("offset", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("value", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)))),
        ("host", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("host-{:04}", row % 1000))))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn flag(kind: &TransformKind, launcher: Option<&Launcher>, batch: &RecordBatch) -> Result<Transform> {
    let (limits, context) = (Limits::default(), InstanceContext { node: "flags".to_owned(), parallelism: 1, ..InstanceContext::default() });
    let apart = launcher.map(|launcher| (launcher, &limits));
    let maker = Maker { apart, config: &json!({}), context: &context, host: Arc::new(Nobody) };
    let input = NodeInput { schema: batch.schema(), details: InputDetails { name: "rows".to_owned(), ..InputDetails::default() } };
    let mut transform = maker.transform(kind, "transforms.flags", &[input], false)?;
    transform.open()?;
    Ok(transform)
}

/// The median of some calls, microseconds.
fn time(transform: &mut Transform, batch: &RecordBatch, calls: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(calls);
    for call in 0..WARM + calls {
        let begin = Instant::now();
        let given = transform.process(0, batch, None)?;
        let took = begin.elapsed();
        ensure!(given.iter().map(|given| given.batch.num_rows()).sum::<usize>() == batch.num_rows(), "rows are lost");
        if call >= WARM {
            times.push(took.as_secs_f64() * 1e6);
        }
    }
    Ok(median(&times))
}

fn calls(costs: &Costs<'_>) -> Result<()> {
    let kinds = FileKinds::load(&costs.standpipe.with_file_name("libstandpipe_transforms_examples.so"))?;
    let kind = kinds.transform("flag").context("there is no flag")?;
    let launcher = Launcher::new(costs.standpipe, ["plugin-process"]);
    let calls = ((CALLS * costs.scale) as usize).max(20);
    println!(
        "A batch (int64, float64, string of 9 bytes) to `flag` and back, with a column more; microseconds, medians of {calls} calls in each of {} rounds:\n",
        costs.rounds
    );
    println!("| rows | here | in a process of its own | added | per row, ns |");
    println!("|---|---|---|---|---|");
    for rows in ROWS {
        let batch = batch(rows)?;
        let (mut here, mut apart) = (flag(&kind, None, &batch)?, flag(&kind, Some(&launcher), &batch)?);
        let (mut all_here, mut all_apart) = (Vec::new(), Vec::new());
        for _ in 0..costs.rounds {
            all_here.push(time(&mut here, &batch, calls)?);
            all_apart.push(time(&mut apart, &batch, calls)?);
        }
        let (here, apart) = (median(&all_here), median(&all_apart));
        println!("| {rows} | {here:.1} | {apart:.1} | {:.1} | {:.0} |", apart - here, (apart - here) * 1e3 / rows as f64);
    }
    println!(
        "\nfrom the start of a process to an instance that is open: {:.0} ms\n",
        start(&kind, &launcher, costs.rounds)?.as_secs_f64() * 1e3
    );
    Ok(())
}

fn start(kind: &TransformKind, launcher: &Launcher, rounds: usize) -> Result<Duration> {
    let batch = batch(1)?;
    let mut times = Vec::new();
    for _ in 0..rounds.max(3) {
        let begin = Instant::now();
        drop(flag(kind, Some(launcher), &batch)?);
        times.push(begin.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(&times)))
}

fn workload(costs: &Costs<'_>) -> Result<()> {
    let input = generate::prepare(costs.data, costs.scale)?;
    let (truth, output) = (reference::digest(Workload::WordCount, &input)?, costs.folder().join("w1"));
    fs::create_dir_all(&output)?;
    let isolations = ["", "transforms.words", "sources.input", "sources.input and transforms.words"];
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); isolations.len()];
    for round in 0..costs.rounds {
        for (isolation, runs) in isolations.iter().zip(&mut runs) {
            let mut settings = vec![
                format!("sources.input.with.path={}/*", input.folder(Workload::WordCount, 1).display()),
                format!("sinks.output.with.path={}/out.jsonl", output.display()),
            ];
            settings.extend(isolation.split(" and ").filter(|node| !node.is_empty()).map(|node| format!("{node}.isolation=process")));
            let run = measure::run("w1", &mut costs.run_command("w1", &settings), &costs.folder().join("w1.log"))?;
            let found = digest::of(Workload::WordCount, &output)?;
            ensure!(found == truth, "wrong output: {found:?}, expected {truth:?}");
            eprintln!("round {round}: w1 isolated {isolation:?}: {:.2} s wall, {:.2} s CPU", run.wall, run.cpu);
            runs.push(run);
        }
    }
    println!("| W1 p1, apart | wall s | CPU s | peak MB of the job's process |");
    println!("|---|---|---|---|");
    for (isolation, runs) in isolations.iter().zip(&runs) {
        let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
        let name = if isolation.is_empty() { "nothing" } else { isolation };
        println!("| {name} | {:.2} | {:.2} | {:.0} |", of(|run| run.wall), of(|run| run.cpu), of(|run| run.peak_mb as f64));
    }
    println!();
    Ok(())
}
