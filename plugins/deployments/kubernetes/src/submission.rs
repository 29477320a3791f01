//! A job on its way into Kubernetes: the Job first, then what it owns, then the manager, which is sent what it lacks; last the Job is told that the submission is complete.
//!
//! Until that last step the Job has a deadline. Whoever is killed before it leaves a Job that Kubernetes itself ends and removes, with all that it owns. Whoever fails, or is told to give up,
//! removes it at once.

use crate::{
    cluster::{Asking, Cluster, Shared},
    ending,
    known::Known,
    look::{Seen, look},
    manager::Manager,
    manifests::{MANAGER, Names, Owner, Plan},
    refusals::taken,
    trouble::{self, Outlook},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DynamicObject, PropagationPolicy},
};
use serde_json::{Value, json};
use standpipe_deployment_rest::JobId;
use standpipe_sdk::{Error, ErrorCode, Host, Result, bundle::Bundle, deployment::JobStatus};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// From one look at the manager to the next.
const LOOK: Duration = Duration::from_millis(500);
/// How long an object of a job that is being removed may be in the way.
const REMOVAL: Duration = Duration::from_secs(20);
/// How long a change is tried again that the API server does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so many managers that ended by themselves another one does not help.
const MOST_FAILURES: usize = 3;
/// The exit code of a process that was started wrongly.
const EXIT_USAGE: i32 = 2;
/// Lines of a log in which those are looked for: some are empty.
const LOG_LINES: i64 = 20;
/// Lines of a log that are shown with a failure.
const LAST_LINES: usize = 5;

/// See the module's documentation.
pub(crate) struct Submission<'a> {
    pub(crate) asking: &'a Asking,
    pub(crate) cluster: &'a Shared,
    pub(crate) host: &'a Host,
    pub(crate) names: &'a Names,
}

