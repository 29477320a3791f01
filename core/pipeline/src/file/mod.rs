//! The pipeline file as its author wrote it: typed, every value with its place, nothing looked up yet.
//!
//! [`PipelineFile::read`] is the first step of everything: file -> tree (`yaml/`) -> overrides -> substitution -> this AST. `planner/` then gives it meaning with
//! the catalogue of plugins. What is wrong is collected on the way and shown by the last step, [`PipelineFile::plan`], all at once.

pub(crate) mod functions;
pub(crate) mod isolation;
pub(crate) mod job;
pub(crate) mod nodes;
pub(crate) mod reader;
mod settings;
pub(crate) mod verbs;

pub(crate) use functions::FunctionBlock;
pub(crate) use job::EngineSettings;
pub use job::{Checkpoint, DiskState, Restart, RestartStrategy, StateBackend};
pub(crate) use nodes::{InputName, Name, SinkBlock, SourceBlock, With};
pub use settings::{EngineSetting, Overridden};
pub(crate) use verbs::{AsyncBlock, NamedExpression, SelectItem, TransformBlock, Verb, WindowBlock};

use crate::{
    deployment::Setting,
    diagnostic::{At, Diagnostics, Report, Span},
    substitute,
    text::Text,
    yaml,
};
use standpipe_loader::{Reference, SearchEntry};
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

/// What the command line adds to a file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--parallelism N`: instead of the file's `parallelism`.
    pub parallelism: Option<u32>,
    /// `--set key=value`: applied in this order before anything is checked. Keys are dotted paths of the file, values are YAML.
    pub set: Vec<(String, String)>,
    /// What counts where neither the file nor the two above say anything.
    pub settings: Vec<EngineSetting>,
}

/// A pipeline file, read as far as that goes without plugins. `Debug` shows no secret.
#[derive(Debug)]
pub struct PipelineFile {
    /// What is wrong so far.
    pub(crate) report: Report,
    /// Missing only if that is reported.
    pub(crate) name: Option<Text>,
    pub(crate) parallelism: Option<At<u32>>,
    pub(crate) plugins: Vec<Text>,
    pub(crate) engine: EngineSettings,
    /// `checkpoint:`.
    pub checkpoint: Option<Checkpoint>,
    /// `restart:`.
    pub restart: Option<Restart>,
    /// `deployment:`, for `standpipe deploy`.
    pub deployment: Vec<Setting>,
    /// Those of [`LoadOptions::settings`] that have no effect.
    pub overridden: Vec<Overridden>,
    pub(crate) functions: Vec<FunctionBlock>,
    /// The names of these and of those that could not be read.
    pub(crate) declared_functions: HashSet<String>,
    pub(crate) sources: Vec<SourceBlock>,
    pub(crate) transforms: Vec<TransformBlock>,
    pub(crate) sinks: Vec<SinkBlock>,
    pub(crate) unread: Unread,
}

/// What is there and could not be read, which is reported: it is not to be reported as missing.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Nodes.
    pub(crate) names: HashSet<String>,
    /// Some section of nodes.
    pub(crate) sections: bool,
}

impl Unread {
    /// Whether an input names something that may be there.
    pub(crate) fn has(&self, input: &InputName) -> bool {
        self.sections || self.names.contains(input.node()) || self.names.contains(&input.text.value)
    }
}

