//! The Python client's own tests (`python/tests`) against a cluster of this machine: rows A9, A10 and A24 of the founding checklist as a Python program sees them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, binary, free_port, python, repository, standpipe};
use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// All of Python's tests, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ends the cluster, also when the test fails.
struct Stop(PathBuf);

impl Drop for Stop {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(&self.0).output());
    }
}

/// How it has ended; none: it took too long, and is killed.
fn ended(command: &mut Command) -> Option<ExitStatus> {
    let (mut child, begun) = (command.spawn().unwrap(), Instant::now());
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() >= PATIENCE {
            child.kill().and_then(|()| child.wait()).unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(50));
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
    let log = folder.at("python.log");
    let status = ended(tests.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()));
    let said = fs::read_to_string(&log).unwrap();
    let status = status.unwrap_or_else(|| panic!("Python's tests have not ended within {PATIENCE:?} and are killed:\n{said}"));
    assert!(status.success(), "{said}");
    // Not none.
    assert!(said.contains("test_a9_every_type_comes_to_pandas_as_it_is") && said.contains("\nOK"), "{said}");
}
