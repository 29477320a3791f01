//! Sinks: how they are tried, and how they are written to.

mod checks;
mod transactions;

use crate::{
    check::{Check, Stop, seconds},
    configuration,
    data::{self, batch, candidates, records},
    suite::{Case, Settings, Unusable, capabilities, modes},
    watch::Watch,
};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_sdk::{
    Written,
    hosting::{NodeInput, PluginError, SinkInstance, SinkKind, SinkValidation},
    wire::{ChangeMode, Encoding, InputDetails, ROLE, ROLE_ROW_KIND, VALUE_COLUMN},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The checks of a sink, in their order.
pub(crate) const CHECKS: &[Check<SinkCase>] = &[
    Check {
        name: "configuration",
        about: "what is no configuration is refused, with a line and not with a panic",
        run: checks::configuration,
    },
    Check {
        name: "lifecycle",
        about: "instances are made, opened, closed and destroyed in any order that a host may need",
        run: checks::lifecycle,
    },
    Check {
        name: "capabilities",
        about: "what is declared fits together, and what is not declared is not done",
        run: checks::capabilities,
    },
    Check {
        name: "acknowledgements",
        about: "nothing is acknowledged that was not written, and after a flush everything is",
        run: checks::acknowledgements,
    },
    Check { name: "batches", about: "batches without rows, of nulls, cut out of others, and of many rows are taken", run: checks::batches },
    Check { name: "change-modes", about: "streams of every change mode that it takes can be written", run: checks::change_modes },
    Check { name: "busy", about: "a sink that is busy wakes the host when it has room", run: checks::busy },
    Check {
        name: "transactions",
        about: "what is prepared can be committed, twice and by another instance (`transactional`)",
        run: transactions::commit,
    },
    Check { name: "recovery", about: "a restart tells what was committed from what was not (`transactional`)", run: transactions::recover },
    Check { name: "abort", about: "what a job does not go on from can be given up (`transactional`)", run: transactions::abort },
    Check { name: "replay", about: "what was written is taken again by another instance (`idempotent`)", run: checks::replay },
    Check { name: "finish", about: "the end of the input delivers everything", run: checks::finish },
    Check { name: "nonsense", about: "committables that make no sense are errors, not panics", run: transactions::nonsense },
    Check { name: crate::CANCELLATION, about: "calls come back when they are cancelled", run: checks::cancellation },
    Check { name: "release", about: "every array of the host is released", run: checks::release },
    Check { name: "threads", about: "no thread outlives its instance", run: checks::threads },
    Check { name: crate::LEAKS, about: "memory does not grow with the rows", run: checks::leaks },
];

/// How long a host waits before it asks a busy sink again, wake or not.
const AGAIN: Duration = Duration::from_millis(50);
/// Rows of a batch.
const ROWS: usize = 16;

/// A sink and what it is tried with.
pub(crate) struct SinkCase {
    kind: SinkKind,
    settings: Settings,
    /// The rows of its input, as `validate` is told.
    input: NodeInput,
    declared: SinkValidation,
    /// The columns of the batches that it gets.
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Case for SinkCase {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn declares(&self) -> Vec<String> {
        let details = &self.declared.details;
        capabilities(details.capabilities).into_iter().chain(modes(&details.accepts)).collect()
    }
}

pub(crate) fn case(kind: SinkKind, settings: Settings) -> Result<SinkCase, Unusable> {
    let schemas = settings.schema.clone().map_or_else(candidates, |schema| vec![schema]);
    let mut refused = None;
    for schema in schemas {
        let schema = with_mode(&schema, settings.mode);
        let details =
            InputDetails { name: "input".to_owned(), mode: settings.mode, key: settings.key.clone(), format: settings.format.clone() };
        let input = NodeInput { schema, details };
        let declared = kind.validate(&settings.config, &input, "node").map_err(|error| Unusable(error.to_string()))?;
        match declared.details.problems.as_slice() {
            [] => return made(kind, settings, input, declared),
            problems => _ = refused.get_or_insert(configuration::line(problems)),
        }
    }
    Err(Unusable(format!("the configuration is refused: {}", refused.unwrap_or_default())))
}

fn made(kind: SinkKind, settings: Settings, input: NodeInput, declared: SinkValidation) -> Result<SinkCase, Unusable> {
    let schema = instance_schema(&input.schema, &declared).map_err(Unusable)?;
    let mut random = settings.random();
    let rows: Result<Vec<RecordBatch>, Stop> = match settings.rows.as_slice() {
        [] => (0..8).map(|_| batch(&input.schema, ROWS, &mut random)).collect(),
        rows => Ok(rows.iter().filter(|batch| batch.num_rows() > 0).cloned().collect()),
    };
    let is_records = declared.details.encoding == Encoding::Records;
    let encoded = |batch: &RecordBatch| if is_records { records(&schema, batch) } else { Ok(batch.clone()) };
    let batches = rows.and_then(|rows| rows.iter().map(encoded).collect::<Result<Vec<_>, _>>());
    let batches = batches.map_err(|stop| match stop {
        Stop::Skip(why) | Stop::Fail { message: why, .. } => Unusable(why),
    })?;
    match batches.is_empty() {
        true => Err(Unusable("the input has no rows".to_owned())),
        false => Ok(SinkCase { kind, settings, input, declared, schema, batches }),
    }
}

/// An upsert or retract stream has a column that says what a row does.
fn with_mode(schema: &SchemaRef, mode: ChangeMode) -> SchemaRef {
    if mode == ChangeMode::Append || schema.fields().iter().any(|field| data::is_row_kind(field)) {
        return Arc::clone(schema);
    }
    let kind = Field::new("op", DataType::Utf8, false).with_metadata([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())].into());
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([Arc::new(kind)]).collect::<Vec<_>>()))
}

