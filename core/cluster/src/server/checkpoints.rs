//! `/jobs/:id/checkpoints`, as Flink has it: what the job's process counts, and the last ones of all attempts.

use crate::{manager::Job, status::CheckpointStatus};
use serde_json::{Value, json};

/// See the module's documentation; `history` is oldest first, with the attempt of each.
pub(super) fn show(job: &Job, history: &[(u32, CheckpointStatus)]) -> Value {
    let status = job.status.as_ref().and_then(|status| status.get("checkpoints"));
    let number = |key: &str| status.and_then(|status| status.get(key)).and_then(Value::as_u64).unwrap_or(0);
    let newest =
        |is: &dyn Fn(&CheckpointStatus) -> bool| history.iter().rev().find(|(_, one)| is(one)).map(|(attempt, one)| shown(*attempt, one));
    let done: Vec<&CheckpointStatus> = history.iter().map(|(_, one)| one).filter(|one| one.state == "completed").collect();
    let in_progress = history.last().filter(|(_, one)| one.state == "in-progress" && !job.is_over());
    json!({
        "counts": {
            "restored": job.restarts, "total": number("completed") + number("failed") + u64::from(in_progress.is_some()),
            "in_progress": u64::from(in_progress.is_some()), "completed": number("completed"), "failed": number("failed"),
        },
        "summary": {
            "state_size": spread(&done, |one| one.bytes as f64), "checkpointed_size": spread(&done, |one| one.written_bytes as f64),
            "end_to_end_duration": spread(&done, |one| one.took_millis),
        },
        "latest": {
            "completed": newest(&|one| one.state == "completed"), "savepoint": newest(&|one| one.state == "completed" && one.savepoint),
            "failed": newest(&|one| one.state == "failed"), "restored": null,
        },
        "history": history.iter().rev().map(|(attempt, one)| shown(*attempt, one)).collect::<Vec<_>>(),
        "trouble": status.and_then(|status| status.get("trouble")),
    })
}

fn shown(attempt: u32, one: &CheckpointStatus) -> Value {
    let status = match one.state.as_str() {
        "completed" => "COMPLETED",
        "failed" => "FAILED",
        _ => "IN_PROGRESS",
    };
    let kind = if one.savepoint { "SAVEPOINT" } else { "CHECKPOINT" };
    json!({
        "className": one.state, "id": one.id, "status": status, "is_savepoint": one.savepoint, "checkpoint_type": kind, "savepointFormat": null,
        "trigger_timestamp": one.triggered_millis, "latest_ack_timestamp": one.triggered_millis + one.took_millis as i64,
        "state_size": one.bytes, "checkpointed_size": one.written_bytes, "end_to_end_duration": one.took_millis.round() as u64,
        "alignment_buffered": 0, "processed_data": 0, "persisted_data": 0, "num_subtasks": 0, "num_acknowledged_subtasks": 0, "tasks": {},
        "attempt": attempt, "failure_message": one.reason,
    })
}

fn spread(all: &[&CheckpointStatus], of: fn(&CheckpointStatus) -> f64) -> Value {
    let values = || all.iter().map(|one| of(one));
    let average = if all.is_empty() { 0.0 } else { values().sum::<f64>() / all.len() as f64 };
    let whole = |value: Option<f64>| value.unwrap_or_default().round() as u64;
    json!({"min": whole(values().reduce(f64::min)), "max": whole(values().reduce(f64::max)), "avg": whole(Some(average))})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_first_and_sizes_are_summed_up() {
        let one = |id, state: &str, bytes, savepoint| CheckpointStatus {
            id,
            state: state.to_owned(),
            bytes,
            savepoint,
            took_millis: 10.4,
            ..CheckpointStatus::default()
        };
        let history = [
            (0, one(1, "completed", 100, true)),
            (0, one(2, "failed", 0, false)),
            (1, one(3, "completed", 300, false)),
            (1, one(4, "in-progress", 0, false)),
        ];
        let shown = show(&crate::manager::job_for_tests("a"), &history);
        assert_eq!(shown["history"][0]["status"], "IN_PROGRESS");
        assert_eq!(
            (&shown["latest"]["completed"]["id"], &shown["latest"]["savepoint"]["id"], &shown["latest"]["failed"]["id"]),
            (&json!(3), &json!(1), &json!(2))
        );
        assert_eq!(shown["summary"]["state_size"], json!({"min": 100, "max": 300, "avg": 200}));
        assert_eq!((&shown["counts"]["in_progress"], &shown["history"][1]["end_to_end_duration"]), (&json!(1), &json!(10)));
    }
}
