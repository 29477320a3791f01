//! Deployment modes through the table: configurations, handles, states, rows, panics.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::ArrowError;
use serde::Deserialize;
use serde_json::json;
use standpipe_sdk::{
    Deployment, DeploymentDeclaration, Error, ErrorCode, Host, Result,
    deployment::{Collect, Handle, JobStatus, LogLines, Problem, Savepoint, drains},
    hosting::{DeploymentInstance, DeploymentKind},
    testing::{Harness, TestHost},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Runs jobs nowhere.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct NowhereConfig {
    /// Where nothing is.
    #[serde(rename = "nowhere.place")]
    place: String,
    /// How many looks a job takes.
    #[serde(rename = "nowhere.looks", default = "three")]
    looks: u32,
}

const fn three() -> u32 {
    3
}

/// What cannot even be dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("when it is dropped");
    }
}

struct Nowhere {
    config: NowhereConfig,
    looks: u32,
}

impl Deployment for Nowhere {
    const NAME: &'static str = "nowhere";
    type Config = NowhereConfig;

    fn declare(config: &NowhereConfig) -> Result<DeploymentDeclaration> {
        let problem = Problem { path: "nowhere.place".to_owned(), message: "is somewhere".to_owned(), suggestion: None };
        let problems = if config.place == "somewhere" { vec![problem] } else { Vec::new() };
        Ok(DeploymentDeclaration { problems })
    }

    fn open(config: NowhereConfig, host: Host) -> Result<Self> {
        host.info(format!("at {}", config.place), &[]);
        Ok(Self { config, looks: 0 })
    }

    fn submit(&mut self, bundle: &Path) -> Result<Handle> {
        assert!(bundle != Path::new("/panic"), "no such bundle");
        let handle = json!({"bundle": bundle, "nowhere.place": self.config.place});
        Ok(handle.as_object().cloned().unwrap_or_default())
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        self.looks += 1;
        match handle.get("bundle").and_then(|bundle| bundle.as_str()) {
            Some("/silent") => Ok(JobStatus::default()),
            Some(_) if self.looks < self.config.looks => Ok(JobStatus::new("RUNNING")),
            Some(bundle) => Ok(JobStatus { cause: Some(format!("{bundle} leads nowhere")), ..JobStatus::new("FAILED") }),
            None => Err(Error::external("there is no such job").retryable()),
        }
    }

    fn cancel(&mut self, _: &Handle) -> Result<()> {
        self.looks = self.config.looks;
        Ok(())
    }

    fn stop(&mut self, handle: &Handle, savepoint: &str) -> Result<Savepoint> {
        let location = if savepoint.is_empty() { String::new() } else { format!("{savepoint}/7") };
        let drained = if drains(handle) && !location.is_empty() { "-drained" } else { "" };
        Ok(Savepoint { location: location + drained })
    }

    fn logs(&mut self, _: &Handle, cursor: &str) -> Result<LogLines> {
        Ok(LogLines { lines: vec![format!("after {cursor:?}")], cursor: "1".to_owned() })
    }

    fn collect(&mut self, _: &Handle, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        let Collect { node, limit, timeout } = wanted;
        assert_eq!(*timeout, limit.map(Duration::from_secs), "as the test asks for it");
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..limit.unwrap_or(5) as i64));
        let batch = RecordBatch::try_from_iter([("number", numbers)])?;
        let schema = batch.schema();
        let node = node.clone();
        let bomb = if node == "bomb" { Some(Bomb) } else { None };
        let batches = std::iter::once(Ok(batch)).chain(std::iter::once_with(move || -> Result<RecordBatch, ArrowError> {
            let _bomb = &bomb;
            assert!(node != "panics", "in the middle of the rows");
            // What no C string can have.
            Err(ArrowError::ComputeError("the\0 end".to_owned()))
        }));
        Ok(Box::new(RecordBatchIterator::new(batches, schema)))
    }
}

fn kind() -> DeploymentKind {
    Harness::deployment::<Nowhere>()
}

fn instance(host: &Arc<TestHost>) -> DeploymentInstance {
    kind().instance(&json!({"nowhere.place": "moon"}), host.clone()).unwrap()
}

