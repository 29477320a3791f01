//! Starts the real services that tests talk to, by the scripts in `tests/services/`, and stops them when dropped, also after a failure.
//!
//! A service that cannot run here (no JDK, no Maven, no Python) is missing: in CI that is an error, elsewhere the tests that need it are skipped by name.

use crate::cargo;
use anyhow::{Context, Result, bail};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// The exit code of a script when something is missing.
const MISSING: i32 = 3;

/// One running service.
pub(crate) struct Service {
    script: PathBuf,
    folder: PathBuf,
    /// The address: what the script printed behind `bootstrap=` or `url=`.
    pub(crate) address: String,
}

impl Service {
    /// Starts `tests/services/NAME.sh`; the script ends the service by itself if this process dies.
    pub(crate) fn start(name: &str) -> Result<Self> {
        Self::start_if_possible(name)?.with_context(|| format!("{name} cannot run here"))
    }

    /// As [`Self::start`]; `None`: something that it needs is not on this machine, as the script has said.
    pub(crate) fn start_if_possible(name: &str) -> Result<Option<Self>> {
        Self::start_with(name, &[])
    }

    /// As [`Self::start_if_possible`], with options of the script's own.
    pub(crate) fn start_with(name: &str, options: &[&str]) -> Result<Option<Self>> {
        let script = cargo::root().join("tests/services").join(format!("{name}.sh"));
        let folder = std::env::temp_dir().join(format!("standpipe-{name}-{}", std::process::id()));
        eprintln!("==> start {}", [&[name], options].concat().join(" "));
        let output = Command::new(&script)
            .args(["start", "--parent", &std::process::id().to_string()])
            .args(options)
            .arg(&folder)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        if output.status.code() == Some(MISSING) {
            return Ok(None);
        }
        if !output.status.success() {
            bail!("{name} did not start ({})", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let address = text
            .lines()
            .find_map(|line| line.strip_prefix("bootstrap=").or_else(|| line.strip_prefix("url=")))
            .with_context(|| format!("{} printed no address: {text}", script.display()))?
            .to_owned();
        Ok(Some(Self { script, folder, address }))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let stopped = Command::new(&self.script).arg("stop").arg(&self.folder).stdout(Stdio::null()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("xtask: {} stop {} failed", self.script.display(), self.folder.display());
        }
        // Not every one keeps something there.
        if let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("xtask: cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// The interpreter that the Python client's tests run on; fetches it if need be.
pub(crate) fn python() -> Result<String> {
    let script = cargo::root().join("tests/services/python.sh");
    eprintln!("==> fetch pyarrow and pandas");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("pyarrow and pandas cannot be had ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The program that the tests of the chart run; builds it if need be. `None`: there is no Go that could, as the script has said.
pub(crate) fn helm() -> Result<Option<String>> {
    let script = cargo::root().join("tests/services/kubernetes.sh");
    let output =
        Command::new(&script).arg("helm").stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", script.display()))?;
    if output.status.code() == Some(MISSING) {
        return Ok(None);
    }
    if !output.status.success() {
        bail!("Helm cannot be had ({})", output.status);
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}
