//! Snapshot and restore rate of a whole checkpoint, against what the disk does by itself with as many bytes, in the same rounds.

use super::{Checkpoints, Costs, Job, Keeper, Manifest, PATIENCE, Sums, median};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

/// Keys at full scale are so many times those of the other subjects.
const FACTOR: usize = 4;
/// Of the job whose start is taken off the restore's.
const FEW: usize = 1000;
const RATE: u64 = 1000;

#[derive(Default)]
struct Results {
    bytes: Vec<f64>,
    snapshot: Vec<f64>,
    write: Vec<f64>,
    restore: Vec<f64>,
    read: Vec<f64>,
}

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let keys = (costs.keys() * FACTOR).max(10 * FEW);
    let mut results: Vec<Results> = Keeper::ALL.iter().map(|_| Results::default()).collect();
    for round in 0..costs.rounds {
        for (keeper, results) in Keeper::ALL.into_iter().zip(&mut results) {
            let (manifest, snapshot, to_first) = measure(costs, keeper, keys)?;
            let (_, _, to_first_of_few) = measure(costs, keeper, FEW)?;
            let restore = (to_first - to_first_of_few).max(1e-3);
            let (write, read) = disk(&costs.folder().join("disk"), manifest.bytes as usize)?;
            eprintln!(
                "round {round}: snapshots, {}: {:.1} MB in {snapshot:.3} s (disk {write:.3} s), restored in {restore:.3} s (disk {read:.3} s)",
                keeper.name(),
                manifest.bytes as f64 / 1e6
            );
            let rate = |seconds: f64| manifest.bytes as f64 / 1e6 / seconds;
            results.bytes.push(manifest.bytes as f64 / 1e6);
            results.snapshot.push(rate(snapshot));
            results.write.push(rate(write));
            results.restore.push(rate(restore));
            results.read.push(rate(read));
        }
    }
    println!(
        "A whole checkpoint (savepoint) of {keys} keys, and a start from it less that of {FEW} keys; the disk: one file of as many bytes, written and synced, read uncached:\n"
    );
    println!(
        "| state | MB | M keys/s written | MB/s | disk, MB/s | of the disk's | M keys/s restored | MB/s | disk, MB/s | of the disk's |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (keeper, results) in Keeper::ALL.into_iter().zip(&results) {
        let share = |ours: &[f64], disk: &[f64]| median(&ours.iter().zip(disk).map(|(ours, disk)| ours / disk).collect::<Vec<_>>());
        let (bytes, snapshot, restore) = (median(&results.bytes), median(&results.snapshot), median(&results.restore));
        println!(
            "| {} | {bytes:.1} | {:.1} | {snapshot:.0} | {:.0} | {:.2} | {:.1} | {restore:.0} | {:.0} | {:.2} |",
            keeper.title(),
            keys as f64 / 1e6 * snapshot / bytes,
            median(&results.write),
            share(&results.snapshot, &results.write),
            keys as f64 / 1e6 * restore / bytes,
            median(&results.read),
            share(&results.restore, &results.read),
        );
    }
    println!();
    Ok(())
}

/// The checkpoint, how long it took, and how long a start from it takes to the first row: seconds.
fn measure(costs: &Costs<'_>, keeper: Keeper, keys: usize) -> Result<(Manifest, f64, f64)> {
    let (checkpoints, setting) = costs.checkpoints("1h")?;
    let job = costs.start_stateful(&mut costs.stateful(keeper, keys, RATE, std::slice::from_ref(&setting)), keys)?;
    let manifest = savepoint(costs, &checkpoints)?;
    job.ask(|sums| sums.kill(Instant::now()))?;
    let before = job.kill()?;
    manifest.paths.iter().try_for_each(|file| forget(file))?;
    let mut command = costs.stateful(keeper, keys, RATE, &[setting]);
    command.arg(format!("--restore={}", manifest.id));
    let mut job = Job::start(&mut command, &costs.folder().join("stateful.log"), Sums::restored(before))?;
    job.wait_until("output of the restored job", PATIENCE, |sums| sums.begun.is_some())?;
    let begun = job.ask(|sums| sums.begun)?.context("waited for above")?;
    let to_first = begun.saturating_duration_since(job.begun).as_secs_f64();
    // The sums are right behind it, too.
    job.wait_until("new rows", PATIENCE, |sums| sums.new.is_some())?;
    job.stop()?;
    let snapshot = manifest.took_millis / 1e3;
    Ok((manifest, snapshot, to_first))
}

fn savepoint(costs: &Costs<'_>, checkpoints: &Checkpoints) -> Result<Manifest> {
    let output = costs.command(&["job", "savepoint", super::STATEFUL]).output()?;
    ensure!(output.status.success(), "no savepoint: {}", String::from_utf8_lossy(&output.stderr));
    let id: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("job savepoint prints a number")?;
    let manifest = checkpoints.manifests()?.into_iter().find(|manifest| manifest.id == id).context("the savepoint is not there")?;
    ensure!(manifest.written == manifest.bytes, "a savepoint refers to nothing");
    Ok(manifest)
}

/// Drops what the system has of a file in memory.
fn forget(file: &Path) -> Result<()> {
    let file = File::open(file)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// Seconds that the disk takes to write and sync so many bytes in one file, and to read them again, uncached.
fn disk(folder: &Path, bytes: usize) -> Result<(f64, f64)> {
    fs::create_dir_all(folder)?;
    let path: PathBuf = folder.join("bytes");
    // What a disk cannot compress or leave out.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut buffer = vec![0_u8; 1 << 20];
    for word in buffer.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    let begin = Instant::now();
    let mut file = File::create(&path)?;
    for first in (0..bytes).step_by(buffer.len()) {
        file.write_all(&buffer[..buffer.len().min(bytes - first)])?;
    }
    file.sync_all()?;
    let write = begin.elapsed().as_secs_f64();
    forget(&path)?;
    let begin = Instant::now();
    let mut file = File::open(&path)?;
    let mut found = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => found += count,
        }
    }
    let read = begin.elapsed().as_secs_f64();
    ensure!(found == bytes, "{found} of {bytes} bytes came back");
    fs::remove_file(&path)?;
    Ok((write, read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_gives_back_what_it_took() {
        let folder = std::env::temp_dir().join(format!("standpipe-bench-disk-{}", std::process::id()));
        let (write, read) = disk(&folder, 3_000_001).unwrap();
        assert!(write > 0.0 && read > 0.0 && !folder.join("bytes").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
