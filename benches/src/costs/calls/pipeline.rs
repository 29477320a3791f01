//! What a crossing is of a pipeline: files of JSON from one end to the other, 1,000 rows a batch, as whole processes; without a transform, and with the empty one of the plugin, which has a thread of
//! its own besides.

use super::{COLUMNS, Costs, batches::Crossing, median};
use crate::measure;
use anyhow::{Result, ensure};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Values of an input at full scale.
const VALUES: f64 = 10_000_000.0;
const ROWS_OF_A_BATCH: usize = 1_000;

pub(super) fn run(costs: &Costs<'_>, library: &Path, crossing: &Crossing) -> Result<()> {
    println!(
        "Files of JSON in and out, {ROWS_OF_A_BATCH} rows a batch, parallelism 1; the goal of the crossing is 2 % of the pipeline's CPU:\n"
    );
    println!(
        "| columns | rows | CPU a batch, us | crossing of a batch, us | crossing, % of the pipeline | CPU with the plugin's node / without |"
    );
    println!("|---|---|---|---|---|---|");
    for columns in COLUMNS {
        let rows = ((VALUES * costs.scale) as usize / columns).max(ROWS_OF_A_BATCH);
        let input = input(costs, columns, rows)?;
        let (mut alone, mut ratios) = (Vec::new(), Vec::new());
        for round in 0..costs.rounds {
            let without = one(costs, &input, columns, None)?;
            let with = one(costs, &input, columns, Some(library))?;
            eprintln!("round {round}: {columns} columns: {without:.2} s CPU, with the plugin {with:.2}");
            alone.push(without);
            ratios.push(with / without.max(1e-3));
        }
        let of_batch = median(&alone) * 1e6 / (rows as f64 / ROWS_OF_A_BATCH as f64);
        let added = crossing.iter().find(|(of, _)| *of == columns).map_or(0.0, |(_, added)| added / 1e3);
        println!("| {columns} | {rows} | {of_batch:.0} | {added:.2} | {:.2} | {:.2} |", 100.0 * added / of_batch, median(&ratios));
        fs::remove_file(input)?;
    }
    println!();
    Ok(())
}

/// CPU seconds of a run; what comes out must be what went in.
fn one(costs: &Costs<'_>, input: &Path, columns: usize, plugin: Option<&Path>) -> Result<f64> {
    let output = costs.folder().join("calls-out.jsonl");
    let types: Vec<String> =
        (0..columns).map(|column| format!("c{column}: {}", if column % 2 == 0 { "int64" } else { "string" })).collect();
    let mut settings = vec![
        format!("engine.batch_rows={ROWS_OF_A_BATCH}"),
        format!("sources.input.with.path={input:?}"),
        format!("sources.input.schema={{{}}}", types.join(", ")),
        format!("sinks.output.with.path={output:?}"),
    ];
    if plugin.is_some() {
        settings.push("transforms={passed: {input: input, transform: calls-empty}}".to_owned());
        settings.push("sinks.output.input=passed".to_owned());
    }
    let mut command = costs.run_command("calls", &settings);
    if let Some(plugin) = plugin {
        command.arg("--plugin-path").arg(plugin);
    }
    let run = measure::run("calls", &mut command, &costs.folder().join("calls.log"))?;
    ensure!(fs::read(&output)? == fs::read(input)?, "{columns} columns: what comes out is not what went in");
    fs::remove_file(output)?;
    Ok(run.cpu)
}

/// A file of so many rows, as the sink writes them.
fn input(costs: &Costs<'_>, columns: usize, rows: usize) -> Result<PathBuf> {
    let path = costs.folder().join("calls-in.jsonl");
    let mut file = BufWriter::new(File::create(&path)?);
    for row in 0..rows {
        for column in 0..columns {
            let begin = if column == 0 { '{' } else { ',' };
            match column % 2 {
                0 => write!(file, "{begin}\"c{column}\":{row}")?,
                _ => write!(file, "{begin}\"c{column}\":\"value {row}\"")?,
            }
        }
        file.write_all(b"}\n")?;
    }
    file.flush()?;
    Ok(path)
}
