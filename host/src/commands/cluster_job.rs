//! `job ... --jobmanager URL`: jobs of a session cluster, by its job manager.

use super::job::collect_by_handle;
use crate::{
    cli::{JobCommand, OutputFormat},
    cluster::Client,
    output::{columns, print, say},
};
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};

/// `standpipe job COMMAND --jobmanager URL`.
pub(super) fn job(client: &Client, command: &JobCommand) -> anyhow::Result<()> {
    match command {
        JobCommand::List { format } => list(client, *format),
        JobCommand::Show { job, format } => {
            let shown = client.get(&format!("/jobs/{}", client.find(job)?))?;
            let text = match format {
                OutputFormat::Text => describe(&shown),
                OutputFormat::Json => format!("{}\n", serde_json::to_string_pretty(&shown)?),
            };
            Ok(print(&text)?)
        }
        JobCommand::Savepoint { job, to } => {
            let path = format!("/jobs/{}/savepoints", client.find(job)?);
            taken(job, &client.request("POST", &path, &json!({"target-directory": to}), &path)?)
        }
        JobCommand::Stop { job, savepoint, drain, to } => {
            let id = client.find(job)?;
            let body = json!({"drain": drain, "targetDirectory": to});
            let outcome = client.request("POST", &format!("/jobs/{id}/stop"), &body, &format!("/jobs/{id}/savepoints"))?;
            say!("{job}: stopped");
            // A session's job always stops with one.
            if *savepoint || to.is_some() { taken(job, &outcome) } else { Ok(()) }
        }
        JobCommand::Cancel { job } => {
            client.patch(&format!("/jobs/{}?mode=cancel", client.find(job)?))?;
            say!("{job}: it is being cancelled");
            Ok(())
        }
        JobCommand::Rescale { job, parallelism } => {
            let path = format!("/jobs/{}/rescaling", client.find(job)?);
            client.request("PATCH", &path, &json!({"parallelism": parallelism}), &path)?;
            say!("{job}: it has stopped with a savepoint, and goes on from there with a parallelism of {parallelism}");
            Ok(())
        }
        JobCommand::Logs { job } => Ok(print(&client.text(&format!("/jobs/{}/logs", client.find(job)?))?)?),
        JobCommand::Collect(arguments) => match (&arguments.handle, &arguments.job) {
            (Some(handle), node) => collect_by_handle(arguments, handle, node.as_deref()),
            (None, job) => {
                let handle = client.handle(&client.find(job.as_deref().unwrap_or_default())?)?;
                super::collect::collect_by(&handle, "--jobmanager", arguments.node.as_deref(), arguments)
            }
        },
    }
}

/// Prints where a savepoint is.
fn taken(job: &str, outcome: &Value) -> anyhow::Result<()> {
    let place = outcome.get("location").and_then(Value::as_str).unwrap_or_default();
    say!("{job}: the savepoint is durable; --restore with its place goes on from it");
    Ok(print(&format!("{place}\n"))?)
}

fn text(of: &Value, key: &str) -> String {
    match of.get(key) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn list(client: &Client, format: OutputFormat) -> anyhow::Result<()> {
    let all = client.get("/jobs/overview")?;
    let jobs = all.get("jobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let shown = match format {
        OutputFormat::Json => jobs.iter().map(|job| format!("{job}\n")).collect(),
        OutputFormat::Text => {
            let row = |job: &Value| {
                let age = Duration::from_millis(job.get("duration").and_then(Value::as_u64).unwrap_or(0));
                let id = text(job, "jid").chars().take(8).collect();
                vec![text(job, "name"), id, text(job, "state"), indicatif::HumanDuration(age).to_string()]
            };
            columns(&["JOB", "ID", "STATE", "FOR"].map(str::to_owned), &jobs.iter().map(row).collect::<Vec<_>>())
        }
    };
    Ok(print(&shown)?)
}

fn describe(job: &Value) -> String {
    let mut out = String::new();
    // Writing to a text does not fail.
    _ = writeln!(
        out,
        "{} {}: {}, attempt {}, {} slots",
        text(job, "name"),
        text(job, "jid"),
        text(job, "state"),
        text(job, "attempt"),
        text(job, "slots")
    );
    for key in ["waits", "why"] {
        if !text(job, key).is_empty() {
            _ = writeln!(out, "{}", text(job, key));
        }
    }
    for worker in job.get("workers").and_then(Value::as_array).into_iter().flatten() {
        _ = writeln!(out, "{} slots of {} ({})", text(worker, "slots"), text(worker, "host"), text(worker, "taskmanager"));
    }
    let metric = |vertex: &Value, key: &str| vertex.get("metrics").map_or_else(String::new, |metrics| text(metrics, key));
    let row = |vertex: &Value| {
        let rows = [metric(vertex, "read-records"), metric(vertex, "write-records")];
        let [rows_in, rows_out] = rows;
        vec![text(vertex, "name"), text(vertex, "parallelism"), rows_in, rows_out]
    };
    let vertices = job.get("vertices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    out.push('\n');
    out.push_str(&columns(&["NODE", "SUBTASKS", "ROWS IN", "ROWS OUT"].map(str::to_owned), &vertices.iter().map(row).collect::<Vec<_>>()));
    out
}
