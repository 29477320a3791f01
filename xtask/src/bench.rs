//! `cargo xtask bench`: builds the release binary and the benchmark driver, and runs it; with `--costs` beside a real Kafka and OpenSearch, where it needs them.

use crate::{
    cargo::{self, cargo, step},
    services::Service,
    suite,
};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where inputs and outputs are; 3 GB at full scale
    #[arg(long)]
    data: Option<PathBuf>,
    /// Passed on to the driver: --rounds N, --only w2, --scale 0.1, --peers DIR; --costs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn bench(options: &Options) -> Result<()> {
    let binary = cargo::release()?;
    step("build the plugin of the benchmarks", &mut cargo(&["build", "--release", "--package", "standpipe-bench-plugins", "--examples"]))?;
    let data = options.data.clone().unwrap_or_else(|| cargo::target().join("bench-data"));
    let mut command = Command::new(cargo::target().join("release/standpipe-bench"));
    command.arg("--standpipe").arg(binary).arg("--root").arg(cargo::root()).arg("--data").arg(data).args(&options.arguments);
    let services = services(&options.arguments)?;
    for (option, service) in &services {
        command.arg(option).arg(&service.address);
    }
    step("benchmarks", &mut command)
}

/// The services that the driver asks for by these options: `--costs` without `--only`, or with one of their subjects. Fails where they cannot run.
fn services(arguments: &[String]) -> Result<Vec<(&'static str, Service)>> {
    let mut services = Vec::new();
    if !arguments.iter().any(|argument| argument == "--costs") {
        return Ok(services);
    }
    let kafka = wanted(arguments, "kafka") || wanted(arguments, "elasticsearch");
    if !kafka {
        return Ok(services);
    }
    suite::require_java()?;
    step("fetch Kafka and OpenSearch", suite::prepare().args(["kafka", "opensearch"]))?;
    services.push(("--kafka", Service::start("kafka")?));
    if wanted(arguments, "elasticsearch") {
        services.push(("--elasticsearch", Service::start("opensearch")?));
    }
    Ok(services)
}

/// Whether `--only TEXT` (or `--only=TEXT`), if it is there, leaves a subject in.
fn wanted(arguments: &[String], subject: &str) -> bool {
    let behind = |at: usize| arguments.get(at + 1).map(String::as_str);
    let only = arguments.iter().enumerate().find_map(|(at, argument)| match argument.as_str() {
        "--only" => behind(at),
        other => other.strip_prefix("--only="),
    });
    only.is_none_or(|only| subject.contains(only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_started_for_the_subjects_that_need_them() {
        let of =
            |arguments: &[&str], subject| wanted(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>(), subject);
        assert!(of(&["--costs"], "kafka") && of(&["--only", "kaf", "--costs"], "kafka") && of(&["--only=search"], "elasticsearch"));
        assert!(!of(&["--costs", "--only", "memory"], "kafka") && !of(&["--only=kafka"], "elasticsearch"));
    }
}
