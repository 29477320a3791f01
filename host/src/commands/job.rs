//! `job list`, `show`, `savepoint`, `stop`, `cancel`, `collect`: the running jobs of this user on this machine, by their control sockets; with `--jobmanager`, those of a session cluster.

use super::{cluster_job, collect, deployment, look};
use crate::{
    cli::{JobArguments, JobCollectArguments, JobCommand, OutputFormat},
    cluster::Client,
    control::{
        Answer, Request,
        client::{self, Job},
        status::Status,
    },
    exit::{Code, Failure},
    output::{columns, print, say},
};
use chrono::{DateTime, Utc};
use std::{fmt::Write, io, path::Path, time::Duration};

/// `standpipe job ...`.
pub(super) fn job(arguments: &JobArguments) -> anyhow::Result<()> {
    if let Some(url) = &arguments.remote.jobmanager {
        return cluster_job::job(&Client::new(&arguments.remote, url)?, &arguments.command);
    }
    if arguments.remote.token_file.is_some() || arguments.remote.ca_file.is_some() {
        return Err(Failure::error(Code::Usage, "--token-file and --ca-file are for a job manager: give --jobmanager URL"));
    }
    match &arguments.command {
        JobCommand::List { format } => list(*format),
        JobCommand::Show { job, format } => {
            let job = find(job)?;
            let text = match format {
                OutputFormat::Text => describe(&job.status),
                OutputFormat::Json => format!("{}\n", serde_json::to_string_pretty(&job.status)?),
            };
            Ok(print(&text)?)
        }
        JobCommand::Savepoint { job, to } => ask(&find(job)?, &Request::Savepoint { to: to.clone() }),
        JobCommand::Stop { job, savepoint, drain, to } => {
            ask(&find(job)?, &Request::Stop { drain: *drain, savepoint: *savepoint || to.is_some(), to: to.clone() })
        }
        JobCommand::Cancel { job } => ask(&find(job)?, &Request::Cancel),
        JobCommand::Collect(arguments) => match (&arguments.handle, &arguments.job) {
            (Some(handle), node) => collect_by_handle(arguments, handle, node.as_deref()),
            (None, job) => look::collect(&find(job.as_deref().unwrap_or_default())?, arguments),
        },
        JobCommand::Rescale { .. } | JobCommand::Logs { .. } => {
            let message = "only jobs of a session cluster are rescaled and keep logs: give --jobmanager URL";
            Err(Failure::error(Code::Usage, message))
        }
    }
}

/// As `deployment collect`.
pub(super) fn collect_by_handle(arguments: &JobCollectArguments, handle: &Path, node: Option<&str>) -> anyhow::Result<()> {
    let node = arguments.node.as_deref().or(node);
    collect::collect_by(&deployment::read(handle)?, &handle.display().to_string(), node, arguments)
}

fn jobs() -> anyhow::Result<Vec<Job>> {
    client::jobs().map_err(|error| Failure::error(Code::Outside, error))
}

fn list(format: OutputFormat) -> anyhow::Result<()> {
    let jobs = jobs()?;
    let text = match format {
        OutputFormat::Text => {
            let header = ["JOB", "ID", "STATE", "FOR", "ROWS IN", "ROWS OUT", "CHECKPOINT", "PROCESS"];
            table(header, jobs.iter().map(row))
        }
        OutputFormat::Json => {
            let lines = jobs.iter().map(|job| serde_json::to_string(&job.status)).collect::<Result<Vec<_>, _>>()?;
            lines.iter().map(|line| format!("{line}\n")).collect()
        }
    };
    Ok(print(&text)?)
}

fn row(job: &Job) -> [String; 8] {
    let status = &job.status;
    let rows =
        |of: fn(&crate::control::status::TotalsStatus) -> u64| status.totals.as_ref().map_or_else(String::new, |t| of(t).to_string());
    let checkpoint = status.checkpoints.as_ref().and_then(|checkpoints| checkpoints.last).map_or_else(String::new, |id| id.to_string());
    let [rows_in, rows_out] = [rows(|totals| totals.rows_in), rows(|totals| totals.rows_out)];
    let age = indicatif::HumanDuration(age(status)).to_string();
    [status.job.clone(), short(status), status.state.clone(), age, rows_in, rows_out, checkpoint, status.process.to_string()]
}

/// As much of an id as tells jobs apart.
fn short(status: &Status) -> String {
    status.id.chars().take(8).collect()
}

fn age(status: &Status) -> Duration {
    let since = DateTime::parse_from_rfc3339(&status.started).ok().and_then(|started| (Utc::now() - started.to_utc()).to_std().ok());
    since.unwrap_or_default()
}

/// Lines of cells under a header.
fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    columns(&header.map(str::to_owned), &rows.map(Vec::from).collect::<Vec<_>>())
}

/// The one running job that a name or the beginning of an id means.
fn find(wanted: &str) -> anyhow::Result<Job> {
    let mut jobs = jobs()?;
    let known: Vec<String> = jobs.iter().map(|job| format!("{} ({})", job.status.job, short(&job.status))).collect();
    let is_meant = |job: &Job| job.status.job == wanted || (wanted.len() >= 4 && job.status.id.starts_with(wanted));
    jobs.retain(is_meant);
    let message = match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) => return Ok(job),
        (Some(_), false) => format!("several jobs are meant by {wanted:?}: name one by its id: {}", known.join(", ")),
        (None, _) if known.is_empty() => format!("no job {wanted:?} runs here, nor any other"),
        (None, _) => format!("no job {wanted:?} runs here; there are: {}", known.join(", ")),
    };
    Err(Failure::error(Code::Usage, message))
}

