//! Names to a graph: which node reads which, in an order in which every node comes after those that it reads. Finds unknown names and cycles.
//! The outputs behind the dot (`NAME.late`) are the planner's to find: it alone knows them, once the node is planned.

use crate::{
    diagnostic::Report,
    file::{InputName, Name, PipelineFile, SinkBlock, SourceBlock, TransformBlock},
};
use std::collections::HashMap;

/// A node of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Block<'a> {
    Source(&'a SourceBlock),
    Transform(&'a TransformBlock),
    Sink(&'a SinkBlock),
}

impl<'a> Block<'a> {
    pub(crate) fn name(self) -> &'a Name {
        match self {
            Self::Source(block) => &block.name,
            Self::Transform(block) => &block.name,
            Self::Sink(block) => &block.name,
        }
    }

    pub(crate) fn inputs(self) -> &'a [InputName] {
        match self {
            Self::Source(_) => &[],
            Self::Transform(block) => &block.inputs,
            Self::Sink(block) => std::slice::from_ref(&block.input),
        }
    }
}

/// The nodes in topological order; those of a cycle, and what reads them, are left out and reported.
pub(crate) fn in_order<'a>(file: &'a PipelineFile, report: &Report) -> Vec<Block<'a>> {
    let sources = file.sources.iter().map(Block::Source);
    let transforms = file.transforms.iter().map(Block::Transform);
    let blocks: Vec<Block<'a>> = sources.chain(transforms).chain(file.sinks.iter().map(Block::Sink)).collect();
    let index: HashMap<&str, usize> = blocks.iter().enumerate().map(|(i, block)| (block.name().name.as_str(), i)).collect();
    report_unknown(file, &blocks, &index, report);
    let mut walk =
        Walk { blocks: &blocks, index: &index, report, state: vec![State::New; blocks.len()], path: Vec::new(), order: Vec::new() };
    for block in 0..blocks.len() {
        walk.visit(block);
    }
    walk.order.into_iter().map(|i| blocks[i]).collect()
}

fn report_unknown(file: &PipelineFile, blocks: &[Block<'_>], index: &HashMap<&str, usize>, report: &Report) {
    let unread = file.unread.names.iter().map(String::as_str);
    let readable = blocks.iter().filter(|block| !matches!(block, Block::Sink(_))).map(|block| block.name().name.as_str());
    let mut names: Vec<&str> = readable.chain(unread).collect();
    names.sort_unstable();
    for (block, input) in blocks.iter().flat_map(|block| block.inputs().iter().map(move |input| (block, input))) {
        match index.get(input.node()).map(|i| blocks[*i]) {
            None if file.unread.has(input) => {}
            None => {
                let others = names.iter().copied().filter(|name| *name != block.name().name);
                let message = format!("there is no node {:?}{}", input.shown_node(), input.text.or_list(others, "nodes"));
                report.error(input.span(), &input.path, message);
            }
            Some(other) if is_refused(other, input) => {
                let message = format!("{0:?} is a sink; only {0}.errors, the rows that it rejects, can be read", other.name().name);
                report.error(input.span(), &input.path, message);
            }
            Some(_) => {}
        }
    }
}

/// A sink gives nothing but what it rejects.
fn is_refused(read: Block<'_>, input: &InputName) -> bool {
    matches!(read, Block::Sink(_)) && input.output().is_none()
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
    /// In a cycle, or behind one.
    Broken,
}

struct Walk<'a, 'b> {
    blocks: &'b [Block<'a>],
    index: &'b HashMap<&'a str, usize>,
    report: &'b Report,
    state: Vec<State>,
    path: Vec<usize>,
    order: Vec<usize>,
}

impl Walk<'_, '_> {
    /// Depth first; a file has at most a thousand nodes, and so this is at most as deep.
    fn visit(&mut self, at: usize) {
        match self.state[at] {
            State::New => {}
            State::Open => return self.cycle(at),
            State::Done | State::Broken => return,
        }
        self.state[at] = State::Open;
        self.path.push(at);
        for input in self.blocks[at].inputs() {
            let Some(&next) = self.index.get(input.node()) else { continue };
            if is_refused(self.blocks[next], input) {
                continue;
            }
            self.visit(next);
            if self.state[next] == State::Broken {
                self.state[at] = State::Broken;
            }
        }
        self.path.pop();
        if self.state[at] == State::Open {
            self.state[at] = State::Done;
            self.order.push(at);
        }
    }

    fn cycle(&mut self, at: usize) {
        let begin = self.path.iter().position(|open| *open == at).unwrap_or(0);
        // Each of these reads the next one, and the last one reads the first.
        let members = &self.path[begin..];
        let in_flow = [at].into_iter().chain(members.iter().skip(1).rev().copied()).chain([at]);
        let names: Vec<&str> = in_flow.map(|i| self.blocks[i].name().name.as_str()).collect();
        let name = self.blocks[at].name();
        let message = if members.len() == 1 {
            format!("{:?} reads itself", name.name)
        } else {
            format!("the nodes are in a cycle: {}", names.join(" -> "))
        };
        self.report.error(name.span, &name.path, message);
        for member in members {
            self.state[*member] = State::Broken;
        }
    }
}
