//! What the process is seen to have: its threads and its memory, as the kernel tells (`/proc/self`).

use crate::check::{Outcome, Stop, seconds};
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

/// Growth in all that is put down to the allocator: less is no leak.
const TOLERATED: f64 = 4e6;
/// How often the memory is looked at.
const LOOKS: u64 = 64;

/// The ids of all threads.
pub(crate) fn threads() -> Result<BTreeSet<u64>, Stop> {
    let entries =
        fs::read_dir("/proc/self/task").map_err(|error| Stop::skip(format!("threads cannot be counted: /proc/self/task: {error}")))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Threads that are there besides those `before`, once at most `allowed` are left or patience ends.
pub(crate) fn left_behind(before: &BTreeSet<u64>, allowed: usize, patience: Duration) -> Result<usize, Stop> {
    let end = Instant::now() + patience;
    loop {
        let left = threads()?.difference(before).count();
        if left <= allowed || Instant::now() >= end {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Memory of its own that the process holds, in bytes.
pub(crate) fn memory() -> Result<f64, Stop> {
    let unknown = |error: &str| Stop::skip(format!("memory cannot be measured: /proc/self/status: {error}"));
    let status = fs::read_to_string("/proc/self/status").map_err(|error| unknown(&error.to_string()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or_else(|| unknown("no RssAnon"))?;
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<f64>().map_err(|error| unknown(&error.to_string()))?;
    Ok(kilobytes * 1024.0)
}

/// How long the search for leaks goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endurance {
    /// Batches.
    pub(crate) batches: u64,
    /// Time, if that ends before.
    pub(crate) time: Option<Duration>,
}

/// Does something again and again, each time worth so many batches, and looks how memory grows: by the median of the slopes between any two looks, which a step of the
/// allocator or a buffer that grows once does not move. The first third is for warming up.
pub(crate) fn grows(endurance: Endurance, mut again: impl FnMut() -> Result<u64, Stop>) -> Outcome {
    let (begun, every) = (Instant::now(), (endurance.batches / LOOKS).max(1));
    let (mut done, mut next, mut looks) = (0_u64, 0_u64, Vec::new());
    while done < endurance.batches && endurance.time.is_none_or(|time| begun.elapsed() < time) {
        done += again()?.max(1);
        if done >= next {
            looks.push((done as f64, memory()?));
            next = done + every;
        }
    }
    let in_time = if done < endurance.batches { format!(" (what could be done in {})", seconds(begun.elapsed())) } else { String::new() };
    let warm = &looks[looks.len() / 3..];
    let [(first, _), .., (last, _)] = warm else { return Err(Stop::skip(format!("{done} batches{in_time} are too few to tell"))) };
    let (slope, span) = (median_slope(warm), last - first);
    let grown = slope * span;
    if grown > TOLERATED {
        let megabytes = grown / 1e6;
        return Err(Stop::fail(format!("memory grows: {slope:.0} bytes per batch, {megabytes:.1} MB over {span} batches{in_time}")));
    }
    Ok(format!("{done} batches{in_time}: memory grew by {:.1} MB", grown.max(0.0) / 1e6))
}

fn median_slope(points: &[(f64, f64)]) -> f64 {
    let slope = |(one, other): (&(f64, f64), &(f64, f64))| (other.1 - one.1) / (other.0 - one.0);
    let pairs = points.iter().enumerate().flat_map(|(at, one)| points[at + 1..].iter().map(move |other| (one, other)));
    let mut slopes: Vec<f64> = pairs.filter(|(one, other)| other.0 > one.0).map(slope).collect();
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_no_slope() {
        let steady: Vec<_> = (0..60).map(|at| (f64::from(at), if at < 30 { 1e6 } else { 9e6 })).collect();
        assert!(median_slope(&steady[20..]).abs() < 1.0, "{}", median_slope(&steady[20..]));
        let grows: Vec<_> = (0..60).map(|at| (f64::from(at), 1e6 + 300.0 * f64::from(at))).collect();
        assert!((median_slope(&grows) - 300.0).abs() < 1.0);
    }

    #[test]
    fn memory_that_is_kept_is_found() {
        let endurance = Endurance { batches: 20_000, time: None };
        let mut kept = Vec::new();
        let leaks = grows(endurance, || {
            kept.push(vec![1_u8; 1000]);
            Ok(1)
        });
        assert!(matches!(&leaks, Err(Stop::Fail { message, .. }) if message.starts_with("memory grows: ")), "{leaks:?}");
    }
}
