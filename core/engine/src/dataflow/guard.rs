//! Runs an operator's logic so that a failure or a panic in it ends the job with its cause, and timely never sees it: a panic in one timely worker would leave the
//! others hanging. What fails is dropped, and with it its rights to send.

use super::time::Time;
use crate::{
    operator::OperatorError,
    runtime::{error::Phase, job::Job, standstill::Watched},
};
use standpipe_pipeline::plan::NodeId;
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};
use timely::progress::frontier::MutableAntichain;

/// The frontiers of an operator's inputs.
pub(crate) type Frontiers<'a> = &'a [MutableAntichain<Time>];

/// One operator's logic: called whenever there is something to do. True: it has more to do though its inputs have ended.
pub(crate) trait Logic {
    /// See the trait.
    fn run(&mut self, frontiers: Frontiers<'_>) -> Result<bool, OperatorError>;
}

/// A logic under guard.
pub(crate) struct Guard {
    job: Arc<Job>,
    /// Whose code runs, kept up to date by the logic.
    running: Rc<Cell<NodeId>>,
    logic: Option<Box<dyn Logic>>,
    watched: Option<Arc<Watched>>,
}

impl Guard {
    /// `subtask`: the one that the logic is of.
    pub(crate) fn new(job: &Arc<Job>, running: Rc<Cell<NodeId>>, subtask: Option<u32>, logic: Option<Box<dyn Logic>>) -> Self {
        let watched = subtask.filter(|_| logic.is_some()).map(|subtask| job.standstill.watch(running.get(), subtask));
        Self { job: Arc::clone(job), running, logic, watched }
    }

    /// Runs the logic, unless the job was given up.
    pub(crate) fn run(&mut self, frontiers: Frontiers<'_>) -> bool {
        let Some(logic) = self.logic.as_mut().filter(|_| !self.job.cancelled()) else {
            (self.logic, self.watched) = (None, None);
            return false;
        };
        if let Some(watched) = &self.watched {
            watched.note(earliest(frontiers));
        }
        match catch_unwind(AssertUnwindSafe(|| logic.run(frontiers))) {
            Ok(Ok(more)) => return more,
            Ok(Err(error)) => self.job.fail_node(self.running.get(), Phase::Running, error),
            Err(panic) => self.job.fail_panic(self.running.get(), &*panic),
        }
        (self.logic, self.watched) = (None, None);
        false
    }
}

/// The earliest timestamp that may still come on any input; `None`: all have ended.
pub(crate) fn earliest(frontiers: Frontiers<'_>) -> Option<Time> {
    frontiers.iter().filter_map(|frontier| frontier.frontier().iter().next().copied()).min()
}
