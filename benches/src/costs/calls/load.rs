//! How long a plugin's file takes from its path to its kinds: every look is at a copy that nobody has opened before. What the system has of it in memory it keeps.

use super::{Costs, catalogue, median};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// Copies of a file. A library is never unloaded.
const LOADS: usize = 20;
/// What a copy may have, that many can be had.
const LARGEST: u64 = 64 << 20;

pub(super) fn run(costs: &Costs<'_>, library: &Path) -> Result<()> {
    println!("From a file to its kinds (headers, dlopen, manifest, layout, tables), {LOADS} copies of each; the goal is 5 ms:\n");
    println!("| file | MB | median, ms | worst, ms |");
    println!("|---|---|---|---|");
    let mut files = vec![library.to_owned()];
    files.extend(bundled(costs.standpipe)?);
    for file in files {
        let bytes = fs::metadata(&file)?.len();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if bytes > LARGEST {
            println!("| {name} | {:.1} | too large to be copied so often | |", bytes as f64 / 1e6);
            continue;
        }
        let taken = loads(costs, &file).with_context(|| name.clone())?;
        let worst = taken.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {:.1} | {:.2} | {worst:.2} |", bytes as f64 / 1e6, median(&taken));
    }
    println!();
    Ok(())
}

/// The plugins beside the binary.
fn bundled(standpipe: &Path) -> Result<Vec<PathBuf>> {
    let folder = standpipe.parent().context("a folder of the binary")?;
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    found.retain(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libstandpipe_"))
            && path.extension().is_some_and(|end| end == "so")
    });
    found.sort();
    Ok(found)
}

/// Milliseconds.
fn loads(costs: &Costs<'_>, file: &Path) -> Result<Vec<f64>> {
    let folder = costs.folder().join("load");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let load = |number: usize| {
        // No path twice: what takes the place of a loaded file is compared with it, and copied.
        let copy = folder.join(format!("{name}-{number}.so"));
        fs::copy(file, &copy)?;
        let begun = Instant::now();
        let found = catalogue(&copy)?;
        let taken = begun.elapsed().as_secs_f64() * 1e3;
        anyhow::ensure!(found.plugins().len() == 1, "there are {} plugins", found.plugins().len());
        Ok(taken)
    };
    let taken = (0..LOADS).map(load).collect();
    fs::remove_dir_all(&folder)?;
    taken
}
