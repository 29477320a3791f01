//! A network that one run has for itself, with nothing in it but a loopback, which a test may cut: no packet goes from one of the job's processes to another. The machine's own
//! network is never touched. The namespace has no name: it is gone with the last process in it, however the test ends.

use crate::{Run, Running, skip};
use std::process::{Command, Stdio};

/// The rules of a port that is cut: their place before all others, and which end of a connection they look at.
const PORT_RULES: [(&str, &str); 2] = [("10", "dport"), ("11", "sport")];

/// Whether a run may have a network of its own here. False: the test is to return, it has been noted as skipped.
#[must_use]
pub fn has_networks() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--net", "--", "ip", "link", "set", "lo", "up"]).stdin(Stdio::null()).stderr(Stdio::null());
    let is_allowed = probe.status().is_ok_and(|status| status.success());
    if !is_allowed {
        skip("network namespaces (as root, with unshare and ip)");
    }
    is_allowed
}

impl Run {
    /// In a network of its own (see [`has_networks`]).
    #[must_use]
    pub fn in_own_network(mut self) -> Self {
        let mut command = Command::new("unshare");
        // Both programs become the binary: the process is that of the run.
        command.args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
        command.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = self.command.get_current_dir() {
            command.current_dir(directory);
        }
        self.command = command;
        self
    }
}

impl Running {
    /// Cuts the network that the run has for itself.
    ///
    /// # Panics
    /// When it has none: that of the machine is not touched.
    pub fn cut_network(&self) {
        self.inside(&["ip", "link", "set", "lo", "down"]);
    }

    /// Joins it again.
    ///
    /// # Panics
    /// As [`Self::cut_network`] does.
    pub fn join_network(&self) {
        self.inside(&["ip", "link", "set", "lo", "up"]);
    }

    /// Cuts the connections from and to that port, and those alone.
    ///
    /// # Panics
    /// As [`Self::cut_network`] does.
    pub fn cut_port(&self, port: u16) {
        // The rule by which this machine knows its own addresses is before all others: it is to be behind these.
        self.inside(&["ip", "rule", "add", "pref", "100", "table", "local"]);
        self.inside(&["ip", "rule", "del", "pref", "0"]);
        for (pref, end) in PORT_RULES {
            self.inside(&["ip", "rule", "add", "pref", pref, "ipproto", "tcp", end, &port.to_string(), "blackhole"]);
        }
    }

    /// Joins again what [`Self::cut_port`] has cut.
    ///
    /// # Panics
    /// As [`Self::cut_network`] does.
    pub fn join_port(&self) {
        PORT_RULES.iter().for_each(|(pref, _)| _ = self.inside(&["ip", "rule", "del", "pref", pref]));
    }

    /// The ports of all connections in the run's own network, from each of their ends: here, there.
    ///
    /// # Panics
    /// As [`Self::cut_network`] does.
    pub fn connections(&self) -> Vec<(u16, u16)> {
        let text = self.inside(&["ss", "--tcp", "--numeric", "--no-header"]);
        let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse().ok());
        let ends = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((port(fields.get(3)?)?, port(fields.get(4)?)?))
        };
        text.lines().map(|line| ends(line).unwrap_or_else(|| panic!("no connection: {line:?}"))).collect()
    }

    /// Runs a program in the run's own network; what it prints.
    fn inside(&self, command: &[&str]) -> String {
        let namespace = format!("/proc/{}/ns/net", self.id());
        let link = |path: &str| std::fs::read_link(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_ne!(link(&namespace), link("/proc/self/ns/net"), "the run is in the machine's network");
        let mut nsenter = Command::new("nsenter");
        let output = nsenter.arg(format!("--net={namespace}")).args(command).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("nsenter: {error}"));
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
