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
/// Jobs that do not run here any more and whose rows can still be collected.
const MOST_COLLECTED: usize = 50;

/// Keeps others out until it is dropped.
pub(super) fn lock(data: &Path) -> Result<File, TaskManagerError> {
    let file = File::options().read(true).append(true).create(true).open(data.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TaskManagerError::Taken(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Removes the oldest logs, and the oldest rows that users collect, of jobs that are not among these.
pub(super) fn prune(folder: &Path, running: &BTreeSet<String>) {
    prune_all(folder, running, &["log", "before"], MOST_LOGS, |log| drop(fs::remove_file(log)));
    prune_all(folder, running, &["collect"], MOST_COLLECTED, |rows| drop(fs::remove_dir_all(rows)));
}

fn prune_all(folder: &Path, running: &BTreeSet<String>, extensions: &[&str], most: usize, remove: impl Fn(&Path)) {
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let is_old = |path: &PathBuf| {
        let is_one = path.extension().is_some_and(|extension| extensions.iter().any(|one| extension == *one));
        is_one && path.file_stem().and_then(|job| job.to_str()).is_none_or(|job| !running.contains(job))
    };
    let own = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    // A folder does not change with what is written into one below it.
    let below = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| own(&entry.path())).max();
    let modified = |path: &Path| own(path).max(below(path).unwrap_or(SystemTime::UNIX_EPOCH));
    let mut old: Vec<(SystemTime, PathBuf)> = found.filter(is_old).map(|path| (modified(&path), path)).collect();
    old.sort();
    old.truncate(old.len().saturating_sub(most));
    old.iter().for_each(|(_, path)| remove(path));
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
        for i in 0..MOST_COLLECTED + 2 {
            fs::create_dir_all(path(&format!("{i:03}.collect/out"))).unwrap();
            File::open(path(&format!("{i:03}.collect")))
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(i as u64))
                .unwrap();
        }
        prune(folder.path(), &["000".to_owned()].into());
        let there = |name: &str| path(name).exists();
        assert!(there("000.collect/out") && !there("001.collect") && there("002.collect"));
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
