//! The Python client's own tests (`python/tests`) against a cluster of this machine: rows A9, A10 and A24 of the founding checklist as a Python program sees them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, binary, free_port, python, repository, standpipe};
use std::{path::PathBuf, process::Command, time::Duration};

/// Ends the cluster, also when the test fails.
struct Stop(PathBuf);

impl Drop for Stop {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(&self.0).output());
    }
}

#[test]
fn a9_the_python_client_submits_collects_and_keeps_every_type() {
    let Some(python) = python() else { return };
    let (folder, port) = (Folder::new(), free_port().to_string());
    let data = folder.at("cluster");
    let _stop = Stop(data.clone());
    let start = standpipe(["cluster", "start", "--slots", "8", "--port", &port, "--data"]).args([data]).timeout(Duration::from_secs(90));
    let _ = start.finish().code(0);
    let mut tests = Command::new(python);
    tests.args(["-m", "unittest", "discover", "-v", "-s", "tests"]).current_dir(repository().join("python"));
    tests.env("PYTHONPATH", ".").env("PYTHONDONTWRITEBYTECODE", "1").env("STANDPIPE_TEST_PORT", port);
    let output = tests.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Not none.
    assert!(said.contains("test_a9_every_type_comes_to_pandas_as_it_is") && said.contains("\nOK"), "{said}");
}
