//! Fusion: which nodes run as one operator. A filter, a select or an encode step joins the chain of the node before it where rows pass from one to the other only,
//! in the same subtask; everything else begins a chain.

use crate::plan::{Chain, Edge, Exchange, Node, NodeId, Operator};

pub(crate) fn chains(nodes: &[Node], edges: &[Edge]) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut chain_of: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        match joins(node, nodes, edges) {
            Some(before) => {
                let chain = chain_of[before.0 as usize];
                chains[chain].nodes.push(node.id);
                chain_of.push(chain);
            }
            None => {
                chain_of.push(chains.len());
                chains.push(Chain { nodes: vec![node.id] });
            }
        }
    }
    chains
}

/// The node whose chain this one joins. It is the last of its chain, for it has no other reader.
fn joins(node: &Node, nodes: &[Node], edges: &[Edge]) -> Option<NodeId> {
    if !matches!(node.operator, Operator::Filter(_) | Operator::Project(_) | Operator::Encode(_)) {
        return None;
    }
    let input = edges.iter().find(|edge| edge.to == node.id)?;
    let before = nodes.get(input.from.0 as usize)?;
    let is_sink = matches!(before.operator, Operator::Sink(_));
    let readers = edges.iter().filter(|edge| edge.from == input.from && edge.output == 0).count();
    (input.exchange == Exchange::Forward && input.output == 0 && readers == 1 && !is_sink).then_some(before.id)
}