/// Rows, or encoded records and the columns that the sink asks for.
fn instance_schema(rows: &SchemaRef, declared: &SinkValidation) -> Result<SchemaRef, String> {
    if declared.details.encoding != Encoding::Records {
        return Ok(Arc::clone(rows));
    }
    let value = Arc::new(Field::new(VALUE_COLUMN, DataType::Binary, true));
    let asked = declared.details.columns.iter().map(|name| {
        let field = rows.fields().iter().find(|field| field.name() == name);
        field.cloned().ok_or_else(|| format!("the sink asks for the column {name:?}, which the input has not got"))
    });
    let fields = std::iter::once(Ok(value)).chain(asked).collect::<Result<Vec<_>, String>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// A sink that is written to.
struct Writing<'a> {
    instance: SinkInstance,
    watch: Arc<Watch>,
    deadline: Duration,
    seq: u64,
    case: &'a SinkCase,
}

impl SinkCase {
    fn watch(&self) -> Arc<Watch> {
        Watch::new(&self.settings.secrets)
    }

    fn created(&self, watch: &Arc<Watch>, generation: u64) -> Result<SinkInstance, Stop> {
        let input = NodeInput { schema: Arc::clone(&self.schema), details: self.input.details.clone() };
        let instance = self.kind.instance(&self.settings.config, "node", &input, &self.settings.context(generation), watch.clone());
        instance.map_err(|error| Stop::from(error).during("create"))
    }

    /// An open sink: of the first start of a job, or a later one.
    fn open(&self, generation: u64) -> Result<Writing<'_>, Stop> {
        let watch = self.watch();
        let mut instance = self.created(&watch, generation)?;
        instance.open().map_err(|error| Stop::from(error).during("open"))?;
        Ok(Writing { instance, watch, deadline: self.settings.deadline, seq: 0, case: self })
    }

    fn is_transactional(&self) -> bool {
        self.declared.details.capabilities.transactional
    }
}

impl Writing<'_> {
    /// Writes a batch, as often as it takes; how often it was busy.
    fn write(&mut self, batch: &RecordBatch) -> Result<u64, Stop> {
        let (begun, mut busy) = (Instant::now(), 0);
        let seq = self.seq + 1;
        self.watch.give(seq);
        loop {
            let wakes = self.watch.wakes();
            match self.instance.write(seq, batch).map_err(|error| Stop::from(error).during("write"))? {
                Written::Taken => break,
                Written::Busy if begun.elapsed() > self.deadline * 2 => {
                    return Err(Stop::fail(format!("write of batch {seq} has been busy for {}", seconds(begun.elapsed()))));
                }
                Written::Busy => {
                    busy += 1;
                    self.watch.woken(wakes, AGAIN);
                }
            }
        }
        self.seq = seq;
        Ok(busy)
    }

    fn write_all(&mut self) -> Result<(), Stop> {
        let batches = &self.case.batches;
        batches.iter().try_for_each(|batch| self.write(batch).map(drop))
    }

    /// What is written has been delivered: by a transaction where that is how this sink delivers.
    fn deliver(&mut self, checkpoint: u64) -> Result<(), Stop> {
        if !self.case.is_transactional() {
            return self.instance.flush(0).map_err(|error| Stop::from(error).during("flush"));
        }
        let bytes = self.instance.prepare(checkpoint).map_err(|error| Stop::from(error).during("prepare"))?;
        let prepared = [standpipe_sdk::Committable { checkpoint, subtask: 0, bytes }];
        self.instance.commit(checkpoint, &prepared).map_err(|error| Stop::from(error).during("commit"))
    }
}

/// Whether the input's change mode can be another.
fn other_mode(case: &SinkCase, mode: ChangeMode) -> Result<SinkCase, PluginError> {
    let mut settings = case.settings.clone();
    settings.mode = mode;
    if !settings.rows.is_empty() && mode != case.settings.mode {
        settings.rows = Vec::new();
    }
    if settings.key.is_empty() && mode == ChangeMode::Upsert {
        settings.key = case.input.schema.fields().first().map(|field| field.name().clone()).into_iter().collect();
    }
    settings.schema = Some(Arc::clone(&case.input.schema));
    self::case(case.kind.clone(), settings)
        .map_err(|why| PluginError::new(case.kind.origin(), "node", standpipe_sdk::Error::config("", why.0)))
}
