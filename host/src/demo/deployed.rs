//! `demo -D KEY=VALUE`, `demo --config FILE`: the pipeline by `standpipe deploy`, in whatever mode the settings name, between a real Kafka and a real Elasticsearch that both this
//! process and the job reach.
//!
//! A mode tells a job's state and no numbers, and a job that is started again counts anew. So what the job has read is seen by what it has written: it has read all once the current
//! flag of each baseline is that of its last record, for a baseline is in one partition.

use super::{Run, cluster::pipeline, documents, log, truth};
use crate::{
    cli::{DemoArguments, DeployArguments, DeploymentSettings, PluginPath, PluginsLock},
    commands::{
        deploy,
        deployment::{asked, open},
    },
    deployment::services::Services,
    exit::{Code, Failure},
    output::say,
};
use standpipe_loader::{DeploymentInstance, Handle, PluginError, wire::JobStatus};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, HashSet},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

/// What is known is asked for anew after so long: each time is some questions to others.
const FRESH: Duration = Duration::from_secs(1);
/// How long a job may take to end that is given up.
const ENDING: Duration = Duration::from_secs(30);
/// Weaker than whatever the user sets: a job that is elsewhere is lost in parts now and then.
const OWN_SETTINGS: &str = "
deployment:
  engine.checkpoint.interval: 2s
  engine.restart.strategy: exponential-delay
  engine.restart.initial_delay: 500ms
  engine.restart.max_delay: 10s
";

/// Whether the arguments name a place for the pipeline.
///
/// # Errors
/// When they name another one, too, or services that nobody reaches from there; what is wrong with the settings, before anything is made.
pub(super) fn is_wanted(arguments: &DemoArguments) -> anyhow::Result<bool> {
    let DeploymentSettings { config, define, .. } = &arguments.settings;
    if config.is_empty() && define.is_empty() {
        return Ok(false);
    }
    let refused = |why| Err(Failure::error(Code::Usage, format!("with settings of a deployment (-D, --config) {why}")));
    if arguments.cluster {
        return refused("the pipeline runs where they say: leave out --cluster");
    }
    if arguments.kafka.is_none() || arguments.elasticsearch.is_none() {
        return refused("the pipeline reaches no stand-ins, which are inside this process: give --kafka and --elasticsearch");
    }
    deploy::check_settings(&arguments.settings, &arguments.plugins.plugin_path)?;
    Ok(true)
}

/// The pipeline as a deployed job, which is removed with the value.
pub(super) struct Deployed<'a> {
    run: Run<'a>,
    instance: RefCell<DeploymentInstance>,
    handle: Handle,
    status: RefCell<Option<(Instant, JobStatus)>>,
    counts: RefCell<Option<(Instant, BTreeMap<&'static str, u64>)>>,
    /// The last flag of each baseline by the log, once there are no more records.
    last: OnceCell<BTreeMap<i32, (i32, i64)>>,
    read: Cell<Option<Instant>>,
}

impl<'a> Deployed<'a> {
    /// Deploys it; what cancels `submission` gives that up.
    pub(super) fn submit(arguments: &DemoArguments, run: Run<'a>, submission: Arc<Services>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("standpipe-demo-").tempdir()?;
        let file = folder.path().join("signal-quality.yaml");
        fs::write(&file, pipeline(run.kafka, run.elasticsearch, run.names)? + OWN_SETTINGS)?;
        let (settings, plugins) = (arguments.settings.clone(), arguments.plugins.clone());
        let deployed = DeployArguments {
            file,
            settings: settings.clone(),
            parallelism: Some(arguments.parallelism),
            resource: Vec::new(),
            restore: None,
            allow_non_restored_state: false,
            dry_run: false,
            handle: None,
            lock: PluginsLock { plugins_lock: None },
            plugins: plugins.clone(),
        };
        let handle = deploy::handle(&deployed, submission)?;
        let instance = match instance(&handle, &settings, &plugins) {
            Ok(instance) => instance,
            Err(error) => {
                say!("the pipeline runs, and is left; its handle: {}", serde_json::to_string(&handle)?);
                return Err(error);
            }
        };
        Ok(Self {
            run,
            instance: RefCell::new(instance),
            handle,
            status: RefCell::default(),
            counts: RefCell::default(),
            last: OnceCell::new(),
            read: Cell::default(),
        })
    }

