//! What a plugin costs against the same code in the host (`plugin-calls`): calls with a batch, of an empty transform; access to keyed state; what that is of a pipeline with JSON on both ends;
//! and how long a file takes to load. In one process the variants take turns, so that ratios hold on a machine that does other things too.

mod batches;
mod load;
mod pipeline;
mod state;

use super::{Costs, median};
use anyhow::{Context, Result, anyhow};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use standpipe_bench_plugins as transforms;
use standpipe_loader::{Catalogue, InstanceContext, NodeInput, SearchEntry, SearchPath, TransformInstance, wire::InputDetails};
use standpipe_sdk::{export::Kind, testing::TestHost};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Rounds in which the variants take turns.
const ROUNDS: usize = 25;
/// What a variant runs for in a round, about.
const ROUND: Duration = Duration::from_millis(4);
/// Columns of batches.
const COLUMNS: [usize; 3] = [1, 5, 20];

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let library = library()?;
    let file = catalogue(&library)?;
    let linked = Catalogue::linked(
        "calls",
        &[Kind::transform::<transforms::Empty>(), Kind::transform::<transforms::Numbers>(), Kind::transform::<transforms::Texts>()],
    );
    let crossing = batches::run(&file, &linked)?;
    state::run(&file)?;
    pipeline::run(costs, &library, &crossing)?;
    load::run(costs, &library)
}

/// The plugin, which is built beside the driver.
fn library() -> Result<PathBuf> {
    let driver = std::env::current_exe()?;
    let library = driver.with_file_name("examples").join("libcalls.so");
    anyhow::ensure!(
        library.is_file(),
        "{} is missing: `cargo build -p standpipe-bench-plugins --examples` builds it, with `--release` for this one",
        library.display()
    );
    Ok(library)
}

fn catalogue(file: &Path) -> Result<Catalogue> {
    let catalogue =
        Catalogue::discover(&SearchPath { entries: vec![SearchEntry { path: file.to_owned(), origin: "the benchmark".to_owned() }] });
    match catalogue.failures().first() {
        None => Ok(catalogue),
        Some(failure) => Err(anyhow!("{failure}")),
    }
}

/// Columns of numbers and texts by turns, a tenth of the numbers null.
fn batch(columns: usize, rows: usize) -> Result<RecordBatch> {
    let column = |index: usize| -> (String, ArrayRef) {
        let values: ArrayRef = match index % 2 {
            0 => Arc::new((0..rows as i64).map(|row| (row % 10 != 0).then_some(row)).collect::<Int64Array>()),
            _ => Arc::new((0..rows).map(|row| Some(format!("value {row}"))).collect::<StringArray>()),
        };
        (format!("c{index}"), values)
    };
    Ok(RecordBatch::try_from_iter((0..columns).map(column))?)
}

/// A transform that is open, with batches like this one as its input.
fn opened(catalogue: &Catalogue, name: &str, batch: &RecordBatch, key: &[&str]) -> Result<TransformInstance> {
    let key: Vec<String> = key.iter().map(|column| (*column).to_owned()).collect();
    let details = InputDetails { name: "in".to_owned(), key: key.clone(), ..InputDetails::default() };
    let input = NodeInput { schema: batch.schema(), details };
    let context = InstanceContext {
        job_id: "0".repeat(32),
        job_name: "job".to_owned(),
        node: "node".to_owned(),
        parallelism: 1,
        max_parallelism: 128,
        generation: 1,
        ..InstanceContext::default()
    };
    let kind = catalogue.transform(name)?;
    let host = Arc::new(TestHost::default());
    let mut instance = kind.instance(&serde_json::json!({}), "node", &[input], !key.is_empty(), &context, host)?;
    instance.open()?;
    Ok(instance)
}

/// A variant: what it does once.
type Once<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// Nanoseconds of each variant, in rounds in which they take turns: the medians.
fn nanoseconds<const N: usize>(mut variants: [Once<'_>; N]) -> Result<[f64; N]> {
    let mut calls = [1_u32; N];
    for (variant, calls) in variants.iter_mut().zip(&mut calls) {
        // The first ones find what is cold.
        let took = time(variant, 20)? / 20;
        *calls = u32::try_from(ROUND.as_nanos() / took.as_nanos().max(1)).unwrap_or(u32::MAX).clamp(10, 200_000);
    }
    let mut taken: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for ((variant, calls), taken) in variants.iter_mut().zip(calls).zip(&mut taken) {
            taken.push(time(variant, calls)?.as_nanos() as f64 / f64::from(calls));
        }
    }
    Ok(taken.map(|taken| median(&taken)))
}

fn time(variant: &mut Once<'_>, calls: u32) -> Result<Duration> {
    let begun = Instant::now();
    for _ in 0..calls {
        variant().context("a variant fails")?;
    }
    Ok(begun.elapsed())
}
