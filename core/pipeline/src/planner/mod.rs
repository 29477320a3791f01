//! The file's nodes to the plan's: every node is planned after those that it reads, from what they give. One file per verb; `draft` has what they share,
//! `assemble` makes the plan of the drafts that lead to a sink.

mod aggregate;
mod assemble;
mod draft;
mod function;
mod plugin;
mod sink;
mod source;
mod stateless;
mod transform;
mod window;

use crate::{
    diagnostic::{At, Diagnostic, Diagnostics, Report, Span},
    expression::Expressions,
    file::{InputName, Name, PipelineFile, RestartStrategy, TransformBlock, Verb},
    guarantee::{self, Guarantee, SinkGuarantee, Weakness},
    plan::{Operator, Plan},
    resolve::{self, Block},
    suggest,
};
use draft::{Draft, Stream};
use standpipe_loader::Catalogue;
use std::{collections::HashMap, num::NonZeroU32};

/// What the configuration of the installation says where the file is silent.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// Subtasks of a node of a job that says nothing; 1 if this does neither.
    pub parallelism: Option<NonZeroU32>,
}

/// A plan and what is strange about it.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Things that a user should know and that stop nothing.
    pub warnings: Vec<Diagnostic>,
}

impl PipelineFile {
    /// Makes the plan. Plugins are asked what they say to their configuration; no I/O happens.
    ///
    /// # Errors
    /// Everything that is wrong with the file, in its order.
    pub fn plan(&self, catalogue: &Catalogue, defaults: &Defaults) -> Result<Planned, Diagnostics> {
        let report = self.report.clone();
        let parallelism = self.parallelism.as_ref().map(|at| at.value).or(defaults.parallelism.map(NonZeroU32::get)).unwrap_or(1);
        let mut planner = Planner {
            file: self,
            catalogue,
            parallelism,
            report: &report,
            expressions: Expressions::new(Vec::new()),
            drafts: Vec::new(),
            by_name: HashMap::new(),
        };
        if parallelism > self.engine.max_parallelism {
            let span = self.parallelism.as_ref().map_or(Span::default(), |at| at.span);
            planner.too_many(parallelism, span, "parallelism");
        }
        let (functions, refused) = planner.functions();
        planner.expressions = Expressions::new(functions).refusing(refused);
        for block in resolve::in_order(self, &report) {
            planner.block(block);
        }
        planner.refuse_unread_dead_letters();
        planner.warn_of_lone_groups();
        report.check()?;
        self.warn_of_repetition(&report);
        let plan = planner.assemble();
        self.check_guarantees(&plan, &report);
        report.check()?;
        Ok(Planned { plan, warnings: report.take_warnings() })
    }

    /// Refuses a sink that does not hold what is demanded of it.
    fn check_guarantees(&self, plan: &Plan, report: &Report) {
        let demanded = self.sinks.iter().filter_map(|block| Some((&block.name, block.guarantee.as_ref()?)));
        let demanded: Vec<_> = demanded.collect();
        if demanded.is_empty() {
            return;
        }
        for SinkGuarantee { sink, guarantee, weaknesses } in guarantee::of(plan) {
            let path = &plan.node(sink).path;
            let Some((_, wanted)) = demanded.iter().find(|(name, _)| name.path == *path) else { continue };
            if !guarantee.satisfies(wanted.value) {
                let message = format!("{} is demanded, and it is {guarantee}", wanted.value);
                let matters = |weak: &&Weakness| {
                    weak.loses && wanted.value != Guarantee::AtMostOnce || weak.repeats && wanted.value != Guarantee::AtLeastOnce
                };
                let because: Vec<String> = weaknesses.iter().filter(matters).map(Weakness::to_string).collect();
                // Where nothing weakens it, it is as strong as its sink makes it.
                let because = if because.is_empty() {
                    "the sink is not transactional, it replaces what it writes again".to_owned()
                } else {
                    because.join("; ")
                };
                report.error_with_hint(wanted.span, &format!("{path}.guarantee"), message, because);
            }
        }
    }

    /// A job that is started again without a checkpoint reads everything again.
    fn warn_of_repetition(&self, report: &Report) {
        let restart = self.restart.as_ref().filter(|restart| restart.strategy != RestartStrategy::None && self.checkpoint.is_none());
        if let Some(restart) = restart {
            report.warn(restart.span, "restart", "without checkpoint: a job that is started again begins with nothing");
        }
    }
}

