//! The network of a session cluster is cut: between the manager and a task manager, for a shorter and a longer time than the lease, and between two task managers. Whoever is
//! cut off ends its work before it begins elsewhere, and comes back when the network does. Needs root: a test is in a network of its own, with a switch and machines.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;

use cluster_support::{COUNTS, Cluster, JOINED, PATIENCE, SAFE, assert_exactly_once};
use standpipe_tests::{Lan, Running, has_ended, in_own_network, processes, wait_until};
use std::{thread, time::Duration};

/// A task manager ends its workers when four fifths of it are over.
const LEASE: Duration = Duration::from_secs(8);

/// With so many rows a second: it is still at work when the lease is over.
fn counts(rate: u32) -> String {
    format!("{COUNTS}{SAFE}").replace("rate: 5000", &format!("rate: {rate}"))
}

fn times_joined(run: &Running) -> usize {
    run.stderr().matches(JOINED).count()
}

fn wait_for_task_managers(cluster: &Cluster, number: u32) {
    wait_until("the task managers", PATIENCE, || cluster.get("/overview")["taskmanagers"] == number);
}

#[test]
fn a_cut_that_is_shorter_than_the_lease_restarts_nothing() {
    if !in_own_network("a_cut_that_is_shorter_than_the_lease_restarts_nothing") {
        return;
    }
    let (lan, cluster) = (Lan::start(), Cluster::start_open(LEASE));
    let machine = lan.machine(2);
    let mut task_manager = cluster.task_manager_on(&machine, "only", 2);
    let id = cluster.submit(&cluster.bundle(&counts(2_500), 2));
    cluster.taken(&id, 3);
    let before = processes(&task_manager);
    machine.cut();
    // How long the network is away is what is tested.
    thread::sleep(LEASE / 4);
    task_manager.wait_until("the cut to be noticed", PATIENCE, |run| run.stderr().contains("does not answer"));
    machine.join();
    task_manager.wait_until("it is back", PATIENCE, |run| times_joined(run) == 2);
    assert_eq!((before.len(), processes(&task_manager)), (1, before));
    let finished = cluster.state(&id, "FINISHED");
    assert_eq!((&finished["attempt"], &finished["restarts"]), (&0.into(), &0.into()), "{finished:#}");
    assert_eq!(cluster.exceptions(&id), [""; 0]);
    assert_exactly_once(&cluster.folder);
}

#[test]
fn a_cut_that_is_longer_than_the_lease_moves_the_work_which_is_never_run_twice() {
    if !in_own_network("a_cut_that_is_longer_than_the_lease_moves_the_work_which_is_never_run_twice") {
        return;
    }
    let (lan, cluster) = (Lan::start(), Cluster::start_open(LEASE));
    let machines = [2, 3].map(|number| lan.machine(number));
    let mut first = cluster.task_manager_on(&machines[0], "first", 2);
    let id = cluster.submit(&cluster.bundle(&counts(1_500), 2));
    cluster.taken(&id, 3);
    let worker = processes(&first)[&0];
    let second = cluster.task_manager_on(&machines[1], "second", 2);
    machines[0].cut();
    let again = cluster.wait_for(&id, "another attempt", |job| {
        // Looked at after the answer: whoever is ordered to begin has not begun before.
        assert!(job["attempt"] == 0 || has_ended(worker), "both run: {job:#}");
        job["attempt"] == 1 && job["state"] == "RUNNING"
    });
    assert_eq!((&again["restarts"], processes(&second).len()), (&1.into(), 1), "{again:#}");
    let exceptions = cluster.exceptions(&id);
    assert!(exceptions.len() == 1 && exceptions[0].contains("on 10.77.0.2 has not been heard of for 8 s"), "{exceptions:?}");
    machines[0].join();
    first.wait_until("it is back", PATIENCE, |run| times_joined(run) == 2);
    wait_for_task_managers(&cluster, 2);
    assert_eq!(cluster.get("/overview")["slots-available"], 2);
    let finished = cluster.state(&id, "FINISHED");
    assert_eq!((&finished["attempt"], processes(&first).len()), (&1.into(), 0), "{finished:#}");
    assert_exactly_once(&cluster.folder);
    // It takes work again.
    let next = cluster.submit(&cluster.bundle(&COUNTS.replace("count: 40000", "count: 10"), 4));
    assert_eq!(cluster.state(&next, "FINISHED")["attempt"], 0);
}

#[test]
fn a_job_that_has_nowhere_else_to_go_waits_for_the_end_of_the_cut() {
    if !in_own_network("a_job_that_has_nowhere_else_to_go_waits_for_the_end_of_the_cut") {
        return;
    }
    let (lan, cluster) = (Lan::start(), Cluster::start_open(LEASE));
    let machine = lan.machine(2);
    let task_manager = cluster.task_manager_on(&machine, "only", 2);
    let id = cluster.submit(&cluster.bundle(&counts(1_500), 2));
    cluster.taken(&id, 3);
    let worker = processes(&task_manager)[&0];
    machine.cut();
    wait_until("its worker has ended by itself", PATIENCE, || has_ended(worker));
    let waiting = cluster.wait_for(&id, "the job waits", |job| job["waits"] == "needs 2, has 0");
    assert_eq!(waiting["state"], "RESTARTING", "{waiting:#}");
    machine.join();
    cluster.wait_for(&id, "another attempt", |job| job["attempt"] == 1 && job["state"] == "RUNNING");
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}

/// The manager hears of both: only the job's own processes do not hear of each other.
#[test]
fn a_cut_between_two_task_managers_is_told_and_survived() {
    if !in_own_network("a_cut_between_two_task_managers_is_told_and_survived") {
        return;
    }
    let (lan, cluster) = (Lan::start(), Cluster::start_open(LEASE));
    let machines = [2, 3].map(|number| lan.machine(number));
    let _task_managers = [("first", 0), ("second", 1)].map(|(name, machine)| cluster.task_manager_on(&machines[machine], name, 2));
    let id = cluster.submit(&cluster.bundle(&counts(1_500), 4));
    cluster.taken(&id, 3);
    machines.iter().for_each(|machine| machine.isolate(true));
    cluster.wait_for(&id, "the end of the attempt", |job| job["restarts"] != 0);
    let exceptions = cluster.exceptions(&id);
    assert!(exceptions[0].contains("process 1") || exceptions[0].contains("process 0"), "{exceptions:?}");
    machines.iter().for_each(|machine| machine.isolate(false));
    cluster.state(&id, "FINISHED");
    assert_exactly_once(&cluster.folder);
}
