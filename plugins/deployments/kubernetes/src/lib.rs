//! The deployment mode `kubernetes-application`: a cluster of its own for each job, in Kubernetes. A Job, whose pod is the job manager, owns everything else: task managers, services, the
//! bundle, the job's secrets. What is told later is asked of the manager through the API server (`manager`), and when it is gone, of what Kubernetes keeps of its Job (`known`).
#![deny(unsafe_code)]

mod cluster;
mod config;
mod content;
mod ending;
mod forward;
mod known;
mod lists;
mod look;
mod manager;
mod manifests;
mod names;
mod pods;
mod preview;
mod refusals;
mod scale;
mod secrets;
mod settings;
mod submission;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trouble;

pub use config::KubernetesConfig;

use arrow_array::RecordBatchReader;
use cluster::{Asking, Cluster, Shared};
use content::Content;
use k8s_openapi::api::core::v1::Pod;
use known::Known;
use manager::Manager;
use manifests::{Names, Plan, PodTemplates, TASK_MANAGER};
use scale::Scaling;
use secrets::Secrets;
use serde_json::Value;
use settings::Settings;
use standpipe_deployment_rest::{JobId, is_unknown};
use standpipe_sdk::{
    Deployment, DeploymentDeclaration, Error, Host, Result,
    deployment::{Collect, Handle, JobStatus, LogLines, Savepoint, drains},
};
use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use submission::Submission;
use trouble::Outlook;

standpipe_sdk::export_plugin! { deployments: [Kubernetes] }

/// The mode's name.
const MODE: &str = "kubernetes-application";
/// From one look at the job to the next: each asks the API server some questions.
const LOOK: Duration = Duration::from_secs(1);
/// Random characters of a cluster id.
const RANDOM: usize = 6;
/// Nothing is behind it.
const END_OF_LOG: &str = "end";

/// See [`KubernetesConfig`].
pub struct Kubernetes {
    settings: Settings,
    host: Host,
    asking: Asking,
    /// Once it was asked something.
    cluster: Option<Shared>,
    manager: Option<Manager>,
}

impl Deployment for Kubernetes {
    const NAME: &'static str = MODE;
    type Config = KubernetesConfig;

    fn declare(config: &KubernetesConfig) -> Result<DeploymentDeclaration> {
        Ok(DeploymentDeclaration { problems: Settings::read(config).err().unwrap_or_default() })
    }

    fn open(config: KubernetesConfig, host: Host) -> Result<Self> {
        let settings = Settings::read(&config).map_err(|problems| {
            let first = problems.into_iter().next().unwrap_or_default();
            Error::config(first.path, first.message)
        })?;
        Ok(Self { settings, asking: Asking::new(host.clone())?, host, cluster: None, manager: None })
    }

    fn submit(&mut self, folder: &Path) -> Result<Handle> {
        let content = Content::read(folder, content::MOST_BYTES)?;
        let id = JobId::random()?;
        let names = self.new_names(&content, &id)?;
        let (secrets, templates) = (Secrets::make(&names)?, PodTemplates::read(&self.settings)?);
        let settings = self.settings.clone();
        let plan = Plan { settings: &settings, names: &names, content: &content, secrets: &secrets, templates: &templates };
        plan.check()?;
        let cluster = self.cluster(&names)?;
        Submission { asking: &self.asking, cluster: &cluster, host: &self.host, names: &names }.run(&plan, folder, &id)?;
        Ok(self.handle(&names, &cluster))
    }

