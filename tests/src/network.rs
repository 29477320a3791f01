//! Networks that a test may cut: one that a run has for itself, with nothing in it but a loopback, and one of several machines that are connected by a switch ([`Lan`]).
//! The machine's own network is never touched. The namespaces have no names: they are gone with the last process in them, however the test ends.

use crate::{Run, Running, skip};
use std::{
    env,
    ffi::OsStr,
    process::{Child, Command, Stdio},
};

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
    pub fn in_own_network(self) -> Self {
        // Both programs become the binary: the process is that of the run.
        self.behind(Command::new("unshare").args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]))
    }

    /// Run by another program, which becomes it.
    fn behind(mut self, program: &Command) -> Self {
        let mut command = Command::new(program.get_program());
        command.args(program.get_args()).arg(self.command.get_program()).args(self.command.get_args());
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

/// Set in a test that is in a network of its own.
const INSIDE: &str = "STANDPIPE_TEST_NETWORK";

/// Whether this test is in a network of its own, and is to go on. If not, it is run there by this call, in a process of its own; `test` is its name.
///
/// # Panics
/// When it fails there.
#[must_use]
pub fn in_own_network(test: &str) -> bool {
    in_own_network_with(test, || (INSIDE, "1"))
}

/// As [`in_own_network`], and with an environment variable there: what only the machine's network gives, and the test is to have.
///
/// # Panics
/// When it fails there.
#[must_use]
pub fn in_own_network_with<N: AsRef<OsStr>, V: AsRef<OsStr>>(test: &str, variable: impl FnOnce() -> (N, V)) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if !has_networks() {
        return false;
    }
    let (name, value) = variable();
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    command.arg(env::current_exe().expect("a test has a file")).args(["--exact", test, "--nocapture"]).env(name, value).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("unshare: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "there is no test {test:?}: {text}");
    false
}

/// A switch in the network of a test that is [`in_own_network`], which has the address [`Self::ADDRESS`] there. A port that is cut says nothing to either end: what is sent is lost.
pub struct Lan(());

/// The switch.
const SWITCH: &str = "switch";

impl Lan {
    /// The test's own.
    pub const ADDRESS: &str = "10.77.0.1";

    /// # Panics
    /// When the test is not in a network of its own.
    #[must_use]
    pub fn start() -> Self {
        assert!(env::var_os(INSIDE).is_some(), "the test is in the machine's network");
        ip(&["link", "add", SWITCH, "type", "bridge"]);
        ip(&["addr", "add", &format!("{}/24", Self::ADDRESS), "dev", SWITCH]);
        ip(&["link", "set", SWITCH, "up"]);
        Self(())
    }

    /// A machine that is connected: the `number` is from 2 to 254, and no other one has it.
    ///
    /// # Panics
    /// When the system refuses.
    #[must_use]
    pub fn machine(&self, number: u8) -> Machine {
        // Whoever has the namespace; it ends with its standard input.
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--", "sh", "-c", "ip link set lo up && echo && exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().unwrap_or_else(|error| panic!("unshare: {error}"));
        let mut ready = [0];
        let from = holder.stdout.as_mut().expect("standard output is piped");
        std::io::Read::read_exact(from, &mut ready).expect("the network is there");
        let machine = Machine { holder, port: format!("port{number}"), address: format!("10.77.0.{number}") };
        ip(&["link", "add", &machine.port, "type", "veth", "peer", "name", "eth0", "netns", &machine.holder.id().to_string()]);
        for command in [&["addr", "add", &format!("{}/24", machine.address), "dev", "eth0"][..], &["link", "set", "eth0", "up"]] {
            let mut inside = Command::new("nsenter");
            inside.arg(machine.namespace()).arg("ip").args(command);
            must(&mut inside);
        }
        ip(&["link", "set", &machine.port, "up"]);
        machine.join();
        machine
    }
}

/// A network namespace that is connected to the switch.
pub struct Machine {
    holder: Child,
    port: String,
    /// Its own.
    pub address: String,
}

impl Machine {
    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.id())
    }

    /// A program that is to run there.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(self.namespace()).arg("--").arg(program);
        command
    }

    /// Nothing reaches it, and nothing that it sends arrives.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn cut(&self) {
        ip(&["link", "set", &self.port, "nomaster"]);
    }

    /// It is connected again.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn join(&self) {
        ip(&["link", "set", &self.port, "master", SWITCH]);
    }

    /// It does not reach the other machines that are isolated, nor do they; the test itself is reached, and reaches it.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn isolate(&self, is: bool) {
        ip(&["link", "set", &self.port, "type", "bridge_slave", "isolated", if is { "on" } else { "off" }]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has no other end but that of its input.
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

impl Run {
    /// On that machine.
    #[must_use]
    pub fn on(self, machine: &Machine) -> Self {
        self.behind(Command::new("nsenter").arg(machine.namespace()).arg("--"))
    }
}

fn ip(arguments: &[&str]) {
    must(Command::new("ip").args(arguments));
}

fn must(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
