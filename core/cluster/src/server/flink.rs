//! Jobs and task managers in the JSON of Flink's monitoring API. Its clients fail on a missing field of a primitive type, so every field is there, also where we have
//! nothing to say; what Flink has no word for has a field of its own.

use super::java;
use crate::{
    manager::{Job, Manager, Member, Millis, Outcome, PlannedNode, Stage, TaskManager},
    protocol::TaskManagerId,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `/overview`.
pub(super) fn overview(manager: &Manager) -> Value {
    let total = manager.task_managers().values().fold(0_u32, |sum, one| sum.saturating_add(one.slots));
    let free = manager.task_managers().keys().fold(0_u32, |sum, id| sum.saturating_add(manager.free(id)));
    let count = |is: fn(&Job) -> bool| manager.jobs().values().filter(|job| is(job)).count();
    json!({
        "taskmanagers": manager.task_managers().values().filter(|one| one.known).count(),
        "slots-total": total,
        "slots-available": free,
        "taskmanagers-blocked": 0,
        "slots-free-and-blocked": 0,
        "jobs-running": count(|job| !job.is_over()),
        "jobs-finished": count(|job| job.stage == Stage::Over(Outcome::Finished)),
        "jobs-cancelled": count(|job| job.stage == Stage::Over(Outcome::Canceled)),
        "jobs-failed": count(|job| job.stage == Stage::Over(Outcome::Failed)),
        "flink-version": env!("CARGO_PKG_VERSION"),
        "flink-commit": "standpipe",
    })
}

/// `/config`.
pub(super) fn config() -> Value {
    json!({
        "refresh-interval": 3000,
        "timezone-name": "UTC",
        "timezone-offset": 0,
        "flink-version": env!("CARGO_PKG_VERSION"),
        "flink-revision": "standpipe",
        "features": {"web-submit": false, "web-cancel": true, "web-rescale": true, "web-history": false},
    })
}

/// `/jobs`.
pub(super) fn ids(manager: &Manager) -> Value {
    let jobs: Vec<Value> = manager.jobs().values().map(|job| json!({"id": job.id, "status": job.state()})).collect();
    json!({"jobs": jobs})
}

/// `/jobs/overview`, newest first.
pub(super) fn jobs(manager: &Manager, now: Millis) -> Value {
    let mut jobs: Vec<&Job> = manager.jobs().values().collect();
    jobs.sort_by(|a, b| b.submitted.cmp(&a.submitted).then_with(|| a.id.cmp(&b.id)));
    let one = |job: &&Job| {
        let tasks = counts(job, job.planned.nodes.iter().map(|node| node.parallelism).sum());
        let mut shown = times(job, now);
        shown.extend(fields(json!({
            "jid": job.id, "name": job.bundle.name, "state": job.state(), "last-modification": job.changed,
            "tasks": tasks, "pending-operators": 0,
        })));
        shown
    };
    json!({"jobs": jobs.iter().map(one).collect::<Vec<_>>()})
}

fn fields(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

fn times(job: &Job, now: Millis) -> Map<String, Value> {
    let end = job.ended().map_or(json!(-1), |end| json!(end));
    let duration = job.ended().unwrap_or(now).saturating_sub(job.submitted);
    fields(json!({"start-time": job.submitted, "end-time": end, "duration": duration}))
}

/// The state that all subtasks of a job are in.
fn task_state(job: &Job) -> &'static str {
    match job.state() {
        "FINISHED" => "FINISHED",
        "CANCELED" => "CANCELED",
        "FAILED" => "FAILED",
        "RUNNING" => "RUNNING",
        "CANCELLING" => "CANCELING",
        "FAILING" => "CANCELING",
        "INITIALIZING" => "INITIALIZING",
        _ => "CREATED",
    }
}

const TASK_STATES: [&str; 10] =
    ["CREATED", "SCHEDULED", "DEPLOYING", "RUNNING", "FINISHED", "CANCELING", "CANCELED", "FAILED", "RECONCILING", "INITIALIZING"];

/// So many subtasks, by state; keys in lower case, with their sum.
fn counts(job: &Job, subtasks: u32) -> Value {
    let own = task_state(job);
    let mut counts = Map::new();
    counts.insert("total".to_owned(), json!(subtasks));
    for state in TASK_STATES {
        counts.insert(state.to_lowercase(), json!(if state == own { subtasks } else { 0 }));
    }
    Value::Object(counts)
}

/// So many subtasks, by state.
fn states(job: &Job, subtasks: u32) -> Value {
    let own = task_state(job);
    Value::Object(TASK_STATES.iter().map(|state| ((*state).to_owned(), json!(if *state == own { subtasks } else { 0 }))).collect())
}

/// The nodes of a job's status, by path.
fn statuses(job: &Job) -> BTreeMap<&str, &Value> {
    let nodes = job.status.as_ref().and_then(|status| status.get("nodes")).and_then(Value::as_array);
    nodes.into_iter().flatten().filter_map(|node| Some((node.get("node")?.as_str()?, node))).collect()
}

/// 32 hexadecimal digits for a node: the same in every start of the job.
pub(super) fn vertex_id(path: &str) -> String {
    crate::bundle::Hash::of(path.as_bytes()).digits().chars().take(32).collect()
}

/// `/jobs/:id`; `waits` is what it waits for.
pub(super) fn job(job: &Job, waits: Option<String>, now: Millis) -> Value {
    let statuses = statuses(job);
    let vertex = |node: &PlannedNode| {
        let number = |key: &str| statuses.get(node.path.as_str()).and_then(|status| status.get(key)).cloned().unwrap_or(json!(0));
        let millis = |key: &str| number(key).as_f64().map_or(0.0, |seconds| (seconds * 1000.0).round());
        // What is neither is idle, of all the time that its subtasks have had.
        let ran =
            job.attempts.last().map_or(0, |last| last.ended.unwrap_or(now).saturating_sub(last.begun)) as f64 * f64::from(node.parallelism);
        let idle = (ran - millis("busy_seconds") - millis("backpressure_seconds")).max(0.0) as u64;
        let mut shown = times(job, now);
        shown.extend(fields(json!({
            "id": vertex_id(&node.path), "name": node.path, "maxParallelism": -1, "parallelism": node.parallelism,
            "status": task_state(job), "tasks": states(job, node.parallelism), "slotSharingGroupId": vertex_id("default"),
            "metrics": {
                "read-bytes": number("bytes_in"), "read-bytes-complete": true, "write-bytes": number("bytes_out"), "write-bytes-complete": true,
                "read-records": number("rows_in"), "read-records-complete": true, "write-records": number("rows_out"), "write-records-complete": true,
                "accumulated-busy-time": millis("busy_seconds"), "accumulated-idle-time": idle,
                "accumulated-backpressured-time": millis("backpressure_seconds") as u64,
            },
            "status-detail": statuses.get(node.path.as_str()), "collects": node.collects,
        })));
        shown
    };
    let subtasks: u32 = job.planned.nodes.iter().map(|node| node.parallelism).sum();
    let mut shown = times(job, now);
    shown.extend(fields(json!({
        "jid": job.id, "name": job.bundle.name, "isStoppable": false, "state": job.state(), "job-type": "STREAMING", "maxParallelism": -1,
        "now": now, "timestamps": timestamps(job), "vertices": job.planned.nodes.iter().map(vertex).collect::<Vec<_>>(),
        "status-counts": states(job, subtasks), "plan": plan(job), "pending-operators": 0,
        "restarts": job.restarts, "attempt": job.attempt().number, "waits": waits, "why": job.why(),
        "slots": job.planned.slots, "bounded": job.planned.bounded, "workers": job.members().iter().map(worker).collect::<Vec<_>>(),
        "status": job.status, "rescaling": job.rescale.as_ref().map(|rescale| rescale.parallelism),
    })));
    Value::Object(shown)
}

fn worker(member: &Member) -> Value {
    json!({"taskmanager": member.task_manager, "host": member.host, "slots": member.slots, "gone": member.gone.is_some()})
}

fn timestamps(job: &Job) -> Value {
    let states = [
        "INITIALIZING",
        "CREATED",
        "RUNNING",
        "FAILING",
        "FAILED",
        "CANCELLING",
        "CANCELED",
        "FINISHED",
        "RESTARTING",
        "SUSPENDED",
        "RECONCILING",
    ];
    let at = |state: &str| match state {
        "CREATED" => job.submitted,
        state if state == job.state() => job.changed,
        _ => 0,
    };
    Value::Object(states.iter().map(|state| ((*state).to_owned(), json!(at(state)))).collect())
}

/// The graph of `/jobs/:id/plan`.
pub(super) fn plan(job: &Job) -> Value {
    let node = |node: &PlannedNode| {
        let input = |(i, (path, ship)): (usize, &(String, String))| json!({"num": i, "id": vertex_id(path), "ship_strategy": ship.to_uppercase(), "exchange": "pipelined_bounded"});
        let properties = node.plugin.as_ref().map_or_else(|| json!({}), |plugin| json!(plugin));
        json!({
            "id": vertex_id(&node.path), "parallelism": node.parallelism, "operator": node.role, "operator_strategy": "",
            "description": node.path, "inputs": node.inputs.iter().enumerate().map(input).collect::<Vec<_>>(),
            "optimizer_properties": properties,
        })
    };
    let nodes: Vec<Value> = job.planned.nodes.iter().map(node).collect();
    json!({"jid": job.id, "name": job.bundle.name, "type": "STREAMING", "nodes": nodes})
}

/// `/jobs/:id/exceptions`, newest first.
pub(super) fn exceptions(job: &Job) -> Value {
    let failed: Vec<_> = job.attempts.iter().rev().filter_map(|attempt| Some((attempt, attempt.why.as_ref()?))).collect();
    let one = |(attempt, why): &(&crate::manager::AttemptRecord, &String)| {
        let (host, task_manager) = attempt.placed.first().cloned().unwrap_or_default();
        json!({
            "exceptionName": why.lines().next(), "stacktrace": why, "timestamp": attempt.ended, "taskName": null, "endpoint": host,
            "taskManagerId": task_manager, "failureLabels": {}, "concurrentExceptions": [], "attempt": attempt.number,
        })
    };
    let root = failed.first();
    json!({
        "root-exception": root.map(|(_, why)| why), "timestamp": root.and_then(|(attempt, _)| attempt.ended), "all-exceptions": [],
        "truncated": false,
        "exceptionHistory": {"entries": failed.iter().map(one).collect::<Vec<_>>(), "truncated": false},
    })
}

/// What has become of a request; none: it is not answered yet.
pub(super) fn operation(outcome: Option<Result<Value, String>>) -> Value {
    match outcome {
        None => json!({"status": {"id": "IN_PROGRESS"}, "operation": null}),
        Some(Ok(done)) => json!({"status": {"id": "COMPLETED"}, "operation": done}),
        Some(Err(why)) => json!({
            "status": {"id": "COMPLETED"},
            "operation": {"failure-cause": {"class": "standpipe", "stack-trace": why, "serialized-throwable": java::throwable(&why)}},
        }),
    }
}

/// `/taskmanagers`.
pub(super) fn task_managers(manager: &Manager) -> Value {
    let known = manager.task_managers().iter().filter(|(_, one)| one.known);
    json!({"taskmanagers": known.map(|(id, one)| task_manager(manager, id, one)).collect::<Vec<_>>()})
}

/// `/taskmanagers/:id`, with the jobs that it has.
pub(super) fn task_manager(manager: &Manager, id: &TaskManagerId, one: &TaskManager) -> Value {
    let members =
        |job: &Job| job.members().iter().filter(|member| member.task_manager == *id && member.gone.is_none()).map(|one| one.slots).sum();
    let taken: Vec<Value> = manager
        .jobs()
        .values()
        .map(|job| (job, members(job)))
        .filter(|(_, slots): &(_, u32)| *slots > 0)
        .map(|(job, slots)| json!({"jobId": job.id, "name": job.bundle.name, "slots": slots, "resource": resource(slots)}))
        .collect();
    json!({
        "id": id, "path": one.host, "dataPort": 0, "jmxPort": -1, "timeSinceLastHeartbeat": one.heard, "slotsNumber": one.slots,
        "freeSlots": manager.free(id), "pid": one.pid, "since": one.since, "allocatedSlots": taken,
        "blocked": false,
        "hardware": {"cpuCores": 0, "physicalMemory": 0, "freeMemory": 0, "managedMemory": 0},
        "totalResource": resource(one.slots), "freeResource": resource(manager.free(id)),
        "memoryConfiguration": {
            "frameworkHeap": null, "taskHeap": null, "frameworkOffHeap": null, "taskOffHeap": null, "networkMemory": null, "managedMemory": null,
            "jvmMetaspace": null, "jvmOverhead": null, "totalFlinkMemory": null, "totalProcessMemory": null,
        },
    })
}

/// Flink's words for what slots are made of: here they are threads.
fn resource(slots: u32) -> Value {
    json!({"cpuCores": f64::from(slots), "taskHeapMemory": 0, "taskOffHeapMemory": 0, "managedMemory": 0, "networkMemory": 0, "extendedResources": {}})
}