    fn preview(&mut self, folder: &Path) -> Result<String> {
        let content = Content::read(folder, preview::MOST_BYTES)?;
        let names = self.new_names(&content, &JobId::random()?)?;
        let (secrets, templates) = (Secrets::placeholders(), PodTemplates::read(&self.settings)?);
        let plan = Plan { settings: &self.settings, names: &names, content: &content, secrets: &secrets, templates: &templates };
        preview::documents(&plan)
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        let (names, id) = (names(handle)?, JobId::of(handle)?);
        match self.known(&names)? {
            Known::Ended(status) | Known::Waits(_, status) => Ok(status),
            Known::Runs => {
                let told = self.manager(&names)?.jobs.status(&id);
                match told {
                    Ok(status) => self.with_troubles(&names, status),
                    Err(error) if is_unknown(&error) => Ok(JobStatus {
                        cause: Some("its job manager has begun, and does not have the job yet".to_owned()),
                        ..JobStatus::new("INITIALIZING")
                    }),
                    // Its pod may have gone meanwhile.
                    Err(error) if error.retryable => match self.known(&names)? {
                        Known::Ended(status) | Known::Waits(_, status) => Ok(status),
                        Known::Runs => Err(error),
                    },
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn wait(&mut self, handle: &Handle, timeout: Option<Duration>, host: &Host) -> Result<JobStatus> {
        let begun = Instant::now();
        loop {
            let status = self.status(handle);
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            let is_over = left.is_some_and(|left| left.is_zero());
            match status {
                Ok(status) if status.is_terminal() || is_over => return Ok(status),
                Err(error) if !error.retryable || is_over => return Err(error),
                _ => {}
            }
            if host.cancelled() {
                return Err(Error::cancelled());
            }
            thread::sleep(left.map_or(LOOK, |left| left.min(LOOK)));
        }
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        let (names, id) = (names(handle)?, JobId::of(handle)?);
        match self.known(&names)? {
            Known::Ended(_) => Ok(()),
            Known::Runs => self.manager(&names)?.jobs.cancel(&id),
            Known::Waits(..) => {
                let cluster = self.cluster(&names)?;
                self.asking.wait(ending::cancel(&cluster, &names))
            }
        }
    }

    fn stop(&mut self, handle: &Handle, savepoint: &str) -> Result<Savepoint> {
        let id = JobId::of(handle)?;
        self.running(handle)?.jobs.stop(&id, savepoint, drains(handle))
    }

    fn rescale(&mut self, handle: &Handle, parallelism: u32, _: &Host) -> Result<()> {
        let (names, id) = (names(handle)?, JobId::of(handle)?);
        self.running(handle)?;
        let cluster = self.cluster(&names)?;
        let manager = self.manager.as_ref().ok_or_else(|| no_manager(&names))?;
        let scaling = Scaling { asking: &self.asking, cluster: &cluster, names: &names, host: &self.host };
        let former = scaling.up(manager, parallelism, self.settings.submit_timeout)?;
        let rescaled = manager.jobs.rescale(&id, parallelism);
        match (&rescaled, former) {
            (Err(_), Some(former)) => scaling.back(former),
            (Ok(()), None) => scaling.down(manager, &id, parallelism, self.settings.submit_timeout),
            _ => {}
        }
        rescaled
    }

    fn logs(&mut self, handle: &Handle, cursor: &str) -> Result<LogLines> {
        let (names, id) = (names(handle)?, JobId::of(handle)?);
        if !cursor.is_empty() {
            return Ok(LogLines { lines: Vec::new(), cursor: END_OF_LOG.to_owned() });
        }
        if matches!(self.known(&names)?, Known::Runs) {
            let told = self.manager(&names)?.jobs.logs(&id, cursor);
            if told.is_ok() {
                return told;
            }
        }
        let cluster = self.cluster(&names)?;
        let lines = self.asking.wait(ending::logs(&cluster, &names))?;
        Ok(LogLines { lines, cursor: END_OF_LOG.to_owned() })
    }

    fn collect(&mut self, handle: &Handle, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        let id = JobId::of(handle)?;
        self.running(handle)?.jobs.collect(&id, wanted)
    }

    fn cleanup(&mut self, handle: &Handle) -> Result<()> {
        let names = names(handle)?;
        let cluster = self.cluster(&names)?;
        match handle.get("ended") {
            // The manager itself, at the end of its job.
            Some(status) => self.asking.wait(ending::leave(&cluster, &names, status)),
            None => self.asking.wait(ending::remove(&cluster, &names)),
        }
    }
}

impl Kubernetes {
    /// The way to the API server, made at the first question.
    fn cluster(&mut self, names: &Names) -> Result<Shared> {
        if let Some(cluster) = &self.cluster {
            return Ok(Arc::clone(cluster));
        }
        let cluster = Arc::new(self.asking.wait(Cluster::connect(&self.settings, &names.namespace))?);
        Ok(Arc::clone(self.cluster.insert(cluster)))
    }

    fn manager(&mut self, names: &Names) -> Result<&Manager> {
        if self.manager.is_none() {
            let cluster = self.cluster(names)?;
            self.manager = Some(Manager::open(&self.asking, &cluster, names, &self.host)?);
        }
        self.manager.as_ref().ok_or_else(|| no_manager(names))
    }

    /// The manager of a job that is not over.
    fn running(&mut self, handle: &Handle) -> Result<&Manager> {
        let names = names(handle)?;
        match self.known(&names)? {
            Known::Ended(status) => {
                let cause = status.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                Err(Error::external(format!("the job is over: it is {}{cause}", status.state)))
            }
            Known::Waits(_, status) => {
                let cause = status.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                Err(Error::external(format!("{} has no job manager now, it is {}{cause}", names.id, status.state)).retryable())
            }
            Known::Runs => self.manager(&names),
        }
    }

    /// What Kubernetes knows of the job.
    fn known(&mut self, names: &Names) -> Result<Known> {
        let cluster = self.cluster(names)?;
        self.asking.wait(async {
            let seen = look::look(&cluster, names).await?;
            let seen = seen.ok_or_else(|| {
                let Names { id, namespace, jobid } = names;
                let what = format!("there is no job {id} ({jobid}) in namespace {namespace} of {}", cluster.server);
                Error::external(format!("{what}: it was removed, or its time to live (kubernetes.ttl) is over"))
            })?;
            Ok(seen.known())
        })
    }

    /// A job that waits for slots may do so because its task managers cannot begin.
    fn with_troubles(&mut self, names: &Names, mut status: JobStatus) -> Result<JobStatus> {
        if !["CREATED", "RESTARTING"].contains(&status.state.as_str()) {
            return Ok(status);
        }
        let cluster = self.cluster(names)?;
        let pods: Vec<Pod> = self.asking.wait(cluster.pods(names, TASK_MANAGER))?;
        let events = if pods.is_empty() {
            self.asking.wait(async { Ok(cluster.events("StatefulSet", &names.task_manager()).await) })?
        } else {
            Vec::new()
        };
        let outlook = pods.iter().map(trouble::of_pod).fold(trouble::of_events(&events), Outlook::or);
        if let Some(line) = outlook.line() {
            status.cause = Some(status.cause.map_or_else(|| line.clone(), |cause| format!("{cause}; {line}")));
        }
        Ok(status)
    }

    /// Of a job that is not there yet.
    fn new_names(&self, content: &Content, jobid: &JobId) -> Result<Names> {
        let id = match &self.settings.cluster_id {
            Some(id) => id.clone(),
            None => manifests::default_id(&content.bundle.name, &secrets::random_word(RANDOM)?),
        };
        Ok(Names { id, namespace: self.settings.namespace.clone(), jobid: jobid.to_string() })
    }

    /// What all later commands need, and no secret. The context is always in it: another one may be the current one by then.
    fn handle(&self, names: &Names, cluster: &Cluster) -> Handle {
        let mut handle = Handle::new();
        let mut say = |key: &str, value: &str| drop(handle.insert(key.to_owned(), value.into()));
        say("jobid", &names.jobid);
        say("kubernetes.cluster.id", &names.id);
        say("kubernetes.namespace", &names.namespace);
        if !self.settings.config_file_is_default {
            say("kubernetes.config.file", &self.settings.config_file.to_string_lossy());
        }
        if let Some(context) = &cluster.context {
            say("kubernetes.context", context);
        }
        handle
    }
}

/// What the objects of a handle's job are called.
fn names(handle: &Handle) -> Result<Names> {
    let text = |key: &str, check: fn(&str) -> names::Checked| {
        let value = handle.get(key).and_then(Value::as_str).ok_or_else(|| Error::config(key, "the handle does not say it"))?;
        check(value).map_err(|why| Error::config(key, why))?;
        Ok::<_, Error>(value.to_owned())
    };
    let jobid = JobId::of(handle)?.to_string();
    Ok(Names { id: text("kubernetes.cluster.id", names::cluster_id)?, namespace: text("kubernetes.namespace", names::label_name)?, jobid })
}

fn no_manager(names: &Names) -> Error {
    Error::external(format!("{} has no job manager now", names.id)).retryable()
}
