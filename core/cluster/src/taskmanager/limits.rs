//! What a worker process may have of this machine: control groups of the kernel (cgroups), version 1 or 2, whichever has the controllers. Each worker has a group of its own below
//! that of its task manager. One that wants more memory than it may have is killed by the kernel, and no other process with it.
//!
//! Version 2 lets no process stay in a group whose children have controllers, so the task manager moves into a child of its own; it must be alone in its group then, as it is
//! in a container or in a unit of systemd with `Delegate=yes`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Of the CPU's time, in microseconds: shares are counted in it.
const PERIOD: u64 = 100_000;
/// What groups of task managers begin with.
const PREFIX: &str = "standpipe-";

/// What the workers of a slot may have; none: all there is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Of so many processors all of the time.
    pub cpus: Option<f64>,
}

/// Why limits cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// Nobody has it here.
    #[error("workers cannot be limited: this machine has no cgroup controller {0:?}")]
    Controller(&'static str),
    /// It is not ours.
    #[error("workers cannot be limited: {path}: {source}")]
    System {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LimitsError {
    move |source| LimitsError::System { path: path.to_owned(), source }
}

fn write(path: &Path, text: &str) -> Result<(), LimitsError> {
    fs::write(path, text).map_err(at(path))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where a controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Controller {
    version: Version,
    /// The group of this process.
    own: PathBuf,
}

/// Finds a controller in what `/proc/self/mountinfo` and `/proc/self/cgroup` say.
fn find(controller: &str, mounts: &str, groups: &str) -> Option<Controller> {
    let mount = |version: Version| {
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            let is_it = match version {
                Version::One => kind == "cgroup" && options.split(',').any(|option| option == controller),
                Version::Two => kind == "cgroup2",
            };
            is_it.then_some((root, point))
        })
    };
    let own = |version: Version| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let is_it = match version {
                Version::One => controllers.split(',').any(|one| one == controller),
                Version::Two => controllers.is_empty(),
            };
            is_it.then_some(path)
        })
    };
    [Version::One, Version::Two].into_iter().find_map(|version| {
        let ((root, point), path) = (mount(version)?, own(version)?);
        // In a container the mount may show a part of the tree alone.
        let below = if root == "/" { path } else { path.strip_prefix(root).unwrap_or("") };
        Some(Controller { version, own: Path::new(point).join(below.trim_start_matches('/')) })
    })
}

/// The group of a task manager; dropped, it is removed.
#[derive(Debug)]
pub(super) struct Groups {
    limits: Limits,
    memory: Option<Controller>,
    cpu: Option<Controller>,
    name: String,
}

impl Groups {
    /// Tries whether workers can have these limits. None: there is nothing to limit.
    pub(super) fn open(limits: Limits) -> Result<Option<Self>, LimitsError> {
        if limits == Limits::default() {
            return Ok(None);
        }
        let read = |path: &str| fs::read_to_string(path).map_err(at(Path::new(path)));
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let wanted = |is_wanted: bool, name: &'static str| {
            let found = is_wanted.then(|| find(name, &mounts, &own).filter(|found| has(found, name)).ok_or(LimitsError::Controller(name)));
            found.transpose()
        };
        let (memory, cpu) = (wanted(limits.memory.is_some(), "memory")?, wanted(limits.cpus.is_some(), "cpu")?);
        let groups = Self { limits, memory, cpu, name: format!("{PREFIX}{}", std::process::id()) };
        for controller in groups.controllers() {
            remove_left(&controller.own);
            let folder = controller.own.join(&groups.name);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            if controller.version == Version::Two {
                groups.delegate(&controller.own)?;
            }
        }
        // As one will be made for a worker.
        drop(groups.group("trial", 1)?);
        Ok(Some(groups))
    }

    /// Both controllers of version 2 are in one tree.
    fn controllers(&self) -> Vec<&Controller> {
        let mut all: Vec<&Controller> = self.memory.iter().chain(&self.cpu).collect();
        all.dedup();
        all
    }

    /// Moves this process out of its group, so that the children of that may have controllers.
    fn delegate(&self, own: &Path) -> Result<(), LimitsError> {
        let leaf = own.join(format!("{}-itself", self.name));
        fs::create_dir_all(&leaf).map_err(at(&leaf))?;
        write(&leaf.join("cgroup.procs"), "0")?;
        let wanted: Vec<&str> = [("+memory", self.memory.is_some()), ("+cpu", self.cpu.is_some())]
            .iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| *name)
            .collect();
        write(&own.join("cgroup.subtree_control"), &wanted.join(" "))?;
        write(&own.join(&self.name).join("cgroup.subtree_control"), &wanted.join(" "))
    }

    /// A group for a worker of so many slots.
    pub(super) fn group(&self, name: &str, slots: u32) -> Result<Group, LimitsError> {
        let mut group = Group { folders: Vec::new(), memory: None, of: String::new() };
        if let (Some(controller), Some(per_slot)) = (&self.memory, self.limits.memory) {
            let folder = controller.own.join(&self.name).join(name);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            group.folders.push(folder.clone());
            let bytes = per_slot.saturating_mul(u64::from(slots));
            group.of = format!("{slots} slots of {per_slot} bytes each");
            match controller.version {
                Version::One => {
                    write(&folder.join("memory.limit_in_bytes"), &bytes.to_string())?;
                    // A kernel that counts no swap has no such file.
                    drop(fs::write(folder.join("memory.memsw.limit_in_bytes"), bytes.to_string()));
                    group.memory = Some(folder.join("memory.oom_control"));
                }
                Version::Two => {
                    write(&folder.join("memory.max"), &bytes.to_string())?;
                    drop(fs::write(folder.join("memory.swap.max"), "0"));
                    group.memory = Some(folder.join("memory.events"));
                }
            }
        }
        if let (Some(controller), Some(per_slot)) = (&self.cpu, self.limits.cpus) {
            let folder = controller.own.join(&self.name).join(name);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            if !group.folders.contains(&folder) {
                group.folders.push(folder.clone());
            }
            let quota = (per_slot * f64::from(slots) * PERIOD as f64).max(1_000.0) as u64;
            match controller.version {
                Version::One => {
                    write(&folder.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
                    write(&folder.join("cpu.cfs_quota_us"), &quota.to_string())?;
                }
                Version::Two => write(&folder.join("cpu.max"), &format!("{quota} {PERIOD}"))?,
            }
        }
        Ok(group)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for controller in self.controllers() {
            remove_tree(&controller.own.join(&self.name));
        }
    }
}

