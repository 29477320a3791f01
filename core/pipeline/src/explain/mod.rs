//! The plan as text for people: a block per node with what it does, where its rows come from and how, what it gives; then the plugin files, and who runs what. `json`
//! has the same for programs.
//! The form is stable: tests and diffs may rely on it. Texts of the file are shown as written, so that no secret is.

use crate::{
    guarantee::{self, SinkGuarantee},
    modes,
    placement::Placement,
    plan::{Alignment, AsyncCalls, Exchange, Node, Operator, Output, Plan, ResultOrder, SourceNode, StateBackend, WindowAssigner},
    units::{duration_text, size_text},
};
use serde_json::Value;
use standpipe_formats::{FormatSpec, OnError, OnNull, types};
use standpipe_isolation::{Limits, Sandbox};
use standpipe_loader::PluginFile;
use standpipe_sdk::wire::Encoding;
use std::{
    fmt::{Result, Write},
    path::PathBuf,
    sync::Arc,
};

mod json;

pub use json::json;

/// The plan on processes with so many slots each; none means one process that fits.
#[must_use]
pub fn text(plan: &Plan, slots_of_process: &[u32]) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(plan, slots_of_process, &mut out);
    out
}

fn write(plan: &Plan, slots_of_process: &[u32], out: &mut String) -> Result {
    let (settings, guarantees) = (&plan.settings, guarantee::of(plan));
    writeln!(
        out,
        "{}: {}, {}, {}, plan {:016x}",
        plan.name,
        many(plan.nodes.len(), "node"),
        many(plan.chains.len(), "chain"),
        many(plan.slots() as usize, "slot"),
        plan.hash.0
    )?;
    writeln!(
        out,
        "  parallelism {}, max parallelism {}, batches of {} rows, {} in flight, flushed every {}",
        settings.parallelism,
        settings.max_parallelism,
        settings.batch_rows,
        size_text(settings.in_flight_bytes),
        duration_text(settings.flush_interval)
    )?;
    if let StateBackend::Disk(disk) = &plan.state {
        writeln!(out, "  keyed state on disk, in {}, {} of each subtask's in memory", disk.written(), size_text(disk.cache))?;
    }
    for function in &plan.functions {
        let of = function.kind.plugin();
        writeln!(out, "\nfunctions.{}: function {}", function.name, of.versioned(function.kind.name()))?;
        plugin(&of.name, &of.version, out)?;
    }
    for node in &plan.nodes {
        let chain = plan.chains.iter().position(|chain| chain.nodes.contains(&node.id)).unwrap_or_default();
        writeln!(out, "\n{}: {}, parallelism {}, chain {chain}", node.path, title(&node.operator), node.parallelism)?;
        inputs(plan, node, out)?;
        operator(plan, node, out)?;
        if let Some(limits) = node.isolation() {
            isolation(limits, out)?;
        }
        if let Some(sink) = guarantees.iter().find(|sink| sink.sink == node.id) {
            guarantee(sink, out)?;
        }
        node.outputs.iter().try_for_each(|stream| output(stream, out))?;
    }
    files(plan, out)?;
    workers(plan, slots_of_process, out)
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn title(operator: &Operator) -> String {
    match operator {
        Operator::Source(source) => format!("source {}", source.kind.plugin().versioned(source.kind.name())),
        Operator::Filter(_) => "filter".to_owned(),
        Operator::Project(_) => "select".to_owned(),
        Operator::Union => "union".to_owned(),
        Operator::Transform(transform) => format!("transform {}", transform.kind.plugin().versioned(transform.kind.name())),
        Operator::Window(_) => "window".to_owned(),
        Operator::Aggregate(_) => "aggregate".to_owned(),
        Operator::Encode(_) => "encode".to_owned(),
        Operator::Sink(sink) => format!("sink {}", sink.kind.plugin().versioned(sink.kind.name())),
    }
}

/// The files of plugins, each with the hash of its content.
fn files(plan: &Plan, out: &mut String) -> Result {
    let files = plugin_files(plan);
    if !files.is_empty() {
        writeln!(out, "\nplugins:")?;
    }
    for file in files {
        writeln!(out, "  {} {}, {}", file.name, file.version, file.path.display())?;
        writeln!(out, "    sha256:{}", file.hash())?;
    }
    Ok(())
}

/// The plugins that are files, each once, in the order in which they are used.
fn plugin_files(plan: &Plan) -> Vec<&Arc<PluginFile>> {
    let mut files: Vec<&Arc<PluginFile>> = Vec::new();
    for used in plan.plugins().into_iter().filter(|used| !used.plugin.path.as_os_str().is_empty()) {
        if !files.iter().any(|file| Arc::ptr_eq(file, used.plugin)) {
            files.push(used.plugin);
        }
    }
    files
}

fn inputs(plan: &Plan, node: &Node, out: &mut String) -> Result {
    for edge in plan.inputs(node.id) {
        let from = plan.node(edge.from);
        let output = &from.outputs[edge.output as usize];
        let name = if output.name == "main" { from.name.clone() } else { format!("{}.{}", from.name, output.name) };
        match &edge.exchange {
            Exchange::Forward => writeln!(out, "  <- {name}, forward")?,
            Exchange::Rebalance => writeln!(out, "  <- {name}, rebalance")?,
            Exchange::Hash(columns) => writeln!(out, "  <- {name}, hash of {}", names(output, columns))?,
        }
    }
    Ok(())
}

fn names(output: &Output, columns: &[usize]) -> String {
    columns.iter().map(|column| output.schema.field(*column).name().as_str()).collect::<Vec<_>>().join(", ")
}

fn operator(plan: &Plan, node: &Node, out: &mut String) -> Result {
    match &node.operator {
        Operator::Source(source) => {
            plugin(&source.kind.plugin().name, &source.kind.plugin().version, out)?;
            source_steps(source, node, out)
        }
        Operator::Filter(filter) => writeln!(out, "  where {}", filter.text),
        Operator::Project(project) => {
            let computed = project.columns.iter().filter(|column| column.name != column.text);
            computed.into_iter().try_for_each(|column| writeln!(out, "  {} = {}", column.name, column.text))
        }
        Operator::Union => Ok(()),
        Operator::Transform(transform) => {
            plugin(&transform.kind.plugin().name, &transform.kind.plugin().version, out)?;
            let states = transform.validation.states.iter().map(|(state, _)| state.name.as_str()).collect::<Vec<_>>();
            if let Some(AsyncCalls { capacity, order, timeout }) = &transform.asynchronous {
                let order = match order {
                    ResultOrder::Input => "in the order of the input",
                    ResultOrder::Any => "in any order",
                };
                writeln!(out, "  asynchronous, {capacity} calls at the same time, results {order}, timeout {}", duration_text(*timeout))?;
            }
            if states.is_empty() { Ok(()) } else { writeln!(out, "  keyed state {}", states.join(", ")) }
        }
        Operator::Window(window) => {
            let WindowAssigner::Tumbling { size, offset } = &window.assigner;
            write!(out, "  tumbling {}", duration_text(*size))?;
            if !offset.is_zero() {
                write!(out, ", offset {}", duration_text(*offset))?;
            }
            let input = plan.inputs(node.id).next().map(|edge| &plan.node(edge.from).outputs[edge.output as usize]);
            let time = input.map(|input| input.schema.field(window.time).name().as_str()).unwrap_or_default();
            writeln!(out, " of {time}, allowed lateness {}", duration_text(window.allowed_lateness))?;
            window.aggregates.iter().try_for_each(|aggregate| writeln!(out, "  {} = {}", aggregate.name, aggregate.text))
        }
        Operator::Aggregate(aggregate) => {
            writeln!(out, "  emit {}", format!("{:?}", aggregate.emit).to_lowercase())?;
            aggregate.aggregates.iter().try_for_each(|running| writeln!(out, "  {} = {}", running.name, running.text))
        }
        Operator::Encode(encode) => writeln!(out, "  as {}", encode.format.kind.name()),
        Operator::Sink(sink) => {
            plugin(&sink.kind.plugin().name, &sink.kind.plugin().version, out)?;
            match &sink.input.details.format {
                Some(format) if sink.validation.details.encoding == Encoding::Files => {
                    writeln!(out, "  writes {}", format.get("type").and_then(Value::as_str).unwrap_or_default())
                }
                _ => Ok(()),
            }
        }
    }
}

fn plugin(name: &str, version: &str, out: &mut String) -> Result {
    writeln!(out, "  plugin {name} {version}")
}

/// Where a plugin runs that does not run in the job's process.
fn isolation(limits: &Limits, out: &mut String) -> Result {
    write!(out, "  in a process of its own")?;
    if let Some(memory) = limits.memory {
        write!(out, ", at most {} of memory", size_text(memory))?;
    }
    writeln!(out)?;
    let Some(Sandbox { read, write }) = &limits.sandbox else { return Ok(()) };
    let paths = |paths: &[PathBuf]| match paths {
        [] => "nothing".to_owned(),
        paths => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    writeln!(out, "    files: reads {}; writes {}", paths(read), paths(write))
}

/// What holds of a sink, and every node that weakens it.
fn guarantee(sink: &SinkGuarantee, out: &mut String) -> Result {
    writeln!(out, "  guarantee {}", sink.guarantee)?;
    sink.weaknesses.iter().try_for_each(|weakness| writeln!(out, "    {weakness}"))
}

fn source_steps(source: &SourceNode, node: &Node, out: &mut String) -> Result {
    writeln!(out, "  {}", if source.validation.details.capabilities.bounded { "bounded" } else { "unbounded" })?;
    if let Some(decode) = &source.decode {
        let FormatSpec { kind, on_error, on_null, .. } = &decode.format;
        let policy = match on_error {
            OnError::Fail => "fail",
            OnError::Skip => "skip",
            OnError::DeadLetter => "dead-letter",
        };
        let nulls = match on_null {
            OnNull::Broken => "",
            OnNull::Skip => ", tombstones dropped",
            OnNull::Row => ", tombstones are rows",
        };
        writeln!(out, "  decode {}, on error {policy}{nulls}", kind.name())?;
    }
    if let (Some(time), Some(main)) = (&source.event_time, node.outputs.first()) {
        let column = main.schema.field(time.column).name();
        let (behind, idle) = (duration_text(time.out_of_orderness), duration_text(time.idle_timeout));
        writeln!(out, "  event time {column}, {behind} out of order, idle after {idle}")?;
        if let Some(Alignment { max_drift, group }) = &time.alignment {
            let whom = group.as_ref().map_or("its slowest split".to_owned(), |group| format!("the slowest split of the group {group}"));
            writeln!(out, "  at most {} ahead of {whom}", duration_text(*max_drift))?;
        }
    }
    Ok(())
}

fn output(stream: &Output, out: &mut String) -> Result {
    write!(out, "  -> {}: {}", stream.name, modes::name(stream.mode))?;
    if !stream.key.is_empty() {
        write!(out, ", key {}", stream.key.join(", "))?;
    }
    if let Some(time) = stream.event_time {
        write!(out, ", event time {}", stream.schema.field(time).name())?;
    }
    let column = |field: &arrow_schema::FieldRef| {
        let not_null = if field.is_nullable() { "" } else { " not null" };
        format!("{} {}{not_null}", field.name(), types::type_text(field))
    };
    let columns: Vec<String> = stream.schema.fields().iter().map(column).collect();
    writeln!(out, "\n     {}", columns.join(", "))
}

fn workers(plan: &Plan, slots_of_process: &[u32], out: &mut String) -> Result {
    let fitting = [plan.slots()];
    let slots = if slots_of_process.is_empty() { &fitting } else { slots_of_process };
    let placement = match Placement::new(plan, slots) {
        Ok(placement) => placement,
        Err(too_few) => return writeln!(out, "\nworkers: {too_few}"),
    };
    writeln!(
        out,
        "\nworkers: {} in {}",
        many(slots.iter().sum::<u32>() as usize, "slot"),
        if let [_] = slots { "1 process".to_owned() } else { format!("{} processes", slots.len()) }
    )?;
    for (process, count) in slots.iter().enumerate() {
        for slot in 0..*count {
            let worker = crate::placement::WorkerIndex(process as u32 * placement.workers_per_process + slot);
            let here = |node: &Node| placement.subtask(node.id, worker).map(|subtask| format!("{}[{subtask}]", node.name));
            let tasks: Vec<String> = plan.nodes.iter().filter_map(here).collect();
            let tasks = if tasks.is_empty() { "nothing".to_owned() } else { tasks.join(" ") };
            writeln!(out, "  {}: {tasks}", worker.0)?;
        }
    }
    Ok(())
}
