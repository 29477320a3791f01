//! The folder of a task manager's data, of which one at a time has it: blobs, jobs' folders and their logs.

use super::TaskManagerError;
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Jobs' folders and logs.
pub(super) const JOBS: &str = "jobs";
const LOCK: &str = "lock";
/// Logs of jobs that do not run here any more.
const MOST_LOGS: usize = 200;

/// Keeps others out until it is dropped.
pub(super) fn lock(data: &Path) -> Result<File, TaskManagerError> {
    let file = File::options().read(true).append(true).create(true).open(data.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TaskManagerError::Taken(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Removes the oldest logs of jobs that are not among these.
pub(super) fn prune_logs(folder: &Path, running: &BTreeSet<String>) {
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let is_old_log = |path: &PathBuf| {
        let is_log = path.extension().is_some_and(|extension| extension == "log" || extension == "before");
        is_log && path.file_stem().and_then(|job| job.to_str()).is_none_or(|job| !running.contains(job))
    };
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut logs: Vec<(SystemTime, PathBuf)> = found.filter(is_old_log).map(|path| (modified(&path), path)).collect();
    logs.sort();
    logs.truncate(logs.len().saturating_sub(MOST_LOGS));
    logs.iter().for_each(|(_, log)| drop(fs::remove_file(log)));
}

/// What a task manager that ends does not leave behind: the next one begins with nothing. What jobs have written stays, and their logs.
pub(super) fn leave(data: &Path) {
    drop(fs::remove_dir_all(data.join("blobs")));
    drop(fs::remove_dir(data.join(JOBS)));
    if fs::read_dir(data).is_ok_and(|left| left.count() == 1) {
        drop(fs::remove_file(data.join(LOCK)));
        drop(fs::remove_dir(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_folder_is_of_one_task_manager() {
        let folder = tempfile::tempdir().unwrap();
        let own = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(TaskManagerError::Taken(_))));
        drop(own);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn the_oldest_logs_go_and_nothing_that_a_job_has_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for i in 0..MOST_LOGS + 2 {
            let file = File::create(path(&format!("{i:03}.log"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(i as u64)).unwrap();
        }
        fs::create_dir(path("000")).unwrap();
        fs::write(path("000/out.jsonl"), "{}").unwrap();
        prune_logs(folder.path(), &["000".to_owned()].into());
        let there = |name: &str| path(name).exists();
        assert!(there("000.log") && !there("001.log") && there("002.log") && there("000/out.jsonl"));
    }

    #[test]
    fn nothing_is_left_of_a_task_manager_that_had_no_job() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("blobs/writing")).unwrap();
        let own = lock(&data).unwrap();
        leave(&data);
        drop(own);
        assert!(!data.exists());
        fs::create_dir_all(data.join("jobs/j")).unwrap();
        let _own = lock(&data).unwrap();
        leave(&data);
        assert!(data.join("jobs/j").exists());
    }
}
