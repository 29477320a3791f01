//! From the command line to a plan: reads the pipeline file, finds the plugins, plans. Used by `run`, `check`, `explain` and `demo`.

use crate::{
    cli::{PipelineArguments, PluginsLock},
    exit::{Code, Failure},
    output::say,
    plugins,
    processes::Member,
};
use standpipe_loader::{Catalogue, Lock};
use standpipe_pipeline::{Defaults, Diagnostics, EngineSetting, LoadOptions, PipelineFile, Plan, lock};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Reads and plans a pipeline; warnings go to stderr.
pub(crate) fn load(arguments: &PipelineArguments) -> anyhow::Result<Plan> {
    let setting =
        |(key, value): &(String, String)| EngineSetting { key: key.clone(), value: value.clone(), origin: format!("--engine {key}") };
    let settings = arguments.engine.iter().map(setting).collect();
    let options = LoadOptions { parallelism: arguments.parallelism, set: arguments.set.clone(), settings };
    let pipeline = read(&arguments.file, &options)?;
    for lost in pipeline.overridden.iter().filter(|_| says()) {
        say!("warning: --engine {}: it has no effect: {} overrides it", lost.key, lost.winner);
    }
    let lock = lock_of(&arguments.file, &arguments.lock)?;
    plan(&pipeline, &arguments.plugins.plugin_path, lock)
}

/// The lock that counts for a pipeline file: the one that is named, or `plugins.lock` beside it.
pub(crate) fn lock_of(file: &Path, arguments: &PluginsLock) -> anyhow::Result<Option<Lock>> {
    let beside = || Some(file.with_file_name(lock::FILE_NAME)).filter(|path| path.exists());
    let read = |path: PathBuf| lock::read(&path).map_err(|problems| failure(&problems));
    arguments.plugins_lock.clone().or_else(beside).map(read).transpose()
}

/// Whether this process is the one of its job that says what is to be said.
fn says() -> bool {
    Member::of_environment().is_none_or(Member::is_first)
}

/// Reads a pipeline file.
pub(crate) fn read(file: &Path, options: &LoadOptions) -> anyhow::Result<PipelineFile> {
    PipelineFile::read(file, options)
        .map_err(|problems| if can_be_opened(file) { failure(&problems) } else { Failure::error(Code::Outside, problems) })
}

/// Whether a file is there and may be read. A pipe, which cannot be opened again, counts as such.
fn can_be_opened(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() || File::open(path).is_ok())
}

/// Plans a pipeline that has been read.
pub(crate) fn plan(pipeline: &PipelineFile, plugin_path: &[PathBuf], lock: Option<Lock>) -> anyhow::Result<Plan> {
    let catalogue = plugins::discover(&pipeline.plugin_paths(), plugin_path)?;
    plan_with(pipeline, &of_pipeline(catalogue, pipeline, lock))
}

/// The catalogue with the files that a pipeline names where it uses them, and with its lock.
pub(crate) fn of_pipeline(catalogue: Catalogue, pipeline: &PipelineFile, lock: Option<Lock>) -> Catalogue {
    let catalogue = catalogue.with_files(pipeline.plugin_files().into_keys());
    match lock {
        Some(lock) => catalogue.locked(lock),
        None => catalogue,
    }
}

/// Plans a pipeline with those plugins.
pub(crate) fn plan_with(pipeline: &PipelineFile, catalogue: &Catalogue) -> anyhow::Result<Plan> {
    let planned = pipeline.plan(catalogue, &Defaults::default()).map_err(|problems| failure(&problems))?;
    for warning in planned.warnings.iter().filter(|_| says()) {
        say!("warning: {warning}");
    }
    Ok(planned.plan)
}

/// The exit code that findings mean.
pub(crate) fn failure(problems: &Diagnostics) -> anyhow::Error {
    let code = if problems.outside() { Code::Outside } else { Code::Usage };
    Failure::error(code, problems)
}
