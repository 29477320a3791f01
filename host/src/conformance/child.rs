//! The child process of `plugin check`: loads the plugin, tries one kind of it, and notes each step before it is made. Its main thread calls nothing of the plugin's, so that a plugin
//! that does not come back is noticed. `Declared` is the child of `inspect`: what kinds say about their defaults.

use super::{
    input,
    task::{Event, Node, Task},
};
use crate::{
    exit::{Code, Failure},
    load,
    output::print,
};
use serde_json::{Map, Value, json};
use standpipe_conformance::{Ready, Subject, Suite};
use standpipe_loader::{Catalogue, SearchEntry, SearchPath};
use standpipe_pipeline::{
    LoadOptions, Plan,
    plan::{NodeId, Operator},
    substitute,
};
use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _, stdin},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long a plugin may take to be loaded and to say what it thinks of a configuration.
const PATIENCE: Duration = Duration::from_secs(60);

/// `standpipe plugin try`.
pub(crate) fn run() -> anyhow::Result<()> {
    // It goes with whoever has started it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut told = Vec::new();
    stdin().read_to_end(&mut told)?;
    let task: Task = serde_json::from_slice(&told)?;
    let mut events = OpenOptions::new().append(true).open(&task.events)?;
    let mut note = move |event: &Event| -> anyhow::Result<()> {
        let line = serde_json::to_string(event)? + "\n";
        Ok(events.write_all(line.as_bytes())?)
    };
    let (done, prepared) = mpsc::channel();
    thread::Builder::new().name("prepare".to_owned()).spawn(move || _ = done.send(prepare(&task)))?;
    let (kind, name, ready) = match prepared.recv_timeout(PATIENCE) {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(error)) => return note(&Event::Unusable(format!("{error:#}"))),
        Err(_) => {
            let why = format!(
                "the plugin has not been loaded, or has not said what it thinks of its configuration, within {} s",
                PATIENCE.as_secs()
            );
            return note(&Event::Unusable(why));
        }
    };
    let checks: Vec<String> = ready.checks().iter().map(|check| check.name.to_owned()).collect();
    note(&Event::Subject { kind, name, checks: checks.clone() })?;
    for check in checks {
        note(&Event::Began(check.clone()))?;
        note(&Event::Found(ready.run(&check)))?;
    }
    Ok(())
}

fn usage(message: impl ToString) -> anyhow::Error {
    Failure::error(Code::Usage, message)
}

fn catalogue(file: &Path) -> anyhow::Result<Catalogue> {
    let entry = SearchEntry { path: file.to_owned(), origin: "the command line".to_owned() };
    let catalogue = Catalogue::discover(&SearchPath { entries: vec![entry] });
    match catalogue.failures().first() {
        None => Ok(catalogue),
        Some(failure) => Err(usage(failure)),
    }
}

/// The suite of a task; it has asked the plugin about its configuration.
fn prepare(task: &Task) -> anyhow::Result<(String, String, Ready)> {
    let suite = match &task.pipeline {
        Some(node) => of_node(task, node)?,
        None => Suite::new(subject(&catalogue(&task.file)?, &task.kind, &task.name)?, task.config.clone()),
    };
    let mut suite = suite.seed(task.seed).deadline(task.deadline).secrets(substitute::resolve);
    if let Some(batches) = task.batches {
        suite = suite.batches(batches);
    }
    if !task.key.is_empty() {
        suite = suite.key(&texts(&task.key));
    }
    if let Some(types) = &task.arguments {
        suite = suite.arguments(&input::types(types)?);
    }
    if let Some(columns) = &task.schema {
        suite = suite.schema(input::schema(columns)?);
    }
    if let Some(file) = &task.input {
        let rows = input::rows(file, suite.input_schema())?;
        suite = suite.input(rows);
    }
    let suite = suite.only(&texts(&task.only));
    let (kind, name) = (suite.subject().kind().to_owned(), suite.subject().name().to_owned());
    let ready = suite.prepare().map_err(|why| usage(format!("{kind} {name}: {why}{}", hint(&kind, task))))?;
    Ok((kind, name, ready))
}

/// What else the user can say.
fn hint(kind: &str, task: &Task) -> &'static str {
    match kind {
        _ if task.pipeline.is_some() => "",
        "transform" | "sink" if task.schema.is_none() && task.input.is_none() => {
            " (--config has the configuration, --schema the columns of the input, --key those of its key; --pipeline and --node take all from a pipeline)"
        }
        _ if task.config.as_object().is_some_and(Map::is_empty) => {
            " (--config has the configuration; --pipeline and --node take it from a pipeline)"
        }
        _ if task.config.as_object().is_some_and(Map::is_empty) => " (--config has the configuration)",
        _ => "",
    }
}

