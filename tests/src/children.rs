//! The processes that a run has started: `restart:` and `--processes` make it the parent of those that the job runs in.

use crate::Running;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use std::{collections::BTreeMap, fs};

/// The system's ids of the processes that a run has started and that are there, by their number in the job; one that is the only one has the number 0.
#[must_use]
pub fn processes(run: &Running) -> BTreeMap<u32, i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap_or_default();
    children.split_whitespace().filter_map(|id| id.parse().ok()).filter_map(|id| Some((number(id)?, id))).collect()
}

/// `None`: it is gone, or not yet what it is to be.
fn number(process: i32) -> Option<u32> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    let value = |name: &str| text.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    value("STANDPIPE_ATTEMPT")?;
    value("STANDPIPE_PROCESS").map_or(Some(0), |of| of.split('/').next()?.parse().ok())
}

/// The system's ids of the processes of plugins (`isolation: process`) that run below a process, of the node whose path has that text.
#[must_use]
pub fn plugin_processes(below: u32, node: &str) -> Vec<i32> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<i32> = ids.filter(|id| is_plugin_process(*id, node)).collect();
    all.into_iter().filter(|id| !has_ended(*id) && ancestors(*id).any(|ancestor| ancestor.cast_unsigned() == below)).collect()
}

fn is_plugin_process(id: i32, node: &str) -> bool {
    let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let arguments: Vec<String> = arguments.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    arguments.get(1).is_some_and(|argument| argument == "plugin-process")
        && arguments.iter().skip(2).any(|argument| argument.contains(node))
}

/// The parent of a process, its parent, and so on.
fn ancestors(id: i32) -> impl Iterator<Item = i32> {
    let parent = |id: &i32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
    };
    std::iter::successors(parent(&id), parent)
}

/// Sends a signal to a process that a run has started. False: it has ended meanwhile.
///
/// # Panics
/// When the system does not allow it.
pub fn signal(process: i32, signal: Signal) -> bool {
    match kill_process(Pid::from_raw(process).expect("an id is positive"), signal) {
        Ok(()) => true,
        Err(Errno::SRCH) => false,
        Err(error) => panic!("process {process} takes no {signal:?}: {error}"),
    }
}

/// Whether a process has ended; one that nobody has waited for is still there, as a zombie.
#[must_use]
pub fn has_ended(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok();
    let state = stat.and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
    state.is_none_or(|state| state == 'Z')
}
