//! One look at a job: its Job, the pods of its manager, and what was told of what is in their way.

use crate::{
    cluster::Cluster,
    known::{self, Known},
    manifests::{MANAGER, Names},
    trouble,
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use standpipe_sdk::Result;

/// What was seen of a job.
pub(crate) struct Seen {
    pub(crate) job: Job,
    /// Of its manager, the newest first.
    pub(crate) pods: Vec<Pod>,
    events: Vec<Event>,
}

impl Seen {
    /// What it means.
    pub(crate) fn known(&self) -> Known {
        known::known(&self.job, &self.pods, &self.events)
    }
}

/// Looks; none: there is no such Job, or it is another one that has its name now.
///
/// # Errors
/// When the API server cannot be asked.
pub(crate) async fn look(cluster: &Cluster, names: &Names) -> Result<Option<Seen>> {
    let id = &names.id;
    let Some(job) = cluster.job(names).await? else { return Ok(None) };
    let pods = cluster.pods(names, MANAGER).await?;
    let events = match pods.first() {
        Some(pod) if trouble::runs(pod, MANAGER) => Vec::new(),
        Some(pod) => cluster.events("Pod", trouble::name(pod)).await,
        None => cluster.events("Job", id).await,
    };
    Ok(Some(Seen { job, pods, events }))
}
