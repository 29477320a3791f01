//! A host that only loads, as of plugin ABI 1.0: `mini-host JOB.json FILE...` loads the files, says what they hold, and runs the job by one thread:
//! `{"source": ["numbers", {...}], "transforms": [["serial", {...}]], "sink": ["parts", {...}]}`, or asks a deployment mode about a job:
//! `{"deployment": ["shelf", {...}], "handle": {...}}`. It stands for every host that was built before a plugin.
//!
//! Rows go through as they are: a sink of records gets each row as the text of its number.
#![forbid(unsafe_code)]

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use serde_json::{Value, json};
use standpipe_loader::{
    Catalogue, CloseReason, Committable, InstanceContext, NodeInput, Polled, SearchEntry, SearchPath, SinkInstance, SplitPosition, TransformInstance,
    Written,
    wire::{Encoding, InputDetails},
};
use standpipe_sdk::testing::TestHost;
use std::{error::Error, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn context(node: &str) -> InstanceContext {
    let (job_id, job_name) = ("0".repeat(32), "museum".to_owned());
    InstanceContext { job_id, job_name, node: node.to_owned(), parallelism: 1, max_parallelism: 128, generation: 1, ..InstanceContext::default() }
}

fn input(schema: arrow_schema::SchemaRef) -> NodeInput {
    NodeInput { schema, details: InputDetails { name: "input".to_owned(), ..InputDetails::default() } }
}

/// `["name", {configuration}]`.
fn named(node: &Value) -> Outcome<(&str, &Value)> {
    node[0].as_str().map(|name| (name, &node[1])).ok_or_else(|| format!("{node} is no [name, configuration]").into())
}

/// All rows of a source, by its enumerator and its positions: a reader is given up in the middle, and another goes on.
fn read(catalogue: &Catalogue, node: &Value) -> Outcome<Vec<RecordBatch>> {
    let (name, config) = named(node)?;
    let (source, host) = (catalogue.source(name)?, Arc::new(TestHost::default()));
    let mut enumerator = source.enumerator(config, &context("source"), host.clone())?;
    enumerator.open()?;
    let mut splits = Vec::new();
    loop {
        let found = enumerator.discover(Duration::from_secs(1))?;
        splits.extend(found.added.into_iter().map(|split| SplitPosition { split: split.split, details: split.details, position: None }));
        if found.exhausted {
            break;
        }
    }
    let mut batches = Vec::new();
    let mut left = splits.len();
    while left > 0 {
        let mut reader = source.reader(config, &context("source"), host.clone())?;
        reader.open()?;
        reader.assign(&splits)?;
        // So many polls of each reader.
        for _ in 0..3 {
            match reader.poll(8192, 1 << 20, Duration::from_millis(10))? {
                Polled::Batch { split, batch, position, .. } => {
                    batches.push(batch);
                    splits.iter_mut().filter(|known| known.split == split).for_each(|known| known.position = Some(position.clone()));
                }
                Polled::EndOfSplit(split) => {
                    splits.retain(|known| known.split != split);
                    left -= 1;
                }
                _ => {}
            }
        }
        reader.close(CloseReason::Stopped)?;
    }
    Ok(batches)
}

fn transform(catalogue: &Catalogue, node: &Value, batches: &[RecordBatch]) -> Outcome<Vec<RecordBatch>> {
    let (name, config) = named(node)?;
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let inputs = [input(first.schema())];
    let kind = catalogue.transform(name)?;
    let make = || -> Outcome<TransformInstance> {
        let mut instance = kind.instance(config, "transform", &inputs, false, &context("transform"), Arc::new(TestHost::default()))?;
        instance.open()?;
        Ok(instance)
    };
    let mut instance = make()?;
    let mut out = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        if number == batches.len() / 2 {
            let snapshot = instance.snapshot()?;
            instance = make()?;
            instance.restore(&[&snapshot])?;
        }
        out.extend(instance.process(0, batch, None)?.into_iter().filter(|emitted| emitted.output == 0).map(|emitted| emitted.batch));
    }
    instance.close(CloseReason::Finished)?;
    Ok(out)
}

