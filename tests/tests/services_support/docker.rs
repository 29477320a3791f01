//! A Docker engine with an image of the built binary, and the project of `docker/compose.yaml` in it: one for each test, which is gone with it.

use super::{OwnService, unique};
use serde_json::Value;
use standpipe_tests::{Folder, binary, bundled_plugins, example_plugin, free_port, repository};
use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output, Stdio},
};

/// Where the image of the test's base is.
const BASE: &str = "standpipe-test-base";

/// What a command has printed.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// An engine, an image in it, and names of this test's own.
pub(crate) struct Engine {
    service: OwnService,
    environment: BTreeMap<String, String>,
    /// What the image was built from, with the plugins that were added.
    pub(crate) distribution: Folder,
    /// The image's name.
    pub(crate) image: String,
    /// The compose project's name.
    pub(crate) project: String,
}

impl Engine {
    /// Builds the image with `docker/build-image.sh`. `None`: there is no engine here, the test is to return.
    pub(crate) fn start() -> Option<Self> {
        let service = OwnService::start("docker")?;
        let written = service.read("environment");
        let mut environment: BTreeMap<String, String> =
            written.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let project = unique("standpipe-test");
        let image = format!("{project}:latest");
        environment.insert("DOCKER_HOST".to_owned(), service.address.clone());
        environment.insert("STANDPIPE_IMAGE".to_owned(), image.clone());
        for port in ["STANDPIPE_PORT", "ELASTICSEARCH_PORT", "KAFKA_PORT", "KIBANA_PORT"] {
            environment.insert(port.to_owned(), free_port().to_string());
        }
        let engine = Self { service, environment, distribution: Folder::new(), image, project };
        engine.build();
        Some(engine)
    }

    /// The size of the base image, bytes.
    pub(crate) fn base_size(&self) -> u64 {
        self.inspect(BASE)["Size"].as_u64().unwrap()
    }

    fn build(&self) {
        let dist = self.distribution.at("dist");
        let added = self.distribution.at("added");
        fs::create_dir_all(dist.join("plugins")).unwrap();
        fs::create_dir(&added).unwrap();
        fs::copy(binary(), dist.join("standpipe")).unwrap();
        for plugin in bundled_plugins() {
            fs::copy(&plugin, dist.join("plugins").join(plugin.file_name().unwrap())).unwrap();
        }
        fs::copy(example_plugin("countdown"), added.join("libcountdown.so")).unwrap();
        let mut command = self.command(repository().join("docker/build-image.sh"));
        command.arg("--dist").arg(&dist).arg("--plugins").arg(&added).args(["--tag", &self.image]).env("BASE_IMAGE", BASE);
        must(&mut command);
    }

    /// A port of this machine, by the variable that gives it to the compose file.
    pub(crate) fn port(&self, variable: &str) -> u16 {
        self.environment[variable].parse().unwrap()
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(&self.environment).current_dir(repository()).stdin(Stdio::null());
        command
    }

    /// `docker ARGUMENTS`: whatever comes of it.
    pub(crate) fn try_docker(&self, arguments: &[&str]) -> Output {
        self.command("docker").args(arguments).output().unwrap()
    }

    /// `docker ARGUMENTS`: what it prints.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        must(self.command("docker").args(arguments))
    }

    /// All about an image or a container.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.docker(&["inspect", name])).unwrap()[0].take()
    }

    /// `docker compose ARGUMENTS`, where the public images are those of the tests: what it prints.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        let output = self.composing(arguments).output().unwrap();
        // What a service that did not come up has said goes with its container.
        let logs = || text(&self.composing(&["logs", "--no-color", "--tail", "40"]).output().unwrap().stdout);
        assert!(output.status.success(), "compose {arguments:?}: {}\n{}\n{}", output.status, text(&output.stderr), logs());
        text(&output.stdout)
    }

    fn composing(&self, arguments: &[&str]) -> Command {
        let program: Vec<&str> = self.environment["DOCKER_COMPOSE"].split(' ').collect();
        let mut command = self.command(program[0]);
        command.args(&program[1..]).args(["--project-name", &self.project, "--ansi", "never", "--progress", "quiet"]);
        command.args(["--file", "docker/compose.yaml", "--file", "tests/services/docker/compose.yaml"]).args(arguments);
        command
    }

    /// The container of a service.
    pub(crate) fn container(&self, service: &str) -> Value {
        let id = self.compose(&["ps", "--all", "--quiet", service]);
        self.inspect(&id)
    }

    /// `standpipe ARGUMENTS` in the job manager's container.
    pub(crate) fn standpipe(&self, arguments: &[&str]) -> String {
        self.compose(&[&["exec", "--no-TTY", "jobmanager", "standpipe"], arguments].concat())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The engine may be the machine's own. A test that panics must not panic again.
        drop(self.composing(&["down", "--volumes", "--timeout", "5"]).output());
        drop(self.try_docker(&["rm", "--force", &self.project]));
        drop(self.try_docker(&["image", "rm", "--force", &self.image]));
    }
}

fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
