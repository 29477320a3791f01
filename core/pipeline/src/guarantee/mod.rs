//! What a sink may be relied on to hold after any failure: computed from the plan and from what its plugins say of themselves, together with the nodes that weaken it.
//!
//! Two questions decide: may a row be lost, and may it be there twice? A row is lost where its source cannot give it again. A row is written again where a source is
//! read again; that is as if it had been written once if the sink commits with checkpoints, or tells rows apart by columns that do not differ from one computation to
//! the next (`chance`). SEMANTICS of each word: docs/operations.md, "Guarantees". Called by `check`, `explain` and, for a sink that demands one, the planner.

mod chance;

use crate::plan::{Node, NodeId, Operator, Plan, SinkNode, SourceNode};
use std::{collections::BTreeSet, fmt};

/// How often a row's effect is in a sink after any failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Once: what a sink shows is what checkpoints cover.
    ExactlyOnce,
    /// As if once: what is written again replaces itself.
    EffectivelyOnce,
    /// Once or more.
    AtLeastOnce,
    /// Once or not at all.
    AtMostOnce,
    /// Nothing can be said.
    None,
}

/// What a pipeline file may demand.
pub(crate) const WORDS: [(&str, Guarantee); 4] = [
    ("exactly-once", Guarantee::ExactlyOnce),
    ("effectively-once", Guarantee::EffectivelyOnce),
    ("at-least-once", Guarantee::AtLeastOnce),
    ("at-most-once", Guarantee::AtMostOnce),
];

impl Guarantee {
    /// Whether whoever wants the other has it with this one.
    #[must_use]
    pub fn satisfies(self, wanted: Self) -> bool {
        match wanted {
            Self::ExactlyOnce => self == Self::ExactlyOnce,
            Self::EffectivelyOnce => matches!(self, Self::ExactlyOnce | Self::EffectivelyOnce),
            Self::AtLeastOnce => !matches!(self, Self::AtMostOnce | Self::None),
            Self::AtMostOnce => !matches!(self, Self::AtLeastOnce | Self::None),
            Self::None => true,
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS.iter().find(|(_, guarantee)| guarantee == self).map_or("none", |(word, _)| word))
    }
}

/// What weakens a sink's guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A source that cannot give again what it gave.
    Source,
    /// The job takes no checkpoints.
    Checkpoint,
    /// What a sink tells rows apart by differs from one computation to the next.
    Chance,
    /// A sink that shows at once what it is given, and cannot tell that it had it before.
    Sink,
}

/// A node that weakens a sink's guarantee.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weakness {
    /// What it is about.
    pub cause: Cause,
    /// The node (`sources.ticks`), or `checkpoint`.
    pub path: String,
    /// Why, one line for people.
    pub why: String,
    /// What would be stronger.
    pub remedy: String,
    /// Rows may be lost by it.
    pub loses: bool,
    /// Rows may be there twice by it.
    pub repeats: bool,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.why, self.remedy)
    }
}

/// The guarantee of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkGuarantee {
    /// The sink.
    pub sink: NodeId,
    /// What holds.
    pub guarantee: Guarantee,
    /// What keeps it from being stronger, in the order of the data.
    pub weaknesses: Vec<Weakness>,
}

/// The guarantees of all sinks, in the order of the plan.
#[must_use]
pub fn of(plan: &Plan) -> Vec<SinkGuarantee> {
    let chances = chance::of(plan);
    let sinks = plan.nodes.iter().filter_map(|node| match &node.operator {
        Operator::Sink(sink) => Some((node, sink)),
        _ => None,
    });
    sinks.map(|(node, sink)| of_sink(plan, node, sink, &chances)).collect()
}

