//! `deploy` and `config`: a pipeline with its settings, to the deployment mode that they name.

use crate::{
    checkpoints,
    cli::{ConfigCommand, ConfigShow, DeployArguments, DeploymentSettings, OutputFormat, PipelineArguments},
    deployment::{
        bundle::{self, Job},
        mode::{self, MODE, Mode, Shown},
        services::Services,
        settings::{self, Settings},
    },
    exit::{Code, Failure},
    load,
    output::{columns, print, say, write},
    plugins,
    signals::{Listener, Unfinished},
    traces,
};
use serde_json::{Value, json};
use standpipe_loader::{Catalogue, DeploymentInstance, ErrorCode, Handle, PluginError};
use standpipe_pipeline::{Defaults, LoadOptions, PipelineFile};
use standpipe_trace::{Beginning, Context, Kind, Span};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// `standpipe deploy FILE`.
pub(super) fn deploy(arguments: &DeployArguments) -> anyhow::Result<()> {
    traced(arguments, |ready| {
        // As elsewhere `-` is no file; without one the handle goes to standard output.
        let place = arguments.handle.as_deref().filter(|path| *path != Path::new("-")).map(HandleFile::reserve).transpose()?;
        let services = Arc::new(Services::default());
        let signals = Listener::start("the submission is given up", services.canceller())?;
        let mut instance = ready.instance(services)?;
        if arguments.dry_run {
            return Ok(print(&instance.preview(ready.bundle.path()).map_err(|error| failure(&error))?)?);
        }
        let handle = ready.submit(&mut instance)?;
        drop(signals);
        match place {
            Some(place) => place.write(&handle),
            None => print_handle(&handle),
        }
    })
}

/// As `standpipe deploy` would, for a caller that goes on with the job itself; what cancels the services gives the submission up. Gives the handle.
///
/// # Errors
/// As the command fails.
pub(crate) fn handle(arguments: &DeployArguments, services: Arc<Services>) -> anyhow::Result<Handle> {
    traced(arguments, |ready| ready.submit(&mut ready.instance(services)?))
}

/// A span, of which the cluster's are parts.
fn traced<T>(arguments: &DeployArguments, deploy: impl FnOnce(&Ready) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let parent = traces::parent();
    let beginning = Beginning { name: "deploy", kind: Kind::Client, parent: parent.as_ref(), link: None };
    let mut span = traces::traces().begin(&beginning);
    let result = Ready::new(arguments, &mut span, parent.as_ref()).and_then(|ready| deploy(&ready));
    traces::end(span, result)
}

/// A job that only has to be submitted.
struct Ready {
    mode: Mode,
    bundle: TempDir,
}

impl Ready {
    /// Checks it all, and writes its bundle.
    fn new(arguments: &DeployArguments, span: &mut Span, parent: Option<&Context>) -> anyhow::Result<Self> {
        let options = LoadOptions { parallelism: arguments.parallelism, ..LoadOptions::default() };
        let (catalogue, mut mode) = prepare(&arguments.file, &options, &arguments.settings, &arguments.plugins.plugin_path)?;
        refuse(&mode.problems)?;
        let options = LoadOptions { settings: mode.engine.clone(), ..options };
        let pipeline = load::read(&arguments.file, &options)?;
        for lost in &pipeline.overridden {
            let setting = mode.engine.iter().find(|setting| setting.key == lost.key);
            let origin = setting.map(|setting| setting.origin.as_str()).unwrap_or_default();
            mode.warnings.push(format!("{origin}: \"engine.{}\" has no effect: {} overrides it", lost.key, lost.winner));
        }
        mode.engine.retain(|setting| pipeline.overridden.iter().all(|lost| lost.key != setting.key));
        // The mode itself is no part of the job, and of no lock.
        let catalogue = load::of_pipeline(catalogue, &pipeline, load::lock_of(&arguments.file, &arguments.lock)?);
        let planned = pipeline.plan(&catalogue, &Defaults::default()).map_err(|problems| load::failure(&problems));
        let planned = span.child("plan").end_as(planned)?;
        if arguments.restore.is_some() && planned.plan.checkpoint.is_none() {
            return Err(checkpoints::none("--restore needs"));
        }
        mode.warnings.extend(planned.warnings.iter().map(ToString::to_string));
        warn(&mode, arguments.settings.strict)?;
        span.set("job_name", planned.plan.name.as_str());
        span.set("mode", mode.kind.name());
        let folder = tempfile::Builder::new().prefix("standpipe-bundle-").tempdir()?;
        let bundling = span.child("bundle");
        let job = Job { arguments, pipeline: &pipeline, plan: &planned.plan, catalogue: &catalogue };
        // Where spans are not exported here, those of the cluster go on from whoever has started this.
        let context = span.context().or(parent);
        bundling.end_as(bundle::write(folder.path(), &job, &mode.engine, context))?;
        Ok(Self { mode, bundle: folder })
    }

