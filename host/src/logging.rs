//! Logs: to stderr, as text or JSON lines, never to stdout. `STANDPIPE_LOG` takes a filter as `tracing_subscriber`'s (`info,standpipe_engine=debug`).

use crate::secrets::Stderr;
use clap::ValueEnum;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging; call it once. A line that cannot be written is lost: complaining of it would panic.
pub(crate) fn start(format: LogFormat, level: LevelFilter) {
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("STANDPIPE_LOG").from_env_lossy();
    // The parser of expressions logs what it parses, after substitution: no level shows that.
    let filter = ["sqlparser=off", "datafusion=off"].iter().filter_map(|off| off.parse().ok()).fold(filter, EnvFilter::add_directive);
    let builder = fmt().with_writer(|| Stderr).with_env_filter(filter).log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