/// Whether a controller of version 2 may be used there; one of version 1 is there if it is mounted.
fn has(controller: &Controller, name: &str) -> bool {
    let listed = || fs::read_to_string(controller.own.join("cgroup.controllers")).unwrap_or_default();
    controller.version == Version::One || listed().split_whitespace().any(|one| one == name)
}

/// A group has no files that could be removed, only groups below it.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // One that still has a process stays, and is removed by a later task manager.
    drop(fs::remove_dir(folder));
}

/// Removes what task managers have left that were killed.
fn remove_left(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).map(|rest| rest.trim_end_matches("-itself").to_owned());
        if pid.and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_tree(&entry.path());
        }
    }
}

/// The group of a worker; dropped, it is removed.
#[derive(Debug)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
    /// What counts the processes that the kernel has killed for memory.
    memory: Option<PathBuf>,
    of: String,
}

impl Group {
    /// A process, with all that it will start.
    pub(super) fn add(&self, process: u32) -> Result<(), LimitsError> {
        self.folders.iter().try_for_each(|folder| write(&folder.join("cgroup.procs"), &process.to_string()))
    }

    /// Why the kernel has killed it, if it was for its memory.
    pub(super) fn verdict(&self) -> Option<String> {
        let counted = fs::read_to_string(self.memory.as_ref()?).ok()?;
        let killed = counted.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse::<u64>().ok()?;
        (killed > 0)
            .then(|| format!("it wanted more memory than it may have ({}: taskmanager --memory-per-slot), and was killed for it", self.of))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.folders.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const OWN: &str = "4:memory:/docker/ab/x\n1:cpu,cpuacct:/\n0::/user.slice\n";

    #[test]
    fn controllers_are_found_where_they_are() {
        let one = |path: &str| Some(Controller { version: Version::One, own: PathBuf::from(path) });
        assert_eq!(find("memory", MOUNTS, OWN), one("/sys/fs/cgroup/memory/x"));
        assert_eq!(find("cpu", MOUNTS, OWN), one("/sys/fs/cgroup/cpu,cpuacct"));
        let unified = "41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let two = Some(Controller { version: Version::Two, own: PathBuf::from("/sys/fs/cgroup/user.slice/a.scope") });
        assert_eq!(find("memory", unified, "0::/user.slice/a.scope\n"), two);
        assert_eq!(find("memory", "", OWN), None);
        assert_eq!(find("memory", "nonsense\n - \n", "x\n"), None);
    }

    #[test]
    fn nothing_is_asked_of_the_kernel_where_nothing_is_limited() {
        assert!(Groups::open(Limits::default()).unwrap().is_none());
    }
}