impl PipelineFile {
    /// Reads a file.
    ///
    /// # Errors
    /// What makes it no pipeline file at all: it cannot be read, or it is no YAML map. All else that is wrong is kept for [`PipelineFile::plan`], which shows it
    /// together with what it finds itself.
    pub fn read(path: &Path, options: &LoadOptions) -> Result<Self, Diagnostics> {
        let unreadable = |span: Span, message: String| {
            let report = Report::new(vec![path.display().to_string()]);
            report.error(span, "", message);
            report.failed()
        };
        let bytes = std::fs::read(path)
            .map_err(|error| unreadable(Span::default(), format!("cannot read the file: {}", substitute::io_problem(&error))))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let good = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
            let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
            let column = good.rsplit('\n').next().unwrap_or_default().chars().count();
            let span = Span { source: 0, line: clip(good.matches('\n').count()), column: clip(column) };
            unreadable(span, "not UTF-8 text".to_owned())
        })?;
        Self::parse(path, text, options)
    }

    /// Reads the text of a file; `path` names it in messages.
    ///
    /// # Errors
    /// As [`PipelineFile::read`].
    pub fn parse(path: &Path, text: &str, options: &LoadOptions) -> Result<Self, Diagnostics> {
        let mut sources = vec![path.display().to_string()];
        sources.extend(options.set.iter().map(|(key, value)| format!("--set {key}={value}")));
        sources.push("--parallelism".to_owned());
        sources.extend(options.settings.iter().map(|setting| setting.origin.clone()));
        let report = Report::new(sources);
        let Some((root, overridden)) = tree(text, options, &report) else { return Err(report.failed()) };
        let mut file = PipelineFile { overridden, ..job::read(&root, report)? };
        if let Some(value) = options.parallelism {
            let span = Span { source: u16::try_from(options.set.len() + 1).unwrap_or(u16::MAX), line: 1, column: 1 };
            if !(1..=job::MOST_SUBTASKS).contains(&value) {
                let message = format!("expected a whole number from 1 to {}, found \"{value}\"", job::MOST_SUBTASKS);
                file.report.error(span, "parallelism", message);
            }
            file.parallelism = Some(At { value, span });
        }
        Ok(file)
    }

    /// The pipeline's `name`, references as written; empty if it has none, which `plan` reports.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_ref().map_or("", |name| name.written.as_str())
    }

    /// What is wrong so far, for who uses a part of the file before it is planned; [`PipelineFile::plan`] says it again.
    ///
    /// # Errors
    /// If there is anything.
    pub fn check_read(&self) -> Result<(), Diagnostics> {
        self.report.clone().check()
    }

    /// `plugins:`, as every path of a pipeline relative to the current directory, each with its place in the file.
    #[must_use]
    pub fn plugin_paths(&self) -> Vec<SearchEntry> {
        let entry = |plugin: &Text| {
            let origin = format!("{}: plugins", self.report.place(plugin.span));
            SearchEntry { path: PathBuf::from(&plugin.value), origin }
        };
        self.plugins.iter().filter(|plugin| !plugin.secret).map(entry).collect()
    }

    /// The plugin files that nodes and functions name where they are used, `./libmine.so#kafka`, each with the place and path of the first key that does.
    #[must_use]
    pub fn plugin_files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        for (text, key) in self.kind_references().into_iter().filter(|(text, _)| !text.secret) {
            if let Ok(Reference { file: Some(file), .. }) = Reference::parse(&text.value) {
                files.entry(file).or_insert_with(|| format!("{}: {key}", self.report.place(text.span)));
            }
        }
        files
    }

    /// Every text that names a kind of a plugin, and its key.
    fn kind_references(&self) -> Vec<(&Text, String)> {
        let sources = self.sources.iter().map(|block| (&block.connector, format!("{}.connector", block.name.path)));
        let transforms = self.transforms.iter().filter_map(|block| match &block.verb.value {
            Verb::Transform { kind, .. } => Some((kind, format!("{}.transform", block.name.path))),
            _ => None,
        });
        let sinks = self.sinks.iter().map(|block| (&block.connector, format!("{}.connector", block.name.path)));
        let functions = self.functions.iter().map(|block| (&block.function, format!("{}.function", block.name.path)));
        sources.chain(transforms).chain(sinks).chain(functions).collect()
    }
}

/// The tree with overrides and substitutions; `None` if the text is no YAML. What is wrong with a value is said once, by these steps.
fn tree(text: &str, options: &LoadOptions, report: &Report) -> Option<(yaml::Node, Vec<Overridden>)> {
    let mut root = yaml::parse(text, 0, report)?;
    for (source, (key, value)) in (1..).zip(&options.set) {
        yaml::set(&mut root, key, value, source, report);
    }
    let first = u16::try_from(options.set.len() + 2).unwrap_or(u16::MAX);
    let overridden = settings::apply(&mut root, options, first, report);
    yaml::find_torn_expressions(&root, report);
    substitute::apply(&mut root, report);
    report.seal();
    Some((root, overridden))
}
