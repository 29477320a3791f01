//! The plugin files of a job in its checkpoints' manifests: a restore with others is nothing wrong, but is worth a word.

use standpipe_checkpoint::{Manifest, PluginUsed};
use standpipe_pipeline::plan::{Plan, UsedPlugin};
use std::collections::BTreeMap;

/// The plugin files that a plan runs with, by what uses them. Contents that nobody has asked for are read here: not to be called where rows wait.
pub(super) fn used(plan: &Plan) -> BTreeMap<String, PluginUsed> {
    let files = plan.plugins().into_iter().filter(|used| !used.plugin.path.as_os_str().is_empty());
    let described = |used: UsedPlugin<'_>| {
        let (kind, plugin, version) = (used.name.to_owned(), used.plugin.name.clone(), used.plugin.version.clone());
        (used.path, PluginUsed { kind, plugin, version, sha256: used.plugin.hash() })
    };
    files.map(described).collect()
}

/// Of what goes on from a checkpoint, all that has another plugin file than it had then: a line each.
#[must_use]
pub fn other_plugins(manifest: &Manifest, plan: &Plan) -> Vec<String> {
    // A checkpoint of a former release has none, and nothing is read for it.
    if manifest.plugins.is_empty() {
        return Vec::new();
    }
    let text = |used: &PluginUsed| format!("{}@{} of plugin {} (sha256:{})", used.kind, used.version, used.plugin, used.sha256);
    let other = |(path, now): (String, PluginUsed)| {
        let then = manifest.plugins.get(&path).filter(|then| **then != now)?;
        Some(format!("{path} was {}, and is now {}", text(then), text(&now)))
    };
    used(plan).into_iter().filter_map(other).collect()
}
