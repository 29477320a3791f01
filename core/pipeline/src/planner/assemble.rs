//! Drafts to the plan: those that lead to a sink get their numbers, edges and chains; the others are left out with a warning.

use super::{Planner, draft::Draft};
use crate::{
    chain,
    file::RestartStrategy,
    hash,
    plan::{Edge, JobSettings, Node, NodeId, Operator, Plan, PlanHash},
};

impl Planner<'_> {
    pub(super) fn assemble(self) -> Plan {
        let used = self.used();
        self.warn_of_unused(&used);
        let mut ids: Vec<Option<NodeId>> = Vec::with_capacity(self.drafts.len());
        let (mut nodes, mut edges) = (Vec::new(), Vec::new());
        for (draft, used) in self.drafts.into_iter().zip(used) {
            if !used {
                ids.push(None);
                continue;
            }
            let id = NodeId(nodes.len() as u32);
            ids.push(Some(id));
            for (input, read) in (0..).zip(draft.inputs) {
                // What a used draft reads is used, and comes before it.
                let Some(from) = ids[read.from] else { continue };
                edges.push(Edge { from, output: read.output, to: id, input, exchange: read.exchange });
            }
            let Draft { name, path, parallelism, operator, outputs, .. } = draft;
            nodes.push(Node { id, name, path, parallelism, operator, outputs });
        }
        let engine = &self.file.engine;
        let settings = JobSettings {
            parallelism: self.parallelism,
            max_parallelism: engine.max_parallelism,
            batch_rows: engine.batch_rows,
            in_flight_bytes: engine.in_flight_bytes,
            flush_interval: engine.flush_interval,
        };
        let chains = chain::chains(&nodes, &edges);
        let mut plan = Plan {
            name: self.file.name().to_owned(),
            settings,
            checkpoint: self.file.checkpoint.clone(),
            state: engine.state.clone(),
            metrics: engine.metrics,
            restart: self.file.restart.as_ref().map_or(RestartStrategy::None, |restart| restart.strategy.clone()),
            functions: self.expressions.called(),
            nodes,
            edges,
            chains,
            hash: PlanHash(0),
        };
        plan.hash = hash::of(&plan);
        plan
    }

    /// Which drafts lead to a sink.
    fn used(&self) -> Vec<bool> {
        let mut used: Vec<bool> = self.drafts.iter().map(|draft| matches!(draft.operator, Operator::Sink(_))).collect();
        for (at, draft) in self.drafts.iter().enumerate().rev() {
            if used[at] {
                draft.inputs.iter().for_each(|input| used[input.from] = true);
            }
        }
        used
    }

    fn warn_of_unused(&self, used: &[bool]) {
        for (at, draft) in self.drafts.iter().enumerate().filter(|(at, _)| !used[*at]) {
            let is_read = self.drafts.iter().any(|other| other.inputs.iter().any(|input| input.from == at));
            let why = if is_read { "it leads to no sink" } else { "nothing reads it" };
            self.report.warn(draft.span, &draft.path, format!("{why}; it is left out of the plan"));
        }
    }
}
