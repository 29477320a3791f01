//! What the kernel knows of a process and its descendants: CPU time, resident memory, children.

use anyhow::{Context, Result};
use std::{collections::VecDeque, fs};

/// Its children, as they are now. None of a process that has ended.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A process and all below it.
pub(crate) fn tree(process: u32) -> Vec<u32> {
    let (mut found, mut rest) = (Vec::new(), VecDeque::from([process]));
    while let Some(next) = rest.pop_front() {
        rest.extend(children(next));
        found.push(next);
    }
    found
}

/// User and system seconds of a process so far, threads that have ended included, children not.
pub(crate) fn cpu(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    ticks(&text, 11).context("/proc/PID/stat is not as it should be")
}

/// CPU seconds of all children of this process that have ended.
pub(crate) fn children_cpu() -> f64 {
    fs::read_to_string("/proc/self/stat").ok().and_then(|text| ticks(&text, 13)).unwrap_or_default()
}

/// CPU seconds of all children of a process that it has waited for.
pub(crate) fn cpu_of_ended_children(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    ticks(&text, 13).context("/proc/PID/stat is not as it should be")
}

/// The seconds of two neighbouring fields of `/proc/PID/stat`, counted behind the name, which may have spaces.
fn ticks(stat: &str, field: usize) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(field)?.parse::<u64>().ok()? + fields.get(field + 1)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A size of `/proc/PID/status` in bytes: `VmRSS`, `VmHWM`. `None`: the process has ended.
pub(crate) fn memory(process: u32, field: &str) -> Option<u64> {
    size(&fs::read_to_string(format!("/proc/{process}/status")).ok()?, field)
}

/// Its memory in bytes, of what it shares with others its part. `None`: the process has ended.
pub(crate) fn proportional(process: u32) -> Option<u64> {
    size(&fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?, "Pss")
}

fn size(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 0 0 0 0 0 150 50 30 20 20 0 1 0 0";
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(ticks(stat, 11), Some(200.0 / per_second));
        assert_eq!(ticks(stat, 13), Some(50.0 / per_second));
        assert_eq!(ticks("7 (a) S 1", 11), None);
    }

    #[test]
    fn this_process_has_memory_and_is_in_its_tree() {
        let id = std::process::id();
        assert!(memory(id, "VmRSS").is_some_and(|bytes| bytes > 1 << 16), "{:?}", memory(id, "VmRSS"));
        assert_eq!(memory(id, "VmNothing"), None);
        assert!(proportional(id).is_some_and(|own| own > 1 << 16), "{:?}", proportional(id));
        assert!(tree(id).contains(&id) && cpu(id).is_ok() && cpu_of_ended_children(id).is_ok());
    }
}
