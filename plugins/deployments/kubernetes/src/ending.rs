//! What is left of a job, and how it goes: its end written down where it outlives the pods, the cluster removed, logs of pods that are no manager's any more to give.

use crate::{
    cluster::Cluster,
    known::Ending,
    manifests::{MANAGER, Names, STATUS, TASK_MANAGER},
    trouble,
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{ConfigMap, Secret, Service},
};
use kube::{ResourceExt, api::PropagationPolicy};
use serde_json::{Value, json};
use standpipe_sdk::{Error, Result};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// How long the end of a job is tried to be written down, and what it had to be removed: the host that asks for it has more patience.
const LEAVING: Duration = Duration::from_secs(30);
/// How long after its job's end the Job may stay without one of its own: a container beside the manager's may not end, a pod that replaces the manager's has no files.
const LEFT_SECONDS: i64 = 300;
/// Lines of each pod's log.
const LOG_LINES: i64 = 1000;
/// How long it is waited until a job that is removed is gone.
const REMOVAL: Duration = Duration::from_secs(60);
/// How long task managers are waited for. One whose node does not answer says nothing.
const FAREWELLS: Duration = Duration::from_secs(5);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(500);
/// As [`LOOK`], for what takes a moment.
const SOON: Duration = Duration::from_millis(200);

/// The end of a job, by its manager: written down, and then what it does not need any more removed. The Job and the manager's rights stay, until the time to live is over.
///
/// # Errors
/// What could not be done; the rest is.
pub(crate) async fn leave(cluster: &Cluster, names: &Names, status: &Value) -> Result<()> {
    let begun = Instant::now();
    loop {
        let left = leave_now(cluster, names, status).await;
        match left {
            Err(error) if error.retryable && begun.elapsed() < LEAVING => sleep(LOOK).await,
            left => return left,
        }
    }
}

/// A job that was over before its client took the deadline of its submission away gets the one again that its end has set.
///
/// # Errors
/// When that cannot be done.
pub(crate) async fn limit_again(cluster: &Cluster, names: &Names, job: &Job) -> Result<()> {
    if job.annotations().contains_key(STATUS) {
        let deadline = seconds_since_start(job) + LEFT_SECONDS;
        let change = json!({"metadata": {"uid": job.metadata.uid}, "spec": {"activeDeadlineSeconds": deadline}});
        cluster.merge::<Job>("jobs", &names.id, &change).await?;
    }
    Ok(())
}

async fn leave_now(cluster: &Cluster, names: &Names, status: &Value) -> Result<()> {
    // Another job that has its name now has nothing to do with it.
    let Some(job) = cluster.job(names).await? else { return Ok(()) };
    let written = write_down(cluster, names, &job, &status.to_string(), seconds_since_start(&job) + LEFT_SECONDS).await;
    let removed = remove_cluster(cluster, names).await;
    written.and(removed)
}

/// How the job ended, and when Kubernetes ends its Job, in seconds since its start, if that has not ended by itself: the time to live begins with its end.
async fn write_down(cluster: &Cluster, names: &Names, job: &Job, status: &str, deadline: i64) -> Result<()> {
    let change = json!({
        "metadata": {"uid": job.metadata.uid, "annotations": {STATUS: status}},
        "spec": {"activeDeadlineSeconds": deadline}
    });
    cluster.merge::<Job>("jobs", &names.id, &change).await.map(|_| ())
}

/// The clocks of Kubernetes and of this machine are taken to be alike; by a few minutes it does no harm if they are not.
fn seconds_since_start(job: &Job) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0.as_second());
    start.map_or(0, |start| i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(start).max(0))
}

/// Removes the task managers, and waits for their pods: one that ends says farewell to its manager, whose name is that of a service.
async fn remove_task_managers(cluster: &Cluster, names: &Names) -> Result<bool> {
    let (kind, name, begun) = ("statefulsets", names.task_manager(), Instant::now());
    let was_there = cluster.delete_with_dependents::<StatefulSet>(kind, &name).await?;
    let mut is_there = was_there;
    while is_there && begun.elapsed() < FAREWELLS {
        sleep(SOON).await;
        is_there = cluster.get::<StatefulSet>(kind, &name).await?.is_some();
    }
    Ok(was_there)
}

/// Removes what a job that is over does not need.
async fn remove_cluster(cluster: &Cluster, names: &Names) -> Result<()> {
    let service = names.task_manager();
    let removed = [
        remove_task_managers(cluster, names).await,
        cluster.delete::<Service>("services", &service).await,
        cluster.delete::<Service>("services", &names.id).await,
        cluster.delete::<ConfigMap>("configmaps", &names.bundle()).await,
        cluster.delete::<Secret>("secrets", &names.id).await,
    ];
    removed.into_iter().find_map(Result::err).map_or(Ok(()), Err)
}

/// Ends a job that has no manager to tell: that it was cancelled is written down, then Kubernetes ends it as of now.
///
/// # Errors
/// When that cannot be done.
pub(crate) async fn cancel(cluster: &Cluster, names: &Names) -> Result<()> {
    let status = Ending { state: "CANCELED".to_owned(), cause: Some("it was cancelled while it had no job manager".to_owned()) };
    let Some(job) = cluster.job(names).await? else { return Ok(()) };
    // At once: a manager that began in between would run a job that is told to be cancelled.
    write_down(cluster, names, &job, &serde_json::to_string(&status)?, 1).await?;
    remove_cluster(cluster, names).await
}

/// Removes the Job and all that it owns, and waits until it is gone. One that has its name and is another job's stays.
///
/// # Errors
/// When something stays.
pub(crate) async fn remove(cluster: &Cluster, names: &Names) -> Result<()> {
    let Some(uid) = cluster.job(names).await?.and_then(|job| job.metadata.uid) else { return Ok(()) };
    cluster.delete_job(&names.id, &uid, PropagationPolicy::Foreground).await?;
    let begun = Instant::now();
    while cluster.job(names).await?.is_some() {
        if begun.elapsed() >= REMOVAL {
            let Names { id, namespace, .. } = names;
            let message = format!(
                "job {id} of namespace {namespace} is being removed, and is not gone yet: a pod of it may be on a node that does not answer"
            );
            return Err(Error::external(message).retryable());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// The logs of all pods that are there, each under its name.
///
/// # Errors
/// When there is none.
pub(crate) async fn logs(cluster: &Cluster, names: &Names) -> Result<Vec<String>> {
    let (mut lines, mut failed) = (Vec::new(), None);
    for component in [MANAGER, TASK_MANAGER] {
        // The oldest first: a pod goes on where the one before it ended.
        for pod in cluster.pods(names, component).await?.iter().rev() {
            let name = trouble::name(pod);
            match cluster.log(name, component, LOG_LINES).await {
                Ok(text) => {
                    lines.push(format!("==> {name} <=="));
                    lines.extend(text.lines().map(str::to_owned));
                }
                Err(error) => failed = Some(error),
            }
        }
    }
    match failed {
        Some(error) if lines.is_empty() => Err(error),
        None if lines.is_empty() => Err(Error::external(format!("{} has no pods any more whose logs there are", names.id))),
        _ => Ok(lines),
    }
}
