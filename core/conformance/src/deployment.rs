//! Deployment modes: what can be tried without a job. Nothing is submitted.

use crate::{
    LIVES,
    check::{Check, Outcome, Stop, refused_or_taken, seconds},
    configuration as config,
    process::{Endurance, grows, left_behind, threads as thread_ids},
    suite::{Case, Settings, Unusable},
    watch::Watch,
};
use serde_json::{Value, json};
use standpipe_sdk::{
    deployment::{Collect, Handle},
    hosting::{DeploymentInstance, DeploymentKind},
};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// The checks of a deployment mode, in their order.
pub(crate) const CHECKS: &[Check<DeploymentCase>] = &[
    Check { name: "configuration", about: "what is no configuration is refused, with a line and not with a panic", run: configuration },
    Check { name: "unknown-keys", about: "a key that it does not know is told, with what is wrong besides", run: unknown_keys },
    Check { name: "validate", about: "a configuration is checked without anything outside: at once, and without a trace", run: validate },
    Check { name: "lifecycle", about: "instances are made and destroyed, several at a time", run: lifecycle },
    Check { name: "handles", about: "handles that are none of its own are errors, not panics", run: handles },
    Check { name: crate::CANCELLATION, about: "a wait comes back when it is cancelled", run: cancellation },
    Check { name: "threads", about: "no thread outlives its instance", run: threads },
    Check { name: crate::LEAKS, about: "memory does not grow with the calls", run: leaks },
];

/// A deployment mode and what it is tried with.
pub(crate) struct DeploymentCase {
    kind: DeploymentKind,
    settings: Settings,
}

impl Case for DeploymentCase {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn declares(&self) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) fn case(kind: DeploymentKind, settings: Settings) -> Result<DeploymentCase, Unusable> {
    let details = kind.validate(&settings.config).map_err(|error| Unusable(error.to_string()))?;
    match details.problems.as_slice() {
        [] => Ok(DeploymentCase { kind, settings }),
        problems => Err(Unusable(format!("the configuration is refused: {}", config::line(problems)))),
    }
}

impl DeploymentCase {
    fn instance(&self, watch: &std::sync::Arc<Watch>) -> Result<DeploymentInstance, Stop> {
        self.kind.instance(&self.settings.config, watch.clone()).map_err(|error| Stop::from(error).during("create"))
    }

    fn made(&self) -> Result<DeploymentInstance, Stop> {
        self.instance(&Watch::new(&self.settings.secrets))
    }
}

fn configuration(case: &DeploymentCase) -> Outcome {
    let problems = |bytes: &[u8]| case.kind.validate_bytes(bytes).map(|details| details.problems);
    config::wrong_ones(&case.settings.config, case.kind.config_schema(), true, &problems)
}

fn unknown_keys(case: &DeploymentCase) -> Outcome {
    let mut changed = case.settings.config.as_object().cloned().unwrap_or_default();
    changed.insert("standpipe.conformance".to_owned(), json!("1"));
    changed.insert("standpipe.other".to_owned(), json!("2"));
    let details = case.kind.validate(&Value::Object(changed)).map_err(|error| Stop::from(error).during("validate"))?;
    for key in ["standpipe.conformance", "standpipe.other"] {
        if !details.problems.iter().any(|problem| problem.path.contains(key) || problem.message.contains(key)) {
            return Err(Stop::fail(format!("says nothing of the key {key:?}, which it does not know: a typing error would not be found")));
        }
    }
    Ok("two keys that it does not know were both told, at once".to_owned())
}

/// Open files and sockets of the process.
fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn validate(case: &DeploymentCase) -> Outcome {
    let (files, before, begun) = (open_files(), thread_ids()?, Instant::now());
    for _ in 0..10 {
        case.kind.validate(&case.settings.config).map_err(|error| Stop::from(error).during("validate"))?;
    }
    let took = begun.elapsed() / 10;
    if took > Duration::from_secs(1) {
        return Err(Stop::fail(format!("takes {} to check a configuration: it must not look at anything outside", seconds(took))));
    }
    let (left, open) = (left_behind(&before, 0, Duration::from_millis(500))?, open_files().saturating_sub(files));
    // Ten times: what another thread of this process opens meanwhile is no ten.
    match left.max(open) {
        10.. => Err(Stop::fail(format!("10 checks of a configuration left {left} threads and {open} open files behind"))),
        _ => Ok(format!("a check takes {:.1} ms", took.as_secs_f64() * 1e3)),
    }
}

