//! More task managers, for a job that wants more subtasks than there are slots; fewer, once it runs with less and the last of them are idle.

use crate::{
    cluster::{Asking, Cluster},
    manager::Manager,
    manifests::{Names, SLOTS, TASK_MANAGER},
};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use serde_json::{Value, json};
use standpipe_deployment_rest::JobId;
use standpipe_sdk::{Error, Host, Result, deployment::JobStatus};
use std::{
    collections::BTreeSet,
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

    /// Takes the last task managers away that the job does not need any more, once it runs. Which of them are idle only the manager knows; a stateful set gives up
    /// the last ones first, so an idle one before one that works stays. What fails here is only said: the job has been rescaled.
    pub(crate) fn down(&self, manager: &Manager, job: &JobId, parallelism: u32, limit: Duration) {
        if let Err(error) = self.give_up_idle(manager, job, parallelism, limit) {
            let name = self.names.task_manager();
            self.host.warn(format!("stateful set {name} may have more replicas than the job needs: {}", error.message), &[]);
        }
    }

    fn give_up_idle(&self, manager: &Manager, job: &JobId, parallelism: u32, limit: Duration) -> Result<()> {
        let set: Option<StatefulSet> = self.asking.wait(self.cluster.get("statefulsets", &self.names.task_manager()))?;
        let Some(set) = set.filter(|set| self.names.is_of(&set.metadata)) else { return Ok(()) };
        if replicas_for(&set, parallelism).is_none_or(|enough| enough >= there(&set)) {
            return Ok(());
        }
        let ask = |path: &str| manager.client.get(path).and_then(|answer| manager.client.good(answer, "the cluster"));
        let mut state = Rescaled::NotYet;
        let told = self.wait(limit, || {
            state = Rescaled::of(&ask(&job.path())?);
            Ok(state != Rescaled::NotYet)
        })?;
        match (told, state) {
            (false, _) => return Err(Error::external("the job does not run again yet")),
            // Its end takes all of them away.
            (true, Rescaled::Over) => return Ok(()),
            _ => {}
        }
        let told = ask("/taskmanagers")?;
        let pods = self.asking.wait(self.cluster.pods(self.names, TASK_MANAGER))?;
        match still_needed(&pods, &hosts_that_work(&told)) {
            Some(replicas) if replicas < there(&set) => {
                self.asking.wait(self.set(replicas))?;
                self.host.info(format!("{replicas} task managers from now on, for a parallelism of {parallelism}"), &[]);
            }
            _ => {}
        }
        Ok(())
    }

    async fn set(&self, replicas: u32) -> Result<()> {
        let change = json!({"spec": {"replicas": replicas}});
        self.cluster.merge::<StatefulSet>("statefulsets", &self.names.task_manager(), &change).await.map(|_| ())
    }

    /// Waits until the manager has the slots.
    fn come(&self, manager: &Manager, replicas: u32, parallelism: u32, limit: Duration) -> Result<()> {
        let mut slots = 0;
        let enough = self.wait(limit, || {
            let overview = manager.client.get("/overview").and_then(|answer| manager.client.good(answer, "the cluster"));
            slots = match overview {
                Ok(overview) => overview.get("slots-total").and_then(Value::as_u64).unwrap_or(0),
                Err(error) if error.retryable => 0,
                Err(error) => return Err(error),
            };
            Ok(slots >= u64::from(parallelism))
        })?;
        if enough {
            return Ok(());
        }
        let message = format!(
            "{replicas} task managers were asked for, and have given {slots} slots within {} s: the job runs on as it is",
            limit.as_secs()
        );
        Err(Error::external(message))
    }

    /// Looks until it is so; false: it is not within that time.
    ///
    /// # Errors
    /// Those of a look, and that the command was cancelled.
    fn wait(&self, limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
        let begun = Instant::now();
        loop {
            if is_so()? {
                return Ok(true);
            }
            if begun.elapsed() >= limit {
                return Ok(false);
            }
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            thread::sleep(LOOK);
        }
    }
}

/// What has become of a job that was to get another parallelism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rescaled {
    /// Until it has stopped for that it says `rescaling`, and then it begins.
    NotYet,
    Runs,
    /// It has ended meanwhile.
    Over,
}

