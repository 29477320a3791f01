//! `deploy` and what follows it: from flat settings to a deployment mode, from a pipeline to a bundle, and what a mode's instance may ask of this process.
//!
//! ```text
//! settings   -D over --config over the pipeline's `deployment:`, each with its origin
//! mode       the plugin that `deployment_mode` names, its configuration checked, what is for the engine apart
//! bundle     pipeline, plugin files and resources under the hash of their content, in a folder
//! services   the plugin's log lines, and whether the user has had enough
//! ```

pub(crate) mod bundle;
pub(crate) mod mode;
pub(crate) mod services;
pub(crate) mod settings;
