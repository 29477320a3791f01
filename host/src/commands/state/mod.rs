//! `state query`: what a checkpoint holds, as tables for SQL. `place` finds the checkpoint, `tables` makes tables of its files, `rows` prints what comes out. Reads
//! only, and disturbs nobody.

mod place;
pub(super) mod rows;
mod tables;

use crate::{
    checkpoints::failure,
    cli::{StateCommand, StateQuery},
    exit::{Code, Failure},
};
use datafusion::{
    common::TableReference,
    error::DataFusionError,
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use futures_util::StreamExt;
use rows::Printer;
use standpipe_checkpoint::CheckpointError;
use std::sync::Arc;
use tables::Tables;

/// `standpipe state ...`.
pub(super) fn state(command: &StateCommand) -> anyhow::Result<()> {
    let StateCommand::Query(query) = command;
    let (store, manifest) = place::find(query)?;
    let tables = Tables::new(Arc::new(store), &manifest);
    match query.sql.as_deref().map(str::trim).filter(|sql| !is_listing(sql)) {
        Some(sql) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
            let result = runtime.block_on(run(sql, query, &tables));
            // Before the store, which has a runtime of its own that must not end inside of this one.
            drop(runtime);
            result
        }
        None => rows::list(&tables.list().map_err(|error| failure(&error))?, query.format),
    }
}

/// `SHOW TABLES` is what is shown without a query.
fn is_listing(sql: &str) -> bool {
    let words: Vec<&str> = sql.trim_end_matches(';').split_whitespace().collect();
    words.is_empty() || matches!(words[..], [show, tables] if show.eq_ignore_ascii_case("show") && tables.eq_ignore_ascii_case("tables"))
}

async fn run(sql: &str, query: &StateQuery, tables: &Tables) -> anyhow::Result<()> {
    let context = SessionContext::new_with_config(configuration());
    let state = context.state();
    let dialect = state.config_options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(|error| refused(&error))?;
    for reference in state.resolve_table_references(&statement).map_err(|error| refused(&error))? {
        let table = tables.find(&reference).map_err(|message| Failure::error(Code::Usage, message))?;
        let provider = table.provider().await.map_err(|error| broken(&error))?;
        if let TableReference::Partial { schema, .. } = &reference {
            tables::add_schema(&context, schema).map_err(|error| broken(&error))?;
        }
        context.register_table(reference, provider).map_err(|error| broken(&error))?;
    }
    // What is there is only read.
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, options).await.map_err(|error| refused(&error))?;
    let mut printer = Printer::new(frame.schema().as_arrow(), query.format);
    let mut stream = frame.execute_stream().await.map_err(|error| broken(&error))?;
    while let Some(batch) = stream.next().await {
        if !printer.add(&batch.map_err(|error| broken(&error))?)? {
            return Ok(());
        }
    }
    printer.finish()
}

/// Names are case-sensitive, as in a pipeline file.
fn configuration() -> SessionConfig {
    let mut config = SessionConfig::new();
    let parser = &mut config.options_mut().sql_parser;
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    config
}

/// A query that is wrong.
fn refused(error: &DataFusionError) -> anyhow::Error {
    Failure::error(Code::Usage, format!("the query: {}", reason(error)))
}

/// A query that cannot be answered.
fn broken(error: &DataFusionError) -> anyhow::Error {
    if let DataFusionError::External(inner) = error.find_root()
        && let Some(error) = inner.downcast_ref::<CheckpointError>()
    {
        return failure(error);
    }
    Failure::error(Code::Failed, format!("the query: {}", reason(error)))
}

/// DataFusion's words, on one line.
fn reason(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lists_the_tables() {
        for sql in ["", ";", "SHOW TABLES", "show  tables ;"] {
            assert!(is_listing(sql), "{sql:?}");
        }
        for sql in ["select 1", "show tables from x", "show"] {
            assert!(!is_listing(sql), "{sql:?}");
        }
    }
}
