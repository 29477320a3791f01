//! Transforms: how they are tried, and how they are driven: with keyed state in memory, timers, and a watermark that follows the rows.

mod checks;
mod same;

use crate::{
    check::{Check, Stop},
    configuration,
    data::{batch, candidates, is_row_kind},
    rows::{texts, valid},
    suite::{Case, Settings, Unusable, capabilities, modes},
    watch::Watch,
};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_sdk::{
    TimeDomain, Timer,
    hosting::{Begun, Emitted, HostServices as _, KeyedCall, NodeInput, TransformInstance, TransformKind, TransformValidation},
    testing::MemoryState,
    wire::{ChangeMode, InputDetails, ROLE, ROLE_ROW_KIND},
};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// The checks of a transform, in their order.
pub(crate) const CHECKS: &[Check<TransformCase>] = &[
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
    Check { name: "schema", about: "every batch has the columns of its output, and valid Arrow in them", run: checks::schema },
    Check { name: "batches", about: "batches without rows, of nulls, cut out of others, and of many rows are taken", run: checks::batches },
    Check { name: "deterministic", about: "the same rows give the same rows (`deterministic`)", run: same::deterministic },
    Check { name: "batch-sizes", about: "it does not matter how rows are cut into batches (`deterministic`)", run: same::batch_sizes },
    Check { name: "snapshot", about: "from a snapshot it goes on as if nothing had happened", run: same::snapshot },
    Check { name: "timers", about: "timers are set where they were declared, and firing them comes to an end", run: checks::timers },
    Check { name: "nonsense", about: "snapshots and times that make no sense are errors, not panics", run: checks::nonsense },
    Check { name: crate::CANCELLATION, about: "calls come back when they are cancelled", run: checks::cancellation },
    Check { name: "release", about: "every array of the host is released", run: checks::release },
    Check { name: "threads", about: "no thread outlives its instance", run: checks::threads },
    Check { name: crate::LEAKS, about: "memory does not grow with the rows", run: checks::leaks },
];

/// Batches of the made-up input, and their rows.
const BATCHES: usize = 12;
const ROWS: usize = 16;
/// From batch to batch, event time goes on by this.
const STEP_MICROS: i64 = 16_000_000;
/// 2024-01-01, microseconds since the epoch: the event time of the first batch.
const BEGIN_MICROS: i64 = 1_704_067_200_000_000;
/// How often timers are asked for behind the last row: each may set the next.
const TIMERS: usize = 1000;

/// A transform and what it is tried with.
pub(crate) struct TransformCase {
    kind: TransformKind,
    settings: Settings,
    input: NodeInput,
    declared: TransformValidation,
    batches: Vec<RecordBatch>,
}

impl Case for TransformCase {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn declares(&self) -> Vec<String> {
        let details = &self.declared.details;
        let states = self.declared.states.iter().map(|(state, _)| format!("state {}", state.name));
        let timers = details.timers.then(|| "timers".to_owned());
        capabilities(details.capabilities).into_iter().chain(modes(&details.accepts)).chain(states).chain(timers).collect()
    }
}

pub(crate) fn case(kind: TransformKind, settings: Settings) -> Result<TransformCase, Unusable> {
    let schemas = settings.schema.clone().map_or_else(candidates, |schema| vec![schema]);
    let mut refused = None;
    for schema in schemas {
        // First as it was asked for; then by the first column, for those that need a key.
        let first = schema.fields().first().map(|field| field.name().clone()).into_iter().collect::<Vec<_>>();
        let keys = if settings.key.is_empty() { vec![Vec::new(), first] } else { vec![settings.key.clone()] };
        for key in keys {
            let details = InputDetails { name: "input".to_owned(), mode: settings.mode, key, format: None };
            let input = NodeInput { schema: with_mode(&schema, settings.mode), details };
            let keyed = !input.details.key.is_empty();
            let asked = kind.validate("node", &settings.config, std::slice::from_ref(&input), keyed);
            let declared = asked.map_err(|error| Unusable(error.to_string()))?;
            if declared.details.requires_key && !keyed {
                continue;
            }
            match declared.details.problems.as_slice() {
                [] => return made(kind, settings, input, declared),
                problems => _ = refused.get_or_insert(configuration::line(problems)),
            }
        }
    }
    Err(Unusable(format!("the configuration is refused: {}", refused.unwrap_or_default())))
}

fn made(kind: TransformKind, settings: Settings, input: NodeInput, declared: TransformValidation) -> Result<TransformCase, Unusable> {
    let mut random = settings.random();
    let batches: Result<Vec<RecordBatch>, Stop> = match settings.rows.as_slice() {
        [] => (0..BATCHES).map(|_| batch(&input.schema, ROWS, &mut random)).collect(),
        rows => Ok(rows.iter().filter(|batch| batch.num_rows() > 0).cloned().collect()),
    };
    let batches = batches.map_err(|stop| match stop {
        Stop::Skip(why) | Stop::Fail { message: why, .. } => Unusable(why),
    })?;
    match batches.is_empty() {
        true => Err(Unusable("the input has no rows".to_owned())),
        false => Ok(TransformCase { kind, settings, input, declared, batches }),
    }
}

fn with_mode(schema: &SchemaRef, mode: ChangeMode) -> SchemaRef {
    if mode == ChangeMode::Append || schema.fields().iter().any(|field| is_row_kind(field)) {
        return Arc::clone(schema);
    }
    let kind = Field::new("op", DataType::Utf8, false).with_metadata([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())].into());
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([Arc::new(kind)]).collect::<Vec<_>>()))
}

