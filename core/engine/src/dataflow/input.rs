//! The receiving half of the edges into one operator on one worker: batches of other processes are decoded, and the watermarks of all upstream subtasks merged into
//! those of the operator's inputs and of the operator as a whole.

use super::{
    chunk::{Chunk, Item, Mark, Rows},
    time::Time,
    wire::{self, BatchDecoders},
};
use crate::{
    operator::{Micros, NO_WATERMARK, OperatorError},
    watermark::{self, EdgeWatermarks},
};
use timely::dataflow::operators::InputCapability;

/// Hands over the messages that wait at one of timely's inputs.
pub(crate) type Puller = Box<dyn FnMut(&mut dyn FnMut(InputCapability<Time>, &mut Chunk))>;

/// An item as the operator sees it.
pub(crate) enum Received {
    /// Rows of an input.
    Rows { input: u32, rows: Rows },
    /// Event time has moved somewhere.
    Mark {
        /// An input's watermark that is higher now.
        advanced: Option<(u32, Micros)>,
        /// What is new for all inputs together.
        all: Option<Mark>,
    },
}

/// One edge.
struct InEdge {
    input: u32,
    subtasks: EdgeWatermarks,
    merged: Mark,
    decoders: BatchDecoders,
}

/// All edges into an operator.
pub(crate) struct Inputs {
    node: String,
    edges: Vec<InEdge>,
    /// The watermark of each input, by its index.
    inputs: Vec<Micros>,
    all: Mark,
}

const NOTHING_YET: Mark = Mark { time: NO_WATERMARK, idle: false, holder: None };

impl Inputs {
    /// `edges`: the input that each feeds, and how many subtasks are on its other end.
    pub(crate) fn new(node: &str, edges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let edge = |(input, subtasks): (u32, u32)| InEdge {
            input,
            subtasks: EdgeWatermarks::new(subtasks as usize),
            merged: NOTHING_YET,
            decoders: BatchDecoders::new(subtasks as usize),
        };
        let edges: Vec<InEdge> = edges.into_iter().map(edge).collect();
        let inputs = edges.iter().map(|edge| edge.input as usize + 1).max().unwrap_or(0);
        Self { node: node.to_owned(), edges, inputs: vec![NO_WATERMARK; inputs], all: NOTHING_YET }
    }

    /// How many subtasks are on the other ends of all edges.
    pub(crate) fn upstream(&self) -> usize {
        self.edges.iter().map(|edge| edge.subtasks.len()).sum()
    }

    /// Takes an item of an edge.
    pub(crate) fn receive(&mut self, edge: usize, item: Item) -> Result<Received, OperatorError> {
        let from = item.from as usize;
        let entry = &mut self.edges[edge];
        let mark = match entry.decoders.receive(item).map_err(|source| OperatorError::Arrow { node: self.node.clone(), source })? {
            wire::Received::Rows(rows) => return Ok(Received::Rows { input: entry.input, rows }),
            wire::Received::Mark(mark) => mark,
        };
        let Some(merged) = entry.subtasks.update(from, mark) else { return Ok(Received::Mark { advanced: None, all: None }) };
        entry.merged = merged;
        let input = entry.input;
        let known = self.inputs[input as usize];
        let of_input = watermark::merge(self.edges.iter().filter(|e| e.input == input).map(|e| &e.merged), known);
        self.inputs[input as usize] = of_input.time;
        let all = watermark::merge(self.edges.iter().map(|e| &e.merged), self.all.time);
        let all = (all != self.all).then(|| {
            self.all = all.clone();
            all
        });
        Ok(Received::Mark { advanced: (of_input.time > known).then_some((input, of_input.time)), all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dataflow::chunk::Payload, operator::END};

    /// Which input has advanced, and the time and idleness of all if that is new.
    type Moved = (Option<(u32, Micros)>, Option<(Micros, bool)>);

    fn mark(inputs: &mut Inputs, edge: usize, from: u32, time: Micros, idle: bool) -> Moved {
        let item = Item { target: 0, from, payload: Payload::Mark(Mark { time, idle, holder: None }) };
        let Received::Mark { advanced, all } = inputs.receive(edge, item).unwrap() else { panic!("a mark was sent") };
        (advanced, all.map(|all| (all.time, all.idle)))
    }

    #[test]
    fn the_slowest_subtask_of_all_inputs_counts() {
        let mut inputs = Inputs::new("transforms.both", [(0, 2), (1, 1)]);
        assert_eq!(mark(&mut inputs, 0, 0, 10, false), (None, None));
        assert_eq!(mark(&mut inputs, 0, 1, 5, false), (Some((0, 5)), None), "the other input has said nothing");
        assert_eq!(mark(&mut inputs, 1, 0, 7, false), (Some((1, 7)), Some((5, false))));
        assert_eq!(mark(&mut inputs, 0, 1, 20, false), (Some((0, 10)), Some((7, false))));
    }

    #[test]
    fn an_idle_input_is_not_waited_for_and_does_not_go_back() {
        let mut inputs = Inputs::new("transforms.both", [(0, 1), (1, 1)]);
        mark(&mut inputs, 0, 0, 10, false);
        assert_eq!(mark(&mut inputs, 1, 0, NO_WATERMARK, true).1, Some((10, false)));
        assert_eq!(mark(&mut inputs, 1, 0, 3, false), (Some((1, 3)), None), "it comes back behind what has been said");
        assert_eq!(mark(&mut inputs, 0, 0, END, false), (Some((0, END)), None));
        assert_eq!(mark(&mut inputs, 1, 0, END, false), (Some((1, END)), Some((END, false))));
    }

    #[test]
    fn an_input_that_has_ended_does_not_end_one_that_is_idle() {
        let mut inputs = Inputs::new("transforms.both", [(0, 2), (1, 1)]);
        mark(&mut inputs, 0, 0, END, false);
        assert_eq!(mark(&mut inputs, 0, 1, 3, true), (Some((0, 3)), None), "a subtask is idle, the other has ended");
        assert_eq!(mark(&mut inputs, 1, 0, END, false), (Some((1, END)), Some((3, true))), "the operator is idle, not at its end");
        assert_eq!(mark(&mut inputs, 0, 1, 8, false), (Some((0, 8)), Some((8, false))));
        assert_eq!(mark(&mut inputs, 0, 1, END, false), (Some((0, END)), Some((END, false))));
    }

    #[test]
    fn all_idle_is_idle() {
        let mut inputs = Inputs::new("sinks.out", [(0, 2)]);
        mark(&mut inputs, 0, 0, 10, false);
        mark(&mut inputs, 0, 1, 12, false);
        assert_eq!(mark(&mut inputs, 0, 0, 10, true).1, Some((12, false)));
        assert_eq!(mark(&mut inputs, 0, 1, 12, true).1, Some((12, true)));
    }
}
