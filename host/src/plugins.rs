//! The search for plugins, and what is strange about its result. A file that somebody named must be a plugin; in a directory that somebody named, a bad file is worth a
//! warning, and so is a kind that hides another one of its name. Called by everything that plans or lists; the loader does the work.

use crate::{
    exit::{Code, Failure},
    output::say,
};
use standpipe_loader::{Catalogue, LoadError, PluginFile, SearchEntry, SearchPath, wire::KindDescription};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Loads the plugins of `plugins:`, the command line, the environment and the installation. Warnings go to stderr.
///
/// # Errors
/// A file that was named and is no usable plugin, or a path that leads nowhere (of the pipeline file: that leads to no plugin file).
pub(crate) fn discover(pipeline: &[SearchEntry], command_line: &[PathBuf]) -> anyhow::Result<Catalogue> {
    discover_in(None, pipeline, command_line)
}

/// Where plugins are looked for with that installation, or the running one.
pub(crate) fn search(home: Option<&Path>, pipeline: &[SearchEntry], command_line: &[PathBuf]) -> SearchPath {
    match home {
        Some(home) => SearchPath::of_distribution(home, pipeline, command_line),
        None => SearchPath::new(pipeline, command_line),
    }
}

/// As [`discover`], with another installation than the running one.
///
/// # Errors
/// As [`discover`].
pub(crate) fn discover_in(home: Option<&Path>, pipeline: &[SearchEntry], command_line: &[PathBuf]) -> anyhow::Result<Catalogue> {
    let catalogue = Catalogue::discover(&search(home, pipeline, command_line));
    let asked_for: Vec<&SearchEntry> = catalogue.searched().iter().filter(|entry| entry.asked_for()).collect();
    // A pipeline file goes from machine to machine: a folder that it names and that is not on this one is worth a warning.
    let is_elsewhere = |entry: &SearchEntry| {
        pipeline.contains(entry) && !entry.path.exists() && entry.path.extension().is_none_or(|extension| extension != "so")
    };
    let must_load = |entry: &&SearchEntry| !entry.path.is_dir() && !is_elsewhere(entry);
    let named = |failure: &LoadError| asked_for.iter().copied().filter(must_load).find(|entry| is_same(&entry.path, failure.path()));
    // Where it stands in a file is said as of all that is wrong with the file.
    let told = |failure: &LoadError, entry: &SearchEntry| match pipeline.contains(entry) {
        true => format!("{}: {failure}", entry.origin),
        false => format!("{failure} ({})", entry.origin),
    };
    let errors: Vec<String> = catalogue.failures().iter().filter_map(|failure| Some(told(failure, named(failure)?))).collect();
    if !errors.is_empty() {
        return Err(Failure::error(Code::Usage, errors.join("\n")));
    }
    for failure in catalogue.failures() {
        if let Some(entry) = asked_for.iter().find(|entry| failure.path().starts_with(&entry.path)) {
            say!("warning: {}", told(failure, entry));
        }
    }
    for warning in hidden(&catalogue) {
        say!("warning: {warning}");
    }
    Ok(catalogue)
}

/// Whether it is of a file or directory that somebody named: [`discover`] has said so. Others are of the installation.
pub(crate) fn is_asked_for(catalogue: &Catalogue, failure: &LoadError) -> bool {
    catalogue.searched().iter().any(|entry| entry.asked_for() && failure.path().starts_with(&entry.path))
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Kinds that no name reaches because an earlier file has others of their names and versions. A copy of that file is no reason to warn.
fn hidden(catalogue: &Catalogue) -> Vec<String> {
    let mut first: HashMap<(&str, &str, &str), &PluginFile> = HashMap::new();
    let mut warnings = Vec::new();
    for plugin in catalogue.plugins() {
        for kind in &plugin.description.kinds {
            // An expression does not say which kind of function it calls.
            let names = if matches!(kind.kind.as_str(), "scalar" | "aggregate") { "function" } else { &kind.kind };
            let used = *first.entry((names, &kind.name, &plugin.version)).or_insert(plugin);
            // Of two in one folder neither hides the other: whoever names them is told that they are two.
            if used.path.parent() != plugin.path.parent() && !used.has_content_of(plugin) {
                let (used, unused) = (used.path.display(), plugin.path.display());
                warnings.push(format!("the {} {:?} is that of {used}, which hides the one of {unused}", kind.kind, kind.name));
            }
        }
    }
    warnings
}

/// How a kind is reached that its name alone does not stand for: nothing to say of the others.
pub(crate) fn note(catalogue: &Catalogue, plugin: &PluginFile, kind: &KindDescription) -> String {
    let all: Vec<&PluginFile> = catalogue.having(&kind.kind, &kind.name).map(AsRef::as_ref).collect();
    let is_same = |other: &&PluginFile| std::ptr::eq(*other, plugin);
    let mut of_version = all.iter().copied().filter(|other| other.version == plugin.version);
    let is_twin = |other: &&PluginFile| !is_same(other) && other.path.parent() == plugin.path.parent() && !other.has_content_of(plugin);
    if !of_version.next().is_some_and(|first| is_same(&first)) || of_version.any(|other| is_twin(&other)) {
        return "  (by its path alone)".to_owned();
    }
    if all.first().is_some_and(is_same) { String::new() } else { format!("  (as {}@{})", kind.name, plugin.version) }
}
