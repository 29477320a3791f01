//! Calls with a batch: there and back, whatever the transform does with it.

use super::{COLUMNS, Once, batch, nanoseconds, opened};
use anyhow::{Result, ensure};
use arrow_array::RecordBatch;
use standpipe_loader::Catalogue;
use std::hint::black_box;

const ROWS: [usize; 4] = [1, 100, 1_000, 8_192];
/// What the goal is stated for.
const OF_THE_GOAL: usize = 1_000;

/// What the plugin's call takes beyond a call of the same code, by columns: nanoseconds, at 1,000 rows.
pub(super) type Crossing = Vec<(usize, f64)>;

/// The transform as a part of the host: behind a pointer, as its own operators are.
trait Built {
    fn process(&mut self, batch: RecordBatch, out: &mut Vec<RecordBatch>);
}

struct Empty;

impl Built for Empty {
    fn process(&mut self, batch: RecordBatch, out: &mut Vec<RecordBatch>) {
        out.push(batch);
    }
}

pub(super) fn run(file: &Catalogue, linked: &Catalogue) -> Result<Crossing> {
    println!("An empty transform, a batch there and back; columns are numbers and texts by turns:\n");
    println!("| columns | rows | in the host, ns | its tables linked, ns | a plugin's file, ns | file / linked | added, ns a row |");
    println!("|---|---|---|---|---|---|---|");
    let mut crossing = Crossing::new();
    for columns in COLUMNS {
        for rows in ROWS {
            let batch = batch(columns, rows)?;
            let mut built: Box<dyn Built> = Box::new(Empty);
            let mut of_linked = opened(linked, "calls-empty", &batch, &[])?;
            let mut of_file = opened(file, "calls-empty", &batch, &[])?;
            let came = of_file.process(0, &batch, None)?;
            ensure!(came.len() == 1 && came.iter().all(|came| came.batch == batch), "the plugin gives another batch");
            let mut out = Vec::with_capacity(1);
            let variants: [Once<'_>; 3] = [
                Box::new(|| {
                    built.process(black_box(&batch).clone(), &mut out);
                    out.clear();
                    Ok(())
                }),
                Box::new(|| {
                    drop(black_box(of_linked.process(0, &batch, None)?));
                    Ok(())
                }),
                Box::new(|| {
                    drop(black_box(of_file.process(0, &batch, None)?));
                    Ok(())
                }),
            ];
            let [host, linked, file] = nanoseconds(variants)?;
            let added = file - host;
            println!("| {columns} | {rows} | {host:.0} | {linked:.0} | {file:.0} | {:.2} | {:.2} |", file / linked, added / rows as f64);
            if rows == OF_THE_GOAL {
                crossing.push((columns, added));
            }
        }
    }
    println!();
    Ok(crossing)
}