/// The rows as records: each is the text of its number.
fn records(batch: &RecordBatch, from: usize) -> Outcome<RecordBatch> {
    let texts = (from..from + batch.num_rows()).map(|row| row.to_string());
    let value: ArrayRef = Arc::new(BinaryArray::from_iter_values(texts));
    Ok(RecordBatch::try_from_iter([("value", value)])?)
}

fn write(catalogue: &Catalogue, node: &Value, batches: &[RecordBatch]) -> Outcome<usize> {
    let (name, config) = named(node)?;
    let Some(first) = batches.first() else { return Ok(0) };
    let (kind, host) = (catalogue.sink(name)?, Arc::new(TestHost::default()));
    let details = kind.validate(config, &input(first.schema()), "sink")?.details;
    let as_records = details.encoding == Encoding::Records;
    let schema = if as_records { records(first, 0)?.schema() } else { first.schema() };
    let mut sink: SinkInstance = kind.instance(config, "sink", &input(schema), &context("sink"), host.clone())?;
    sink.open()?;
    let mut rows = 0;
    for (seq, batch) in (1..).zip(batches) {
        let given = if as_records { records(batch, rows)? } else { batch.clone() };
        while sink.write(seq, &given)? == Written::Busy {
            host.wait_until(Duration::from_secs(1), |host| host.wakes() > 0);
        }
        rows += batch.num_rows();
    }
    if details.capabilities.transactional {
        let prepared = [Committable { checkpoint: 1, subtask: 0, bytes: sink.prepare(1)? }];
        sink.commit(1, &prepared)?;
    } else {
        sink.flush(1)?;
    }
    if host.acknowledged() != batches.len() as u64 {
        return Err(format!("{} of {} batches are acknowledged", host.acknowledged(), batches.len()).into());
    }
    sink.finish()?;
    sink.close(CloseReason::Finished)?;
    Ok(rows)
}

/// What a deployment mode says of a job's handle.
fn ask_deployment(catalogue: &Catalogue, node: &Value, handle: &Value) -> Outcome<()> {
    let (name, config) = named(node)?;
    let handle = handle.as_object().ok_or("a handle is an object")?;
    let mut instance = catalogue.deployment(name)?.instance(config, Arc::new(TestHost::default()))?;
    match instance.status(handle) {
        Ok(status) => println!("{}", json!({ "state": status.state })),
        Err(error) => println!("{}", json!({ "refused": error.to_string() })),
    }
    Ok(())
}

fn run() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let job: Value = serde_json::from_slice(&std::fs::read(arguments.next().ok_or("mini-host JOB.json FILE...")?)?)?;
    let entries = arguments.map(|file| SearchEntry { path: PathBuf::from(file), origin: "the command line".to_owned() }).collect();
    let catalogue = Catalogue::discover(&SearchPath { entries });
    if let Some(failure) = catalogue.failures().first() {
        return Err(failure.to_string().into());
    }
    for plugin in catalogue.plugins() {
        let kinds: Vec<&str> = plugin.description.kinds.iter().map(|kind| kind.name.as_str()).collect();
        println!("{}", json!({ "plugin": plugin.name, "version": plugin.version, "abi": plugin.abi.to_string(), "kinds": kinds }));
    }
    if job.is_null() {
        return Ok(());
    }
    if !job["deployment"].is_null() {
        return ask_deployment(&catalogue, &job["deployment"], &job["handle"]);
    }
    let mut batches = read(&catalogue, &job["source"])?;
    let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
    for node in job["transforms"].as_array().into_iter().flatten() {
        batches = transform(&catalogue, node, &batches)?;
    }
    let written = write(&catalogue, &job["sink"], &batches)?;
    println!("{}", json!({ "read": read, "written": written }));
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
