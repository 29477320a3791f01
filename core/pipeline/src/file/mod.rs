//! The pipeline file as its author wrote it: typed, every value with its place, nothing looked up yet.
//!
//! [`PipelineFile::read`] is the first step of everything: file -> tree (`yaml/`) -> overrides -> substitution -> this AST. `planner/` then gives it meaning with
//! the catalogue of plugins.

pub(crate) mod job;
pub(crate) mod nodes;
pub(crate) mod reader;
pub(crate) mod verbs;

pub(crate) use job::EngineSettings;
pub use job::{Checkpoint, Restart, RestartStrategy};
pub(crate) use nodes::{Expression, InputName, Name, SinkBlock, SourceBlock, With};
pub(crate) use verbs::{NamedExpression, SelectItem, TransformBlock, Verb, WindowBlock};

use crate::{
    diagnostic::{At, Diagnostics, Report, Span},
    substitute, yaml,
};
use std::path::{Path, PathBuf};

/// What the command line adds to a file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--parallelism N`: instead of the file's `parallelism`.
    pub parallelism: Option<u32>,
    /// `--set key=value`: applied in this order before anything is checked. Keys are dotted paths of the file, values are YAML.
    pub set: Vec<(String, String)>,
}

/// A pipeline file, read and checked as far as that goes without plugins.
#[derive(Debug)]
pub struct PipelineFile {
    /// Names for messages, by [`Span::source`].
    pub(crate) report_sources: Vec<String>,
    path: PathBuf,
    pub(crate) name: At<String>,
    pub(crate) parallelism: Option<At<u32>>,
    plugins: Vec<At<String>>,
    pub(crate) engine: EngineSettings,
    /// `checkpoint:`; not acted upon in this release.
    pub checkpoint: Option<Checkpoint>,
    /// `restart:`; not acted upon in this release.
    pub restart: Option<Restart>,
    pub(crate) sources: Vec<SourceBlock>,
    pub(crate) transforms: Vec<TransformBlock>,
    pub(crate) sinks: Vec<SinkBlock>,
}

impl PipelineFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(path: &Path, options: &LoadOptions) -> Result<Self, Diagnostics> {
        match std::fs::read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Self::parse(path, &text, options),
                Err(error) => Err(unreadable(path, &format!("not UTF-8 text, at byte {}", error.utf8_error().valid_up_to()))),
            },
            Err(error) => Err(unreadable(path, &format!("cannot read the file: {}", error.kind()))),
        }
    }

    /// Reads the text of a file; `path` names it in messages and is where `plugins:` starts from.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(path: &Path, text: &str, options: &LoadOptions) -> Result<Self, Diagnostics> {
        let mut sources = vec![path.display().to_string()];
        sources.extend(options.set.iter().map(|(key, value)| format!("--set {key}={value}")));
        sources.push("--parallelism".to_owned());
        let report = Report::new(sources);
        let file = read_tree(text, options, &report).and_then(|root| job::read(&root, path, &report));
        report.check()?;
        // Without a finding there is a file.
        let mut file = file.ok_or_else(|| unreadable(path, "cannot be read"))?;
        if let Some(value) = options.parallelism {
            let span = Span { source: u16::try_from(options.set.len() + 1).unwrap_or(u16::MAX), line: 1, column: 1 };
            file.parallelism = Some(At { value, span });
        }
        Ok(file)
    }

    /// The pipeline's `name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name.value
    }

    /// `plugins:`, relative ones from where the file is.
    #[must_use]
    pub fn plugin_paths(&self) -> Vec<PathBuf> {
        let base = self.path.parent().unwrap_or(Path::new(""));
        self.plugins.iter().map(|plugin| base.join(&plugin.value)).collect()
    }

    pub(crate) fn report(&self) -> Report {
        Report::new(self.report_sources.clone())
    }
}

/// The tree with overrides and substitutions, unless something is wrong with it.
fn read_tree(text: &str, options: &LoadOptions, report: &Report) -> Option<yaml::Node> {
    let mut root = yaml::parse(text, 0, report)?;
    for (source, (key, value)) in (1..).zip(&options.set) {
        yaml::set(&mut root, key, value, source, report);
    }
    yaml::find_torn_expressions(&root, report);
    substitute::apply(&mut root, report);
    report.is_clean().then_some(root)
}

fn unreadable(path: &Path, message: &str) -> Diagnostics {
    let report = Report::new(vec![path.display().to_string()]);
    report.error(Span::default(), "", message);
    report.check().err().unwrap_or(Diagnostics { items: Vec::new(), class: crate::diagnostic::Class::Configuration })
}
