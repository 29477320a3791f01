//! `check`, `explain`, `schema`: all that can be said of a pipeline without running it.

use crate::{
    cli::{ExplainArguments, ExplainFormat, PipelineArguments},
    commands::deploy,
    load::load,
    output::{print, say},
};
use standpipe_pipeline::{
    Plan,
    guarantee::{self, Cause, SinkGuarantee, Weakness},
};
use std::collections::BTreeSet;

/// `standpipe check FILE`.
pub(super) fn check(arguments: &PipelineArguments) -> anyhow::Result<()> {
    let plan = load(arguments)?;
    deploy::check(arguments)?;
    say!(
        "{}: {} is valid: {} nodes, {} slots, plan {:016x}",
        arguments.file.display(),
        plan.name,
        plan.nodes.len(),
        plan.slots(),
        plan.hash.0
    );
    say_guarantees(arguments, &guarantee::of(&plan), &plan);
    Ok(())
}

/// What each sink may be relied on to hold after a failure, and why it is not more; a source that cannot be read again is worth a warning.
fn say_guarantees(arguments: &PipelineArguments, guarantees: &[SinkGuarantee], plan: &Plan) {
    for sink in guarantees {
        say!("{}: {}", plan.node(sink.sink).path, sink.guarantee);
        for weakness in sink.weaknesses.iter().filter(|weakness| weakness.cause != Cause::Source) {
            say!("  {weakness}");
        }
    }
    let sources: BTreeSet<&Weakness> =
        guarantees.iter().flat_map(|sink| &sink.weaknesses).filter(|weakness| weakness.cause == Cause::Source).collect();
    for source in sources {
        say!("warning: {}: {source}", arguments.file.display());
    }
}

/// `standpipe explain FILE`.
pub(super) fn explain(arguments: &ExplainArguments) -> anyhow::Result<()> {
    let plan = load(&arguments.pipeline)?;
    let text = match arguments.format {
        ExplainFormat::Text => standpipe_pipeline::explain::text(&plan, &[]),
        ExplainFormat::Json => serde_json::to_string_pretty(&standpipe_pipeline::explain::json(&plan))? + "\n",
    };
    Ok(print(&text)?)
}

/// `standpipe schema`.
pub(super) fn schema() -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&standpipe_pipeline::schema::json_schema())?;
    Ok(print(&(text + "\n"))?)
}
