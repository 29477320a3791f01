//! `plugin list` and `plugin inspect`; `plugin new` is `scaffold`, `plugin lock` is `lock`.

use super::{lock, scaffold};
use crate::{
    cli::{PluginCommand, PluginPath},
    exit::{Code, Failure},
    output::{print, say},
    plugins,
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    fmt::Write as _,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

/// `standpipe plugin ...`.
pub(super) fn plugin(command: &PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::New(arguments) => scaffold::new(arguments),
        PluginCommand::List { plugins } => list(plugins),
        PluginCommand::Inspect { file, json } => inspect(file, *json),
        PluginCommand::Lock(arguments) => lock::lock(arguments),
        PluginCommand::Manifest { file } => manifest(file),
    }
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

/// What the child process of `inspect` prints.
#[derive(Serialize, Deserialize)]
struct Manifest {
    path: String,
    name: String,
    version: String,
    abi: String,
    flavour: String,
    hash: String,
    description: standpipe_loader::wire::Description,
}

/// The child: a manifest function that crashes ends this process, not the one that the user called.
fn manifest(file: &Path) -> anyhow::Result<()> {
    let plugin = standpipe_loader::inspect(file).map_err(|error| Failure::error(Code::Usage, error))?;
    let manifest = Manifest {
        path: plugin.path.display().to_string(),
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        abi: plugin.abi.to_string(),
        flavour: plugin.flavour.to_string(),
        hash: plugin.hash(),
        description: plugin.description.clone(),
    };
    Ok(print(&serde_json::to_string(&manifest)?)?)
}

fn inspect(file: &Path, json: bool) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("cannot find the standpipe binary")?;
    let output = Command::new(own).args(["plugin", "manifest"]).arg(file).stderr(Stdio::piped()).output()?;
    if let Some(signal) = output.status.signal() {
        return Err(Failure::error(Code::Usage, format!("{}: its manifest function crashed (signal {signal})", file.display())));
    }
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::error(Code::Usage, text.trim().trim_start_matches("error: ")));
    }
    let manifest: Manifest = serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::error(Code::Usage, format!("{}: its manifest function printed something or ended the process: {error}", file.display()))
    })?;
    let text = if json { serde_json::to_string_pretty(&manifest)? + "\n" } else { describe(&manifest)? };
    Ok(print(&text)?)
}

fn describe(manifest: &Manifest) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{} {}", manifest.name, manifest.version)?;
    writeln!(text, "  file     {}", manifest.path)?;
    writeln!(text, "  content  {}", manifest.hash)?;
    writeln!(text, "  abi      {} ({})", manifest.abi, manifest.flavour)?;
    let build: Vec<String> = manifest.description.build.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect();
    writeln!(text, "  build    {}", build.join(", "))?;
    for kind in &manifest.description.kinds {
        writeln!(text, "\n{} {}: {}", kind.kind, kind.name, kind.summary)?;
        let properties = kind.config_schema.get("properties").and_then(|value| value.as_object());
        let required = kind.config_schema.get("required").and_then(|value| value.as_array());
        for (key, schema) in properties.into_iter().flatten() {
            let mark = if required.is_some_and(|list| list.iter().any(|name| name == key)) { "required" } else { "" };
            let summary = schema.get("description").and_then(|value| value.as_str()).unwrap_or_default();
            let default = schema.get("default").map(|value| format!(" (default {value})")).unwrap_or_default();
            writeln!(text, "  {key:<22} {mark:<8} {}{default}", summary.lines().next().unwrap_or_default())?;
        }
    }
    Ok(text)
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