/// Asks, and tells what is answered until the job has said all.
fn ask(job: &Job, request: &Request) -> anyhow::Result<()> {
    let name = &job.status.job;
    let mut is_refused = false;
    let is_copied = matches!(request, Request::Savepoint { to: Some(_) } | Request::Stop { to: Some(_), .. });
    let mut result = Err(Failure::error(Code::Failed, format!("{name}: its process has ended without an answer")));
    let asked = client::ask(&job.socket, request, None, |answer| match answer {
        Answer::Savepoint { number, place } => {
            // Somewhere else numbers mean something else.
            let shown = if is_copied { place } else { number.to_string() };
            result = print(&format!("{shown}\n")).map_err(Into::into);
            say!("{name}: savepoint {number} is durable; run --restore {shown} goes on from it");
        }
        Answer::Stopping => say!("{name}: stopping"),
        Answer::Ended(how) => {
            say!("{how}");
            // It has, but not with the savepoint that was asked for.
            if !is_refused {
                result = Ok(());
            }
        }
        Answer::Failed(why) | Answer::Refused(why) | Answer::Busy(why) => {
            is_refused = true;
            result = Err(Failure::error(Code::Failed, format!("{name}: {why}")));
        }
        Answer::Status(_) | Answer::Rows(_) => {}
    });
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(Failure::error(Code::Failed, format!("{name}: it has just ended")))
        }
        Err(error) => Err(Failure::error(Code::Failed, format!("{name}: {error}"))),
        Ok(()) => result,
    }
}

fn describe(status: &Status) -> String {
    let mut text = String::new();
    let restarts = if status.restarts == 0 { String::new() } else { format!(", {} restarts", status.restarts) };
    // Writing to a text does not fail.
    _ = writeln!(text, "{} {}: {}, process {}, since {}{restarts}", status.job, status.id, status.state, status.process, status.started);
    if let Some(reason) = &status.reason {
        _ = writeln!(text, "{reason}");
    }
    if let Some(totals) = &status.totals {
        let lag = totals.lag_records.map_or_else(String::new, |lag| format!(", lag {lag}"));
        _ = writeln!(
            text,
            "{} rows in ({}), {} rows out ({}), {} late, {} broken, {} rejected{lag}",
            totals.rows_in,
            indicatif::HumanBytes(totals.bytes_in),
            totals.rows_out,
            indicatif::HumanBytes(totals.bytes_out),
            totals.late,
            totals.broken,
            totals.rejected
        );
    }
    describe_checkpoints(status, &mut text);
    for node in &status.nodes {
        if let Some(why) = &node.degraded {
            _ = writeln!(text, "{} is DEGRADED: {why}", node.node);
        }
    }
    let rows = status.nodes.iter().map(|node| {
        let watermark = match (&node.watermark, node.idle) {
            (_, true) => "idle".to_owned(),
            (Some(time), false) => node.held_by.as_ref().map_or_else(|| time.clone(), |split| format!("{time} (held by {split})")),
            (None, false) => String::new(),
        };
        let paused = node
            .paused_splits
            .filter(|paused| *paused > 0)
            .map_or_else(String::new, |paused| format!(", {paused} paused, {:.0} s ahead", node.drift_seconds.unwrap_or_default()));
        let watermark = format!("{watermark}{paused}");
        let busy = format!("{:.1} s", node.busy_seconds);
        [
            node.node.clone(),
            node.rows_in.to_string(),
            node.rows_out.to_string(),
            node.late.to_string(),
            node.broken.to_string(),
            busy,
            watermark,
        ]
    });
    if !status.nodes.is_empty() {
        text.push('\n');
        text.push_str(&table(["NODE", "ROWS IN", "ROWS OUT", "LATE", "BROKEN", "BUSY", "WATERMARK"], rows));
    }
    let splits: Vec<_> = status.nodes.iter().flat_map(|node| node.lag.iter().map(move |(split, lag)| (node, split, lag))).collect();
    if !splits.is_empty() {
        let cell = |value: Option<u64>, unit: &str| value.map_or_else(String::new, |value| format!("{value}{unit}"));
        let rows =
            splits.iter().map(|(node, split, lag)| [node.node.clone(), (*split).clone(), cell(lag.records, ""), cell(lag.millis, " ms")]);
        text.push('\n');
        text.push_str(&table(["SOURCE", "SPLIT", "LAG", "AGE"], rows));
    }
    text
}

fn describe_checkpoints(status: &Status, text: &mut String) {
    let Some(checkpoints) = &status.checkpoints else { return };
    _ = write!(text, "checkpoints: {} completed, {} failed", checkpoints.completed, checkpoints.failed);
    if let (Some(id), Some(age), Some(took), Some(bytes)) =
        (checkpoints.last, checkpoints.age_seconds, checkpoints.took_millis, checkpoints.bytes)
    {
        _ = write!(text, "; {id} is durable since {age:.1} s, took {took:.0} ms, {}", indicatif::HumanBytes(bytes));
    }
    if let Some(trouble) = &checkpoints.trouble {
        _ = write!(text, "; the last one was given up: {trouble}");
    }
    text.push('\n');
}
