//! `cargo xtask bench`: builds the release binary and the benchmark driver, and runs it.

use crate::cargo::{self, cargo, step};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where inputs and outputs are; 3 GB at full scale
    #[arg(long)]
    data: Option<PathBuf>,
    /// Passed on to the driver: --rounds N, --only w2, --scale 0.1, --peers DIR
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn bench(options: &Options) -> Result<()> {
    let binary = cargo::release()?;
    step("build the benchmark driver", &mut cargo(&["build", "--release", "--package", "standpipe-benches"]))?;
    let data = options.data.clone().unwrap_or_else(|| cargo::target().join("bench-data"));
    let mut command = Command::new(cargo::target().join("release/standpipe-bench"));
    command.arg("--standpipe").arg(binary).arg("--root").arg(cargo::root()).arg("--data").arg(data).args(&options.arguments);
    step("benchmarks", &mut command)
}
