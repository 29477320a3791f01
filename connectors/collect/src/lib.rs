//! The connector `collect`: a sink whose rows go to whoever asks for them. On a cluster it keeps them in files beside the job (`store`), from where its task manager serves
//! them; in the foreground it prints them, one line of JSON each.
//!
//! It is a plugin as every sink is: it needs nothing of the host that another sink does not have. Where the files go, the environment of a worker process says.
#![deny(unsafe_code)]

mod store;

use arrow_array::{RecordBatch, cast::AsArray};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_formats::{Encoder, FormatKind, FormatSpec, encoder};
use standpipe_sdk::{
    Context, Error, Host, Result, Sink, SinkDeclaration, SinkInput, Written,
    sink::{Capabilities, ChangeMode, Encoding, TypeClass},
    units::Size,
    wire::Problem,
};
use std::{
    env,
    io::{self, ErrorKind, Write},
    path::PathBuf,
};
use store::Store;

standpipe_sdk::export_plugin! { sinks: [CollectSink] }

/// Where a worker's collected rows go; not set: the job runs in the foreground.
const FOLDER: &str = "STANDPIPE_COLLECT_DIR";

/// Keeps rows for whoever collects them; in the foreground prints them as lines of JSON.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct CollectSinkConfig {
    /// How much is kept. When it is full, rows that somebody has read make room for others; where nobody has, the job waits.
    #[serde(default = "buffer")]
    pub buffer: Size,
}

const fn buffer() -> Size {
    Size(64 << 20)
}

/// See [`CollectSinkConfig`].
pub struct CollectSink {
    host: Host,
    place: Place,
}

enum Place {
    Kept(Box<Store>),
    Printed(Box<dyn Encoder>),
}

impl Sink for CollectSink {
    const NAME: &'static str = "collect";
    type Config = CollectSinkConfig;

    fn declare(config: &CollectSinkConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        let empty = Problem { path: "buffer".to_owned(), message: "must be more than nothing".to_owned(), suggestion: None };
        Ok(SinkDeclaration {
            encoding: Encoding::Rows,
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract],
            capabilities: Capabilities { ordered: true, ..Capabilities::default() },
            max_subtasks: Some(1),
            types: vec![TypeClass::Large, TypeClass::View, TypeClass::Nested],
            problems: if config.buffer.0 == 0 { vec![empty] } else { Vec::new() },
            ..SinkDeclaration::default()
        })
    }

    fn open(config: CollectSinkConfig, input: &SinkInput, context: Context) -> Result<Self> {
        let place = match env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
            Some(folder) => {
                let folder = PathBuf::from(folder).join(&context.node);
                Place::Kept(Box::new(Store::open(folder, config.buffer.0 as u64, &input.schema, context.restored)?))
            }
            None => Place::Printed(
                encoder(&FormatSpec::from(FormatKind::Json), input.schema.clone()).map_err(|error| Error::data(error.to_string()))?,
            ),
        };
        Ok(Self { host: context.host, place })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        match &mut self.place {
            Place::Kept(store) => {
                if !store.has_room()? {
                    return Ok(Written::Busy);
                }
                if store.add(batch)? {
                    self.host.ack(seq);
                }
            }
            Place::Printed(encoder) => {
                print(encoder.as_mut(), batch)?;
                self.host.ack(seq);
            }
        }
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        match &mut self.place {
            Place::Kept(store) => store.put(),
            Place::Printed(_) => Ok(()),
        }
    }
}

/// Each row is a line.
fn print(encoder: &mut dyn Encoder, batch: &RecordBatch) -> Result<()> {
    let records = encoder.encode(batch).map_err(|error| Error::data(error.to_string()))?;
    let records = (&records as &dyn arrow_array::Array).as_binary::<i32>();
    let mut lines = Vec::with_capacity(records.values().len() + 2 * batch.num_rows());
    for record in records {
        lines.extend_from_slice(record.unwrap_or_default());
        lines.push(b'\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(&lines).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Error::external("nobody reads standard output any more (broken pipe)"),
        _ => Error::external(format!("cannot write standard output: {error}")),
    })
}
