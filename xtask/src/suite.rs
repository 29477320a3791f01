//! `cargo xtask test` and `cargo xtask lint`: the order in which everything is built and run.

use crate::{
    cargo::{self, BUILD_TOOLS, cargo, step},
    docs,
    services::{self, Service},
};
use anyhow::{Result, bail};
use std::{env, fs, process::Command};

/// The path of a kubeconfig.
const KUBERNETES: &str = "STANDPIPE_TEST_KUBERNETES";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what needs no service
    #[arg(long, conflicts_with = "all")]
    unit: bool,
    /// Also what takes long
    #[arg(long)]
    all: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Builds once, in the profile `ci`, and runs unit, plugin and end-to-end tests.
pub(crate) fn test(options: &Options) -> Result<()> {
    cargo::require(BUILD_TOOLS)?;
    step("build (the first time takes some ten minutes)", &mut cargo(&["build", "--profile", "ci", "--workspace"]))?;
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    let services = if options.unit { Vec::new() } else { start_services(in_ci, options.all)? };

    let skipped = env::temp_dir().join(format!("standpipe-skipped-{}", std::process::id()));
    let mut command = cargo(&["test", "--profile", "ci", "--workspace", "--no-fail-fast"]);
    if let Some(filter) = &options.filter {
        command.args(["--", filter]);
    }
    command.env("STANDPIPE_TEST_BIN_DIR", cargo::target().join("ci")).env("STANDPIPE_TEST_SKIPPED", &skipped);
    if in_ci && !options.unit {
        command.env("STANDPIPE_TEST_REQUIRE_SERVICES", "1");
    }
    if options.all {
        command.env("STANDPIPE_TEST_ALL", "1");
    }
    for (variable, service) in &services {
        command.env(variable, &service.address);
    }
    if !options.unit && can_run("Python client", require_python(), in_ci)? {
        command.env("STANDPIPE_TEST_PYTHON", services::python()?);
    }
    if !options.unit {
        match services::helm()? {
            Some(helm) => _ = command.env("STANDPIPE_TEST_HELM", helm),
            None if in_ci => bail!("Helm cannot be built here"),
            None => eprintln!("==> no Helm; the tests that need it are skipped"),
        }
    }
    let result = step("tests", &mut command);
    drop(services);
    report_skipped(&skipped);
    result
}

fn start_services(required: bool, all: bool) -> Result<Vec<(&'static str, Service)>> {
    let mut services = Vec::new();
    if can_run("Kafka, OpenSearch and Elasticsearch", require_java(), required)? {
        step("fetch Kafka, OpenSearch and Elasticsearch", prepare().args(["kafka", "opensearch", "elasticsearch"]))?;
        services.push(("STANDPIPE_TEST_KAFKA", Service::start("kafka")?));
        services.push(("STANDPIPE_TEST_OPENSEARCH", Service::start("opensearch")?));
        services.push(("STANDPIPE_TEST_ELASTICSEARCH", Service::start("elasticsearch")?));
        // It needs a newer Java than the others, which few machines have.
        if all && let Some(newest) = Service::start_if_possible("opensearch3")? {
            services.push(("STANDPIPE_TEST_OPENSEARCH3", newest));
        }
    }
    if can_run("S3", require_python(), required)? {
        step("fetch an S3-compatible server", prepare().arg("s3"))?;
        services.push(("STANDPIPE_TEST_S3", Service::start("s3")?));
    }
    if can_run("Flink's client", require_python().and_then(|()| require_java()), required)? {
        step("fetch Flink's client", prepare().arg("flink"))?;
        services.push(("STANDPIPE_TEST_FLINK", Service::start("flink")?));
    }
    // Who names a cluster means that one.
    if env::var_os(KUBERNETES).is_none_or(|value| value.is_empty()) {
        match start_kubernetes(all)? {
            Some(cluster) => services.push((KUBERNETES, cluster)),
            None if required => bail!("Kubernetes cannot run here"),
            None => eprintln!("==> no Kubernetes; the tests that need it are skipped"),
        }
    }
    Ok(services)
}

/// A control plane, which has all that the API does; what pods do needs a node, which takes root and a container runtime.
fn start_kubernetes(node: bool) -> Result<Option<Service>> {
    if node && let Some(cluster) = Service::start_with("kubernetes", &["--node"])? {
        return Ok(Some(cluster));
    }
    Service::start_if_possible("kubernetes")
}

/// Whether a service's tools are here; where it is required, an error if they are not.
fn can_run(service: &str, tools: Result<()>, required: bool) -> Result<bool> {
    match tools {
        Err(error) if required => Err(error),
        Err(error) => {
            eprintln!("==> no {service}: {error}; the tests that need them are skipped");
            Ok(false)
        }
        Ok(()) => Ok(true),
    }
}

/// What the services on a JVM need.
pub(crate) fn require_java() -> Result<()> {
    cargo::require(&[("java", "openjdk-17-jdk-headless"), ("mvn", "maven")])
}

/// Debian has the module that makes environments without what it needs in python3.
fn require_python() -> Result<()> {
    cargo::require(&[("python3", "python3"), ("curl", "curl")])?;
    let output = Command::new("python3").args(["-c", "import ensurepip, venv"]).output()?;
    if !output.status.success() {
        bail!("python3 cannot make environments (Debian: apt-get install python3-venv)");
    }
    Ok(())
}

pub(crate) fn prepare() -> Command {
    Command::new(cargo::root().join("tests/services/prepare.sh"))
}

fn report_skipped(file: &std::path::Path) {
    let Ok(text) = fs::read_to_string(file) else { return };
    eprintln!("==> skipped:");
    for line in text.lines() {
        eprintln!("    {line}");
    }
    if let Err(error) = fs::remove_file(file) {
        eprintln!("xtask: cannot remove {}: {error}", file.display());
    }
}

/// Formatting, clippy, rustdoc, generated documentation, cargo-deny.
pub(crate) fn lint() -> Result<()> {
    step("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", &mut cargo(&["clippy", "--profile", "ci", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("rustdoc", cargo(&["doc", "--profile", "ci", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    docs::docs(&docs::Options::check())?;
    if cargo::on_path("cargo-deny") {
        return step("cargo deny", &mut cargo(&["deny", "check", "bans", "licenses", "sources"]));
    }
    if env::var("CI").is_ok_and(|value| value == "true") {
        bail!("cargo-deny is missing: cargo install --locked cargo-deny");
    }
    eprintln!("==> skipped: cargo deny (cargo install --locked cargo-deny)");
    Ok(())
}