    fn instance(&self, services: Arc<Services>) -> anyhow::Result<DeploymentInstance> {
        self.mode.kind.instance(&self.mode.config, services).map_err(|error| failure(&error))
    }

    /// Submits it: from here on it is known by its handle alone.
    fn submit(&self, instance: &mut DeploymentInstance) -> anyhow::Result<Handle> {
        let mut handle = instance.submit(self.bundle.path()).map_err(|error| failure(&error))?;
        handle.insert(MODE.to_owned(), self.mode.reference.clone().into());
        Ok(handle)
    }
}

/// The job runs: its handle is not lost with a standard output that nobody reads, or that is full.
fn print_handle(handle: &Handle) -> anyhow::Result<()> {
    let text = serde_json::to_string(handle)?;
    match write(&format!("{text}\n")) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::error(Code::Outside, format!("nobody reads standard output; the handle: {text}"))),
        Err(error) => Err(Failure::error(Code::Outside, format!("standard output: {error}; the handle: {text}"))),
    }
}

/// The file of a handle: reserved before the job is submitted, because a job without its handle is lost.
struct HandleFile {
    path: PathBuf,
    file: fs::File,
    written: bool,
    /// Until there is a job.
    unfinished: Option<Unfinished>,
}

impl HandleFile {
    fn reserve(path: &Path) -> anyhow::Result<Self> {
        let refused = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::error(
                Code::Usage,
                format!("--handle {}: it is there already: it may be all that is known of another job", path.display()),
            ),
            _ => Failure::error(Code::Outside, format!("--handle {}: {error}", path.display())),
        };
        let file = fs::File::create_new(path).map_err(refused)?;
        Ok(Self { path: path.to_owned(), file, written: false, unfinished: Some(Unfinished::note(path)) })
    }

    fn write(mut self, handle: &Handle) -> anyhow::Result<()> {
        let text = serde_json::to_string(handle)?;
        (self.written, self.unfinished) = (true, None);
        let written = self.file.write_all(format!("{text}\n").as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            // The job runs: the handle must not be lost.
            Failure::error(Code::Outside, format!("--handle {}: {error}; the handle: {text}", self.path.display()))
        })
    }
}

