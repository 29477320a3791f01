//! What unit tests of several modules are made with.

use crate::KubernetesConfig;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, json};
use standpipe_sdk::bundle::{BLOBS, Bundle, BundleFile, BundleOptions, DESCRIPTION};
use std::{collections::BTreeMap, fs};
use tempfile::TempDir;

/// A configuration with those keys.
pub(crate) fn config(keys: Value) -> KubernetesConfig {
    serde_json::from_value(keys).unwrap()
}

/// A pod with that status.
pub(crate) fn pod(name: &str, status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": []}, "status": status})).unwrap()
}

/// A Job with that status, and how it ended in its annotation.
pub(crate) fn job(annotation: Option<&str>, status: Value) -> Job {
    let mut job = json!({"metadata": {"name": "j"}, "status": status});
    if let Some(text) = annotation {
        job["metadata"]["annotations"] = json!({"standpipe.io/status": text});
    }
    if job["status"].is_null() {
        job["status"] = json!({});
    }
    serde_json::from_value(job).unwrap()
}

/// The folder of a bundle: a pipeline, and plugin files and resources of so many bytes.
pub(crate) fn bundle_of(pipeline: &str, plugins: &[(&str, usize)], resources: &[(&str, usize)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(BLOBS)).unwrap();
    let put = |name: &str, content: &[u8]| {
        let digits = format!(
            "{:064x}",
            content.iter().fold(content.len() as u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte)))
        );
        fs::write(folder.path().join(BLOBS).join(&digits), content).unwrap();
        BundleFile { path: name.to_owned(), hash: format!("sha256:{digits}"), bytes: content.len() as u64 }
    };
    let files = |files: &[(&str, usize)], byte: u8| files.iter().map(|(name, bytes)| put(name, &vec![byte; *bytes])).collect();
    let bundle = Bundle {
        standpipe: "0.1.0".to_owned(),
        name: "Host metrics".to_owned(),
        pipeline: put("job.yaml", pipeline.as_bytes()),
        plugins: files(plugins, 0xff),
        resources: files(resources, b'r'),
        configuration: BTreeMap::new(),
        options: BundleOptions::default(),
    };
    fs::write(folder.path().join(DESCRIPTION), serde_json::to_string(&bundle).unwrap()).unwrap();
    folder
}