fn of_sink(plan: &Plan, node: &Node, sink: &SinkNode, chances: &chance::Chances) -> SinkGuarantee {
    let upstream = upstream(plan, node.id);
    let can = sink.validation.details.capabilities;
    let commits = can.transactional && plan.checkpoint.is_some();
    let differs = if can.idempotent && !commits { chances.of_identity(plan, node, sink) } else { None };
    let absorbs = commits || (can.idempotent && differs.is_none());
    let sources: Vec<(&Node, &SourceNode)> = upstream.iter().filter_map(|id| source(plan.node(*id))).collect();
    let mut weaknesses: Vec<Weakness> =
        sources.iter().filter(|(_, source)| !replays(source)).map(|(node, source)| once(node, source)).collect();
    let again: Vec<&(&Node, &SourceNode)> = sources.iter().filter(|(_, source)| replays(source)).collect();
    if plan.checkpoint.is_none() && !again.is_empty() {
        weaknesses.extend(without_checkpoint(&again, absorbs));
    }
    // Rows come again where a source is read again, and where state of a checkpoint gives them again.
    let repeats = !again.is_empty() || (plan.checkpoint.is_some() && upstream.iter().any(|id| keeps_rows(plan.node(*id))));
    if repeats && !absorbs {
        match differs {
            Some(chance) => weaknesses.push(chance.weakness(node)),
            // It does commit, but with checkpoints: their absence is said.
            None if can.transactional => {}
            None => weaknesses.push(shows_at_once(node, sink)),
        }
    }
    let (loses, repeats) = (weaknesses.iter().any(|weak| weak.loses), weaknesses.iter().any(|weak| weak.repeats));
    let guarantee = match (loses, repeats) {
        (false, false) if commits => Guarantee::ExactlyOnce,
        (false, false) => Guarantee::EffectivelyOnce,
        (false, true) => Guarantee::AtLeastOnce,
        (true, false) => Guarantee::AtMostOnce,
        (true, true) => Guarantee::None,
    };
    SinkGuarantee { sink: node.id, guarantee, weaknesses }
}

/// All nodes before a node, in topological order.
fn upstream(plan: &Plan, of: NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(id) = open.pop() {
        open.extend(plan.inputs(id).map(|edge| edge.from).filter(|from| found.insert(*from)));
    }
    found
}

fn source(node: &Node) -> Option<(&Node, &SourceNode)> {
    match &node.operator {
        Operator::Source(source) => Some((node, source)),
        _ => None,
    }
}

fn replays(source: &SourceNode) -> bool {
    source.validation.details.capabilities.replayable
}

/// Whether a node may give again, from its state in a checkpoint, what it gave after that.
fn keeps_rows(node: &Node) -> bool {
    match &node.operator {
        Operator::Window(_) | Operator::Aggregate(_) => true,
        Operator::Transform(transform) => !transform.validation.states.is_empty(),
        _ => false,
    }
}

fn once(node: &Node, source: &SourceNode) -> Weakness {
    Weakness {
        cause: Cause::Source,
        path: node.path.clone(),
        why: format!("{} cannot give its rows again: at a failure, those that were not delivered are lost", source.kind.name()),
        remedy: "take a source that is replayable".to_owned(),
        loses: true,
        repeats: false,
    }
}

/// The job begins with nothing; `None` where that does no harm.
fn without_checkpoint(sources: &[&(&Node, &SourceNode)], absorbs: bool) -> Option<Weakness> {
    let passes_over = |(_, source): &&&(&Node, &SourceNode)| {
        let can = source.validation.details.capabilities;
        !can.bounded && !can.rewinds
    };
    let passing = sources.iter().find(passes_over);
    let why = match passing {
        None if absorbs => return None,
        Some((node, _)) => format!("there is none: after a failure {} begins anew, and passes over what came before that", node.path),
        None => "there is none: after a failure everything is read and written again".to_owned(),
    };
    Some(Weakness {
        cause: Cause::Checkpoint,
        path: "checkpoint".to_owned(),
        why,
        remedy: "add checkpoint: {interval: 10s}".to_owned(),
        loses: passing.is_some(),
        repeats: !absorbs,
    })
}

fn shows_at_once(node: &Node, sink: &SinkNode) -> Weakness {
    Weakness {
        cause: Cause::Sink,
        path: node.path.clone(),
        why: format!(
            "{} is neither transactional nor idempotent as it is configured: rows that come again are there twice",
            sink.kind.name()
        ),
        remedy: "see whether a key of it, such as an id, changes that".to_owned(),
        loses: false,
        repeats: true,
    }
}
