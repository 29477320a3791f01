//! Runs cargo and what it builds. Called by the other modules; knows the two profiles: `ci` for tests, `release` for the demo and benchmarks.

use anyhow::{Context, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target`.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command in the repository's root. It does not see that it runs below another one: build scripts that look at what cargo says of the package (ring's does)
/// would run again, and with them minutes of building, whenever somebody changes between `cargo build` and `cargo xtask`.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    let of_a_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_a_package)) {
        command.env_remove(name);
    }
    command
}

/// Runs a command; fails if it does. Says what it runs and how long it took.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what}: failed ({status})");
    }
    eprintln!("    {what}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Fails with a list of the programs that are missing on the machine, each with the Debian package that has it.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<String> = programs
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(program, package)| format!("{program} (Debian: apt-get install {package})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing on this machine: {}", missing.join(", "))
}

/// Whether a program is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// What a build needs besides Rust: librdkafka and its OpenSSL are built from source.
pub(crate) const BUILD_TOOLS: &[(&str, &str)] =
    &[("cc", "build-essential"), ("c++", "build-essential"), ("make", "build-essential"), ("cmake", "cmake"), ("perl", "perl")];

/// Builds the release binary with all plugins beside it; gives the binary's path.
pub(crate) fn release() -> Result<PathBuf> {
    require(BUILD_TOOLS)?;
    step(
        "build standpipe and its plugins (release; the first time takes some ten minutes)",
        &mut cargo(&["build", "--release", "--workspace", "--exclude", "xtask", "--exclude", "standpipe-tests"]),
    )?;
    Ok(target().join("release").join("standpipe"))
}

/// Runs a program with our streams and ends with its exit code.
pub(crate) fn run_and_exit(binary: &Path, subcommand: &str, arguments: &[String]) -> Result<()> {
    let status =
        Command::new(binary).arg(subcommand).args(arguments).status().with_context(|| format!("cannot start {}", binary.display()))?;
    std::process::exit(status.code().unwrap_or(1))
}