pub(crate) struct Planner<'a> {
    file: &'a PipelineFile,
    catalogue: &'a Catalogue,
    /// The job's.
    parallelism: u32,
    report: &'a Report,
    expressions: Expressions,
    /// In topological order.
    drafts: Vec<Draft>,
    /// The draft whose outputs a name stands for.
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Planner<'a> {
    /// Plans a node; one that fails is in the report, and what reads it is passed over.
    fn block(&mut self, block: Block<'a>) {
        let draft = match block {
            Block::Source(source) => self.source(source),
            Block::Transform(transform) => self.transform_block(transform),
            Block::Sink(sink) => self.sink(sink),
        };
        if let Some(draft) = draft {
            self.by_name.insert(&block.name().name, self.drafts.len());
            self.drafts.push(draft);
        }
    }

    fn transform_block(&mut self, block: &TransformBlock) -> Option<Draft> {
        match &block.verb.value {
            Verb::Filter(predicate) => self.filter(block, predicate),
            Verb::Select(items) => self.select(block, items),
            Verb::Union => self.union(block),
            Verb::Transform { kind, with, asynchronous, isolation } => {
                self.transform(block, kind, with, asynchronous.as_ref(), isolation.clone())
            }
            Verb::Aggregate { columns, window: Some(window), .. } => self.window(block, columns, window),
            Verb::Aggregate { columns, window: None, emit } => self.aggregate(block, columns, emit.as_ref()),
        }
    }

    /// The stream of a name; `None` if there is none, which is or was reported.
    fn stream(&self, input: &InputName) -> Option<Stream> {
        let &draft = self.by_name.get(input.node())?;
        let node = &self.drafts[draft];
        if matches!(node.operator, Operator::Sink(_)) && input.output().is_none() {
            // Reported with the names.
            return None;
        }
        let wanted = input.output().unwrap_or("main");
        let Some(output) = node.outputs.iter().position(|output| output.name == wanted) else {
            let names = node.outputs.iter().map(|output| output.name.as_str());
            let (shown, end) = match input.text.secret {
                true => (input.text.written.as_str(), String::new()),
                false => (wanted, suggest::or_list(wanted, names, "outputs")),
            };
            self.report.error(input.span(), &input.path, format!("{:?} has no output {shown:?}{end}", node.name));
            return None;
        };
        if input.output().is_some() {
            node.warn_if_empty(wanted, input, self.report);
        }
        let columns = &node.outputs[output];
        let name = if wanted == "main" { node.name.clone() } else { format!("{}.{wanted}", node.name) };
        if let Some(twice) = draft::double_column(columns) {
            let message = format!("{name} has two columns {twice:?}; give the one of the rows another name before {}", node.name);
            self.report.error(input.span(), &input.path, message);
            return None;
        }
        Some(Stream {
            draft,
            output: u32::try_from(output).unwrap_or(u32::MAX),
            parallelism: node.parallelism,
            bounded: node.bounded,
            columns: columns.clone(),
            name,
            span: input.span(),
            path: input.path.clone(),
        })
    }

    /// The streams of all inputs.
    fn streams(&self, inputs: &[InputName]) -> Option<Vec<Stream>> {
        let streams: Vec<Option<Stream>> = inputs.iter().map(|input| self.stream(input)).collect();
        streams.into_iter().collect()
    }

    /// The stream of a verb that takes one.
    fn only_stream(&self, block: &TransformBlock, verb: &str) -> Option<Stream> {
        let [input] = block.inputs.as_slice() else {
            let name = &block.name;
            let message = format!("{verb} takes one input, not {}; join them by a transform with union: true", block.inputs.len());
            self.report.error(name.span, &name.path, message);
            return None;
        };
        self.stream(input)
    }

    /// Subtasks of a node: its own, or the job's.
    fn parallelism_of(&self, own: Option<&At<u32>>, name: &Name) -> Option<u32> {
        let Some(own) = own else { return Some(self.parallelism) };
        if own.value > self.file.engine.max_parallelism {
            self.too_many(own.value, own.span, &format!("{}.parallelism", name.path));
            return None;
        }
        Some(own.value)
    }

    fn too_many(&self, parallelism: u32, span: Span, path: &str) {
        let most = self.file.engine.max_parallelism;
        self.report.error(span, path, format!("{parallelism} is more than engine.max_parallelism, which is {most}"));
    }
}
