//! Which columns may differ when the same rows are computed again: what depends on the clock, on chance, or on how rows happen to fall into batches, and all that is
//! computed from it. A sink that tells rows apart by such a column takes what is written again for another row.

use super::{Cause, Weakness};
use crate::plan::{Emit, Node, NodeId, Operator, Output, Plan, SinkNode};
use datafusion_common::tree_node::TreeNode;
use datafusion_physical_expr::{PhysicalExpr, utils::collect_columns};
use std::{collections::HashMap, sync::Arc};

/// Where a column's chance comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chance {
    /// The node: `transforms.stamped`.
    path: String,
    /// Why, for people: `now() differs each time that it is computed`.
    why: String,
    /// The sink's column that has it.
    column: String,
}

impl Chance {
    fn new(node: &Node, why: String) -> Self {
        Self { path: node.path.clone(), why, column: String::new() }
    }

    pub(super) fn weakness(self, sink: &Node) -> Weakness {
        Weakness {
            cause: Cause::Chance,
            path: self.path,
            why: format!("{}, and {} tells rows apart by the column {:?} that comes of it", self.why, sink.path, self.column),
            remedy: format!("choose for the id of {} columns that are the same each time", sink.path),
            loses: false,
            repeats: true,
        }
    }
}

/// By column; `None`: it is the same each time.
type Columns = Vec<Option<Chance>>;

/// The columns of every output of every node.
pub(super) struct Chances(HashMap<(NodeId, u32), Columns>);

pub(super) fn of(plan: &Plan) -> Chances {
    let mut chances = Chances(HashMap::new());
    for node in &plan.nodes {
        let inputs: Vec<&Columns> = plan.inputs(node.id).filter_map(|edge| chances.0.get(&(edge.from, edge.output))).collect();
        let outputs: Vec<Columns> = node.outputs.iter().map(|output| columns(node, output, &inputs)).collect();
        chances.0.extend((0..).zip(outputs).map(|(output, columns)| ((node.id, output), columns)));
    }
    chances
}

impl Chances {
    /// The first column that a sink tells rows apart by and that may differ.
    pub(super) fn of_identity(&self, plan: &Plan, node: &Node, sink: &SinkNode) -> Option<Chance> {
        let edge = plan.inputs(node.id).next()?;
        let columns = self.0.get(&(edge.from, edge.output))?;
        let id = &sink.validation.details.id;
        let mut named = sink.input.schema.fields().iter().map(|field| field.name()).zip(columns);
        // One that does not say which may use any.
        let (column, chance) = named.find(|(name, chance)| chance.is_some() && (id.is_empty() || id.contains(name)))?;
        chance.clone().map(|chance| Chance { column: column.clone(), ..chance })
    }
}

/// The columns of an output of a node, from those of its inputs.
fn columns(node: &Node, output: &Output, inputs: &[&Columns]) -> Columns {
    let count = output.schema.fields().len();
    let passed = || (0..count).map(|column| inputs.iter().find_map(|input| input.get(column)?.clone())).collect();
    let any = || inputs.iter().flat_map(|input| input.iter()).find_map(Clone::clone);
    let of = |column: usize| inputs.first().and_then(|input| input.get(column)?.clone());
    let mut columns: Columns = match &node.operator {
        Operator::Source(_) => Vec::new(),
        Operator::Filter(_) | Operator::Union | Operator::Sink(_) => passed(),
        Operator::Project(project) => {
            project.columns.iter().map(|column| of_expression(node, &column.expression, &column.text, of)).collect()
        }
        Operator::Transform(transform) if !transform.validation.details.capabilities.deterministic => {
            let why = format!("{} does not say of itself that it gives the same rows each time", transform.kind.name());
            vec![Some(Chance::new(node, why)); count]
        }
        Operator::Transform(_) => vec![any(); count],
        Operator::Window(_) if output.name == "late" => passed(),
        Operator::Window(window) => {
            let keys = window.keys.iter().map(|key| of(*key)).chain([of(window.time), of(window.time)]);
            let aggregates = window.aggregates.iter().map(|aggregate| {
                let arguments = aggregate.function.expressions();
                arguments.iter().find_map(|argument| of_expression(node, argument, &aggregate.text, of))
            });
            keys.chain(aggregates).collect()
        }
        Operator::Aggregate(aggregate) => {
            let computed = aggregate.aggregates.iter().map(|running| match aggregate.emit {
                Emit::Changes => {
                    let why = format!("{} is given as often as batches happen to come (emit: changes)", running.text);
                    Some(Chance::new(node, why))
                }
                Emit::Final | Emit::Each => running.arguments.iter().find_map(|argument| of_expression(node, argument, &running.text, of)),
            });
            aggregate.keys.iter().map(|key| of(*key)).chain(computed).collect()
        }
        Operator::Encode(encode) => std::iter::once(any()).chain(encode.columns.iter().map(|column| of(*column))).collect(),
    };
    // What the host adds behind, such as the row kind or the reason of a reject.
    columns.resize(count, None);
    columns
}

fn of_expression(node: &Node, expression: &Arc<dyn PhysicalExpr>, text: &str, of: impl Fn(usize) -> Option<Chance>) -> Option<Chance> {
    // The closures do not fail, and so the walks do not.
    if expression.exists(|inner| Ok(inner.is_volatile_node())).unwrap_or(true) {
        return Some(Chance::new(node, format!("{text} differs each time that it is computed")));
    }
    let mut read: Vec<usize> = collect_columns(expression).iter().map(|column| column.index()).collect();
    read.sort_unstable();
    read.into_iter().find_map(of)
}
