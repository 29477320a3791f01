//! Services of a test's own, which it may stop: started by the scripts of `tests/services/`.

use standpipe_tests::{Folder, repository, skip};
use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The exit code of a script when a program or a file is missing on this machine.
const MISSING: i32 = 3;

/// A Kafka, an OpenSearch or a Docker engine. Ends with this value, and with this process, however that ends.
pub(crate) struct OwnService {
    name: &'static str,
    folder: Folder,
    /// Of the script's start.
    options: Vec<String>,
    /// `HOST:PORT` or a URL; the same after another start.
    pub(crate) address: String,
    /// Of a Kafka: where it wants a bearer token.
    pub(crate) bearer: String,
}

impl OwnService {
    /// Starts `tests/services/NAME.sh`. `None`: it cannot run here, the test is to return.
    pub(crate) fn start(name: &'static str) -> Option<Self> {
        Self::start_with(name, Vec::new())
    }

    /// As [`Self::start`], at another address of this machine than 127.0.0.1.
    pub(crate) fn start_at(name: &'static str, host: &str) -> Option<Self> {
        Self::start_with(name, vec!["--host".to_owned(), host.to_owned()])
    }

    fn start_with(name: &'static str, options: Vec<String>) -> Option<Self> {
        let mut service = Self { name, folder: Folder::new(), options, address: String::new(), bearer: String::new() };
        if service.launch() {
            return Some(service);
        }
        skip(name);
        None
    }

    /// Stops it as its operator would: with SIGTERM.
    pub(crate) fn stop(&self) {
        let output = self.script(&["stop"], &[]);
        assert!(output.status.success(), "{} does not stop: {output:?}", self.name);
    }

    /// Starts it again, with its data, at its address.
    pub(crate) fn start_again(&mut self) {
        let address = std::mem::take(&mut self.address);
        assert!(self.launch(), "{} does not start again", self.name);
        assert_eq!(self.address, address);
    }

    /// One of Kafka's own tools; its output.
    pub(crate) fn admin(&self, tool: &[&str]) -> String {
        let output = self.script(&["admin"], tool);
        assert!(output.status.success(), "{tool:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the script has written into a file of its folder.
    pub(crate) fn read(&self, name: &str) -> String {
        self.folder.read(name)
    }

    /// False: something that it needs is missing.
    fn launch(&mut self) -> bool {
        let (parent, options) = (std::process::id().to_string(), self.options.iter().map(String::as_str));
        let output = self.script(&["start", "--parent", &parent].into_iter().chain(options).collect::<Vec<_>>(), &[]);
        if output.status.code() == Some(MISSING) {
            // Which one.
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            return false;
        }
        assert!(output.status.success(), "{} does not start: {output:?}", self.name);
        let text = String::from_utf8_lossy(&output.stdout);
        let address = text.lines().find_map(|line| line.strip_prefix("bootstrap=").or_else(|| line.strip_prefix("url=")));
        address.unwrap_or_else(|| panic!("no address: {text}")).clone_into(&mut self.address);
        text.lines().find_map(|line| line.strip_prefix("bearer=")).unwrap_or_default().clone_into(&mut self.bearer);
        true
    }

    fn script(&self, before: &[&str], after: &[&str]) -> Output {
        let script: PathBuf = repository().join("tests/services").join(format!("{}.sh", self.name));
        let mut command = Command::new(&script);
        command.args(before).arg(self.folder.path()).args(after).stdin(Stdio::null());
        command.output().unwrap_or_else(|error| panic!("{}: {error}", script.display()))
    }
}

impl Drop for OwnService {
    fn drop(&mut self) {
        // Nothing to stop is a success, and a test that panics must not panic again.
        drop(self.script(&["stop"], &[]));
    }
}