fn lifecycle(case: &DeploymentCase) -> Outcome {
    drop(case.made()?);
    let (one, other) = (case.made()?, case.made()?);
    drop(one);
    drop(other);
    Ok("made and destroyed, also two at a time; nothing was submitted".to_owned())
}

/// What nobody has submitted.
fn foreign() -> [Handle; 4] {
    let handle = |value: Value| value.as_object().cloned().unwrap_or_default();
    [
        Handle::new(),
        handle(json!({"jobid": "ffffffffffffffffffffffffffffffff"})),
        handle(json!({"jobid": 7, "pid": "none", "folder": ["of", "another"], "rest.port": {}})),
        handle(json!({"jobid": "../../..", "folder": "/nonexistent/standpipe-conformance", "pid": 0})),
    ]
}

fn handles(case: &DeploymentCase) -> Outcome {
    let mut refused = 0;
    for handle in foreign() {
        let shown = Value::Object(handle.clone()).to_string();
        let what = |function: &str| format!("{function} of the handle {shown}");
        let mut instance = case.made()?;
        refused += usize::from(refused_or_taken(&what("status"), instance.status(&handle))?.is_none());
        refused += usize::from(refused_or_taken(&what("logs"), instance.logs(&handle, "no cursor"))?.is_none());
        let wanted = Collect { node: "none".to_owned(), limit: Some(1), timeout: Some(Duration::from_millis(1)) };
        refused += usize::from(refused_or_taken(&what("collect"), instance.collect(&handle, &wanted).map(drop))?.is_none());
    }
    // What would do something is asked with the first alone, which names no job.
    let mut instance = case.made()?;
    refused += usize::from(refused_or_taken("cancel of an empty handle", instance.cancel(&Handle::new()))?.is_none());
    refused += usize::from(refused_or_taken("stop of an empty handle", instance.stop(&Handle::new(), "", false))?.is_none());
    Ok(format!("14 calls about jobs that there are not: {refused} errors, no panic"))
}

fn cancellation(case: &DeploymentCase) -> Outcome {
    let watch = Watch::new(&case.settings.secrets);
    let mut instance = case.instance(&watch)?;
    watch.cancel();
    let begun = Instant::now();
    let handle = foreign()[1].clone();
    refused_or_taken("wait that is cancelled", instance.wait(&handle, Some(Duration::from_secs(3600))))?;
    drop(instance);
    match begun.elapsed() {
        took if took > case.settings.deadline => Err(Stop::fail(format!(
            "came back {} after it was cancelled, which is more than {}",
            seconds(took),
            seconds(case.settings.deadline)
        ))),
        took => Ok(format!("a wait of an hour for a job that there is not came back after {} ms", took.as_millis())),
    }
}

fn threads(case: &DeploymentCase) -> Outcome {
    drop(case.made()?);
    thread::sleep(Duration::from_millis(50));
    let before = thread_ids()?;
    for _ in 0..LIVES {
        drop(case.made()?);
    }
    match left_behind(&before, 0, case.settings.deadline)? {
        left if left >= LIVES => Err(Stop::fail(format!(
            "{left} threads are left behind by {LIVES} instances, {} after the last was destroyed",
            seconds(case.settings.deadline)
        ))),
        _ => Ok(format!("{LIVES} instances left no thread behind")),
    }
}

fn leaks(case: &DeploymentCase) -> Outcome {
    // An instance is made for every command of a client, not for every batch.
    let endurance = Endurance { batches: case.settings.endurance.batches / 8, ..case.settings.endurance };
    grows(endurance, || {
        case.kind.validate(&case.settings.config).map_err(|error| Stop::from(error).during("validate"))?;
        drop(case.made()?);
        Ok(1)
    })
}
