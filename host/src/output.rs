//! What the user reads: results on stdout, everything else on stderr. Neither may end the process by being closed: `standpipe schema | head` is no error, and a job
//! whose stderr is gone must still stop when it is told to. So nothing here panics, as `println!` and `eprintln!` do.

use std::io::{ErrorKind, Write, stderr, stdout};

/// Writes a line to stderr, where there is somebody to read it.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// See the macro.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    // One write, so that lines of several threads do not mix; there is nobody to tell that it failed.
    drop(stderr().lock().write_all(format!("{text}\n").as_bytes()));
}

/// Writes a result to stdout as it is. A reader that has had enough has got what it wanted.
///
/// # Errors
/// When it cannot be written for another reason, such as a full disk.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
