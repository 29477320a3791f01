//! `plugin check`: the conformance suite on the kinds of a plugin file. Each kind is tried in a child process (`child`), which is told what to do (`task`) and notes what it does: if it
//! ends before it is done, that is a finding, and another child goes on behind it. This process calls nothing of the plugin's.

pub(crate) mod child;
mod input;
mod task;

use crate::{
    cli::{CheckArguments, OutputFormat},
    exit::{Code, Failure},
    output::{print, say, write},
};
use anyhow::Context as _;
use serde_json::{Value, json};
use standpipe_conformance::{Finding, Listed, Report, Verdict, checks};
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};
use task::{Event, Task};

/// A million, as `--thorough` says.
const THOROUGH: u64 = 1_000_000;
/// Lines of what a child has printed that are shown when it ends by itself.
const LAST_LINES: usize = 5;

/// A kind of the file, as its manifest has it.
pub(crate) struct Known {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// `standpipe plugin check --list`.
pub(crate) fn list() -> anyhow::Result<()> {
    let mut text = String::new();
    for kind in ["source", "transform", "sink", "scalar", "aggregate", "deployment"] {
        text.push_str(&format!("{kind}\n"));
        for Listed { name, about } in checks(kind) {
            text.push_str(&format!("  {name:<18} {about}\n"));
        }
    }
    Ok(print(&text)?)
}

/// Tries the kinds of a file; `of_file` are those that its manifest names.
///
/// # Errors
/// With the exit code 1 when a check has failed, else with 2 when a kind cannot be tried.
pub(crate) fn check(arguments: &CheckArguments, file: &Path, of_file: &[Known]) -> anyhow::Result<()> {
    let tasks = tasks(arguments, file, of_file)?;
    let (mut reports, mut unusable) = (Vec::new(), Vec::new());
    for task in tasks {
        match tried(task)? {
            Ok(report) => {
                if arguments.format == OutputFormat::Text {
                    write(&format!("{report}\n\n"))?;
                }
                reports.push(report);
            }
            Err(why) => unusable.push(why),
        }
    }
    if arguments.format == OutputFormat::Json {
        let report = json!({"file": file.display().to_string(), "reports": reports, "not_tried": unusable});
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    let failed: usize = reports.iter().map(|report| report.count(Verdict::Failed)).sum();
    match (failed, unusable.is_empty()) {
        (0, true) => Ok(()),
        (0, false) => Err(Failure::error(Code::Usage, unusable.join("\n"))),
        (_, _) => {
            unusable.iter().for_each(|why| say!("error: {why}"));
            // The report has said it all.
            Err(Failure::error(Code::Failed, ""))
        }
    }
}

/// One task for each kind that is to be tried.
fn tasks(arguments: &CheckArguments, file: &Path, of_file: &[Known]) -> anyhow::Result<Vec<Task>> {
    let is_known = |check: &String| of_file.iter().any(|known| checks(&known.kind).iter().any(|listed| listed.name == check));
    if let Some(unknown) = arguments.only.iter().find(|check| !is_known(check)) {
        return Err(Failure::error(
            Code::Usage,
            format!("--only {unknown}: no kind of this file has such a check; `plugin check --list` has all"),
        ));
    }
    let task = Task::new(arguments, file)?;
    if task.pipeline.is_some() {
        return Ok(vec![task]);
    }
    let wanted = |known: &&Known| {
        arguments.kind.as_ref().is_none_or(|kind| *kind == known.kind) && arguments.name.as_ref().is_none_or(|name| *name == known.name)
    };
    let chosen: Vec<&Known> = of_file.iter().filter(wanted).collect();
    let all = || of_file.iter().map(|known| format!("{} {}", known.kind, known.name)).collect::<Vec<_>>().join(", ");
    match chosen.as_slice() {
        [] => Err(Failure::error(Code::Usage, format!("{}: there is no such kind in it, only: {}", file.display(), all()))),
        [_, _, ..] if arguments.config.is_some() => {
            Err(Failure::error(Code::Usage, format!("--config is for one kind: name it by --kind and --name; there are: {}", all())))
        }
        chosen => Ok(chosen.iter().map(|known| Task { kind: known.kind.clone(), name: known.name.clone(), ..task.clone() }).collect()),
    }
}

/// Tries a kind, in as many processes as it takes. The inner error is why it cannot be tried.
fn tried(mut task: Task) -> anyhow::Result<Result<Report, String>> {
    let mut report = Report { kind: task.kind.clone(), name: task.name.clone(), findings: Vec::new() };
    loop {
        let run = run(&task)?;
        let (mut left, mut begun) = (None, None);
        for event in run.events {
            match event {
                Event::Subject { kind, name, checks } => {
                    (report.kind, report.name) = (kind, name);
                    left = Some(checks);
                }
                Event::Unusable(why) => return Ok(Err(why)),
                Event::Began(check) => begun = Some(check),
                Event::Found(finding) => {
                    begun = None;
                    left.iter_mut().for_each(|left| left.retain(|check| *check != finding.check));
                    report.findings.push(finding);
                }
            }
        }
        let ended = ended(run.status);
        let Some(mut left) = left else {
            // Before it could be tried at all.
            let mut finding = Finding::new(
                "configuration",
                Verdict::Failed,
                format!("while the plugin was loaded and asked about its configuration {ended}"),
            );
            finding.details = run.last_lines;
            report.findings.push(finding);
            return Ok(Ok(report));
        };
        if let Some(check) = begun {
            left.retain(|left| *left != check);
            let mut finding = Finding::new(&check, Verdict::Failed, ended);
            finding.details = run.last_lines;
            report.findings.push(finding);
        } else if !left.is_empty() {
            return Ok(Err(format!("{} {}: between two checks {ended}", report.kind, report.name)));
        }
        if left.is_empty() {
            return Ok(Ok(report));
        }
        task.only = left;
    }
}

struct Run {
    events: Vec<Event>,
    status: ExitStatus,
    last_lines: Vec<String>,
}

/// One child. What the plugin prints goes nowhere, unless it ends the process.
fn run(task: &Task) -> anyhow::Result<Run> {
    let folder = tempfile::Builder::new().prefix("standpipe-check-").tempdir()?;
    let (events, printed) = (folder.path().join("events"), folder.path().join("stderr"));
    File::create(&events)?;
    let task = Task { events: events.clone(), ..task.clone() };
    let own = std::env::current_exe().context("cannot find the standpipe binary")?;
    let mut child = Command::new(own);
    child.args(["--log-level", "error", "plugin", "try"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&printed)?);
    let mut child = child.spawn()?;
    let told = serde_json::to_vec(&task)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read it says so by its status.
        drop(stdin.write_all(&told));
    }
    let status = child.wait()?;
    let lines = fs::read_to_string(&events)?;
    let events = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let printed = fs::read(&printed).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    let last_lines = lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| (*line).to_owned()).collect();
    Ok(Run { events, status, last_lines })
}

/// How a process has ended that should not have.
fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("the process ended by the signal {signal}{}", name(signal)),
        (None, Some(code)) => format!("the process ended with the exit code {code}: a plugin must not end its host"),
        (None, None) => "the process ended".to_owned(),
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// The configuration that the command line gives: JSON, or a file with it.
fn configuration(argument: Option<&str>) -> anyhow::Result<Value> {
    let Some(argument) = argument else { return Ok(json!({})) };
    let (origin, text) = match argument.strip_prefix('@') {
        None => ("--config".to_owned(), argument.to_owned()),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| Failure::error(Code::Outside, format!("--config @{path}: {error}")))?;
            (path.to_owned(), text)
        }
    };
    let config: Value = serde_json::from_str(&text).map_err(|error| Failure::error(Code::Usage, format!("{origin}: no JSON: {error}")))?;
    match config.is_object() {
        true => Ok(config),
        false => Err(Failure::error(Code::Usage, format!("{origin}: expected a JSON object, {{\"key\": value}}, found {config}"))),
    }
}
