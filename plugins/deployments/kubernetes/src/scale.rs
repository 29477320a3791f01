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

/// Lets there be task managers for that parallelism, and waits until the manager knows them.
///
/// # Errors
/// When there cannot be, or they do not come within that time: the job runs on as it is.
pub(crate) fn up(
    asking: &Asking,
    cluster: &Cluster,
    names: &Names,
    manager: &Manager,
    host: &Host,
    parallelism: u32,
    limit: Duration,
) -> Result<()> {
    let name = names.task_manager();
    let set: Option<StatefulSet> = asking.wait(cluster.get("statefulsets", &name))?;
    let set = set.ok_or_else(|| Error::external(format!("stateful set {name} of namespace {} is not there", names.namespace)))?;
    let Some(replicas) = needed(&set, parallelism) else { return Ok(()) };
    let change = json!({"spec": {"replicas": replicas}});
    asking.wait(cluster.merge::<StatefulSet>("statefulsets", &name, &change))?;
    host.info(format!("{replicas} task managers from now on, for a parallelism of {parallelism}"), &[]);
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
        if host.cancelled() {
            return Err(Error::cancelled());
        }
        thread::sleep(LOOK);
    }
}

/// How many task managers there have to be, if that is more than there are.
fn needed(set: &StatefulSet, parallelism: u32) -> Option<u32> {
    let slots = set.metadata.annotations.as_ref()?.get(SLOTS)?.parse::<u32>().ok().filter(|slots| *slots > 0)?;
    let there = set.spec.as_ref()?.replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or(1);
    Some(parallelism.div_ceil(slots)).filter(|needed| *needed > there)
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
