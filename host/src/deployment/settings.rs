//! Settings of a deployment in their layers: `-D` over `--config` over the pipeline's `deployment:`.

use crate::{cli::DeploymentSettings, load, secrets};
use standpipe_pipeline::deployment::{self, Setting};
use std::collections::BTreeMap;

/// The strongest setting of each key.
pub(crate) type Settings = BTreeMap<String, Setting>;

/// Puts the layers on each other; `weakest` is what the pipeline or a handle says.
///
/// # Errors
/// When a file of `--config` cannot be read, or is no map of flat keys.
pub(crate) fn layered(weakest: impl IntoIterator<Item = Setting>, arguments: &DeploymentSettings) -> anyhow::Result<Settings> {
    let mut settings: Settings = weakest.into_iter().map(|setting| (setting.key.clone(), setting)).collect();
    for file in &arguments.config {
        let read = deployment::read(file).map_err(|problems| load::failure(&problems))?;
        settings.extend(read.into_iter().map(|setting| (setting.key.clone(), setting)));
    }
    // The origin has no value: it may be a secret, and origins are shown.
    settings.extend(arguments.define.iter().map(|(key, value)| (key.clone(), plain(key, value, &format!("-D {key}")))));
    // What a plugin says of a value must not show what a reference stands for.
    settings.values().filter(|setting| setting.secret).for_each(|setting| secrets::remember(&setting.written, &setting.value));
    Ok(settings)
}

/// A setting that is no secret.
pub(crate) fn plain(key: &str, value: &str, origin: &str) -> Setting {
    Setting { key: key.to_owned(), value: value.to_owned(), written: value.to_owned(), secret: false, origin: origin.to_owned() }
}
