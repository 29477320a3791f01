//! A job on its way into Kubernetes: the Job first, then what it owns, then the manager, which is sent what it lacks; last the Job is told that the submission is complete.
//!
//! Until that last step the Job has a deadline. Whoever is killed before it leaves a Job that Kubernetes itself ends and removes, with all that it owns. Whoever fails, or is told to give up,
//! removes it at once.

use crate::{
    cluster::{Asking, Cluster, Shared},
    known::{self, Known},
    look::{Seen, look},
    manager::Manager,
    manifests::{JOBID, MANAGER, Names, Owner, Plan},
    refusals::taken,
    trouble::{self, Outlook},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{ResourceExt, api::DynamicObject};
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
/// After so many managers that ended by themselves another one does not help.
const MOST_FAILURES: usize = 3;
/// The exit code of a process that was started wrongly.
const EXIT_USAGE: i32 = 2;
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
        // Whatever the user says meanwhile: half a question may be a whole answer.
        let created = self.asking.wait_for_all(self.cluster.create(&manifest));
        let job = created.inspect_err(|error| {
            if error.retryable && self.asking.wait_for_all(self.is_there(&manifest, id)) {
                self.give_up();
            }
        })?;
        let result = self.complete(plan, &job, folder, id);
        result.inspect_err(|_| self.give_up())
    }

    /// Whether the Job is there, and of this submission, though nobody has said that it was created.
    async fn is_there(&self, manifest: &Value, id: &JobId) -> bool {
        let found = self.cluster.find(manifest).await.ok().flatten();
        found.is_some_and(|job| job.annotations().get(JOBID) == Some(&id.to_string()))
    }

    /// Removes what was created.
    fn give_up(&self) {
        let Names { id, namespace } = self.names;
        match self.asking.wait_for_all(self.cluster.delete::<Job>("jobs", id)) {
            Ok(_) => self.host.info(format!("what was created of {id} in namespace {namespace} is removed"), &[]),
            Err(error) => self.host.warn(
                format!(
                    "job {id} of namespace {namespace} cannot be removed, and is ended and removed by Kubernetes later: {}",
                    error.message
                ),
                &[],
            ),
        }
    }

    fn complete(&self, plan: &Plan<'_>, job: &DynamicObject, folder: &Path, id: &JobId) -> Result<()> {
        let uid = job.metadata.uid.clone().ok_or_else(|| Error::external("the API server creates a job without a uid"))?;
        let owner = Owner { name: self.names.id.clone(), uid };
        self.host.info(format!("created job {} in namespace {}", self.names.id, self.names.namespace), &[]);
        for manifest in plan.owned(Some(&owner))? {
            self.asking.wait(self.put(&manifest, &owner))?;
        }
        self.hand_over(plan, folder, id)?;
        let change = json!({"spec": {"activeDeadlineSeconds": Value::Null}});
        let job: Job = self.asking.wait(self.cluster.merge("jobs", &self.names.id, &change))?;
        match known::ended(&job, &[]) {
            Some(status) if status.state == "FAILED" && is_late(&job) => Err(self.late("Kubernetes has ended it meanwhile")),
            _ => Ok(()),
        }
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
    fn hand_over(&self, plan: &Plan<'_>, folder: &Path, id: &JobId) -> Result<()> {
        let manager = Manager::open(self.asking, self.cluster, self.names, self.host)?;
        let (begun, limit) = (Instant::now(), plan.settings.submit_timeout);
        let (mut told, mut served) = (String::new(), String::new());
        loop {
            let last;
            let seen = self.asking.wait(self.look())?;
            match seen.known() {
                Known::Ended(status) if status.state == "FINISHED" => return Ok(()),
                Known::Ended(_) if is_late(&seen.job) => return Err(self.late("Kubernetes has ended it meanwhile")),
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
        let Names { id, namespace } = self.names;
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
        let log = self.asking.wait_for_all(self.cluster.log(trouble::name(pod), MANAGER)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
        let text: Vec<String> = last.map(|line| format!("\n  {line}")).collect();
        if text.is_empty() { String::new() } else { format!("; its last lines:{}", text.concat()) }
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