impl Rescaled {
    fn of(job: &Value) -> Self {
        let state = job.get("state").and_then(Value::as_str).unwrap_or_default();
        match state {
            "RUNNING" if job.get("rescaling").is_none_or(Value::is_null) => Self::Runs,
            _ if JobStatus::new(state).is_terminal() => Self::Over,
            _ => Self::NotYet,
        }
    }
}

/// How many there are to be.
fn there(set: &StatefulSet) -> u32 {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or(1)
}

/// How many task managers that parallelism takes.
fn replicas_for(set: &StatefulSet, parallelism: u32) -> Option<u32> {
    let slots = set.metadata.annotations.as_ref()?.get(SLOTS)?.parse::<u32>().ok().filter(|slots| *slots > 0)?;
    Some(parallelism.div_ceil(slots))
}

/// How many task managers there have to be, if that is more than there are.
fn needed(set: &StatefulSet, parallelism: u32) -> Option<u32> {
    replicas_for(set, parallelism).filter(|needed| *needed > there(set))
}

/// Where task managers run of which slots are taken, by what the manager says.
fn hosts_that_work(told: &Value) -> BTreeSet<&str> {
    let all = told.get("taskmanagers").and_then(Value::as_array).into_iter().flatten();
    let works = |one: &&Value| one.get("allocatedSlots").and_then(Value::as_array).is_none_or(|taken| !taken.is_empty());
    all.filter(works).filter_map(|one| one.get("path").and_then(Value::as_str)).collect()
}

/// How many replicas there are up to the last one that works. None: one that works is not among these pods.
fn still_needed(pods: &[Pod], working: &BTreeSet<&str>) -> Option<u32> {
    let replica = |host: &&str| {
        let is_it = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) == Some(*host);
        let (_, ordinal) = pods.iter().find(is_it)?.metadata.name.as_deref()?.rsplit_once('-')?;
        ordinal.parse::<u32>().ok()?.checked_add(1)
    };
    let replicas: Option<Vec<u32>> = working.iter().map(replica).collect();
    replicas?.into_iter().max()
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

    #[test]
    fn what_is_idle_behind_the_last_that_works_is_not_needed() {
        let one = |host: &str, taken: Value| json!({"id": host, "path": host, "allocatedSlots": taken});
        let told =
            json!({"taskmanagers": [one("10.0.0.7", json!([{"slots": 2}])), one("10.0.0.8", json!([])), one("10.0.0.9", json!([]))]});
        let working = hosts_that_work(&told);
        assert_eq!(working, BTreeSet::from(["10.0.0.7"]));
        let pod =
            |name: &str, ip: &str| serde_json::from_value::<Pod>(json!({"metadata": {"name": name}, "status": {"podIP": ip}})).unwrap();
        let pods = [pod("j-taskmanager-10", "10.0.0.9"), pod("j-taskmanager-9", "10.0.0.8"), pod("j-taskmanager-2", "10.0.0.7")];
        assert_eq!(still_needed(&pods, &working), Some(3), "also an idle one that is before it");
        assert_eq!(still_needed(&pods, &BTreeSet::from(["10.0.0.7", "10.0.0.9"])), Some(11));
        assert_eq!(still_needed(&pods, &BTreeSet::from(["10.0.0.6"])), None, "who that is nobody knows");
        assert_eq!(still_needed(&pods, &BTreeSet::new()), None, "a job that runs works somewhere");
    }

    #[test]
    fn a_job_that_has_not_stopped_yet_is_not_rescaled() {
        for (state, rescaling, expected) in [
            ("RUNNING", Value::Null, Rescaled::Runs),
            ("RUNNING", 1.into(), Rescaled::NotYet),
            ("RESTARTING", Value::Null, Rescaled::NotYet),
            ("FINISHED", Value::Null, Rescaled::Over),
            ("FAILED", 1.into(), Rescaled::Over),
        ] {
            assert_eq!(Rescaled::of(&json!({"state": state, "rescaling": rescaling})), expected, "{state}");
        }
    }
}
