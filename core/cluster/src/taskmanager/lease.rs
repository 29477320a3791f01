//! Until when workers may run, in a file that their task manager writes and each of them reads: a task manager that is stopped (SIGSTOP, a frozen machine) cannot end them, and
//! the job manager gives their work to others when the lease is over. So each of them ends itself.
//!
//! The clock is that of the machine since it was booted, which goes on while it sleeps, and is the same in all of its processes.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// Between two looks at a file that cannot be read.
const RETRY: Duration = Duration::from_millis(100);

/// The time since the machine was booted. Where the kernel does not say: since the process has first asked.
pub(super) fn now() -> Duration {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    since_boot().unwrap_or_else(|| FIRST.elapsed())
}

fn since_boot() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

/// The task manager's end.
#[derive(Debug)]
pub(super) struct Lease(File);

impl Lease {
    /// One that is over.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let lease = Self(File::create(path)?);
        lease.extend(Duration::ZERO).map(|()| lease)
    }

    /// Until that time.
    pub(super) fn extend(&self, until: Duration) -> io::Result<()> {
        // In its place, so that a full disk ends nobody; twice, so that who reads half of it knows.
        self.0.write_all_at(format!("{0:020} {0:020}\n", until.as_millis()).as_bytes(), 0)
    }
}

fn read(path: &Path) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    let (one, two) = text.trim_end().split_once(' ')?;
    (one == two).then_some(())?;
    one.parse().ok().map(Duration::from_millis)
}

/// Calls `end` when the lease in that file is over, on a thread of its own. A file that is not there any more is as good as one that nobody extends.
///
/// # Errors
/// When no thread can be started, or the clock cannot be read.
pub fn watch(path: &Path, end: impl FnOnce() + Send + 'static) -> io::Result<()> {
    since_boot().ok_or_else(|| io::Error::other("/proc/uptime cannot be read"))?;
    let path = path.to_owned();
    let watch = move || {
        let mut until = now() + Duration::from_secs(1);
        loop {
            let found = read(&path);
            until = found.unwrap_or(until);
            let left = until.saturating_sub(now());
            if left.is_zero() {
                return end();
            }
            thread::sleep(if found.is_some() { left } else { left.min(RETRY) });
        }
    };
    thread::Builder::new().name("lease".to_owned()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, RecvTimeoutError};

    #[test]
    fn whoever_watches_ends_when_nobody_extends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let lease = Lease::create(&path).unwrap();
        lease.extend(now() + Duration::from_millis(300)).unwrap();
        let (ended, end) = mpsc::channel();
        let begun = Instant::now();
        watch(&path, move || ended.send(()).unwrap()).unwrap();
        let until = now() + Duration::from_millis(1_200);
        lease.extend(until).unwrap();
        assert_eq!(end.recv_timeout(Duration::from_millis(600)), Err(RecvTimeoutError::Timeout));
        end.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(1_150), "{:?}", begun.elapsed());
        // The task manager is gone, and its folder.
        let (ended, end) = mpsc::channel();
        watch(&folder.path().join("nothing"), move || ended.send(()).unwrap()).unwrap();
        end.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn half_of_a_lease_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        Lease::create(&path).unwrap().extend(Duration::from_millis(7)).unwrap();
        assert_eq!(read(&path), Some(Duration::from_millis(7)));
        for text in ["", "00000000000000000007", "00000000000000000007 00000000000000000008\n", "x x"] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path), None, "{text}");
        }
    }
}