impl Submission<'_> {
    /// Creates everything, and returns when the manager has taken the job.
    ///
    /// # Errors
    /// What is in the way; then nothing is left.
    pub(crate) fn run(&self, plan: &Plan<'_>, folder: &Path, id: &JobId) -> Result<()> {
        plan.check()?;
        let manifest = plan.job();
        if self.asking.wait(self.cluster.find(&manifest))?.is_some() {
            return Err(taken("jobs", &self.names.id, &self.names.namespace));
        }
        let begun = Instant::now();
        // Whatever the user says meanwhile: half a question may be a whole answer.
        let job = self.asking.wait_for_all(self.create(&manifest))?;
        let uid = job.metadata.uid.ok_or_else(|| Error::external("the API server creates a job without a uid"))?;
        let owner = Owner { name: self.names.id.clone(), uid };
        self.host.info(format!("created job {} in namespace {}", self.names.id, self.names.namespace), &[]);
        let handed_over = self.fill(plan, &owner).and_then(|()| self.hand_over(plan, folder, id, begun));
        handed_over.inspect_err(|_| self.give_up(&owner, "and is ended and removed by Kubernetes later"))?;
        // Once that is asked for, Kubernetes may not end it any more.
        self.release(&owner).inspect_err(|_| self.give_up(&owner, "and may run on: kubectl delete job removes it with all that it has"))
    }

    /// Creates the Job. One of this submission that is there though nobody has said that it was created is it: the answer to the first question was lost.
    async fn create(&self, manifest: &Value) -> Result<DynamicObject> {
        let created = self.cluster.create(manifest).await;
        match created {
            Ok(job) => Ok(job),
            Err(error) => {
                let found = self.cluster.find(manifest).await.ok().flatten();
                found.filter(|job| self.names.is_of(&job.metadata)).ok_or(error)
            }
        }
    }

    /// Removes what was created; `otherwise`: what becomes of it if that cannot be done.
    fn give_up(&self, owner: &Owner, otherwise: &str) {
        let Names { id, namespace, .. } = self.names;
        let delete = || self.cluster.delete_job(id, &owner.uid, PropagationPolicy::Background);
        match self.asking.wait_for_all(patiently(delete)) {
            Ok(_) => self.host.info(format!("what was created of {id} in namespace {namespace} is removed"), &[]),
            Err(error) => {
                self.host.warn(format!("job {id} of namespace {namespace} cannot be removed, {otherwise}: {}", error.message), &[]);
            }
        }
    }

    /// Creates what the Job owns.
    fn fill(&self, plan: &Plan<'_>, owner: &Owner) -> Result<()> {
        let mut objects = plan.owned(Some(owner))?.into_iter();
        objects.try_for_each(|manifest| self.asking.wait(patiently(|| self.put(&manifest, owner))))
    }

    /// The last step: Kubernetes does not end it any more by itself.
    fn release(&self, owner: &Owner) -> Result<()> {
        let change = json!({"metadata": {"uid": owner.uid}, "spec": {"activeDeadlineSeconds": Value::Null}});
        let job: Job = self.asking.wait(patiently(|| self.cluster.merge("jobs", &self.names.id, &change)))?;
        if is_late(&job) {
            return Err(self.late("Kubernetes has ended it meanwhile"));
        }
        if let Err(error) = self.asking.wait_for_all(patiently(|| ending::limit_again(self.cluster, self.names, &job))) {
            let Names { id, namespace, .. } = self.names;
            self.host.warn(format!("job {id} of namespace {namespace} is over, and may stay until it is removed: {}", error.message), &[]);
        }
        Ok(())
    }

    /// Applies an object that the Job owns; one of the same name that is another's stays as it is.
    async fn put(&self, manifest: &Value, owner: &Owner) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.cluster.find(manifest).await? {
                None => break,
                Some(found) if is_owned(&found, &owner.uid) => break,
                // It was a job of this name, which is gone already.
                Some(found) if is_leaving(&found, owner) && begun.elapsed() < REMOVAL => tokio::time::sleep(LOOK).await,
                Some(found) => return Err(taken(Cluster::resource(manifest), &found.name_any(), &self.names.namespace)),
            }
        }
        self.cluster.apply(manifest).await.map(|_| ())
    }

    /// Waits for the manager, sends it what it lacks, and waits until it has the job.
    fn hand_over(&self, plan: &Plan<'_>, folder: &Path, id: &JobId, begun: Instant) -> Result<()> {
        let manager = Manager::open(self.asking, self.cluster, self.names, self.host)?;
        let limit = plan.settings.submit_timeout;
        let (mut told, mut served) = (String::new(), String::new());
        loop {
            let last;
            let seen = self.asking.wait(patiently(|| self.look()))?;
            if is_late(&seen.job) {
                return Err(self.late("Kubernetes has ended it meanwhile"));
            }
            match seen.known() {
                Known::Ended(status) if status.state == "FINISHED" => return Ok(()),
                Known::Ended(status) => return Err(self.over(status, &seen.pods)),
                Known::Waits(Outlook::Hopeless(line), _) => return Err(Error::external(line)),
                Known::Waits(outlook, _) => {
                    self.check_ends(&seen.pods)?;
                    let line = outlook.line().unwrap_or_default();
                    if !line.is_empty() && line != told {
                        self.host.info(format!("waits for the job manager: {line}"), &[]);
                        told.clone_from(&line);
                    }
                    last = line;
                }
                Known::Runs => match self.offer(&manager, &plan.content.bundle, folder, id, &seen.pods, &mut served) {
                    // It is still there, and what it was made for is over.
                    Ok(status) if status.is_terminal() && status.state != "FINISHED" => return Err(self.over(status, &seen.pods)),
                    Ok(status) if status.state != "INITIALIZING" => return Ok(()),
                    Ok(_) => last = "the job manager has not taken the job yet".to_owned(),
                    Err(error) if error.code == ErrorCode::EXTERNAL => last = error.message,
                    Err(error) => return Err(error),
                },
            }
            if begun.elapsed() >= limit {
                let last = if last.is_empty() { "the job manager's pod has not begun".to_owned() } else { last };
                return Err(self.late(&last));
            }
            thread::sleep(LOOK);
        }
    }

    fn over(&self, status: JobStatus, pods: &[Pod]) -> Error {
        let cause = status.cause.unwrap_or_else(|| format!("it ended as {}{}", status.state, self.last_lines(pods)));
        Error::new(ErrorCode::DATA, format!("the job failed before its submission was complete: {cause}"))
    }

    fn late(&self, why: &str) -> Error {
        Error::external(format!("the job was not submitted within the time for it (kubernetes.submit.timeout): {why}"))
    }

    async fn look(&self) -> Result<Seen> {
        let Names { id, namespace, .. } = self.names;
        let seen = look(self.cluster, self.names).await?;
        seen.ok_or_else(|| Error::external(format!("job {id} of namespace {namespace} was removed by somebody else")))
    }

    /// Sends the manager what it lacks, once to each pod of it; how the job is.
    fn offer(&self, manager: &Manager, bundle: &Bundle, folder: &Path, id: &JobId, pods: &[Pod], served: &mut String) -> Result<JobStatus> {
        let pod = pods.iter().find(|pod| trouble::runs(pod, MANAGER)).map(trouble::name).unwrap_or_default();
        if pod != served.as_str() {
            manager.jobs.send_missing(bundle, folder)?;
            pod.clone_into(served);
        }
        manager.jobs.status(id)
    }

    /// Managers that end by themselves before they have the job do so again.
    ///
    /// # Errors
    /// With the last that such a one has logged.
    fn check_ends(&self, pods: &[Pod]) -> Result<()> {
        let by_themselves = pods.iter().filter(|pod| !trouble::is_disrupted(pod));
        let ends: Vec<_> = by_themselves.filter_map(|pod| Some((pod, trouble::ended(pod, MANAGER)?))).collect();
        let Some((pod, ended)) = ends.first() else { return Ok(()) };
        if ended.exit_code != EXIT_USAGE && ends.len() < MOST_FAILURES {
            return Ok(());
        }
        let line = format!("the job manager in pod {} ended {}", trouble::name(pod), trouble::exit(ended));
        Err(Error::external(format!("{line}{}", self.last_lines(std::slice::from_ref(*pod)))))
    }

    /// The last lines of the newest pod's log, if they can be had.
    fn last_lines(&self, pods: &[Pod]) -> String {
        let Some(pod) = pods.first() else { return String::new() };
        let log = self.asking.wait_for_all(self.cluster.log(trouble::name(pod), MANAGER, LOG_LINES)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
        let text: Vec<String> = last.map(|line| format!("\n  {line}")).collect();
        if text.is_empty() { String::new() } else { format!("; its last lines:{}", text.concat()) }
    }
}

/// Asks again for some time where the API server does not answer. What is asked may be done twice.
async fn patiently<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(error) if error.retryable && begun.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
            answer => return answer,
        }
    }
}

/// Whether the object is owned by that Job.
fn is_owned(object: &DynamicObject, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

/// Whether the object is of a former Job of the same name, or about to go.
fn is_leaving(object: &DynamicObject, job: &Owner) -> bool {
    let is_former = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| owner.kind == "Job" && owner.name == job.name;
    object.metadata.deletion_timestamp.is_some() || object.owner_references().iter().any(is_former)
}

/// Whether Kubernetes has ended the Job because of its deadline.
fn is_late(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.status == "True" && condition.reason.as_deref() == Some("DeadlineExceeded"))
}
