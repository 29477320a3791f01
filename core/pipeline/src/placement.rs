//! The placement table: which worker runs a subtask. It is computed from the plan and the slots of each process alone, so that every process comes to the same
//! table. Timely wants the same number of workers in every process; those beyond a process's slots exist but run nothing.

use crate::plan::{NodeId, Plan};

/// Index of a timely worker: `process * workers_per_process + i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerIndex(pub u32);

/// Which worker runs a subtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Workers of every process, used or not.
    pub workers_per_process: u32,
    /// By node, then by subtask.
    table: Vec<Vec<WorkerIndex>>,
}

/// The processes have fewer slots than the job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the job needs {needed} slots, there are {available}")]
pub struct TooFewSlots {
    /// The highest parallelism of a node.
    pub needed: u32,
    /// Slots of all processes together.
    pub available: u32,
}

impl Placement {
    /// Places every subtask on the slots of the processes.
    ///
    /// Subtask i of every node of one parallelism is on the same worker, so that forward edges stay in a worker; nodes of fewer subtasks than slots are spread evenly.
    ///
    /// # Errors
    /// When a node has more subtasks than there are slots.
    pub fn new(plan: &Plan, slots_of_process: &[u32]) -> Result<Self, TooFewSlots> {
        let workers_per_process = slots_of_process.iter().copied().max().unwrap_or(0);
        let workers: Vec<WorkerIndex> = slots_of_process
            .iter()
            .zip(0_u32..)
            .flat_map(|(&slots, process)| (0..slots).map(move |i| WorkerIndex(process * workers_per_process + i)))
            .collect();
        let (needed, available) = (plan.slots(), workers.len() as u32);
        if needed > available {
            return Err(TooFewSlots { needed, available });
        }
        let row = |parallelism: u32| -> Vec<WorkerIndex> {
            (0..parallelism)
                .filter_map(|i| workers.get((u64::from(i) * u64::from(available) / u64::from(parallelism)) as usize).copied())
                .collect()
        };
        Ok(Self { workers_per_process, table: plan.nodes.iter().map(|node| row(node.parallelism)).collect() })
    }

    /// The process that a worker is in.
    #[must_use]
    pub fn process(&self, worker: WorkerIndex) -> u32 {
        worker.0.checked_div(self.workers_per_process).unwrap_or(0)
    }

    /// The workers of a node's subtasks, in order.
    #[must_use]
    pub fn workers(&self, node: NodeId) -> &[WorkerIndex] {
        self.table.get(node.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The subtask of a node on a worker, if it runs one there.
    #[must_use]
    pub fn subtask(&self, node: NodeId, worker: WorkerIndex) -> Option<u32> {
        self.workers(node).iter().position(|w| *w == worker).map(|i| i as u32)
    }
}
