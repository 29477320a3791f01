//! `checkpoint list`, `inspect`, `discard`: what a job can go on from.

use crate::{
    checkpoints::{failure, open},
    cli::{CheckpointCommand, OutputFormat},
    exit::{Code, Failure},
    load,
    output::{columns, print, say},
};
use chrono::{DateTime, SecondsFormat};
use standpipe_checkpoint::{Kind, Manifest, Store};
use standpipe_pipeline::LoadOptions;
use std::{fmt::Write, path::Path};

/// `standpipe checkpoint ...`.
pub(super) fn checkpoint(command: &CheckpointCommand) -> anyhow::Result<()> {
    match command {
        CheckpointCommand::List(of) => {
            let store = store(&of.file, &of.set)?;
            let ids = store.list().map_err(|error| failure(&error))?;
            let manifests: Vec<Manifest> =
                ids.iter().map(|id| store.read(*id)).collect::<Result<_, _>>().map_err(|error| failure(&error))?;
            let text = |manifests: &[Manifest]| columns(&HEADER.map(str::to_owned), &manifests.iter().map(row).collect::<Vec<_>>());
            show(of.format, &manifests, text)
        }
        CheckpointCommand::Inspect { of, id } => {
            let store = store(&of.file, &of.set)?;
            let found = match id {
                Some(id) => store.read(*id).map(Some),
                None => store.latest(),
            };
            let Some(manifest) = found.map_err(|error| failure(&error))? else {
                return Err(Failure::error(Code::Usage, format!("there is no checkpoint in {}", store.place())));
            };
            show(of.format, &[manifest], |manifests| manifests.iter().map(|manifest| describe(&store, manifest)).collect())
        }
        CheckpointCommand::Discard { of, id } => {
            let store = store(&of.file, &of.set)?;
            store.discard(*id).map_err(|error| failure(&error))?;
            say!("{id} is removed from {}", store.place());
            Ok(())
        }
    }
}

/// The checkpoints of a pipeline file's job.
pub(super) fn store(file: &Path, set: &[(String, String)]) -> anyhow::Result<Store> {
    let options = LoadOptions { parallelism: None, set: set.to_vec(), settings: Vec::new() };
    let pipeline = load::read(file, &options)?;
    let Some(settings) = &pipeline.checkpoint else {
        return Err(Failure::error(Code::Usage, format!("{} takes no checkpoints: it has no checkpoint:", file.display())));
    };
    open(settings, pipeline.name())
}

fn show(format: OutputFormat, manifests: &[Manifest], text: impl FnOnce(&[Manifest]) -> String) -> anyhow::Result<()> {
    let text = match format {
        OutputFormat::Text => text(manifests),
        OutputFormat::Json => {
            let lines = manifests.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            lines.iter().map(|line| format!("{line}\n")).collect()
        }
    };
    Ok(print(&text)?)
}

const HEADER: [&str; 6] = ["NUMBER", "KIND", "TAKEN", "TOOK", "SIZE", "RUN"];

fn row(manifest: &Manifest) -> Vec<String> {
    let (all, own) = manifest.sizes();
    let size = if all == own { bytes(all) } else { format!("{}, {} new", bytes(all), bytes(own)) };
    let took = format!("{:.0} ms", manifest.took_micros as f64 / 1000.0);
    vec![manifest.id.to_string(), kind(manifest).to_owned(), time(manifest.triggered_micros), took, size, manifest.generation.to_string()]
}

fn kind(manifest: &Manifest) -> &'static str {
    match (manifest.kind, manifest.drained) {
        (Kind::Checkpoint, false) => "checkpoint",
        (Kind::Checkpoint, true) => "drained",
        (Kind::Savepoint, _) => "savepoint",
    }
}

fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

fn time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map_or_else(|| micros.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn describe(store: &Store, manifest: &Manifest) -> String {
    let mut text = String::new();
    let (_, own) = manifest.sizes();
    // Writing to a text does not fail.
    _ = writeln!(text, "{} {} of {}, run {} ({})", kind(manifest), manifest.id, manifest.job, manifest.generation, manifest.job_id);
    _ = writeln!(
        text,
        "taken {} in {:.0} ms by standpipe {}",
        time(manifest.triggered_micros),
        manifest.took_micros as f64 / 1000.0,
        manifest.standpipe
    );
    _ = writeln!(text, "plan {}, {} key groups, {} written for it", manifest.plan, manifest.max_parallelism, bytes(own));
    _ = writeln!(text, "{}\n", store.manifest_place(manifest));
    for (path, used) in &manifest.plugins {
        _ = writeln!(text, "{path}: {}@{} of plugin {}, sha256:{}", used.kind, used.version, used.plugin, used.sha256);
    }
    if !manifest.plugins.is_empty() {
        text.push('\n');
    }
    let rows = manifest.nodes.iter().flat_map(|(path, node)| {
        node.tables.iter().map(move |(table, files)| {
            let sum = |of: fn(&standpipe_checkpoint::FileRef) -> u64| files.iter().map(of).sum::<u64>();
            let subtasks = node.parallelism.to_string();
            vec![
                path.clone(),
                node.operator.clone(),
                subtasks,
                table.clone(),
                sum(|file| file.rows).to_string(),
                bytes(sum(|file| file.bytes)),
            ]
        })
    });
    text.push_str(&columns(&["NODE", "OPERATOR", "SUBTASKS", "TABLE", "ROWS", "SIZE"].map(str::to_owned), &rows.collect::<Vec<_>>()));
    text
}
