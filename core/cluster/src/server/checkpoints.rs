//! `/jobs/:id/checkpoints`, in the JSON of Flink's monitoring API: what the manager has heard of a job's checkpoints.

use crate::manager::Job;
use serde_json::{Map, Value, json};

fn number(of: &Value, key: &str) -> u64 {
    let value = of.get(key);
    value.and_then(Value::as_u64).or_else(|| value.and_then(Value::as_f64).map(|value| value.max(0.0) as u64)).unwrap_or(0)
}

fn is_durable(past: &Value) -> bool {
    past.get("trouble").is_none_or(Value::is_null)
}

fn is_savepoint(past: &Value) -> bool {
    past.get("savepoint").and_then(Value::as_bool) == Some(true)
}

/// One of them.
fn one(job: &Job, past: &Value) -> Value {
    let subtasks: u32 = job.planned.nodes.iter().map(|node| node.parallelism).sum();
    let (triggered, took, is_durable) = (number(past, "triggered_millis"), number(past, "took_millis"), is_durable(past));
    let kind = if is_savepoint(past) { "SAVEPOINT" } else { "CHECKPOINT" };
    let mut shown = Map::new();
    let common = json!({
        "@class": if is_durable { "completed" } else { "failed" },
        "id": number(past, "id"), "status": if is_durable { "COMPLETED" } else { "FAILED" },
        "is_savepoint": is_savepoint(past), "savepointFormat": is_savepoint(past).then_some("CANONICAL"), "checkpoint_type": kind,
        "trigger_timestamp": triggered, "latest_ack_timestamp": triggered.saturating_add(took), "end_to_end_duration": took,
        "checkpointed_size": number(past, "written"), "state_size": number(past, "bytes"), "alignment_buffered": 0,
        "processed_data": 0, "persisted_data": 0, "num_subtasks": subtasks,
        "num_acknowledged_subtasks": if is_durable { subtasks } else { 0 }, "tasks": {},
    });
    let own = match is_durable {
        true => json!({"external_path": past.get("place"), "discarded": false}),
        false => json!({"failure_timestamp": triggered.saturating_add(took), "failure_message": past.get("trouble")}),
    };
    for part in [common, own] {
        shown.extend(part.as_object().cloned().unwrap_or_default());
    }
    Value::Object(shown)
}

/// The least, the most and the mean of a number, and its quantiles.
fn summary(of: &[&Value], key: &str) -> Value {
    let mut all: Vec<u64> = of.iter().map(|past| number(past, key)).collect();
    all.sort_unstable();
    let quantile = |of: f64| all.get(((all.len().saturating_sub(1)) as f64 * of).round() as usize).copied().unwrap_or(0);
    let mean = if all.is_empty() { 0 } else { all.iter().fold(0_u64, |sum, one| sum.saturating_add(*one)) / all.len() as u64 };
    json!({
        "min": quantile(0.0), "max": quantile(1.0), "avg": mean,
        "p50": quantile(0.5), "p90": quantile(0.9), "p95": quantile(0.95), "p99": quantile(0.99), "p999": quantile(0.999),
    })
}

/// All that is known, newest first; sizes and times of the last ones.
pub(super) fn checkpoints(job: &Job) -> Value {
    let past: Vec<&Value> = job.checkpoints.values().rev().collect();
    let (durable, failed): (Vec<&Value>, Vec<&Value>) = past.iter().copied().partition(|past| is_durable(past));
    let newest = |of: &[&Value], savepoints: bool| of.iter().find(|past| is_savepoint(past) == savepoints).map(|past| one(job, past));
    let status = job.status.as_ref().and_then(|status| status.get("checkpoints")).cloned().unwrap_or_default();
    let (completed, given_up) = (job.completed_checkpoints(), job.failed_checkpoints());
    let restored = status.get("restored").and_then(Value::as_u64);
    let restored_one = restored.map(|id| {
        let of = job.checkpoints.get(&id);
        let begun = job.attempts.last().map(|attempt| attempt.begun);
        json!({
            "id": id, "restore_timestamp": begun, "is_savepoint": of.is_some_and(is_savepoint),
            "external_path": of.and_then(|past| past.get("place")),
        })
    });
    json!({
        "counts": {
            "restored": job.attempt().number + u32::from(restored.is_some() && job.attempt().number == 0),
            "total": completed.saturating_add(given_up), "in_progress": 0, "completed": completed, "failed": given_up,
        },
        "summary": {
            "checkpointed_size": summary(&durable, "written"), "state_size": summary(&durable, "bytes"),
            "end_to_end_duration": summary(&durable, "took_millis"),
            "alignment_buffered": summary(&[], ""), "processed_data": summary(&[], ""), "persisted_data": summary(&[], ""),
        },
        "latest": {
            "completed": newest(&durable, false), "savepoint": newest(&durable, true), "failed": failed.first().map(|past| one(job, past)),
            "restored": restored_one,
        },
        "history": past.iter().map(|past| one(job, past)).collect::<Vec<_>>(),
        "trouble": status.get("trouble"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::job_for_tests;

    #[test]
    fn what_is_heard_of_checkpoints_is_shown_as_flink_does_and_outlives_a_start() {
        let mut job = job_for_tests("j");
        let past = |id: u64, savepoint: bool, trouble: Option<&str>| {
            json!({"id": id, "savepoint": savepoint, "triggered_millis": 1000 * id, "took_millis": 7.9, "bytes": 100 * id, "written": 10,
                "place": "/ckpt/x", "trouble": trouble})
        };
        job.hear_status(json!({"checkpoints": {"completed": 2, "failed": 1, "history": [past(1, false, None), past(2, true, None), past(3, false, Some("full"))]}}));
        let shown = checkpoints(&job);
        assert_eq!(shown["counts"], json!({"restored": 0, "total": 3, "in_progress": 0, "completed": 2, "failed": 1}));
        assert_eq!(shown.pointer("/latest/completed/id"), Some(&json!(1)));
        assert_eq!(shown.pointer("/latest/savepoint/external_path"), Some(&json!("/ckpt/x")));
        assert_eq!(shown.pointer("/latest/failed/failure_message"), Some(&json!("full")));
        assert_eq!(shown.pointer("/summary/state_size/max"), Some(&json!(200)));
        assert_eq!(shown["history"].as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(shown.pointer("/history/0/@class"), Some(&json!("failed")));
        // Another start counts from nothing; the job does not.
        job.begin_for_tests();
        job.hear_status(json!({"checkpoints": {"completed": 1, "failed": 0, "restored": 2, "history": [past(4, false, None)]}}));
        let shown = checkpoints(&job);
        assert_eq!((&shown["counts"]["completed"], &shown["counts"]["failed"]), (&json!(3), &json!(1)));
        assert_eq!(shown.pointer("/latest/restored/is_savepoint"), Some(&json!(true)));
    }

    #[test]
    fn nothing_is_known_of_a_job_that_has_taken_none() {
        let shown = checkpoints(&job_for_tests("j"));
        assert_eq!((&shown["history"], &shown["latest"]["completed"]), (&json!([]), &Value::Null));
        assert_eq!(shown.pointer("/summary/state_size/avg"), Some(&json!(0)));
    }
}
