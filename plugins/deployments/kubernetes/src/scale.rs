//! More task managers, for a job that wants more subtasks than there are slots. Fewer it never makes: which of them are idle only the manager knows, and another moment later.

use crate::{
    cluster::{Asking, Cluster},
    manager::Manager,
    manifests::{Names, SLOTS},
};
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};
use standpipe_sdk::{Error, Host, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

/// From one look at the slots to the next.
const LOOK: Duration = Duration::from_millis(500);

/// The task managers of one job.
pub(crate) struct Scaling<'a> {
    pub(crate) asking: &'a Asking,
    pub(crate) cluster: &'a Cluster,
    pub(crate) names: &'a Names,
    pub(crate) host: &'a Host,
}

impl Scaling<'_> {
    /// Lets there be task managers for that parallelism, and waits until the manager knows them. How many there were before, if there were fewer.
    ///
    /// # Errors
    /// When there cannot be, or they do not come within that time: there are as many as before, and the job runs on as it is.
    pub(crate) fn up(&self, manager: &Manager, parallelism: u32, limit: Duration) -> Result<Option<u32>> {
        let name = self.names.task_manager();
        let set: Option<StatefulSet> = self.asking.wait(self.cluster.get("statefulsets", &name))?;
        let gone = || Error::external(format!("stateful set {name} of namespace {} is not there", self.names.namespace));
        let set = set.filter(|set| self.names.is_of(&set.metadata)).ok_or_else(gone)?;
        let former = there(&set);
        let Some(replicas) = needed(&set, parallelism) else { return Ok(None) };
        self.asking.wait(self.set(replicas))?;
        self.host.info(format!("{replicas} task managers from now on, for a parallelism of {parallelism}"), &[]);
        match self.come(manager, replicas, parallelism, limit) {
            Ok(()) => Ok(Some(former)),
            Err(error) => {
                self.back(former);
                Err(error)
            }
        }
    }

    /// As many as there were before: those that are too many may not even have a node, and would keep asking for one.
    pub(crate) fn back(&self, former: u32) {
        match self.asking.wait_for_all(self.set(former)) {
            Ok(()) => self.host.info(format!("{former} task managers again"), &[]),
            Err(error) => self.host.warn(
                format!("stateful set {} has too many replicas now, {former} would do: {}", self.names.task_manager(), error.message),
                &[],
            ),
        }
    }

    async fn set(&self, replicas: u32) -> Result<()> {
        let change = json!({"spec": {"replicas": replicas}});
        self.cluster.merge::<StatefulSet>("statefulsets", &self.names.task_manager(), &change).await.map(|_| ())
    }

    /// Waits until the manager has the slots.
    fn come(&self, manager: &Manager, replicas: u32, parallelism: u32, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let overview = manager.client.get("/overview").and_then(|answer| manager.client.good(answer, "the cluster"));
            let slots = match overview {
                Ok(overview) => overview.get("slots-total").and_then(Value::as_u64).unwrap_or(0),
                Err(error) if error.retryable => 0,
                Err(error) => return Err(error),
            };
            if slots >= u64::from(parallelism) {
                return Ok(());
            }
            if begun.elapsed() >= limit {
                let message = format!(
                    "{replicas} task managers were asked for, and have given {slots} slots within {} s: the job runs on as it is",
                    limit.as_secs()
                );
                return Err(Error::external(message));
            }
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            thread::sleep(LOOK);
        }
    }
}

/// How many there are to be.
fn there(set: &StatefulSet) -> u32 {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or(1)
}

/// How many task managers there have to be, if that is more than there are.
fn needed(set: &StatefulSet, parallelism: u32) -> Option<u32> {
    let slots = set.metadata.annotations.as_ref()?.get(SLOTS)?.parse::<u32>().ok().filter(|slots| *slots > 0)?;
    Some(parallelism.div_ceil(slots)).filter(|needed| *needed > there(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_subtasks_than_slots_need_more_task_managers() {
        let set = |slots: &str, replicas: i32| -> StatefulSet {
            let text = json!({"metadata": {"annotations": {SLOTS: slots}}, "spec": {"replicas": replicas, "selector": {}, "serviceName": "", "template": {}}});
            serde_json::from_value(text).unwrap()
        };
        assert_eq!(needed(&set("2", 1), 2), None);
        assert_eq!(needed(&set("2", 1), 3), Some(2));
        assert_eq!(needed(&set("2", 3), 3), None, "never fewer");
        assert_eq!(needed(&set("0", 1), 3), None);
    }
}