#[test]
fn a_configuration_is_checked_and_gets_its_defaults() {
    let details = kind().validate(&json!({"nowhere.place": "moon"})).unwrap();
    assert_eq!((details.problems.len(), json!(details.effective)), (0, json!({"nowhere.place": "moon", "nowhere.looks": 3})));
    let problems = |config| -> Vec<(String, String)> {
        kind().validate(&config).unwrap().problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    };
    assert_eq!(problems(json!({"nowhere.place": "somewhere"})), [("nowhere.place".to_owned(), "is somewhere".to_owned())]);
    let found = problems(json!({"nowhere.plaice": "moon", "nowhere.looks": 1}));
    assert_eq!(found, [("nowhere.plaice".to_owned(), "is not known".to_owned()), ("nowhere.place".to_owned(), "is missing".to_owned())]);
    let wrong = kind().instance(&json!({"nowhere.place": 7}), Arc::new(TestHost::default())).err().unwrap();
    assert_eq!(wrong.code, ErrorCode::CONFIG);
    assert!(wrong.to_string().starts_with("nowhere: "), "{wrong}");
}

#[test]
fn a_job_is_known_by_its_handle() {
    let host = Arc::new(TestHost::default());
    let handle = instance(&host).submit(Path::new("/b")).unwrap();
    assert_eq!(json!(handle), json!({"bundle": "/b", "nowhere.place": "moon"}));
    assert_eq!(host.messages(), ["at moon"]);
    // Another instance, as in another process.
    let mut mode = instance(&host);
    assert_eq!(mode.status(&handle).unwrap(), JobStatus::new("RUNNING"));
    let ended = mode.wait(&handle, None).unwrap();
    assert_eq!((ended.state.as_str(), ended.cause.as_deref()), ("FAILED", Some("/b leads nowhere")));
    assert_eq!(instance(&host).wait(&handle, Some(Duration::ZERO)).unwrap(), JobStatus::new("RUNNING"));
    let mut mode = instance(&host);
    mode.cancel(&handle).unwrap();
    assert!(mode.status(&handle).unwrap().is_terminal());
    for (drain, place) in [(true, "s3://x/7-drained"), (false, "s3://x/7")] {
        assert_eq!(mode.stop(&handle, "s3://x", drain).unwrap().location, place);
    }
    assert!(mode.stop(&handle, "", false).unwrap_err().message.contains("does not say where the savepoint is"));
    assert_eq!(mode.logs(&handle, "").unwrap().lines, ["after \"\""]);
    mode.cleanup(&handle).unwrap();
}

#[test]
fn a_wait_ends_when_the_user_has_had_enough() {
    let host = Arc::new(TestHost::default());
    let mut mode = instance(&host);
    let handle = mode.submit(Path::new("/b")).unwrap();
    host.cancel();
    assert_eq!(mode.wait(&handle, None).unwrap_err().code, ErrorCode::CANCELLED);
}

#[test]
fn failures_cross_with_code_and_message() {
    let mut mode = instance(&Arc::new(TestHost::default()));
    let error = mode.status(&Handle::new()).unwrap_err();
    assert_eq!((error.code, error.retryable, error.to_string()), (ErrorCode::EXTERNAL, true, "nowhere: there is no such job".to_owned()));
    let silent = mode.submit(Path::new("/silent")).unwrap();
    assert!(mode.status(&silent).unwrap_err().message.contains("without a state"));
    let panicked = mode.submit(Path::new("/panic")).unwrap_err();
    assert_eq!(panicked.code, ErrorCode::PANIC);
    assert!(panicked.to_string().contains("panicked in submit") && panicked.to_string().contains("no such bundle"), "{panicked}");
    assert!(mode.status(&silent).unwrap_err().details.contains_key("poisoned"));
}

#[test]
fn rows_cross_as_a_stream_and_a_panic_in_it_is_its_end() {
    let mut mode = instance(&Arc::new(TestHost::default()));
    for (node, expected) in [("fails", "the\u{fffd} end"), ("panics", "in the middle of the rows")] {
        let wanted = Collect { node: node.to_owned(), limit: Some(3), timeout: Some(Duration::from_secs(3)) };
        let mut rows = mode.collect(&Handle::new(), &wanted).unwrap();
        assert_eq!(rows.schema().field(0).name(), "number");
        assert_eq!(rows.next().unwrap().unwrap().num_rows(), 3);
        let error = rows.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut rows = mode.collect(&Handle::new(), &Collect { node: "bomb".to_owned(), ..Collect::default() }).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().num_rows(), 5, "no limit");
    drop(rows);
    assert_eq!(mode.logs(&Handle::new(), "x").unwrap().lines, ["after \"x\""], "a panic that nobody waits for harms nobody");
}
