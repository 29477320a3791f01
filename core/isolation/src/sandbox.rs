//! Which files a plugin's process may use, kept by the kernel (Landlock): what the pipeline names, and what a program needs to run at all. Entered before anything of the plugin is loaded;
//! it goes for all threads and children of the process, and cannot be left.
//!
//! Files that the parent hands over are none of its business: standard input and output, shared memory.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    path_beneath_rules,
};
use serde::{Deserialize, Serialize};
use standpipe_loader::{Error, ErrorCode};
use std::path::{Path, PathBuf};

/// What a process may do with files; relative paths are so to the current directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Files, and directories with all that is in them, that it may read.
    pub read: Vec<PathBuf>,
    /// Those that it may also write, make and remove.
    pub write: Vec<PathBuf>,
}

/// Rights that Linux 6.2 knows: what later ones can besides is not taken away.
const RIGHTS: ABI = ABI::V3;
/// Libraries, settings of the system (names of hosts, time zones, certificates), what a process may know of itself and the machine. Those that are there.
const SYSTEM: [&str; 8] = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/run/systemd/resolve"];
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

impl Sandbox {
    /// Takes everything else from this process; `plugin` may be read.
    pub(crate) fn enter(&self, plugin: &Path) -> Result<(), Error> {
        let all = self.read.iter().chain(&self.write);
        all.map(PathBuf::as_path).try_for_each(there)?;
        self.restrict(plugin).map_err(|error| {
            let message = format!("isolation.sandbox cannot be kept: {error}; it needs Landlock, of Linux 6.2 or newer");
            Error::new(ErrorCode::UNSUPPORTED, message)
        })
    }

    fn restrict(&self, plugin: &Path) -> Result<(), RulesetError> {
        let (read, write) = (AccessFs::from_read(RIGHTS), AccessFs::from_all(RIGHTS));
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(write)?.create()?;
        let ruleset = ruleset.add_rules(path_beneath_rules(SYSTEM, read))?.add_rules(path_beneath_rules([plugin], read))?;
        let ruleset = ruleset.add_rules(path_beneath_rules(DEVICES, write))?;
        let ruleset = ruleset.add_rules(path_beneath_rules(&self.read, read))?.add_rules(path_beneath_rules(&self.write, write))?;
        ruleset.restrict_self().map(drop)
    }
}

/// A path that is not there is a mistake: no rule could name it.
fn there(path: &Path) -> Result<(), Error> {
    match PathFd::new(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let PathFdError::OpenCall { source, .. } = &error else { return Err(error.into()) };
            Err(Error::external(format!("isolation.sandbox: {}: {source}", path.display())))
        }
    }
}