    /// What `standpipe deployment` takes.
    pub(super) fn handle(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&self.handle)?)
    }

    fn ask<T>(&self, question: impl FnOnce(&mut DeploymentInstance, &Handle) -> Result<T, PluginError>) -> Result<T, PluginError> {
        question(&mut self.instance.borrow_mut(), &self.handle)
    }

    /// The job's state, as it was a moment ago. Who cannot be asked for now, while a manager is lost, is asked again: the caller's patience has an end.
    fn look(&self) -> anyhow::Result<JobStatus> {
        if let Some((at, status)) = &*self.status.borrow()
            && (at.elapsed() < FRESH || status.is_terminal())
        {
            return Ok(status.clone());
        }
        let status = match self.ask(|mode, handle| mode.status(handle)) {
            Err(error) if error.retryable => JobStatus { cause: Some(error.message), ..JobStatus::new("UNKNOWN") },
            answer => asked(answer)?,
        };
        *self.status.borrow_mut() = Some((Instant::now(), status.clone()));
        Ok(status)
    }

    /// Its state and why, for people.
    pub(super) fn state(&self) -> String {
        match self.look() {
            Ok(JobStatus { state, cause: Some(cause) }) => format!("{state} ({cause})"),
            Ok(status) => status.state,
            Err(error) => format!("{error:#}"),
        }
    }

    /// Whether it has ended; fails if it has failed.
    pub(super) fn ended(&self) -> anyhow::Result<bool> {
        let status = self.look()?;
        match status.state.as_str() {
            "FINISHED" => Ok(true),
            "FAILED" | "CANCELED" => Err(Failure::error(Code::Failed, format!("the pipeline has ended: it is {}", self.state()))),
            _ => Ok(false),
        }
    }

    /// Whether each baseline's current flag is that of its last record. It is asked once there are no more records.
    pub(super) fn has_read_all(&self) -> anyhow::Result<bool> {
        if self.read.get().is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(false);
        }
        let Run { kafka, elasticsearch, names, catalogue } = self.run;
        if self.last.get().is_none() {
            let log = log::read(kafka, catalogue, &names.topic)?;
            let truth = truth::compute(&log, &HashSet::new()).map_err(|message| Failure::error(Code::Failed, message))?;
            drop(self.last.set(truth.flags));
        }
        let found = documents::flags(elasticsearch, names)?;
        self.read.set(Some(Instant::now()));
        Ok(self.last.get() == Some(&found))
    }

    /// Documents that are there, of all sinks.
    pub(super) fn documents(&self) -> anyhow::Result<u64> {
        self.counted(|counts| counts.values().sum())
    }

    /// Documents of a sink that are there.
    pub(super) fn documents_of(&self, sink: &str) -> anyhow::Result<u64> {
        self.counted(|counts| counts.get(sink).copied().unwrap_or(0))
    }

    fn counted<T>(&self, of: impl FnOnce(&BTreeMap<&'static str, u64>) -> T) -> anyhow::Result<T> {
        let mut counts = self.counts.borrow_mut();
        let known = counts.take().filter(|(at, _)| at.elapsed() < FRESH);
        let known = match known {
            Some(known) => known,
            None => (Instant::now(), documents::counts(self.run.elasticsearch, self.run.names)?),
        };
        Ok(of(&counts.insert(known).1))
    }

    /// Stops it; open windows fire.
    pub(super) fn drain(&self) -> anyhow::Result<()> {
        asked(self.ask(|mode, handle| mode.stop(handle, "", true)))?;
        *self.status.borrow_mut() = None;
        Ok(())
    }
}

impl Deployed<'_> {
    fn remove(&self) -> Result<(), PluginError> {
        if !self.look().is_ok_and(|status| status.is_terminal()) {
            self.ask(|mode, handle| mode.cancel(handle))?;
            self.ask(|mode, handle| mode.wait(handle, Some(ENDING)))?;
        }
        self.ask(|mode, handle| mode.cleanup(handle))
    }
}

impl Drop for Deployed<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            say!("warning: the pipeline is not removed: {error}");
        }
    }
}

fn instance(handle: &Handle, settings: &DeploymentSettings, plugins: &PluginPath) -> anyhow::Result<DeploymentInstance> {
    open(handle, "the demo's handle", settings, plugins, Arc::new(Services::default()))
}
