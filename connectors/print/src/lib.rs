//! The connector `print`: a sink that writes records to standard output, one per line, as soon as they come.
//!
//! The host encodes rows by the pipeline's `format` before they get here. Whole batches are written at once, so that a reader of the output sees whole lines. For
//! files, and for output that is large, there is the connector `file`.
#![deny(unsafe_code)]

use arrow_array::{Array, RecordBatch, cast::AsArray};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Context, Error, Host, Result, Sink, SinkDeclaration, SinkInput, Written,
    sink::{Capabilities, ChangeMode, Encoding},
};
use std::io::{self, ErrorKind, Write};

standpipe_sdk::export_plugin! { sinks: [PrintSink] }

/// Writes records to standard output, one per line.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct PrintSinkConfig {
    /// What each line begins with.
    #[serde(default)]
    pub prefix: String,
}

/// Writes records to standard output.
pub struct PrintSink {
    prefix: String,
    host: Host,
    /// The lines of a batch; kept for its memory.
    lines: Vec<u8>,
}

impl Sink for PrintSink {
    const NAME: &'static str = "print";
    type Config = PrintSinkConfig;

    fn declare(_: &PrintSinkConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration {
            encoding: Encoding::Records,
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract],
            capabilities: Capabilities { ordered: true, ..Capabilities::default() },
            max_subtasks: Some(1),
            ..SinkDeclaration::default()
        })
    }

    fn open(config: PrintSinkConfig, _: &SinkInput, context: Context) -> Result<Self> {
        Ok(Self { prefix: config.prefix, host: context.host, lines: Vec::new() })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        let values = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        let values = values.ok_or_else(|| Error::data("a batch of records must begin with a binary column"))?;
        self.lines.clear();
        self.lines.reserve(values.values().len() + values.len() * (self.prefix.len() + 1));
        for record in values {
            self.lines.extend_from_slice(self.prefix.as_bytes());
            // A record that is null (a tombstone) has no bytes; its line stays empty.
            self.lines.extend_from_slice(record.unwrap_or_default());
            self.lines.push(b'\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(&self.lines).and_then(|()| out.flush()).map_err(cannot_write)?;
        self.host.ack(seq);
        Ok(Written::Taken)
    }

    /// Everything has been written in `write`.
    fn flush(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn cannot_write(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::BrokenPipe => Error::external("nobody reads standard output any more (broken pipe)"),
        _ => Error::external(format!("cannot write standard output: {error}")),
    }
}