fn texts(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn subject(catalogue: &Catalogue, kind: &str, name: &str) -> anyhow::Result<Subject> {
    Ok(match kind {
        "source" => (*catalogue.source(name).map_err(usage)?).clone().into(),
        "transform" => (*catalogue.transform(name).map_err(usage)?).clone().into(),
        "sink" => (*catalogue.sink(name).map_err(usage)?).clone().into(),
        "scalar" => (*catalogue.scalar(name).map_err(usage)?).clone().into(),
        "aggregate" => (*catalogue.aggregate(name).map_err(usage)?).clone().into(),
        "deployment" => (*catalogue.deployment(name).map_err(usage)?).clone().into(),
        other => return Err(usage(format!("{name}: this host knows no kind of plugin that is called {other:?}"))),
    })
}

/// The suite of a node of a pipeline: with its configuration, and made-up rows of its input.
fn of_node(task: &Task, node: &Node) -> anyhow::Result<Suite> {
    let pipeline = load::read(&node.file, &LoadOptions { set: node.set.clone(), ..LoadOptions::default() })?;
    let plugins: Vec<_> = std::iter::once(task.file.clone()).chain(node.plugin_path.iter().cloned()).collect();
    // A file that is tried need not be in the pipeline's lock.
    let plan = load::plan(&pipeline, &plugins, None)?;
    let Some(found) = plan.nodes.iter().find(|known| known.path == node.name || known.name == node.name) else {
        let names = plan.nodes.iter().map(|node| node.path.as_str()).collect::<Vec<_>>().join(", ");
        return Err(usage(format!("{}: there is no node {:?}; there are: {names}", node.file.display(), node.name)));
    };
    let (suite, plugin) = match &found.operator {
        Operator::Source(source) => (Suite::new((*source.kind).clone(), source.config.clone()), source.kind.plugin()),
        Operator::Transform(transform) => {
            let mut suite = Suite::new((*transform.kind).clone(), transform.config.clone());
            if let Some(input) = transform.inputs.first() {
                suite = suite.schema(input.schema.clone()).mode(input.details.mode).key(&texts(&input.details.key));
            }
            (suite, transform.kind.plugin())
        }
        Operator::Sink(sink) => {
            let details = &sink.input.details;
            let suite = Suite::new((*sink.kind).clone(), sink.config.clone()).mode(details.mode).key(&texts(&details.key));
            let rows = rows_of(&plan, found.id).unwrap_or_else(|| sink.input.schema.clone());
            (suite.schema(rows).format(details.format.clone().or_else(|| Some(json!({"type": "json"})))), sink.kind.plugin())
        }
        _ => return Err(usage(format!("{}: {} is no node of a plugin", node.file.display(), found.path))),
    };
    let (of_node, asked) = (plugin.path.canonicalize()?, task.file.canonicalize()?);
    match of_node == asked {
        true => Ok(suite),
        false => {
            Err(usage(format!("{}: {} is a node of {}, not of {}", node.file.display(), found.path, of_node.display(), asked.display())))
        }
    }
}

/// The rows of a sink before they are encoded.
fn rows_of(plan: &Plan, sink: NodeId) -> Option<arrow_schema::SchemaRef> {
    let mut edge = plan.inputs(sink).next()?;
    if matches!(plan.node(edge.from).operator, Operator::Encode(_)) {
        edge = plan.inputs(edge.from).next()?;
    }
    Some(plan.node(edge.from).outputs.get(edge.output as usize)?.schema.clone())
}

/// `standpipe plugin declared`: by `KIND NAME` what each declares, null where that depends on a configuration.
pub(crate) fn declared(file: &Path) -> anyhow::Result<()> {
    let catalogue = catalogue(file)?;
    let mut said = Map::new();
    for kind in catalogue.plugins().iter().flat_map(|plugin| &plugin.description.kinds) {
        let suite = subject(&catalogue, &kind.kind, &kind.name).map(|subject| Suite::new(subject, json!({})));
        let declares = suite.ok().and_then(|suite| suite.prepare().ok()).map(|ready| ready.declares());
        said.insert(format!("{} {}", kind.kind, kind.name), declares.map_or(Value::Null, Value::from));
    }
    Ok(print(&Value::Object(said).to_string())?)
}