/// A transform that runs, and the state behind its keys.
struct Running {
    instance: TransformInstance,
    watch: Arc<Watch>,
    state: MemoryState,
    /// Positions of the key's columns; none: it has no key.
    key: Vec<usize>,
    /// What has come out, by output.
    out: Vec<Vec<String>>,
    batches: usize,
    /// Within what a call must end that is answered later.
    deadline: Duration,
}

impl TransformCase {
    fn watch(&self) -> Arc<Watch> {
        Watch::new(&self.settings.secrets)
    }

    fn is_keyed(&self) -> bool {
        !self.input.details.key.is_empty()
    }

    fn created(&self, watch: &Arc<Watch>, generation: u64) -> Result<TransformInstance, Stop> {
        let inputs = std::slice::from_ref(&self.input);
        let context = self.settings.context(generation);
        let instance = self.kind.instance(&self.settings.config, "node", inputs, self.is_keyed(), &context, watch.clone());
        instance.map_err(|error| Stop::from(error).during("create"))
    }

    /// An open transform with nothing behind its keys.
    fn open(&self, generation: u64) -> Result<Running, Stop> {
        let watch = self.watch();
        let mut instance = self.created(&watch, generation)?;
        instance.open().map_err(|error| Stop::from(error).during("open"))?;
        let state = MemoryState::new(instance.states().to_vec());
        let key = self.input.details.key.iter().filter_map(|name| self.input.schema.index_of(name).ok()).collect();
        let out = vec![Vec::new(); self.declared.outputs.len()];
        Ok(Running { instance, watch, state, key, out, batches: 0, deadline: self.settings.deadline })
    }

    /// All batches, one after another, with a watermark behind each; then the end.
    fn whole_run(&self) -> Result<Vec<Vec<String>>, Stop> {
        let mut running = self.open(1)?;
        for (at, batch) in self.batches.iter().enumerate() {
            running.process(batch)?;
            running.watermark(at)?;
        }
        running.end()?;
        Ok(running.out)
    }
}

impl Running {
    /// Gives rows, and takes what comes out.
    fn process(&mut self, batch: &RecordBatch) -> Result<(), Stop> {
        let columns = if self.key.is_empty() { None } else { batch.project(&self.key).ok() };
        let emitted = match columns {
            None => return self.process_plain(batch),
            Some(columns) => {
                let grouped = self.state.begin(&columns);
                let keys = KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state: &mut self.state };
                self.instance.process(0, batch, Some(keys))
            }
        };
        self.take(emitted.map_err(|error| Stop::from(error).during("process"))?)
    }

    /// Gives rows without a key: the call may end later, and is waited for.
    fn process_plain(&mut self, batch: &RecordBatch) -> Result<(), Stop> {
        let begun = self.instance.begin(0, batch).map_err(|error| Stop::from(error).during("process"))?;
        let token = match begun {
            Begun::Done(emitted) => return self.take(emitted),
            Begun::Pending(token) => token,
        };
        let end = Instant::now() + self.deadline;
        loop {
            if let Some(ended) = self.instance.ended().into_iter().find(|ended| ended.token == token) {
                return self.take(ended.result.map_err(|error| Stop::from(error).during("a call that ends later"))?);
            }
            // Cancelled, it need not end.
            if self.watch.cancelled() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Stop::fail(format!("a call that is answered later has not ended within {} s", self.deadline.as_secs())));
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Event time has come to where that batch ends; timers that are due fire.
    fn watermark(&mut self, batch: usize) -> Result<(), Stop> {
        self.advance(BEGIN_MICROS + (batch as i64 + 1) * STEP_MICROS)
    }

    fn advance(&mut self, micros: i64) -> Result<(), Stop> {
        let emitted = self.instance.on_watermark(0, micros).map_err(|error| Stop::from(error).during("on_watermark"))?;
        self.take(emitted)?;
        self.fire(TimeDomain::EventTime, micros)
    }

    fn fire(&mut self, domain: TimeDomain, until: i64) -> Result<(), Stop> {
        // Those that are there may all be of different times.
        for _ in 0..self.state.timers().len() + TIMERS {
            let Some((time, slots, columns)) = self.state.due(domain, until) else { return Ok(()) };
            let grouped = self.state.begin(&columns);
            let timer = |(ordinal, slot): (&u32, u32)| Timer { ordinal: *ordinal, slot, time };
            let timers: Vec<Timer> = grouped.key_of_row.iter().zip(slots).map(timer).collect();
            let keys = KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state: &mut self.state };
            let emitted = self.instance.on_timer(domain, &timers, keys).map_err(|error| Stop::from(error).during("on_timer"))?;
            self.take(emitted)?;
        }
        // One that always sets another in what is past would never come to an end.
        Err(Stop::fail(format!("timers that are due set others that are due, {TIMERS} times")))
    }

    /// The end of the input: event time is over, and all timers of the clock are due.
    fn end(&mut self) -> Result<(), Stop> {
        self.advance(BEGIN_MICROS + 1_000_000 * STEP_MICROS)?;
        let emitted = self.instance.finish(0).map_err(|error| Stop::from(error).during("finish"))?;
        self.take(emitted)
    }

    /// What a call gave: looked at, then remembered.
    fn take(&mut self, emitted: Vec<Emitted>) -> Result<(), Stop> {
        for Emitted { output, batch } in emitted {
            valid("a batch that it emitted", &batch)?;
            self.batches += 1;
            if let Some(out) = self.out.get_mut(output as usize) {
                out.extend(texts(&batch)?);
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.out.iter().map(Vec::len).sum()
    }
}
