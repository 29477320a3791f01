//! How long a minimal job takes from start to end. The goal, 100 ms, is measured in `benches/`; here only a gross mistake fails.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, standpipe};
use std::time::Duration;

const MINIMAL: &str = "
name: minimal
sources:
  one: {connector: generator, with: {count: 1, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: one, connector: print, format: json}
";

#[test]
fn a_minimal_job_starts_and_ends_quickly() {
    let folder = Folder::new();
    folder.write("minimal.yaml", MINIMAL);
    let run = || {
        let finished = standpipe(["run", "minimal.yaml"]).in_directory(folder.path()).finish().code(0);
        assert_eq!(finished.stdout, "{\"n\":0}\n");
        finished.elapsed
    };
    let best = (0..10).map(|_| run()).min().unwrap();
    println!("a minimal job, best of 10: {best:?}");
    assert!(best < Duration::from_secs(1), "{best:?}");
}