impl Drop for HandleFile {
    fn drop(&mut self) {
        if !self.written {
            // It is empty and ours; that it stays harms nobody.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// From the arguments to a mode whose configuration has been looked at. Nothing is opened but files of this machine.
fn prepare(
    file: &Path,
    options: &LoadOptions,
    arguments: &DeploymentSettings,
    plugin_path: &[PathBuf],
) -> anyhow::Result<(Catalogue, Mode)> {
    let pipeline: PipelineFile = load::read(file, options)?;
    pipeline.check_read().map_err(|problems| load::failure(&problems))?;
    let settings = settings::layered(pipeline.deployment.iter().cloned(), arguments)?;
    let home = mode::home(&settings)?;
    let catalogue = plugins::discover_in(home.as_deref(), &pipeline.plugin_paths(), plugin_path)?;
    let mode = mode_of(&catalogue, &settings)?;
    Ok((catalogue, mode))
}

/// Looks at the settings of a deployment whose pipeline is not there yet. What is strange about plugins is said when that is deployed.
///
/// # Errors
/// All that is wrong with them.
pub(crate) fn check_settings(arguments: &DeploymentSettings, plugin_path: &[PathBuf]) -> anyhow::Result<()> {
    let settings = settings::layered([], arguments)?;
    let home = mode::home(&settings)?;
    let catalogue = Catalogue::discover(&plugins::search(home.as_deref(), &[], plugin_path));
    refuse(&mode_of(&catalogue, &settings)?.problems)
}

/// The mode that settings name.
fn mode_of(catalogue: &Catalogue, settings: &Settings) -> anyhow::Result<Mode> {
    let kind = mode::find(catalogue, settings)?;
    mode::configure(catalogue, kind, settings)
}

/// What a pipeline says of its deployment itself, looked at before anybody deploys it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(arguments: &PipelineArguments) -> anyhow::Result<()> {
    let options = LoadOptions { set: arguments.set.clone(), ..LoadOptions::default() };
    if load::read(&arguments.file, &options)?.deployment.is_empty() {
        return Ok(());
    }
    let nothing = DeploymentSettings { config: Vec::new(), define: Vec::new(), strict: false };
    let (_, mode) = prepare(&arguments.file, &options, &nothing, &arguments.plugins.plugin_path)?;
    // What is missing may come with `-D` or `--config`.
    refuse(&mode.wrong)?;
    check_engine(&arguments.file, options, &mode)
}

/// What a pipeline says to the engine's settings.
fn check_engine(file: &Path, options: LoadOptions, mode: &Mode) -> anyhow::Result<()> {
    let pipeline = load::read(file, &LoadOptions { settings: mode.engine.clone(), ..options })?;
    pipeline.check_read().map_err(|problems| load::failure(&problems))
}

/// All that is wrong, if anything is.
pub(super) fn refuse(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(Failure::error(Code::Usage, problems.join("\n"))) }
}

/// Tells the warnings; with `--strict` they are errors.
pub(super) fn warn(mode: &Mode, strict: bool) -> anyhow::Result<()> {
    if strict {
        return refuse(&mode.warnings);
    }
    for warning in &mode.warnings {
        say!("warning: {warning}");
    }
    Ok(())
}

/// The exit code that a mode's failure means.
pub(crate) fn failure(error: &PluginError) -> anyhow::Error {
    let code = match error.code {
        ErrorCode::CONFIG | ErrorCode::UNSUPPORTED => Code::Usage,
        ErrorCode::EXTERNAL => Code::Outside,
        ErrorCode::CANCELLED => Code::Interrupted,
        _ => Code::Failed,
    };
    Failure::error(code, error)
}

/// `standpipe config ...`.
pub(super) fn config(command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show(arguments) => show(arguments),
        ConfigCommand::Schema { plugins, own } => {
            let catalogue = plugins::discover(&[], &plugins.plugin_path)?;
            let schema = if *own { mode::own_schema() } else { mode::schema(&catalogue) };
            Ok(print(&format!("{}\n", serde_json::to_string_pretty(&schema)?))?)
        }
    }
}

fn show(arguments: &ConfigShow) -> anyhow::Result<()> {
    let (_, mode) = prepare(&arguments.file, &LoadOptions::default(), &arguments.settings, &arguments.plugins.plugin_path)?;
    let shown = mode.shown.iter().filter(|shown| arguments.effective || !shown.is_default);
    let text = match arguments.format {
        OutputFormat::Text => {
            let rows: Vec<_> = shown.map(|Shown { key, value, origin, .. }| vec![key.clone(), value.clone(), origin.clone()]).collect();
            columns(&["KEY", "VALUE", "ORIGIN"].map(str::to_owned), &rows)
        }
        OutputFormat::Json => {
            let line = |shown: &Shown| -> Value { json!({"key": shown.key, "value": shown.value, "origin": shown.origin}) };
            shown.map(|shown| format!("{}\n", line(shown))).collect()
        }
    };
    print(&text)?;
    warn(&mode, arguments.settings.strict)?;
    check_engine(&arguments.file, LoadOptions::default(), &mode)?;
    refuse(&mode.problems)
}
