//! `plugin list`, and which kinds `plugin check` tries; `plugin inspect` is `inspect`, `plugin new` is `scaffold`, `plugin lock` is `lock`.

use super::{inspect, lock, scaffold};
use crate::{
    cli::{CheckArguments, OutputFormat, PluginCommand, PluginPath},
    conformance::{self, Known},
    output::{print, say},
    plugins,
};
use std::fmt::Write as _;

/// `standpipe plugin ...`.
pub(super) fn plugin(command: &PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::New(arguments) => scaffold::new(arguments),
        PluginCommand::List { plugins } => list(plugins),
        PluginCommand::Inspect { file, format, json } => inspect::inspect(file, *json || *format == OutputFormat::Json),
        PluginCommand::Lock(arguments) => lock::lock(arguments),
        PluginCommand::Manifest { file } => inspect::manifest(file),
        PluginCommand::Declared { file } => conformance::child::declared(file),
        PluginCommand::Check(arguments) => check(arguments),
        PluginCommand::Try => conformance::child::run(),
    }
}

fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let Some(file) = arguments.file.as_deref().filter(|_| !arguments.list) else { return conformance::list() };
    let manifest = inspect::read(file)?;
    let known = |kind: standpipe_loader::KindDescription| Known { kind: kind.kind, name: kind.name };
    let kinds: Vec<Known> = manifest.description.kinds.into_iter().map(known).collect();
    conformance::check(arguments, file, &kinds)
}

fn list(arguments: &PluginPath) -> anyhow::Result<()> {
    let catalogue = plugins::discover(&[], &arguments.plugin_path)?;
    let mut text = String::new();
    for plugin in catalogue.plugins() {
        for kind in &plugin.description.kinds {
            let (path, note) = (plugin.path.display(), plugins::note(&catalogue, plugin, kind));
            writeln!(text, "{:<10} {:<18} {} {}  {path}{note}", kind.kind, kind.name, plugin.name, plugin.version)?;
        }
    }
    print(&text)?;
    for failure in catalogue.failures().iter().filter(|failure| !plugins::is_asked_for(&catalogue, failure)) {
        say!("warning: {failure}");
    }
    if catalogue.plugins().is_empty() {
        let searched: Vec<String> =
            catalogue.searched().iter().map(|entry| format!("{} ({})", entry.path.display(), entry.origin)).collect();
        say!("no plugins found; searched: {}", searched.join(", "));
    }
    Ok(())
}
