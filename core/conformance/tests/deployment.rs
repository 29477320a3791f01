//! Each check of a deployment mode fails for the mode that does wrong what it looks at. One test: memory, threads and files are the whole process'.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "each kind uses its part")]
mod support;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use standpipe_conformance::{Report, Suite, checks};
use standpipe_sdk::{
    Deployment, DeploymentDeclaration, Error, Host, Result,
    deployment::{Handle, JobStatus},
    testing::Harness,
};
use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};
use support::{Loose, trouble_at_open, trouble_when_cancelled, trouble_with_files, trouble_with_rows};

/// Instances at the moment.
static ALIVE: AtomicU32 = AtomicU32::new(0);

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    trouble: String,
    #[serde(default)]
    loose: Loose,
}

/// As [`Config`], of somebody who does not look for typing errors.
#[derive(Deserialize, JsonSchema)]
struct Careless {}

/// A mode that has no jobs.
struct Idle {
    trouble: String,
}

impl Deployment for Idle {
    const NAME: &'static str = "idle";
    type Config = Config;

    fn declare(config: &Config) -> Result<DeploymentDeclaration> {
        trouble_with_files(&config.trouble);
        Ok(DeploymentDeclaration { problems: config.loose.problem(&config.trouble).into_iter().collect() })
    }

    fn open(config: Config, _: Host) -> Result<Self> {
        trouble_at_open(&config.trouble);
        trouble_with_rows(&config.trouble);
        trouble_with_rows(&config.trouble);
        if ALIVE.fetch_add(1, SeqCst) > 0 && config.trouble == "lifecycle" {
            ALIVE.fetch_sub(1, SeqCst);
            return Err(Error::external("there is another"));
        }
        Ok(Self { trouble: config.trouble })
    }

    fn submit(&mut self, _: &Path) -> Result<Handle> {
        panic!("nothing is submitted");
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        match handle.get("jobid").and_then(serde_json::Value::as_str) {
            None if self.trouble == "handles" => panic!("no job of mine"),
            _ => Err(Error::data("no such job")),
        }
    }

    fn wait(&mut self, handle: &Handle, _: Option<Duration>, host: &Host) -> Result<JobStatus> {
        trouble_when_cancelled(&self.trouble, host.cancelled());
        self.status(handle)
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        self.status(handle).map(drop)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, SeqCst);
    }
}

struct Hasty;

impl Deployment for Hasty {
    const NAME: &'static str = "hasty";
    type Config = Careless;

    fn open(_: Careless, _: Host) -> Result<Self> {
        Ok(Self)
    }

    fn submit(&mut self, _: &Path) -> Result<Handle> {
        panic!("nothing is submitted");
    }

    fn status(&mut self, _: &Handle) -> Result<JobStatus> {
        Err(Error::data("no such job"))
    }

    fn cancel(&mut self, _: &Handle) -> Result<()> {
        Err(Error::data("no such job"))
    }
}

fn tried(trouble: &str) -> Report {
    // Each instance loses 8000 bytes, and an instance counts as eight batches.
    let batches = if trouble == "leaks" { 12_000 } else { 800 };
    let suite = match trouble {
        "unknown-keys" => Suite::new(Harness::deployment::<Hasty>(), json!({})),
        _ => Suite::new(Harness::deployment::<Idle>(), json!({"trouble": trouble})),
    };
    suite.batches(batches).deadline(Duration::from_secs(2)).run()
}

#[test]
fn every_check_fails_for_what_it_looks_at() {
    tried("").assert_passed();
    for check in checks("deployment") {
        let report = tried(check.name);
        assert_eq!(report.failed(), [check.name], "{report}");
    }
}
