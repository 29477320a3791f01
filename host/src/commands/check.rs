//! `check`, `explain`, `schema`: all that can be said of a pipeline without running it.

use crate::{
    cli::{ExplainArguments, ExplainFormat, PipelineArguments},
    load::load,
};
use std::io::{Write, stdout};

/// `standpipe check FILE`.
pub(super) fn check(arguments: &PipelineArguments) -> anyhow::Result<()> {
    let plan = load(arguments)?;
    eprintln!(
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
    stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// `standpipe schema`.
pub(super) fn schema() -> anyhow::Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer_pretty(&mut out, &standpipe_pipeline::schema::json_schema())?;
    writeln!(out)?;
    Ok(())
}
