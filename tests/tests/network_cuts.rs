//! The network between the processes of a job is cut: for longer than their lease, which ends the job and starts it again once there is a network, and for a shorter time, which
//! is a pause and nothing else. Needs root: the run has a network namespace of its own, and no other network is touched.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod counts_support;

use counts_support::{assert_all_as_if_nothing_had_happened, counts_of};
use standpipe_tests::{Folder, Running, all, has_ended, has_networks, processes, standpipe};
use std::{collections::BTreeMap, thread, time::Duration};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// As the engine has it.
const LEASE: Duration = Duration::from_secs(10);

/// The files and checkpoints are on a disk, which all processes reach also without a network. Slow enough to be at work when the network is cut.
fn start(folder: &Folder, processes: u32) -> Running {
    folder.write("counts.yaml", counts_of(processes).replace("attempts: 3, delay: 10ms", "attempts: 1000, delay: 200ms"));
    let run = standpipe(["run", "counts.yaml", "--processes", &processes.to_string(), "--log-level", "info"]);
    let run = run.set("sources.ticks.with.rate", "100000");
    let run = run.in_directory(folder.path()).env("STANDPIPE_RUN_DIR", folder.at("run")).timeout(4 * PATIENCE);
    let mut run = run.in_own_network().start();
    taken(&mut run, 5);
    run
}

fn durable(run: &Running) -> usize {
    run.stderr().matches("is durable after").count()
}

/// Waits for so many more checkpoints.
fn taken(run: &mut Running, checkpoints: usize) {
    let before = durable(run);
    run.wait_until("checkpoints", PATIENCE, |run| durable(run) >= before + checkpoints);
}

#[test]
fn a_cut_that_is_shorter_than_the_lease_is_a_pause() {
    if !has_networks() {
        return;
    }
    let folder = Folder::new();
    let mut run = start(&folder, 2);
    let before = processes(&run);
    run.cut_network();
    // How long the network is away is what is tested. What is sent meanwhile is sent again after twice as long at the most.
    thread::sleep(LEASE / 4);
    // One that was on its way may become durable; then there are no more, for each needs both processes.
    let during = durable(&run);
    thread::sleep(LEASE / 20);
    assert_eq!(durable(&run), during, "the network is not cut");
    run.join_network();
    taken(&mut run, 5);
    assert_eq!(processes(&run), before);
    let finished = run.wait().code(0);
    assert!(!finished.stderr.contains("started again") && !finished.stderr.contains("error"), "{}", finished.stderr);
    assert_all_as_if_nothing_had_happened(&folder, 2);
}

#[test]
fn a_cut_that_is_longer_than_the_lease_is_survived_without_help() {
    if !has_networks() {
        return;
    }
    let folder = Folder::new();
    let mut run = start(&folder, 2);
    let before = processes(&run);
    run.cut_network();
    let not_heard = |process: u32| format!("process {process} (pid {}) has not been heard of for 10 s", before[&process]);
    let said = [not_heard(0), not_heard(1)];
    run.wait_until("the lease to end", PATIENCE, |run| said.iter().any(|said| run.stderr().contains(said)));
    // Without a network they do not find each other, however often they are started; the first of them has looked for half a minute before it is.
    let again = |run: &Running| run.stderr().matches("it is started again in 0.2 s").count();
    let in_vain = if all() { 2 } else { 1 };
    run.wait_until("restarts in vain", 2 * PATIENCE, |run| again(run) >= in_vain);
    assert!(before.values().all(|id| has_ended(*id)), "none of the first ones is left");
    run.wait_until("the job to look for its processes", PATIENCE, |run| run.stderr().contains("counts: goes on from checkpoint "));
    assert!(durable(&run) > 0 && run.stderr().matches("job \"counts\" starts on").count() == 2, "the network is not cut: {}", run.stderr());
    run.join_network();
    taken(&mut run, 1);
    run.wait().success();
    assert_all_as_if_nothing_had_happened(&folder, 2);
}

/// The first process reaches both others, and they reach it: neither has missed a beat.
#[test]
fn a_cut_between_two_processes_neither_of_which_is_the_first_is_survived_without_help() {
    if !has_networks() {
        return;
    }
    let folder = Folder::new();
    let mut run = start(&folder, 3);
    let connections = run.connections();
    // Each process has listened on one port; on that of the first there are most connections.
    let mut ends: BTreeMap<u16, usize> = BTreeMap::new();
    connections.iter().for_each(|(here, _)| *ends.entry(*here).or_default() += 1);
    let first = *ends.iter().max_by_key(|(_, connections)| **connections).unwrap().0;
    let others: Vec<_> = connections.iter().filter(|(here, there)| *here != first && *there != first).collect();
    let [(port, _), _] = others[..] else { panic!("not one connection, of two ends: {others:?} of {connections:?}") };
    run.cut_port(*port);
    run.wait_until("the cut to be noticed", PATIENCE + 2 * LEASE, |run| run.stderr().contains("it is started again in 0.2 s"));
    assert!(run.stderr().contains("error: the connection to process "), "{}", run.stderr());
    // The processes that are started then have other ports, and nothing has to be joined again.
    run.wait().success();
    assert_all_as_if_nothing_had_happened(&folder, 3);
}
