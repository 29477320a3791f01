//! What `kubectl drain` does to a job: the node is cordoned, and its pods are evicted one after another, by the API that is for that.

use super::{Cluster, ENDLESS, assert_counted_once, deployment, runs_on, shared_checkpoints, status, uid};
use crate::kubernetes_support::{Api, PATIENCE};
use serde_json::json;
use standpipe_tests::{Folder, wait_until};

const NODE: &str = "api/v1/nodes/node";

/// The node takes no new pods, until this is dropped.
struct Cordon<'a>(&'a Api);

impl<'a> Cordon<'a> {
    fn new(api: &'a Api) -> Self {
        api.patch(NODE, &json!({"spec": {"unschedulable": true}}));
        Self(api)
    }
}

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        self.0.patch(NODE, &json!({"spec": {"unschedulable": null}}));
    }
}

fn manager_of(api: &Api, id: &str) -> String {
    let managers = api.managers(id);
    let going = |pod: &&serde_json::Value| pod["metadata"]["deletionTimestamp"].is_null();
    managers.iter().find(going).expect("a manager")["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Evicts a task manager, and waits for the next one.
fn evict_task_manager(api: &Api, name: &str) {
    let before = uid(&api.pod(name));
    api.evict(name);
    wait_until("another task manager", PATIENCE, || api.find_pod(name).is_some_and(|pod| uid(&pod) != before));
}

/// Evicts the manager, and waits for the next one.
fn evict_manager(api: &Api, id: &str) {
    let name = manager_of(api, id);
    api.evict(&name);
    wait_until("another manager", PATIENCE, || api.managers(id).iter().any(|pod| pod["metadata"]["name"] != name.as_str()));
}

pub(crate) fn a_node_that_is_drained(cluster: &Cluster) {
    let (api, folder) = (Api::new(&cluster.kubeconfig), Folder::new());
    folder.write("job.yaml", ENDLESS);
    let volumes = shared_checkpoints(&folder);
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    let _ = cluster.deploy(&api, &folder, "d", &volumes).finish().code(0);
    runs_on(&folder, "d", "checkpoints");

    // There is room elsewhere.
    evict_task_manager(&api, "d-taskmanager-0");
    runs_on(&folder, "d", "after the eviction of the task manager");
    evict_manager(&api, "d");
    runs_on(&folder, "d", "after the eviction of the manager");

    // There is none: this node is the only one.
    let cordon = Cordon::new(&api);
    evict_task_manager(&api, "d-taskmanager-0");
    let mut said = String::new();
    wait_until("the job says what it waits for", PATIENCE, || {
        said = status(&folder, "d");
        said.contains("no node takes pod d-taskmanager-0: ") && said.contains("unschedulable")
    });
    assert!(["RESTARTING", "CREATED"].iter().any(|state| said.starts_with(state)), "{said}");
    evict_manager(&api, "d");
    wait_until("it has no manager, and says why", PATIENCE, || {
        said = status(&folder, "d");
        said.contains(&format!("no node takes pod {}: ", manager_of(&api, "d"))) && said.contains("unschedulable")
    });
    drop(cordon);
    runs_on(&folder, "d", "after the node takes pods again");

    let rows = deployment(&folder, "collect", "d").args(["--limit", "1", "--format", "csv"]).finish().code(0).stdout;
    assert_counted_once(&rows, 0);
    let _ = deployment(&folder, "cancel", "d").finish().code(0);
    let _ = deployment(&folder, "remove", "d").finish().code(0);
    api.wait_until_gone("d");
}
