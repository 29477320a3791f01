//! What the tests against real services share: names that no other test has, pipelines that fill and read topics (`kafka`), questions to OpenSearch (`opensearch`), services
//! of a test's own (`own`), a Docker engine (`docker`), a million rows (`million`), buckets of S3 (`s3`), a proxy that fails (`proxy`), the signals of the metrics demo (`signals`).
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

pub(crate) mod docker;
pub(crate) mod kafka;
pub(crate) mod million;
pub(crate) mod opensearch;
pub(crate) mod own;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod signals;

pub(crate) use docker::Engine;
pub(crate) use kafka::Kafka;
pub(crate) use opensearch::OpenSearch;
pub(crate) use own::OwnService;
pub(crate) use proxy::{Mode, Proxy};
pub(crate) use s3::{Bucket, with_s3};

use serde_json::Value;
use standpipe_tests::{Folder, Run, standpipe};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// No test waits longer for anything, also on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A name that no other test and no other run has: services keep what earlier ones left.
pub(crate) fn unique(name: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("{name}-{now}-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst))
}

/// A run of a pipeline that is given as a value: JSON is YAML. The file is in the folder, which is also the current directory.
pub(crate) fn run(folder: &Folder, pipeline: &Value) -> Run {
    let name = pipeline["name"].as_str().unwrap();
    let file = folder.write(&format!("{name}.yaml"), pipeline.to_string());
    standpipe(["run"]).args([file]).in_directory(folder.path()).timeout(2 * PATIENCE)
}
