//! Waiting for a process that this one has started, and that may not come to its end: one that plans a pipeline, or cleans up after a job.

use std::{
    io,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// Between two looks for its end.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until it has ended; one that has not by then is killed.
///
/// # Errors
/// When it was killed; when the system does not say.
pub(super) fn wait(child: &mut Child, deadline: Instant) -> io::Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it takes more than {} s", begun.elapsed().as_secs())));
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let mut long = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(wait(&mut long, Instant::now() + LOOK).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(long.try_wait().unwrap().is_some());
        let mut short = Command::new("true").spawn().unwrap();
        assert!(wait(&mut short, Instant::now() + Duration::from_secs(60)).unwrap().success());
    }
}
