//! `check`, `explain`, `schema`: all that can be said of a pipeline without running it.

use crate::{
    cli::{ExplainArguments, ExplainFormat, PipelineArguments},
    load::load,
    output::{print, say},
};

/// `standpipe check FILE`.
pub(super) fn check(arguments: &PipelineArguments) -> anyhow::Result<()> {
    let plan = load(arguments)?;
    say!(
        "{}: {} is valid: {} nodes, {} slots, plan {:016x}",
        arguments.file.display(),
        plan.name,
        plan.nodes.len(),
        plan.slots(),
        plan.hash.0
    );
    Ok(())
}

/// `standpipe explain FILE`.
pub(super) fn explain(arguments: &ExplainArguments) -> anyhow::Result<()> {
    let plan = load(&arguments.pipeline)?;
    let text = match arguments.format {
        ExplainFormat::Text => standpipe_pipeline::explain::text(&plan, &[]),
    };
    Ok(print(&text)?)
}

/// `standpipe schema`.
pub(super) fn schema() -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&standpipe_pipeline::schema::json_schema())?;
    Ok(print(&(text + "\n"))?)
}
