//! Real services in tests: where one is, and what a test does without it.

use std::{env, fs::OpenOptions, io::Write, thread};

/// The address of a real service, out of the environment variable `variable`. `None`: there is none, and the test is to return. It has been noted as skipped, on stderr and
/// in the file that `STANDPIPE_TEST_SKIPPED` names.
///
/// # Panics
/// When there is none and `STANDPIPE_TEST_REQUIRE_SERVICES` is set, or when the note cannot be written: a test must not be left out in silence.
#[must_use]
#[track_caller]
#[allow(clippy::panic, reason = "fails the test")]
pub fn service(variable: &str) -> Option<String> {
    if let Some(address) = env::var(variable).ok().filter(|address| !address.is_empty()) {
        return Some(address);
    }
    assert!(env::var_os("STANDPIPE_TEST_REQUIRE_SERVICES").is_none(), "{variable} is required here, and it is not set");
    let line = format!("{}: needs {variable}\n", thread::current().name().unwrap_or("a test"));
    eprint!("skipped {line}");
    if let Some(path) = env::var_os("STANDPIPE_TEST_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // One write per line: several test processes append at the same time.
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            panic!("{}: {error}", path.display());
        }
    }
    None
}
