//! `/jobs/:id/config`: Flink's few fields, and what the engine runs the job with, each with who has said so.

use crate::manager::Job;
use serde_json::{Value, json};

/// See the module's documentation.
pub(super) fn show(job: &Job) -> Value {
    let parallelism =
        job.planned.settings.iter().find(|setting| setting.key == "parallelism").and_then(|setting| setting.value.parse::<u32>().ok());
    let restart = job.planned.settings.iter().find(|setting| setting.key == "restart").map(|setting| setting.value.as_str());
    json!({
        "jid": job.id, "name": job.bundle.name,
        "execution-config": {
            "execution-mode": "PIPELINED", "restart-strategy": restart.unwrap_or("none"),
            "job-parallelism": parallelism.unwrap_or(job.planned.slots), "object-reuse-mode": true, "user-config": {},
        },
        "configuration": job.planned.settings,
    })
}
