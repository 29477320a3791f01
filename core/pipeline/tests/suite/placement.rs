//! The placement table: which worker runs which subtask.

use crate::plans::good;
use proptest::prelude::*;
use standpipe_pipeline::{
    placement::{Placement, WorkerIndex},
    plan::Plan,
};
use std::collections::HashSet;

/// Three nodes with so many subtasks each: a source, a transform, a sink.
fn with_parallelism(source: u32, transform: u32, sink: u32) -> Plan {
    good(&format!(
        "
name: m
sources: {{s: {{connector: numbers, parallelism: {source}}}}}
transforms: {{t: {{input: s, filter: n > 1, parallelism: {transform}}}}}
sinks: {{o: {{input: t, connector: appends, parallelism: {sink}}}}}
"
    ))
}

fn placed(plan: &Plan, slots: &[u32]) -> (u32, Vec<Vec<u32>>) {
    let placement = Placement::new(plan, slots).unwrap();
    let workers = |node: &standpipe_pipeline::plan::Node| placement.workers(node.id).iter().map(|worker| worker.0).collect();
    (placement.workers_per_process, plan.nodes.iter().map(workers).collect())
}

#[test]
fn five_subtasks_run_on_three_and_two_slots() {
    let plan = with_parallelism(5, 2, 1);
    // Every process has three workers; worker 5, the third one of the second process, runs nothing.
    assert_eq!(placed(&plan, &[3, 2]), (3, vec![vec![0, 1, 2, 3, 4], vec![0, 2], vec![0]]));
    assert_eq!(placed(&plan, &[2, 3]), (3, vec![vec![0, 1, 3, 4, 5], vec![0, 3], vec![0]]));
    assert_eq!(placed(&plan, &[5]), (5, vec![vec![0, 1, 2, 3, 4], vec![0, 2], vec![0]]));
    assert_eq!(placed(&plan, &[1, 0, 4]), (4, vec![vec![0, 8, 9, 10, 11], vec![0, 9], vec![0]]));
}

#[test]
fn a_worker_knows_its_subtask() {
    let plan = with_parallelism(5, 2, 1);
    let placement = Placement::new(&plan, &[3, 2]).unwrap();
    let subtasks = |worker| plan.nodes.iter().map(|node| placement.subtask(node.id, WorkerIndex(worker))).collect::<Vec<_>>();
    assert_eq!([0, 2, 3, 5].map(|worker| placement.process(WorkerIndex(worker))), [0, 0, 1, 1]);
    assert_eq!(subtasks(0), [Some(0), Some(0), Some(0)]);
    assert_eq!(subtasks(2), [Some(2), Some(1), None]);
    assert_eq!(subtasks(5), [None, None, None]);
}

#[test]
fn too_few_slots_are_refused() {
    let plan = with_parallelism(5, 2, 1);
    assert_eq!(Placement::new(&plan, &[2, 2]).unwrap_err().to_string(), "the job needs 5 slots, there are 4");
    assert_eq!(Placement::new(&plan, &[]).unwrap_err().to_string(), "the job needs 5 slots, there are 0");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_subtask_has_a_slot_of_its_own(node in 1..12_u32, other in 1..12_u32, slots in proptest::collection::vec(0..6_u32, 1..6)) {
        let plan = with_parallelism(node, other, node);
        match Placement::new(&plan, &slots) {
            Err(few) => prop_assert!(slots.iter().sum::<u32>() < node.max(other), "{few}"),
            Ok(placement) => {
                for node in &plan.nodes {
                    let workers = placement.workers(node.id);
                    prop_assert_eq!(workers.len(), node.parallelism as usize);
                    prop_assert_eq!(workers.iter().collect::<HashSet<_>>().len(), workers.len());
                    for (subtask, worker) in (0..).zip(workers) {
                        let (process, slot) = (worker.0 / placement.workers_per_process, worker.0 % placement.workers_per_process);
                        prop_assert!(slot < slots[process as usize]);
                        prop_assert_eq!(placement.subtask(node.id, *worker), Some(subtask));
                    }
                }
                // Nodes of one parallelism are side by side, so that forward edges stay in a worker.
                prop_assert_eq!(placement.workers(plan.nodes[0].id), placement.workers(plan.nodes[2].id));
            }
        }
    }
}
