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
    write(text).map(|_| ())
}

/// Writes a part of a result to stdout; false: its reader has had enough.
///
/// # Errors
/// As those of [`print()`].
pub(crate) fn write(text: &str) -> std::io::Result<bool> {
    write_bytes(text.as_bytes())
}

/// As [`write()`], for what is no text.
///
/// # Errors
/// As those of [`write()`].
pub(crate) fn write_bytes(bytes: &[u8]) -> std::io::Result<bool> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Lines of cells in columns, as wide as they must be.
pub(crate) fn columns(header: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(header).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}
