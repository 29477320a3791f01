//! Where an operator's cuts are. What comes with the timestamp of a later checkpoint waits until everything before that cut has come, which the frontier of the
//! operator's inputs says; then the operator's state is the cut's, and what waited is taken.

use super::{
    chunk::Item,
    guard::{Frontiers, earliest},
    output::{Outputs, Rights},
    time::{CheckpointId, Time, checkpoint},
};
use std::collections::VecDeque;
use timely::dataflow::operators::InputCapability;

/// The right to answer a message: while it is handled, or kept beyond that.
pub(crate) enum Right<'a> {
    Lent(&'a InputCapability<Time>),
    Kept(&'a Rights),
}

impl Right<'_> {
    /// Keeps it; one per port.
    pub(crate) fn retain(&self, ports: usize) -> Rights {
        match self {
            Self::Lent(right) => Outputs::retain(right, ports),
            Self::Kept(rights) => Rights::clone(rights),
        }
    }

    /// Ships what waits.
    pub(crate) fn flush(&self, outputs: &mut Outputs) {
        match self {
            Self::Lent(right) => outputs.flush_for(right),
            Self::Kept(rights) => outputs.flush(rights),
        }
    }
}

/// A message of a later checkpoint.
struct Held {
    checkpoint: CheckpointId,
    edge: usize,
    items: Vec<Item>,
    rights: Rights,
}

/// See the module's documentation.
pub(crate) struct Aligner {
    /// The last cut; what is behind it, up to the next one, is taken. `None`: there are no cuts.
    behind: Option<CheckpointId>,
    held: VecDeque<Held>,
}

impl Aligner {
    /// `behind`: the cut before the first one of this run.
    pub(crate) fn new(behind: Option<CheckpointId>) -> Self {
        Self { behind, held: VecDeque::new() }
    }

    /// Holds a message back if it is of a later checkpoint: then there is nothing to take.
    pub(crate) fn hold(&mut self, edge: usize, right: &InputCapability<Time>, items: &mut Vec<Item>, ports: usize) -> bool {
        let of = checkpoint(*right.time());
        if self.behind.is_none_or(|behind| of <= behind) {
            return false;
        }
        self.held.push_back(Held { checkpoint: of, edge, items: std::mem::take(items), rights: Outputs::retain(right, ports) });
        true
    }

    /// The next cut, if everything before it has come: the operator's state is to be reported now, and then what was held ([`Self::next_held`]) to be taken.
    pub(crate) fn next_cut(&mut self, frontiers: Frontiers<'_>) -> Option<CheckpointId> {
        let behind = self.behind?;
        let first_held = self.held.iter().map(|held| held.checkpoint).min();
        let next = match earliest(frontiers).map(checkpoint) {
            Some(frontier) => first_held.map_or(frontier, |held| held.min(frontier)),
            // Nothing more comes: what is held is all there is.
            None => first_held?,
        };
        (next > behind).then(|| {
            self.behind = Some(next);
            next
        })
    }

    /// The next message that is behind the last cut.
    pub(crate) fn next_held(&mut self) -> Option<(usize, Vec<Item>, Rights)> {
        let behind = self.behind?;
        let at = self.held.iter().position(|held| held.checkpoint <= behind)?;
        self.held.remove(at).map(|held| (held.edge, held.items, held.rights))
    }
}
